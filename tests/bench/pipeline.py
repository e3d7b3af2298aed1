"""One press at a time through either pipeline, and when it was where."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from demo.button import PRESSED, REST
from demo.process import wait_until
from firmware import wire

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from demo.button import Button

HOLD_S = 0.15  # the firmware asks for 45 ms; a finger takes longer
REST_S = 0.15  # and for 100 ms of rest
QUIET_S = 0.03  # nothing can have arrived so soon: the contact is not believed yet
POLL_S = 0.0002
TIMEOUT_S = 20


@dataclass(frozen=True)
class Times:
    """One press, in milliseconds."""

    pin_to_commit: float
    pin_to_light: float
    sent_to_commit: float
    sent_to_light: float
    latch_to_commit: float
    latch_to_light: float


class Pipeline:
    """A button and the database where its alarms end.

    newest: SQL for the highest row id. since: SQL for (id, envelope) of the first alarm after a row id. close: closes
    every alarm, as an operator would.
    """

    def __init__(
        self,
        name: str,
        button: Button,
        database: sqlite3.Connection,
        newest: str,
        since: str,
        close: Callable[[], None],
    ) -> None:
        self.name = name
        self.times: list[Times] = []
        self._button = button
        self._database = database
        self._newest = newest
        self._since = since
        self._close = close
        self._random = random.Random(1)

    def press(self) -> None:
        """Presses once and waits until the light tells of headquarters' receipt."""
        button = self._button
        time.sleep(self._random.uniform(0, 0.02))  # not in step with the contact's sampling
        spoken = len(button.said)
        newest = self._database.execute(self._newest).fetchone()[0] or 0
        pin_ns = time.time_ns()
        button.pins(**PRESSED)
        time.sleep(QUIET_S)
        committed_ns, envelope = self._committed(newest)
        time.sleep(max(0.0, HOLD_S - (time.time_ns() - pin_ns) / 1e9))
        button.pins(**REST)
        released = time.monotonic()
        latched = button.wait_for(lambda said: "latched" in said, TIMEOUT_S, spoken)
        number = [latched["latched"]["boot"], latched["latched"]["seq"]]
        lit_ns = button.wait_for(lambda said: _is_lit(said, number), TIMEOUT_S, spoken)["at"]
        message = wire.unseal(envelope).message
        if [message[wire.BOOT], message[wire.SEQ]] != number:
            text = f"{self.name}: alarm {number} was pressed, another one was committed"
            raise RuntimeError(text)
        # The envelope says how many milliseconds after the contact's first reading it was made.
        sent_ns = latched["latched"]["pin_at"] + message[wire.AGE] * 1_000_000
        ends = (committed_ns, lit_ns)
        self.times.append(Times(*((end - start) / 1e6 for start in (pin_ns, sent_ns, latched["at"]) for end in ends)))
        # On a busy disk the button may be late; a press before it has seen the release would be none.
        button.wait_for(lambda said: said.get("loop") == {"pressed": False}, TIMEOUT_S, spoken)
        time.sleep(max(0.0, REST_S - (time.monotonic() - released)))

    def _committed(self, newest: int) -> tuple[int, bytes]:
        """When the first alarm after `newest` could be read, and its envelope."""
        end = time.monotonic() + TIMEOUT_S
        while True:
            row = self._database.execute(self._since, (newest,)).fetchone()
            if row:
                return time.time_ns(), row[1]
            if time.monotonic() > end:
                text = f"{self.name}: a press was not committed within {TIMEOUT_S} s"
                raise TimeoutError(text)
            time.sleep(POLL_S)

    def settle(self) -> None:
        """Closes every alarm, and waits until the button is at rest."""
        self._close()
        wait_until(lambda: self._button.light == "rest", TIMEOUT_S, f"{self.name}: the button at rest")


def _is_lit(said: dict[str, Any], number: list[int]) -> bool:
    return bool(said.get("stage", 0) >= wire.AT_HQ and said["alarm"] == number)
