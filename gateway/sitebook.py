"""Sites in the station's tables: read, changed field by field, undone, and made again from the journal.

Every change happens within the caller's transaction and returns what the journal should tell of it: all that the tables
hold of sites is in those events.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from firmware import wire
from gateway import schema, sites
from gateway.enrolment import RegistryRefusedError, UnfitError, UnknownChildError
from gateway.sites import ENTRANCE, SiteChange
from gateway.vocabulary import SITE_AT, SITE_BY, SITE_CHANGE, SITE_FIELDS, SITE_OFFICIAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from gateway.sites import Position, Site

Told = tuple[int, str, object]
"""An event to journal: code, subject, detail."""

LARGEST = 600  # bytes of names and texts of fields in one event

_S, _E, _C, _H = schema.sites.c, schema.entrances.c, schema.contacts.c, schema.site_changes.c
_TEXTS = tuple(name for name in sites.FIELDS if name not in {"position", "contacts"})


class ChangedMeanwhileError(RegistryRefusedError):
    """Somebody else changed the site since the page was made that this change comes from."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a site, and when (UTC, ms). official: an administrator; a technician's word gives way to theirs."""

    name: str
    official: bool
    at_ms: int


# ---------------------------------------------------------------------------------------------- read


def every(connection: Connection, site: str | None = None) -> list[Site]:
    """Every site by id, or the one of that id."""

    def of(column: Any) -> Any:
        return column == site if site is not None else column.is_not(None)

    contacts: dict[str, list[sites.Contact]] = defaultdict(list)
    for row in connection.execute(select(schema.contacts).where(of(_C.site)).order_by(_C.site, _C.number)):
        contacts[row.site].append(sites.Contact(row.name, row.role, row.phone))
    entrances: dict[str, list[sites.Entrance]] = defaultdict(list)
    for row in connection.execute(select(schema.entrances).where(of(_E.site)).order_by(_E.site, _E.id)):
        entrances[row.site].append(sites.Entrance(row.id, row.name, row.name_ur, _position(row)))
    return [
        sites.Site(
            id=row.id,
            **{name: getattr(row, name) for name in _TEXTS},
            position=_position(row),
            contacts=tuple(contacts[row.id]),
            entrances=tuple(entrances[row.id]),
        )
        for row in connection.execute(select(schema.sites).where(of(_S.id)).order_by(_S.id))
    ]


def one(connection: Connection, site: str) -> Site | None:
    """The site of that id."""
    return next(iter(every(connection, site)), None)


def _position(row: Row[Any]) -> Position | None:
    return None if row.latitude is None or row.longitude is None else sites.Position(row.latitude, row.longitude)


def changes(connection: Connection, site: str) -> list[SiteChange]:
    """Every save of a site, newest first."""
    made: dict[int, SiteChange] = {}
    if not wire.is_id(site):
        return []
    rows = connection.execute(select(schema.site_changes).where(_H.site == site).order_by(_H.number.desc(), _H.field))
    for row in rows:
        before = made.get(row.number) or SiteChange(row.number, row.at_ms, row.by, ())
        fields = (*before.fields, (row.field, row.before, row.after))
        made[row.number] = SiteChange(row.number, row.at_ms, row.by, fields)
    return list(made.values())


def newest(connection: Connection, site: str) -> int:
    """The number of a site's last change; 0 before the first."""
    return int(connection.execute(select(func.max(_H.number)).where(_H.site == site)).scalar() or 0)


# -------------------------------------------------------------------------------------------- change


def change(
    connection: Connection, site: str, wanted: Mapping[str, str], author: Author, seen: int | None = None
) -> tuple[Site, list[Told]]:
    """Gives fields of a site, which may be new, other texts. What is the same already is no change.

    seen: the number of the last change that the author knew of; None: whichever. Raises UnfitError for a text that can't
    be kept, ChangedMeanwhileError, RegistryRefusedError for an entrance that still has a button.
    """
    good, wrong = sites.cleaned(wanted)
    if wrong:
        raise UnfitError("; ".join(f"{name}: {why}" for name, why in sorted(wrong.items())))
    known = one(connection, site)
    before = sites.fields_of(known) if known else {}
    last = newest(connection, site)
    if known is None and not good.get("name"):
        good["name"] = site
    news = {name: text for name, text in good.items() if text != before.get(name, "")}
    if seen is not None and seen != last and news:
        by = connection.execute(select(_H.by).where(_H.site == site, _H.number == last)).scalar()
        raise ChangedMeanwhileError(
            f"{site} was changed by {by} meanwhile: look at what they wrote, then enter yours again"
        )
    entrances = {name for name in {**before, **good} if name.startswith(ENTRANCE)}
    if len(entrances) > sites.MOST_ENTRANCES:
        raise UnfitError(f"a site has at most {sites.MOST_ENTRANCES} entrances: make two sites of it")
    for name in (name for name, text in news.items() if name.startswith(ENTRANCE) and not text):
        _check_empty(connection, site, name.removeprefix(ENTRANCE))
    told = _record(connection, site, news, author, last + 1)
    made = one(connection, site)
    assert made is not None
    return made, told


