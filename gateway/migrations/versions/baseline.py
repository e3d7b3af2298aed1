"""The tables as they were when revisions began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes every table."""
    op.create_table(
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
    op.create_index("journal_kind", "journal", ["kind", "id"])
    op.create_table(
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
    op.create_index("incidents_state", "incidents", ["state"])
    op.create_table(
        "steps",
        sa.Column("id", Big, primary_key=True),
        sa.Column("incident", Big, sa.ForeignKey("incidents.id"), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
    )
    op.create_index("ix_steps_incident", "steps", ["incident"])
    op.create_table(
        "deliveries",
        sa.Column("entry", Big, sa.ForeignKey("journal.id"), primary_key=True),
        sa.Column("parent", sa.Text, primary_key=True),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("stage", sa.Integer),
    )
    waiting = sa.text("stage IS NULL")
    op.create_index(
        "deliveries_waiting",
        "deliveries",
        ["parent", "kind", "entry"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    _registry()
    op.create_table(
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
    op.create_index("ix_commands_child", "commands", ["child"])
    still = sa.text("state = 'waiting'")
    op.create_index("commands_waiting", "commands", ["child", "code"], sqlite_where=still, postgresql_where=still)
    op.create_table(
        "latest",
        sa.Column("child", sa.Text, primary_key=True),
        sa.Column("via", sa.Text),
        sa.Column("boot", Big, nullable=False),
        sa.Column("seq", Big, nullable=False),
        sa.Column("heard_at_ms", Big, nullable=False),
        sa.Column("message", sa.LargeBinary, nullable=False),
        sa.Column("silent", sa.Integer, nullable=False),
    )
    op.create_table("station", sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))


def _registry() -> None:
    names = ("site", "site_name", "site_name_ur", "entrance", "entrance_name", "entrance_name_ur", "address", "phone")
    op.create_table(
        "children",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("point", sa.LargeBinary),
        *(sa.Column(name, sa.Text, nullable=False, server_default="") for name in names),
    )
    op.create_table(
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
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("made_at_ms", Big, nullable=False),
        sa.Column("expires_at_ms", Big, nullable=False),
        sa.Column("ended_at_ms", Big),
    )
    op.create_table(
        "people",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("full_name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("password", sa.Text, nullable=False),
    )
