"""Nothing is lost while pods come and go: upgrades, scale-down, drain."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace, run
from tests.cluster.pods import Account, load
from tests.cluster.release import STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

UPGRADES = 5


@pytest.fixture(scope="module")
def nodes() -> list[str]:
    """Names of the nodes that take pods; the load and the database stay on the first."""
    found = run("kubectl", "get", "nodes", "--output", "jsonpath={.items[*].metadata.name}", "--selector", "").split()
    tainted = run(
        "kubectl",
        "get",
        "nodes",
        "--output",
        'jsonpath={.items[?(@.spec.taints[*].effect=="NoSchedule")].metadata.name}',
    ).split()
    usable = [name for name in found if name not in tainted]
    assert len(usable) >= 2, f"a drain needs two nodes that take pods; there are {usable}"
    return usable


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def release(request: pytest.FixtureRequest, images: Images, nodes: list[str]) -> Iterator[Release]:
    with namespace(f"roll-{request.param}") as ns:
        release = Release(
            ns,
            arguments=(
                f"--set=config.server={request.param}",
                f"--set-string=database.bundled.nodeSelector.kubernetes\\.io/hostname={nodes[0]}",
            ),
        )
        release.install(images.current)
        release.create_item()
        yield release


def assert_nothing_lost(account: Account, release: Release, seq_before: int) -> None:
    assert account.failed == 0, account.summary
    assert account.unannounced_closes == 0, account.summary
    assert release.seq() - seq_before == account.written > 0


def server_of(release: Release) -> str:
    return release.arguments[0].removeprefix("--set=config.server=")


def test_upgrades(release: Release, images: Images, nodes: list[str], report: Report) -> None:
    before = release.seq()
    with load(release.ns, images.current, *STANDARD_LOAD, node=nodes[0]) as account:
        time.sleep(5)
        for turn in range(UPGRADES):
            release.install(images.current if turn % 2 else images.next)
            release.settled(2)
    assert account.announced_closes > 0, "no client was told to reconnect: no pod was drained under load"
    assert_nothing_lost(account, release, before)
    report.row(
        f"{UPGRADES} rolling upgrades, {server_of(release)}", "`helm upgrade --wait` under load", account.figures()
    )


def test_scale_down_and_up(release: Release, images: Images, nodes: list[str], report: Report) -> None:
    def scale(replicas: int) -> None:
        release.ns.kubectl("scale", "deployment/pricebook", f"--replicas={replicas}")
        release.settled(replicas)

    before = release.seq()
    # The clients spread over four. Not down to one: what that one cannot carry it refuses, which is another matter.
    scale(4)
    with load(release.ns, images.current, *STANDARD_LOAD, node=nodes[0]) as account:
        time.sleep(5)
        scale(2)
        scale(4)
    scale(2)
    assert account.announced_closes > 0, "no client was told to reconnect: no pod was drained under load"
    assert_nothing_lost(account, release, before)
    report.row(f"scaled 4, 2, 4, {server_of(release)}", "`kubectl scale` under load", account.figures())


def test_drain_of_a_node(release: Release, images: Images, nodes: list[str], report: Report) -> None:
    drained = nodes[-1]
    before = release.seq()
    try:
        with load(release.ns, images.current, *STANDARD_LOAD, node=nodes[0]) as account:
            assert any(pod["spec"]["nodeName"] == drained for pod in release.pods()), "nothing to drain"
            run(
                "kubectl",
                "drain",
                drained,
                "--ignore-daemonsets",
                "--delete-emptydir-data",
                "--timeout=180s",
                "--pod-selector",
                "app.kubernetes.io/name=pricebook",
                seconds=200,
            )
            eventually(lambda: len(release.ready()) == 2, seconds=120)
            time.sleep(3)
    finally:
        run("kubectl", "uncordon", drained)
    assert_nothing_lost(account, release, before)
    report.row(f"drain of a node, {server_of(release)}", "`kubectl drain` under load", account.figures())
