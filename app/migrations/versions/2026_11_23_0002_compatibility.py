"""Which release made the schema, and which releases can still run on it.

Revision: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The oldest revision whose release can still run on this one.
compatible_from = "0001"


def upgrade() -> None:
    for column in ("compatible_from", "release"):
        op.add_column("alembic_version", sa.Column(column, sa.Text))
