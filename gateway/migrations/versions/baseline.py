"""The tables as they were when revisions began."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes every table that is not there: a database from before there were revisions has some of them, or all."""
    _table(
        "journal",
        sa.Column("id", Big, primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("boot", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("happened_at_ms", Big, nullable=False),
        sa.Column("exact", sa.Integer, nullable=False),
        sa.Column("received_at_ms", Big, nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.Column("hops", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("source", "boot", "seq"),
        sqlite_autoincrement=True,
    )
    _index("journal_kind", "journal", ["kind", "id"])
    _table(
        "incidents",
        sa.Column("id", Big, sa.ForeignKey("journal.id"), primary_key=True),
        sa.Column("device", sa.Text, nullable=False),
        sa.Column("boot", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("cause", sa.Text, nullable=False),
        sa.Column("how", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.UniqueConstraint("device", "boot", "seq"),
    )
    _index("incidents_state", "incidents", ["state"])
    _table(
        "steps",
        sa.Column("id", Big, primary_key=True),
        sa.Column("incident", Big, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    _index("ix_steps_incident", "steps", ["incident"])
    _table(
        "deliveries",
        sa.Column("entry", Big, sa.ForeignKey("journal.id"), primary_key=True),
        sa.Column("parent", sa.Text, primary_key=True),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("stage", sa.Integer),
    )
    waiting = sa.text("stage IS NULL")
    _index(
        "deliveries_waiting",
        "deliveries",
        ["parent", "kind", "entry"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    _registry()
    _table(
        "commands",
        sa.Column("id", Big, primary_key=True),
        sa.Column("child", sa.Text, nullable=False),
        sa.Column("code", sa.Integer, nullable=False),
        sa.Column("about", sa.Text, nullable=False, server_default=""),
        sa.Column("detail", sa.LargeBinary),
        sa.Column("boot", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("made_at_ms", Big, nullable=False),
        sa.Column("expires_at_ms", Big, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("answered_at_ms", Big),
        sa.Column("answer", sa.Text, nullable=False, server_default=""),
        sa.UniqueConstraint("child", "boot", "seq"),
    )
    _index("ix_commands_child", "commands", ["child"])
    still = sa.text("state = 'waiting'")
    _index("commands_waiting", "commands", ["child", "code"], sqlite_where=still, postgresql_where=still)
    _table(
        "latest",
        sa.Column("child", sa.Text, primary_key=True),
        sa.Column("via", sa.Text),
        sa.Column("boot", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("heard_at_ms", Big, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("silent", sa.Integer, nullable=False),
    )
    _table("station", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))


def _registry() -> None:
    names = ("site", "site_name", "site_name_ur", "entrance", "entrance_name", "entrance_name_ur", "address", "phone")
    _table(
        "children",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("point", sa.LargeBinary),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in names),
    )
    _table(
        "enrolments",
        sa.Column("id", sa.Text, sa.ForeignKey("children.id"), primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("mac", sa.Text, nullable=False, server_default=""),
        sa.Column("by", sa.Text, nullable=False, server_default=""),
        sa.Column("replaces", sa.Text),
        sa.Column("enrolled_at_ms", Big),
        sa.Column("expires_at_ms", Big),
        sa.Column("retired_at_ms", Big),
        sa.Column("why", sa.Text, nullable=False, server_default=""),
    )
    _table(
        "tokens",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("made_at_ms", Big, nullable=False),
        sa.Column("expires_at_ms", Big, nullable=False),
        sa.Column("ended_at_ms", Big),
    )
    _table(
        "people",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("full_name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password", sa.Text, nullable=False),
    )


def _table(name: str, *columns: sa.schema.SchemaItem, **options: Any) -> None:
    op.create_table(name, *columns, if_not_exists=True, **options)


def _index(name: str, table: str, columns: list[str], **options: Any) -> None:
    op.create_index(name, table, columns, if_not_exists=True, **options)
