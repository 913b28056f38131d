"""Runs the application under gunicorn's ASGI worker, or under uvicorn: one serving process, as a pod has it."""

import contextlib
import signal
import socket
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from gunicorn.app.base import BaseApplication

from app.lifespan import listen
from app.main import create_app
from app.observability import logs
from app.settings import Settings


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    :raises SettingsError: if a port cannot be had.
    """
    logs.configure(settings)
    listener = claim_ports(settings)
    if settings.server == "uvicorn":
        serve_with_uvicorn(settings, listener)
    else:
        _Gunicorn(settings, listener).run()


def claim_ports(settings: Settings) -> socket.socket:
    """Listen on the API's port, and see that the admin port is free, before anything else starts.

    :raises SettingsError: if one of them is not; the message says which setting to change.
    """
    listen(settings.admin_host, settings.admin_port, "ADMIN_PORT").close()
    return listen(settings.host, settings.port, "PORT")


def serve_with_uvicorn(settings: Settings, listener: socket.socket) -> None:
    """Serve under uvicorn, in this process, until SIGTERM or SIGINT."""
    # uvicorn repeats the signal when it has ended its work in order: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(settings, with_admin_port=True)

    class _Uvicorn(uvicorn.Server):
        """Turns readiness off at the signal; requests in flight go on."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.readiness.stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.graceful_timeout_seconds,
    )
    with contextlib.suppress(KeyboardInterrupt):
        _Uvicorn(config).run(sockets=[listener])


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn, told by our settings what its command line would tell it."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn."""
        self.cfg.set("bind", f"fd://{self._listener.fileno()}")
        self.cfg.set("worker_class", "app.gunicorn_worker.Worker")
        self.cfg.set("workers", 1)
        self.cfg.set("graceful_timeout", self._settings.graceful_timeout_seconds)
        self.cfg.set("logger_class", "app.observability.gunicorn_logger.Logger")
        self.cfg.set("control_socket_disable", True)
        self.cfg.set("asgi_lifespan", "on")

    def load(self) -> FastAPI:
        """Build the application, in the worker."""
        return create_app(self._settings, with_admin_port=True)
