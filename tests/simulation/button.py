"""A button: the real conduct, latch, outbox, window, loops and vigil, on a simulated flash, board and connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from firmware import settings, wire
from firmware.button import Button
from firmware.flash import Flash
from firmware.outbox import Outbox
from tests.simulation.disk import Disk
from tests.simulation.engine import Engine, Machine
from tests.simulation.network import Broker, Session, Way

if TYPE_CHECKING:
    from tests.simulation.witness import Witness

REST = (340, 610, 340)
PRESSED = (610, 340, 340)
CUT = (1000, 1000, 340)
BEAT_MS = 5_000


class ButtonMachine(Machine):
    """The board: clock, readings, flash and power of one button."""

    SAMPLE_MS = 10
    reset_cause = 1
    version = "1"

    def __init__(self, engine: Engine, world: Witness, name: str, key: bytes, ends: list[tuple[Broker, Way]]) -> None:
        super().__init__(engine, name)
        self.world = world
        self.key = key
        self.ends = ends
        self.broker = ends[0][0]
        self.disk = Disk()
        self.disk.owner = self
        self.button: Button
        self.session: Any
        self.beats: list[bytes] = []  # that somebody recorded
        self._told = SimpleNamespace(id=name, hq="hq", contacts=settings.BOTH, alarms_per_minute=30)
        self._reading = REST
        self._started_ms = 0
        self._send_at: int | None = None
        self.extra_ms = 0  # how far sampling is ahead of the queue of events

    # ----------------------------------------------------------------------------------------- power

    def start(self) -> None:
        super().start()
        self._started_ms = self.engine.now
        self._reading = REST
        self._send_at = None
        try:
            self._boot()
        except BaseException:
            self.running = False
            raise

    def _boot(self) -> None:
        flash = Flash("state", self.disk, self.disk.open)
        store = Outbox(flash, self._complain, bytes)
        self.button = Button(self._told, self.key, store, self, self, self._wake)
        self.session = self.button.session = self._session()
        self.session.urgent = bool(self.button.latch.unconfirmed())
        self.world.booted(self)
        self.button.sample()
        self.button.add_event(self.ms(), wire.STARTED, None, self.reset_cause)
        self._connect()
        self.engine.post(self, BEAT_MS, self._beat)

    def _session(self) -> Any:
        return Session(self, self.ends)

    def _connect(self) -> None:
        self.engine.post(self, 0, self.session.open)

    def _complain(self, sentence: str) -> None:
        self.world.broken("a power cut damages no record", f"{self.name}: {sentence}")

    # ------------------------------------------------------------------------------------ clock, board

    def ms(self) -> int:
        return self.engine.now - self._started_ms + self.extra_ms

    def advance(self) -> int:
        return self.ms()

    def readings(self) -> tuple[int, int, int]:
        return self._reading

    def battery_mv(self) -> int:
        return 4050

    def mains(self) -> bool:
        return True

    def rssi(self) -> None:
        return None

    def tell(self, what: str, *about: Any, **more: Any) -> None:
        self.world.said(self, what, about, more)

    # -------------------------------------------------------------------------------------------- work

    def touch(self, reading: tuple[int, int, int], for_ms: int) -> None:
        """The contacts move: the loops are read as often as it takes to believe it."""
        self._reading = reading
        moved = False
        for at_ms in (0, for_ms // 2, for_ms):
            self.extra_ms = at_ms
            moved = self.button.sample() or moved
        if moved:
            self.button.moved()
        self.extra_ms = 0

    def press(self) -> None:
        """Presses, and lets go a little later."""
        if self._reading is REST and self.running:
            self.touch(PRESSED, 50)
            self.engine.post(self, 250, self.touch, REST, 120)

    def _beat(self) -> None:
        self.engine.post(self, BEAT_MS, self._beat)
        self.button.beat()

    def _wake(self) -> None:
        self._send_in(0)

    def _send_in(self, wait_ms: int) -> None:
        at = self.engine.now + wait_ms
        if self._send_at is None or at < self._send_at:
            self._send_at = at
            self.engine.post(self, wait_ms, self._send, at)

    def _send(self, at: int) -> None:
        if at != self._send_at:
            return
        self._send_at = None
        self.button.send_due()
        wait_ms = self.button.wait_ms()
        if wait_ms is not None:
            self._send_in(max(1, wait_ms))
        self.world.bounded(self)
