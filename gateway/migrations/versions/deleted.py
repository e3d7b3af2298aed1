"""Remembers the names of what retention deletes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the tables."""
    for name, keys in (("deleted_alarms", ("boot", "seq")), ("deleted_events", ("boot",))):
        columns = [
            sa.Column(key, Big, nullable=False, primary_key=key in keys, autoincrement=False) for key in ("boot", "seq")
        ]
        op.create_table(name, sa.Column("source", sa.Text, primary_key=True), *columns)
