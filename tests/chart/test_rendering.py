"""What values make of the objects."""

import base64
import re
from pathlib import Path
from typing import Any

import pytest

from deploy import chart_readme
from tests.support import chart

NAME = "shop-pricebook"
examples = pytest.mark.parametrize("path", chart.EXAMPLES, ids=lambda path: path.stem)


def pod(objects: list[chart.Object], name: str = NAME) -> chart.Object:
    """The service's pod."""
    spec: chart.Object = chart.one(objects, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def variables(objects: list[chart.Object], name: str = NAME) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables of the service and of its migration."""
    spec = pod(objects, name)
    (migrate,) = [container for container in spec["initContainers"] if container["name"] == "migrate"]
    return chart.environment(spec["containers"][0], objects), chart.environment(migrate, objects)


def example(name: str) -> list[chart.Object]:
    return chart.render(chart.example(chart.CHART / "ci" / f"{name}-values.yaml"))


# The database


def test_bundled_serves_and_migrates_as_two_roles() -> None:
    serve, migrate = variables(chart.render())
    assert serve["DATABASE_URL"] == f"postgresql://pricebook_serving@{NAME}-postgres:5432/pricebook"
    assert serve["PGPASSWORD"] == (f"{NAME}-postgres", "serving-password")
    assert "SERVING_ROLE" not in serve
    assert migrate["DATABASE_URL"] == f"postgresql://pricebook@{NAME}-postgres:5432/pricebook"
    assert migrate["PGPASSWORD"] == (f"{NAME}-postgres", "owner-password")
    assert migrate["SERVING_ROLE"] == "pricebook_serving"
    assert "SECRET_KEY" not in migrate


def test_bundled_sets_the_limit_that_the_rules_reckon_with() -> None:
    postgres = chart.one(chart.render({"database": {"maxConnections": 77}}), "StatefulSet", f"{NAME}-postgres")
    assert postgres["spec"]["template"]["spec"]["containers"][0]["args"] == ["-c", "max_connections=77"]


def test_bundled_takes_passwords_that_were_made_before() -> None:
    objects = example("gitops-bundled")
    serve, migrate = variables(objects)
    assert serve["PGPASSWORD"] == ("pricebook-postgres-passwords", "serving-password")
    assert migrate["PGPASSWORD"] == ("pricebook-postgres-passwords", "owner-password")
    assert chart.of_kind(objects, "Secret") == []


def test_external_urls() -> None:
    objects = example("external-url")
    serve, migrate = variables(objects)
    assert serve["DATABASE_URL"] == ("pricebook-database", "url")
    assert migrate["DATABASE_URL"] == ("pricebook-database-owner", "url")
    assert migrate["SERVING_ROLE"] == "pricebook_serving"
    assert "PGPASSWORD" not in serve | migrate
    assert chart.of_kind(objects, "StatefulSet", "Cluster") == []


def test_external_hosts_with_migrations_past_the_pooler() -> None:
    serve, migrate = variables(example("external-host"))
    assert (
        serve["DATABASE_URL"] == "postgresql://prices_serving@pooler.databases.example:6432/prices?sslmode=verify-full"
    )
    assert serve["PGPASSWORD"] == ("pricebook-database", "password")
    assert (
        migrate["DATABASE_URL"] == "postgresql://prices_owner@primary.databases.example:5432/prices?sslmode=verify-full"
    )
    assert migrate["PGPASSWORD"] == ("pricebook-database-owner", "password")
    assert migrate["SERVING_ROLE"] == "prices_serving"


def test_reads_from_a_replica() -> None:
    serve, migrate = variables(example("external-host"))
    replica = "postgresql://prices_serving@replica.databases.example:5432/prices?sslmode=verify-full"
    assert serve["DATABASE_READ_URL"] == replica
    external = {"existingSecret": "database", "read": {"urlKey": "read-url"}}
    by_url, _ = variables(chart.render({"database": {"mode": "external", "external": external}}))
    assert by_url["DATABASE_READ_URL"] == ("database", "read-url")
    cnpg, _ = variables(example("cnpg"))
    assert cnpg["DATABASE_READ_URL"] == f"postgresql://pricebook_serving@{NAME}-db-ro:5432/pricebook"
    # Nobody else, and not unless it is asked for.
    others = [migrate, *variables(chart.render()), *variables(chart.render({"database": {"mode": "cnpg"}}))]
    assert [found for found in others if "DATABASE_READ_URL" in found] == []


def test_one_external_role_for_everything() -> None:
    serve, migrate = variables(example("sidecar"))
    assert serve["DATABASE_URL"] == migrate["DATABASE_URL"] == "postgresql://pricebook@127.0.0.1:5432/pricebook"
    assert serve["PGPASSWORD"] == migrate["PGPASSWORD"] == ("pricebook-database", "password")
    assert "SERVING_ROLE" not in migrate


def test_cnpg_serves_through_the_pooler_and_migrates_past_it() -> None:
    objects = example("cnpg")
    serve, migrate = variables(objects)
    assert serve["DATABASE_URL"] == f"postgresql://pricebook_serving@{NAME}-pooler:5432/pricebook"
    assert serve["PGPASSWORD"] == (f"{NAME}-serving", "password")
    assert migrate["DATABASE_URL"] == f"postgresql://pricebook@{NAME}-db-rw:5432/pricebook"
    assert migrate["PGPASSWORD"] == (f"{NAME}-db-app", "password")
    assert migrate["SERVING_ROLE"] == "pricebook_serving"
    cluster = chart.one(objects, "Cluster", f"{NAME}-db")["spec"]
    assert cluster["postgresql"]["parameters"]["max_connections"] == "120"
    assert cluster["postgresql"]["parameters"]["shared_buffers"] == "512MB"
    assert cluster["plugins"][0]["name"] == "barman-cloud.cloudnative-pg.io"
    assert cluster["managed"]["roles"][0]["passwordSecret"] == {"name": f"{NAME}-serving"}
    pooler = chart.one(objects, "Pooler", f"{NAME}-pooler")["spec"]
    assert pooler["cluster"] == {"name": f"{NAME}-db"}
    assert pooler["pgbouncer"]["poolMode"] == "transaction"
    assert pooler["pgbouncer"]["parameters"]["max_prepared_statements"] == "200"
    assert pooler["template"]["metadata"]["labels"] == {"team": "prices"}


def test_cnpg_restores_instead_of_starting_empty() -> None:
    bootstrap = chart.of_kind(example("cnpg-restore"), "Cluster")[0]["spec"]["bootstrap"]
    assert bootstrap == {
        "recovery": {
            "database": "pricebook",
            "owner": "pricebook",
            "source": "before",
            "recoveryTarget": {"targetTime": "2026-11-20T08:00:00Z"},
        }
    }
    copied = {"bootstrap": {"pg_basebackup": {"source": "before", "owner": "other"}}}
    cluster = chart.of_kind(chart.render({"database": {"mode": "cnpg", "cnpg": {"extraSpec": copied}}}), "Cluster")[0][
        "spec"
    ]
    assert cluster["bootstrap"] == {"pg_basebackup": {"database": "pricebook", "source": "before", "owner": "other"}}


def test_cnpg_adds_roles_and_statements_to_its_own() -> None:
    extra = {
        "managed": {"roles": [{"name": "reports", "login": True}]},
        "bootstrap": {"initdb": {"postInitApplicationSQL": ["CREATE EXTENSION pg_trgm"], "dataChecksums": True}},
    }
    own, more = (
        chart.of_kind(chart.render({"database": {"mode": "cnpg", "cnpg": {"extraSpec": spec}}}), "Cluster")[0]["spec"]
        for spec in ({}, extra)
    )
    assert more["managed"]["roles"] == [*own["managed"]["roles"], {"name": "reports", "login": True}]
    statements = own["bootstrap"]["initdb"]["postInitApplicationSQL"]
    assert more["bootstrap"]["initdb"]["postInitApplicationSQL"] == [*statements, "CREATE EXTENSION pg_trgm"]
    assert more["bootstrap"]["initdb"]["dataChecksums"] is True


def test_cnpg_without_a_pooler() -> None:
    values = {"database": {"mode": "cnpg", "cnpg": {"pooler": {"enabled": False}, "servingSecret": "mine"}}}
    objects = chart.render(values)
    assert variables(objects)[0]["DATABASE_URL"] == f"postgresql://pricebook_serving@{NAME}-db-rw:5432/pricebook"
    assert variables(objects)[0]["PGPASSWORD"] == ("mine", "password")
    assert chart.of_kind(objects, "Pooler") == []
    assert [secret["metadata"]["name"] for secret in chart.of_kind(objects, "Secret")] == [NAME]


# Secrets and settings


def test_generated_secrets_are_long_differ_and_stay() -> None:
    first, second = chart.render(), chart.render()
    for secret in chart.of_kind(first, "Secret"):
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        other = chart.one(second, "Secret", secret["metadata"]["name"])
        for key, value in secret["data"].items():
            assert len(base64.b64decode(value)) == 48
            assert value != other["data"][key]


def checksums(values: chart.Object) -> tuple[str, str]:
    """The checksums of settings and of generated Secrets in the pod's annotations."""
    annotations = chart.one(chart.render(values), "Deployment", NAME)["spec"]["template"]["metadata"]["annotations"]
    return annotations["checksum/config"], annotations["checksum/secret"]


def test_a_changed_setting_or_password_replaces_the_pods() -> None:
    fixed: chart.Object = {
        "secretKey": {"existingSecret": "keys"},
        "database": {"bundled": {"passwords": {"superuser": "1" * 14, "owner": "2" * 14, "serving": "3" * 14}}},
    }
    changed = {"database": {"bundled": {"passwords": {"superuser": "1" * 14, "owner": "2" * 14, "serving": "4" * 14}}}}
    assert checksums(fixed) == checksums(fixed)
    assert checksums(fixed | {"replicas": 1}) == checksums(fixed)
    assert checksums(fixed | {"config": {"logLevel": "debug"}})[0] != checksums(fixed)[0]
    assert checksums(fixed | changed)[1] != checksums(fixed)[1]


def test_a_key_made_before() -> None:
    objects = example("gitops")
    serve, migrate = variables(objects)
    assert serve["SECRET_KEY"] == ("pricebook-keys", "cursor-key")
    assert serve["SECRET_KEY_PREVIOUS"] == ("pricebook-keys", "secret-key-previous")
    assert serve["ADMIN_KEY"] == ("pricebook-keys", "admin-key")
    assert not {"SECRET_KEY", "SECRET_KEY_PREVIOUS", "ADMIN_KEY"} & migrate.keys()
    assert chart.of_kind(objects, "Secret") == []


def test_the_admin_key_is_generated_beside_the_secret_key_or_another_secret_of_yours_or_left_out() -> None:
    objects = chart.render()
    assert set(chart.one(objects, "Secret", NAME)["data"]) == {"secret-key", "admin-key"}
    assert variables(objects)[0]["ADMIN_KEY"] == (NAME, "admin-key")
    objects = chart.render({"adminKey": {"existingSecret": "root", "key": "token"}})
    assert set(chart.one(objects, "Secret", NAME)["data"]) == {"secret-key"}
    assert variables(objects)[0]["ADMIN_KEY"] == ("root", "token")
    objects = chart.render({"adminKey": {"enabled": False}})
    assert set(chart.one(objects, "Secret", NAME)["data"]) == {"secret-key"}
    assert "ADMIN_KEY" not in variables(objects)[0]


def test_tracing_by_the_standard_variables() -> None:
    serve, migrate = variables(example("uvicorn-tracing"))
    assert serve["OTEL_TRACES_EXPORTER"] == "otlp"
    assert serve["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://otel-collector.observability:4318"
    assert serve["OTEL_TRACES_SAMPLER"] == "always_on"
    assert "OTEL_TRACES_SAMPLER_ARG" not in serve
    assert "k8s.pod.name=$(POD_NAME)" in serve["OTEL_RESOURCE_ATTRIBUTES"]
    assert serve["OTEL_EXPORTER_OTLP_HEADERS"] == migrate["OTEL_EXPORTER_OTLP_HEADERS"] == ("otlp", "headers")
    assert not [name for name in variables(chart.render())[0] if name.startswith("OTEL_")]


def test_a_variable_of_yours_takes_the_place_of_the_charts() -> None:
    values = chart.example(chart.CHART / "ci" / "uvicorn-tracing-values.yaml")
    mine = [{"name": "CLUSTER", "value": "c1"}, {"name": "POD_NAME", "value": "$(CLUSTER)-$(NODE_NAME)"}]
    variables = pod(chart.render(values | {"extraEnv": mine}))["containers"][0]["env"]
    # Each refers to what is above it.
    assert [item["name"] for item in variables][-4:] == ["NODE_NAME", "CLUSTER", "POD_NAME", "OTEL_RESOURCE_ATTRIBUTES"]
    assert mine[1] in variables


# The Deployment


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 50),
        ({"preStopSeconds": 15, "config": {"drainSeconds": 2.5, "gracefulTimeoutSeconds": 60}}, 88),
        ({"terminationGracePeriodSeconds": 120}, 120),
    ],
)
def test_time_to_stop_is_the_sum_of_its_parts(values: chart.Object, seconds: int) -> None:
    assert pod(chart.render(values))["terminationGracePeriodSeconds"] == seconds


