"""${message}

Revision: ${up_revision}
Revises: ${down_revision | comma,n}

Expand first, contract in a later release: the release before this one must go on working on the new schema.
"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = "${up_revision}"
down_revision = ${'"%s"' % down_revision if down_revision else None}
branch_labels = None
depends_on = None

# The oldest revision whose release can still run on this one: as in the migration before, unless this one contracts.
compatible_from = "0001"


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}
