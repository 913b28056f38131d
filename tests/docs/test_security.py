"""docs/security.md names tests that exist; and no secret is in the tree."""

import math
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()

# Shapes of secrets that people commit: our own keys, private keys, cloud and forge tokens, URLs with passwords.
SHAPES = re.compile(
    r"pb_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    r"|\bglpat-[A-Za-z0-9_-]{20}\b"
    r"|\bxox[abprs]-[A-Za-z0-9-]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\."
)
ASSIGNED = re.compile(r"(?i)(?:secret|token|passw(?:or)?d|api_?key)[\"']?\s*[:=]\s*[\"']([A-Za-z0-9+/_=-]{20,})[\"']")


def bits(text: str) -> float:
    """Entropy of a text by its own letters, in bits for each."""
    return -sum(count / len(text) * math.log2(count / len(text)) for count in Counter(text).values())


def secrets_in(text: str) -> list[str]:
    """What looks like a secret: by its shape, or by its name and because no person would write it."""
    found = [match[0] for match in SHAPES.finditer(text)]
    return found + [
        match[1] for match in ASSIGNED.finditer(text) if bits(match[1]) > 4.2 and re.search(r"\d", match[1])
    ]


def test_the_page_names_tests_that_exist() -> None:
    path, named = "", []
    for file, name in re.findall(r"`(tests/[\w/.]+)?(?:::(\w+))?`", PAGE):
        path = file or path
        if path:
            source = (ROOT / path).read_text()
            assert not name or re.search(rf"^(async def|def|class) {name}\b", source, re.MULTILINE), f"{path}::{name}"
            named.append((path, name))
    assert len(named) > 35


def test_the_page_has_all_ten_risks() -> None:
    assert re.findall(r"^\| API(\d+) ", PAGE, re.MULTILINE) == [str(number) for number in range(1, 11)]


def test_no_secret_is_in_the_tree() -> None:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(files) > 200
    found = {}
    for name in files:
        path = ROOT / name
        if path.suffix in {".png", ".lock"} or not path.is_file():
            continue
        if secrets := secrets_in(path.read_text(errors="replace")):
            found[name] = secrets
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "pb_" + "0f3a9c5b7d1e2486_" + "jeTjnlWvy0PM2alf4O8evs3j8FSbi9AoNHyFgT0-KUg",
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "password" + ' = "mZ4kT9qLx2VbR7nPw0sYc5D"',
    ],
)
def test_a_secret_would_be_found(text: str) -> None:
    assert secrets_in(f"x {text}\n")
