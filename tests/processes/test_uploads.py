"""Uploads to a real process that end in the middle, never end, or hold more than anybody reads."""

import asyncio
import contextlib
import gzip
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, Service, running

pytestmark = pytest.mark.long

JSON = dict[str, Any]

HEAD = "POST /v1/imports?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n{headers}\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
MEGABYTE = 1_048_576


@pytest.fixture(scope="module")
def url(service_url: URL) -> URL:
    return postgres.as_serving_role(service_url)


@pytest.fixture(scope="module")
def service(url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One process, whose imports have one connection and may be larger than the line below."""
    settings: JSON = {"database_url": postgres.text(url), "secret_key": SECRET, "server": "uvicorn"}
    directory: Path = tmp_path_factory.mktemp("service")
    settings |= {"database_import_pool_size": 1, "max_import_bytes": 1024 * MEGABYTE}
    with running("serve", directory, **settings) as service:
        yield service


@pytest.fixture
async def owner(service_url: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of the database, to look behind the API."""
    connection = await asyncpg.connect(postgres.text(service_url))
    yield connection
    await connection.close()


@contextlib.contextmanager
def upload(
    service: Service, headers: str = CHUNKED, *, kind: str = "text/csv", query: str = ""
) -> Iterator[socket.socket]:
    """A connection that has sent the head of a request."""
    address = httpx2.URL(service.api)
    with socket.create_connection((address.host, address.port or 0), timeout=30) as connection:
        connection.sendall(HEAD.format(query=query, kind=kind, headers=headers).encode())
        yield connection


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def newest(service: Service) -> JSON:
    found: list[JSON] = httpx2.get(f"{service.api}/v1/imports?limit=1").json()["items"]
    return found[0]


async def staged(owner: asyncpg.Connection) -> int:
    rows: int = await owner.fetchval("SELECT count(*) FROM import_staging")
    return rows


def rows(count: int) -> bytes:
    return b"".join(b"S%d,a name of some length so that it takes some room,%d.50\r\n" % (n, n) for n in range(count))


async def remains(owner: asyncpg.Connection) -> list[Any]:
    """What is left in staging, by import."""
    rows: list[Any] = await owner.fetch(
        "SELECT i.state, i.created_at, i.options, count(*), min(s.cells) FROM import_staging AS s "
        "LEFT JOIN imports AS i ON i.id = s.import_id GROUP BY i.id"
    )
    return rows


async def test_a_connection_that_is_cut(service: Service, owner: asyncpg.Connection) -> None:
    """However it is cut, after megabytes were staged: the import says so, and nothing of it is left."""
    assert await remains(owner) == []
    body = b"sku,name,amount\r\n" + rows(25_000)
    reset = struct.pack("ii", 1, 0)
    for headers, data, abruptly in (
        (f"Content-Length: {2 * len(body)}", body, False),
        (CHUNKED, chunk(body), True),
        (CHUNKED, chunk(body)[:-1000], False),
        (CHUNKED, b"1\r\ns\r\n", True),
        (f"Content-Length: {len(body)}", b"", False),
    ):
        before = httpx2.get(f"{service.api}/v1/imports?limit=1").json()["items"]
        deadline = time.monotonic() + 60
        with upload(service, headers) as connection:
            connection.sendall(data)
            while len(data) > MEGABYTE and await staged(owner) == 0:
                assert time.monotonic() < deadline, "nothing arrives"
                await asyncio.sleep(0.02)
            while newest(service) in before:
                assert time.monotonic() < deadline, "no import begins"
                await asyncio.sleep(0.02)
            assert newest(service)["state"] == "staged"
            if abruptly:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        while (run := newest(service))["state"] == "staged":
            assert time.monotonic() < deadline, "the end is not noticed"
            await asyncio.sleep(0.02)
        assert run["state"] == "failed"
        assert run["failure"].startswith("The upload was cut off")
        assert await remains(owner) == []
        refused = httpx2.post(f"{service.api}/v1/imports/{run['id']}:apply")
        assert refused.json()["type"] == "/problems/import-not-open"
        assert await owner.fetchval("SELECT count(*) FROM import_rows WHERE import_id = $1", run["id"]) == 0


async def test_chunks_that_are_none(service: Service, owner: asyncpg.Connection) -> None:
    with upload(service) as connection:
        connection.sendall(chunk(b"sku,name,amount\r\n") + b"this is no chunk\r\n")
        with contextlib.suppress(ConnectionError):
            assert b" 201 " not in connection.recv(MEGABYTE)
    deadline = time.monotonic() + 30
    while newest(service)["state"] == "staged":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert newest(service)["state"] == "failed"
    assert await staged(owner) == 0


@pytest.mark.parametrize("kind", ["text/csv", "application/x-ndjson"])
@pytest.mark.parametrize("start", ["quoted", "plain"])
async def test_a_line_of_300_megabytes(service: Service, owner: asyncpg.Connection, kind: str, start: str) -> None:
    """Refused once it is longer than any record, however much would follow; memory stays as it was."""
    beginning = {
        ("text/csv", "quoted"): b'sku,name,amount\r\nA,"',
        ("text/csv", "plain"): b"",
        ("application/x-ndjson", "quoted"): b'{"sku":"',
        ("application/x-ndjson", "plain"): b"",
    }[kind, start]
    before = memory(service)
    length = 300 * MEGABYTE
    for headers in (CHUNKED, f"Content-Length: {length + len(beginning)}"):
        pack = chunk if headers == CHUNKED else bytes
        with upload(service, headers, kind=kind) as connection:
            connection.sendall(pack(beginning) if beginning else b"")
            answer, sent = b"", 0
            block = pack(b"x" * MEGABYTE)
            with contextlib.suppress(ConnectionError):
                while sent < length and not select.select([connection], [], [], 0)[0]:
                    connection.sendall(block)
                    sent += MEGABYTE
                answer = connection.recv(MEGABYTE)
        assert sent < length, "the service reads it all"
        assert not answer or b" 422 " in answer.split(b"\r\n")[0], answer[:100]
        deadline = time.monotonic() + 30
        while (run := newest(service))["state"] == "staged":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert run["state"] == "failed"
        assert "is longer than 1048576 characters" in run["failure"]
    assert memory(service) - before < 64 * MEGABYTE
    assert await staged(owner) == 0


async def test_a_bomb_of_gzip(service: Service, owner: asyncpg.Connection) -> None:
    """Nobody unpacks it, whether it says what it is or not."""
    bomb = gzip.compress(bytes(200 * MEGABYTE))
    before = memory(service)
    announced = httpx2.post(
        f"{service.api}/v1/imports", content=bomb, headers={"content-type": "text/csv", "content-encoding": "gzip"}
    )
    assert (announced.status_code, announced.json()["type"]) == (415, "/problems/unsupported-media-type")
    silent = httpx2.post(f"{service.api}/v1/imports", content=bomb, headers={"content-type": "text/csv"})
    assert (silent.status_code, silent.json()["errors"][0]["code"]) == (422, "not-text")
    assert memory(service) - before < 32 * MEGABYTE
    assert await staged(owner) == 0


async def test_a_large_file_is_read_in_little_memory(service: Service, owner: asyncpg.Connection) -> None:
    """Read to its end, which is where the fault is."""
    before = memory(service)
    length = 40 * MEGABYTE
    block = b"A,a," + b"1" * 4000 + b"\r\n"
    with upload(service) as connection:
        connection.sendall(chunk(b"sku,name,amount\r\n"))
        for _ in range(length // len(block) // 100):
            connection.sendall(chunk(block * 100))
        connection.sendall(chunk(b'B,"b,1\r\n') + b"0\r\n\r\n")
        answer = connection.recv(MEGABYTE)
    assert b" 422 " in answer.split(b"\r\n")[0]
    assert newest(service)["failure"].endswith("the file is not whole.")
    assert memory(service) - before < 48 * MEGABYTE
    assert await staged(owner) == 0


def test_uploads_that_dawdle_hold_no_connection(service: Service) -> None:
    """The service has one for imports, and five that are waited for."""
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            connection = stack.enter_context(upload(service))
            connection.sendall(chunk(b"sku,name,amount\r\n" + rows(100)))
        answer = httpx2.post(
            f"{service.api}/v1/imports", content=b"sku,name,amount\r\nD,d,1\r\n", headers={"content-type": "text/csv"}
        )
        assert answer.status_code in (200, 201), answer.text
        assert httpx2.get(f"{service.api}/v1/imports?state=staged").json()["items"][4]["state"] == "staged"


def memory(service: Service) -> int:
    """The most that the process has ever held, in bytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) * 1024
