"""What talks to a database is tested on both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.gateway.lived import Lived
from tests.postgres import Server, programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server for all tests of a run."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed: run `python3 tools/setup.py test`")
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A new database of either kind, as `Journal` takes it."""
    if request.param == "sqlite":
        return tmp_path / "station.db"
    server: Server = request.getfixturevalue("postgres")
    return server.fresh()


@pytest.fixture
def lived(store: Path | str) -> Iterator[Lived]:
    made = Lived(store)
    yield made
    made.world.close()


@pytest.fixture
def at_site(tmp_path: Path) -> Iterator[Lived]:
    made = Lived(tmp_path)
    yield made
    made.world.close()