def test_rolling_updates_never_have_fewer_pods() -> None:
    spec = chart.one(chart.render(), "Deployment", NAME)["spec"]
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}
    assert spec["minReadySeconds"] == 5
    container = spec["template"]["spec"]["containers"][0]
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {
        "startup": {"path": "/livez", "port": "admin"},
        "liveness": {"path": "/livez", "port": "admin"},
        "readiness": {"path": "/readyz", "port": "admin"},
    }


@pytest.mark.parametrize(
    ("values", "replicas", "budget"),
    [
        ({}, 2, True),
        ({"replicas": 1}, 1, False),
        ({"podDisruptionBudget": {"enabled": False}}, 2, False),
        ({"autoscaling": {"enabled": True}}, None, True),
        ({"replicas": 3, "autoscaling": {"enabled": True, "minReplicas": 1}}, None, False),
        ({"keda": {"enabled": True}}, None, True),
        ({"replicas": 3, "keda": {"enabled": True, "minReplicas": 1}}, None, False),
    ],
    ids=str,
)
def test_replicas_and_budget_follow_the_fewest_pods(values: chart.Object, replicas: int | None, budget: bool) -> None:
    objects = chart.render(values)
    assert chart.one(objects, "Deployment", NAME)["spec"].get("replicas") == replicas
    found = [item["spec"] for item in chart.of_kind(objects, "PodDisruptionBudget")]
    assert [(spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) for spec in found] == [
        (1, "AlwaysAllow")
    ] * budget


