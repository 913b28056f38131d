"""Alembic environment: runs the migrations on the connection that :mod:`app.migrations` hands over."""

from importlib.metadata import version
from typing import Any

import sqlalchemy as sa
from alembic import context, op

from app.models import Base


def record_compatibility(*, step: Any, **_: object) -> None:
    """Note, within the transaction of each migration, what an older release will need to know about it."""
    if step.up_revision.down_revision is not None:  # The first one has no place for it.
        note = sa.text("UPDATE alembic_version SET compatible_from = :compatible_from, release = :release")
        op.execute(
            note.bindparams(compatible_from=step.up_revision.module.compatible_from, release=version("pricebook"))
        )


connection = context.config.attributes.get("connection")
options = {
    "target_metadata": Base.metadata,
    "transaction_per_migration": True,
    "on_version_apply": record_compatibility,
    **context.config.attributes.get("options", {}),
}

if connection is None:
    # `alembic upgrade --sql`: prints the statements, for review and for the linter.
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
else:
    context.configure(connection=connection, **options)

with context.begin_transaction():
    context.run_migrations()
