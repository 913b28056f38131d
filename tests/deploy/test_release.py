"""How a release is made: the scripts do what they say, and the workflows call what exists."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what names the version, as it is for a release of 1.2.3."""
    for file in ("pyproject.toml", "uv.lock", "CHANGELOG.md", "charts/pricebook/Chart.yaml"):
        copy = tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, copy)
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    [version] = re.findall(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    edit(tmp_path / "pyproject.toml", f'version = "{version}"', 'version = "1.2.3"')
    edit(tmp_path / "uv.lock", f'name = "pricebook"\nversion = "{version}"', 'name = "pricebook"\nversion = "1.2.3"')
    edit(tmp_path / "charts/pricebook/Chart.yaml", version, "1.2.3")
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## Unreleased\n\n- Later.\n\n"
        "## 1.2.3 - 2027-01-31\n\n### Added\n\n- This.\n\n"
        "## 1.2.2 - 2027-01-01\n\n- Before.\n"
    )
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new))


def run(tree: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tree / "scripts" / command[0], *command[1:]],
        env={"PATH": f"{tree}/bin:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_tree_in_order_may_be_released(tree: Path) -> None:
    done = run(tree, "release-check", "v1.2.3")
    assert (done.returncode, done.stderr) == (0, "")
    assert run(tree, "release-notes", "v1.2.3").stdout == "### Added\n\n- This.\n\n"
    assert run(tree, "release-notes", "v1.2").stdout == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        ("pyproject.toml", 'version = "1.2.3"', 'version = "1.2.4"', "pyproject.toml, version, says '1.2.4'"),
        ("uv.lock", '"pricebook"\nversion = "1.2.3"', '"pricebook"\nversion = "1.2.2"', "uv.lock, package pricebook,"),
        ("charts/pricebook/Chart.yaml", "\nversion: 1.2.3", "\nversion: 1.2.2", "Chart.yaml, version, says '1.2.2'"),
        ("charts/pricebook/Chart.yaml", 'appVersion: "1.2.3"', "appVersion: 1.2.2", "appVersion, says '1.2.2'"),
        ("charts/pricebook/Chart.yaml", "/pricebook:1.2.3", "/pricebook:1.2.2", "artifacthub.io/images, says '1.2.2'"),
        ("CHANGELOG.md", "## 1.2.3 - 2027-01-31", "## 1.2.3 - soon", "CHANGELOG.md has no text under a heading"),
        ("CHANGELOG.md", "### Added\n\n- This.\n", "", "CHANGELOG.md has no text under a heading"),
    ],
)
def test_what_keeps_a_tree_from_being_released(tree: Path, file: str, old: str, new: str, complaint: str) -> None:
    edit(tree / file, old, new)
    done = run(tree, "release-check", "v1.2.3")
    assert done.returncode == 1
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_tag_has_a_form(tree: Path) -> None:
    done = run(tree, "release-check", "1.2.3")
    assert (done.returncode, done.stderr) == (1, "The tag 1.2.3 is not of the form v1.2.3.\n")


def stand_in(tree: Path, program: str, script: str) -> None:
    file = tree / "bin" / program
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/bin/sh\necho "{program} $*" >>{tree}/calls\n{script}\n')
    file.chmod(0o755)


@pytest.fixture
def publishing(tree: Path) -> Path:
    """The tree, with docker, helm, git and cosign that write down what they were told, and name a digest."""
    name_digest = f'''for last; do [ "$before" = --metadata-file ] && echo '{{
  "containerimage.digest": "{DIGEST}"
}}' >"$last"; before=$last; done'''
    stand_in(tree, "docker", name_digest)
    stand_in(tree, "git", "echo of-git")
    stand_in(tree, "cosign", "true")
    package = f'[ $1 = package ] && touch "$4/pricebook-1.2.3.tgz" || echo "Pushed: x\nDigest: {DIGEST}"'
    stand_in(tree, "helm", package)
    return tree


