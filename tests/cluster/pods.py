"""Pods that the suite adds beside the service: load, and single requests from inside the cluster."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.kube import RESTRICTED, Namespace, eventually

_LOAD_LABELS = {"app.kubernetes.io/name": "pricebook-load"}


def pod(
    name: str, image: str, command: list[str], *, node: str | None = None, load_script: bool = False
) -> dict[str, Any]:
    """A pod that runs one command to its end, in the restricted profile."""
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - a volume of its own
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if load_script:
        mounts.append({"name": "load", "mountPath": "/load"})
        volumes.append({"name": "load", "configMap": {"name": "load"}})
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "securityContext": RESTRICTED,
        "volumeMounts": mounts,
        "env": [
            {
                "name": "PRICEBOOK_KEY",
                "valueFrom": {"secretKeyRef": {"name": "pricebook", "key": "admin-key", "optional": True}},
            }
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": volumes,
    }
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": _LOAD_LABELS}, "spec": spec}


@dataclass
class Account:
    """The load generator's own account, filled in when it has ended. See ``load.py`` for what is counted."""

    summary: dict[str, Any] = field(default_factory=dict)
    log: str = ""

    def figures(self) -> str:
        """The account in a sentence for the table of proofs."""
        return (
            f"{self.requests} requests, {self.failed} failed; connections closed: {self.announced_closes} with notice, "
            f"{self.unannounced_closes} without; {self.written} writes, as many in the ledger; "
            f"p50 {self.p50_ms:.0f} ms, p99 {self.p99_ms:.0f} ms"
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self.summary[name]
        except KeyError:
            raise AttributeError(name) from None


@contextlib.contextmanager
def load(ns: Namespace, image: str, *arguments: str, name: str = "load", node: str | None = None) -> Iterator[Account]:
    """Run the load generator beside the block; its account is complete after the block."""
    script = Path(__file__).with_name("load.py").read_text()
    ns.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load"}, "data": {"load.py": script}})
    ns.apply(pod(name, image, ["python", "/load/load.py", *arguments], node=node, load_script=True))
    account = Account()
    try:
        eventually(lambda: '"answered"' in ns.kubectl("logs", name), seconds=60)
        yield account
        ns.kubectl("exec", name, "--", "python", "-c", "open('/tmp/stop', 'w').close()")
        eventually(lambda: ns.get("pod", name)["status"]["phase"] in {"Succeeded", "Failed"}, seconds=90)
        account.log = ns.kubectl("logs", name)
        account.summary = json.loads(account.log.splitlines()[-1])["summary"]
    finally:
        ns.kubectl("delete", "pod", name, "--ignore-not-found", "--wait=true")
