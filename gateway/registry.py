"""Who is known here: children with their keys and places, and the people who may sign in.

The tables are written by technicians through the registrar, and by `tocsin enrol` and `tocsin person`, other processes:
`refresh` notices whoever it was.
"""

from __future__ import annotations

import functools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select

from gateway import database, enrolment, entries, keys, schema, sitebook
from gateway.desk import Person, Place
from gateway.enrolment import Standing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from sqlalchemy import Engine

    from gateway.sites import Site

BY_HAND_S = 60.0  # what somebody writes with the database's own tools is noticed so late

_HASHER = PasswordHasher()


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A child of the registry. key: the MAC key shared with it; None where this station shares none."""

    id: str
    kind: str
    place: Place | None
    key: bytes | None
    standing: Standing
    expires_at_ms: int | None  # of a pending one
    certified_until_ms: int | None
    retired_at_ms: int | None  # of one that is believed no more; its place is that of its history
    vouches: bool = False  # a station that is believed for those whom this one does not know


class Registry:
    """The registry's tables, in memory. message_key: headquarters' private message key; None at a site."""

    def __init__(self, readers: Engine, station: str, message_key: EllipticCurvePrivateKey | None) -> None:
        self._readers = readers
        self._station = station
        self._message_key = message_key
        self._lock = threading.Lock()
        self._points: dict[str, tuple[bytes, bytes]] = {}
        self._children: dict[str, Enrolled] = {}
        self._sites: dict[str, Site] = {}
        self._version: str | None = None
        self._written: str | None = None
        self._read_at = 0.0
        self.reads = 0  # how often the tables were read, whoever asked for it
        self._watch = readers.connect()
        self.refresh()

    def refresh(self) -> bool:
        """Reads the tables again if any other connection wrote to them. True: something was read."""
        with self._lock:
            try:
                version = database.version(self._watch)
            finally:
                self._watch.rollback()
            if version == self._version:
                return False
            with self._readers.connect() as connection:
                written = database.kept(connection, schema.REGISTRY_WRITTEN)
                if self._version and written == self._written and time.monotonic() - self._read_at < BY_HAND_S:
                    self._version = version
                    return False
                rows = connection.execute(entries.EVERYONE).mappings().all()
                sites = {site.id: site for site in sitebook.every(connection)}
            self._version, self._written, self._read_at = version, written, time.monotonic()
            children = {}
            for row in rows:
                place = None
                if row["site"]:
                    place = Place(
                        site=row["site"],
                        site_name=row["site_name"] or row["site"],
                        site_name_ur=row["site_name_ur"],
                        entrance=row["entrance"],
                        entrance_name=row["entrance_name"] or row["entrance"],
                        entrance_name_ur=row["entrance_name_ur"],
                        address=row["address"],
                        phone=row["phone"],
                        address_ur=row["address_ur"],
                    )
                children[row["id"]] = Enrolled(
                    id=row["id"],
                    kind=row["kind"],
                    place=place,
                    key=self._key(row["id"], row["point"]),
                    standing=entries.standing(row),
                    expires_at_ms=row["expires_at_ms"],
                    certified_until_ms=row["certified_until_ms"],
                    retired_at_ms=row["retired_at_ms"],
                    vouches=bool(row["vouches"]),
                )
            self._children, self._sites = children, sites
            self.reads += 1
            return True

    def _key(self, child: str, point: bytes | None) -> bytes | None:
        if point is None or self._message_key is None:
            return None
        known = self._points.get(child)
        if known is None or known[0] != point:
            known = (point, keys.between(self._message_key, point, child=child, parent=self._station))
            self._points[child] = known
        return known[1]

    def children(self) -> dict[str, Enrolled]:
        """Every child of the registry, with those that are retired. Not to be changed."""
        return self._children

    def working(self) -> dict[str, Enrolled]:
        """Every child that is believed."""
        return {name: child for name, child in self._children.items() if child.standing is not Standing.RETIRED}

    @property
    def message_point(self) -> bytes | None:
        """Headquarters' public message key, 65 bytes; None at a site."""
        return keys.point(self._message_key.public_key()) if self._message_key else None

    def key_of(self, child: str) -> bytes | None:
        """The key that a child's messages must be sealed with; None if it isn't enrolled or this station shares none."""
        known = self._children.get(child)
        return known.key if known and known.standing is not Standing.RETIRED else None

    def receipt_key_of(self, child: str) -> bytes | None:
        """The key that receipts for a child are sealed with: a retired one is still told what becomes of its alarms."""
        known = self._children.get(child)
        return known.key if known else None

    def absence(self, child: str) -> str:
        """Why a child has no key here, in words."""
        known = self._children.get(child)
        return enrolment.absence(known.retired_at_ms if known else None)

    def is_retired(self, child: str) -> bool:
        """Whether a child was retired."""
        known = self._children.get(child)
        return known is not None and known.standing is Standing.RETIRED

    def is_pending(self, child: str) -> bool:
        """Whether a child's first message will make it enrolled."""
        known = self._children.get(child)
        return known is not None and known.standing is Standing.PENDING

    def overdue(self, now_ms: int) -> bool:
        """Whether any pending entry's time is over at `now_ms`, UTC."""
        return any(
            child.expires_at_ms is not None and child.expires_at_ms <= now_ms for child in self._children.values()
        )

    def is_station(self, child: str) -> bool:
        """Whether a child is enrolled here as a station."""
        known = self._children.get(child)
        return known is not None and known.kind == "station"

    def is_vouched(self, source: str, station: str) -> bool:
        """Whether `station` is believed for `source`: it is enrolled as vouching, and `source` is nobody known here."""
        known = self._children.get(station)
        return known is not None and known.vouches and known.key is not None and source not in self._children

    def place_of(self, child: str) -> Place:
        """Where a child is; a place that says only its id, where nobody entered one."""
        known = self._children.get(child)
        return (known.place if known else None) or Place(child, child, "", "", "", "")

    def sites(self) -> dict[str, Site]:
        """Every site. Not to be changed."""
        return self._sites

    def person(self, name: str) -> Person | None:
        """The person of that name."""
        found = self._person(name)
        return found[0] if found else None

    def sign_in(self, name: str, password: str) -> Person | None:
        """The person, if the password is theirs. Takes as long for a name that nobody has."""
        found = self._person(name)
        try:
            _HASHER.verify(found[1] if found else _of_nobody(), password)
        except (VerificationError, InvalidHashError):
            return None
        return found[0] if found else None

    def _person(self, name: str) -> tuple[Person, str] | None:
        if not name.isprintable():
            return None
        with self._readers.connect() as connection:
            row = connection.execute(select(schema.people).where(schema.people.c.name == name)).mappings().first()
        return (Person(row["name"], row["full_name"], row["role"]), row["password"]) if row else None

    def close(self) -> None:
        """Closes its connection."""
        self._watch.close()


@functools.cache
def _of_nobody() -> str:
    """Made when it is first needed: it takes a tenth of a second, which a station that starts doesn't have."""
    return _HASHER.hash("nobody")


def password_hash(password: str) -> str:
    """An Argon2id hash for the people table."""
    return _HASHER.hash(password)
