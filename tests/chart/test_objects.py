"""Every object of every example is one that Kubernetes, and the operators of the custom resources, would take."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support import chart

SCHEMAS = Path(os.environ.get("SCHEMAS_DIR", chart.ROOT.parent / "shared" / "schemas")) / "crds"
OLDEST, NEWEST = "1.30", "1.37"
OWN_GROUPS = ("apps/", "autoscaling/", "networking.k8s.io/", "policy/")


def is_builtin(item: chart.Object) -> bool:
    """Whether Kubernetes itself knows the kind."""
    version: str = item["apiVersion"]
    return version == "v1" or version.startswith(OWN_GROUPS)


@functools.cache
def validate(text: str, version: str) -> None:
    """Validate an object; most examples have most objects in common, and each validation reads a megabyte of schema."""
    kubernetes_validate.validate(json.loads(text), version, strict=True)


@pytest.mark.parametrize("path", chart.EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object(path: Path, version: str) -> None:
    # Generated passwords are different each time.
    objects = [item | ({"data": {}} if item["kind"] == "Secret" else {}) for item in chart.render(chart.example(path))]
    for item in filter(is_builtin, objects):
        validate(json.dumps(item), version)


def closed(schema: Any) -> Any:
    """A schema of a custom resource that refuses what it does not name, as the API server drops it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        result["additionalProperties"] = False
    return result


@functools.cache
def validators() -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    """A validator for each version and kind of the definitions at hand."""
    found = {}
    for file in SCHEMAS.glob("*.yaml"):
        for definition in yaml.load_all(file.read_text(), Loader=yaml.CSafeLoader):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = jsonschema.Draft202012Validator(
                    closed(schema)
                )
    return found


needs_schemas = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason=f"no definitions of custom resources in {SCHEMAS}; set SCHEMAS_DIR"
)


@needs_schemas
@pytest.mark.parametrize("path", chart.EXAMPLES, ids=lambda path: path.stem)
def test_operators_take_every_custom_resource(path: Path) -> None:
    for item in chart.render(chart.example(path)):
        if not is_builtin(item):
            validators()[item["apiVersion"], item["kind"]].validate(item)


def test_examples_have_every_custom_resource_and_every_kind() -> None:
    kinds = {item["kind"] for path in chart.EXAMPLES for item in chart.render(chart.example(path))}
    assert kinds == {
        "Cluster",
        "ConfigMap",
        "Deployment",
        "ExternalSecret",
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "Pooler",
        "PrometheusRule",
        "ScaledObject",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "StatefulSet",
    }


@needs_schemas
def test_an_unknown_field_of_a_custom_resource_is_noticed() -> None:
    monitor = chart.of_kind(chart.render({"serviceMonitor": {"enabled": True}}), "ServiceMonitor")[0]
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    with pytest.raises(jsonschema.ValidationError, match="intervall"):
        validators()["monitoring.coreos.com/v1", "ServiceMonitor"].validate(monitor)


def test_helm_finds_nothing_wrong() -> None:
    findings = chart.lint()
    assert findings["total_charts_linted"] == 1
    assert findings["errors"] == []
    assert [item for item in findings["messages"] if item["error"] != "icon is recommended"] == []
