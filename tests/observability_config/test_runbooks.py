"""Every alert has a runbook, of one shape, whose queries are right and whose links lead somewhere."""

import re
from pathlib import Path

import pytest

from deploy.observability import rules
from tests.observability_config import names
from tests.observability_config.alert_cases import NAMESPACE

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
ALERTS = {alert.name: alert for alert in rules.alerts()}
HEADINGS = ["What it means for users", "Confirm", "Likely causes", "What to do", "When to wake someone else"]
PROMQL = re.compile(r"^```promql\n(.+?)\n```$", flags=re.DOTALL | re.MULTILINE)


def test_one_runbook_for_each_alert_and_no_other() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"} == {*ALERTS}


def test_the_index_has_them_all() -> None:
    linked = re.findall(r"^- \[(\w+)\]\((\w+)\.md\)", (RUNBOOKS / "README.md").read_text(), flags=re.MULTILINE)
    assert sorted(linked) == sorted((alert, alert) for alert in ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_runbook(alert: str) -> None:
    text = (RUNBOOKS / f"{alert}.md").read_text()
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, flags=re.MULTILINE) == HEADINGS
    severity = "Pages." if ALERTS[alert].severity == "critical" else "A warning"
    assert text.splitlines()[2].startswith(severity)
    expressions = PROMQL.findall(text)
    assert len(expressions) == text.count("```promql") > 0
    for expr in expressions:
        assert not names.faults(expr), expr
        assert f'namespace="{NAMESPACE}"' in expr
    for variable in re.findall(r"\$([A-Z]+)", text):
        assert variable in {"NAMESPACE", "RELEASE", "NAME", "POD"}
    for command in re.findall(r"kubectl .*\blogs .*", text):
        # With a selector, kubectl shows ten lines of each pod unless told otherwise, whatever --since says.
        assert " -l " not in command or " --tail=" in command, command
    # An unquoted question mark is a pattern, and zsh refuses one that no file matches.
    assert not re.search(r"\shttps?:\S*[?]", text)
    for command in re.findall(r"kubectl .*\bhpa .*", text):
        # KEDA's autoscaler has a name of its own.
        assert '"$NAME"' not in command or '"keda-hpa-$NAME"' in command, command


def test_the_table_of_alerts_is_true() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \| (.+) \|$",
        (ROOT / "docs" / "observability.md").read_text(),
        flags=re.MULTILINE,
    )
    assert [row[:3] for row in rows] == [(name, name, ALERTS[name].severity) for name in ALERTS]
