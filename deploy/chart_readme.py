"""Write the table of values into the chart's README: ``python -m deploy.chart_readme``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).parents[1] / "charts" / "pricebook"
_BEGIN = "<!-- Written by python -m deploy.chart_readme from values.yaml -->\n"
_END = "<!-- end -->\n"
_LONGEST_DEFAULT = 60


@dataclass(frozen=True, slots=True)
class Value:
    """A value that can be set, as the README shows it."""

    path: tuple[str, ...]
    default: Any
    description: str


@dataclass(frozen=True, slots=True)
class Section:
    """A top-level key with values below it, and the comment above it."""

    name: str
    introduction: str
    values: list[Value]


def sections(text: str) -> list[Section]:
    """The sections of a values file; single top-level values come first, as a section without a name.

    :raises ValueError: if a value has no description.
    """
    lines = text.splitlines()
    single = Section("", "", [])
    result = [single]
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    for key, node in document.value if document else ():
        if _described(lines, key):
            single.values.append(_value(lines, (), key, node))
        else:
            result.append(Section(key.value, _comment(lines, key), _values(lines, (key.value,), node)))
    return result


def _values(lines: list[str], path: tuple[str, ...], node: yaml.Node) -> list[Value]:
    if not isinstance(node, yaml.MappingNode):
        # Not the type is wrong, but what was forgotten above it.
        raise ValueError(f"{'.'.join(path)} has no description: write a line '# -- ...' above it in values.yaml")  # noqa: TRY004
    result = []
    for key, child in node.value:
        if _described(lines, key):
            result.append(_value(lines, path, key, child))
        else:
            result.extend(_values(lines, (*path, key.value), child))
    return result


def _value(lines: list[str], path: tuple[str, ...], key: yaml.Node, node: yaml.Node) -> Value:
    default = yaml.safe_load(yaml.serialize(node))
    return Value((*path, str(key.value)), default, _comment(lines, key).removeprefix("-- "))


def _described(lines: list[str], key: yaml.Node) -> bool:
    return _comment(lines, key).startswith("-- ")


def _comment(lines: list[str], key: yaml.Node) -> str:
    """The comment right above a key in one line, from its last ``# --`` on if it has one."""
    found: list[str] = []
    for line in reversed(lines[: key.start_mark.line]):
        if not line.strip().startswith("#"):
            break
        found.insert(0, line.strip().removeprefix("#").strip())
        if found[0].startswith("-- "):
            break
    return " ".join(found)


def table(text: str) -> str:
    """The part of the README that is made from a values file."""
    parts = []
    for section in sections(text):
        lines = [f"### {section.name or 'At the top level'}\n"]
        if section.introduction:
            lines.append(f"{section.introduction}\n")
        lines += ["| value | default | meaning |", "| --- | --- | --- |"]
        for value in section.values:
            default = json.dumps(value.default)
            shown = f"`{default}`" if len(default) <= _LONGEST_DEFAULT else "see values.yaml"
            lines.append(f"| `{'.'.join(value.path)}` | {shown} | {value.description.replace('|', '\\|')} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def readme(current: str, values: str) -> str:
    """The README with its table as the values file has it."""
    before, _, rest = current.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{table(values)}\n{_END}{after}"


if __name__ == "__main__":
    file = CHART / "README.md"
    file.write_text(readme(file.read_text(), (CHART / "values.yaml").read_text()))
