"""Text that no table could hold is refused or cleaned wherever it enters, and stops nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from gateway import entries, sitebook
from gateway.console.registry_api import Farewell
from gateway.enrolment import UnfitError, UnknownChildError
from gateway.journal import Journal
from gateway.registrar import Registrar
from gateway.registry import Registry
from tests.gateway.test_journal_keeping import Lived

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXTS = ["a\0b", "\0", "a\ud800b"]


@pytest.fixture
def desk(store: Path | str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Registrar, Registry, Journal]]:
    """The registry of a headquarters that has lived a little; nothing stops it."""
    monkeypatch.setattr(Journal, "_give_up", lambda *_: None)
    lived = Lived(store)
    journal = Journal(lived.settings.store, [])
    journal.start()
    registry = Registry(journal.readers, "hq", None)
    lived.exchange._journal = journal
    yield Registrar(lived.settings, journal, registry, lived.exchange), registry, journal
    registry.close()
    journal.stop()
    lived.world.close()


def test_text_that_no_table_could_hold_changes_nothing_and_stops_nobody(
    desk: tuple[Registrar, Registry, Journal],
) -> None:
    registrar, registry, journal = desk
    for text in TEXTS:
        with pytest.raises(UnknownChildError):
            registrar.retire(text, "lost", "rana")
        with pytest.raises(UnknownChildError):
            registrar.undo_site(text, 1, "rabia")
        assert registrar.entries(text) == []
        assert registry.sign_in(text, "password") is None
        with journal.readers.connect() as connection:
            assert entries.entry(connection, text) is None
            assert sitebook.changes(connection, text) == []
    with pytest.raises(UnfitError):
        registrar.retire("gate-4", "\ud800", "rana")
    assert journal.now(lambda _: True), "it goes on"
    assert registrar.entry("gate-4").state == "pending"


@pytest.mark.parametrize("text", TEXTS)
def test_why_a_button_is_retired_is_text_that_can_be_kept(text: str) -> None:
    said: Any
    try:
        said = Farewell(reason=text).reason
    except ValidationError:
        return
    assert said.isprintable()
