"""Makes room for maintenance, for stations that vouch, and for the times of parents' receipts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the columns and the table."""
    op.add_column("children", sa.Column("vouches", sa.Integer, nullable=False, server_default="0"))
    op.add_column("deliveries", sa.Column("at_ms", Big))
    op.add_column("deliveries", sa.Column("stage_at_ms", Big))
    op.create_table(
        "maintenance",
        sa.Column("child", sa.Text, primary_key=True),
        sa.Column("until_ms", Big, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
    )
