"""Runs the application under gunicorn's ASGI worker, or under uvicorn: one serving process, as a pod has it."""

import contextlib
import gc
import math
import resource
import signal
import socket
import sys
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

from app import uvicorn_protocol
from app.connections import MOST_FIELDS, MOST_HEAD_BYTES, MOST_LINE_BYTES
from app.lifespan import listen
from app.main import create_app
from app.observability import logs
from app.settings import Settings
from app.traffic import Drain

logger = structlog.get_logger(__name__)

_OTHER_FILES = 1_000
"""Open files that are no client's connections: the admin port's, those to the database, spools of uploads."""

_CLOSING_SECONDS = 9
"""For what comes after the last request of a stop: the admin port, connections to the database, the last spans. Whoever
stops the process grants 10 (docs/operate.md)."""


def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    :raises SettingsError: if a port cannot be had.
    """
    logs.configure(settings)
    listener = claim_ports(settings)
    # Collections need not look through what is imported: that would take time, and gunicorn's worker would have to copy
    # the pages that it shares with the master.
    gc.freeze()
    gc.enable()
    if settings.server == "uvicorn":
        serve_with_uvicorn(settings, listener)
    else:
        _Gunicorn(settings, listener).run()


def claim_ports(settings: Settings) -> socket.socket:
    """Listen on the API's port, and see that the admin port is free, before anything else starts.

    :raises SettingsError: if one of them is not; the message says which setting to change.
    """
    listen(settings.admin_host, settings.admin_port, "ADMIN_PORT").close()
    listener = listen(settings.host, settings.port, "PORT")
    _allow_files(settings.max_connections + _OTHER_FILES)
    _limit_dead_clients(listener, settings.client_timeout_seconds)
    return listener


def _allow_files(needed: int) -> None:
    """Let the process have so many open files: without a file left for them, probes would fail, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        logger.warning("MAX_CONNECTIONS is more than this process may have open", may_open=hard, needs=needed)


def _limit_dead_clients(listener: socket.socket, seconds: int) -> None:
    """Let the kernel end connections whose client is gone or reads nothing. Accepted sockets inherit it.

    A server that waits for such a client cannot end it by a close, which would wait for the client as well.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 4))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, seconds * 1000)


def serve_with_uvicorn(settings: Settings, listener: socket.socket) -> None:
    """Serve under uvicorn, in this process, until SIGTERM or SIGINT."""
    # uvicorn repeats the signal when it has ended its work in order: that is no failure.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(settings, with_admin_port=True)
    config = uvicorn_protocol.Config(
        app,
        settings,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.graceful_timeout_seconds,
    )
    with contextlib.suppress(KeyboardInterrupt):
        _Uvicorn(config, Drain(app.state.traffic, settings.drain_seconds)).run(sockets=[listener])


class _Uvicorn(uvicorn.Server):
    """uvicorn, with a drain between SIGTERM and its own graceful stop."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. An interrupt ends the drain, and a second one the wait for requests in flight."""
        if sig == signal.SIGINT and sig not in self._captured_signals:
            self.should_exit = False  # uvicorn would take it for the second one after SIGTERM.
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to stop serving."""
        if not await super().on_tick(counter):
            return False
        self._drain.begin()
        if signal.SIGINT in self._captured_signals:
            self._drain.cut_short()
        return self._drain.is_over(len(self.server_state.connections))


def _end_with_the_worker(arbiter: Arbiter, _worker: object) -> None:
    """gunicorn would start another worker, and nobody would learn why requests were lost."""
    stopping = not arbiter.LISTENERS
    if not stopping:
        raise HaltServer(
            "The process that serves the requests ended, though nobody stopped it. The lines before say how; if it was "
            "SIGKILL, it probably used more memory than it may.",
            exit_status=1,
        )


class _Gunicorn(BaseApplication):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn, told by our settings what its command line would tell it."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self.settings = settings
        self._listener = listener.detach()  # gunicorn closes it.
        super().__init__()

    def load_config(self) -> None:
        """Configure gunicorn."""
        self.cfg.set("bind", f"fd://{self._listener}")
        self.cfg.set("worker_class", "app.gunicorn_worker.Worker")
        self.cfg.set("workers", 1)
        # The other one, an extra of gunicorn, gives heads to our connections in another form.
        self.cfg.set("http_parser", "python")
        self.cfg.set("limit_request_line", MOST_LINE_BYTES)
        self.cfg.set("limit_request_fields", MOST_FIELDS)
        self.cfg.set("limit_request_field_size", MOST_HEAD_BYTES)
        self.cfg.set("keepalive", self.settings.keep_alive_seconds)
        # When the master kills a worker that does not end.
        stop_seconds = self.settings.drain_seconds + self.settings.graceful_timeout_seconds + _CLOSING_SECONDS
        self.cfg.set("graceful_timeout", math.ceil(stop_seconds))
        # A process that hangs or dies is for the one who runs it to see and to replace: the container's probe, systemd.
        self.cfg.set("timeout", 0)
        self.cfg.set("child_exit", _end_with_the_worker)
        self.cfg.set("logger_class", "app.observability.gunicorn_logger.Logger")
        self.cfg.set("control_socket_disable", True)
        self.cfg.set("asgi_lifespan", "on")

    def load(self) -> FastAPI:
        """Build the application, in the worker."""
        return create_app(self.settings, with_admin_port=True)
