"""The documents tell the truth: their links lead somewhere, their tables match the code, their commands run."""

import re
import subprocess
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined
from sqlalchemy.engine import URL

from app.settings import Settings
from tests.support import postgres
from tests.support.processes import SECRET, run, running

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "bench" / "README.md"])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def settings_table() -> str:
    """The table of settings for docs/operate.md."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        required = field.default is PydanticUndefined
        value = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "required" if required else "" if value is None else f"`{value}`"
        lines.append(f"| `{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_every_setting_is_documented() -> None:
    document = (ROOT / "docs" / "operate.md").read_text()
    assert settings_table() in document, f"replace the table in docs/operate.md by:\n{settings_table()}"


def test_the_commands_of_the_readme_run(fresh_url: URL, tmp_path: Path) -> None:
    blocks = re.findall(r"(?:^    .*\n)+", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in lines if line.strip().startswith("curl ")]
    assert len(commands) == 7
    url = postgres.text(fresh_url)
    assert run("migrate", directory=tmp_path, database_url=url).returncode == 0
    with running("serve", tmp_path, database_url=url, secret_key=SECRET) as service:
        outputs = [
            subprocess.run(  # noqa: S602 - as a reader would
                command.replace("http://127.0.0.1:8000", service.api),
                shell=True,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for command in commands
        ]
    assert '"name":"Foo","description":null,"price":35.4,"tax":3.2,"price_with_tax":38.6}' in outputs[0]
    assert outputs[0] in outputs[1]
    assert [re.findall(r'"amount":"([^"]+)"', output) for output in outputs[2:6]] == [
        ["1431.50"],
        ["1199.00"],
        ["1199.00"],
        ["1431.50"],
    ]
    assert '"net":"3417.15","tax":"649.26","gross":"4066.41"' in outputs[6]
