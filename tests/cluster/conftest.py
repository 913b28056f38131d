"""Images, and the table of proofs."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.kube import ROOT, run
from tests.cluster.report import Report

_REPORT = pytest.StashKey[Report]()
REPOSITORY = "pricebook/pricebook"


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    """Fail at once, and say what to do, where no cluster answers."""
    if not os.environ.get("KUBECONFIG"):
        pytest.exit("Set KUBECONFIG to a cluster for tests: `make cluster-up` starts one with kind.", returncode=2)
    run("kubectl", "get", "--raw", "/readyz")


@dataclass(frozen=True)
class Images:
    """Images of the service on the nodes: this tree's, and variations of it for tests of upgrades."""

    current: str
    next: str

    def variation(self, tag: str, directory: Path, *lines: str) -> str:
        """Build this tree's image with more lines to its Dockerfile, run as root at build time; returns its name."""
        (directory / "Dockerfile").write_text("\n".join([f"FROM {self.current}", "USER 0", *lines, "USER 65532", ""]))
        return build(directory, f"{REPOSITORY}:{tag}")


def build(directory: Path, name: str, *options: str) -> str:
    """Build an image and put it on every node, by the means of this cluster (``CLUSTER_BUILD_IMAGE``)."""
    subprocess.run([ROOT / "scripts" / "build-image", directory, name, *options], check=True, timeout=900)
    return name


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The image of this tree under two names, so that an upgrade changes the image."""
    current = build(ROOT, f"{REPOSITORY}:test")
    directory = tmp_path_factory.mktemp("next")
    result = Images(current, f"{REPOSITORY}:next")
    result.variation("next", directory, "ENV PRICEBOOK_IMAGE=next")
    return result


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """The table of proofs, to which each test adds its row. ``PROOFS_PAGE`` names the page that it goes into."""
    page = os.environ.get("PROOFS_PAGE")
    part = pytestconfig.args != ["tests/cluster"] or bool(pytestconfig.option.keyword)
    result = Report(Path(page) if page else None, part=part)
    pytestconfig.stash[_REPORT] = result
    return result


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table."""
    if (result := config.stash.get(_REPORT, None)) and result.rows:
        terminalreporter.section("proofs")
        terminalreporter.write(result.table())