def _record(connection: Connection, site: str, news: Mapping[str, str], author: Author, number: int) -> list[Told]:
    about = {SITE_BY: author.name, SITE_CHANGE: number, SITE_OFFICIAL: int(author.official), SITE_AT: author.at_ms}
    details = [{**about, SITE_FIELDS: pieces} for pieces in _packed(news)]
    for detail in details:
        replay(connection, site, detail)
    return [(wire.SITE_CHANGED, site, detail) for detail in details]


def _check_empty(connection: Connection, site: str, entrance: str) -> None:
    child = schema.children.c
    there = connection.execute(select(child.id).where(child.site == site, child.entrance == entrance)).scalars().all()
    if there:
        raise RegistryRefusedError(
            f"{entrance} can't be removed: {', '.join(sorted(there))} is or was there, and its history stays with it"
        )


def _packed(news: Mapping[str, str]) -> list[list[list[str | int]]]:
    """Pieces of fields, as many together as an event can carry; the name first."""
    packed: list[list[list[str | int]]] = []
    room = 0
    for field in sorted(news, key=lambda field: (field != "name", field)):
        texts = _cut(news[field])
        for number, text in enumerate(texts):
            size = len(field.encode()) + len(text.encode()) + 10
            if size > room:
                packed.append([])
                room = LARGEST
            packed[-1].append([field, text, number, len(texts)])
            room -= size
    return packed


