"""Everything that was turned away: counted by who and why, with a sample; what an event should tell of it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace

from gateway.desk import Refused

KEPT = 300  # who-and-why pairs; the one seen longest ago makes room
QUIET_MS = 60_000  # between two events about the same pair
BURST, REFILL_MS = 10, 60_000  # of events about whatever one child brought: so many at once, then one a minute
SAMPLE = 64  # bytes


class Refusals:
    """Counts refusals. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[tuple[str, str], Refused] = OrderedDict()
        self._told: dict[tuple[str, str], int] = {}
        self._allowed: OrderedDict[str, tuple[float, int]] = (
            OrderedDict()
        )  # by who brought it: how many events, and when
        self.total = 0

    def note(
        self, who: str, why: str, now_ms: int, sample: bytes | str = b"", count: int = 1, at_ms: int | None = None
    ) -> int | None:
        """Counts a refusal. Returns its count so far if that is worth an event now, else None.

        who: a sender, or "a sender through a child". now_ms: UTC. at_ms: monotonic; None: no event is to be made.
        """
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
            if at_ms is None or (told is not None and at_ms - told < QUIET_MS) or not self._may_tell(who, at_ms):
                return None
            self._told[pair] = at_ms
            return entry.count

    def _may_tell(self, who: str, at_ms: int) -> bool:
        """Whoever has one certificate can name ever other senders: that must not fill a journal."""
        bringer = who.rpartition(" through ")[2]
        allowed, since_ms = self._allowed.pop(bringer, (float(BURST), at_ms))
        allowed = min(BURST, allowed + (at_ms - since_ms) / REFILL_MS)
        self._allowed[bringer] = (allowed - 1 if allowed >= 1 else allowed, at_ms)
        if len(self._allowed) > KEPT:
            self._allowed.popitem(last=False)
        return allowed >= 1

    def newest(self) -> tuple[Refused, ...]:
        """All that is kept, newest first."""
        with self._lock:
            return tuple(replace(entry) for entry in reversed(self._pairs.values()))
