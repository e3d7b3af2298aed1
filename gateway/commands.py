"""Commands from headquarters down to a button: kept until the button's own answer comes, or their time is over.

A command is sealed for its button alone and sent at once, then again at its heartbeats, until it is answered. There is
never more than one of a kind on its way to a child: a newer one takes the older one's place, so the numbers that a
button sees of one kind only grow. They are taken from the clock: a database that was restored from an old copy does not
give them a second time, which buttons would refuse and which would bare the encryption. What must stay secret is encrypted before it is kept: the gateway in between can't
read it, nor can whoever gets this database.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlalchemy import Connection, Row, insert, select, update

from firmware import configuration, testing, wire
from firmware.command import packed
from firmware.settings import SettingsFault, network_fault
from gateway import schema
from gateway.desk import Command, CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gateway.journal import Journal
    from gateway.registry import Registry

FRESH_MS = 75_000  # a button takes one upon a heartbeat that it sent 90 s ago at most
AGAIN_MS = 8_000  # a repeat goes no sooner after the one before, and only to a child that is heard
LASTS_S = {
    wire.IDENTIFY: 600,
    wire.WIFI: 14 * 86_400,
    wire.TEST_ALARM: 600,
    wire.REBOOT: 600,
    wire.CONFIGURE: 14 * 86_400,
    wire.UPDATE: 86_400,
    wire.RENEW: 30 * 86_400,
    wire.TEST_MODE: 900,
    wire.TEST_OVER: 600,
}
NAMES = {
    wire.IDENTIFY: "identify",
    wire.WIFI: "wifi",
    wire.TEST_ALARM: "test",
    wire.REBOOT: "reboot",
    wire.CONFIGURE: "configuration",
    wire.UPDATE: "update",
    wire.RENEW: "certificate",
    wire.TEST_MODE: "testing",
    wire.TEST_OVER: "testing_over",
}
LAST = 0xFFFFFFFF  # boot and seq of a message are no greater
ANSWERS = {wire.COMMAND_DONE: "done", wire.COMMAND_FAILED: "failed"}

# What an answer may still change: a network that failed on trial is kept by the button and may work later, and a
# button that was away may have done what has expired here meanwhile.
_OPEN_TO = {"done": ("waiting", "failed", "expired"), "failed": ("waiting", "expired")}
_T = schema.commands.c


def concealed(network: tuple[str, str], key: bytes, number: tuple[int, int]) -> bytes:
    """A network's name and password as the detail of a command: AES-256-CTR, see `firmware.wire.masked`.

    key: the message key of child and headquarters. number: the command's (boot, seq), never used for another.
    """
    counter = number[0].to_bytes(4, "big") + number[1].to_bytes(4, "big") + bytes(8)
    cipher = Cipher(algorithms.AES256(wire.command_key(key)), modes.CTR(counter)).encryptor()
    return cipher.update(packed(network)) + cipher.finalize()


@dataclass(slots=True)
class Waiting:
    """A command without an answer. sent_ms: monotonic; None: not sent by this run."""

    code: int
    number: tuple[int, int]
    detail: bytes | None
    expires_at_ms: int
    sent_ms: int | None = None


class Outstanding:
    """What waits for answers, by child and code. Pure but for its lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_child: dict[str, dict[int, Waiting]] = {}

    def put(self, child: str, waiting: Waiting) -> None:
        """Takes a command; one of the same code makes room, unless it is newer."""
        with self._lock:
            mine = self._by_child.setdefault(child, {})
            if waiting.code not in mine or mine[waiting.code].number < waiting.number:
                mine[waiting.code] = waiting

    def drop(self, child: str, number: tuple[int, int]) -> Waiting | None:
        """Forgets the command of that number; returns it if it was there."""
        with self._lock:
            dropped = next((one for one in self._by_child.get(child, {}).values() if one.number == number), None)
            left = {code: one for code, one in self._by_child.get(child, {}).items() if one.number != number}
            self._by_child[child] = left
            if not left:
                del self._by_child[child]
            return dropped

    def waits(self, child: str, code: int) -> bool:
        """Whether a child has a command of this code without an answer."""
        return code in self._by_child.get(child, {})

    def drop_code(self, child: str, code: int) -> None:
        """Forgets a child's command of a code."""
        one = self._by_child.get(child, {}).get(code)
        if one:
            self.drop(child, one.number)

    def due(self, child: str, now_ms: int, utc_ms: int) -> list[Waiting]:
        """What to send to a child now; it counts as sent."""
        if child not in self._by_child:  # the usual case, of every heartbeat
            return []
        with self._lock:
            found = [
                one
                for one in self._by_child.get(child, {}).values()
                if utc_ms < one.expires_at_ms and (one.sent_ms is None or now_ms - one.sent_ms >= AGAIN_MS)
            ]
            for one in found:
                one.sent_ms = now_ms
            return sorted(found, key=lambda one: one.number)

    def expired(self, utc_ms: int) -> list[tuple[str, Waiting]]:
        """Those whose time is over."""
        with self._lock:
            return [
                (child, one)
                for child, mine in self._by_child.items()
                for one in mine.values()
                if utc_ms >= one.expires_at_ms
            ]


