"""The files of the chart that are written from here."""

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import rule_file
from deploy.observability.boards import boards

CHART_FILES = Path(__file__).parents[2] / "charts" / "pricebook" / "files"


def as_json(board: Dashboard) -> str:
    """A dashboard as Grafana imports it."""
    return json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def generated() -> dict[Path, str]:
    """Every file and what belongs into it."""
    files = {CHART_FILES / "dashboards" / f"{name}.json": as_json(board) for name, board in boards().items()}
    return files | {CHART_FILES / "rules.yaml": rule_file.template()}
