"""What the figures of one run come to, beside what Pricebook means to reach. All of it is ratios, so it travels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from bench.load import Run
from bench.works import BARE, COLD, HOT, LIST, LOOKUP, PGBENCH, POCKETBASE, READ, TUTORIAL, WRITE

Figures = Mapping[str, Mapping[str, Run]]
"""Medians by work, then by who did it."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Something to reach. ``value`` must be at least ``bound``, or at most, if ``less`` is better."""

    what: str
    value: float
    bound: float
    unit: str = "x"
    less: bool = False

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.value <= self.bound if self.less else self.value >= self.bound

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """What, the goal, what was measured, whether it is reached."""
        sign = "at most" if self.less else "at least"
        return (
            self.what,
            f"{sign} {self.bound:g} {self.unit}",
            f"{self.value:.2f} {self.unit}",
            "yes" if self.reached else "no",
        )


@dataclass(frozen=True, slots=True)
class Start:
    """A process that was started on a database in order: seconds until it was ready, and MiB that it then held."""

    seconds: float
    resident: float
    shared_out: float


def _rate(run: Run) -> float:
    return run.requests_per_second


def _per_cpu(run: Run) -> float:
    return 1 / run.cpu


_RATIOS: tuple[tuple[str, tuple[str, str], tuple[str, str], Callable[[Run], float], float], ...] = (
    ("cached read: requests/s of the bare answer's", (READ, HOT), (READ, BARE), _rate, 0.8),
    ("cached read: requests/s of the tutorial's read", (READ, HOT), (READ, TUTORIAL), _rate, 20),
    ("cached read: requests per CPU second of PocketBase's", (READ, HOT), (READ, POCKETBASE), _per_cpu, 2),
    ("read: requests/s of the tutorial's", (READ, COLD), (READ, TUTORIAL), _rate, 4),
    ("cached list of 50: requests/s of the tutorial's", (LIST, HOT), (LIST, TUTORIAL), _rate, 6),
    ("cached list of 50: requests per CPU second of PocketBase's", (LIST, HOT), (LIST, POCKETBASE), _per_cpu, 1),
    ("list of 50 from the database: requests/s of the tutorial's", (LIST, COLD), (LIST, TUTORIAL), _rate, 6),
    ("list of 50 from the database: per CPU second of PocketBase's", (LIST, COLD), (LIST, POCKETBASE), _per_cpu, 1),
    ("write, 32 writers: requests/s of pgbench's transactions/s", (WRITE, COLD), (WRITE, PGBENCH), _rate, 0.5),
)


def goals(figures: Figures, import_share: float | None, start: Start | None) -> Iterator[Goal]:
    """All that these figures say something about.

    :param import_share: what COPY and indexes took, as a share of an import's preview and apply.
    """

    def of(place: tuple[str, str]) -> Run | None:
        return figures.get(place[0], {}).get(place[1])

    for what, ours, theirs, measure, bound in _RATIOS:
        if (one := of(ours)) and (other := of(theirs)):
            yield Goal(what, measure(one) / measure(other), bound)
    for what, name in (("cached lookup of 100", HOT), ("lookup of 100 from the database", COLD)):
        if (lookup := of((LOOKUP, name))) and (read := of((READ, COLD))):
            yield Goal(f"{what}: CPU time of a read's from the database", lookup.cpu / read.cpu, 3, less=True)
    if import_share is not None:
        yield Goal("import, preview and apply: speed of COPY and indexes", import_share, 0.3)
    if start is not None:
        yield Goal("start to ready", start.seconds, 1.5, "s", less=True)
        yield Goal("memory when idle (PSS)", start.shared_out, 120, "MiB", less=True)