class Commands:
    """The commands of a station's children; only headquarters gives any. Safe from any thread.

    send(child, payload) publishes an envelope on the child's way.
    """

    def __init__(
        self,
        station: str,
        journal: Journal,
        registry: Registry,
        send: Callable[[str, bytes], None],
    ) -> None:
        self._station = station
        self._journal = journal
        self._registry = registry
        self._send = send
        self.certified: Callable[[str, bytes], None] = lambda _child, _certificate: None  # one that a child took
        self._outstanding = Outstanding()
        self._giving = threading.Lock()  # so that numbers are given and kept in the same order

    def remember(self) -> None:
        """Takes up what the last run left without an answer."""
        with self._journal.readers.connect() as connection:
            rows = connection.execute(select(schema.commands).where(_T.state == "waiting").order_by(_T.id)).all()
        for row in rows:
            self._outstanding.put(row.child, Waiting(row.code, (row.boot, row.seq), row.detail, row.expires_at_ms))

    def give(
        self,
        child: str,
        code: int,
        by: str,
        now_ms: int,
        network: tuple[str, str] | None,
        lasts_s: int | None,
        changes: Mapping[str, str | int] | None = None,
        brings: tuple[str, bytes] | None = None,
    ) -> int:
        """Gives a command and sends it; its id in the table. Durable when this returns. now_ms: UTC.

        network: (name, password), with WIFI. changes: settings by their names in the button's settings.json, with
        CONFIGURE. brings: (what it is about, the detail, in which nothing is secret), with RENEW, where it is until when and
        the certificate in DER, and UPDATE: version and offer. Raises KeyError for a child that
        is not known, CommandRefusedError.
        """
        known = self._registry.children()[child]
        key = self._registry.key_of(child)
        if known.kind != "button":
            raise CommandRefusedError(f"{child} is a station: only buttons take commands")
        if key is None:
            raise CommandRefusedError(f"{child} shares no key with this station, so it would not believe the command")
        if code == wire.WIFI and (fault := network_fault(network)):
            raise CommandRefusedError(f"{fault}: nothing was sent")
        if code == wire.TEST_MODE and (lasts_s or 0) > testing.LONGEST_S:
            raise CommandRefusedError(
                f"test mode is granted for {testing.LONGEST_S // 60} minutes at most: nothing was sent"
            )
        about, plain = brings or ((network[0] if network else ""), None)
        if code == wire.CONFIGURE:
            try:
                plain, about = configuration.packed(dict(changes or {})), configuration.told(dict(changes or {}))
            except SettingsFault as fault:
                raise CommandRefusedError(f"{str(fault).rstrip('.')}: nothing was sent") from fault
        with self._giving:
            number = self._next_number(now_ms)
            detail = concealed(network, key, number) if network else plain
            waiting = Waiting(code, number, detail, now_ms + 1000 * (lasts_s or LASTS_S[code]))

            def work(connection: Connection) -> int:
                connection.execute(
                    update(schema.commands)
                    .where(_T.child == child, _T.code == code, _T.state == "waiting")
                    .values(state="replaced", answered_at_ms=now_ms)
                )
                kept = insert(schema.commands).values(
                    child=child,
                    code=code,
                    about=about,
                    detail=detail,
                    boot=number[0],
                    seq=number[1],
                    made_at_ms=now_ms,
                    expires_at_ms=waiting.expires_at_ms,
                    state="waiting",
                    by=by,
                )
                return int(connection.execute(kept.returning(_T.id)).scalar_one())

            made = self._journal.now(work)
            self._outstanding.put(child, waiting)
        return made

    def _next_number(self, now_ms: int) -> tuple[int, int]:
        """(seconds, milliseconds) of UTC as boot and seq; beyond the newest command of all, should the clock be behind."""
        by_clock = divmod(now_ms, 1000)
        with self._journal.readers.connect() as connection:
            last = connection.execute(select(_T.boot, _T.seq).order_by(_T.boot.desc(), _T.seq.desc()).limit(1)).first()
        return by_clock if last is None or by_clock > (last.boot, last.seq) else (last.boot, last.seq + 1)

    def heard(self, child: str, beat: tuple[int, int], age_ms: int, now_ms: int, utc_ms: int) -> None:
        """A child is heard: what it has not answered is sent again. now_ms: monotonic.

        beat: (boot, seq) of its own newest heartbeat, which came `age_ms` ago; upon this one it is sent, so that a
        station in between can't keep it for later.
        """
        for one in self._outstanding.due(child, now_ms, utc_ms) if age_ms <= FRESH_MS else ():
            key = self._registry.key_of(child)
            if key is None:  # retired since
                return
            message: dict[int, Any] = {
                wire.KIND: wire.COMMAND,
                wire.BOOT: one.number[0],
                wire.SEQ: one.number[1],
                wire.CODE: one.code,
                wire.DEVICE: child,
                wire.UPON: list(beat),
            }
            if one.detail is not None:
                message[wire.DETAIL] = one.detail
            if one.code == wire.TEST_MODE:
                left_s = (one.expires_at_ms - utc_ms + age_ms) // 1000
                message[wire.DETAIL] = wire.encode({wire.TEST_FOR_S: min(max(1, left_s), testing.LONGEST_S)})
            self._send(child, wire.seal(message, self._station, key))

    def answered(self, connection: Connection, child: str, message: dict[int, Any], now_ms: int) -> None:
        """Notes a child's answer, in the transaction that journals it. Any other event is left alone."""
        state, detail = ANSWERS.get(message[wire.CODE]), message.get(wire.DETAIL)
        if state is None or not isinstance(detail, dict):
            return
        number, text = _number_in(detail), detail.get(wire.ANSWER_TEXT)
        if number is None or not isinstance(text, str):
            return
        connection.execute(
            update(schema.commands)
            .where(_T.child == child, _T.boot == number[0], _T.seq == number[1], _T.state.in_(_OPEN_TO[state]))
            .values(state=state, answered_at_ms=now_ms, answer=text[:400].replace("\0", " "))
        )

    def settled(self, child: str, message: dict[int, Any]) -> None:
        """The answer is committed: nothing is repeated any more."""
        detail = message.get(wire.DETAIL)
        if message[wire.CODE] not in ANSWERS or not isinstance(detail, dict):
            return
        number = _number_in(detail)
        one = self._outstanding.drop(child, number) if number else None
        if one and one.code == wire.RENEW and one.detail and message[wire.CODE] == wire.COMMAND_DONE:
            self.certified(child, one.detail)

    def waits(self, child: str, code: int) -> bool:
        """Whether a command of this code is on its way to a child."""
        return self._outstanding.waits(child, code)

    def withdraw(self, child: str, code: int, now_ms: int) -> None:
        """Takes back a command that is not answered. now_ms: UTC."""

        def work(connection: Connection) -> None:
            connection.execute(
                update(schema.commands)
                .where(_T.child == child, _T.code == code, _T.state == "waiting")
                .values(state="replaced", answered_at_ms=now_ms)
            )

        self._journal.now(work)
        self._outstanding.drop_code(child, code)

    def piece(self, child: str, number: tuple[int, int], detail: list[Any]) -> None:
        """Sends a piece of an update, as an answer to the heartbeat of that (boot, seq); never repeated."""
        key = self._registry.key_of(child)
        if key is not None:
            message = {
                wire.KIND: wire.COMMAND,
                wire.BOOT: number[0],
                wire.SEQ: number[1],
                wire.CODE: wire.PIECE,
                wire.DEVICE: child,
                wire.DETAIL: detail,
            }
            self._send(child, wire.seal(message, self._station, key))

    def expire(self, utc_ms: int) -> None:
        """Gives up what was not answered in time."""
        for child, one in self._outstanding.expired(utc_ms):
            statement = (
                update(schema.commands)
                .where(_T.child == child, _T.boot == one.number[0], _T.seq == one.number[1], _T.state == "waiting")
                .values(state="expired", answered_at_ms=utc_ms)
            )
            self._journal.later(lambda connection, statement=statement: connection.execute(statement) and None)  # type: ignore[misc]
            self._outstanding.drop(child, one.number)

    def of(self, child: str, limit: int = 50) -> Sequence[Command]:
        """A child's commands, newest first."""
        with self._journal.readers.connect() as connection:
            rows = connection.execute(
                select(schema.commands).where(_T.child == child).order_by(_T.id.desc()).limit(limit)
            ).all()
        return [_command(row) for row in rows]


def _number_in(detail: Mapping[int, Any]) -> tuple[int, int] | None:
    """(boot, seq) of the command that an answer is to; None: it names none that there could be."""
    boot, seq = detail.get(wire.ANSWER_BOOT), detail.get(wire.ANSWER_SEQ)
    return (boot, seq) if all(type(one) is int and 0 <= one <= LAST for one in (boot, seq)) else None  # type: ignore[return-value]


def _command(row: Row[Any]) -> Command:
    return Command(
        id=row.id,
        child=row.child,
        command=NAMES.get(row.code, str(row.code)),
        about=row.about,
        state=row.state,
        made_at_ms=row.made_at_ms,
        expires_at_ms=row.expires_at_ms,
        by=row.by,
        answered_at_ms=row.answered_at_ms,
        answer=row.answer,
    )
