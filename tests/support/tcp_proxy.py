"""A proxy before the database that a test can silence: both ends stay connected, and neither hears of the other."""

import contextlib
import ctypes
import selectors
import socket
import struct
import threading
from collections.abc import Iterator

from sqlalchemy.engine import URL

_SO_ATTACH_FILTER = 26
"""Of Linux; Python does not name it."""


class TcpProxy:
    """Forwards connections from a port of its own, in a thread, until it is silenced."""

    def __init__(self, url: URL) -> None:
        self._upstream = url
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._silent = threading.Event()
        self._done = threading.Event()
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._forward, daemon=True)

    @property
    def url(self) -> URL:
        """The database by way of the proxy."""
        return self._upstream.set(host="127.0.0.1", port=self._listener.getsockname()[1], query={})

    def silence(self) -> None:
        """Forward nothing more, in either direction."""
        self._silent.set()

    def resume(self) -> None:
        """Forward again, also what was said meanwhile."""
        self._silent.clear()

    def lose(self) -> None:
        """Lose the connections of now without a word, as if what they lead to were gone; new ones are forwarded.

        Not even the system acknowledges any more what arrives on them: each has a filter that lets nothing pass.
        """
        drop_all = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0, 0]))  # BPF: return 0
        program = struct.pack("HP", 1, ctypes.addressof(drop_all))
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    @contextlib.contextmanager
    def open(self) -> Iterator["TcpProxy"]:
        """Forward during the block."""
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join(timeout=10)

    def _connect(self) -> socket.socket:
        directory = self._upstream.query.get("host") or self._upstream.host or ""
        port = self._upstream.port or 5432
        if str(directory).startswith("/"):
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(f"{directory}/.s.PGSQL.{self._upstream.query.get('port', port)}")
            return upstream
        return socket.create_connection((str(directory), port))

    def _forward(self) -> None:
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            stack.enter_context(self._listener)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._done.is_set():
                for key, _ in selector.select(timeout=0.05):
                    if self._silent.is_set():
                        self._done.wait(0.05)
                    elif key.fileobj is self._listener:
                        pair = (stack.enter_context(self._listener.accept()[0]), stack.enter_context(self._connect()))
                        self._clients.append(pair[0])
                        for here, there in (pair, pair[::-1]):
                            selector.register(here, selectors.EVENT_READ, there)
                    else:
                        self._pass_on(selector, key)

    @staticmethod
    def _pass_on(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
        here, there = key.fileobj, key.data
        assert isinstance(here, socket.socket)
        try:
            data = here.recv(65536)
            there.sendall(data)
        except OSError:
            data = b""
        if not data:
            selector.unregister(here)
            with contextlib.suppress(OSError):
                there.shutdown(socket.SHUT_WR)
