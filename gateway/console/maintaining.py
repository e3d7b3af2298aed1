"""A child's maintenance, as an operator sets it on a page or a program through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.console.filters import MINUTE_MS
from gateway.console.parts import Console, Problem, Visitor
from gateway.desk import MaintenanceRefusedError
from gateway.maintenance import LONGEST_MS

if TYPE_CHECKING:
    from gateway.console.words import Words

LONGEST_MIN = LONGEST_MS // MINUTE_MS


def maintain(console: Console, visitor: Visitor, words: Words, child: str, until_ms: int | None) -> None:
    """Begins it, changes its end, or ends it (None), in the visitor's name. Raises Problem: 403, 404, 409."""
    if not visitor.may_step:
        raise Problem(403, words.plain("answer.viewer"))
    try:
        console.desk.maintain(child, until_ms, visitor.person.name)
    except KeyError:
        raise Problem(404, words.plain("error.404.text")) from None
    except MaintenanceRefusedError as refused:
        raise Problem(409, f"{refused}.") from None
