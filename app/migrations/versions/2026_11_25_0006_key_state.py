"""The state of the API's keys in a table of its own: who revokes a key waits for no writer of prices.

Revision: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The oldest revision whose release can still run on this one. Those before this one have no keys: the column
# ledger.access_version, which counted changes to them in between, was in no release, and a later migration drops it.
compatible_from = "0001"


def upgrade() -> None:
    op.create_table(
        "api_key_state",
        sa.Column("singleton", sa.Boolean, sa.CheckConstraint("singleton", name="singleton"), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.execute("INSERT INTO api_key_state (singleton, version) VALUES (true, 0)")
