"""How a process ends when something is wrong: soon, with an exit code and a last line that tell."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, running, start
from tests.support.tcp_proxy import TcpProxy

pytestmark = pytest.mark.long


def child_of(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def test_a_process_whose_worker_dies_ends_too(service_url: URL, tmp_path: Path) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    with running("serve", tmp_path, database_url=url, secret_key=SECRET, server="gunicorn") as service:
        os.kill(child_of(service.process.pid), signal.SIGKILL)
        assert service.process.wait(timeout=10) == 1
        last = service.log.read_text().splitlines()[-1]
    assert "ended, though nobody stopped it" in last
    assert "SIGKILL" in last


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_a_database_that_falls_silent_does_not_hold_up_the_stop(service_url: URL, tmp_path: Path, kind: str) -> None:
    with TcpProxy(postgres.as_serving_role(service_url)).open() as proxy:
        url = postgres.text(proxy.url)
        settings = {"database_url": url, "secret_key": SECRET, "server": kind, "drain_seconds": 0}
        with running("serve", tmp_path, **settings) as service:
            assert httpx2.post(f"{service.api}/items/", json={"name": "Written", "price": 1}).status_code == 200
            with ThreadPoolExecutor(4) as several:
                assert {one.status_code for one in several.map(httpx2.get, [f"{service.api}/items/"] * 4)} == {200}
            proxy.silence()
            began = time.monotonic()
            code, output = service.stop(signal.SIGTERM)
            took = time.monotonic() - began
    assert code == 0
    assert "connections to the database were not closed in order" in output
    assert '"exception"' not in output, "one line says what was not done"
    assert took < 15, "each connection was waited for"


def test_a_migration_that_waits_hears_the_signal_to_stop(service_url: URL, tmp_path: Path) -> None:
    nowhere = postgres.text(service_url.set(host="127.0.0.1", port=1, query={}))
    service = start("migrate", tmp_path, database_url=nowhere, migration_wait_seconds=60)
    deadline = time.monotonic() + 20
    while "migration waits" not in service.log.read_text():
        assert time.monotonic() < deadline, service.log.read_text()
        time.sleep(0.1)
    code, output = service.stop(signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in output
