"""What survives a power cut: everything that was promised, whatever moment it comes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from pathlib import Path
from typing import IO, Any, Self

import pytest

from firmware import outbox, wire
from firmware.flash import Flash
from firmware.latch import Alarm
from firmware.outbox import Outbox
from tests.parts import micropython, running

PROJECT = Path(__file__).parents[2]


class PowerCut(BaseException):
    """The power is gone; nothing in the firmware can catch it."""


class CuttingDisk:
    """`os` and `open` for a Flash, until `steps` steps were done. A step is an operation, or one octet of a write."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self) -> None:
        """One step further, or the power goes."""
        if self.steps <= 0:
            raise PowerCut
        self.steps -= 1

    def listdir(self, path: str) -> list[str]:
        return os.listdir(path)

    def mkdir(self, path: str) -> None:
        self.step()
        Path(path).mkdir()

    def rename(self, old: str, new: str) -> None:
        self.step()
        Path(old).rename(new)

    def remove(self, path: str) -> None:
        self.step()
        Path(path).unlink()

    def open(self, path: str, mode: str) -> Any:  # noqa: ANN401 - as open's
        if mode == "rb":
            return Path(path).open("rb")
        self.step()
        return CuttingFile(self, Path(path).open("wb", buffering=0))


class CuttingFile:
    """A file whose octets arrive one by one."""

    def __init__(self, disk: CuttingDisk, file: IO[bytes]) -> None:
        self.disk = disk
        self.file = file

    def write(self, octets: bytes) -> None:
        for n in range(len(octets)):
            self.disk.step()
            self.file.write(octets[n : n + 1])

    def flush(self) -> None:
        self.disk.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def opened(folder: Path, steps: int = 10**9) -> tuple[Outbox, CuttingDisk, list[str]]:
    """An outbox over a folder, the disk under it, and its complaints."""
    disk, complaints = CuttingDisk(steps), list[str]()
    return Outbox(Flash(str(folder), disk, disk.open), complaints.append, bytes), disk, complaints  # counts from 1


def numbers(box: Outbox) -> dict[tuple[int, int], int]:
    """(boot, seq) -> stage of the open alarms."""
    return {(alarm.boot, alarm.seq): alarm.stage for alarm in box.alarms}


def test_boot_grows_at_every_start(tmp_path: Path) -> None:
    boots = [opened(tmp_path / "state")[0].boot for _ in range(5)]
    assert boots == [boots[0] + n for n in range(5)]


def test_a_state_folder_that_was_lost_repeats_no_number(tmp_path: Path) -> None:
    firsts = [Outbox(Flash(str(tmp_path / f"state-{n}")), print).boot for n in range(20)]
    assert len(set(firsts)) == 20
    assert max(firsts) <= 1 << 24


def test_boot_is_never_used_twice_wherever_the_power_is_cut(tmp_path: Path) -> None:
    """Every start is cut one step later than the one before; a boot counts as used once the outbox was opened."""
    used, last = [], 0
    for steps in [*range(80), *range(80)]:
        try:
            box, _, complaints = opened(tmp_path / "state", steps)
        except PowerCut:
            continue
        assert complaints == []
        used.append(box.boot)
        assert box.boot > last
        last = box.boot
    assert len(used) > 50


@pytest.mark.parametrize("content", [b"", b"\xff" * 7, b"\xa1\x01"])
@pytest.mark.parametrize("name", ["boot-a", "boot-b"])
def test_one_damaged_counter_is_survived(tmp_path: Path, name: str, content: bytes) -> None:
    for _ in range(3):
        opened(tmp_path)
    (tmp_path / name).write_bytes(content)
    assert opened(tmp_path)[0].boot == 4
    (tmp_path / name).unlink()
    assert opened(tmp_path)[0].boot == 5


def test_two_damaged_counters_never_lead_back(tmp_path: Path) -> None:
    opened(tmp_path)
    for name in ("boot-a", "boot-b"):
        (tmp_path / name).write_bytes(b"")
    box, _, complaints = opened(tmp_path)
    assert box.boot > 1_000_000
    assert len(complaints) == 1


def test_lost_counters_continue_above_every_record(tmp_path: Path) -> None:
    for _ in range(6):
        box, _, _ = opened(tmp_path)
    box.keep_alarm(Alarm(*box.number(), 0, 1, 0), 0)
    for name in ("boot-a", "boot-b"):
        (tmp_path / name).unlink()
    assert opened(tmp_path)[0].boot == 7


