"""What processes use, read from Linux's ``/proc``: a server with all of its children counts as one."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tree of processes holds, in MiB. ``shared_out`` counts pages that several of them share in parts (PSS)."""

    resident: float
    shared_out: float


@dataclass(frozen=True, slots=True)
class Stat:
    """A process: its parent, and processor ticks of itself and of those of its children that have ended."""

    parent: int
    ticks: int


def parse_stat(text: str) -> Stat:
    """Read a ``/proc/PID/stat``. The command's name, in brackets, may have blanks and brackets of its own."""
    fields = text.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), ticks=sum(map(int, fields[11:15])))


def family(pid: int, parents: Mapping[int, int]) -> set[int]:
    """A process and everything below it."""
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process, of all below it, and of those of them that have ended, in seconds."""
    stats = dict(_stats())
    members = family(pid, {child: stat.parent for child, stat in stats.items()}) & stats.keys()
    return sum(stats[member].ticks for member in members) / _TICKS_PER_SECOND


def memory(pid: int) -> Memory:
    """What a process and all below it hold."""
    parents = {child: stat.parent for child, stat in _stats()}
    sizes = [_rollup(member) for member in family(pid, parents)]
    return Memory(*(sum(size[name] for size in sizes) / 1024 for name in ("Rss", "Pss")))


def _stats() -> Iterator[tuple[int, Stat]]:
    for directory in _PROC.iterdir():
        if directory.name.isdigit():
            try:
                yield int(directory.name), parse_stat((directory / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # It has ended meanwhile.


def _rollup(pid: int) -> dict[str, int]:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {"Rss": 0, "Pss": 0}
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