def test_an_image_is_signed_by_the_digest_that_was_pushed(publishing: Path) -> None:
    done = run(publishing, "publish-image", "ghcr.io/some", "v1.2.3")
    assert done.stdout == f"ghcr.io/some/pricebook@{DIGEST}\n", done.stderr
    calls = (publishing / "calls").read_text().splitlines()
    assert calls[-1] == f"cosign sign --yes ghcr.io/some/pricebook@{DIGEST}"
    [build] = [call for call in calls if call.startswith("docker")]
    for option in (
        "--push",
        "--platform linux/amd64,linux/arm64",
        "--sbom=true",
        "--provenance=mode=max",
        "--tag ghcr.io/some/pricebook:1.2.3",
        "--build-arg VERSION=1.2.3",
        "--build-arg REVISION=of-git",
    ):
        assert f" {option} " in build


def test_a_chart_is_signed_by_the_digest_that_was_pushed(publishing: Path) -> None:
    done = run(publishing, "publish-chart", "ghcr.io/some")
    assert done.stdout == f"ghcr.io/some/charts/pricebook@{DIGEST}\n", done.stderr
    *_, push, sign = (publishing / "calls").read_text().splitlines()
    assert re.fullmatch(r"helm push /\S+/pricebook-1.2.3.tgz oci://ghcr.io/some/charts", push)
    assert sign == f"cosign sign --yes ghcr.io/some/charts/pricebook@{DIGEST}"


@pytest.mark.parametrize("arguments", [("publish-image", "ghcr.io/some", "v1.2.3"), ("publish-chart", "ghcr.io/some")])
@pytest.mark.parametrize("program", ["docker", "helm"])
def test_nothing_is_signed_without_a_digest(publishing: Path, arguments: tuple[str, ...], program: str) -> None:
    stand_in(publishing, program, '[ "$1" = package ] && touch "$4/pricebook-1.2.3.tgz" || true')
    done = run(publishing, *arguments)
    ours = (program == "docker") == (arguments[0] == "publish-image")
    assert (done.returncode != 0) == ours
    assert ("cosign" in (publishing / "calls").read_text()) != ours


def workflow(file: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(file.read_text()))


def steps(file: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(file)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows() -> None:
    assert [file.name for file in WORKFLOWS] == ["ci.yaml", "release.yaml"]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_by_hash_with_their_version_beside(file: Path) -> None:
    lines = [line.strip().removeprefix("- ") for line in file.read_text().splitlines() if "uses:" in line]
    assert len(lines) == len([step for step in steps(file) if "uses" in step])
    for line in lines:
        assert re.fullmatch(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_pin() -> None:
    pins = {
        line.strip().removeprefix("- ")
        for file in WORKFLOWS
        for line in file.read_text().splitlines()
        if "uses:" in line
    }
    assert len({pin.split("@")[0] for pin in pins}) == len(pins)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_jobs_have_a_time_limit_and_no_more_rights_than_they_need(file: Path) -> None:
    content = workflow(file)
    assert content["permissions"] in ({}, {"contents": "read"})
    assert "concurrency" in content
    writes = set()
    for name, job in content["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60
        writes |= {(name, right) for right, level in job.get("permissions", {}).items() if level == "write"}
    publish = {("publish", right) for right in ("contents", "packages", "id-token")}
    assert writes == (publish if file.name == "release.yaml" else set())
    for step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_the_workflows_run_what_exists(file: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    commands = [step["run"] for step in steps(file) if "run" in step]
    called = [word for command in commands for word in re.findall(r"\b(?:make [a-z-]+|scripts/[a-z-]+)", command)]
    assert called
    for call in called:
        if call.startswith("make "):
            assert call.removeprefix("make ") in targets, call
        else:
            assert (ROOT / call).stat().st_mode & 0o111, call
    for command in commands:
        assert "${{" not in command, "what others may write goes through the environment, never into a script's text"
