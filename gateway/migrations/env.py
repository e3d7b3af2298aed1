"""What Alembic runs: the migrations go into the transaction that the caller began, so that all are there or none."""

from __future__ import annotations

from alembic import context

from gateway import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
with context.begin_transaction():
    context.run_migrations()
