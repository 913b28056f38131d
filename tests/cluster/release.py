"""One Helm release of the chart in a namespace, with the bundled database unless values say otherwise."""

import base64
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.cluster.kube import CHART, CommandFailed, Namespace, eventually

NAME = "pricebook"
SELECTOR = "app.kubernetes.io/instance=pricebook,app.kubernetes.io/component=server"
DATABASE = "app.kubernetes.io/instance=pricebook,app.kubernetes.io/component=postgres"
STANDARD_LOAD = (
    "--host=pricebook",
    "--path=/v1/items/sku:LOAD/price",
    "--path=/v1/items/sku:LOAD",
    "--path=/items/",
    "--write-path=/v1/items/sku:LOAD/prices",
    "--keep-alive=100",
    "--fresh-per-second=50",
    "--writers=4",
)
_ITEM = {"sku": "LOAD", "name": "Asked under load", "price": {"amount": "10.00", "tax_rate": "19"}}

_SQL = """
import asyncio, asyncpg, json, os, sys
async def main():
    url = os.environ["DATABASE_URL"].replace("postgresql+asyncpg:", "postgresql:")
    connection = await asyncpg.connect(url, timeout=5)
    print(json.dumps([list(row) for row in await connection.fetch(sys.argv[1])], default=str))
asyncio.run(main())
"""


@dataclass(frozen=True)
class Release:
    """A release named ``pricebook``.

    :ivar arguments: what every ``helm upgrade`` of it is given besides the image.
    """

    ns: Namespace
    arguments: tuple[str, ...] = ()

    def install(self, image: str, *arguments: str, wait: str = "180s") -> float:
        """``helm upgrade --install --wait``; gives the seconds that it took."""
        repository, tag = image.rsplit(":", 1)
        began = time.monotonic()
        self.ns.helm(
            "upgrade",
            "--install",
            NAME,
            str(CHART),
            "--set",
            f"image.repository={repository}",
            "--set",
            f"image.tag={tag}",
            *self.arguments,
            *arguments,
            "--wait",
            "--timeout",
            wait,
        )
        return time.monotonic() - began

    def install_fails(self, image: str, *arguments: str, wait: str = "60s") -> str:
        """The same, expected to fail; gives what Helm said."""
        try:
            self.install(image, *arguments, wait=wait)
        except CommandFailed as error:
            return str(error)
        raise AssertionError("the upgrade succeeded")

    def authorization(self) -> dict[str, str]:
        """The header with the admin key that the chart made."""
        key = base64.b64decode(self.ns.get("secret", NAME)["data"]["admin-key"]).decode()
        return {"Authorization": f"Bearer {key}"}

    def create_item(self) -> None:
        """Create the item that the load asks for."""
        with self.ns.forwarded("service/pricebook", 80) as url:
            done = httpx2.post(f"{url}/v1/items", json=_ITEM, headers=self.authorization())
        assert done.status_code == 201, done.text

    def answers(self) -> bool:
        """Whether a pod answers a question that needs the database."""
        return bool(self.seq())

    def complaints(self) -> list[str]:
        """What the containers of all pods give as the reason why they wait or ended, line by line."""
        return [
            line
            for pod in self.pods()
            for status in [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
            for state in (status["state"], status["lastState"])
            for kind in ("waiting", "terminated")
            if kind in state
            for line in state[kind].get("message", "").splitlines()
        ]

    def pods(self) -> list[dict[str, Any]]:
        """The serving pods that are not being deleted."""
        return self.ns.pods(SELECTOR)

    def ready(self) -> list[str]:
        """Names of the serving pods that are ready."""
        return sorted(
            pod["metadata"]["name"]
            for pod in self.pods()
            for condition in pod["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        )

    def restarts(self) -> int:
        """Restarts of all serving containers."""
        return sum(status["restartCount"] for pod in self.pods() for status in pod["status"]["containerStatuses"])

    def settled(self, replicas: int, *, seconds: float = 120) -> None:
        """Wait until just so many pods are there, each of them ready."""
        eventually(
            lambda: len(self.ready()) == replicas == len(self.ns.get("pods", "-l", SELECTOR)["items"]), seconds=seconds
        )

    def sql(self, query: str) -> list[list[Any]]:
        """Rows of a query with the rights of the serving role, asked from a serving pod."""
        rows = self.ns.kubectl("exec", self.ready()[0], "--container", "pricebook", "--", "python", "-c", _SQL, query)
        decoded: list[list[Any]] = json.loads(rows)
        return decoded

    def seq(self) -> int:
        """Number of the last change."""
        return int(self.sql("SELECT seq FROM ledger")[0][0])
