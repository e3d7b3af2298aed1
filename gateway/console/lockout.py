"""Slows down guessing of passwords: who failed how often, and until when they have to wait.

Counted three ways: a name from one address (a person mistyping, or one guesser), an address over all names (one
guesser trying many), and a name over all addresses (many guessers). The last has the highest limit, so that a
stranger can't easily keep an operator out. Pure: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

FORGET_MS = 30 * 60_000
FIRST_WAIT_MS = 60_000
LONGEST_WAIT_MS = 15 * 60_000
LIMITS = {"both": 5, "address": 20, "name": 50}
MOST_KEPT = 10_000


@dataclass(slots=True)
class _Tries:
    failed: int = 0
    last_ms: int = 0
    until_ms: int = 0


class Lockout:
    """Failed sign-ins, by name and address. Bounded: the oldest are forgotten first."""

    def __init__(self) -> None:
        """Nobody has failed yet."""
        self._tries: OrderedDict[tuple[str, str, str], _Tries] = OrderedDict()

    def wait_ms(self, name: str, address: str, now_ms: int) -> int:
        """How long this name at this address still has to wait, in milliseconds; 0: it may try."""
        untils = [self._tries[key].until_ms for key in self._keys(name, address) if key in self._tries]
        return max(0, max(untils, default=0) - now_ms)

    def failed(self, name: str, address: str, now_ms: int) -> None:
        """A wrong name or password. From the limit on each failure doubles the wait, up to the longest."""
        for key in self._keys(name, address):
            tries = self._tries.pop(key, None)
            if tries is None or now_ms - tries.last_ms > FORGET_MS:
                tries = _Tries()
            self._tries[key] = tries
            tries.failed += 1
            tries.last_ms = now_ms
            over = tries.failed - LIMITS[key[0]]
            if over >= 0:
                tries.until_ms = now_ms + min(FIRST_WAIT_MS << min(over, 8), LONGEST_WAIT_MS)
        while len(self._tries) > MOST_KEPT:
            self._tries.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """The right password: this person mistyped. What others did under the name or the address stays counted."""
        self._tries.pop(("both", *self._normal(name, address)), None)

    def _keys(self, name: str, address: str) -> tuple[tuple[str, str, str], ...]:
        name, address = self._normal(name, address)
        return (("both", name, address), ("address", "", address), ("name", name, ""))

    @staticmethod
    def _normal(name: str, address: str) -> tuple[str, str]:
        return name.strip().casefold()[:64], address[:64]
