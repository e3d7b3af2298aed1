"""What the self-test makes of what a button says, where a real button would say it too quickly to be caught at it."""

from __future__ import annotations

import json
import os
import tty
from typing import TYPE_CHECKING

import pytest

from provisioning import ports, selftest
from provisioning.board import Console
from provisioning.errors import SelfTestFailed
from provisioning.rawrepl import RawRepl
from provisioning.teller import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRESS = ({"latched": {"boot": 7, "seq": 3, "test": True}}, {"loop": {"A": "fine", "B": "fine", "pressed": False}})


@pytest.fixture
def button() -> Iterator[tuple[Console, Callable[..., None]]]:
    """A console, and what makes the button behind it say lines."""
    far, near = os.openpty()
    tty.setraw(near)
    path = os.ttyname(near)

    def says(*lines: dict[str, object]) -> None:
        os.write(far, b"".join(json.dumps(line).encode() + b"\r\n" for line in lines))

    with Console(RawRepl(ports.open_port(path), path)) as console:
        yield console, says
    os.close(near)
    os.close(far)


class Person(Teller):
    """Presses when asked to."""

    def __init__(self, press: Callable[[], None]) -> None:
        super().__init__()
        self._press = press

    def ask(self, text: str) -> None:
        """Does it."""
        if text.startswith("Press"):
            self._press()


def test_a_light_that_is_green_already_for_an_older_alarm_need_not_be_told_of_again(
    button: tuple[Console, Callable[..., None]],
) -> None:
    console, says = button
    says({"light": "at_hq"})
    console.wait_for(lambda said: "light" in said, 5, "the old light")
    person = Person(lambda: says(*PRESS, {"alarm": [7, 3], "stage": 2}))
    assert selftest._pressed(console, person, offline=False) == ((7, 3), 2)


def test_a_light_that_stays_amber_fails_it(
    button: tuple[Console, Callable[..., None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    console, says = button
    monkeypatch.setattr(selftest, "RECEIPT_S", 0.3)
    says({"light": "at_hq"})
    console.wait_for(lambda said: "light" in said, 5, "the old light")
    person = Person(lambda: says(*PRESS, {"light": "unconfirmed"}, {"alarm": [7, 3], "stage": 2}))
    with pytest.raises(SelfTestFailed, match="green light"):
        selftest._pressed(console, person, offline=False)
