"""The service as a process: under each server, with its two ports, until a signal ends it."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
from sqlalchemy.engine import URL

from app.migrations import head
from tests.support import postgres
from tests.support.processes import SECRET, environment, free_port, run, running

UNUSED = (
    "alembic",
    "app.client",
    "email_validator",
    "httpx2",
    "jinja2",
    "opentelemetry.sdk",
    "pydantic.v1",
    "python_multipart",
    "requests",
    "rich",
    "sqlite3",
)
"""What libraries or other commands import, and a service without traces does not."""


@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_serve(service_url: URL, tmp_path: Path, kind: str, how: signal.Signals) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    with running("serve", tmp_path, server=kind, database_url=url, secret_key=SECRET) as service:
        created = httpx2.post(f"{service.api}/items/", json={"name": "Foo", "price": 35.4, "tax": 3.2})
        assert (created.status_code, created.json()["price_with_tax"]) == (200, 38.6)
        large = httpx2.post(f"{service.api}/items/", content=b" " * 2_000_000)
        assert (large.status_code, large.json()["type"]) == (413, "/problems/content-too-large")
        metrics = httpx2.get(f"{service.admin}/metrics").text
        assert 'http_requests_total{handler="/items/",method="POST",status="200"} 1.0' in metrics
        assert httpx2.get(f"{service.api}/metrics").status_code == 404
        code, output = service.stop(how)
    assert code == 0, output
    assert '"path": "/items/"' in output
    assert '"request_id"' in output
    assert "Traceback" not in output


@pytest.mark.long
@pytest.mark.parametrize("kind", ["gunicorn", "uvicorn"])
def test_readiness_ends_at_the_signal_and_requests_in_flight_finish(
    service_url: URL, tmp_path: Path, kind: str
) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    body = b'{"name":"Slow","price":1}'
    head = f"POST /items/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with running("serve", tmp_path, server=kind, database_url=url, secret_key=SECRET) as service:
        address = httpx2.URL(service.api)
        with socket.create_connection((address.host, address.port or 0), timeout=10) as slow:
            slow.sendall(head.encode() + body[:5])
            time.sleep(0.2)
            service.process.terminate()
            deadline = time.monotonic() + 5
            while httpx2.get(f"{service.admin}/readyz").status_code == 200:
                assert time.monotonic() < deadline, "still ready although the stop has begun"
                time.sleep(0.02)
            slow.sendall(body[5:])
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
        assert service.process.wait(timeout=20) == 0


def test_dev_starts_everything_prints_lines_that_work_and_stops_everything(tmp_path: Path) -> None:
    with running("dev", tmp_path) as service:
        shell = subprocess.run(["pgrep", "-f", str(tmp_path / ".data")], capture_output=True, text=True, check=False)
        assert shell.stdout, "an embedded PostgreSQL runs"

        second = run("dev", directory=tmp_path, port=httpx2.URL(service.api).port, admin_port=free_port())
        assert second.returncode == 1
        assert second.stderr.splitlines()[1].startswith("PORT: cannot listen on 127.0.0.1:")
        assert len(second.stderr.splitlines()) == 2

        code, output = service.stop(signal.SIGINT)
    assert code == 0, output
    lines = [line for line in output.splitlines() if line.startswith("curl ")]
    assert len(lines) == 2
    assert output.rstrip().endswith("Stopped.")
    left = subprocess.run(["pgrep", "-f", str(tmp_path / ".data")], capture_output=True, text=True, check=False)
    assert left.stdout == ""

    # A user of the embedded server that was killed and never signed off must not keep it running.
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / ".data" / "postgres" / ".handle_pids.json").write_text(f"[{gone.pid}]")
    port = httpx2.URL(service.api).port
    with running("dev", tmp_path) as again:
        pasted = [line.replace(f":{port}/", f":{httpx2.URL(again.api).port}/") for line in lines]
        answers = [subprocess.run(line, shell=True, capture_output=True, text=True, check=True) for line in pasted]  # noqa: S602 - as a reader would
        assert '"price_with_tax":38.6' in answers[0].stdout
        assert answers[0].stdout.strip() in answers[1].stdout
        assert again.stop(signal.SIGTERM)[0] == 0
    left = subprocess.run(["pgrep", "-f", str(tmp_path / ".data")], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def test_a_used_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for name in ("port", "admin_port"):
            ports = {"port": free_port(), "admin_port": free_port(), name: port}
            result = run(
                "serve",
                directory=tmp_path,
                database_url="postgresql://x/x",
                secret_key=SECRET,
                host="127.0.0.1",
                admin_host="127.0.0.1",
                **ports,
            )
            assert result.returncode == 1
            reason = f"cannot listen on 127.0.0.1:{port}: Address already in use"
            expected = f"{name.upper()}: {reason}. Set {name.upper()} to another port."
            assert result.stderr.splitlines()[1:] == [expected]


def test_missing_settings_are_said_before_anything_starts(tmp_path: Path) -> None:
    result = run("serve", directory=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    first, *lines = result.stderr.splitlines()
    assert first == "The settings are not right:"
    assert [line.partition(":")[0] for line in lines] == ["DATABASE_URL", "SECRET_KEY"]


def test_migrate_and_check(fresh_url: URL, tmp_path: Path) -> None:
    settings = {"database_url": postgres.text(fresh_url), "secret_key": SECRET}
    before = run("check", directory=tmp_path, **settings)
    assert before.returncode == 1
    assert "FAIL  The database has no schema yet. Run: pricebook migrate" in before.stdout
    migrated = run("migrate", directory=tmp_path, database_url=settings["database_url"])
    assert (migrated.returncode, migrated.stdout) == (0, f"The schema is at {head()}.\n"), migrated.stderr
    after = run("check", directory=tmp_path, **settings)
    assert (after.returncode, after.stdout.count("ok  ")) == (0, 5), after.stdout

    nowhere = "postgresql://till:hunter2@127.0.0.1:1/prices"
    # The primary keeps up with itself.
    followed = run("check", directory=tmp_path, **settings, database_read_url=settings["database_url"])
    assert (followed.returncode, "ok    Replica reached: " in followed.stdout) == (0, True), followed.stdout
    unfollowed = run("check", directory=tmp_path, **settings, database_read_url=nowhere)
    assert unfollowed.returncode == 1
    assert "FAIL  The replica postgresql://till:***@127.0.0.1:1/prices cannot be used: " in unfollowed.stdout
    away = run("check", directory=tmp_path, **settings | {"database_url": nowhere})
    assert away.returncode == 1
    assert "FAIL  The database postgresql://till:***@127.0.0.1:1/prices cannot be used: " in away.stdout
    failed = run("migrate", directory=tmp_path, database_url=nowhere, migration_wait_seconds=0)
    assert (failed.returncode, "127.0.0.1" in failed.stderr, "hunter2" in failed.stderr) == (1, True, False)
    assert "Traceback" not in failed.stderr


@pytest.mark.long
def test_demo(service_url: URL, tmp_path: Path) -> None:
    url = postgres.text(postgres.as_serving_role(service_url))
    sample = Path(__file__).parents[2] / "deploy" / "demo" / "pricelist.csv"
    with running("serve", tmp_path, database_url=url, secret_key=SECRET) as service:
        # As an earlier run leaves it that was cut off after its first request.
        httpx2.post(f"{service.api}/v1/items", json={"name": "Bolt M4x20, standard", "sku": "PB-1001"})
        first = run("demo", sample, "--url", service.api, directory=tmp_path)
        again = run("demo", sample, "--url", service.api, directory=tmp_path)
        items = httpx2.get(f"{service.api}/v1/items", params={"limit": 1000}).json()["items"]
    assert first.returncode == 0, first.stdout + first.stderr
    assert "199 new items of 200" in first.stdout
    assert "0 new items of 200" in again.stdout
    assert len([item for item in items if (item["sku"] or "").startswith("PB-")]) == 200
    shown = [line for line in first.stdout.splitlines() if " EUR " in line]
    assert len(shown) == 3
    assert len({line.split("│")[2] for line in shown}) == 3, "three instants, three prices"

    nobody = run("demo", sample, "--url", "http://127.0.0.1:1", directory=tmp_path)
    assert (nobody.returncode, nobody.stderr.startswith("No service answers at http://127.0.0.1:1")) == (1, True)


def test_a_serving_process_has_no_use_for_some_modules_and_collects_garbage(tmp_path: Path) -> None:
    program = """
import gc, sys
from app import cli, settings

def load_settings():
    from app import server
    server.serve_with_uvicorn = show
    given = dict(database_url="postgresql://x/x", secret_key="x" * 32, server="uvicorn", port=PORT, admin_port=ADMIN)
    return settings.Settings(_env_file=None, **given)

def show(settings, listener):
    from app.main import create_app
    from app.schemas.price import Lookup, PriceAnswer
    app = create_app(settings)
    print([name for name in UNUSED if sys.modules.get(name)], gc.isenabled())
    print([model.__pydantic_complete__ for model in (Lookup, PriceAnswer)])
    print(app.openapi()["info"]["title"])

settings.load_settings = load_settings
cli.cli(["serve"], standalone_mode=False)
from app import import_tables
print(import_tables.Table.__module__)
"""
    program = (
        program.replace("UNUSED", repr(UNUSED)).replace("PORT", str(free_port())).replace("ADMIN", str(free_port()))
    )
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (
        0,
        "[] True\n[True, False]\nPricebook\nrich.table\n",
    ), done.stderr
