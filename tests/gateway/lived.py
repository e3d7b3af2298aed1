"""A headquarters whose journal has seen some of everything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from typer.testing import CliRunner

from demo.world import HQ, World
from firmware import wire
from gateway import database, keys, schema
from gateway.chain import Sealer
from gateway.cli import app
from gateway.desk import Outcome, State
from gateway.enrolment import NewButton
from gateway.exchange import Exchange
from gateway.journal import Journal
from gateway.notice import NoticeBoard
from gateway.refusals import Refusals
from gateway.registrar import Registrar
from gateway.registry import Registry
from gateway.settings import load

if TYPE_CHECKING:
    from click.testing import Result


class Lived:
    """A headquarters with two parents, in whose database things have happened; nothing of it runs."""

    def __init__(self, store: Path | str) -> None:
        self.world = World(buttons=(), hq_database=store if isinstance(store, str) else "")
        self.config = str(self.world.folder / f"{HQ}.toml")
        with open(self.config, "a", encoding="utf-8") as file:
            for parent in ("sindh", "rangers"):
                point = self.world.hq_message_point.hex()
                file.write(f'[[parents]]\nid = "{parent}"\naddress = "localhost"\nmessage_key = "{point}"\n')
        self.settings = load(Path(self.config))
        self.sealer = Sealer(HQ, keys.private_key(self.settings.identity / "key.pem"), self.settings.checkpoints)
        self.settings.state.mkdir(exist_ok=True)
        self.journal = Journal(self.settings.store, [one.id for one in self.settings.parents], self.sealer)
        message_key = keys.private_key(self.world.folder / "message-key.pem")
        self.registry = Registry(self.journal.readers, HQ, message_key)
        self.exchange = Exchange(
            self.settings, self.journal, self.registry, Refusals(), NoticeBoard(), self.journal.next_boot()
        )
        self.registrar = Registrar(self.settings, self.journal, self.registry, self.exchange)
        self.exchange.confirm = self.registrar.confirm
        self.journal.start()
        self._live()
        self.registry.close()
        self.journal.stop()

    def _live(self) -> None:
        self.registrar.begin()
        for child, replaces in (("gate-1", None), ("gate-2", "gate-1"), ("gate-3", None), ("gate-4", None)):
            self._enrol(child, replaces)
            if child != "gate-4":
                self._send(child, 1, wire.ALARM, {wire.CAUSE: wire.TEST})
        self.registrar.retire("gate-3", "water", "rana")
        self.registrar.change_site("clifton", {"plan": "Keys. " * 300, "contacts": "Rabia; head; 15"}, "rabia")
        self.registrar.change_site("clifton", {"plan": "", "position": "24.8, 67.0"}, "rabia")
        self.registrar.expire()
        self._send("gate-2", 2, wire.ALARM, {wire.CAUSE: wire.HOLD_UP, wire.HOW: wire.CONTACT_B})
        self._send("gate-2", 3, wire.EVENT, {wire.CODE: wire.LOOP_CUT})
        self.exchange.event(wire.BROKER_LOST, HQ)
        alarms = self.rows(schema.incidents)
        self.exchange.step(alarms[0]["id"], State.CLOSED, "ayesha", "", Outcome.TEST)
        self.exchange.step(alarms[-1]["id"], State.ACKNOWLEDGED, "ayesha", "seen", None)
        self.exchange.step(alarms[-1]["id"], State.RESPONDING, "ayesha", "", None)
        self.exchange.step(alarms[-1]["id"], State.CLOSED, "bilal", "گرفتار", Outcome.GENUINE)
        self.journal.now(lambda connection: self.journal.delivered(connection, "sindh", ("gate-2", 1, 2), 2))

    def _enrol(self, child: str, replaces: str | None) -> None:
        certificate = self.world.issue(child).certificate.public_bytes(Encoding.PEM).decode()
        wanted = NewButton(
            certificate=certificate,
            site="clifton",
            entrance=child,
            site_name_ur="قونصل خانہ " * 10,
            entrance_name_ur="دروازہ " * 15,
            address="ا" * 250,
            mac="24:0a:c4:00:01:10",
            replaces=replaces,
        )
        self.registrar.enrol(child, wanted, "rana")

    def _send(self, child: str, seq: int, kind: int, fields: dict[int, Any]) -> None:
        self.registry.refresh()
        message = {wire.KIND: kind, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: 5, **fields}
        payload = wire.seal(message, child, self.world.key_of(child))
        done: list[None] = []
        lane = "alarm" if kind == wire.ALARM else "event"
        self.exchange.arrived(f"tocsin/1/{child}/{lane}", payload, lambda: done.append(None))
        self.journal.now(lambda _: None)
        assert done, self.exchange._refusals.newest()

    def rows(self, table: Any, *columns: str) -> list[dict[str, Any]]:
        engine = database.open_database(self.settings.store, writes=False)
        with engine.connect() as connection:
            names = columns or tuple(table.c.keys())
            asked = select(*(table.c[name] for name in names)).order_by(*table.primary_key)
            rows = [dict(row) for row in connection.execute(asked).mappings()]
        engine.dispose()
        return rows

    def do(self, work: Any) -> None:
        engine = database.open_database(self.settings.store, writes=True)
        with engine.begin() as connection:
            work(connection)
        engine.dispose()

    def run(self, *command: str) -> Result:
        return CliRunner().invoke(app, ["journal", command[0], "--config", self.config, *command[1:]])
