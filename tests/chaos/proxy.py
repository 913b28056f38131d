"""A proxy before a server or the database, which can be slow, fall silent, and cut what goes through it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65_536


class Proxy:
    """Forwards connections from a port of its own, in the event loop that starts it."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self.delay_seconds = 0.0
        """How much later each part of what is said is passed on."""
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._server: asyncio.Server | None = None
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    async def start(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_server(self._serve, sock=self._listener)

    def stop(self) -> None:
        """Take no more connections, and end those that there are."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, in the middle of whatever is said."""
        for end in list(self._ends):
            end.transport.abort()

    def silence(self) -> None:
        """Pass on nothing more, and let both ends believe that the other one is there."""
        self._speaks.clear()

    def resume(self) -> None:
        """Pass on again, also what was said meanwhile."""
        self._speaks.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        self._ends.add(writer)
        try:
            await self._speaks.wait()
            there_reader, there_writer = await self._connect()
            ends.append(there_writer)
            self._ends.add(there_writer)
            await asyncio.gather(self._pass_on(reader, there_writer, ends), self._pass_on(there_reader, writer, ends))
        except OSError:
            pass  # Nobody is there.
        finally:
            self._ends.difference_update(ends)
            for end in ends:
                end.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[asyncio.StreamWriter]
    ) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._speaks.wait()
                writer.write(data)
                await writer.drain()
            with suppress(OSError):
                writer.write_eof()
        except OSError:
            for end in ends:
                end.transport.abort()
