"""A real Prometheus for tests: scrapes the given targets and answers queries."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.processes import free_port


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    client: httpx2.Client

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series that an expression gives now."""
        result = self._ask("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def wait_for(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The series of an expression, as soon as there are any."""
        deadline = time.monotonic() + 30
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"no data: {expression}"
            time.sleep(0.2)
        return found

    def exemplars(self, selector: str) -> list[dict[str, str]]:
        """The labels of all exemplars that were kept of the selected series."""
        now = time.time()
        found = self._ask("query_exemplars", query=selector, start=str(now - 600), end=str(now + 60))
        return [exemplar["labels"] for series in found for exemplar in series["exemplars"]]

    def _ask(self, what: str, **parameters: str) -> Any:
        answer = self.client.get(f"/api/v1/{what}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]


def program(name: str) -> str:
    """Where a program of Prometheus is; without it, the test is skipped, but never in CI."""
    if (path := shutil.which(name)) is not None:
        return path
    reason = f"{name} is not on the PATH: install the package prometheus (apt-get install prometheus)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def scraping(
    target: str,
    directory: Path,
    *,
    labels: Mapping[str, str] | None = None,
    rules: Mapping[str, Any] | None = None,
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a target (host and port) each second until the end of the block.

    :param labels: of the target.
    :param rules: a file of rules, to be evaluated each second.
    """
    (directory / "rules.yml").write_text(json.dumps(rules or {}))
    configuration = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {"job_name": "pricebook", "static_configs": [{"targets": [target], "labels": dict(labels or {})}]}
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(configuration))  # which is YAML, too
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus"), f"--config.file={directory / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={directory / 'tsdb'}", f"--web.listen-address={address}"]
    command += ["--enable-feature=exemplar-storage", "--log.level=warn"]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        with httpx2.Client(base_url=f"http://{address}", timeout=30) as client:
            _wait(process, client, log)
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: subprocess.Popen[bytes], client: httpx2.Client, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Prometheus did not start:\n{log.read_text()}")
