"""A site as headquarters must know it when a button there is pressed: where it is, whom to call, what units must know.

A site is held as a record, and changed as *fields*: each has a name and a text that people can read ("contacts" has a
line for each, "entrance main-gate" is an entrance). So one change is told, journaled, undone and typed the same way
wherever it comes from. Pure; the tables are read and written in gateway/sitebook.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from firmware.wire import is_id
from gateway import tomlfile
from gateway.tomlfile import Id, Part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

MOST_CONTACTS = 20
MOST_ENTRANCES = 200
ENTRANCE = "entrance "
_LENGTHS = {
    "name": 120,
    "name_ur": 120,
    "address": 300,
    "address_ur": 300,
    "plan": 2_000,
    "plan_ur": 2_000,
    "notes": 2_000,
}
_LINES = frozenset({"plan", "plan_ur", "notes"})
_DEGREES = re.compile(r"([+-]?\d{1,3}(?:\.\d+)?)\s*°?\s*([NSEW]?)", re.IGNORECASE)
_PHONE = re.compile(r"([+(]?\d[\d ()/.-]{1,40}?)(?:\s*(?:ext\.?|x)\s*(\d{1,6}))?", re.IGNORECASE)
_PLACES = 5  # decimals of a degree: a metre


class SiteError(Exception):
    """What was entered for a site can't be kept; the text says what to enter instead."""


@dataclass(frozen=True, slots=True)
class Position:
    """A point in WGS 84. Degrees, north and east positive."""

    latitude: float
    longitude: float

    def __str__(self) -> str:
        """As it is entered: "24.81380, 67.03000"."""
        return f"{self.latitude:.{_PLACES}f}, {self.longitude:.{_PLACES}f}"

    @property
    def spoken(self) -> str:
        """As it is read out: "24.81380° N, 67.03000° E"."""
        north, east = "S" if self.latitude < 0 else "N", "W" if self.longitude < 0 else "E"
        return f"{abs(self.latitude):.{_PLACES}f}° {north}, {abs(self.longitude):.{_PLACES}f}° {east}"

    @property
    def uri(self) -> str:
        """A geo: link (RFC 5870), which the despatcher's own map program opens."""
        return f"geo:{self.latitude:.{_PLACES}f},{self.longitude:.{_PLACES}f}"


@dataclass(frozen=True, slots=True)
class Contact:
    """Whom to call. Name and role may be empty where only a number is known."""

    name: str
    role: str
    phone: str


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a button can be."""

    id: str
    name: str
    name_ur: str = ""
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A site. Texts are in English and in Urdu (empty where nobody entered one); contacts in the order to call them."""

    id: str
    name: str
    name_ur: str = ""
    address: str = ""
    address_ur: str = ""
    position: Position | None = None
    contacts: tuple[Contact, ...] = ()
    plan: str = ""  # what arriving units must know
    plan_ur: str = ""
    notes: str = ""
    entrances: tuple[Entrance, ...] = ()


@dataclass(frozen=True, slots=True)
class SiteChange:
    """One save of a site: who changed what. fields: (field, text before, text after)."""

    number: int  # within the site, from 1
    at_ms: int  # UTC
    by: str
    fields: tuple[tuple[str, str, str], ...]


FIELDS = ("name", "name_ur", "address", "address_ur", "position", "contacts", "plan", "plan_ur", "notes")
"""Every field but the entrances."""


def fields_of(site: Site) -> dict[str, str]:
    """Every field that is not empty, as text."""
    made = {name: getattr(site, name) for name in _LENGTHS}
    made["position"] = str(site.position or "")
    made["contacts"] = "\n".join(_joined(one.name, one.role, one.phone) for one in site.contacts)
    for one in site.entrances:
        made[f"{ENTRANCE}{one.id}"] = entrance_text(one.name, one.name_ur, str(one.position or ""))
    return {name: text for name, text in made.items() if text}


def site_of(site: str, fields: Mapping[str, str]) -> Site:
    """The record of cleaned fields."""
    entrances = [
        entrance_of(name.removeprefix(ENTRANCE), text) for name, text in fields.items() if name.startswith(ENTRANCE)
    ]
    return Site(
        id=site,
        **{name: fields.get(name, "") for name in _LENGTHS},
        position=position_of(fields.get("position", "")),
        contacts=contacts_of(fields.get("contacts", "")),
        entrances=tuple(sorted(entrances, key=lambda one: one.id)),
    )


