"""The chart, rendered by the real Helm engine."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "pricebook"
EXAMPLES = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE = "shop"
NAMESPACE = "prices"

type Object = dict[str, Any]


class _Loader(yaml.CSafeLoader):
    """Refuses a key that occurs twice, as Kubernetes does where it validates strictly."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {min(twice)}", node.start_mark)
        return super().construct_mapping(node, deep)


@functools.cache
def _chart() -> helm_python.Chart:
    return helm_python.Chart.load(CHART)


def manifests(values: Object | None = None, *, name: str = RELEASE) -> dict[str, str]:
    """The text of each template, ``NOTES.txt`` too, by its path below ``templates``."""
    rendered = _chart().render(values, name=name, namespace=NAMESPACE)
    return {path.removeprefix("pricebook/templates/"): text for path, text in rendered.items()}


def render(values: Object | None = None, *, name: str = RELEASE) -> list[Object]:
    """All objects that an installation with these values creates, those of ``helm test`` too."""
    return objects(manifests(values, name=name))


def objects(rendered: dict[str, str]) -> list[Object]:
    """The objects in the texts of all templates."""
    return [
        document
        for path, text in rendered.items()
        if path != "NOTES.txt"
        for document in yaml.load_all(text, Loader=_Loader)
        if document is not None
    ]


def example(path: Path) -> Object:
    """The values of an example file."""
    values: Object = yaml.safe_load(path.read_text())
    return values


def values() -> Object:
    """The values as the chart has them."""
    return example(CHART / "values.yaml")


def message(values: Object, *, name: str = RELEASE) -> str:
    """What Helm says to values that it refuses; empty if it takes them."""
    try:
        _chart().render(values, name=name, namespace=NAMESPACE)
    except helm_python.HelmError as error:
        return str(error)
    return ""


def lint() -> Object:
    """Helm's own findings."""
    return helm_python.lint(CHART, strict=True)


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """The objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def one(objects: list[Object], kind: str, name: str) -> Object:
    """The object of this kind and name."""
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def pods(objects: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Metadata and spec of every pod: those of workloads and those of ``helm test``."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item["metadata"], item["spec"]
        elif item["kind"] in {"Deployment", "StatefulSet"}:
            yield item["spec"]["template"]["metadata"], item["spec"]["template"]["spec"]


def containers(pod: Object) -> list[Object]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(container: Object, objects: list[Object]) -> dict[str, Any]:
    """The variables of a container: texts, or for those from Secrets the Secret's name and key."""
    result: dict[str, Any] = {}
    for source in container.get("envFrom", []):
        if "configMapRef" in source:
            result |= one(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        result[variable["name"]] = (reference["name"], reference["key"]) if reference else variable.get("value")
    return result
