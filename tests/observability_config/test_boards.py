"""The chart's dashboards are those that Python builds, and each is what a person at Grafana may expect."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.observability import expressions, house, queries, rules
from deploy.observability.files import CHART_FILES, generated
from tests.observability_config import names

BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(text) for path, text in generated().items() if path.suffix == ".json"
}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel that is not a heading, with the name of its board."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield name, panel


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_the_chart_has_what_python_builds(path: Path) -> None:
    assert path.read_text() == generated()[path], "run: python -m deploy.observability"


def test_the_chart_has_no_other_dashboards() -> None:
    assert {*(CHART_FILES / "dashboards").iterdir()} <= {*generated()}


def test_uids_and_ids_are_unique_and_fixed() -> None:
    assert {name: board["uid"] for name, board in BOARDS.items()} == {
        "service": "pricebook-service",
        "runtime": "pricebook-runtime",
        "rollout": "pricebook-rollout",
        "prices": "pricebook-prices",
    }
    for board in BOARDS.values():
        ids = [panel["id"] for panel in board["panels"]]
        assert len(ids) == len({*ids})
        assert "id" not in board


def test_variables_begin_with_the_datasource() -> None:
    for name, board in BOARDS.items():
        variables = board["templating"]["list"]
        expected = ["datasource", "namespace", "job"] + (["pod"] if name == "runtime" else [])
        assert [variable["name"] for variable in variables] == expected
        assert (variables[0]["type"], variables[0]["query"]) == ("datasource", "prometheus")
        for variable in variables[1:]:
            assert variable["datasource"] == DATASOURCE
            metric = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert metric is not None
            assert metric[2] == variable["name"]
            assert not names.faults(metric[1].replace("$", ""))


def test_every_panel_has_unit_description_and_datasource() -> None:
    for name, panel in panels():
        where = f"{name}: {panel['title']}"
        assert panel["description"].endswith("."), where
        assert panel["fieldConfig"]["defaults"]["unit"], where
        assert panel["datasource"] == DATASOURCE, where
        assert panel["targets"], where
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"]), where
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]), where


def test_panels_fill_their_rows_and_do_not_overlap() -> None:
    for name, board in BOARDS.items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            x, y, width, height = (place.get(key, 0) for key in "xywh")
            cells = {(column, row) for column in range(x, x + width) for row in range(y, y + height)}
            assert x + width <= 24, f"{name}: {panel['title']} is too wide"
            assert not cells & taken, f"{name}: {panel['title']} lies over another"
            taken |= cells
        bottom = max(row for _, row in taken) + 1
        assert len(taken) == 24 * bottom, f"{name} has holes"


def test_boards_link_to_one_another() -> None:
    for board in BOARDS.values():
        (link,) = board["links"]
        assert (link["type"], link["includeVars"], link["keepTime"]) == ("dashboards", True, True)
        assert link["tags"] == [house.TAG]
        assert house.TAG in board["tags"]
    assert {alert.board for alert in rules.alerts()} <= {board["uid"] for board in BOARDS.values()}


def test_rates_follow_the_resolution_shown() -> None:
    for name, panel in panels():
        for target in panel["targets"]:
            for function, window in re.findall(r"\b(rate|increase)\([^][]+\[([^]]+)\]", target["expr"]):
                fixed = panel["title"].startswith("Restarts")
                allowed = {"$__rate_interval"} if function == "rate" else {"$__range"}
                assert window in allowed or fixed, f"{name}: {panel['title']}: {function} over {window}"


def test_latency_panels_lead_to_traces() -> None:
    for name, panel in panels():
        for target in panel["targets"]:
            timed = re.search(r"(http_request_duration|database_statement)_seconds_bucket", target["expr"])
            if timed and panel["type"] in {"timeseries", "heatmap"}:
                assert target["exemplar"] is True, f"{name}: {panel['title']}"


def test_expressions_name_only_what_exists() -> None:
    found = [(one, fault) for one in expressions(namespace="shop", job="pricebook") for fault in names.faults(one.expr)]
    assert not found


def test_metrics_of_kubernetes_are_all_in_use() -> None:
    used = set().union(*(queries.metrics(one.expr) for one in expressions(namespace="shop", job="pricebook")))
    assert {name for name in used if name.startswith(("kube_", "container_"))} == {*names.KUBERNETES}
