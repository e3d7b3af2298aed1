"""A button whose session is the real one: firmware/session.py with route and vigil, on simulated tasks and connections."""

from __future__ import annotations

import contextlib
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.firmware.simulation.line import Dead, Link
from tests.firmware.simulation.tasks import Loop
from tests.simulation.button import ButtonMachine
from tests.simulation.disk import Disk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.firmware.simulation.place import Place
    from tests.simulation.engine import Engine
    from tests.simulation.network import Broker, Way


def _real_session() -> Any:
    """firmware/session.py, which runs on MicroPython: its TLS is not needed here."""
    without = "tls" not in sys.modules
    if without:
        sys.modules["tls"] = ModuleType("tls")
    try:
        from firmware import session
    finally:
        if without:
            del sys.modules["tls"]
    return session


session = _real_session()
TICK_MS = 500  # between looks at a connection, where the board takes 100: a schedule must be cheap


class WatchedDisk(Disk):
    """Tells what is removed."""

    def remove(self, path: str) -> None:
        super().remove(path)
        owner: Any = self.owner
        owner.removed(path.rpartition("/")[2])


class FirmwareMachine(ButtonMachine):
    """The board. stingy: its sockets take and give what they want, not what they are asked."""

    def __init__(self, engine: Engine, world: Place, name: str, key: bytes, ends: list[tuple[Broker, Way]]) -> None:
        super().__init__(engine, world, name, key, ends)
        self.disk = WatchedDisk()
        self.disk.owner = self
        self.stingy = False
        self.boot_fuse: int | None = None  # how many operations the power lasts at the next start
        self.thawed_ms = -1
        self.loop = Loop(self)

    def _boot(self) -> None:
        self.fuse, self.boot_fuse = self.boot_fuse, None
        super()._boot()

    def _session(self) -> Any:
        self.loop = Loop(self)
        session.asyncio = self.loop
        button = self.button
        return session.Session(
            self.name,
            [["10.0.0.1", port, "station"] for port in range(len(self.ends))],
            "identity",
            will=button.will,
            on_message=self._received,
            on_up=button.connected,
            on_down=button.disconnected,
            log=lambda text: self.engine.tell(self.name, f"has no connection any more: {text}"),
        )

    def _connect(self) -> None:
        self.loop.create_task(self.session.run())

    def _received(self, topic: str, payload: bytes) -> None:
        self.button.received(topic, payload)
        self.world.looked(self)

    def tell(self, what: str, *about: Any, **more: Any) -> None:
        if self.running:
            super().tell(what, *about, **more)

    def removed(self, name: str) -> None:
        """A record is gone from the flash: an alarm only when headquarters has it."""
        kind, _, number = name.partition("-")
        if kind == "a":
            boot, seq = map(int, number.split("-"))
            if not self.world.known.has((self.name, boot, seq)):
                self.world.broken("no alarm is dropped", f"{self.name} removes {(boot, seq)}")
        elif kind == "e":
            boot, seq = map(int, number.split("-"))
            if not self.world.known.has((self.name, boot, seq)):
                self.world.dropped.add((self.name, boot, seq))

    # -------------------------------------------------------------------------------------------- power

    def burn(self) -> None:
        try:
            super().burn()
        except BaseException:
            self._die()
            raise

    def thaw(self) -> None:
        self.thawed_ms = self.engine.now
        super().thaw()

    def crash(self) -> None:
        self._die()
        super().crash()

    def _die(self) -> None:
        """Nothing of this life does anything any more, whatever is on its way through the stack."""
        self.running = False
        self.session._on_down = lambda *_: None
        self.session._link = Dead()
        self.loop.die()


@contextlib.contextmanager
def playing(machine: FirmwareMachine) -> Iterator[None]:
    """Puts simulated parts into the place of those that session.py has from its board."""
    parts = {
        "asyncio": machine.loop,
        "Clock": lambda: machine,
        "Link": lambda: Link(machine),
        "context": lambda *_: True,
        "answers": lambda _address, port, within_ms, _source=None: _answers(machine, port, within_ms),
        "os": SimpleNamespace(urandom=machine.engine.chance.randbytes),
        "gc": SimpleNamespace(collect=lambda: None),
        "TICK_MS": TICK_MS,
    }
    before = {name: getattr(session, name) for name in parts}
    for name, part in parts.items():
        setattr(session, name, part)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(session, name, value)


async def _answers(machine: FirmwareMachine, port: int, within_ms: int) -> bool:
    broker, way = machine.ends[port]
    if way.cut:
        await machine.loop.sleep_ms(within_ms)
        return False
    await machine.loop.sleep_ms(way.delay_ms)
    return broker.running