def story(box: Outbox, done: list[str]) -> None:
    """Two presses, an event and their receipts; `done` says how far it came."""
    first, second = Alarm(*box.number(), -30, 1, 0), Alarm(*box.number(), 70, 1, 2)
    box.keep_alarm(first, 20)
    done.append("first")
    box.add_event(30, 30, wire.LOOP_CUT, "A")
    done.append("event")
    box.keep_alarm(second, 80)
    done.append("second")
    first.stage = wire.AT_HQ
    box.keep_alarm(first, 120)
    done.append("first at HQ")
    box.remove_event(box.events[-1])
    done.append("event gone")
    box.remove_alarm(first.boot, first.seq)
    done.append("first closed")


def test_every_prefix_of_writes_leaves_what_was_promised(tmp_path: Path) -> None:
    """The story is cut after each step there is; afterwards nothing promised is missing and nothing is half there."""
    steps, finished = 0, False
    while not finished:
        folder, done = tmp_path / str(steps), list[str]()
        boot = opened(folder)[0].boot
        try:
            box, disk, _ = opened(folder)
            disk.steps = steps
            story(box, done)
            finished = True
        except PowerCut:
            pass
        box, _, complaints = opened(folder)
        assert complaints == [], f"cut after {steps} steps"
        assert box.boot == boot + 2
        kept = numbers(box)
        first, second, event = (boot + 1, 1), (boot + 1, 2), (boot + 1, 3)
        if "first" in done and "event gone" not in done:
            assert kept[first] in ({2} if "first at HQ" in done else {0, 2} if "second" in done else {0})
        if "second" in done:
            assert kept[second] == 0
        if "event" in done and "first at HQ" not in done:
            assert box.events == [event]
            assert box.event(event, 500)[wire.SUBJECT] == "A"
        if "first closed" in done:
            assert list(kept) == [second]
        assert all(alarm.resumed == 1 for alarm in box.alarms)
        steps += 1
    assert steps > 80


def test_age_counts_on_after_a_power_cut(tmp_path: Path) -> None:
    box, _, _ = opened(tmp_path)
    box.keep_alarm(Alarm(*box.number(), 1000, 1, 0), 1050)
    box.add_event(5000, 4700, wire.TAMPERED, None, "cut")
    event = box.events[0]
    assert box.event(event, 6000) == {0: 2, 1: 1, 2: 2, 3: 1300, 7: 5, 9: "cut"}
    opened(tmp_path)
    box, _, _ = opened(tmp_path)
    assert box.alarms[0].message(700) == {0: 1, 1: 1, 2: 1, 3: 750, 4: 2, 5: 1, 6: 0}
    assert box.event(event, 700) == {0: 2, 1: 1, 2: 2, 3: 1000, 4: 2, 7: 5, 9: "cut"}


def test_a_damaged_record_is_said_and_never_sent(tmp_path: Path) -> None:
    box, _, _ = opened(tmp_path)
    for _ in range(2):
        box.keep_alarm(Alarm(*box.number(), 0, 1, 0), 0)
        box.add_event(0, 0, wire.LOOP_CUT, "A")
    for name in ("a-1-1", "e-1-2"):
        octets = bytearray((tmp_path / name).read_bytes())
        octets[5] ^= 4
        (tmp_path / name).write_bytes(octets)
    (tmp_path / "a-1-99").write_bytes((tmp_path / "a-1-3").read_bytes())
    (tmp_path / "e-x-1").write_bytes(b"not ours")
    box, _, complaints = opened(tmp_path)
    assert list(numbers(box)) == [(1, 3)]
    assert box.event((1, 2), 0) is None
    assert box.events == [(1, 4)]
    assert complaints == ["the record a-1-1 is damaged", "the record a-1-99 is damaged", "the record e-1-2 is damaged"]


def test_full_events_drop_the_oldest_count_it_and_report_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 5)
    box, _, _ = opened(tmp_path)
    given = [box.add_event(0, 0, wire.LOOP_CUT, "A") for _ in range(8)]
    assert box.events == given[3:] == [(1, 4), (1, 5), (1, 6), (1, 7), (1, 8)]
    assert not box.report_dropped(0), "no room"
    box, _, _ = opened(tmp_path)
    assert box.dropped == 3
    box.remove_event(box.events[0])
    assert box.report_dropped(0)
    report = box.event(box.events[-1], 0)
    assert (report[wire.CODE], report[wire.DETAIL]) == (wire.EVENTS_DROPPED, 3)
    assert not box.report_dropped(0)
    assert opened(tmp_path)[0].dropped == 0


def test_a_report_of_dropped_events_that_is_dropped_itself_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 3)
    box, _, _ = opened(tmp_path)
    for _ in range(5):
        box.add_event(0, 0, wire.LOOP_CUT, "A")
    box.remove_event(box.events[0])
    assert box.report_dropped(0)
    for _ in range(3):  # of the three that go the last one is the report of two
        box.add_event(0, 0, wire.LOOP_CUT, "A")
    assert box.dropped == 3 + 2


