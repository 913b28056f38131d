"""A release that cannot work: the pods before it serve on, the message says why, and rollback works."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.conftest import Images
from tests.cluster.kube import eventually, namespace
from tests.cluster.pods import load
from tests.cluster.release import STANDARD_LOAD, Release
from tests.cluster.report import Report

pytestmark = pytest.mark.proof

_PACKAGE = "$(python -c 'import app; print(app.__path__[0])')"
_ADD_MIGRATION = f"RUN cat > {_PACKAGE}/migrations/versions/9999_test.py <<'END'\n%s\nEND"
_BREAK_SERVE = f"RUN echo 'raise SystemExit(\"this build is broken\")' > {_PACKAGE}/server.py"
MIGRATION = '''
"""Only for the test."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{down_revision}"
compatible_from = "{down_revision}"


def upgrade() -> None:
    {upgrade}
'''


@pytest.fixture(scope="module")
def release(images: Images) -> Iterator[Release]:
    with namespace("bad") as ns:
        release = Release(ns)
        release.install(images.current)
        release.create_item()
        yield release


def migration(images: Images, directory: Path, tag: str, upgrade: str) -> str:
    """An image whose schema is one revision ahead."""
    from app import migrations

    text = MIGRATION.format(revision="9999", down_revision=migrations.head(), upgrade=upgrade)
    return images.variation(tag, directory, _ADD_MIGRATION % text)


def refused(
    release: Release, images: Images, report: Report, what: str, image: str, *arguments: str, message: str
) -> None:
    """Upgrade under load to something that cannot work, and roll back."""
    serving = set(release.ready())
    before = release.seq()
    with load(release.ns, images.current, *STANDARD_LOAD) as account:
        time.sleep(2)
        said = release.install_fails(image, *arguments, wait="40s")
        assert serving <= set(release.ready()), "a pod that served was taken away"
        told = eventually(lambda: [line for line in release.complaints() if message in line], seconds=30)
        release.ns.helm("rollback", "pricebook", "--wait", "--timeout", "120s")
        release.settled(2)
    assert set(release.ready()) == serving
    assert account.failed == 0, account.summary
    assert release.seq() - before == account.written > 0
    reason = said.strip().splitlines()[-1]
    report.row(
        f"bad release: {what}",
        "`helm upgrade --wait` fails, then `helm rollback --wait`, under load",
        f"Helm: `{reason[:120]}`; pod: `{told[0][:200]}`; {account.requests} requests, {account.failed} failed",
    )


def test_a_migration_that_fails(release: Release, images: Images, report: Report, tmp_path: Path) -> None:
    image = migration(images, tmp_path, "bad-migration", 'op.execute("SELECT 1 / 0")')
    refused(release, images, report, "failing migration", image, message="division by zero")


def test_an_image_that_crashes(release: Release, images: Images, report: Report, tmp_path: Path) -> None:
    image = images.variation("crashing", tmp_path, _BREAK_SERVE)
    refused(release, images, report, "crashing image", image, message="this build is broken")


def test_a_setting_that_is_wrong(release: Release, images: Images, report: Report) -> None:
    refused(
        release,
        images,
        report,
        "wrong setting",
        images.next,
        "--set=extraEnv[0].name=DEFAULT_TIME_ZONE",
        "--set=extraEnv[0].value=Mars/Olympus",
        message="DEFAULT_TIME_ZONE: is not an IANA time zone",
    )


def test_a_database_that_is_not_there(release: Release, images: Images, report: Report) -> None:
    refused(
        release,
        images,
        report,
        "unreachable database",
        images.next,
        "--set=config.migrationWaitSeconds=5",
        "--set=extraEnv[0].name=DATABASE_URL",
        "--set=extraEnv[0].value=postgresql://pricebook@nowhere.invalid:5432/pricebook",
        message="Check the address in DATABASE_URL",
    )


def test_a_secret_that_does_not_exist(release: Release, images: Images, report: Report) -> None:
    refused(
        release,
        images,
        report,
        "wrong secret name",
        images.next,
        "--set=secretKey.existingSecret=nowhere",
        message='secret "nowhere" not found',
    )


def test_rollback_over_a_newer_schema(release: Release, images: Images, report: Report, tmp_path: Path) -> None:
    image = migration(images, tmp_path, "expanded", 'op.add_column("items", sa.Column("later", sa.Text()))')
    before = release.seq()
    with load(release.ns, images.current, *STANDARD_LOAD) as account:
        time.sleep(2)
        release.install(image)
        release.ns.helm("rollback", "pricebook", "--wait", "--timeout", "120s")
        release.settled(2)
    assert release.sql("SELECT version_num FROM alembic_version") == [["9999"]]
    assert account.failed == 0, account.summary
    assert release.seq() - before == account.written > 0
    report.row(
        "rollback over a newer schema",
        "upgrade that adds a column, then `helm rollback --wait`, under load",
        f"schema stays; {account.requests} requests, {account.failed} failed",
    )
