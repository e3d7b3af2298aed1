"""Everything that was turned away: counted by who and why, with a sample; what an event should tell of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from gateway.desk import Refused

KEPT = 300  # who-and-why pairs; the one seen longest ago makes room
QUIET_MS = 60_000  # between two events about the same pair
SAMPLE = 64  # bytes


class Refusals:
    """Counts refusals. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[tuple[str, str], Refused] = OrderedDict()
        self._told: dict[tuple[str, str], int] = {}
        self.total = 0

    def note(self, who: str, why: str, now_ms: int, sample: bytes | str = b"", count: int = 1) -> int | None:
        """Counts a refusal. Returns its count so far if that is worth an event now, else None."""
        text = sample if isinstance(sample, str) else sample[:SAMPLE].hex()
        pair = (who, why)
        with self._lock:
            self.total += count
            known = self._pairs.pop(pair, None)
            entry = Refused(who, why, count + (known.count if known else 0), now_ms, text)
            self._pairs[pair] = entry
            if len(self._pairs) > KEPT:
                old, _ = self._pairs.popitem(last=False)
                self._told.pop(old, None)
            told = self._told.get(pair)
            if told is not None and now_ms - told < QUIET_MS:
                return None
            self._told[pair] = now_ms
            return entry.count

    def newest(self) -> tuple[Refused, ...]:
        """All that is kept, newest first."""
        with self._lock:
            return tuple(replace(entry) for entry in reversed(self._pairs.values()))
