"""What skaffold reads out of ``skaffold.yaml``, for tests where skaffold itself cannot be had."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def document() -> dict[str, Any]:
    """The file as it is."""
    return dict(yaml.safe_load((ROOT / "skaffold.yaml").read_text()))


def configuration(*profiles: str) -> dict[str, Any]:
    """The file with the patches of these profiles, in this order."""
    config = document()
    known = {profile["name"]: profile for profile in config.pop("profiles")}
    for name in profiles:
        for patch in known[name]["patches"]:
            assert patch["op"] == "add", patch
            _add(config, patch["path"], patch["value"])
    return config


def _add(target: Any, path: str, value: Any) -> None:
    *parents, last = path.strip("/").split("/")
    for part in parents:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if isinstance(target, list):
        target.insert(len(target) if last == "-" else int(last), value)
    else:
        target[last] = value


def artifact(config: dict[str, Any]) -> dict[str, Any]:
    """The one image that is built."""
    [only] = config["build"]["artifacts"]
    return dict(only)


def release(config: dict[str, Any], name: str = "pricebook") -> dict[str, Any]:
    """The Helm release of this name."""
    [only] = [release for release in config["deploy"]["helm"]["releases"] if release["name"] == name]
    return dict(only)


def helm_arguments(release: dict[str, Any], repository: str, tag: str) -> list[str]:
    """What ``helm upgrade`` is told of a local chart: its values files, and the image that was built."""
    arguments = [str(ROOT / release["chartPath"])]
    for file in release["valuesFiles"]:
        arguments += ["--values", str(ROOT / file)]
    for value, template in release["setValueTemplates"].items():
        filled = template.replace("{{.IMAGE_REPO_pricebook_pricebook}}", repository)
        filled = filled.replace("{{.IMAGE_TAG_pricebook_pricebook}}", tag)
        arguments += ["--set", f"{value}={filled}"]
    return [*arguments, "--wait"] if release.get("wait") else arguments


def synced(config: dict[str, Any]) -> dict[str, str]:
    """Each file that goes into the running container when it changes, and its place there."""
    return {
        str(file.relative_to(ROOT)): f"{rule['dest']}/{file.relative_to(ROOT)}"
        for rule in artifact(config)["sync"]["manual"]
        for file in ROOT.glob(rule["src"])
    }
