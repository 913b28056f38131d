"""The values: documented, closed against typing errors, and the service's own settings with its own limits."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from app.settings import Settings
from deploy import chart_readme
from tests.support import chart

SCHEMA: dict[str, Any] = json.loads((chart.CHART / "values.schema.json").read_text())

# Not for `config`: they come from elsewhere in the values, or are the chart's own business.
_SECRETS = {"database_url", "database_read_url", "secret_key", "secret_key_previous", "admin_key"}
NOT_IN_CONFIG = _SECRETS | {"serving_role", "host", "port", "admin_host", "admin_port"}
# The chart's default is another, for the reason that values.yaml gives.
OTHER_DEFAULT = {"database_pool_size", "database_import_pool_size"}


def setting(key: str) -> str:
    """The field of Settings that a key of ``config`` stands for."""
    return re.sub(r"(?=[A-Z])", "_", key).lower()


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema in place of a reference to it."""
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].removeprefix("#/definitions/")
    return resolved(SCHEMA["definitions"][name])


def test_config_has_every_setting_and_no_other() -> None:
    assert {setting(key) for key in chart.values()["config"]} == Settings.model_fields.keys() - NOT_IN_CONFIG


def test_config_has_the_defaults_of_the_service() -> None:
    for key, value in chart.values()["config"].items():
        if setting(key) not in OTHER_DEFAULT:
            assert value == Settings.model_fields[setting(key)].default, key


