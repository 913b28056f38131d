"""The configuration of a Prometheus without the operator, as docs/observability.md gives it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import prometheus

DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"
SERVING = {
    "pod_label_app_kubernetes_io_name": "pricebook",
    "pod_label_app_kubernetes_io_instance": "pricebook",
    "pod_label_app_kubernetes_io_component": "server",
    "pod_container_port_name": "admin",
    "pod_phase": "Running",
}


def written() -> str:
    """The block of the document that configures scraping."""
    (block,) = re.findall(
        r"^```yaml\n(scrape_configs:\n.+?)^```$", DOCUMENT.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return str(block)


def scraped(pod: dict[str, str]) -> bool:
    """Whether its rules leave a pod in, as Prometheus applies them: a pattern matches all of a value."""
    (job,) = yaml.safe_load(written())["scrape_configs"]
    rules: list[dict[str, Any]] = [rule for rule in job["relabel_configs"] if "action" in rule]
    for rule in rules:
        value = ";".join(pod[label.removeprefix("__meta_kubernetes_")] for label in rule["source_labels"])
        if bool(re.fullmatch(rule["regex"], value)) != (rule["action"] == "keep"):
            return False
    return True


def test_prometheus_takes_it(tmp_path: Path) -> None:
    document = yaml.safe_load(written())
    # Debian's Prometheus is built without the discovery of Kubernetes.
    document["scrape_configs"][0].pop("kubernetes_sd_configs")
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(document))
    command = [prometheus.program("promtool"), "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    "difference",
    [
        {"pod_label_app_kubernetes_io_instance": "pricebook-eu"},
        {"pod_label_app_kubernetes_io_name": "pricebook-postgres", "pod_label_app_kubernetes_io_component": "postgres"},
        {"pod_label_app_kubernetes_io_component": "test"},
        {"pod_container_port_name": "http"},
        {"pod_phase": "Succeeded"},
        {"pod_phase": "Failed"},
    ],
)
def test_a_release_scrapes_its_serving_pods_only(difference: dict[str, str]) -> None:
    assert scraped(SERVING)
    assert not scraped(SERVING | difference)
