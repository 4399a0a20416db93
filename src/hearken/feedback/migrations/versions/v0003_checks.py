"""Checks are found without a look at every open item."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the indexes."""
    check = sa.text("done = 0 AND (is_gold = 1 OR repeat_of IS NOT NULL)")
    columns: list[str | sa.TextClause] = [sa.text("priority DESC"), "id"]
    op.create_index("ix_queue_items_checks", "queue_items", columns, sqlite_where=check, postgresql_where=check)
    some = sa.text("repeat_of IS NOT NULL")
    op.create_index("ix_queue_items_repeat_of", "queue_items", ["repeat_of"], sqlite_where=some, postgresql_where=some)
