"""Dashboards, recording rules and alerts, as Python. ``python -m deploy.observability`` writes the chart's files."""

from deploy.observability.queries import Expression, expressions

__all__ = ["Expression", "expressions"]