def _cut(text: str) -> list[str]:
    octets, pieces, at = text.encode(), [], 0
    while at < len(octets):
        end = min(at + LARGEST - 100, len(octets))
        while end < len(octets) and octets[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        pieces.append(octets[at:end].decode())
        at = end
    return pieces or [""]


def replay(connection: Connection, site: str, detail: Mapping[int, Any]) -> None:
    """Does to the tables what one event of the station's own journal tells: SITE_CHANGED with this subject and detail."""
    known = one(connection, site)
    before = sites.fields_of(known) if known else {}
    if known is None:
        connection.execute(insert(schema.sites).values(id=site, name=site))
    number = detail[SITE_CHANGE]
    about = {"at_ms": detail[SITE_AT], "by": detail[SITE_BY], "official": detail[SITE_OFFICIAL]}
    for field, text, piece, pieces in detail[SITE_FIELDS]:
        this = (_H.site == site) & (_H.number == number) & (_H.field == field)
        if piece == 0:
            row = {"number": number, "field": field, "before": before.get(field, ""), "after": text, **about}
            connection.execute(insert(schema.site_changes).values(site=site, **row))
        else:
            connection.execute(update(schema.site_changes).where(this).values(after=_H.after + text))
        if piece == pieces - 1:
            _write(connection, site, field, connection.execute(select(_H.after).where(this)).scalar_one())


def rebuild(connection: Connection, told: Iterable[tuple[str, Mapping[int, Any]]]) -> int:
    """Makes sites again from all the events that tell of their changes, in whichever order; how many sites.

    told: subject and detail of each. Sites that no event tells of stay as they are.
    """
    pieces = {
        (site, detail[SITE_CHANGE], piece[0] != "name", piece[0], piece[2]): {**detail, SITE_FIELDS: [piece]}
        for site, detail in told
        for piece in detail[SITE_FIELDS]
    }
    known = {key[0] for key in pieces}
    for site in known:
        _remove(connection, site)
    for key in sorted(pieces):
        replay(connection, key[0], pieces[key])
    return len(known)


def _remove(connection: Connection, site: str) -> None:
    connection.execute(delete(schema.site_changes).where(_H.site == site))
    connection.execute(delete(schema.contacts).where(_C.site == site))
    connection.execute(delete(schema.entrances).where(_E.site == site))
    connection.execute(delete(schema.sites).where(_S.id == site))


def _write(connection: Connection, site: str, field: str, text: str) -> None:
    if field in _TEXTS:
        connection.execute(update(schema.sites).where(_S.id == site).values({field: text}))
    elif field == "position":
        connection.execute(update(schema.sites).where(_S.id == site).values(_columns(sites.position_of(text))))
    elif field == "contacts":
        connection.execute(delete(schema.contacts).where(_C.site == site))
        for number, contact in enumerate(sites.contacts_of(text)):
            row = {"name": contact.name, "role": contact.role, "phone": contact.phone}
            connection.execute(insert(schema.contacts).values(site=site, number=number, **row))
    elif field.startswith(ENTRANCE):
        entrance = field.removeprefix(ENTRANCE)
        connection.execute(delete(schema.entrances).where(_E.site == site, _E.id == entrance))
        if text:
            made = sites.entrance_of(entrance, text)
            row = {"site": site, "id": entrance, "name": made.name, "name_ur": made.name_ur}
            connection.execute(insert(schema.entrances).values(row | _columns(made.position)))


def _columns(position: Position | None) -> dict[str, Any]:
    return {
        "latitude": position.latitude if position else None,
        "longitude": position.longitude if position else None,
    }


def undo(connection: Connection, site: str, number: int, author: Author) -> tuple[Site, list[Told]]:
    """Gives the fields that a change changed the texts that they had before it; a change like any other.

    Raises UnknownChildError if there is no such change, RegistryRefusedError if a field was changed again since.
    """
    history = changes(connection, site)
    undone = next((one for one in history if one.number == number), None)
    if undone is None:
        raise UnknownChildError(f"{site} has no change {number}")
    later = {field for change in history if change.number > number for field, _, _ in change.fields}
    known = one(connection, site)
    now = sites.fields_of(known) if known else {}
    again = sorted(field for field, _, after in undone.fields if field in later and now.get(field, "") != after)
    if again:
        raise RegistryRefusedError(f"{', '.join(again)} was changed again since: undo the later change first")
    if any(field == "name" and not before for field, before, _ in undone.fields):
        raise RegistryRefusedError(
            f"{site} began with this change, and a site needs its name: change its fields instead"
        )
    return change(connection, site, {field: before for field, before, _ in undone.fields}, author)


# ------------------------------------------------------------------------------ from an enrolment


def settle(connection: Connection, site: str, entrance: str, names: Mapping[str, str], author: Author) -> list[Told]:
    """Makes sure that the place of a child is in the book, with what its enrolment says of it.

    names: site_name, site_name_ur, entrance_name, entrance_name_ur, address, phone; empty: not said. A technician's
    laptop fills in what is missing and corrects what technicians said; it overwrites nothing that an administrator entered.
    """
    if not site:
        return []
    known = one(connection, site)
    now = sites.fields_of(known) if known else {}
    official = set(
        connection.execute(select(_H.field).where(_H.site == site, _H.official == 1).distinct()).scalars().all()
    )
    said = {
        "name": names.get("site_name", ""),
        "name_ur": names.get("site_name_ur", ""),
        "address": names.get("address", ""),
    }
    if phone := names.get("phone", ""):
        first, *rest = known.contacts if known and known.contacts else [sites.Contact("", "", "")]
        contacts = [(first.name, first.role, phone), *((one.name, one.role, one.phone) for one in rest)]
        if phone not in [one.phone for one in rest]:
            said["contacts"] = "\n".join("; ".join(contact) for contact in contacts)
    if entrance:
        field = f"{ENTRANCE}{entrance}"
        there = sites.entrance_of(entrance, now[field]) if field in now else sites.Entrance(entrance, entrance)
        name, name_ur = names.get("entrance_name") or there.name, names.get("entrance_name_ur") or there.name_ur
        said[field] = sites.entrance_text(name, name_ur, str(there.position or ""))
    fields = {
        name: text
        for name, text in said.items()
        if text
        and (author.official or name not in official or not now.get(name) or (name == "name" and now[name] == site))
    }
    return change(connection, site, fields, author)[1]


def declare(connection: Connection, station: str, at_ms: int) -> tuple[None, Sequence[Told]]:
    """Tells the journal of sites that it does not know: those of a database from before there were any."""
    told: list[Told] = []
    author = Author(station, official=False, at_ms=at_ms)
    for site in every(connection):
        if not newest(connection, site.id):
            _remove(connection, site.id)
            told += _record(connection, site.id, sites.fields_of(site), author, 1)
    return None, told
