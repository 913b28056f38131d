"""Every PromQL expression of the boards and the rules, ready to be asked of a Prometheus that scrapes a release."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import rule_file
from deploy.observability.boards import boards
from deploy.observability.files import as_json

_OFFSET = re.compile(r" offset \w+")
_FILTERS = frozenset({"and", "or", "unless", "==", "!=", ">", "<", ">=", "<="})


class Expression(NamedTuple):
    """An expression, and where it is from."""

    board: str
    """The board's file name without its suffix, or ``rules``."""

    panel: str
    """The panel's title, or the rule's name."""

    expr: str


def expressions(
    *, namespace: str, job: str, pod: str = ".*", rate_interval: str = "1m", time_range: str = "5m"
) -> Iterator[Expression]:
    """Every expression that a release in service gives data for: of all panels, and of all rules.

    An alert that does not fire gives none, so what it compares is yielded instead; and what it looks at in the past,
    as it is now.
    """
    variables = {
        "$namespace": namespace,
        "$job": job,
        "$pod": pod,
        "$__rate_interval": rate_interval,
        "$__range": time_range,
    }
    for name, board in boards().items():
        for panel, expr in _of_board(board):
            for variable, value in variables.items():
                expr = expr.replace(variable, value)
            yield Expression(name, panel, expr)
    for group in rule_file.groups(rule_file.Values(namespace=namespace, job=job))["groups"]:
        for rule in group["rules"]:
            for expr in compared(rule["expr"]) if "alert" in rule else [rule["expr"]]:
                yield Expression("rules", rule.get("alert") or rule["record"], expr)


def _of_board(board: Dashboard) -> Iterator[tuple[str, str]]:
    document: dict[str, Any] = json.loads(as_json(board))
    for panel in document["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in document["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def compared(expr: str) -> list[str]:
    """What an alert's expression compares or filters: the parts of it that give data whether or not it fires."""
    parts = (_OFFSET.sub("", part.prettify()) for part in _operands(promql_parser.parse(expr)))
    return [part for part in parts if metrics(part)]


def _operands(expr: promql_parser.Expr) -> Iterator[promql_parser.Expr]:
    match expr:
        case promql_parser.BinaryExpr() if str(expr.op) in _FILTERS:
            yield from _operands(expr.lhs)
            yield from _operands(expr.rhs)
        case promql_parser.Call() if expr.func.name == "absent":
            yield from _operands(expr.args[0])
        case promql_parser.ParenExpr():
            yield from _operands(expr.expr)
        case _:
            yield expr


def metrics(expr: str) -> set[str]:
    """The names of the metrics that an expression asks for."""
    names = set()

    def visit(node: promql_parser.Expr) -> None:
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            names.add(node.name)

    promql_parser.walk(promql_parser.parse(expr), visit)
    return names


def needs_kubernetes(expr: str) -> bool:
    """Whether only kube-state-metrics or a kubelet can give the data."""
    return any(name.startswith(("kube_", "container_")) for name in metrics(expr))
