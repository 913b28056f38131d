"""kind's configuration, skaffold.yaml and the scripts behind `make cluster-up` and `make deploy`.

kind and skaffold are not run by these tests. Skaffold's own schema checks its file, and tests/cluster runs its steps by
hand on a real cluster.
"""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support import skaffold

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(os.environ.get("SCHEMAS_DIR", ROOT.parent / "shared" / "schemas"))
PROFILES = [profile["name"] for profile in skaffold.document()["profiles"]]
COMBINATIONS = [chosen for size in range(len(PROFILES) + 1) for chosen in itertools.permutations(PROFILES, size)]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    file = SCHEMAS / "skaffold-v4beta14.json"
    if not file.exists():
        pytest.skip(f"skaffold's schema is not in {SCHEMAS} (SCHEMAS_DIR)")
    return dict(json.loads(file.read_text()))


def test_profiles() -> None:
    assert PROFILES == ["dev", "monitoring", "ci"]


def test_the_file_fits_the_schema(schema: dict[str, Any]) -> None:
    jsonschema.validate(skaffold.document(), schema)


@pytest.mark.parametrize("profiles", COMBINATIONS, ids="+".join)
def test_every_combination_of_profiles_fits_the_schema(schema: dict[str, Any], profiles: tuple[str, ...]) -> None:
    jsonschema.validate(skaffold.configuration(*profiles), schema)


@pytest.mark.parametrize("profiles", COMBINATIONS, ids="+".join)
def test_profiles_are_independent_of_each_other(profiles: tuple[str, ...]) -> None:
    config = skaffold.configuration(*profiles)
    service = skaffold.release(config)
    assert set(service["valuesFiles"]) == {
        "deploy/values/local.yaml",
        *(["deploy/values/development.yaml"] if "dev" in profiles else []),
        *(["deploy/values/monitoring.yaml"] if "monitoring" in profiles else []),
    }
    assert service.get("dependsOn") == (["monitoring"] if "monitoring" in profiles else None)
    assert (skaffold.artifact(config)["docker"].get("target") == "development") == ("dev" in profiles)
    for release in config["deploy"]["helm"]["releases"]:
        for file in release["valuesFiles"]:
            assert (ROOT / file).exists(), file


@pytest.mark.parametrize("name", ["local", "development", "monitoring"])
def test_the_chart_takes_the_values(name: str) -> None:
    chart = ROOT / "charts" / "pricebook"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    _merge(values, yaml.safe_load((ROOT / "deploy" / "values" / f"{name}.yaml").read_text()))
    jsonschema.validate(values, json.loads((chart / "values.schema.json").read_text()))


def _merge(values: dict[str, Any], others: dict[str, Any]) -> None:
    for key, value in others.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def test_every_source_is_synced_but_the_migrations() -> None:
    sources = {str(file.relative_to(ROOT)) for file in (ROOT / "app").rglob("*.py")}
    migrations = {file for file in sources if file.startswith("app/migrations/")}
    assert migrations
    assert skaffold.synced(skaffold.configuration("dev")) == {file: f"/src/{file}" for file in sources - migrations}


def test_both_ways_install_the_same_monitoring() -> None:
    release = skaffold.release(skaffold.configuration("monitoring"), "monitoring")
    script = (ROOT / "scripts" / "cluster").read_text()
    assert f"\nmonitoring_version={release['version']}\n" in script
    assert f" {release['remoteChart']} " in script
    assert f"--values {release['valuesFiles'][0]} " in script


def test_the_cluster_has_workers_in_two_zones() -> None:
    cluster = yaml.safe_load((ROOT / "deploy" / "kind.yaml").read_text())
    assert f"kind-{cluster['name']}" == skaffold.document()["deploy"]["kubeContext"]
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker"]
    zones = [node.get("labels", {}).get("topology.kubernetes.io/zone") for node in cluster["nodes"]]
    assert zones == [None, "zone-a", "zone-b"]


