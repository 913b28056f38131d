"""The examples of docs/prices-in-time.md, run in their order by one shell as a reader would, answer what it says."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import SECRET, run, running

PAGE = Path(__file__).parents[2] / "docs" / "prices-in-time.md"
EXAMPLE = re.compile(r"^```console\n(.*?)^```\n+^```(json|text)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def commands(block: str) -> str:
    """The lines that a reader types, without their prompts."""
    return re.sub(r"^\$ ", "", block, flags=re.MULTILINE)


def is_part_of(expected: Any, found: Any) -> bool:
    """Whether the answer has everything that the page shows; ``...`` stands for any text."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            name in found and is_part_of(value, found[name]) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(is_part_of(*pair) for pair in zip(expected, found, strict=True))
        )
    if expected == "...":
        return isinstance(found, str)
    return type(found) is type(expected) and bool(found == expected)


def test_every_example_answers_what_the_page_says(fresh_url: URL, tmp_path: Path) -> None:
    page = PAGE.read_text()
    examples = EXAMPLE.findall(page)
    assert len(examples) == page.count("```console") > 30
    assert page.count("curl -s") == sum(block.count("curl -s") for block, _, _ in examples)

    url = postgres.text(fresh_url)
    migrated = run("migrate", directory=tmp_path, database_url=url)
    assert migrated.returncode == 0, migrated.stderr
    outputs = [tmp_path / f"answer-{number}" for number in range(len(examples))]
    with running("serve", tmp_path, database_url=url, secret_key=SECRET) as service:
        script = "\n".join(
            f"{{\n{commands(block)}}} > {output}" for (block, _, _), output in zip(examples, outputs, strict=True)
        )
        shell = subprocess.run(
            ["bash", "-c", script.replace("http://127.0.0.1:8000", service.api)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (shell.returncode, shell.stderr) == (0, "")
    for (block, kind, expected), output in zip(examples, outputs, strict=True):
        # Earlier commands of a block may answer as well; the page shows the last answer.
        found = output.read_text()
        if kind == "text":
            assert found.strip() == expected.strip(), block
        else:
            answers = documents(found)
            assert answers, block
            assert is_part_of(json.loads(expected), answers[-1]), f"{block}\n{json.dumps(answers[-1], indent=1)}"


def documents(text: str) -> list[Any]:
    """The JSON documents of an output, one after the other without a separator."""
    decoder = json.JSONDecoder()
    found = []
    position = 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
    return found
