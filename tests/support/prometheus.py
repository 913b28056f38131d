"""A real Prometheus for tests: scrapes the given targets and answers queries."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.processes import free_port

_CONFIGURATION = """\
global:
  scrape_interval: 1s
  scrape_timeout: 1s
scrape_configs:
  - job_name: pricebook
    static_configs:
      - targets: ["{target}"]
"""


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

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
        answer = httpx2.get(f"{self.url}/api/v1/{what}", params=parameters).json()
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
def scraping(target: str, directory: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes a target (host and port) until the end of the block."""
    configuration = directory / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(target=target))
    address = f"127.0.0.1:{free_port()}"
    command = [program("prometheus"), f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'tsdb'}"]
    command += [f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=warn"]
    log = directory / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        _wait(process, f"http://{address}/-/ready", log)
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(url, timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Prometheus did not start:\n{log.read_text()}")
