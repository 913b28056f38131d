"""What the callers were told, for the audit."""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

GRACE_SECONDS = 5.0
"""After everything is ready again, for answers that were on their way, and for connections found dead at first use."""


@dataclass
class Attempt:
    """A single write. ``token`` is in its document, so that it can be found whatever was answered."""

    token: str
    kind: str
    seq: int | None = None
    """As answered; ``None``: no answer, or one that leaves it open."""
    refused: bool = False
    """The answer said that nothing was written."""
    insisted: bool = False
    """It was sent until it was answered, with an ``Idempotency-Key``."""


@dataclass
class Applied:
    """An import that was answered as applied."""

    id: str
    first_seq: int | None
    last_seq: int | None
    records: int


@dataclass
class Record:
    """Shared by all callers."""

    attempts: list[Attempt] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    not_applied: set[str] = field(default_factory=set)
    """Imports that were answered as closed without effect."""
    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By the name of a fault: after how many seconds every server wrote and read again."""
    _trouble: list[tuple[float, str]] = field(default_factory=list)
    _windows: list[list[float]] = field(default_factory=list)

    def violation(self, what: str) -> None:
        """Something that must not be."""
        self.violations.append(what)
        print(f"VIOLATION: {what}", flush=True)

    def trouble(self, what: str) -> None:
        """Something that may be around a fault, and only then."""
        self._trouble.append((time.monotonic(), what))

    def fault_begins(self) -> None:
        """From now on trouble is expected."""
        self._windows.append([time.monotonic(), float("inf")])

    def fault_is_over(self) -> None:
        """Everything is ready again."""
        self._windows[-1][1] = time.monotonic() + GRACE_SECONDS

    def judge_trouble(self) -> None:
        """Name the trouble that no fault explains."""
        for at, what in self._trouble:
            if not any(begin <= at <= end for begin, end in self._windows):
                self.violation(f"in calm times: {what}")
        self._trouble.clear()
