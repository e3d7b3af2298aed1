"""How the tests find things on a page, and what they take for late."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = {"desk": (1280, 800), "wall": (1920, 1080), "phone": (390, 844)}


def card(number: int, state: str = "") -> str:
    return f'.card[data-incident="{number}"]' + (f'[data-state="{state}"]' if state else "")


@contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    assert took < seconds, f"{what} took {took:.2f} s"
