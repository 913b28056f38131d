"""A limit to the requests in flight, and the word to clients of a process that stops."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded
from app.problems import problem_response
from app.traffic import Place, Traffic


class AdmissionMiddleware:
    """Counts requests in flight, and refuses those beyond the limit at once.

    A process that took them all would answer all of them late; so most are answered in time, and the rest know that
    they can try again. Sits where refusals are counted and logged like other answers.
    """

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        traffic = self._traffic
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif traffic.in_flight >= traffic.limit:
            traffic.shed += 1
            detail = f"{traffic.limit} requests are in flight (MAX_CONCURRENT_REQUESTS). Try again."
            await problem_response(Overloaded(detail, retry_after_seconds=1))(scope, receive, send)
        else:
            place = scope[Place.SCOPE_KEY] = Place(traffic)
            try:
                await self._app(scope, receive, send)
            finally:
                place.leave()


class ConnectionCloseMiddleware:
    """Puts ``Connection: close`` on every answer once the stop has begun. Outermost: no answer goes without."""

    def __init__(self, app: ASGIApp, traffic: Traffic) -> None:
        self._app = app
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._traffic.draining:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_closing)
