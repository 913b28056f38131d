"""How far back the feed goes, and which changes can never be forgotten.

Revision: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The oldest revision whose release can still run on this one.
compatible_from = "0001"


def upgrade() -> None:
    op.add_column("ledger", sa.Column("feed_floor", sa.BigInteger, nullable=False, server_default="0"))
    # Reads as known at an earlier seq look up what items and books were then.
    op.execute(
        """
        CREATE TRIGGER keep_versions BEFORE DELETE ON changes
        FOR EACH ROW WHEN (OLD.price_id IS NULL) EXECUTE FUNCTION changes_are_append_only()
        """
    )