def entrance_text(name: str, name_ur: str, position: str) -> str:
    """The text of an entrance's field."""
    return _joined(name, name_ur, position)


def entrance_of(entrance: str, text: str) -> Entrance:
    """The entrance that a cleaned field tells of."""
    name, name_ur, position = _parts(text, 3)
    return Entrance(entrance, name, name_ur, position_of(position))


def contacts_of(text: str) -> tuple[Contact, ...]:
    """The contacts that a cleaned field tells of."""
    return tuple(Contact(*_parts(line, 3)) for line in text.splitlines())


def position_of(text: str) -> Position | None:
    """The position that a cleaned field tells of."""
    if not text:
        return None
    latitude, longitude = text.split(",")
    return Position(float(latitude), float(longitude))


def _joined(*parts: str) -> str:
    return "; ".join(parts)


def _parts(line: str, count: int) -> list[str]:
    parts = [part.strip() for part in line.split(";")]
    return [*parts, *[""] * (count - len(parts))][:count]


# ---------------------------------------------------------------------------------- what people enter


def clean(field: str, text: str) -> str:
    """The text of a field as it is kept. Raises SiteError, which says what to enter instead."""
    text = "".join(c if c.isprintable() or c == "\n" else " " for c in text.replace("\r\n", "\n")).strip()
    if field in _LENGTHS:
        if field not in _LINES:
            text = " ".join(text.split())
        if len(text) > _LENGTHS[field]:
            raise SiteError(f"has {len(text)} characters, and at most {_LENGTHS[field]} are kept: shorten it")
        if field == "name" and not text:
            raise SiteError("a site needs a name: operators read it when a button is pressed")
        return text
    if field == "position":
        return _clean_position(text)
    if field == "contacts":
        return _clean_contacts(text)
    if field.startswith(ENTRANCE):
        return _clean_entrance(field.removeprefix(ENTRANCE), text)
    known = ", ".join((*FIELDS, f"{ENTRANCE}ID"))
    raise SiteError(f"a site has no field {field!r} (there are: {known})")


def _clean_position(text: str) -> str:
    if not text:
        return ""
    advice = 'write latitude and longitude in degrees with a comma between, such as "24.81380, 67.03000"'
    numbers = []
    for part, (signs, limit) in zip(text.split(","), (("NS", 90), ("EW", 180)), strict=False):
        found = _DEGREES.fullmatch(part.strip())
        if not found or (found[2] and found[2].upper() not in signs):
            raise SiteError(f"{text!r} is no position: {advice}")
        number = float(found[1]) * (-1 if found[2].upper() in {"S", "W"} else 1)
        if abs(number) > limit:
            raise SiteError(f"{part.strip()!r} is more than {limit} degrees: {advice}, latitude first")
        numbers.append(number)
    if len(numbers) != 2 or text.count(",") != 1:
        raise SiteError(f"{text!r} is no position: {advice}")
    return str(Position(*numbers))


def _clean_contacts(text: str) -> str:
    lines = []
    for number, line in enumerate((line for line in text.split("\n") if line.strip(" ;")), 1):
        if line.count(";") > 2:
            raise SiteError(f'contact {number} has more than "name; role; phone": leave out the further semicolons')
        name, role, phone = _parts(line, 3)
        if not role and not phone and _PHONE.fullmatch(name):
            name, phone = "", name
        if not _PHONE.fullmatch(phone):
            what = f"{phone!r} is no telephone number" if phone else "has no telephone number"
            raise SiteError(f'contact {number} ({name or role}): {what}. Write "name; role; phone", such as '
                            '"Rabia Aslam; head of security; 021 5550 123"')  # fmt: skip
        for part in (name, role):
            if len(part) > _LENGTHS["name"]:
                raise SiteError(
                    f"contact {number}: {part[:20]}… is longer than {_LENGTHS['name']} characters: shorten it"
                )
        lines.append(_joined(name, role, phone))
    if len(lines) > MOST_CONTACTS:
        raise SiteError(
            f"there are {len(lines)} contacts, and at most {MOST_CONTACTS} are kept: leave the last ones out"
        )
    return "\n".join(lines)


