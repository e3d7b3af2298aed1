"""The registry from a shell, beside a running station: what is changed there is journaled as the station's own."""

from __future__ import annotations

import getpass
from contextlib import contextmanager
from typing import TYPE_CHECKING

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
def registrar(settings: Settings) -> Iterator[Registrar]:
    """A registrar of the station's database. A running station notices what it changes."""
    journal = Journal(settings.database, [parent.id for parent in settings.parents])
    boot = journal.next_boot()  # what is journaled here has an identity apart from the running station's
    journal.start()
    registry = Registry(journal.readers, settings.station, None)
    exchange = Exchange(settings, journal, registry, Refusals(), NoticeBoard(), boot)
    try:
        yield Registrar(settings, journal, registry, exchange)
    finally:
        registry.close()
        journal.stop()


@contextmanager
def reader(settings: Settings) -> Iterator[Connection]:
    """A connection to the station's database for reading."""
    journal = Journal(settings.database, [])
    try:
        with journal.readers.connect() as connection:
            yield connection
    finally:
        journal.close()


def user() -> str:
    """Who works at this shell, as events tell it."""
    return f"{getpass.getuser()[:48]} (shell)"
