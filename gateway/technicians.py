"""Technicians' tokens: 256 random bits that open the registry for some days. Only their hashes are kept."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from gateway import schema
from gateway.enrolment import TokenRefusedError, moment

if TYPE_CHECKING:
    from sqlalchemy import Connection

DAY_MS = 86_400_000
_T = schema.tokens.c


def give(connection: Connection, name: str, *, days: int, now_ms: int) -> str:
    """A new token for `name`, valid for `days`; those that they had end. It is shown once and kept nowhere."""
    take_back(connection, name, now_ms)
    token = secrets.token_hex(32)
    connection.execute(
        insert(schema.tokens).values(
            hash=_hash(token), name=name, made_at_ms=now_ms, expires_at_ms=now_ms + days * DAY_MS
        )
    )
    return token


def take_back(connection: Connection, name: str, now_ms: int) -> int:
    """Ends every token of `name`; how many there were to end."""
    return connection.execute(
        schema.tokens.update()
        .where(_T.name == name, _T.ended_at_ms.is_(None), _T.expires_at_ms > now_ms)
        .values(ended_at_ms=now_ms)
    ).rowcount


def holder(connection: Connection, token: str, now_ms: int) -> str:
    """Whose token this is. Raises TokenRefusedError, which says what became of it."""
    if not token:
        raise TokenRefusedError("this needs a technician's token, in the header Authorization: Bearer …")
    mine = _hash(token)
    found = None
    for row in connection.execute(select(schema.tokens)):  # every row, so that the time says nothing about any
        if hmac.compare_digest(row.hash, mine):
            found = row
    if found is None:
        raise TokenRefusedError("this token is unknown here: it was mistyped, or is another station's")
    if found.ended_at_ms is not None:
        raise TokenRefusedError(
            f"this token of {found.name} ended on {moment(found.ended_at_ms)}: it was taken back, or a newer one was made"
        )
    if now_ms >= found.expires_at_ms:
        raise TokenRefusedError(f"this token of {found.name} expired on {moment(found.expires_at_ms)}")
    return str(found.name)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
