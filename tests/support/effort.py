"""How much is tried by tests that make things up: some in the ordinary run, much with ``make fuzz``."""

import os


def examples(ordinary: int, *, of_fuzz: int) -> int:
    """How many examples a test tries: so many in the ordinary run, or one in ``of_fuzz`` of ``FUZZ_EXAMPLES``."""
    wanted = os.environ.get("FUZZ_EXAMPLES")
    return max(int(wanted) // of_fuzz, 1) if wanted else ordinary
