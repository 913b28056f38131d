"""Start and stop of one serving process."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Iterator

import structlog
import uvicorn
from starlette.applications import Starlette

from app.settings import Settings, SettingsError

logger = structlog.get_logger(__name__)

_LAST_ANSWERS_SECONDS = 1
"""For probes and scrapes in flight on the admin port when all else has ended."""


class _AdminServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the server of the API: its stop ends the lifespan, and with it this server."""
        yield


@contextlib.asynccontextmanager
async def admin_server(operations: Starlette, settings: Settings) -> AsyncIterator[None]:
    """Serve the admin port beside the API, in the same process and event loop."""
    listener = listen(settings.admin_host, settings.admin_port, "ADMIN_PORT")
    config = uvicorn.Config(
        operations,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_LAST_ANSWERS_SECONDS,
    )
    server = _AdminServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="admin server")
    try:
        yield
    finally:
        server.should_exit = True
        await task


def listen(host: str, port: int, variable: str) -> socket.socket:
    """A listening socket.

    :param variable: name of the setting that holds the port; the host's is the same with HOST for PORT.
    :raises SettingsError: if the address cannot be had; the message names the variable to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except socket.gaierror:
        host_variable = variable.replace("PORT", "HOST")
        raise SettingsError(f"{host_variable}: {host} is no address of this machine. Set {host_variable}.") from None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise SettingsError(
            f"{variable}: cannot listen on {host}:{port}: {reason}. Set {variable} to another port."
        ) from None
