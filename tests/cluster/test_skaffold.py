"""Each step that ``skaffold.yaml`` describes, by the commands that skaffold would give: build, deploy, sync, forward.

skaffold itself is not run. ``tests/deploy/test_local_cluster.py`` checks the file against its schema.
"""

import io
import tarfile
from collections.abc import Iterator
from functools import cache

import httpx2
import pytest

from tests.cluster.conftest import REPOSITORY, build
from tests.cluster.kube import ROOT, CommandFailed, Namespace, eventually, namespace, run
from tests.support import skaffold

pytestmark = pytest.mark.cluster

POD = "app.kubernetes.io/instance=pricebook,app.kubernetes.io/component=server"


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("skaffold") as ns:
        yield ns


def build_and_deploy(ns: Namespace, *profiles: str) -> None:
    """``skaffold run --profile ...`` in this namespace."""
    config = skaffold.configuration(*profiles)
    artifact = skaffold.artifact(config)
    assert artifact["image"] == REPOSITORY
    tag = built(artifact["docker"]["dockerfile"], artifact["docker"].get("target"))
    ns.helm("upgrade", "--install", "pricebook", *skaffold.helm_arguments(skaffold.release(config), REPOSITORY, tag))


@cache
def built(dockerfile: str, target: str | None) -> str:
    """The tag of the image that this Dockerfile makes; built once, as skaffold does for sources that did not change."""
    tag = f"skaffold-{target or 'service'}"
    build(ROOT, f"{REPOSITORY}:{tag}", "-f", str(ROOT / dockerfile), *(["--target", target] if target else []))
    return tag


def sync(ns: Namespace, pod: str, file: str, text: str) -> None:
    """What skaffold does for a changed file: a tar archive, unpacked in the container."""
    place = skaffold.synced(skaffold.configuration("dev"))[file].lstrip("/")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(place)
        member.size, member.mode = len(text.encode()), 0o644
        tar.addfile(member, io.BytesIO(text.encode()))
    unpack = ["tar", "xmf", "-", "-C", "/", "--no-same-owner"]
    ns.kubectl("exec", pod, "--container", "pricebook", "--stdin", "--", *unpack, stdin=archive.getvalue().decode())


def title(ns: Namespace) -> str | None:
    """The title of the API's documentation, or ``None`` while the service starts again."""
    with ns.forwarded("service/pricebook", 80) as url:
        try:
            return str(httpx2.get(f"{url}/openapi.json").json()["info"]["title"])
        except httpx2.TransportError:
            return None


def test_dev_serves_a_changed_source_from_the_same_container(ns: Namespace) -> None:
    build_and_deploy(ns, "dev")
    [pod] = [pod["metadata"]["name"] for pod in ns.pods(POD)]
    source = (ROOT / "app/main.py").read_text()
    assert title(ns) == "Pricebook"

    changed = source.replace('title="Pricebook"', 'title="Changed"')
    assert changed != source
    sync(ns, pod, "app/main.py", changed)
    eventually(lambda: title(ns) == "Changed", seconds=60)

    # One that does not start is mended by the next change, and needs no new container, which would lose the changes.
    sync(ns, pod, "app/main.py", changed + "\nthis is no Python\n")
    eventually(lambda: "SyntaxError" in ns.kubectl("logs", pod, "--tail", "30"), seconds=60)
    sync(ns, pod, "app/main.py", changed.replace("Changed", "Mended"))
    eventually(lambda: title(ns) == "Mended", seconds=60)
    [status] = ns.get("pod", pod)["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def test_ci_replaces_it_and_passes_the_charts_tests(ns: Namespace) -> None:
    config = skaffold.configuration("ci")
    build_and_deploy(ns, "ci")
    assert title(ns) == "Pricebook"
    [hook] = config["deploy"]["helm"]["hooks"]["after"]
    command = [part.replace("--namespace pricebook", f"--namespace {ns.name}") for part in hook["host"]["command"]]
    context = run("kubectl", "config", "current-context").strip()
    assert "Succeeded" in run("env", f"SKAFFOLD_KUBE_CONTEXT={context}", *command, seconds=300)


def test_forwarded_ports_answer(ns: Namespace) -> None:
    paths = {"pricebook": "/docs", "pricebook-admin": "/readyz"}
    forwards = skaffold.configuration()["portForward"]
    assert {forward["resourceName"] for forward in forwards} == set(paths)
    for forward in forwards:
        with ns.forwarded(f"{forward['resourceType']}/{forward['resourceName']}", forward["port"]) as url:
            assert httpx2.get(url + paths[forward["resourceName"]]).status_code == 200, forward


def test_monitoring_is_taken_by_the_operator(ns: Namespace) -> None:
    try:
        run("kubectl", "get", "crd", "servicemonitors.monitoring.coreos.com")
    except CommandFailed:
        pytest.skip("this cluster has no Prometheus operator")
    build_and_deploy(ns, "monitoring")
    for kind in ("servicemonitor", "prometheusrule"):
        assert ns.get(kind, "pricebook")["metadata"]["name"] == "pricebook"
