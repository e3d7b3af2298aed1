"""Chains the entries of the journal, those that are there included, and makes room for the chain's checkpoints."""

from __future__ import annotations

import hashlib
import logging

import sqlalchemy as sa
from alembic import op

from firmware import wire

revision = "0002"
down_revision = "0001"

logger = logging.getLogger(__name__)

Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BATCH = 5_000
HASHED = ("id", "source", "boot", "seq", "kind", "happened_at_ms", "exact", "received_at_ms", "envelope", "hops")


def upgrade() -> None:
    """Adds the column, fills it, adds the table."""
    op.add_column("journal", sa.Column("chain", sa.LargeBinary))
    op.create_table(
        "checkpoints",
        sa.Column("position", Big, primary_key=True, autoincrement=False),
        sa.Column("cut", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("chain", sa.LargeBinary, nullable=False),
        sa.Column("count", Big, nullable=False),
        sa.Column("at_ms", Big, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
    )
    _fill(op.get_bind())


def _fill(connection: sa.Connection) -> None:
    journal = sa.table("journal", *(sa.column(name) for name in (*HASHED, "chain")))
    columns = [journal.c[name] for name in HASHED]
    put = sa.update(journal).where(journal.c.id == sa.bindparam("at")).values(chain=sa.bindparam("link"))
    chain, at, done = bytes(32), 0, 0
    while rows := connection.execute(
        sa.select(*columns).where(journal.c.id > at).order_by(journal.c.id).limit(BATCH)
    ).all():
        links = []
        for row in rows:
            chain = hashlib.sha256(chain + wire.encode(list(row))).digest()
            links.append({"at": row.id, "link": chain})
        connection.execute(put, links)
        at, done = rows[-1].id, done + len(rows)
        logger.info("%d entries of the journal are chained", done)
