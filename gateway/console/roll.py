"""A list whose changes can be told: what a page that saw version 17 needs to be up to date.

There is no queue for anybody: a page that is slow, or was away, gets what is true now and skips what it missed. So a
slow page costs no memory, however long it sleeps. Pure; used by one thread at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")
NOTHING = -1
"""The version that a page has seen when it has seen none."""


@dataclass(frozen=True, slots=True)
class Changes(Generic[Item]):
    """What differs between two versions. `order` is every key in order, or None if it is as it was."""

    order: tuple[str, ...] | None
    items: dict[str, Item]

    def __bool__(self) -> bool:
        """Whether there is anything to tell."""
        return self.order is not None or bool(self.items)


class Roll(Generic[Item]):
    """Keyed items in an order, each with the version at which it last changed."""

    def __init__(self) -> None:
        """Empty, at version 0."""
        self.version = 0
        self.items: dict[str, Item] = {}
        self._changed: dict[str, int] = {}
        self._order_changed = 0  # so that a page which saw nothing is told also of an empty list

    def update(self, items: Iterable[tuple[str, Item]]) -> bool:
        """Takes the list as it is now; True if anything differs from before."""
        new = dict(items)
        version = self.version + 1
        changed = {key: version for key, item in new.items() if key not in self.items or self.items[key] != item}
        reordered = list(new) != list(self.items)
        if not changed and not reordered:
            return False
        self._changed = {key: changed.get(key) or self._changed[key] for key in new}
        if reordered:
            self._order_changed = version
        self.items, self.version = new, version
        return True

    def since(self, version: int) -> Changes[Item]:
        """What changed after `version`; NOTHING gives everything, also of an empty list."""
        order = tuple(self.items) if self._order_changed > version else None
        return Changes(order, {key: item for key, item in self.items.items() if self._changed[key] > version})
