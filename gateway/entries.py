"""The registry's entries in the station's tables: read, and changed by the rules of gateway/enrolment.py.

Every change happens within the caller's transaction and returns what the journal should tell of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, select

from firmware import wire
from gateway import database, schema, sitebook
from gateway.enrolment import (
    Enrolment,
    Move,
    RegistryRefusedError,
    Standing,
    UnfitError,
    UnknownChildError,
    decide,
    moment,
    retired_on,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, RowMapping

    from gateway.enrolment import NewButton
    from gateway.sitebook import Told

LONGEST_DETAIL = 500  # bytes: an event is an envelope of 1,024 at most

_E, _C = schema.enrolments.c, schema.children.c
_LIFE = ("mac", "by", "replaces", "enrolled_at_ms", "expires_at_ms", "retired_at_ms", "why")
_CHILD = (
    "id", "kind", "certified_until_ms", "site", "site_name", "site_name_ur", "entrance", "entrance_name", "entrance_name_ur", "address", "phone",
)  # fmt: skip
_SITE, _ENTRANCE = schema.sites.c, schema.entrances.c
_FIRST = schema.contacts.alias("first_contact")
_PLACE = (
    func.coalesce(_SITE.name, "").label("site_name"),
    func.coalesce(_SITE.name_ur, "").label("site_name_ur"),
    func.coalesce(_ENTRANCE.name, "").label("entrance_name"),
    func.coalesce(_ENTRANCE.name_ur, "").label("entrance_name_ur"),
    func.coalesce(_SITE.address, "").label("address"),
    func.coalesce(_SITE.address_ur, "").label("address_ur"),
    func.coalesce(_FIRST.c.phone, "").label("phone"),
)
EVERYONE = select(schema.children, *_PLACE, _E.state, *(_E[name] for name in _LIFE)).select_from(
    schema.children.join(schema.enrolments, _E.id == _C.id, isouter=True)
    .join(schema.sites, _SITE.id == _C.site, isouter=True)
    .join(schema.entrances, (_ENTRANCE.site == _C.site) & (_ENTRANCE.id == _C.entrance), isouter=True)
    .join(_FIRST, (_FIRST.c.site == _C.site) & (_FIRST.c.number == 0), isouter=True)
)
"""Every child with its place and what is known of its enrolment; nulls where an administrator enrolled it from a shell."""


def standing(row: RowMapping) -> Standing:
    """Where a row of EVERYONE stands."""
    return Standing(row["state"] or Standing.ENROLLED)


def entry(connection: Connection, child: str) -> Enrolment | None:
    """The entry of a child; None: nobody of that id is here."""
    if not wire.is_id(child):
        return None
    row = connection.execute(EVERYONE.where(_C.id == child)).mappings().first()
    return _entry(row) if row else None


def entries(connection: Connection, site: str | None = None) -> list[Enrolment]:
    """Every entry, or those of a site."""
    if site is not None and not wire.is_id(site):
        return []
    asked = EVERYONE.order_by(_C.site, _C.id)
    rows = connection.execute(asked if site is None else asked.where(_C.site == site)).mappings()
    return [_entry(row) for row in rows]


def _entry(row: RowMapping) -> Enrolment:
    life: dict[str, Any] = {name: row[name] for name in _LIFE}
    life["mac"], life["by"], life["why"] = (row[name] or "" for name in ("mac", "by", "why"))
    point = row["point"].hex() if row["point"] else ""
    return Enrolment(**{name: row[name] for name in _CHILD}, point=point, state=standing(row), **life)


def enrol(
    connection: Connection,
    child: str,
    wanted: NewButton,
    point: bytes,
    *,
    by: str,
    now_ms: int,
    until_ms: int,
    certified_until_ms: int | None = None,
) -> tuple[tuple[Enrolment, bool], list[Told]]:
    """Makes a pending entry that ends at `until_ms`, or brings the one that is there up to date. True: it is new."""
    known = entry(connection, child)
    move = decide(known, wanted, point)
    if wanted.replaces is not None:
        replaced = entry(connection, wanted.replaces)
        if replaced is None or replaced.kind != "button":
            raise UnfitError(f"{wanted.replaces}, which {child} should replace, is no button of this registry")
    author = sitebook.Author(by, official=False, at_ms=now_ms)
    told: list[Told] = sitebook.settle(connection, wanted.site, wanted.entrance, wanted.names, author)
    certified = {"certified_until_ms": certified_until_ms}
    if known and move is Move.KEEP:
        connection.execute(schema.children.update().where(_C.id == child).values(certified))
        return (_there(connection, child), False), told
    where = {"site": wanted.site, "entrance": wanted.entrance}
    _put(connection, schema.children, {"id": child, "kind": "button", "point": point, **certified, **where})
    life = {"state": Standing.PENDING.value, "mac": wanted.mac, "by": by, "replaces": wanted.replaces}
    _put(connection, schema.enrolments, {"id": child, **life, "expires_at_ms": until_ms})
    made = _there(connection, child)
    if known and (known.point, known.by, known.mac, known.replaces) == (made.point, by, made.mac, made.replaces):
        return (made, False), told
    replacing = f"replaces {wanted.replaces}" if wanted.replaces else ""
    words = detail(f"by {by}", f"board {wanted.mac}" if wanted.mac else "", replacing, f"until {moment(until_ms)}")
    return (made, move is Move.ENTER), [*told, (wire.ENROLMENT_BEGUN, child, words)]


def confirm(connection: Connection, child: str, now_ms: int) -> tuple[None, list[Told]]:
    """A message of a pending child was believed: it is enrolled, and the one that it replaces is retired."""
    known = entry(connection, child)
    if known is None or known.state is not Standing.PENDING:
        return None, []
    connection.execute(
        schema.enrolments.update()
        .where(_E.id == child)
        .values(state=Standing.ENROLLED.value, enrolled_at_ms=now_ms, expires_at_ms=None)
    )
    told: list[Told] = [(wire.ENROLLED, child, detail(f"by {known.by}", f"board {known.mac}" if known.mac else ""))]
    replaced = entry(connection, known.replaces) if known.replaces else None
    if replaced and replaced.state is not Standing.RETIRED:
        _, more = retire(connection, replaced.id, f"replaced by {child}", by=known.by, now_ms=now_ms)
        told += more
    return None, told


def certified(connection: Connection, child: str, until_ms: int) -> tuple[None, list[Told]]:
    """Notes until when a child's certificate holds."""
    connection.execute(schema.children.update().where(_C.id == child).values(certified_until_ms=until_ms))
    return None, []


