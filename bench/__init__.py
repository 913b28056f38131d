"""`python -m bench`: what a price read costs, beside a bare answer and beside a tutorial's stack."""


class BenchFailed(Exception):
    """The comparison could not be made, or means nothing; the message says why in one line."""
