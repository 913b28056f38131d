"""Alembic environment: runs the migrations on the connection that :mod:`app.migrations` hands over."""

from alembic import context

from app.models import Base

connection = context.config.attributes.get("connection")
options = context.config.attributes.get("options", {})

if connection is None:
    # `alembic upgrade --sql`: prints the statements, for review and for the linter.
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
else:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True, **options)

with context.begin_transaction():
    context.run_migrations()
