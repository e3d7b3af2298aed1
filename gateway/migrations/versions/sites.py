"""Gives sites and entrances tables of their own, out of what each child said, and notes when certificates end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.resettling import resettle

revision = "0004"
down_revision = "0003"

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXTS = ("name_ur", "address", "address_ur", "plan", "plan_ur", "notes")


def upgrade() -> None:
    """Adds the tables and the column, moves the places, drops the columns that held them."""
    op.add_column("children", sa.Column("certified_until_ms", Big))
    op.create_table(
        "sites",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in TEXTS),
        sa.Column("latitude", sa.Float(53)),
        sa.Column("longitude", sa.Float(53)),
    )
    op.create_table(
        "contacts",
        sa.Column("site", sa.Text, sa.ForeignKey("sites.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("phone", sa.Text, nullable=False),
    )
    op.create_table(
        "entrances",
        sa.Column("site", sa.Text, sa.ForeignKey("sites.id"), primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("name_ur", sa.Text, nullable=False, server_default=""),
        sa.Column("latitude", sa.Float(53)),
        sa.Column("longitude", sa.Float(53)),
    )
    op.create_table(
        "site_changes",
        sa.Column("site", sa.Text, sa.ForeignKey("sites.id"), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("official", sa.Integer, nullable=False),
        sa.Column("before", sa.Text, nullable=False),
        sa.Column("after", sa.Text, nullable=False),
    )
    resettle(op.get_bind())
