"""The simulator's journal answers as the real one over SQLite does, whatever is asked of it."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from firmware import wire
from gateway.desk import Outcome, State, StepRefusedError
from gateway.journal import Journal
from gateway.rows import Entry, Heard
from tests.simulation import records

if TYPE_CHECKING:
    from pathlib import Path

KEY = bytes(32)
PARENTS = ["a1", "a2"]


def entry(chance: random.Random) -> Entry:
    """One of a few identities, now and then with another content."""
    kind = chance.choice((wire.ALARM, wire.EVENT))
    source, seq = chance.choice("bcd"), chance.randrange(1, 9) * 2 + (kind == wire.ALARM)
    message: dict[int, Any] = {wire.KIND: kind, wire.BOOT: 1, wire.SEQ: seq, wire.AGE: chance.randrange(9)}
    message[wire.CAUSE if kind == wire.ALARM else wire.CODE] = 1 if chance.random() < 0.9 else 2
    return Entry(source, message, wire.seal(message, source, KEY), [["g1", chance.randrange(99)]], 5, 4, exact=True)


def outcome_of(work: Any) -> Any:
    try:
        return work()
    except (StepRefusedError, KeyError) as refused:
        return type(refused).__name__


def own(code: int, subject: str, detail: object) -> Entry:
    """An event of the station's own: the same for both journals."""
    assert isinstance(detail, dict)
    number = 1000 + 100 * code + sum(map(ord, subject)) * 31 + detail[0] * 7 + detail[1]
    message = {wire.KIND: wire.EVENT, wire.BOOT: 2, wire.SEQ: number, wire.AGE: 0, wire.CODE: code, wire.DETAIL: detail}
    return Entry("hq", message, wire.seal(message, "hq", KEY), [], 7, 7, exact=True)


def test_the_simulated_journal_answers_as_the_real_one(tmp_path: Path) -> None:
    chance = random.Random(4)
    real = Journal(tmp_path / "station.db", PARENTS)
    real.start()
    world: Any = SimpleNamespace(committed=lambda *_: None)
    station: Any = SimpleNamespace(world=world, engine=None, disk_fails=False)
    simulated = records.Journal(station, records.Records(), PARENTS)
    seen: list[tuple[str, int, int]] = [("nobody", 1, 1)]
    positions: dict[Any, dict[tuple[str, int, int], int]] = {real: {}, simulated: {}}  # SQLite leaves gaps

    def keep(journal: Any, new: Entry) -> Any:
        kept = journal.now(lambda c: journal.keep(c, new))
        positions[journal].setdefault(new.identity, kept.id)
        return replace(kept, id=0)

    def step(journal: Any, identity: tuple[str, int, int], state: State, how: Outcome | None) -> Any:
        number = positions[journal].get(identity, 10**6)
        return journal.now(lambda c: journal.step(c, number, state, "op", "", how, own))

    def owed(journal: Any, parent: str, kind: int, after: tuple[str, int, int], limit: int) -> Any:
        found = journal.owed(parent, kind, positions[journal].get(after, 0), limit)
        return [replace(one, position=0) for one in found]

    try:
        for turn in range(400):
            roll = chance.random()
            work: Any
            if roll < 0.5:
                new = entry(chance)
                seen.append(new.identity)
                work = lambda journal, new=new: keep(journal, new)  # noqa: E731
            elif roll < 0.7:
                told = chance.choice(PARENTS), chance.choice(seen), chance.randrange(6), turn
                work = lambda journal, told=told: journal.now(lambda c: journal.delivered(c, *told))  # noqa: E731
            elif roll < 0.9:
                move = chance.choice(seen), chance.choice(list(State)[1:])
                how = Outcome.DRILL if move[1] is State.CLOSED else None
                work = lambda journal, move=move, how=how: step(journal, *move, how)  # noqa: E731
            elif roll < 0.93:
                again = chance.choice(PARENTS), chance.randrange(turn + 1), 0
                work = lambda journal, again=again: journal.now(lambda c: journal.owe_again(c, *again))  # noqa: E731
            else:
                last = Heard(chance.choice("bcd"), "g1", (1, turn), turn, {wire.KIND: wire.HEARTBEAT}, bool(turn % 2))
                work = lambda journal, last=last: journal.now(lambda c: journal.keep_heard(c, [last]))  # noqa: E731
            assert outcome_of(lambda: work(real)) == outcome_of(lambda: work(simulated)), turn
            identity = chance.choice(seen)
            assert real.stage(identity) == simulated.stage(identity)
            if turn % 10 == 0:
                for parent in PARENTS:
                    for kind in (wire.ALARM, wire.EVENT):
                        asked = parent, kind, chance.choice(seen), chance.randrange(1, 9)
                        assert owed(real, *asked) == owed(simulated, *asked)
                assert sorted(real.heard(), key=str) == sorted(simulated.heard(), key=str)
        assert len(simulated.records.states) > 5
    finally:
        real.stop()
