"""The rules in two forms: as the chart's template, and as Prometheus reads them with plain values."""

import re
import textwrap
from dataclasses import dataclass, field
from typing import Any

import yaml

from deploy.observability import rules, selectors

NAMES = {
    "job": "full name of the release: its Deployment, and the job label of its targets",
    "namespace": "namespace of the release",
    "availability": "objective: per cent of the requests in 30 days that end without a server error",
    "latencyPercent": "objective: per cent of the requests in 30 days that are answered in time",
    "latencySeconds": "what in time means; a bound of the histogram pricebook_request_seconds",
    "minimumRate": "requests per second, over the long window, below which the objectives do not alert",
    "runbookURL": "where the runbooks are, without the file's name",
    "grafanaURL": "where Grafana is; may be empty",
    "labels": "map of labels for every alert",
    "disabled": "list of alerts to leave out",
}
"""What the template wants to know."""


@dataclass(frozen=True)
class Values:
    """Plain values for the rules. These defaults are for tests; the chart has its own."""

    job: str = "pricebook"
    namespace: str = "default"
    availability: float = 99.9
    latency_percent: float = 99
    latency_seconds: float = 0.25
    minimum_rate: float = 0.1
    runbook_url: str = "https://example.com/runbooks"
    grafana_url: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    disabled: tuple[str, ...] = ()

    def named(self) -> dict[str, str]:
        """The values by the names that the template has for them, as text."""
        return {
            "job": self.job,
            "namespace": self.namespace,
            "availability": f"{self.availability:.12g}",
            "latencyPercent": f"{self.latency_percent:.12g}",
            "latencySeconds": f"{self.latency_seconds:.12g}",
            "minimumRate": f"{self.minimum_rate:.12g}",
            "runbookURL": self.runbook_url,
            "grafanaURL": self.grafana_url,
        }


def groups(values: Values) -> dict[str, Any]:
    """The rules as Prometheus reads them: what the template gives with the same values."""
    named = values.named()

    def filled(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: filled(value) for name, value in part.items()}
        return _VALUE.sub(lambda name: named[name[1]], part)

    return {
        "groups": [
            {
                "name": group,
                "rules": [
                    filled(rule | ({"labels": rule["labels"] | values.labels} if "alert" in rule else {}))
                    for rule in written
                    if rule.get("alert") not in values.disabled
                ],
            }
            for group, written in _groups()
        ]
    }


def template() -> str:
    """The same as a Helm template, for ``tpl`` and a dict of ``NAMES``, ``labels`` and ``disabled``."""
    lines = [
        "{{- /*",
        "Written by python -m deploy.observability; do not edit. Rendered by tpl with a dict of:",
        *(f"  {name}: {meaning}" for name, meaning in NAMES.items()),
        "*/ -}}",
        "groups:",
    ]
    for group, written in _groups():
        lines += [f"  - name: {group}", "    rules:"]
        for rule in written:
            # What is for Prometheus to fill in must pass through Helm as it is.
            text = yaml.dump([rule], Dumper=_Dumper, sort_keys=False, width=1_000_000).replace("{{", '{{ "{{" }}')
            text = textwrap.indent(_VALUE.sub(r"{{ .\1 }}", text).rstrip(), 6 * " ")
            if name := rule.get("alert"):
                text = text.replace("\n        annotations:\n", _MORE_LABELS + "\n        annotations:\n")
                text = f'      {{{{- if not (has "{name}" .disabled) }}}}\n{text}\n      {{{{- end }}}}'
            lines.append(text)
    return "\n".join(lines) + "\n"


_MORE_LABELS = """
          {{- with .labels }}
          {{- toYaml . | nindent 10 }}
          {{- end }}"""
_VALUE = re.compile(f"@({'|'.join(NAMES)})@")


def _groups() -> list[tuple[str, list[dict[str, Any]]]]:
    """The rules by group, with ``@names@`` of values in them."""
    return [
        ("pricebook.objectives", [_record(rule) for rule in rules.recording_rules()]),
        ("pricebook.alerts", [_alert(alert) for alert in rules.alerts()]),
    ]


def _record(rule: rules.Record) -> dict[str, Any]:
    labels = {"labels": _quoted(rule.labels)} if rule.labels else {}
    return {"record": rule.name, "expr": _expression(rule.expr), **labels}


def _alert(alert: rules.Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": _expression(alert.expr),
        "for": alert.wait,
        "labels": _quoted({"severity": alert.severity, **rules.RELEASE, **alert.labels}),
        "annotations": _quoted(
            {
                "summary": f"@namespace@/@job@: {alert.summary}",
                "description": alert.description,
                "runbook_url": f"@runbookURL@/{alert.name}.md",
                "dashboard": f"@grafanaURL@/d/{alert.board}?var-namespace=@namespace@&var-job=@job@",
            }
        ),
    }


class _Expression(str):
    """Written as a block of its own."""


class _Quoted(str):
    """Written in quotes, whatever it looks like once its values are filled in."""


def _expression(text: str) -> str:
    return _Expression(selectors.fill(textwrap.dedent(text).strip(), **rules.RELEASE))


def _quoted(texts: dict[str, str]) -> dict[str, str]:
    return {name: _Quoted(text) for name, text in texts.items()}


class _Dumper(yaml.SafeDumper):
    """Knows the two kinds of text."""


_Dumper.add_representer(_Expression, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style="|"))
_Dumper.add_representer(_Quoted, lambda dumper, text: dumper.represent_scalar(_TEXT, text, style='"'))
_TEXT = "tag:yaml.org,2002:str"