def test_pods_spread_over_zones_and_nodes_of_their_own_revision() -> None:
    constraints = pod(chart.render())["topologySpreadConstraints"]
    assert [item["topologyKey"] for item in constraints] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for item in constraints:
        assert item["matchLabelKeys"] == ["pod-template-hash"]
        assert item["labelSelector"]["matchLabels"]["app.kubernetes.io/instance"] == chart.RELEASE
    own: chart.Object = {
        "maxSkew": 2,
        "topologyKey": "rack",
        "whenUnsatisfiable": "DoNotSchedule",
        "matchLabelKeys": [],
        "labelSelector": {"matchLabels": {"team": "prices"}},
    }
    assert pod(chart.render({"topologySpreadConstraints": [own]}))["topologySpreadConstraints"] == [own]
    assert "topologySpreadConstraints" not in pod(chart.render({"topologySpreadConstraints": []}))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "ghcr.io/pricebook/pricebook:0.1.0"),
        ({"tag": "1.2"}, "ghcr.io/pricebook/pricebook:1.2"),
        ({"tag": "1.2", "digest": f"sha256:{'0' * 64}"}, f"ghcr.io/pricebook/pricebook@sha256:{'0' * 64}"),
        ({"repository": "mirror.example:5000/pricebook"}, "mirror.example:5000/pricebook:0.1.0"),
    ],
    ids=str,
)
def test_image(image: chart.Object, expected: str) -> None:
    objects = chart.render({"image": image})
    assert {container["image"] for container in chart.containers(pod(objects))} == {expected}
    tests = [
        container["image"] for item in chart.of_kind(objects, "Pod") for container in chart.containers(item["spec"])
    ]
    assert tests == [expected, expected]