def retire(connection: Connection, child: str, reason: str, *, by: str, now_ms: int) -> tuple[Enrolment, list[Told]]:
    """Ends a button's entry, which stays, with its place. One that is retired already stays as it is."""
    known = entry(connection, child)
    if known is None:
        raise UnknownChildError(f"{child} is not in this registry")
    if known.kind != "button":
        raise RegistryRefusedError(
            f"{child} is a station, and a whole site's buttons speak through it: it is not retired here"
        )
    if known.state is Standing.RETIRED:
        return known, []
    life = {"state": Standing.RETIRED.value, "retired_at_ms": now_ms, "why": reason, "expires_at_ms": None}
    _put(connection, schema.enrolments, {"id": child, **life})
    return _there(connection, child), [(wire.RETIRED, child, detail(f"by {by}", reason))]


def expire(
    connection: Connection, now_ms: int, heard: Collection[str] = (), until_ms: int = 0
) -> tuple[Sequence[str], list[Told]]:
    """Forgets pending entries whose time is over; those of `heard` have a living board and get until `until_ms`."""
    over = (_E.state == Standing.PENDING.value) & (_E.expires_at_ms <= now_ms)
    connection.execute(schema.enrolments.update().where(over & _E.id.in_(list(heard))).values(expires_at_ms=until_ms))
    rows = connection.execute(select(_E.id, _E.by, _E.mac).where(over)).all()
    names = [row.id for row in rows]
    if names:
        connection.execute(delete(schema.enrolments).where(_E.id.in_(names)))
        connection.execute(delete(schema.children).where(_C.id.in_(names)))
    told: list[Told] = [
        (wire.ENROLMENT_EXPIRED, row.id, detail(f"begun by {row.by}", f"board {row.mac}" if row.mac else ""))
        for row in rows
    ]
    return names, told


def extend(connection: Connection, until_ms: int) -> tuple[None, list[Told]]:
    """Gives every pending entry until `until_ms` at least: nobody was heard while the station was down."""
    connection.execute(
        schema.enrolments.update()
        .where(_E.state == Standing.PENDING.value, _E.expires_at_ms < until_ms)
        .values(expires_at_ms=until_ms)
    )
    return None, []


def enter(
    connection: Connection, row: Mapping[str, Any], names: Mapping[str, str], *, by: str, now_ms: int
) -> tuple[None, list[Told]]:
    """An administrator's entry: enrolled at once. Raises RegistryRefusedError for an id that is retired.

    row: id, kind, point, site, entrance. names: of its place, as `sitebook.settle` takes them.
    """
    known = entry(connection, str(row["id"]))
    if known and known.state is Standing.RETIRED:
        raise RegistryRefusedError(f"{known.id} {retired_on(known.retired_at_ms)}, and ids are never used twice")
    here = connection.execute(select(schema.children.c.point).where(schema.children.c.id == row["id"])).scalar()
    if here is not None and here != row["point"]:
        raise RegistryRefusedError(
            f"{row['id']} is enrolled with another key, and ids are never used twice: give the new one a new id"
        )
    author = sitebook.Author(by, official=True, at_ms=now_ms)
    told = sitebook.settle(connection, row["site"], row["entrance"], names, author)
    _put(connection, schema.children, row)
    connection.execute(
        schema.enrolments.update().where(_E.id == row["id"]).values(state=Standing.ENROLLED.value, expires_at_ms=None)
    )
    return None, told


def _there(connection: Connection, child: str) -> Enrolment:
    found = entry(connection, child)
    assert found is not None
    return found


def _put(connection: Connection, table: Any, row: Mapping[str, Any]) -> None:
    database.upsert(connection, table, row, ["id"])


def detail(*parts: str) -> str:
    """Particulars of an event, as long as an event may carry."""
    return "; ".join(part for part in parts if part).encode()[:LONGEST_DETAIL].decode(errors="ignore")