def test_full_of_events_cut_anywhere_never_undercounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_EVENTS", 3)
    for steps in range(120):
        folder = tmp_path / str(steps)
        box, disk, _ = opened(folder)
        disk.steps, given = steps, 0
        try:
            for _ in range(5):
                box.add_event(0, 0, wire.LOOP_CUT, "A")
                given += 1
        except PowerCut:
            pass
        box, _, complaints = opened(folder)
        assert complaints == []
        assert len(box.events) <= 3
        assert given <= len(box.events) + box.dropped <= given + 2


def test_power_cuts_on_real_micropython(tmp_path: Path) -> None:
    """Real SIGKILLs while the outbox writes without a pause: what it had said to be kept is there, and is whole."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    command = [micropython(), "-X", "heapsize=2m", str(PROJECT / "tests" / "firmware" / "run_outbox.py")]
    kept: set[tuple[int, int]] = set()
    last = 0
    for _ in range(8):
        env = {"MICROPYPATH": f"{PROJECT}:.frozen"}
        with running(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(rng.randrange(2, 200))]
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        for word, *rest in (line.split() for line in lines if line.endswith(b"\n")):
            pair = (int(rest[0]), int(rest[1])) if len(rest) == 2 else (0, 0)
            if word == b"boot":
                assert int(rest[0]) > last, f"seed {seed}"
                last = int(rest[0])
            elif word == b"kept":
                kept.add(pair)
            elif word == b"removing":
                kept.discard(pair)
            else:
                pytest.fail(f"seed {seed}: {word!r} {rest}")
    box, _, complaints = opened(tmp_path / "state")
    assert complaints == []
    assert kept <= set(numbers(box)), f"seed {seed}"
    assert len(kept) > 20


def test_every_cut_of_a_real_littlefs_leaves_what_was_promised() -> None:
    done = subprocess.run(
        [micropython(), "-X", "heapsize=8m", str(PROJECT / "tests" / "firmware" / "run_littlefs.py")],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    word, _, cuts = done.stdout.partition(" ")
    assert word == "passed", done.stdout + done.stderr
    assert int(cuts) > 10


def test_two_thousand_events_are_sent_in_order_with_a_few_numbers_in_memory(tmp_path: Path) -> None:
    """Over restarts, with receipts out of order, and with records that were damaged meanwhile."""
    box, _, _ = opened(tmp_path)
    given = [box.add_event(n, n, wire.LOOP_CUT, "A") for n in range(1200)]
    box, _, complaints = opened(tmp_path)
    given += [box.add_event(n, n, wire.LOOP_CUT, "B") for n in range(800)]
    assert (box.waiting, len(box.events)) == (2000, outbox.HEAD)
    given.append(box.add_event(0, 0, wire.LOOP_CUT))
    assert not box.holds(given.pop(0))
    for n in (3, 700, 1500):
        (tmp_path / f"e-{given[n][0]}-{given[n][1]}").write_bytes(b"x")
    damaged = [given[n] for n in (3, 700, 1500)]
    sent = []
    chance = random.Random(5)
    while box.events:
        assert box.waiting >= len(box.events)
        assert len(box.events) >= min(16, box.waiting)
        number = chance.choice(box.events[:8])
        assert box.holds(number)
        assert given[-1] in sent or box.holds(given[-1])
        if box.event(number, 5000) is not None:
            sent.append(number)
            box.remove_event(number)
            assert not box.holds(number)
    assert box.waiting == 0
    assert len(complaints) == 3
    assert sorted(sent) == [number for number in given if number not in damaged]
    assert all(abs(sent.index(number) - n) < 60 for n, number in list(enumerate(given))[::50] if number in sent)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("e-")]


def test_the_age_of_an_event_is_right_now_and_after_a_restart(tmp_path: Path) -> None:
    box, _, _ = opened(tmp_path)
    number = box.add_event(1000, 400, wire.LOOP_CUT, "A")
    assert box.event(number, 9000)[wire.AGE] == 8600
    assert set(box.event(number, 9000)) == {wire.KIND, wire.BOOT, wire.SEQ, wire.AGE, wire.CODE, wire.SUBJECT}
    box, _, _ = opened(tmp_path)
    message = box.event(number, 50)
    assert (message[wire.AGE], message[wire.RESUMED]) == (650, 1)


def test_wear_and_memory_of_two_thousand_events_on_a_real_littlefs() -> None:
    """What docs/firmware.md says of both: counted on the board's file system over a chip in memory."""
    done = subprocess.run(
        [micropython(), "-X", "heapsize=16m", str(PROJECT / "tests" / "firmware" / "run_wear.py")],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["erased_per_event"] < 0.4
    assert found["erased_per_alarm"] < 2
    assert found["erased_per_appended_record"] > 0.9, "then a log would be the better choice"
    assert found["heap_of_the_outbox"] < 12_000  # 64-bit: about half of it on the chip
