"""A namespace of a real cluster, through ``kubectl`` and ``helm`` as a person would use them."""

import contextlib
import itertools
import json
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "pricebook"
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


class CommandFailed(AssertionError):
    """A program that should have succeeded did not; the message has what it said."""


def run(*command: str, stdin: str | None = None, seconds: float = 120) -> str:
    """Run a program and give what it printed.

    :raises CommandFailed: with its output, if it fails.
    """
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def eventually[T](look: Callable[[], T], *, seconds: float, every: float = 0.5) -> T:
    """The first truthy result of ``look``; a failure after ``seconds`` shows the last result or error."""
    deadline = time.monotonic() + seconds
    while True:
        seen: object
        try:
            if result := look():
                return result
            seen = result
        except (CommandFailed, OSError, LookupError, ValueError) as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s; last seen: {seen}")
        time.sleep(every)


@dataclass(frozen=True)
class Namespace:
    """One namespace, and what a person does in it."""

    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """``kubectl`` in this namespace."""
        return run("kubectl", "--namespace", self.name, *arguments, stdin=stdin, seconds=seconds)

    def get(self, *arguments: str) -> dict[str, Any]:
        """``kubectl get ... -o json``, decoded."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return found

    def apply(self, *manifests: dict[str, Any]) -> None:
        """``kubectl apply``."""
        self.kubectl(
            "apply", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        )

    def helm(self, *arguments: str, seconds: float = 420) -> str:
        """``helm`` in this namespace."""
        return run("helm", "--namespace", self.name, *arguments, seconds=seconds)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods with these labels that are not being deleted."""
        items: list[dict[str, Any]] = self.get("pods", "--selector", selector)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    @contextlib.contextmanager
    def watched(self, target: str, path: str) -> Iterator[list[str]]:
        """``kubectl get --watch`` beside the block; after it, the values that a field took, in order."""
        values: list[str] = []
        process = subprocess.Popen(
            ["kubectl", "--namespace", self.name, "get", target, "--watch", f"--output=jsonpath={{{path}}}{{'\\n'}}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield values
        finally:
            process.terminate()
            printed, _ = process.communicate(timeout=10)
        values += [value for value, _ in itertools.groupby(printed.split())]

    @contextlib.contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[str]:
        """``kubectl port-forward`` to one pod of a target; yields the address to call."""
        with socket.socket() as candidate:
            candidate.bind(("127.0.0.1", 0))
            local = candidate.getsockname()[1]
        process = subprocess.Popen(
            ["kubectl", "--namespace", self.name, "port-forward", target, f"{local}:{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            first = process.stdout.readline().decode()
            assert "Forwarding from" in first, first
            yield f"http://127.0.0.1:{local}"
        finally:
            process.terminate()
            process.communicate(timeout=10)


@contextlib.contextmanager
def namespace(purpose: str, **labels: str) -> Iterator[Namespace]:
    """A new namespace that enforces the restricted Pod Security Standard; deleted at the end."""
    name = f"pricebook-{purpose}-{secrets.token_hex(3)}"
    metadata = {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted", **labels}}
    run(
        "kubectl",
        "create",
        "--filename",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
    )
    try:
        yield Namespace(name)
    finally:
        run("kubectl", "delete", "namespace", name, "--wait=false")
