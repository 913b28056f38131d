"""The Dockerfile keeps its promises where reading it is enough to tell; the cluster tests run the image."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions(text: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    return [line for line in joined.splitlines() if line]


def test_uv_is_the_one_of_the_makefile() -> None:
    [of_script] = re.findall(r"^version=(.+)$", (ROOT / "scripts" / "uv").read_text(), flags=re.MULTILINE)
    assert f"ARG UV_VERSION={of_script}\n" in DOCKERFILE


def test_the_context_is_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = set()
    for line in instructions(DOCKERFILE):
        copied |= set(re.findall(r"type=bind,source=([^,]+)", line))
        if line.startswith("COPY ") and "--from=" not in line and "<<" not in line:
            copied |= {word for word in line.split()[1:-1] if not word.startswith("--")}
    assert copied == allowed


def test_what_is_for_debuggers_and_compilers_is_left_out_before_it_is_copied() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    [dependencies] = [stage for stage in stages if stage.startswith("${BASE_IMAGE} AS dependencies\n")]
    last = instructions(dependencies)[-1]
    assert last.startswith("RUN find ")
    assert "-exec strip --strip-unneeded" in last
    # Only what is made in that stage, or of the project itself, comes into the final one.
    assert re.findall(r"COPY --from=(\w+) (\S+)", stages[-1]) == [
        ("dependencies", "/opt/pricebook"),
        ("build", "/system"),
        ("build", "/project"),
    ]


def test_the_final_stage_runs_nothing_and_installs_nothing() -> None:
    final = instructions(DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :])
    assert final[0] == "FROM ${BASE_IMAGE}"
    assert {line.split()[0] for line in final if line.startswith(("RUN", "ADD", "COPY"))} == {"COPY"}
    assert "USER 65532:65532" in final
    assert 'ENTRYPOINT ["pricebook"]' in final
    assert not [line for line in final if "INDEX" in line], "where packages came from is nobody's business"
