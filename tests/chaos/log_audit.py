"""What the servers' logs say: warnings are counted, and every error that no kill explains is a violation."""

import json
from collections import Counter

from tests.chaos.fleet import Fleet
from tests.chaos.record import Record


def compare(fleet: Fleet, record: Record) -> None:
    """Read the logs of all servers."""
    for server in fleet.servers:
        kinds: Counter[str] = Counter()
        for line in server.log.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                kinds[line[:300]] += 1
                continue
            if entry["level"] == "warning":
                record.counts[f"warnings: {entry['event']}"] += 1
            else:
                kinds[f"{entry['level']}: {entry['event']}"] += 1
        for kind, count in kinds.items():
            record.violation(f"{server.name} logged {count} times: {kind}")