def test_what_every_user_of_a_chart_asks_for() -> None:
    extra: chart.Object = {
        "podLabels": {"team": "prices", "app.kubernetes.io/name": "other"},
        "podAnnotations": {"a": "b", "kubectl.kubernetes.io/default-container": "other"},
        "commonLabels": {"cost": "7", "app.kubernetes.io/instance": "other"},
        "deploymentAnnotations": {"reload": "yes"},
        "imagePullSecrets": [{"name": "registry"}],
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "x", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "extraInitContainers": [{"name": "first", "image": "i:1"}],
        "extraContainers": [{"name": "beside", "image": "i:1"}],
    }
    deployment = chart.one(chart.render(extra), "Deployment", NAME)
    assert deployment["metadata"]["annotations"] == {"reload": "yes"}
    template = deployment["spec"]["template"]
    # The chart's own labels and annotations cannot be changed by accident.
    labels = template["metadata"]["labels"]
    assert (labels["team"], labels["cost"]) == ("prices", "7")
    assert (labels["app.kubernetes.io/name"], labels["app.kubernetes.io/instance"]) == ("pricebook", chart.RELEASE)
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "pricebook"
    spec = template["spec"]
    for key in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert spec[key] == extra[key]
    assert [container["name"] for container in spec["initContainers"]] == ["first", "migrate"]
    assert [container["name"] for container in spec["containers"]] == ["pricebook", "beside"]
    for container in (spec["initContainers"][1], spec["containers"][0]):
        assert {"name": "A", "value": "b"} in container["env"]
        assert {"secretRef": {"name": "more"}} in container["envFrom"]
        assert {"name": "v", "mountPath": "/v"} in container["volumeMounts"]
    assert {"name": "v", "emptyDir": {}} in spec["volumes"]


