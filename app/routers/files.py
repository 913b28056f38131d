"""Operations that answer with files."""

from typing import ClassVar

from app.exact_json import ExactJsonRoute

CSV, NDJSON = "text/csv", "application/x-ndjson"


class FileRoute(ExactJsonRoute):
    """A route that may answer with price lists as files."""

    produces: ClassVar[frozenset[str]] = frozenset({CSV, NDJSON})
