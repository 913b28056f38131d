"""Pictures of the dashboards' time series from a Prometheus, for the docs; Grafana itself is not needed.

    uv run --with matplotlib python -m deploy.observability.pictures URL NAMESPACE JOB START END DIRECTORY

START and END are Unix seconds.
"""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import matplotlib

from deploy.observability.boards import boards
from deploy.observability.files import as_json

matplotlib.use("agg")
from matplotlib import dates, pyplot

_COLUMNS = 3
_STEP_SECONDS = 5


def draw(board: dict[str, Any], url: str, variables: dict[str, str], span: tuple[int, int]) -> pyplot.Figure:
    """One figure with a plot for each panel of time series."""
    panels = [panel for panel in board["panels"] if panel["type"] == "timeseries"]
    rows = -(-len(panels) // _COLUMNS)
    size = (6 * _COLUMNS, 3 * rows)
    figure, axes = pyplot.subplots(rows, _COLUMNS, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(f"{board['title']}: {', '.join(variables[v] for v in ('$namespace', '$job'))}")
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels, strict=False):
        axis.set_title(f"{panel['title']} ({panel['fieldConfig']['defaults']['unit']})", fontsize=9)
        for target in panel["targets"]:
            for series in _series(url, target["expr"], variables, span):
                points = [(datetime.fromtimestamp(at, UTC), float(value)) for at, value in series["values"]]
                axis.plot(*zip(*points, strict=True), label=_legend(target.get("legendFormat", ""), series["metric"]))
        axis.xaxis.set_major_formatter(dates.DateFormatter("%H:%M"))
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=7)
        if 0 < len(axis.lines) <= 8:
            axis.legend(fontsize=6)
    return figure


def _series(url: str, expr: str, variables: dict[str, str], span: tuple[int, int]) -> list[dict[str, Any]]:
    for variable, value in variables.items():
        expr = expr.replace(variable, value)
    asked = {"query": expr, "start": str(span[0]), "end": str(span[1]), "step": str(_STEP_SECONDS)}
    answer = httpx2.get(f"{url}/api/v1/query_range", params=asked, timeout=30).json()
    if answer["status"] != "success":
        raise ValueError(f"{expr}: {answer['error']}")
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def _legend(template: str, labels: dict[str, str]) -> str:
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda match: labels.get(match[1], ""), template)


def main() -> None:
    """Draw every board into a directory."""
    url, namespace, job, start, end, directory = sys.argv[1:]
    variables = {"$namespace": namespace, "$job": job, "$pod": ".*", "$__rate_interval": "30s", "$__range": "5m"}
    for name, board in boards().items():
        figure = draw(json.loads(as_json(board)), url, variables, (int(start), int(end)))
        figure.savefig(Path(directory) / f"dashboard-{name}.png", dpi=70)


if __name__ == "__main__":
    main()
