"""Every example of values is admitted where policies are strict, and works behind default-deny network policies."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import Images
from tests.cluster.kube import CHART, ROOT, CommandFailed, Namespace, eventually, namespace, run
from tests.cluster.release import Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

SCHEMAS = Path(os.environ.get("SCHEMAS_DIR", ROOT.parent / "shared" / "schemas")) / "crds"
EXAMPLES = sorted((CHART / "ci").glob("*.yaml"))
DEFAULT_DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "default-deny"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}
QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "quota"},
    # Naming these makes admission refuse every container that does not say what it needs.
    "spec": {"hard": {"requests.cpu": "16", "requests.memory": "32Gi", "limits.memory": "32Gi", "pods": "40"}},
}
LIMIT_RANGE = {
    "apiVersion": "v1",
    "kind": "LimitRange",
    "metadata": {"name": "limits"},
    "spec": {"limits": [{"type": "Container", "max": {"memory": "8Gi"}, "min": {"cpu": "10m", "memory": "16Mi"}}]},
}

PRIORITY_CLASS = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "business-critical"},
    "value": 1000,
}
MONITORING = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}
SERVICE_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cloudsql-client"}}


@pytest.fixture(scope="module")
def _presupposed() -> Iterator[None]:
    """What the examples take for granted in a cluster, where it is absent; it goes again afterwards.

    With the kinds of the operators that they ask for, the API server itself checks what is rendered.
    """
    definitions = [yaml.safe_load(file.read_text()) for file in sorted(SCHEMAS.glob("*.yaml"))]
    created = []
    try:
        for manifest in [*definitions, PRIORITY_CLASS, MONITORING]:
            thing = f"{manifest['kind']}/{manifest['metadata']['name']}"
            try:
                run("kubectl", "get", thing)
            except CommandFailed:
                run("kubectl", "create", "--filename", "-", stdin=json.dumps(manifest))
                created.append(thing)
                if manifest in definitions:
                    run("kubectl", "wait", "--for=condition=Established", "--timeout=30s", thing)
        yield
    finally:
        for thing in created:
            run("kubectl", "delete", thing, "--wait=false")


def strict(ns: Namespace) -> None:
    """Deny all traffic, and demand that every container says what it needs."""
    ns.apply(DEFAULT_DENY, QUOTA, LIMIT_RANGE)


def refusals(ns: Namespace) -> list[str]:
    """What admission refused to create."""
    return [event["message"] for event in ns.get("events")["items"] if event["reason"] == "FailedCreate"]


def controllers_have_their_pods(ns: Namespace) -> bool:
    """Whether every controller was allowed to create the pods that it wants."""
    items = ns.get("replicasets,statefulsets")["items"]
    return bool(items) and all(item["status"].get("replicas", 0) == item["spec"]["replicas"] for item in items)


@pytest.mark.usefixtures("_presupposed")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_admission_accepts_every_example(example: Path, images: Images, report: Report) -> None:
    with namespace("policy") as ns:
        strict(ns)
        ns.apply(SERVICE_ACCOUNT)
        repository, tag = images.current.rsplit(":", 1)
        # Without --wait: secrets, gateways and databases of the examples are not here, admission is what is asked.
        ns.helm(
            "install",
            "pricebook",
            str(CHART),
            "--values",
            str(example),
            "--set",
            f"image.repository={repository},image.tag={tag},image.digest=",
        )
        try:
            eventually(lambda: controllers_have_their_pods(ns), seconds=30)
            assert refusals(ns) == []
            manifest = yaml.safe_load_all(ns.helm("get", "manifest", "pricebook"))
            kinds = sorted({item["kind"] for item in manifest if item})
        finally:
            # Some of it is in a namespace that stays.
            ns.helm("uninstall", "pricebook")
        report.row(
            f"example `{example.name}`", "installed under quota, limits, `restricted`", f"admitted: {', '.join(kinds)}"
        )


def test_it_works_behind_default_deny(images: Images, report: Report) -> None:
    with namespace("deny") as ns:
        strict(ns)
        release = Release(ns, arguments=("--set=networkPolicy.enabled=true",))
        seconds = release.install(images.current)
        assert "Succeeded" in ns.helm("test", "pricebook", "--timeout", "2m")
        assert len(release.ready()) == 2
        report.row(
            "default-deny network policies",
            "`networkPolicy.enabled=true` beside a policy that denies all; `helm test`",
            f"ready after {seconds:.0f} s, tests passed",
        )


def test_the_policy_keeps_others_out(images: Images, report: Report) -> None:
    """Without our policies nothing gets through, so it is they that let the traffic of the test above in."""
    with namespace("closed") as ns:
        strict(ns)
        release = Release(ns)
        said = release.install_fails(images.current, wait="25s")
        assert release.ready() == []
        report.row(
            "default-deny without our policies",
            "the counter-test",
            f"not ready: `{said.strip().splitlines()[-1][:100]}`",
        )