class Machine:
    """A PATH of stand-ins that write down how they were called, and of nothing else but the shell's usual tools."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.bin.mkdir()
        for tool in ("cksum", "cut", "dirname", "find", "grep", "sh", "sort", "xargs"):
            (self.bin / tool).symlink_to(shutil.which(tool) or "")
        self._calls = directory / "calls"

    def has(self, *programs: str, answers: str = "true") -> None:
        for program in programs:
            file = self.bin / program
            file.write_text(f'#!/bin/sh\necho "{program} $*" >>{self._calls}\n{answers}\n')
            file.chmod(0o755)

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self._calls.write_text("")
        return subprocess.run(
            command,
            cwd=ROOT,
            env={"PATH": str(self.bin), **environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_an_image_is_built_with_docker_and_loaded_with_kind(machine: Machine) -> None:
    machine.has("docker", "kind")
    done = machine.run("scripts/build-image", ".", "pricebook/pricebook:x", "--target", "development")
    assert done.returncode == 0, done.stderr
    assert machine.calls == [
        "docker buildx build --load --tag pricebook/pricebook:x --target development .",
        "kind load docker-image --name pricebook pricebook/pricebook:x",
    ]


def test_another_cluster_has_another_way_to_get_an_image(machine: Machine) -> None:
    machine.has("docker", "kind", "other")
    environment = {"CLUSTER_BUILD_IMAGE": str(machine.bin / "other")}
    done = machine.run("scripts/build-image", ".", "pricebook/pricebook:x", "--target", "development", **environment)
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["other . pricebook/pricebook:x --target development"]


def test_a_cluster_is_made_once(machine: Machine) -> None:
    machine.has("docker", "kubectl", "helm")
    machine.has("kind", answers="[ $1 = get ] && echo others")
    machine.run("scripts/cluster", "up")
    assert "kind create cluster --name pricebook --config deploy/kind.yaml --wait 3m" in machine.calls
    machine.has("kind", answers="[ $1 = get ] && echo others && echo pricebook")
    done = machine.run("scripts/cluster", "up", MONITORING="1")
    assert machine.calls[0] == "kind get clusters"
    assert machine.calls[1].startswith("helm --kube-context kind-pricebook upgrade --install monitoring ")
    assert (done.returncode, len(machine.calls)) == (0, 2), done.stderr


def test_a_missing_program_is_named(machine: Machine) -> None:
    machine.has("docker", "kubectl", "helm")
    done = machine.run("scripts/cluster", "up")
    assert done.returncode == 1
    assert "needs kind, which is not on the PATH" in done.stderr
    assert machine.calls == []


def test_deploy_goes_to_the_local_cluster_whatever_the_current_context(machine: Machine) -> None:
    machine.has("docker", "kind", "helm", "kubectl")
    done = machine.run("scripts/deploy", "--dry-run")
    assert done.returncode == 0, done.stderr
    *_, upgrade = machine.calls
    assert upgrade.startswith("helm --kube-context kind-pricebook upgrade --install pricebook charts/pricebook ")
    assert upgrade.endswith(" --dry-run")
    assert "monitoring.yaml" not in upgrade
    tag = upgrade.partition("image.tag=")[2].split()[0]
    assert f"docker buildx build --load --tag pricebook/pricebook:{tag} ." in machine.calls

    machine.run("scripts/deploy", KUBE_CONTEXT="other", NAMESPACE="prices", MONITORING="1")
    *_, upgrade = machine.calls
    assert upgrade.startswith("helm --kube-context other upgrade ")
    assert " --namespace prices " in upgrade
    assert " --values deploy/values/monitoring.yaml " in upgrade
    assert f"image.tag={tag} " in upgrade, "the same sources have the same tag"


def test_deploy_says_what_to_do_where_no_cluster_answers(machine: Machine) -> None:
    machine.has("docker", "kind", "kubectl")
    machine.has("helm", answers="false")
    done = machine.run("scripts/deploy")
    assert done.returncode == 1
    assert "No cluster answers as kind-pricebook. Start one with: make cluster-up." in done.stderr
    assert machine.calls == ["helm --kube-context kind-pricebook list --namespace pricebook"]
