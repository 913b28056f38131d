"""What the person who runs a command can mend."""

from typing import ClassVar


class Failure(Exception):
    """Base of errors that end a command with their message alone."""

    heading: ClassVar[str] = ""
    """Goes before the message."""
