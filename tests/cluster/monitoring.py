"""Prometheus and Alertmanager of the cluster, asked through the API server."""

import json
import os
from typing import Any
from urllib.parse import quote

from tests.cluster.kube import run

_PROMETHEUS = ("PROMETHEUS_SERVICE", "monitoring/prometheus:9090")
_ALERTMANAGER = ("ALERTMANAGER_SERVICE", "monitoring/alertmanager:9093")


def address() -> str:
    """Where Prometheus is for others in the cluster."""
    namespace, name = os.environ.get(*_PROMETHEUS).split("/")
    service, port = name.split(":")
    return f"http://{service}.{namespace}.svc:{port}"


def _proxy(variable: str, default: str) -> str:
    namespace, name = os.environ.get(variable, default).split("/")
    return f"/api/v1/namespaces/{namespace}/services/{name}/proxy"


def prometheus(path: str, **parameters: str) -> Any:
    """``data`` of an answer of Prometheus's HTTP API (``PROMETHEUS_SERVICE``)."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    base = _proxy(*_PROMETHEUS)
    return json.loads(run("kubectl", "get", "--raw", f"{base}/api/v1/{path}?{query}"))["data"]


def query(expression: str) -> list[dict[str, Any]]:
    """The series of an instant query."""
    series: list[dict[str, Any]] = prometheus("query", query=expression)["result"]
    return series


def alerts() -> list[dict[str, Any]]:
    """The alerts that Alertmanager shows (``ALERTMANAGER_SERVICE``)."""
    base = _proxy(*_ALERTMANAGER)
    found: list[dict[str, Any]] = json.loads(run("kubectl", "get", "--raw", f"{base}/api/v2/alerts"))
    return found
