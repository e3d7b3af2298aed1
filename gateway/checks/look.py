"""A finding, and what every check is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gateway import sealing, tomlfile
from gateway.keys import KeyFileError

if TYPE_CHECKING:
    from datetime import datetime

    from gateway.settings import Settings

Grade = Literal["good", "warning", "mistake"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, how it is, and what to do about it."""

    grade: Grade
    what: str
    text: str
    line: int | None = None  # of the settings


@dataclass(frozen=True, slots=True)
class Look:
    """A station's settings, with the text of their file, at `now` (UTC)."""

    settings: Settings
    text: str
    now: datetime

    @property
    def passphrase(self) -> str | None:
        """What the station's keys are sealed under; None: nothing is set, or it can't be used."""
        try:
            return sealing.passphrase(self.settings)
        except KeyFileError:
            return None

    def say(self, grade: Grade, what: str, text: str, *where: int | str) -> Finding:
        """A finding about the key `where` of the settings, if it is about one."""
        return Finding(grade, what, text, tomlfile.line_of(self.text, where) if where else None)
