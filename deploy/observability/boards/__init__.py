"""The four dashboards. What each shows is in docs/observability.md."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability.boards import prices, rollout, runtime, service


def boards() -> dict[str, Dashboard]:
    """Every dashboard by the name of its file, without the suffix."""
    return {
        "service": service.board(),
        "runtime": runtime.board(),
        "rollout": rollout.board(),
        "prices": prices.board(),
    }
