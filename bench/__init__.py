"""`python -m bench`: what reads, writes, quotes and imports cost, beside others that answer the same, in one run."""

from pathlib import Path

_DATA = Path(__file__).parent.parent / ".data"
POSTGRES = _DATA / "bench"
"""The data directory of the bench's PostgreSQL."""
RIVALS = _DATA / "rivals"
"""Where rivals in other languages are built."""
RESULTS = _DATA / "results"
"""Where the figures of the last runs are kept, as JSON."""


class BenchFailed(Exception):
    """The comparison could not be made, or means nothing; the message says why in one line."""