def _clean_entrance(entrance: str, text: str) -> str:
    if not is_id(entrance):
        raise SiteError(f"{entrance!r} can't be an entrance's id: use 1 to 64 of a-z, 0-9, '-' and '.'")
    if not text.strip(" ;"):
        return ""
    if text.count(";") > 2:
        raise SiteError('has more than "name; name in Urdu; position": leave out the further semicolons')
    name, name_ur, position = _parts(" ".join(text.split()), 3)
    if not name:
        raise SiteError("an entrance needs a name: operators read it when its button is pressed")
    if longest := max((name, name_ur), key=len)[_LENGTHS["name"] :]:
        raise SiteError(f"its name is longer than {_LENGTHS['name']} characters by {len(longest)}: shorten it")
    return entrance_text(name, name_ur, _clean_position(position))


def cleaned(fields: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The fields as they are kept; and of those that can't be kept, what is wrong with each."""
    good, wrong = {}, {}
    for name, text in fields.items():
        try:
            good[name] = clean(name, text)
        except SiteError as error:
            wrong[name] = str(error)
    return good, wrong


def phone_uri(phone: str) -> str:
    """A tel: link (RFC 3966)."""
    found = _PHONE.fullmatch(phone)
    number, extension = (found[1], found[2]) if found else (phone, None)
    digits = "".join(c for c in number if c in "+0123456789")
    return f"tel:{digits};ext={extension}" if extension else f"tel:{digits}"


# ------------------------------------------------------------------------------------------- the file


def _checked(field: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        try:
            return clean(field, text)
        except SiteError as error:
            raise ValueError(str(error)) from error

    return check


def _unbroken(text: Any) -> Any:
    if isinstance(text, str) and (";" in text or "\n" in text):
        message = "can't have a semicolon or a line break in it"
        raise ValueError(message)
    return text


Piece = Annotated[str, BeforeValidator(_unbroken)]


class ContactEntry(Part):
    """A [[sites.contacts]] table."""

    phone: Piece
    name: Piece = ""
    role: Piece = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _checked("contacts")(self.text)
        return self

    @property
    def text(self) -> str:
        """Its line."""
        return _joined(self.name, self.role, self.phone)


class EntranceEntry(Part):
    """A [[sites.entrances]] table."""

    id: Id
    name: Piece
    name_ur: Piece = ""
    position: Annotated[str, AfterValidator(_checked("position"))] = ""


class SiteEntry(Part):
    """A [[sites]] table of a file to import. What it does not say stays as it is."""

    id: Id
    name: Annotated[str, AfterValidator(_checked("name"))] = ""
    name_ur: Annotated[str, AfterValidator(_checked("name_ur"))] = ""
    address: Annotated[str, AfterValidator(_checked("address"))] = ""
    address_ur: Annotated[str, AfterValidator(_checked("address_ur"))] = ""
    position: Annotated[str, AfterValidator(_checked("position"))] = ""
    plan: Annotated[str, AfterValidator(_checked("plan"))] = ""
    plan_ur: Annotated[str, AfterValidator(_checked("plan_ur"))] = ""
    notes: Annotated[str, AfterValidator(_checked("notes"))] = ""
    contacts: Annotated[tuple[ContactEntry, ...], Field(max_length=MOST_CONTACTS)] = ()
    entrances: Annotated[tuple[EntranceEntry, ...], Field(max_length=MOST_ENTRANCES)] = ()

    @property
    def fields(self) -> dict[str, str]:
        """What the table says, as fields."""
        said = {
            name: str(getattr(self, name)) for name in self.model_fields_set if name in FIELDS and name != "contacts"
        }
        if "contacts" in self.model_fields_set:
            said["contacts"] = "\n".join(one.text for one in self.contacts)
        for one in self.entrances:
            said[f"{ENTRANCE}{one.id}"] = entrance_text(one.name, one.name_ur, one.position)
        return said


class SitesFile(Part):
    """A file for `tocsin site import`."""

    sites: Annotated[tuple[SiteEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        ids = [site.id for site in self.sites]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            message = f"{', '.join(twice)} is there twice: make one table of the two"
            raise ValueError(message)
        return self


def load(path: Path) -> dict[str, dict[str, str]]:
    """The fields of each site of a file. Raises gateway.tomlfile.SettingsError, a line for each mistake."""
    return {site.id: site.fields for site in tomlfile.load(path, SitesFile).sites}
