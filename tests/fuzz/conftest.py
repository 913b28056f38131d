"""How many inputs each target gets: a few in the ordinary run, many with ``make fuzz``."""

import os

from hypothesis import settings

if examples := os.environ.get("FUZZ_EXAMPLES"):
    settings.register_profile("fuzz", max_examples=int(examples), deadline=None)
    settings.load_profile("fuzz")
