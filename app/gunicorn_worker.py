"""gunicorn's ASGI worker, with a drain between the signal and its own graceful stop."""

import asyncio
from typing import Any

from gunicorn.asgi import protocol
from gunicorn.asgi.parser import LimitRequestHeaders
from gunicorn.workers import gasgi

from app import connections
from app.errors import MalformedRequest, ProblemError
from app.traffic import Drain

_POLL_SECONDS = 0.1


class _Connection(protocol.ASGIProtocol):  # type: ignore[misc]  # gunicorn publishes no types
    """A connection that its worker can find, and that says it when it ends."""

    _says_close = False
    _is_refused = False
    _answer: bytes | None = None
    _answers_left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        loop, settings = self.worker.loop, self.worker.app.settings
        self._traffic = self.worker.asgi.state.traffic
        self._memory = self.worker.asgi.state.memory
        self._head = connections.Head(loop, settings.body_timeout_seconds, self._refuse)
        self.worker.connections.add(self)
        super().connection_made(transport)
        self._is_beyond_limit = len(self.worker.connections) > self._traffic.connections_limit
        # gunicorn waits for the head of a later request as long as it keeps connections, and for the first without end.
        seconds = connections.PARTING_SECONDS if self._is_beyond_limit else self.cfg.keepalive
        self._first_head = loop.call_later(seconds, self._close_without_request)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self.worker.connections.discard(self)
        self._first_head.cancel()
        self._head.ends()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._is_refused:
            return
        if self._is_beyond_limit:
            self._refuse(connections.turn_away(self._traffic))
            return
        self._answers_left = connections.MOST_AT_ONCE
        super().data_received(data)

    def _feed_callback_parser(self, data: bytes) -> bool:
        reads_on: bool = super()._feed_callback_parser(data)
        is_idle = False
        while reads_on and self._answer is not None and self._callback_parser.is_complete:
            self._safe_write(self._answer)
            self._answer = None
            self._first_head.cancel()
            self._head.ends()
            self._arm_keepalive_timer()
            rest = self._callback_parser.remaining()
            self._callback_parser.reset()
            is_idle = not rest
            reads_on = is_idle or super()._feed_callback_parser(rest)
        if reads_on and self._current_request is None and not is_idle:
            self._head.grows(len(data))
        else:
            self._head.ends()
        return reads_on

    def _on_headers_complete(self) -> Any:
        if connections.exceeds(self._callback_parser.headers):
            raise LimitRequestHeaders
        if self._memory is not None and (answer := self._at_once()) is not None:
            self._answer = answer
            return False
        return super()._on_headers_complete()

    def _on_message_complete(self) -> None:
        if self._answer is None:
            super()._on_message_complete()

    def _at_once(self) -> bytes | None:
        """The answer from memory, if there is one, and nothing that has to be sent before it."""
        parser = self._callback_parser
        if (
            parser.method != b"GET"
            or parser.http_version != (1, 1)
            or not self._answers_left
            or not self._awaiting_request
            or self._request_ready.is_set()
            or self._flow_control.write_paused
            or self.transport.is_closing()
        ):
            return None
        own = protocol._CACHED_SERVER_HEADER + protocol._get_cached_date_header()  # noqa: SLF001 - it has no other way to them
        answer: bytes | None = self._memory.at_once(parser.path, parser.headers, own)
        self._answers_left -= 1
        return answer

    def _send_error_response(self, status: int, message: str, extra_headers: Any = ()) -> None:
        """Answer what gunicorn refuses by itself."""
        if status == 414:
            error = connections.line_too_long()
        elif status == 431:
            error = connections.head_too_large()
        elif status in (400, 501):
            error = MalformedRequest("This is not HTTP/1.1, or breaks its rules.")
        else:
            super()._send_error_response(status, message, extra_headers)
            return
        self._refuse(error)

    def _refuse(self, error: ProblemError) -> None:
        self._head.ends()
        if self._is_refused or self._closed:
            return
        self._is_refused = True
        self._safe_write(connections.answer(error))
        self.transport.write_eof()
        self.worker.loop.call_later(connections.PARTING_SECONDS, self._part)

    def _part(self) -> None:
        self._is_refused = False
        self._keepalive_timeout()

    def _close_transport(self) -> None:
        # Once it is refused, only in a moment.
        if not self._is_refused:
            super()._close_transport()

    def _close_without_request(self) -> None:
        if self.req_count <= 1:
            self.close_if_idle()

    def close_if_idle(self) -> None:
        """Close, unless a request is being served or answered."""
        if self._awaiting_request and not self._request_ready.is_set():
            self._keepalive_timeout()

    def _send_response_start(self, status: Any, headers: Any, request: Any, close: bool = False) -> None:
        self._says_close = any(name.lower() == b"connection" and text.lower() == b"close" for name, text in headers)
        super()._send_response_start(status, headers, request, close)

    async def _serve_http_request(self, *arguments: Any) -> bool:
        # gunicorn passes on what an answer says of its connection, and does not do it.
        keeps: bool = await super()._serve_http_request(*arguments)
        return keeps and not self._says_close

    def _will_close(self, request: Any, response_requires_close: bool) -> bool:
        # gunicorn closes a connection whose request it has not read to the end, and so should say so.
        unread = self._body_receiver is not None and not self._body_receiver._complete  # noqa: SLF001 - it has no other way
        draining: bool = self.worker.asgi.state.traffic.draining
        return draining or unread or bool(super()._will_close(request, response_requires_close))


# The worker makes its connections of the class with this name, and has no setting for it.
gasgi.ASGIProtocol = _Connection


class Worker(gasgi.ASGIWorker):  # type: ignore[misc]  # gunicorn publishes no types
    """Serves on after SIGTERM for as long as the drain lasts.

    gunicorn's own stop begins when ``alive`` turns false. It then also closes connections whose answer, written just
    before, promised to keep them: the drain leaves no such connection.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[_Connection] = set()
        self._draining: asyncio.Task[None] | None = None

    def init_process(self) -> None:
        """Run the worker."""
        # What its requests in flight have. The master's limit, for the whole of the stop, is longer.
        self.cfg.set("graceful_timeout", self.app.settings.graceful_timeout_seconds)
        super().init_process()

    def handle_exit_signal(self) -> None:
        """SIGTERM: drain, then stop. SIGINT and SIGQUIT stop at once, also during the drain."""
        if self._draining is None:
            self._draining = self.loop.create_task(self._drain())

    async def _drain(self) -> None:
        drain = Drain(self.asgi.state.traffic, self.app.settings.drain_seconds)
        drain.begin()
        while not drain.is_over(self.nr_conns):  # noqa: ASYNC110 - gunicorn tells nobody when a connection ends.
            await asyncio.sleep(_POLL_SECONDS)
        self.alive = False

    async def _shutdown(self) -> None:
        for server in self.servers:
            server.close()
        # gunicorn would wait for idle connections as long as for requests.
        for connection in list(self.connections):
            connection.close_if_idle()
        await super()._shutdown()
