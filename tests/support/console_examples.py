"""Examples of a page of the documentation: commands, and the answers that the page shows for them."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from tests.support import postgres
from tests.support.processes import PRICEBOOK, SECRET, environment, running

_EXAMPLE = re.compile(r"^```console\n(.*?)^```\n+^```(json|text)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def check(page: Path, database: URL, directory: Path, **settings: object) -> int:
    """Run a page's commands in their order, as a reader would in one shell, and compare what they print.

    A block ``console`` is followed by a block ``json``, part of the last document that the commands print, or by a
    block ``text``, all that they print. In both, ``...`` stands for any text of a line; blanks at the end of a line
    do not count, since a page does not show them.

    :param database: a migrated database, for the service that the page talks to.
    :param directory: where the commands run.
    :param settings: of that service; the commands have them in their environment.
    :returns: the number of examples.
    """
    text = page.read_text()
    examples: list[tuple[str, str, str]] = _EXAMPLE.findall(text)
    assert len(examples) == text.count("```console"), "a block of commands has no block with its answer"
    assert text.count("curl -s") == sum(block.count("curl -s") for block, _, _ in examples), "a command is elsewhere"

    url = postgres.text(database)
    outputs = [directory / f"answer-{number}" for number in range(len(examples))]
    with running("serve", directory, database_url=url, secret_key=SECRET, **settings) as service:
        script = "\n".join(
            f"{{\n{_commands(block)}}} > {output}" for (block, _, _), output in zip(examples, outputs, strict=True)
        )
        shell = subprocess.run(
            ["bash", "-c", script.replace("http://127.0.0.1:8000", service.api)],
            cwd=directory,
            env=environment(pricebook_url=service.api, **settings)
            | {"PATH": f"{PRICEBOOK.parent}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert (shell.returncode, shell.stderr) == (0, "")
    for (block, kind, expected), output in zip(examples, outputs, strict=True):
        found = output.read_text()
        if kind == "text":
            assert _is_text(expected, found), f"{block}\n{found}"
        else:
            # Earlier commands of a block may answer as well; the page shows the last answer.
            answers = _documents(found)
            assert answers, block
            assert _is_part_of(json.loads(expected), answers[-1]), f"{block}\n{json.dumps(answers[-1], indent=1)}"
    return len(examples)


def _commands(block: str) -> str:
    """The lines that a reader types, without their prompts."""
    return re.sub(r"^\$ ", "", block, flags=re.MULTILINE)


def _is_text(expected: str, found: str) -> bool:
    """Whether the answer is what the page shows."""
    pattern, text = ("\n".join(map(str.rstrip, each.strip().splitlines())) for each in (expected, found))
    return re.fullmatch(re.escape(pattern).replace(re.escape("..."), ".*"), text) is not None


def _is_part_of(expected: Any, found: Any) -> bool:
    """Whether the answer has everything that the page shows; ``...`` stands for any text."""
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            name in found and _is_part_of(value, found[name]) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(found, list)
            and len(found) == len(expected)
            and all(_is_part_of(*pair) for pair in zip(expected, found, strict=True))
        )
    if expected == "...":
        return isinstance(found, str)
    return type(found) is type(expected) and bool(found == expected)


def _documents(text: str) -> list[Any]:
    """The JSON documents of an output, one after the other without a separator."""
    decoder = json.JSONDecoder()
    found = []
    position = 0
    while position < len(text):
        document, position = decoder.raw_decode(text, position)
        found.append(document)
        position += len(text[position:]) - len(text[position:].lstrip())
    return found
