"""Keys across replicas: made through one, taken by all; revoked through one, refused by all within two seconds."""

import time
from contextlib import ExitStack

import httpx2
import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import namespace
from tests.cluster.release import Release
from tests.cluster.report import Report

pytestmark = pytest.mark.cluster

ROUNDS = 10
LIMIT_SECONDS = 2.0


def test_a_key_that_is_revoked_through_one_pod_is_refused_by_the_other(images: Images, report: Report) -> None:
    with namespace("keys") as ns, ExitStack() as stack:
        release = Release(ns)
        release.install(images.current)
        urls = [stack.enter_context(ns.forwarded(f"pod/{name}", 8000)) for name in release.ready()]
        assert len(urls) == 2
        made, refused = [], []
        for number in range(ROUNDS):
            with (
                httpx2.Client(base_url=urls[number % 2], headers=release.authorization()) as here,
                httpx2.Client(base_url=urls[1 - number % 2]) as there,
            ):
                key = here.post("/v1/keys", json={"name": f"till-{number}", "scopes": ["prices:read"]}).json()
                header = {"Authorization": f"Bearer {key['key']}"}
                made.append(_seconds_until(there, header, 200))
                assert here.delete(f"/v1/keys/{key['id']}").status_code == 200
                refused.append(_seconds_until(there, header, 401))
        assert max(refused) < LIMIT_SECONDS
        assert max(made) < LIMIT_SECONDS
        report.row(
            "keys across pods",
            f"{ROUNDS} keys made and revoked through one pod, asked about at the other",
            f"taken by the other after at most {max(made):.2f} s, refused after at most {max(refused):.2f} s",
        )


def _seconds_until(client: httpx2.Client, header: dict[str, str], status: int) -> float:
    began = time.monotonic()
    while client.get("/v1/whoami", headers=header).status_code != status:
        assert time.monotonic() - began < 10 * LIMIT_SECONDS, f"never answered {status}"
        time.sleep(0.02)
    return time.monotonic() - began
