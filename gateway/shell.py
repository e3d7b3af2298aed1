"""The registry from a shell, beside a running station: what is changed there is journaled as the station's own.

Everything here raises StorageError where the database can't be used.
"""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gateway import database
from gateway.enrolment import printable
from gateway.exchange import Exchange
from gateway.journal import Journal
from gateway.notice import NoticeBoard
from gateway.refusals import Refusals
from gateway.registrar import Registrar
from gateway.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from gateway.settings import Settings


@contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Journal, Registry, Exchange]]:
    journal = Journal(settings.store, [parent.id for parent in settings.parents], own=settings.station)
    boot = journal.next_boot()  # what is journaled here has an identity apart from the running station's
    journal.start()
    registry = Registry(journal.readers, settings.station, None)
    try:
        yield journal, registry, Exchange(settings, journal, registry, Refusals(), NoticeBoard(), boot)
    finally:
        registry.close()
        journal.stop()


@contextmanager
def exchange(settings: Settings) -> Iterator[Exchange]:
    """An exchange over the station's database. A running station notices what it changes."""
    with _opened(settings) as (_, _, made):
        yield made


@contextmanager
def registrar(settings: Settings) -> Iterator[Registrar]:
    """A registrar of the station's database. A running station notices what it changes."""
    with _opened(settings) as (journal, registry, made):
        yield Registrar(settings, journal, registry, made)


@contextmanager
def rollouts(settings: Settings) -> Iterator[tuple[Journal, Registry]]:
    """The journal and the registry of the station's database. A running station notices what is written there."""
    with _opened(settings) as (journal, registry, _):
        yield journal, registry


@contextmanager
def reader(settings: Settings) -> Iterator[Connection]:
    """A connection to the station's database for reading."""
    database.prepare(settings.store)
    engine = database.open_database(settings.store, writes=False)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def user() -> str:
    """Who works at this shell, as events tell it."""
    return f"{printable(getpass.getuser()[:48])} (shell)"
