"""What a campaign comes to, as a table."""

from tests.kills.campaign import Campaign

_LINES = [
    "writes confirmed",
    "writes left open",
    "writes left open that had been committed",
    "imports applied",
    "imports conflict",
    "imports failed",
    "imports expired",
    "imports previewed",
    "imports killed in their apply",
    "applies cut off: everything written",
    "applies cut off: nothing written",
    "uploads cut off or refused",
    "uploads that the client cut off",
    "uploads left open, then expired",
    "kills of pricebook follow",
    "answers 503",
    "connections lost or refused",
]


def table(campaign: Campaign) -> str:
    """Markdown."""
    record = campaign.record
    kills = {name: count for name, count in sorted(record.counts.items()) if name.startswith("kills: ")}
    rows = [(f"rounds: {name.removeprefix('kills: ')}", count) for name, count in kills.items()]
    rows.append(("**rounds**", sum(kills.values())))
    rows += [(name, record.counts[name]) for name in _LINES]
    rows.append(("changes", campaign.head))
    rows += [
        (f"consumer, {consumer.name}: changes in {consumer.connections} connections", consumer.seq)
        for consumer in campaign.consumers
    ]
    rows.append(("**violations**", len(record.violations)))
    return "\n".join(["| What | Count |", "| --- | ---: |", *(f"| {name} | {count:,} |" for name, count in rows)])
