"""What the servers' logs say: warnings are counted, and errors that no fault explains are violations."""

import json
from collections import Counter
from typing import Any

from tests.chaos.fleet import Fleet
from tests.chaos.record import Record
from tests.support.access import KEYS

_KILLED = ("Worker (pid:", "Shutting down: Master", "Reason: The process that serves the requests ended")
"""What gunicorn says of a worker that was killed. That no other one ended is looked at after each round."""

_CUT_OFF = {"DatabaseUnavailable", "Busy"}
"""Whatever ends an answer after its head can only cut the connection, and is logged as what it was."""


def compare(fleet: Fleet, record: Record) -> None:
    """Read the logs of all servers."""
    for server in fleet.servers:
        errors: Counter[str] = Counter()
        if KEYS.search(server.log.read_bytes()):
            record.violation(f"{server.name} logged a key")
        for line in server.log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                errors[line[:300]] += 1
                continue
            if entry["level"] == "warning":
                record.counts[f"warnings: {entry['event']}"] += 1
            elif entry["level"] in ("error", "critical"):
                if entry["event"].startswith(_KILLED):
                    continue
                if _CUT_OFF & {raised["exc_type"] for raised in _raised(entry)}:
                    record.counts[f"answers cut off in their middle: {entry['event']}"] += 1
                else:
                    errors[f"{entry['event']} {[raised['exc_type'] for raised in _raised(entry)]}"] += 1
        for what, count in errors.items():
            record.violation(f"{server.name} logged {count} times: {what}")


def _raised(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return entry.get("exception") or []
