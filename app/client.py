"""What the commands that speak with a running service share: its address, the key, and its problems in words."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx2

KEY_VARIABLE = "PRICEBOOK_KEY"
"""Environment variable with the key, if the service asks for one. An argument would be seen by others."""

DEFAULT_URL = "http://127.0.0.1:8000"

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_MOST_FAULTS = 10
_SECONDS = re.compile(r"[0-9]{1,5}")

SEQ_HEADER = "Pricebook-Seq"
RECORDED_AT_HEADER = "Pricebook-Recorded-At"


class ServiceError(Exception):
    """There is no usable answer; the message says why and what to do."""


class ProblemAnswer(ServiceError):
    """The service answered with a problem document."""

    def __init__(self, document: Mapping[str, Any], *, retry_after_seconds: int = 0) -> None:
        self.document = document
        self.retry_after_seconds = retry_after_seconds
        """How long to wait before asking again, if the service says so."""
        super().__init__("\n".join([f"{document['title']} (status {document['status']}).", *faults(document)]))

    @property
    def slug(self) -> str:
        """Which problem it is, such as ``unknown-book``."""
        return str(self.document["type"]).removeprefix("/problems/")


def faults(problem: Mapping[str, Any], place: Callable[[str], str] = str, most: int = _MOST_FAULTS) -> Iterator[str]:
    """What a problem document complains of: a line for each fault, or its detail where it names none.

    :param place: what a fault's pointer is called here.
    :param most: so many faults are named.
    """
    found = problem["errors"]
    if not found:
        yield str(problem["detail"])
    for fault in found[:most]:
        yield f"{place(fault['pointer'])} {fault['message']}"
    if len(found) > most:
        yield f"and {len(found) - most} more"


class Service:
    """A running service, as a block: ``with Service(url) as service``.

    :param url: its address, without the path of the API.
    :raises ServiceError: if the key in ``PRICEBOOK_KEY`` cannot be one.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ServiceError(f"{KEY_VARIABLE} is no key: it holds characters that keys do not have.")
        self.has_key = bool(key)
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, *, expects: str, waits: bool = False, **request: Any) -> httpx2.Response:
        """Send a request and check that Pricebook answers.

        :param expects: a key that the answer's document has.
        :param waits: for as long as it takes, because the answer may be hours of work.
        :param request: what else the HTTP client takes: ``params``, ``content``, ``headers``.
        :raises ProblemAnswer: if the answer is a problem document.
        :raises ServiceError: if there is no answer, or one that is not Pricebook's.
        """
        if waits:
            request["timeout"] = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
        with self._speaking():
            answer = self._client.request(method, f"{self.url}{path}", **request)
        self._check(answer)
        document = _document(answer)
        if document is None or expects not in document:
            raise self._stranger(f"status {answer.status_code}")
        return answer

    @contextmanager
    def stream(self, method: str, path: str, **request: Any) -> Iterator[httpx2.Response]:
        """The same for an answer that is read as it comes, and is not a JSON document."""
        with self._speaking(), self._client.stream(method, f"{self.url}{path}", **request) as answer:
            if not answer.is_success:
                answer.read()
            self._check(answer)
            yield answer

    @contextmanager
    def _speaking(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            why = str(error) or type(error).__name__
            raise ServiceError(f"No service answers at {self.url}: {why}. Start one with: make run") from None
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise ServiceError(f"The connection to {self.url} broke off: {why}. Try again.") from None
        except UnicodeEncodeError as error:
            raise ServiceError(f"What was to be sent is not text: {error.object!a}.") from None

    def _check(self, answer: httpx2.Response) -> None:
        if answer.is_success:
            return
        document = _document(answer)
        if document is None or not {"type", "title", "status", "detail", "errors"} <= document.keys():
            raise self._stranger(f"status {answer.status_code}")
        retry_after = answer.headers.get("Retry-After", "")
        raise ProblemAnswer(document, retry_after_seconds=int(retry_after) if _SECONDS.fullmatch(retry_after) else 0)

    def seq_of(self, answer: httpx2.Response) -> int:
        """The state of knowledge that an export is as of.

        :raises ServiceError: if it does not say.
        """
        seq = answer.headers.get(SEQ_HEADER, "")
        if not seq.isdecimal():
            raise self._stranger(f"it sends no {SEQ_HEADER}")
        return int(seq)

    def recorded_at_of(self, answer: httpx2.Response) -> str:
        """When the last change that an export takes into account was recorded.

        :raises ServiceError: if it does not say.
        """
        recorded_at = answer.headers.get(RECORDED_AT_HEADER, "")
        if not recorded_at:
            raise self._stranger(f"it sends no {RECORDED_AT_HEADER}")
        return str(recorded_at)

    def cut_off(self) -> ServiceError:
        """For an answer that ends in order, and yet within a line: something between cut it off and hid that."""
        return ServiceError(f"The answer of {self.url} broke off within a line. Try again.")

    def _stranger(self, why: str) -> ServiceError:
        return ServiceError(f"What answers at {self.url} is not Pricebook: {why}.")


def _document(answer: httpx2.Response) -> dict[str, Any] | None:
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None
