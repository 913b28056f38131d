"""Dashboards, recording rules and alerts, as Python. ``python -m deploy.observability`` writes the chart's files."""
