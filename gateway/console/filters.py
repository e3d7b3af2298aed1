"""How values look on a page: times in the station's zone, lengths of time, battery, signal, names of places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from gateway import dates
from gateway.console.words import Language, Words, bdi

if TYPE_CHECKING:
    from datetime import datetime, tzinfo

    from gateway.console.listing import Opened
    from gateway.desk import Child, Place
    from gateway.sites import Entrance, Site

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
GOOD_DBM, FAIR_DBM = -67, -78  # the usual planning figures for 2.4 GHz voice and for low-rate data
WEAK_BATTERY_MV = 3_500  # a lithium cell with little left


@dataclass(frozen=True, slots=True)
class Face:
    """Formats values for one language and time zone."""

    words: Words
    zone: tzinfo | None  # None: the zone of the machine

    def mark(self, opened: Opened) -> str:
        """What the title of every page begins with: "(2) (1 test) " for alarms and tests that nobody acknowledged."""
        alarms, tests = len(opened.raised), len(opened.raised_tests)
        told = f"({alarms}) " if alarms else ""
        return told + (self.words.raw("tests.in_title").format(n=tests) + " " if tests else "")

    def local(self, at_ms: int) -> datetime:
        """The local time of UTC milliseconds, or the nearest that a calendar has."""
        return dates.utc(at_ms).astimezone(self.zone)

    def clock(self, at_ms: int) -> str:
        """ "14:02:11"."""
        return f"{self.local(at_ms):%H:%M:%S}"

    def moment_text(self, at_ms: int, now_ms: int) -> str:
        """ "14:02:11" today, "2026-11-23 14:02:11" on another day."""
        at = self.local(at_ms)
        return f"{at:%H:%M:%S}" if at.date() == self.local(now_ms).date() else f"{at:%Y-%m-%d %H:%M:%S}"

    def moment(self, at_ms: int, now_ms: int) -> Markup:
        """A <time> element with the local time; the whole date, zone and milliseconds on hovering."""
        at = self.local(at_ms)
        whole = f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} {self.zone_name(at_ms)}"
        return Markup('<time dir="ltr" datetime="{}" title="{}">{}</time>').format(
            at.isoformat(timespec="milliseconds"), whole, self.moment_text(at_ms, now_ms)
        )

    def zone_name(self, at_ms: int) -> str:
        """ "PKT", or "UTC+05:00" where the zone has no name of its own."""
        at = self.local(at_ms)
        name = at.tzname() or ""
        return name if name.isalpha() else f"UTC{at:%z}"

    def stopwatch(self, length_ms: int) -> str:
        """ "0:42", "12:05", "1:02:33", "2 d 03:10": the age of an open alarm."""
        seconds = max(0, length_ms) // SECOND_MS
        days, rest = divmod(seconds, DAY_MS // SECOND_MS)
        hours, minutes, seconds = rest // 3600, rest // 60 % 60, rest % 60
        if days:
            return f"{self.words.raw('span.d').format(n=days)} {hours:02d}:{minutes:02d}"
        return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

    def span(self, length_ms: int) -> str:
        """ "4 s", "12 min", "3 h", "2 d": one unit, enough to judge by."""
        length = max(0, length_ms)
        for unit, size, below in (
            ("s", SECOND_MS, 2 * MINUTE_MS),
            ("min", MINUTE_MS, 2 * HOUR_MS),
            ("h", HOUR_MS, 2 * DAY_MS),
        ):
            if length < below:
                return self.words.raw(f"span.{unit}").format(n=length // size)
        return self.words.raw("span.d").format(n=length // DAY_MS)

    def ago(self, at_ms: int, now_ms: int) -> Markup:
        """ "4 s ago", kept up to date by the page's script."""
        text = self.words.raw("ago").format(age=self.span(now_ms - at_ms))
        return Markup('<span class="ago" data-ago="{}">{}</span>').format(at_ms, text)

    def age(self, at_ms: int, now_ms: int) -> Markup:
        """A stopwatch since `at_ms`, kept running by the page's script."""
        return Markup('<span dir="ltr" data-age="{}">{}</span>').format(at_ms, self.stopwatch(now_ms - at_ms))

    def site(self, place: Place) -> str:
        """The site's name in this language, or in English where nobody entered it."""
        urdu = self.words.language is Language.UR
        return (place.site_name_ur if urdu else "") or place.site_name or place.site

    def entrance(self, place: Place) -> str:
        """The entrance's name in this language, or in English where nobody entered it."""
        urdu = self.words.language is Language.UR
        return (place.entrance_name_ur if urdu else "") or place.entrance_name or place.entrance

    def site_name(self, site: Site) -> str:
        """The name of a site's record in this language, or in English where nobody entered it."""
        return (site.name_ur if self.words.language is Language.UR else "") or site.name

    def entrance_name(self, entrance: Entrance) -> str:
        """The name of an entrance's record in this language, or in English where nobody entered it."""
        return (entrance.name_ur if self.words.language is Language.UR else "") or entrance.name

    def address(self, of: Place | Site) -> str:
        """The address in this language, or in the other where nobody entered it."""
        both = (of.address_ur, of.address) if self.words.language is Language.UR else (of.address, of.address_ur)
        return both[0] or both[1]

    def where(self, place: Place | None, device: str) -> str:
        """ "Consulate, Main gate"; the device's id when its place is not entered."""
        if place is None:
            return device
        comma = "، " if self.words.language is Language.UR else ", "
        return comma.join(part for part in (self.site(place), self.entrance(place)) if part)

    def battery(self, millivolts: int) -> Markup:
        """ "3.9 V"."""
        return Markup('<span dir="ltr">{:.1f}&nbsp;V</span>').format(millivolts / 1000)

    def signal(self, dbm: int) -> Markup:
        """ "good (−60 dBm)", to the nearest 5, so that it does not flicker at every heartbeat."""
        return Markup('{} <span class="dim" dir="ltr">−{}&nbsp;dBm</span>').format(
            self.words.raw(f"signal.{signal_word(dbm)}"), abs(5 * round(dbm / 5))
        )

    def check_name(self, name: str) -> str:
        """The name of a health check in words; "parent hq" and "clock of gw-1" name what follows."""
        for group in ("parent", "clock of"):
            if name.startswith(f"{group} "):
                return self.words.plain(f"check.{group}", name=name.removeprefix(f"{group} "))
        return self.words.known("check", name)

    def sought_in(self, child: Child) -> str:
        """What the filter box searches in: everything that the row says about where and how a child is."""
        place = child.place
        names = (place.site, place.site_name, place.site_name_ur, place.entrance, place.entrance_name,
                 place.entrance_name_ur) if place else ()  # fmt: skip
        kind, link = self.words.known("kind", child.kind), self.words.known("link", child.link)
        return " ".join((child.id, *names, kind, link, child.link, child.why, child.firmware or "", child.via or ""))


def signal_word(dbm: int) -> str:
    """ "good", "fair" or "weak"."""
    return "good" if dbm >= GOOD_DBM else "fair" if dbm >= FAIR_DBM else "weak"


__all__ = ["WEAK_BATTERY_MV", "Face", "bdi", "signal_word"]
