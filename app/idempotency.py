"""Requests that may be sent again: the header ``Idempotency-Key`` (draft-ietf-httpapi-idempotency-key-header-07).

A request that writes is answered and its answer stored in one transaction: whatever happens to the answer on its way,
the same request sent again gets it once more, and nothing is done twice. Answers that are no success roll their
transaction back and are not stored: sent again, such a request is tried again.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from starlette.types import Message, Receive

from app.access import Caller
from app.batches import Batches, NotSentError
from app.database import Database, WriteSession
from app.errors import Busy, IdempotencyKeyReused, InvalidRequest, ProblemError, RequestInProgress
from app.observability.metrics import REPLAYS
from app.schemas.base import Document
from app.schemas.import_run import ImportRun
from app.services import stored_answers
from app.services.stored_answers import Answer, AnsweredBefore, Named, Question, Stored

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
FUNCTION_STACK = "fastapi_function_astack"
"""Where FastAPI keeps what ends before the answer is sent: sessions, and with them the commit."""

STORED_AS = "pricebook.stored_as"
"""Where a request's ASGI scope holds the body to store, if it is not to be the one that is sent."""

_ASKED = "pricebook.asked"
_CLAIM = "pricebook.claim"
_QUESTION = "pricebook.question"
_SETTLED = "pricebook.settled"
_TRIED = "pricebook.tried"
# A string of Structured Fields (RFC 9651), as the draft has it, or what stands between its quotes, as many send it.
_QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_BARE = re.compile(r"[!#-~]{1,255}")
_KEPT_HEADERS = frozenset({"content-type", "location", "etag", "cache-control", "pricebook-seq", "link"})

_MOST_UNDER_WAY = 2
_MOST_QUESTIONS = 100
"""Looks for earlier answers, as for prices: see :mod:`app.services.price_reads`."""

Handler = Callable[[Request], Awaitable[Response]]


async def _documented(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A name that you make up for this request, such as a UUID. The same request, sent again with "
            "it, is answered as before, and nothing is done twice",
            examples=['"8e03978e-40d5-43dd-bc93-6894a57f9324"'],
            json_schema_extra={"pattern": rf"^({_QUOTED.pattern}|{_BARE.pattern})$"},
        ),
    ] = None,
) -> None:
    """Only tells the documentation of it."""


async def _documented_upload(_: Annotated[None, Depends(_documented)]) -> None:
    """The same."""


IDEMPOTENT = Depends(_documented)
"""For ``dependencies`` of every POST."""

IDEMPOTENT_UPLOAD = Depends(_documented_upload)
"""The same, for one whose body is read as it arrives."""


class Idempotency:
    """Looks after requests with the header."""

    def __init__(self, database: Database, hours: float, most_seconds: float) -> None:
        """Make it.

        :param hours: how long an answer counts.
        :param most_seconds: that a request waits for those before it.
        """
        self._database = database
        self._hours = hours
        self._known: Batches[None, Question, Stored | None] = Batches(
            self._find, most_under_way=_MOST_UNDER_WAY, most_questions=_MOST_QUESTIONS, most_seconds=most_seconds
        )

    async def _find(self, _: None, questions: Sequence[Question]) -> Sequence[Stored | None]:
        async with self._database.reading() as session:
            return await stored_answers.find_together(session, questions)

    async def answer(self, request: Request, handle: Handler) -> Response:
        """Answer a request whose body is small, or as before.

        :raises InvalidRequest: if the header cannot be read; and what :func:`stored_answers.claim` raises.
        """
        question = self._question(request, hashlib.sha256(await request.body()).digest())
        if question is None:
            return await handle(request)
        request.scope[_QUESTION] = question
        # Of an earlier try, if there was one.
        request.scope.pop(_CLAIM, None)
        request.scope.pop(_SETTLED, None)
        try:
            stored = await self._known.ask(None, question)
        except NotSentError:
            raise Busy("The requests before this one took too long. Try again.", retry_after_seconds=1) from None
        if (known := stored_answers.of_question(question, stored)) is not None:
            return _found(request, known)
        try:
            response = await handle(request)
        except AnsweredBefore as before:
            return _found(request, before.answer)
        if not _is_success(response) or _SETTLED in request.scope:
            return response
        answer = _answer(request, response)
        writing: WriteSession | None = request.scope.get(_CLAIM)
        if writing is not None:
            request.scope[_TRIED] = (answer, response)
            # The transaction of what was done, which is not committed yet.
            await stored_answers.settle(writing, question, answer)
            return response
        # What was read is read: its connection is not kept while another one is waited for.
        await request.scope[FUNCTION_STACK].aclose()
        return await self._first(question, answer, response)

    async def answer_upload(self, request: Request, handle: Handler, make: Callable[[Receive], Request]) -> Response:
        """The same for a request whose body is read as it arrives, and not kept; its handler uses :class:`UploadOnce`.

        :param make: makes the request anew that the handler gets, with another source of its body.
        """
        digest = hashlib.sha256()
        if self._question(request, digest.digest()) is None:
            return await handle(request)

        async def hashed() -> Message:
            message = await request.receive()
            digest.update(message.get("body", b""))
            return message

        if await self._is_known(request):
            # Nothing is done with the file, unless the answer is forgotten in the meantime.
            async for chunk in request.stream():
                digest.update(chunk)
            question = self._asked(request, digest)
            async with self._database.reading() as session:
                known = await stored_answers.find(session, question)
            if known is None:
                raise RequestInProgress(
                    "The answer to this Idempotency-Key was just forgotten. Send the file again.", retry_after_seconds=1
                )
            return _replay(known)
        request.scope[_ASKED] = lambda: self._asked(request, digest)
        try:
            return await handle(make(hashed))
        except AnsweredBefore as before:
            return _replay(before.answer)
        except ProblemError:
            # A commit that got through though the database went away, or a request with the key that was quicker.
            with contextlib.suppress(ProblemError):
                async with self._database.reading() as session:
                    known = await stored_answers.find(session, self._asked(request, digest))
                if known is not None:
                    return _replay(known)
            raise

    async def _is_known(self, request: Request) -> bool:
        question = self._asked(request, hashlib.sha256())
        try:
            async with self._database.reading() as session:
                return await stored_answers.find(session, question) is not None
        except IdempotencyKeyReused:
            # Of another file, or of this one: that shows when it has been read.
            return True

    async def _first(self, question: Question, answer: Answer, response: Response) -> Response:
        """The answer that was first stored: this one, or that of a request with the key that was quicker."""
        async with self._database.writing() as session:
            if await stored_answers.keep(session, question, answer):
                return response
            known = await stored_answers.find(session, question)
        return response if known is None else _replay(known)

    def _asked(self, request: Request, digest: "hashlib._Hash") -> Question:
        question = self._question(request, digest.digest())
        assert question is not None  # noqa: S101 - the header is there
        return question

    def _question(self, request: Request, body: bytes) -> Question | None:
        values = request.headers.getlist(HEADER)
        if not values:
            return None
        caller: Caller = request.scope[Caller.SCOPE_KEY]
        parts = (request.method, request.url.path, request.url.query, request.headers.get("content-type", ""))
        # JSON, because no part of it can be taken for the beginning of another one.
        asked = json.dumps([*parts, body.hex()]).encode()
        return Question(caller.id, _parse(values), hashlib.sha256(asked).digest(), self._hours)