@pytest.mark.parametrize(
    ("values", "release", "expected"),
    [
        ({}, "shop", "shop-pricebook"),
        ({}, "pricebook", "pricebook"),
        ({}, "my-pricebook-2", "my-pricebook-2"),
        ({"nameOverride": "prices"}, "shop", "shop-prices"),
        ({"fullnameOverride": "prices"}, "shop", "prices"),
    ],
    ids=str,
)
def test_names(values: chart.Object, release: str, expected: str) -> None:
    objects = chart.render(values, name=release)
    assert chart.one(objects, "Service", expected)
    assert chart.one(objects, "Service", f"{expected}-admin")


def test_the_account() -> None:
    assert pod(chart.render())["serviceAccountName"] == NAME
    assert pod(chart.render({"serviceAccount": {"name": "mine"}}))["serviceAccountName"] == "mine"
    objects = chart.render({"serviceAccount": {"create": False}})
    assert pod(objects)["serviceAccountName"] == "default"
    assert chart.of_kind(objects, "ServiceAccount") == []


# Autoscaling, routes, monitoring


def test_the_autoscaler_looks_at_the_services_container_alone() -> None:
    spec = chart.of_kind(example("autoscaling"), "HorizontalPodAutoscaler")[0]["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 6)
    assert spec["metrics"] == [
        {
            "type": "ContainerResource",
            "containerResource": {
                "container": "pricebook",
                "name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80},
            },
        }
    ]
    assert spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 300


def test_keda_asks_for_the_job_of_the_service_monitor() -> None:
    objects = example("keda")
    spec = chart.of_kind(objects, "ScaledObject")[0]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 4)
    assert [trigger["type"] for trigger in spec["triggers"]] == ["cpu", "prometheus", "prometheus", "cron"]
    rate, in_flight = (trigger["metadata"] for trigger in spec["triggers"][1:3])
    assert rate["query"] == f'sum(rate(http_requests_total{{namespace="{chart.NAMESPACE}",job="{NAME}"}}[1m]))'
    assert rate["threshold"] == "150"
    assert f'pricebook_requests_in_flight{{namespace="{chart.NAMESPACE}",job="{NAME}"}}' in in_flight["query"]
    assert spec["triggers"][1]["authenticationRef"] == {"name": "prometheus"}


