"""Faults under load: the database killed and paused, pods killed. What was answered as written is there, once."""

import contextlib
import functools
import os
import shlex
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import CommandFailed, Namespace, eventually, namespace, run
from tests.cluster.pods import load
from tests.cluster.release import DATABASE, STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

PAUSE_SECONDS = 15
LOSSY_SECONDS = 30
LOST_PERCENT = 5
KILLS = 3


@pytest.fixture(scope="module")
def release(images: Images) -> Iterator[Release]:
    with namespace("faults") as ns:
        release = Release(ns)
        release.install(images.current)
        release.create_item()
        yield release


def under_fault(
    release: Release, images: Images, report: Report, title: str, how: str, fault: Callable[[], str]
) -> None:
    """Run the load, do the fault, and wait until the release answers again; then compare the ledger with the load."""
    before = release.seq()
    with load(release.ns, images.current, *STANDARD_LOAD, "--shedding-allowed", "--think-seconds=0.5") as account:
        time.sleep(3)
        more = fault()
        began = time.monotonic()
        eventually(release.answers, seconds=90, every=0.2)
        recovered = time.monotonic() - began
        time.sleep(5)
    written = release.seq() - before
    # What got no answer may have been written all the same, by one change for each such request at the most.
    assert account.written <= written <= account.written + account.failed, account.summary
    assert not any("status 5" in reason for reason in account.failures), account.summary
    report.row(
        title,
        how,
        f"{account.requests} requests: {account.shed} answered 503 with `Retry-After`, {account.failed} without a "
        f"whole answer; answering again {recovered:.0f} s after the fault{more}; {account.written} writes answered "
        f"201, {written} in the ledger",
    )


def database_pod(ns: Namespace) -> str:
    name: str = ns.pods(DATABASE)[0]["metadata"]["name"]
    return name


def _is_gone(release: Release, name: str) -> bool:
    return name not in release.ready()


def test_the_database_is_killed(release: Release, images: Images, report: Report) -> None:
    def kill() -> str:
        ns = release.ns
        old = ns.get("pod", database_pod(ns))["metadata"]["uid"]
        ns.kubectl("delete", "pod", database_pod(ns), "--grace-period=0", "--force")
        eventually(lambda: [pod["metadata"]["uid"] != old for pod in ns.pods(DATABASE)] == [True], seconds=60)
        ns.kubectl("rollout", "status", "statefulset/pricebook-postgres", "--timeout=60s")
        return ""

    restarts = release.restarts()
    under_fault(release, images, report, "database killed", "its pod deleted with `--force`, under load", kill)
    assert release.restarts() == restarts


def test_the_database_is_paused(release: Release, images: Images, report: Report) -> None:
    def pause() -> str:
        ns, name = release.ns, database_pod(release.ns)

        def signal_all(sign: str) -> None:
            # The image's shell is there in the official image and in what stands for it.
            script = (
                f"for p in /proc/[0-9]*; do n=${{p#/proc/}}; [ $n -eq $$ ] || [ $n -eq 1 ] || kill -{sign} $n; done"
            )
            try:
                ns.kubectl("exec", name, "--", "sh", "-c", script, seconds=20)
            except CommandFailed as error:
                pytest.skip(f"processes of the database cannot be paused here: {error}")

        signal_all("STOP")
        time.sleep(PAUSE_SECONDS)
        signal_all("CONT")
        return f", which lasted {PAUSE_SECONDS} s"

    restarts = release.restarts()
    how = "SIGSTOP to its processes but the first, under load"
    under_fault(release, images, report, "database paused", how, pause)
    assert release.restarts() == restarts


def test_pods_are_killed(release: Release, images: Images, report: Report) -> None:
    def kill() -> str:
        for _ in range(KILLS):
            release.settled(2)
            victim = release.ready()[0]
            release.ns.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
            eventually(functools.partial(_is_gone, release, victim), seconds=30)
        release.settled(2)
        return ""

    how = f"a pod deleted with `--force`, {KILLS} times, under load"
    under_fault(release, images, report, "pods killed", how, kill)


def _has_restarted(release: Release, times: int) -> bool:
    return release.restarts() == times


_KILL_WORKER = "import os, pathlib; os.kill(int(pathlib.Path('/proc/1/task/1/children').read_text().split()[0]), 9)"


def test_serving_processes_are_killed(release: Release, images: Images, report: Report) -> None:
    restarts = release.restarts()

    def kill() -> str:
        for number in range(1, KILLS + 1):
            release.settled(2)
            victim = release.ready()[0]
            release.ns.kubectl("exec", victim, "--container", "pricebook", "--", "python", "-c", _KILL_WORKER)
            eventually(functools.partial(_has_restarted, release, restarts + number), seconds=60)
        release.settled(2)
        return f", {KILLS} containers started again in their pods"

    how = f"SIGKILL to the process that serves, in a pod, {KILLS} times, under load"
    under_fault(release, images, report, "serving processes killed", how, kill)


@contextlib.contextmanager
def packets_lost(ns: Namespace) -> Iterator[None]:
    """Let every node lose packets that come in during the block: TCP repeats them after 0.2 seconds and more.

    ``CLUSTER_NODE_SHELL`` is how to run a program in a node's network: ``docker exec {node}`` with kind.
    """
    if not (shell := os.environ.get("CLUSTER_NODE_SHELL")):
        pytest.skip("CLUSTER_NODE_SHELL does not say how to run a program in a node's network")
    chain = f"type filter hook prerouting priority -300; numgen random mod 100 < {LOST_PERCENT} drop;"
    nodes = [node["metadata"]["name"] for node in ns.get("nodes")["items"]]

    def on_nodes(*command: str) -> None:
        for node in nodes:
            run(*shlex.split(shell.format(node=node)), *command)

    on_nodes("nft", f"table inet loss {{ chain incoming {{ {chain} }}; }}")
    try:
        yield
    finally:
        on_nodes("nft", "delete table inet loss")


def test_the_network_loses_packets(release: Release, images: Images, report: Report) -> None:
    def lose() -> str:
        with packets_lost(release.ns):
            time.sleep(LOSSY_SECONDS)
        return f", which lasted {LOSSY_SECONDS} s"

    restarts = release.restarts()
    how = f"{LOST_PERCENT} % of the packets that reach a node or a pod are dropped (nftables), under load"
    under_fault(release, images, report, "network loses packets", how, lose)
    assert release.restarts() == restarts