def test_config_has_the_limits_of_the_service() -> None:
    ours = SCHEMA["properties"]["config"]["properties"]
    for key, schema in ours.items():
        theirs = TypeAdapter(Settings).json_schema()["properties"][setting(key)]
        limits = ["type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]
        assert {name: schema.get(name) for name in limits} == {name: theirs.get(name) for name in limits}, key
        if "pattern" in theirs:
            assert schema["pattern"] == theirs["pattern"]


def test_pods_get_the_settings_as_the_service_reads_them() -> None:
    config = {"drainSeconds": 2.5, "maxBodyBytes": 1_073_741_824, "logLevel": "debug", "apiVersion": "v2"}
    objects = chart.render({"config": config})
    pod = chart.one(objects, "Deployment", "shop-pricebook")["spec"]["template"]["spec"]
    variables = chart.environment(pod["containers"][0], objects)
    settings = Settings.model_validate(
        {name.lower(): value for name, value in variables.items() if isinstance(value, str)}
        | {"secret_key": "x" * 32, "database_url": variables["DATABASE_URL"]}
    )
    assert settings.drain_seconds == 2.5
    assert settings.max_body_bytes == 1_073_741_824
    assert (settings.log_level, settings.api_version) == ("debug", "v2")
    assert (settings.port, settings.admin_port, settings.database_pool_size) == (8000, 8001, 5)


def objects_in(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that names properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield path, schema
        for key, part in schema.items():
            yield from objects_in(part, f"{path}/{key}")


def test_the_schema_is_closed() -> None:
    found = list(objects_in(SCHEMA))
    assert len(found) > 40
    assert [path for path, schema in found if schema.get("additionalProperties") is not False] == []


def missing(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Differences between values and schema: keys of only one of them, and keys that null could take away."""
    schema = resolved(schema)
    if not isinstance(value, dict) or "properties" not in schema or schema is SCHEMA["definitions"]["resources"]:
        return
    yield from (f"not in the schema: {path}.{key}" for key in value.keys() - schema["properties"].keys())
    for key, part in schema["properties"].items():
        if key not in value:
            yield f"not in values.yaml: {path}.{key}"
            continue
        needed = value[key] not in ("", None) and not isinstance(value[key], list)
        free = isinstance(value[key], dict) and "properties" not in resolved(part)
        if needed and not free and key not in schema.get("required", []):
            yield f"null takes it away: {path}.{key}"
        yield from missing(value[key], part, f"{path}.{key}")


def test_schema_and_values_have_the_same_keys() -> None:
    assert set(missing(chart.values(), SCHEMA)) == {
        # What charts that depend on this one may set.
        "not in values.yaml: .global",
        "not in values.yaml: .enabled",
        # Refused with a better sentence than a schema could give.
        "not in values.yaml: .database.external.password",
        "not in values.yaml: .database.external.url",
    }


EVERYTHING: chart.Object = {
    switch: {"enabled": True}
    for switch in ("serviceMonitor", "prometheusRule", "dashboards", "networkPolicy", "ingress", "httpRoute", "tracing")
}
EVERYTHING["ingress"]["hosts"] = [{"host": "prices.example.com"}]
EVERYTHING["httpRoute"]["parentRefs"] = [{"name": "public"}]
EVERYTHING["tracing"]["endpoint"] = "http://otel-collector:4318"


def paths(values: chart.Object, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The way to every value, and to every map of them."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from paths(value, (*above, key))


def with_null(values: chart.Object, path: tuple[str, ...]) -> chart.Object:
    """Values with null at a path."""
    key, *below = path
    return values | {key: with_null(values.get(key, {}), tuple(below)) if below else None}


@pytest.mark.long
@pytest.mark.parametrize(
    ("mode", "scaler", "secret"), [("bundled", "autoscaling", ""), ("external", "keda", "x"), ("cnpg", "keda", "")]
)
def test_a_key_left_empty_is_refused_by_name_or_does_nothing(mode: str, scaler: str, secret: str) -> None:
    database = {"mode": mode, "external": {"existingSecret": secret}}
    base = EVERYTHING | {scaler: {"enabled": True}, "database": database}
    assert chart.message(base) == ""
    faults = {path: chart.message(with_null(base, path)) for path in paths(chart.values())}
    told = ("values don't meet the specifications of the schema", "execution error at")
    assert {path: fault for path, fault in faults.items() if fault and not fault.startswith(told)} == {}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"replicaCount": 3}, "additional properties 'replicaCount' not allowed"),
        ({"config": {"databasePoolsize": 3}}, "at '/config': additional properties 'databasePoolsize' not allowed"),
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"config": {"databasePoolSize": 500}}, "at '/config/databasePoolSize': maximum: got 500, want 200"),
        ({"config": {"server": "hypercorn"}}, "at '/config/server': value must be one of 'gunicorn', 'uvicorn'"),
        ({"config": None}, "missing property 'config'"),
        ({"config": {"drainSeconds": None}}, "at '/config': missing property 'drainSeconds'"),
        ({"database": {"mode": "sqlite"}}, "at '/database/mode': value must be one of 'bundled', 'external', 'cnpg'"),
        ({"image": {"digest": "sha256:abc"}}, "at '/image/digest': 'sha256:abc' does not match pattern"),
        (
            {"database": {"bundled": {"image": {"tag": ""}}}},
            "at '/database/bundled/image/tag': '' does not match pattern",
        ),
        ({"slo": {"latencyPercent": 93}}, "at '/slo/latencyPercent': minimum: got 93, want 95"),
        ({"slo": {"availabilityPercent": 94.9}}, "at '/slo/availabilityPercent': minimum: got 94.9, want 95"),
        ({"image": {"tag": "a b"}}, "at '/image/tag': 'a b' does not match pattern"),
        ({"preStopSeconds": 0}, "at '/preStopSeconds': minimum: got 0, want 1"),
        ({"maxSurge": "0%"}, "at '/maxSurge': '0%' does not match pattern"),
        (
            {"podDisruptionBudget": {"maxUnavailable": 0}},
            "at '/podDisruptionBudget/maxUnavailable': minimum: got 0, want 1",
        ),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "at '/resources/limits/memory'"),
        ({"slo": {"availabilityPercent": 100}}, "at '/slo/availabilityPercent': exclusiveMaximum: got 100, want 100"),
        (
            {"secretKey": {"existingSecret": "Not A Name"}},
            "at '/secretKey/existingSecret': 'Not A Name' does not match",
        ),
        ({"ingress": {"hosts": [{"paths": []}]}}, "at '/ingress/hosts/0': missing property 'host'"),
        ({"commonLabels": {"on": True}}, "at '/commonLabels/on': got boolean, want string"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(values: chart.Object, fault: str) -> None:
    assert fault in chart.message(values)


def test_the_readme_has_every_value_as_it_is() -> None:
    current = (chart.CHART / "README.md").read_text()
    values = (chart.CHART / "values.yaml").read_text()
    assert current == chart_readme.readme(current, values), "run: python -m deploy.chart_readme"


def test_a_value_without_a_description_is_noticed() -> None:
    values = (chart.CHART / "values.yaml").read_text()
    with pytest.raises(ValueError, match=r"^image\.registry has no description"):
        chart_readme.table(values.replace("image:\n", "image:\n  registry: docker.io\n\n", 1))


def test_the_readme_names_every_example() -> None:
    text = (chart.CHART / "README.md").read_text()
    assert [path.stem for path in chart.EXAMPLES if f"`{path.stem.removesuffix('-values')}`" not in text] == []


def test_the_chart_is_of_this_version() -> None:
    project = tomllib.loads((chart.ROOT / "pyproject.toml").read_text())["project"]
    metadata = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    assert metadata["appVersion"] == project["version"]
    assert metadata["description"] == project["description"]
    objects = chart.render()
    images = {container["image"] for _, pod in chart.pods(objects) for container in chart.containers(pod)}
    told = {item["image"] for item in yaml.safe_load(metadata["annotations"]["artifacthub.io/images"])}
    assert images == told == {f"ghcr.io/pricebook/pricebook:{project['version']}", "docker.io/library/postgres:18"}
