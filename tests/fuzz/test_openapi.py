"""Schemathesis asks the running service everything that its OpenAPI document promises, and some that it does not."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2
from sqlalchemy.engine import URL

from tests.support import postgres, processes
from tests.support.access import ADMIN_KEY

HERE = Path(__file__).parent / "openapi"
EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
# The ordinary run does the same each time. The long one begins with a seed that it prints, and tries more.
EFFORT = ["--max-examples", str(max(int(EXAMPLES) // 100, 10))] if EXAMPLES else ["--max-examples", "3", "--seed", "1"]
LONG_PRICED = {"sku": "LONG-PRICED", "name": "A", "price": {"amount": "1", "valid_from": "2020-01-01"}}
"""Has a price of long ago, without which there is no prior price: those that are made up begin now, or never."""
SHORT = """
[[operations]]
# There are hundreds of ways to be no quote: they are for the long run.
include-operation-id = ["make_quote", "verify_quote"]
phases.coverage.enabled = false
"""


def test_the_service_is_as_its_document_says(own_url: URL, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text((HERE / config.name).read_text() + ("" if EXAMPLES else SHORT))
    settings = {
        "database_url": postgres.text(postgres.as_serving_role(own_url)),
        "secret_key": processes.SECRET,
        "auth_required": True,
        "admin_key": ADMIN_KEY,
    }
    with processes.running("serve", tmp_path, **settings) as service:
        made = httpx2.post(
            f"{service.api}/v1/items", json=LONG_PRICED, headers={"Authorization": f"Bearer {ADMIN_KEY}"}
        )
        assert made.status_code == 201, made.text
        command: list[str | Path] = [
            Path(sys.executable).with_name("schemathesis"),
            "--config-file",
            config,
            "run",
            *EFFORT,
        ]
        done = subprocess.run(
            [*command, "--no-color", f"{service.api}/openapi.json"],
            cwd=tmp_path,
            env=processes.environment(
                hooks="tests.fuzz.openapi.hooks", admin_key=ADMIN_KEY, pythonpath=HERE.parents[2]
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        log = service.log.read_text()
    print(done.stdout)  # noqa: T201 - the seed and the counts, for those who ask for them with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"level": "error"' not in log
