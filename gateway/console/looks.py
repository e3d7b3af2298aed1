"""Turns what the desk knows into HTML: whole pages, and the pieces of them that are sent to open pages.

Everything is escaped by default; names in a template that is not filled in is an error, not an empty place.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gateway.console.filters import WEAK_BATTERY_MV, Face, signal_word
from gateway.console.listing import WELL
from gateway.console.words import IN, Language, bdi
from gateway.desk import NEXT_STEPS, Link, Outcome, State
from gateway.sites import phone_uri

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from datetime import tzinfo

HERE = Path(__file__).parent
STATIC = HERE / "static"
TEMPLATES = HERE / "templates"
KEPT = 4_096  # pieces


class Looks:
    """The templates, in both languages. Used by many threads."""

    def __init__(self, zone: tzinfo | None) -> None:
        """zone: in which times are shown; None: the machine's own."""
        self.faces: Mapping[Language, Face] = {language: Face(IN[language], zone) for language in Language}
        self._pieces: OrderedDict[Hashable, str] = OrderedDict()
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            bdi=bdi,
            static=_addresses(),
            next_steps=NEXT_STEPS,
            outcomes=tuple(Outcome),
            State=State,
            Link=Link,
            well=WELL,
            signal_word=signal_word,
            phone_uri=phone_uri,
            weak_battery_mv=WEAK_BATTERY_MV,
            key_of={State.ACKNOWLEDGED: "A", State.RESPONDING: "R", State.ON_SCENE: "O", State.CLOSED: "C"},
        )

    def render(self, template: str, language: Language, **values: object) -> str:
        """A page or a piece of one."""
        face = self.faces[language]
        words = face.words
        return self._environment.get_template(template).render(
            face=face, language=language, t=words.html, plain=words.plain, known=words.known, **values
        )

    def piece(self, template: str, language: Language, now_ms: int, *of: Hashable, **values: object) -> str:
        """A piece that depends on nothing but `of` and the day; kept, so that it is rendered once for all pages."""
        key = (template, language, self.faces[language].local(now_ms).date(), *of)
        html = self._pieces.get(key)
        if html is None:
            html = self.render(template, language, now_ms=now_ms, **values)
            self._pieces[key] = html
            while len(self._pieces) > KEPT:
                self._pieces.popitem(last=False)
        return html


def _addresses() -> dict[str, Markup]:
    """Each static file's address, which changes with its contents: an upgrade never meets an old script."""
    return {
        path.name: Markup("/static/{}?v={}").format(path.name, hashlib.sha256(path.read_bytes()).hexdigest()[:12])
        for path in sorted(STATIC.iterdir())
    }
