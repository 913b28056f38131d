"""The short suite: install as a person does, upgrade under load, uninstall."""

import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import Namespace, eventually, namespace, run
from tests.cluster.pods import load
from tests.cluster.release import SELECTOR, STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.cluster

INSTALL_LIMIT_SECONDS = 120


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    with namespace("install") as ns:
        yield Release(ns)


def commands_of_notes(notes: str) -> list[str]:
    """The lines of NOTES that are meant to be pasted."""
    lines = [line.strip() for line in re.sub(r"\\\n\s*", "", notes).splitlines() if line.startswith("  ")]
    return [line for line in lines if line.split(" ")[0] in {"kubectl", "curl", "helm", "export"}]


def paste(commands: list[str]) -> dict[str, str]:
    """Run commands as a person would: the port-forward in a terminal of its own. Gives what the others printed."""
    outputs = {}
    terminals = []
    exports = ""
    try:
        for command in commands:
            if "port-forward" in command:
                terminal = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=subprocess.PIPE, text=True)
                terminals.append(terminal)
                assert terminal.stdout is not None
                assert "Forwarding" in terminal.stdout.readline(), command
            elif command.startswith("export "):
                exports += f"{command}\n"
            else:
                outputs[command] = run("bash", "-c", exports + command)
    finally:
        for terminal in terminals:
            terminal.terminate()
            terminal.communicate(timeout=10)
    return outputs


def test_a_fresh_install_is_ready_in_a_restricted_namespace(release: Release, images: Images, report: Report) -> None:
    seconds = release.install(images.current)
    assert seconds < INSTALL_LIMIT_SECONDS
    assert len(release.ready()) == 2
    assert release.restarts() == 0
    report.row(
        "fresh install",
        "`helm install --wait`, bundled database, namespace enforces `restricted`",
        f"ready after {seconds:.0f} s, no restart",
    )


def test_what_the_notes_say_works_when_pasted(release: Release, report: Report) -> None:
    commands = commands_of_notes(release.ns.helm("get", "notes", "pricebook"))
    outputs = paste(commands)
    [listed] = [output for command, output in outputs.items() if command.startswith("curl") and "POST" not in command]
    assert json.loads(listed)[0]["name"] == "Foo"
    [made] = [output for command, output in outputs.items() if "/v1/keys" in command]
    assert json.loads(made)["key"].startswith("pb_")
    assert any("Succeeded" in output for command, output in outputs.items() if command.startswith("helm"))
    report.row("NOTES pasted", f"its {len(commands)} commands, `helm test` among them", f"`{listed.strip()}`")


def test_an_upgrade_under_load_loses_nothing(release: Release, images: Images, report: Report) -> None:
    release.create_item()
    before = release.seq()
    secrets = passwords(release.ns)
    with load(release.ns, images.current, *STANDARD_LOAD) as account:
        time.sleep(5)
        release.install(images.next)
        eventually(lambda: all(images.next in image for image in images_of(release)), seconds=60)
        time.sleep(5)
    assert account.failed == 0, account.summary
    assert account.unannounced_closes == 0, account.summary
    assert account.announced_closes > 0, "no client was told to reconnect: no pod was drained under load"
    assert release.seq() - before == account.written > 0
    assert passwords(release.ns) == secrets
    report.row(
        "rolling upgrade under load",
        "two replicas, 100 keep-alive clients, 50 fresh connections/s, 4 writers",
        account.figures(),
    )


def test_uninstall_leaves_what_the_notes_say(release: Release) -> None:
    release.ns.helm("uninstall", "pricebook", "--wait")
    eventually(lambda: not release.ns.get("pods", "-l", SELECTOR)["items"], seconds=90)
    left = {
        f"{item['kind']}/{item['metadata']['name']}"
        for item in release.ns.get("all,configmap,secret,pvc,pdb,networkpolicy,ingress,serviceaccount")["items"]
        if item["metadata"]["name"] not in {"kube-root-ca.crt", "default", "load"}
    }
    assert left == {
        # Helm forgets the pods of `helm test`.
        "Pod/pricebook-test-api",
        "Pod/pricebook-test-database",
        "PersistentVolumeClaim/data-pricebook-postgres-0",
        "Secret/pricebook",
        "Secret/pricebook-postgres",
    }


def images_of(release: Release) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in release.pods()]


def passwords(ns: Namespace) -> dict[str, dict[str, str]]:
    return {
        secret["metadata"]["name"]: secret["data"]
        for secret in ns.get("secrets")["items"]
        if secret["type"] == "Opaque"
    }