def named(request: Request, respond: Callable[[Document], Response]) -> Named | None:
    """For a service that stores the answer of the request itself, if it has the header.

    :param respond: makes the answer of what was done.
    """
    question: Question | None = request.scope.get(_QUESTION)
    if question is None:
        return None

    def answer(document: Document) -> Answer:
        response = respond(document)
        made = _answer(request, response)
        request.scope[_TRIED] = (made, response)
        request.scope[_SETTLED] = True
        return made

    return Named(question, answer)


async def claim(session: WriteSession, request: Request) -> None:
    """Call it first in the transaction of a request, which is then answered once for its ``Idempotency-Key``.

    Raises as :func:`stored_answers.claim`.
    """
    question: Question | None = request.scope.get(_QUESTION)
    if question is None:
        return
    await stored_answers.claim(session, question)
    request.scope[_CLAIM] = session


class UploadOnce:
    """What the transactions of an upload do for its ``Idempotency-Key``, if it has one."""

    def __init__(self, request: Request, answer: Callable[[ImportRun, bool], Response]) -> None:
        """Make it.

        :param answer: makes the answer of what was done, and whether it was done by this request.
        """
        self._request = request
        self._answer = answer
        self._asked: Callable[[], Question] | None = request.scope.get(_ASKED)

    async def look(self, session: WriteSession) -> None:
        """Go on, once the body is read, with an upload that was not answered before. Raises as the function."""
        if self._asked is not None:
            await stored_answers.look(session, self._asked())

    async def settle(self, session: WriteSession, document: ImportRun, *, is_new: bool) -> None:
        """Store the answer, in the transaction that ends the upload. Raises as the function."""
        if self._asked is not None:
            answer = _answer(self._request, self._answer(document, is_new))
            await stored_answers.settle(session, self._asked(), answer)


def _parse(values: list[str]) -> str:
    text = values[0].strip()
    if len(values) == 1 and (match := _QUOTED.fullmatch(text)):
        return re.sub(r"\\(.)", r"\1", match[1])
    if len(values) == 1 and _BARE.fullmatch(text):
        return text
    raise InvalidRequest.at(
        f"header/{HEADER}",
        "not-an-idempotency-key",
        "must be one text of 1 to 255 printable ASCII characters, in quotes, such as "
        '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
    )


def _is_success(response: Response) -> bool:
    return 200 <= response.status_code < 300


def _answer(request: Request, response: Response) -> Answer:
    headers = {name: value for name, value in response.headers.items() if name in _KEPT_HEADERS}
    return Answer(response.status_code, headers, request.scope.get(STORED_AS, response.body))


def _found(request: Request, answer: Answer) -> Response:
    """The stored answer; or the first one itself, if this service tried again because it lost sight of its commit."""
    tried: tuple[Answer, Response] | None = request.scope.get(_TRIED)
    return tried[1] if tried is not None and tried[0] == answer else _replay(answer)


def _replay(answer: Answer) -> Response:
    REPLAYS.inc()
    return Response(answer.body, answer.status, {**answer.headers, REPLAYED: "true"})
