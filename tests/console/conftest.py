"""What the tests of the console share."""

import pytest

from tests.console.desk import StandInDesk
from tests.console.visitor import Visitor


@pytest.fixture
def desk() -> StandInDesk:
    return StandInDesk()


@pytest.fixture
def visitor(desk: StandInDesk) -> Visitor:
    """Not signed in."""
    return Visitor(desk)


@pytest.fixture
def operator(desk: StandInDesk) -> Visitor:
    visitor = Visitor(desk)
    assert visitor.sign_in().status_code == 303
    return visitor


@pytest.fixture
def viewer(desk: StandInDesk) -> Visitor:
    visitor = Visitor(desk)
    assert visitor.sign_in("viewer").status_code == 303
    return visitor
