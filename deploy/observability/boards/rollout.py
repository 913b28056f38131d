"""Rollout and autoscaling: what runs, what should run, and what stands in the way."""

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.observability import house
from deploy.observability.house import Column, Query, or_zero

UID = "pricebook-rollout"


def board() -> Dashboard:
    """Build it."""
    return house.board(
        UID,
        "Rollout and autoscaling",
        "Versions that run, pods that are ready or draining, replicas wanted and had, and what the autoscaler does. "
        "Most of it comes from kube-state-metrics.",
        ("Versions", _versions()),
        ("Replicas", _replicas()),
        ("Autoscaler", _autoscaler()),
        ("Trouble", _trouble()),
    )


def _versions() -> list[house.Panel]:
    return [
        house.graph(
            "Instances by version",
            "Running processes by version, by the schema they know, and by the server under them. Two versions side by "
            "side are a rollout; for long, one that is stuck.",
            "short",
            Query(
                "count by (version, schema, server) (pricebook_info<self>)",
                "{{version}}, schema {{schema}}, {{server}}",
            ),
            stacked=True,
        ),
        house.graph(
            "Ready and draining",
            "Processes that take requests, and those that were told to stop and finish what they have.",
            "short",
            Query("count(pricebook_ready<self>)", "all"),
            Query("sum(pricebook_ready<self>)", "ready"),
            Query("sum(pricebook_draining<self>)", "draining"),
        ),
    ]


def _replicas() -> list[house.Panel]:
    return [
        house.number(
            "Missing",
            "Replicas that are wanted and not available.",
            "short",
            "max(kube_deployment_spec_replicas<deployment>)"
            " - max(kube_deployment_status_replicas_available<deployment>)",
            steps=[(1, "orange")],
        ),
        house.number(
            "Of an old revision",
            "Pods that are not of the Deployment's present revision.",
            "short",
            "max(kube_deployment_status_replicas<deployment>)"
            " - max(kube_deployment_status_replicas_updated<deployment>)",
            steps=[(1, "blue")],
        ),
        house.number(
            "Disruptions allowed",
            "Pods that may be evicted now, for example by a drain of their node. At zero a drain waits.",
            "short",
            "max(kube_poddisruptionbudget_status_pod_disruptions_allowed<budget>)",
            calm="orange",
            steps=[(1, "green")],
            nothing="no budget",
        ),
        house.number(
            "Nodes",
            "Nodes that the pods are spread over. On one node, its end is the service's.",
            "short",
            "count(count by (node) (kube_pod_info<pods>))",
            calm="orange",
            steps=[(2, "green")],
        ),
        house.number(
            "Restarts, 24 hours",
            "Containers that ended and were started again.",
            "short",
            'sum(increase(kube_pod_container_status_restarts_total<pods,container="pricebook">[24h]))',
            steps=[(1, "orange"), (5, "red")],
            decimals=0,
            span=8,
        ),
        house.graph(
            "Replicas",
            "What the Deployment wants and has. More than wanted is the surge of a rollout.",
            "short",
            Query("max(kube_deployment_spec_replicas<deployment>)", "wanted", limit=True),
            Query("max(kube_deployment_status_replicas<deployment>)", "had"),
            Query("max(kube_deployment_status_replicas_updated<deployment>)", "of this revision"),
            Query("max(kube_deployment_status_replicas_available<deployment>)", "available"),
            Query("max(kube_deployment_status_replicas_unavailable<deployment>)", "unavailable"),
        ),
        house.graph(
            "Disruption budget",
            "Healthy pods, how many there must be, and how many may be evicted now.",
            "short",
            Query("max(kube_poddisruptionbudget_status_current_healthy<budget>)", "healthy"),
            Query("max(kube_poddisruptionbudget_status_desired_healthy<budget>)", "at least", limit=True),
            Query("max(kube_poddisruptionbudget_status_pod_disruptions_allowed<budget>)", "may be evicted"),
        ),
    ]


def _autoscaler() -> list[house.Panel]:
    return [
        house.graph(
            "Replicas by the autoscaler",
            "What the HorizontalPodAutoscaler (the chart's or KEDA's) has and wants, and its bounds.",
            "short",
            Query("max(kube_horizontalpodautoscaler_status_current_replicas<autoscaler>)", "current"),
            Query("max(kube_horizontalpodautoscaler_status_desired_replicas<autoscaler>)", "desired"),
            Query("max(kube_horizontalpodautoscaler_spec_min_replicas<autoscaler>)", "least"),
            Query("max(kube_horizontalpodautoscaler_spec_max_replicas<autoscaler>)", "most", limit=True),
        ),
        house.graph(
            "Use of the target",
            "What the autoscaler measures, as a share of what it aims at. Above 1 it adds pods.",
            "percentunit",
            Query(
                """
                max by (metric_name, metric_target_type) (
                    kube_horizontalpodautoscaler_status_target_metric<autoscaler>
                )
                / max by (metric_name, metric_target_type) (
                    kube_horizontalpodautoscaler_spec_target_metric<autoscaler>
                )
                """,
                "{{metric_name}}",
            ),
            steps=[(1, "orange")],
        ),
    ]


def _trouble() -> list[house.Panel]:
    return [
        house.graph(
            "Restarts",
            "Restarts of containers in the last hour. migrate is the init container that brings the schema up to date.",
            "short",
            Query(
                """
                sum by (pod, container) (
                    increase(kube_pod_container_status_restarts_total<pods,container="pricebook">[1h])
                    or increase(kube_pod_init_container_status_restarts_total<pods,container="migrate">[1h])
                )
                """,
                "{{pod}} {{container}}",
            ),
        ),
        house.graph(
            "Containers that wait",
            "Containers that do not run, and why: ContainerCreating is a start, CrashLoopBackOff is not.",
            "short",
            Query(
                or_zero(
                    """
                    sum by (reason) (
                        kube_pod_container_status_waiting_reason<pods>
                        or kube_pod_init_container_status_waiting_reason<pods>
                    )
                    """,
                    "reason",
                ),
                "{{reason}}",
            ),
            stacked=True,
        ),
        house.graph(
            "Pods by phase",
            "Pods of the Deployment. One that stays Pending has no node with room for it, or no image.",
            "short",
            Query("sum by (phase) (kube_pod_status_phase<pods>)", "{{phase}}"),
            stacked=True,
        ),
        house.grid(
            "Pods",
            "Every pod of the Deployment, where it runs and for how long.",
            [("pod", "Pod"), ("node", "Node")],
            Column(
                "Age",
                "s",
                """
                time() - max by (pod, node) (
                    kube_pod_start_time<pods> * on (namespace, pod) group_left (node) kube_pod_info<pods>
                )
                """,
            ),
            span=12,
        ),
    ]