def test_ingress() -> None:
    spec = chart.of_kind(example("ingress"), "Ingress")[0]["spec"]
    paths = {
        rule["host"]: [(path["path"], path["pathType"]) for path in rule["http"]["paths"]] for rule in spec["rules"]
    }
    assert paths == {
        "prices.example.com": [("/", "Prefix")],
        "internal.example.com": [("/v1", "Prefix"), ("/docs", "Exact")],
    }
    backends = {str(path["backend"]) for rule in spec["rules"] for path in rule["http"]["paths"]}
    assert backends == {str({"service": {"name": NAME, "port": {"name": "http"}}})}


def test_route() -> None:
    spec = chart.of_kind(example("gateway"), "HTTPRoute")[0]["spec"]
    assert spec["parentRefs"] == [{"name": "public", "namespace": "gateways", "sectionName": "https"}]
    assert spec["rules"][0]["backendRefs"] == [{"name": NAME, "port": 80}]


def test_monitoring_goes_where_it_is_looked_for() -> None:
    objects = example("monitoring")
    for kind in ("ServiceMonitor", "PrometheusRule"):
        (item,) = chart.of_kind(objects, kind)
        assert item["metadata"]["namespace"] == "monitoring"
        # Releases of one name in two namespaces meet there.
        assert item["metadata"]["name"] == f"{chart.NAMESPACE}-{NAME}"
        assert item["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    files = {path.name: path.read_text() for path in (chart.CHART / "files" / "dashboards").glob("*.json")}
    boards = [item for item in chart.of_kind(objects, "ConfigMap") if "grafana_dashboard" in item["metadata"]["labels"]]
    assert {key: text for item in boards for key, text in item["data"].items()} == {
        name: text.removesuffix("\n") for name, text in files.items()
    }
    for item in boards:
        assert item["metadata"]["annotations"]["grafana_folder"] == "Pricebook"
        assert item["metadata"]["name"].startswith(f"{chart.NAMESPACE}-{NAME}-dashboard-")
        assert item["metadata"]["namespace"] == "monitoring"


def test_rules_have_the_labels_and_groups_of_the_values() -> None:
    groups = chart.of_kind(example("monitoring"), "PrometheusRule")[0]["spec"]["groups"]
    assert groups[-1]["name"] == "shop"
    alerts = [rule for group in groups[:-1] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["labels"]["team"] == "prices"
        assert f'namespace="{chart.NAMESPACE}"' in alert["expr"]
        assert NAME in alert["expr"]
        assert (alert["labels"]["namespace"], alert["labels"]["job"]) == (chart.NAMESPACE, NAME)
        assert alert["annotations"]["runbook_url"].endswith(f"/docs/runbooks/{alert['alert']}.md")
    left_out = {"prometheusRule": {"enabled": True, "disabledAlerts": [alerts[0]["alert"]]}}
    rules = chart.of_kind(chart.render(left_out), "PrometheusRule")[0]["spec"]["groups"]
    assert alerts[0]["alert"] not in [rule.get("alert") for group in rules for rule in group["rules"] or []]


def test_policy_lets_in_whom_the_values_name() -> None:
    objects = example("network-policy")
    api, tests, admin = chart.one(objects, "NetworkPolicy", NAME)["spec"]["ingress"]
    shop = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}
    assert api == {"ports": [{"port": "http"}], "from": [shop | {"podSelector": {"matchLabels": {"app": "checkout"}}}]}
    assert tests["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "pricebook-test"
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert admin["ports"] == [{"port": "admin"}]
    assert prometheus in admin["from"]
    # An empty list means everybody, and for that there must be no `from`.
    open_api = chart.one(chart.render({"networkPolicy": {"enabled": True}}), "NetworkPolicy", NAME)["spec"]["ingress"][
        0
    ]
    assert open_api == {"ports": [{"port": "http"}]}


def test_policy_lets_out_to_names_database_and_collector_only() -> None:
    egress = chart.one(example("network-policy"), "NetworkPolicy", NAME)["spec"]["egress"]
    assert [[port["port"] for port in rule["ports"]] for rule in egress] == [[53, 53], ["postgres"], [4318]]
    assert all(rule["to"] for rule in egress)
    external = chart.one(example("production"), "NetworkPolicy", "pricebook")["spec"]["egress"]
    assert external[1] == {"ports": [{"port": 5432}], "to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}]}
    database = chart.one(example("network-policy"), "NetworkPolicy", f"{NAME}-postgres")["spec"]
    assert database["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in database


@pytest.mark.parametrize(
    ("endpoint", "more", "ports"),
    [
        ("http://otel-collector:4318", [], [4318]),
        ("http://otel-collector:4318", [4318, 4317], [4318, 4317]),
        ("https://otel.example.com/traces", [], [443]),
        ("http://[fd00::7]", [4318], [80, 4318]),
    ],
)
def test_policy_lets_out_to_the_collectors_port(endpoint: str, more: list[int], ports: list[int]) -> None:
    policy = {"enabled": True, "egress": {"otlpPorts": more}}
    objects = chart.render({"tracing": {"enabled": True, "endpoint": endpoint}, "networkPolicy": policy})
    egress = chart.one(objects, "NetworkPolicy", NAME)["spec"]["egress"]
    assert egress[2] == {"ports": [{"port": port} for port in ports]}


def test_policy_lets_the_tests_out_where_their_proxy_goes() -> None:
    proxy = {"ports": [{"port": 3307}]}
    objects = chart.render({"networkPolicy": {"enabled": True, "egress": {"extra": [proxy]}}})
    for name in (NAME, f"{NAME}-test"):
        assert chart.one(objects, "NetworkPolicy", name)["spec"]["egress"][-1] == proxy


def test_extra_objects_are_templates() -> None:
    objects = example("gitops")
    secret = chart.one(objects, "ExternalSecret", "pricebook-keys")
    assert secret["spec"]["data"][0]["remoteRef"]["key"] == f"{chart.NAMESPACE}/pricebook"
    assert chart.one(objects, "ConfigMap", f"{NAME}-extra")["data"] == {"service": NAME}


# Notes


def notes(values: chart.Object) -> str:
    """NOTES.txt as Helm prints it."""
    return chart.manifests(values)["NOTES.txt"]


def test_notes_lead_to_a_first_answer() -> None:
    text = notes({"service": {"port": 8080}})
    assert f"kubectl --namespace {chart.NAMESPACE} port-forward service/{NAME} 8000:8080\n" in text
    assert 'curl http://127.0.0.1:8000/items/ -H "Authorization: Bearer $PRICEBOOK_KEY"\n' in text
    assert f"PRICEBOOK_KEY=$(kubectl --namespace {chart.NAMESPACE} get secret {NAME} " in text
    assert f"helm --namespace {chart.NAMESPACE} test {chart.RELEASE} --logs\n" in text


@pytest.mark.parametrize(
    ("path", "warnings"),
    [
        ("bundled", {"trials", "generated"}),
        ("minimal", {"trials", "generated", "as few as one pod"}),
        ("production", set()),
        ("cnpg", {"generated"}),
    ],
)
def test_notes_warn_of_what_is_not_for_production(path: str, warnings: set[str]) -> None:
    text = notes(chart.example(Path(chart.CHART / "ci" / f"{path}-values.yaml"))).lower()
    assert {word for word in ("trials", "generated", "as few as one pod") if word in text} == warnings
    assert ("take care" in text) == bool(warnings)


def test_notes_ask_for_no_key_where_none_is_needed() -> None:
    text = notes({"config": {"authRequired": False}})
    assert "curl http://127.0.0.1:8000/items/\n" in text
    assert "PRICEBOOK_KEY" not in text
    assert "whoever reaches the Service can read and write" in text


def test_notes_do_not_lead_to_an_admin_key_that_is_not_accepted() -> None:
    text = notes({"adminKey": {"enabled": False}})
    assert "get secret" not in text
    assert "only keys that are in the database already are accepted" in text


@examples
def test_notes_name_every_generated_secret_and_its_remedy(path: Path) -> None:
    rendered = chart.manifests(chart.example(path))
    told = re.findall(
        r"^\* The Secret (\S+) was generated .*\n.* name your own in (\S+):", rendered["NOTES.txt"], re.MULTILINE
    )
    assert sorted(name for name, _ in told) == sorted(
        item["metadata"]["name"] for item in chart.of_kind(chart.objects(rendered), "Secret")
    )
    described = {
        ".".join(value.path): value.description
        for section in chart_readme.sections((chart.CHART / "values.yaml").read_text())
        for value in section.values
    }
    for _, value in told:
        assert "wherever `helm template` renders the chart" in described[value]
