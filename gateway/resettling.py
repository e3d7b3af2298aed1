"""An older database, in which each child repeated the name, address and telephone of its site: into one entry a site.

Nothing is lost: where children of one site said different things, the one that most of them say becomes the site's, and
the others are kept in its notes.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import Connection

_GONE = ("site_name", "site_name_ur", "entrance_name", "entrance_name_ur", "address", "phone")
_BEFORE = "Before there was one entry a site"
_NOTE = {"site_name": "name", "site_name_ur": "name in Urdu", "address": "address", "phone": "telephone"}


def resettle(connection: Connection) -> int:
    """Moves places out of `children` into `sites`, `entrances` and `contacts`, which must be there; how many sites.

    The columns that `children` no longer has are dropped. 0, and nothing is done, where they are gone already.
    """
    columns = {column["name"] for column in inspect(connection).get_columns("children")}
    if not columns.issuperset(_GONE):
        return 0
    rows = [dict(row) for row in connection.execute(text("SELECT * FROM children ORDER BY kind DESC, id")).mappings()]
    sites = sorted({str(row["site"]) for row in rows if row["site"]})
    for site in sites:
        mine = [row for row in rows if row["site"] == site]
        chosen, notes = {}, [f"{_BEFORE}, {other}" for other in _other_entrances(mine)]
        for column, name in _NOTE.items():
            said = _by_count(row[column] for row in mine)
            chosen[column] = said[0] if said else ""
            notes += [f"{_BEFORE}, the {name} was also: {other}" for other in said[1:]]
        connection.execute(
            text(
                "INSERT INTO sites (id, name, name_ur, address, notes) VALUES (:id, :name, :name_ur, :address, :notes)"
            ),
            {
                "id": site,
                "name": chosen["site_name"] or site,
                "name_ur": chosen["site_name_ur"],
                "address": chosen["address"],
                "notes": "\n".join(notes),
            },
        )
        if chosen["phone"]:
            connection.execute(
                text("INSERT INTO contacts (site, number, name, role, phone) VALUES (:site, 0, '', '', :phone)"),
                {"site": site, "phone": chosen["phone"]},
            )
        _entrances(connection, site, mine)
    for column in _GONE:
        connection.execute(text(f"ALTER TABLE children DROP COLUMN {column}"))
    return len(sites)


def _by_entrance(rows: Iterable[Mapping[str, str]]) -> dict[str, tuple[list[str], list[str]]]:
    """The names that children gave each entrance, in English and in Urdu."""
    grouped: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        if row["entrance"]:
            grouped.setdefault(row["entrance"], []).append(row)
    return {
        entrance: (_by_count(row["entrance_name"] for row in mine), _by_count(row["entrance_name_ur"] for row in mine))
        for entrance, mine in grouped.items()
    }


def _other_entrances(rows: Iterable[Mapping[str, str]]) -> list[str]:
    return [
        f"the entrance {entrance} was also named: {other}"
        for entrance, names in _by_entrance(rows).items()
        for other in (*names[0][1:], *names[1][1:])
    ]


def _entrances(connection: Connection, site: str, rows: Iterable[Mapping[str, str]]) -> None:
    for entrance, (names, names_ur) in _by_entrance(rows).items():
        connection.execute(
            text("INSERT INTO entrances (site, id, name, name_ur) VALUES (:site, :id, :name, :name_ur)"),
            {
                "site": site,
                "id": entrance,
                "name": names[0] if names else entrance,
                "name_ur": names_ur[0] if names_ur else "",
            },
        )


def _by_count(texts: Iterable[str]) -> list[str]:
    """The different texts that are not empty, the most frequent first."""
    clean = (" ".join(said.replace(";", ",").split()) for said in texts)
    return [said for said, _ in Counter(said for said in clean if said).most_common()]
