"""Modules that libraries import if they are there, and that serving has no use for."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def absent(*names: str) -> Iterator[None]:
    """Let what is imported during the block find these modules missing, as if they were not installed."""
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    # The import system's own way to say that there is no such module.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # typeshed knows modules only
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)
