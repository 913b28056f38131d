"""`python -m bench`: what a price read and a quote cost, beside a bare answer and beside a tutorial's stack."""


class BenchFailed(Exception):
    """The comparison could not be made, or means nothing; the message says why in one line."""
