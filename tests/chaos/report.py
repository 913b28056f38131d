"""What a campaign comes to, as two tables, which a page may take between its markers."""

import statistics
from pathlib import Path

from tests.chaos.campaign import Campaign

_BEGIN, _END = "<!-- chaos: begin -->\n", "<!-- chaos: end -->"

_LINES = [
    "writes confirmed",
    "writes with a key, each there exactly once",
    "requests sent again with their key",
    "answers replayed for their key",
    "writes left open",
    "writes left open that had been committed",
    "clients that hung up",
    "current prices read",
    "quotes",
    "pinned answers read",
    "imports applied",
    "imports conflict",
    "imports failed",
    "imports expired",
    "imports previewed",
    "applies cut off: everything written",
    "applies cut off: nothing yet written",
    "imports that met one whose answer was lost",
    "uploads cut off or refused",
    "uploads that the client cut off",
    "uploads left open, then expired",
    "kills of pricebook follow",
    "warnings: reads go to the primary",
    "answers 503",
    "connections lost or refused",
]


def tables(campaign: Campaign) -> str:
    """Markdown: the faults, and the counts."""
    recoveries = campaign.record.recoveries
    lines = ["| Fault | Rounds | Recovered after, p50 | at most |", "| --- | ---: | ---: | ---: |"]
    for name, seconds in sorted(recoveries.items()):
        lines.append(f"| {name} | {len(seconds)} | {statistics.median(seconds):.1f} s | {max(seconds):.1f} s |")
    every = [second for seconds in recoveries.values() for second in seconds]
    lines.append(f"| **all** | {len(every)} | {statistics.median(every):.1f} s | {max(every):.1f} s |")
    lines += ["", "| What | Count |", "| --- | ---: |"]
    lines += [f"| {name} | {count} |" for name, count in _counts(campaign)]
    return "\n".join(lines)


def _counts(campaign: Campaign) -> list[tuple[str, str]]:
    record = campaign.record
    rows = [(name, f"{record.counts[name]:,}") for name in _LINES]
    rows.append(("changes", f"{campaign.head:,}"))
    rows += [
        (f"consumer, {consumer.name}: changes in {consumer.connections:,} connections", f"{consumer.seq:,}")
        for consumer in (campaign.load.consumers if campaign.load else [])
    ]
    for server, seen in campaign.resources.seen.items():
        warm = campaign.resources.warm[server]
        most = (max(held.mib for held in seen), max(held.files for held in seen))
        mib, files = zip(warm, most, seen[-1], strict=True)
        rows.append((f"MiB of {server}: warm, at most, at the end", ", ".join(f"{number:.0f}" for number in mib)))
        rows.append((f"open files of {server}: the same", ", ".join(map(str, files))))
    rows.append(("**violations**", f"{len(record.violations):,}"))
    return rows


def write(page: Path, text: str) -> None:
    """Put a text into a page, between its two markers."""
    head, rest = page.read_text().split(_BEGIN)
    page.write_text(f"{head}{_BEGIN}{text}\n{_END}{rest.split(_END)[1]}")
