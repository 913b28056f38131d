"""uvicorn's connections, with limits to their number and to request heads, which uvicorn has not."""

import asyncio
from typing import Any

import httptools
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app import connections, http_fields
from app.errors import MalformedRequest, ProblemError
from app.settings import Settings


class Config(uvicorn.Config):
    """Tells the connections what their limits are."""

    def __init__(self, app: FastAPI, settings: Settings, **options: Any) -> None:
        super().__init__(app, http=Connection, **options)
        self.traffic = app.state.traffic
        self.memory = app.state.memory
        self.head_seconds = settings.body_timeout_seconds
        self._own: tuple[list[tuple[bytes, bytes]] | None, bytes] = (None, b"")

    def own(self, state: ServerState) -> bytes:
        """The lines of the headers that the server adds to each answer; it makes them anew every second."""
        headers, lines = self._own
        if headers is not state.default_headers:
            lines = http_fields.lines(state.default_headers)
            self._own = (state.default_headers, lines)
        return lines


class _WholeAnswers:
    """One answer's way to its connection: its head goes with the beginning of its body, by one system call.

    uvicorn writes them one after the other. ASGI lets a server wait with the head for the body, and for small answers
    the second call took as long as everything else that uvicorn does for a request.
    """

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = None
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Write, or keep the head."""
        if self._head is not None:
            self._transport.write(self._head + data)
            self._cycle.transport = self._transport
        elif self._cycle.response_started:
            self._head = data
        else:
            self._transport.write(data)  # 100 Continue


class Connection(HttpToolsProtocol):
    """One client's."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._own = config.own
        self._traffic = config.traffic
        self._memory = config.memory
        self._head = connections.Head(self.loop, config.head_seconds, self._refuse)
        self._in_head = False
        self._is_answered = False
        self._answers_left = 0
        self._idle_until: float | None = None
        self._is_beyond_limit = False
        self._is_refused = False
        self._fault: ProblemError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self._is_beyond_limit = len(self.connections) > self._traffic.connections_limit
        # uvicorn waits for the first request without end, and for later ones as long as it keeps connections.
        seconds = connections.PARTING_SECONDS if self._is_beyond_limit else self.timeout_keep_alive
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._head.ends()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_refused:
            return
        if self._is_beyond_limit:
            self._unset_keepalive_if_required()
            self._refuse(connections.turn_away(self._traffic))
            return
        # uvicorn would end the timer, and another one would be made for each answer at once: that takes as long as to
        # look for the answer. It stays, and looks when it comes whether it is time.
        idle, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        if idle is not None and self._idle_until is None:
            self._idle_until = idle.when()
        self._answers_left = connections.MOST_AT_ONCE
        super().data_received(data)
        if self._in_head:
            self._head.grows(len(data))
        else:
            self._head.ends()
        if self._idle_until is not None and not self._in_head and not self._has_request:
            # What came was answered at once, or begins no request: an empty line, or the body of one that was answered
            # without it.
            self.timeout_keep_alive_task = idle or self.loop.call_at(self._idle_until, self.timeout_keep_alive_handler)
        else:
            self._idle_until = None
            if idle is not None:
                idle.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection when it is time."""
        if self._idle_until is not None and self._idle_until > self.loop.time():
            self.timeout_keep_alive_task = self.loop.call_at(self._idle_until, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    @property
    def _has_request(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head.ends()  # The one before is whole, and came with the same data.
        self._in_head = True
        self._is_answered = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """It is whole. What this raises, the parser passes on as an error of the request."""
        self._in_head = False
        if len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1") > connections.MOST_LINE_BYTES:
            self._fault = connections.line_too_long()
        elif connections.exceeds(self.headers):
            self._fault = connections.head_too_large()
        if self._fault is not None:
            raise httptools.HttpParserError
        if self._memory is not None and (answer := self._at_once()) is not None:
            self._is_answered = True
            self._idle_until = self.loop.time() + self.timeout_keep_alive
            self.transport.write(answer)
            self.server_state.total_requests += 1
            return
        super().on_headers_complete()
        # What is to be upgraded may have none; and an answer to HEAD has no body that its head could wait for.
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_started and self.scope["method"] != "HEAD":
            cycle.transport = _WholeAnswers(self.transport, cycle)  # type: ignore[assignment]  # all it is asked for

    def on_message_complete(self) -> None:
        """And so is its body."""
        if not self._is_answered:
            super().on_message_complete()

    def _at_once(self) -> bytes | None:
        """The answer from memory, if there is one, and nothing that has to be sent before it."""
        parser = self.parser
        if (
            parser.get_method() != b"GET"
            or parser.get_http_version() != "1.1"
            or not self._answers_left
            or self._has_request
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return None
        answer: bytes | None = self._memory.at_once(self.url, self.headers, self._own(self.server_state))
        self._answers_left -= 1
        return answer

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read."""
        self._refuse(self._fault or MalformedRequest("This is not HTTP/1.1, or breaks its rules."))

    def _refuse(self, error: ProblemError) -> None:
        self._head.ends()
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        cycle: RequestResponseCycle | None = self.cycle
        begins = self._in_head or self._fault is not None
        # It must not end up within another answer, or before that to the request before.
        if cycle is None or cycle.response_complete or not (begins or cycle.response_started):
            self.transport.write(connections.answer(error))
            self.transport.write_eof()
            self.loop.call_later(connections.PARTING_SECONDS, self.transport.close)
        else:
            self.transport.close()
