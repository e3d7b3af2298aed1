"""UTC milliseconds as dates, also those that others sent: any whole number may come, and no calendar has them all."""

from __future__ import annotations

from datetime import UTC, datetime

FIRST_MS = -62_135_424_000_000  # a day inside of what `datetime` can hold, so that every zone has it
LAST_MS = 253_402_128_000_000  # 9999-12-30


def has(at_ms: int) -> bool:
    """Whether a calendar has this moment."""
    return FIRST_MS <= at_ms <= LAST_MS


def utc(at_ms: int) -> datetime:
    """The moment, or the nearest that a calendar has."""
    return datetime.fromtimestamp(max(FIRST_MS, min(at_ms, LAST_MS)) / 1000, UTC)


def text(at_ms: int) -> str:
    """As "2026-11-24T14:05:00.000+00:00"; the number itself where no calendar has it."""
    return utc(at_ms).isoformat(timespec="milliseconds") if has(at_ms) else str(at_ms)
