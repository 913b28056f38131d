"""What holds for every example: restricted pods, sound selectors, no password outside of Secrets."""

import base64
import json
import re
from itertools import product
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import chart

SELECTOR = {"app.kubernetes.io/name": "pricebook", "app.kubernetes.io/instance": chart.RELEASE}
examples = pytest.mark.parametrize("path", chart.EXAMPLES, ids=lambda path: path.stem)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether a selector matches labels."""
    return selector.items() <= labels.items()


@examples
def test_every_container_is_restricted(path: Path) -> None:
    for metadata, pod in chart.pods(chart.render(chart.example(path))):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert all(not {"hostPath"} & volume.keys() for volume in pod["volumes"])
        for container in chart.containers(pod):
            where = (metadata.get("name"), container["name"])
            context = pod.get("securityContext", {}) | container["securityContext"]
            assert context["runAsNonRoot"] is True, where
            assert context["runAsUser"] > 0, where
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["readOnlyRootFilesystem"] is True, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where


@examples
def test_every_container_says_what_it_needs(path: Path) -> None:
    for metadata, pod in chart.pods(chart.render(chart.example(path))):
        for container in chart.containers(pod):
            where = (metadata.get("name"), container["name"])
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests.keys() == {"cpu", "memory"}, where
            assert limits == {"memory": requests["memory"]}, where


@examples
def test_every_variable_is_there_once(path: Path) -> None:
    values = chart.example(path)
    own = {
        variable["name"]
        for _, pod in chart.pods(chart.render(values))
        for container in chart.containers(pod)
        for variable in container.get("env", [])
    }
    for extra in (values.get("extraEnv", []), [{"name": name, "value": "mine"} for name in own]):
        for metadata, pod in chart.pods(chart.render(values | {"extraEnv": extra})):
            for container in chart.containers(pod):
                names = [variable["name"] for variable in container.get("env", [])]
                assert len(names) == len(set(names)), (metadata.get("name"), container["name"])


@examples
def test_every_image_is_pinned_to_a_version(path: Path) -> None:
    for _, pod in chart.pods(chart.render(chart.example(path))):
        for container in chart.containers(pod):
            assert re.search(r"@sha256:[0-9a-f]{64}$|:(?!latest$)[\w.-]+$", container["image"]), container["image"]


@examples
def test_selectors_match_and_never_change(path: Path) -> None:
    objects = chart.render(chart.example(path))
    for workload in chart.of_kind(objects, "Deployment", "StatefulSet"):
        selector = workload["spec"]["selector"]["matchLabels"]
        postgres = {"app.kubernetes.io/name": "pricebook-postgres"} if workload["kind"] == "StatefulSet" else {}
        # A Deployment's selector cannot be changed, so an upgrade from any release has to find this one.
        assert selector == SELECTOR | postgres
        assert selects(selector, workload["spec"]["template"]["metadata"]["labels"])
    for item in chart.of_kind(objects, "PodDisruptionBudget"):
        assert item["spec"]["selector"]["matchLabels"] == SELECTOR
    deployment = chart.of_kind(objects, "Deployment")[0]["metadata"]["name"]
    for item in chart.of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        assert item["spec"]["scaleTargetRef"]["name"] == deployment


@examples
def test_services_lead_to_the_pods_they_mean(path: Path) -> None:
    objects = chart.render(chart.example(path))
    services = chart.of_kind(objects, "Service")
    assert len(services) >= 2
    for service in services:
        selected = [
            (metadata, pod)
            for metadata, pod in chart.pods(objects)
            if selects(service["spec"]["selector"], metadata["labels"])
        ]
        assert len(selected) == 1, service["metadata"]["name"]
        names = {port["name"] for container in selected[0][1]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    # The API's Service has no way to the metrics, and theirs none to the API.
    name = chart.of_kind(objects, "Deployment")[0]["metadata"]["name"]
    ways = {service: chart.one(objects, "Service", service)["spec"]["ports"] for service in (name, f"{name}-admin")}
    assert {service: [port["targetPort"] for port in ports] for service, ports in ways.items()} == {
        name: ["http"],
        f"{name}-admin": ["admin"],
    }


@examples
def test_prometheus_finds_the_admin_port_once(path: Path) -> None:
    objects = chart.render(chart.example(path))
    for monitor in chart.of_kind(objects, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        found = [
            service["metadata"]["name"]
            for service in chart.of_kind(objects, "Service")
            if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
            and endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
        ]
        name = chart.of_kind(objects, "Deployment")[0]["metadata"]["name"]
        assert found == [f"{name}-admin"]
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [chart.NAMESPACE]}
        assert endpoint["relabelings"][0] == {"targetLabel": "job", "replacement": name}


POLICY: chart.Object = {"networkPolicy": {"enabled": True}}


@pytest.mark.parametrize("name", ["external-host", "sidecar"])
def test_the_policy_lets_the_service_and_its_migration_reach_the_database(name: str) -> None:
    values = chart.example(chart.CHART / "ci" / f"{name}-values.yaml") | POLICY
    external = values["database"]["external"]
    external["read"] = external.get("read", {"host": "replica"}) | {"port": 5434}
    ports = [external.get("port", 5432), 7000]
    values["networkPolicy"] = {"enabled": True, "egress": {"databasePorts": ports}}
    objects = chart.render(values)
    (deployment,) = chart.of_kind(objects, "Deployment")
    needed = {
        urlsplit(url).port
        for container in chart.containers(deployment["spec"]["template"]["spec"])
        for name in ("DATABASE_URL", "DATABASE_READ_URL")
        if (url := chart.environment(container, objects).get(name))
    }
    assert 5434 in needed
    for policy in chart.of_kind(objects, "NetworkPolicy"):
        ports = [port["port"] for port in policy["spec"]["egress"][1]["ports"]]
        assert sorted(ports) == sorted(needed | {7000})


def test_the_policy_lets_through_the_ports_of_urls_that_only_secrets_know() -> None:
    values = chart.example(chart.CHART / "ci" / "external-url-values.yaml") | POLICY
    values["database"]["external"] |= {"port": 6432}
    values["database"]["external"]["migration"] |= {"existingSecret": "owner", "port": 5433}
    values["database"]["external"]["read"] = {"urlKey": "read-url", "port": 5434}
    for policy in chart.of_kind(chart.render(values), "NetworkPolicy"):
        assert {port["port"] for port in policy["spec"]["egress"][1]["ports"]} == {6432, 5433, 5434}


@pytest.mark.parametrize("name", ["bundled", "external-host", "cnpg"])
def test_network_policies_know_every_pod_and_port(name: str) -> None:
    values = chart.example(chart.CHART / "ci" / f"{name}-values.yaml")
    objects = chart.render(values | POLICY)
    policies = chart.of_kind(objects, "NetworkPolicy")
    every_pod = list(chart.pods(objects))
    for metadata, _ in every_pod:
        assert [p for p in policies if selects(p["spec"]["podSelector"]["matchLabels"], metadata["labels"])]
    for policy in policies:
        own = [
            pod
            for metadata, pod in every_pod
            if selects(policy["spec"]["podSelector"]["matchLabels"], metadata["labels"])
        ]
        assert own
        for rule in policy["spec"].get("ingress", []):
            names = {port["name"] for pod in own for container in pod["containers"] for port in container["ports"]}
            assert {port["port"] for port in rule["ports"]} <= names
        for rule in policy["spec"].get("egress", []):
            for port, peer in product(rule["ports"], rule.get("to", [])):
                if isinstance(port["port"], str):
                    selector = peer["podSelector"]["matchLabels"]
                    (there,) = [pod for metadata, pod in every_pod if selects(selector, metadata["labels"])]
                    assert port["port"] in {p["name"] for c in there["containers"] for p in c["ports"]}


@examples
def test_objects_are_labelled_and_in_their_namespace(path: Path) -> None:
    values = chart.example(path)
    elsewhere = {values.get(key, {}).get("namespace", "") for key in ("serviceMonitor", "prometheusRule", "dashboards")}
    for item in chart.render(values):
        if "app.kubernetes.io/managed-by" not in item["metadata"].get("labels", {}):
            continue  # one of extraObjects
        assert item["metadata"]["namespace"] in {chart.NAMESPACE, *elsewhere}
        assert item["metadata"]["labels"]["app.kubernetes.io/instance"] == chart.RELEASE
        assert values.get("commonLabels", {}).items() <= item["metadata"]["labels"].items()
        assert values.get("commonAnnotations", {}).items() <= item["metadata"].get("annotations", {}).items()


INLINE = {"database": {"bundled": {"passwords": {"owner": "0wner-Pa55word", "serving": "5erving-Pa55word"}}}}


@pytest.mark.parametrize("values", [*map(chart.example, chart.EXAMPLES), INLINE])
def test_passwords_are_in_secrets_only(values: chart.Object) -> None:
    rendered = chart.manifests(values)
    objects = chart.objects(rendered)
    secrets = [
        base64.b64decode(value).decode()
        for secret in chart.of_kind(objects, "Secret")
        for key, value in secret["data"].items()
        if key != "username"
    ]
    rest = json.dumps([item for item in objects if item["kind"] != "Secret"]) + rendered["NOTES.txt"]
    for secret in secrets:
        assert len(secret) >= 14
        assert secret not in rest
        assert base64.b64encode(secret.encode()).decode() not in rest


@examples
def test_names_are_short_enough(path: Path) -> None:
    longest = "a" * 43
    for item in chart.render(chart.example(path) | {"fullnameOverride": longest}):
        # A StatefulSet's and a Cluster's pods add an ordinal, and a StatefulSet's label a hash.
        limit = {"StatefulSet": 52, "Cluster": 50}.get(item["kind"], 63)
        if item["metadata"].get("namespace") == "monitoring":
            limit = 253 - (63 - len(chart.NAMESPACE))
        assert len(item["metadata"]["name"]) <= limit
