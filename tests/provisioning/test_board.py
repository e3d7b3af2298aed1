"""The board: facts, files that are old or new and nothing between, restarting, and its console."""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from provisioning import ports
from provisioning.board import HOLD, Board, Console
from provisioning.errors import BoardFault, BoardLost, ProvisioningError, SelfTestFailed
from provisioning.rawrepl import Raised
from tests.provisioning.virtual_board import WATCHDOG, Faults, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SEED = random.randrange(1 << 32)
CUTS = 14

SPEAKS = """
import json, machine, time, sys
print("not json")
print(json.dumps({"started": machine.reset_cause(), "mark": machine.RTC().memory().decode()}))
n = 0
while True:
    print(json.dumps({"n": n}))
    n += 1
    time.sleep_ms(20)
"""

# What our firmware does that matters here: it obeys the mark, and starts a watchdog that nothing stops.
WATCHED = """
import machine
if machine.RTC().memory() == b"tocsin-hold":
    machine.RTC().memory(b"")
    print('{"held": true}')
else:
    import sys, time
    sys.modules["firmware.boards.real"] = machine
    watchdog = machine.WDT(timeout=700)
    print('{"started": %d}' % machine.reset_cause())
    try:
        while True:
            watchdog.feed()
            time.sleep_ms(50)
    except KeyboardInterrupt:
        pass
"""


def has(name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda said: name in said


# ------------------------------------------------------------------------------------------- facts


def test_facts_of_a_bare_board(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)) as board:
        facts = board.facts()
    assert (facts.port, facts.chip, facts.mac, facts.platform) == (
        str(chip.path),
        "virtual",
        "24:0a:c4:00:00:01",
        "linux",
    )
    assert facts.micropython >= "1.2"
    assert (facts.firmware, facts.identity, facts.pending, facts.point) == (None, None, None, None)
    assert facts.free_kb == 2048


def test_facts_of_an_enrolled_board(chip: VirtualBoard) -> None:
    (chip.flash / "firmware").mkdir()
    (chip.flash / "firmware" / "__init__.py").write_text("VERSION = '9.8'")
    (chip.flash / "settings.json").write_text('{"id": "khi-cn-main-gate"}')
    with Board.open(str(chip.path)) as board:
        assert board.facts().identity == "khi-cn-main-gate"  # by firmware that knows no enrolment
        state = {"id": "khi-cn-main-gate", "pending": "other", "point": "04ab"}
        (chip.flash / "firmware" / "enrolment.py").write_text(f"def state(): return {state}")
        facts = board.facts()
        assert board.value("[m for m in __import__('sys').modules if 'firmware' in m]") == []
    assert (facts.firmware, facts.identity, facts.pending, facts.point) == ("9.8", "khi-cn-main-gate", "other", "04ab")


def test_facts_of_a_board_with_broken_firmware(chip: VirtualBoard) -> None:
    (chip.flash / "firmware").mkdir()
    (chip.flash / "firmware" / "__init__.mpy").write_bytes(b"not bytecode")
    (chip.flash / "settings.json").write_text("{")
    with Board.open(str(chip.path)) as board:
        facts = board.facts()
    assert (facts.firmware, facts.identity) == (None, None)


def test_the_clock_is_set_and_starts_unset(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)) as board:
        assert board.value("__import__('machine').RTC().datetime()")[0] == 2000
        board.set_clock()
        year, month, day, _, hour, minute, second, _ = board.value("__import__('machine').RTC().datetime()")
    shown = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    assert abs((datetime.now(UTC) - shown).total_seconds()) < 5


# ------------------------------------------------------------------------------------------- files


def test_files_are_written_read_listed_and_removed(chip: VirtualBoard) -> None:
    octets = random.Random(SEED).randbytes(20_000) + bytes(range(256))
    seen: list[tuple[int, int]] = []
    with Board.open(str(chip.path)) as board:
        board.write("/deep/er/file", octets, lambda done, of: seen.append((done, of)))
        board.write("/empty", b"")
        board.write("/deep/er/file", octets)
        assert board.read("/deep/er/file") == octets, f"seed {SEED}"
        sums = {"/deep/er/file": hashlib.sha256(octets).hexdigest(), "/empty": hashlib.sha256(b"").hexdigest()}
        assert board.hashes() == sums
        assert list(board.hashes("/deep")) == list(board.hashes("/deep/er/file")) == ["/deep/er/file"]
        assert board.hashes("/none") == {}
        board.remove("/empty")
        board.remove("/empty")
        assert list(board.hashes()) == ["/deep/er/file"]
    assert seen == sorted(seen)
    assert seen[-1] == (len(octets), len(octets))


def test_an_upload_cut_anywhere_leaves_the_old_file_or_the_new_one(chip: VirtualBoard) -> None:
    """The plug is pulled after k octets from the host, for many k; then the same is done again."""
    chance = random.Random(SEED)
    old, path = b"the old one", chip.flash / "identity" / "cert.der"
    with Board.open(str(chip.path)) as board:
        board.write("/identity/cert.der", chance.randbytes(7000))
    total = chip.from_host
    cut_in_writing = 0
    for cut in sorted(chance.randrange(1, total + 40) for _ in range(CUTS)):
        new = chance.randbytes(7000)
        path.write_bytes(old)
        chip.unplug()
        chip.faults.cut_after = cut
        chip.plug()
        chip.wait_for_prompt()
        began = time.monotonic()
        try:
            with Board.open(str(chip.path), timeout_s=5) as board:
                cut_in_writing += 1
                board.write("/identity/cert.der", new)
        except BoardLost:
            assert not chip.plugged, f"seed {SEED}, cut {cut}"
            assert path.read_bytes() in {old, new}, f"seed {SEED}, cut {cut}"
        assert time.monotonic() - began < 6, f"seed {SEED}, cut {cut}"
        chip.faults.cut_after = None
        chip.plug()
        chip.wait_for_prompt()
        with Board.open(str(chip.path)) as board:
            board.write("/identity/cert.der", new)
        assert path.read_bytes() == new, f"seed {SEED}, cut {cut}"
        assert [file.name for file in path.parent.iterdir()] == ["cert.der"]
    assert cut_in_writing > CUTS / 3, f"seed {SEED}"


def test_a_board_that_hashes_wrongly_never_gets_the_file_its_name(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path, faults=Faults(wrong_hashes=True)) as chip, Board.open(str(chip.path)) as board:
        (chip.flash / "file").write_bytes(b"old")
        with pytest.raises(BoardFault, match="reads back from the flash differently than it was sent, twice"):
            board.write("/file", b"new" * 900)
        assert (chip.flash / "file").read_bytes() == b"old"
        assert [file.name for file in chip.flash.iterdir()] == ["file"]
        assert board.value("2") == 2


def test_a_lost_octet_costs_a_second_try_and_no_more(chip: VirtualBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provisioning.board.STEP_S", 0.7)
    octets = random.Random(SEED).randbytes(5000)
    with Board.open(str(chip.path)) as board:
        board.hashes()
        chip.faults.drop_at = chip.from_host + 3000
        board.write("/file", octets)
    assert chip.faults.drop_at is None
    assert (chip.flash / "file").read_bytes() == octets


def test_a_full_flash_is_said_with_figures_and_changes_nothing(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path, faults=Faults(flash=16_384)) as chip, Board.open(str(chip.path)) as board:
        board.write("/fits", b"x" * 4000)
        with pytest.raises(BoardFault, match=r"/fits needs 30000 bytes beside what is there, and 12288 are free"):
            board.write("/fits", random.Random(1).randbytes(30_000))
        assert (chip.flash / "fits").read_bytes() == b"x" * 4000
        assert [file.name for file in chip.flash.iterdir()] == ["fits"]
        board.write("/small", b"y")
        assert board.facts().free_kb == 8


def test_what_the_board_raises_while_a_file_is_sent_is_said(chip: VirtualBoard) -> None:
    (chip.flash / "file").write_bytes(b"")
    with Board.open(str(chip.path)) as board:
        with pytest.raises(Raised, match="OSError: 20.*Not a directory"):
            board.write("/file/below", b"x" * 5000)
        assert board.value("5") == 5


def test_two_boards_at_once(tmp_path: Path) -> None:
    content = {name: random.Random(name).randbytes(30_000) for name in ("one", "two")}
    failures: list[ProvisioningError] = []

    def provision(chip: VirtualBoard, octets: bytes) -> None:
        try:
            with Board.open(str(chip.path)) as board:
                board.write("/file", octets)
                assert board.read("/file") == octets
        except ProvisioningError as failure:
            failures.append(failure)

    with (
        VirtualBoard(tmp_path / "one", mac="240ac4000001") as one,
        VirtualBoard(tmp_path / "two", mac="240ac4000002") as two,
    ):
        threads = [threading.Thread(target=provision, args=(chip, content[chip.folder.name])) for chip in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        for chip in (one, two):
            assert (chip.flash / "file").read_bytes() == content[chip.folder.name]


# ------------------------------------------------------------------------------------------- the console


def test_restart_says_what_runs_and_carries_the_mark(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(SPEAKS)
    with Board.open(str(chip.path)) as board, board.restart(b"tocsin-bench") as console:
        assert console.wait_for(has("started"), 5, "the start")["mark"] == "tocsin-bench"
        first = console.wait_for(has("n"), 5, "a line")["n"]
        assert console.wait_for(has("n"), 5, "a line")["n"] == first + 1  # the next one, not the same again
        assert console.wait_for(has("started"), 5, "the start", since=0)["started"] == 2
        with pytest.raises(SelfTestFailed, match=r"the press did not happen within 0.1 s.*last words: \{\"n\":"):
            console.wait_for(has("pressed"), 0.1, "the press")
        with console.back_to_board() as again:
            assert again.value("7") == 7


def test_a_console_whose_board_is_unplugged_is_lost_at_once(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(SPEAKS)
    with Board.open(str(chip.path)) as board, board.restart() as console:
        console.wait_for(has("n"), 5, "a line")
        threading.Timer(0.1, chip.unplug).start()
        began = time.monotonic()
        with pytest.raises(BoardLost, match="unplugged"):
            console.wait_for(has("pressed"), 10, "the press")
        assert time.monotonic() - began < 2
        with pytest.raises(BoardLost):
            console.power_cut()
        with pytest.raises(BoardLost):
            console.back_to_board()


def test_power_cut_starts_the_firmware_again(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(SPEAKS)
    with Board.open(str(chip.path)) as board, board.restart() as console:
        for _ in range(2):
            console.wait_for(has("n"), 5, "a line")
            before = len(console.said)
            console.power_cut()  # a pty has no reset line: by way of the prompt
            console.wait_for(has("started"), 5, "the start", since=before)
        chip.power_cut()
        console.wait_for(lambda said: said.get("started") == 1, 5, "the start")


def test_firmware_with_a_watchdog_is_held_and_stays_so(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(WATCHED)
    chip.power_cut()
    chip.wait_for_program()
    with Board.open(str(chip.path)) as board:
        starts = chip.starts
        time.sleep(1.0)  # longer than the watchdog waits
        assert board.value("__import__('machine').RTC().memory()") == b""
        assert chip.starts == starts
    assert HOLD == b"tocsin-hold"


def test_the_virtual_watchdog_bites(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(WATCHED.replace("            watchdog.feed()\n", ""))
    chip.power_cut()
    with Console_of(chip) as console:
        console.wait_for(lambda said: said.get("started") == WATCHDOG, 5, "the watchdog's reset")


def Console_of(chip: VirtualBoard) -> Console:
    from provisioning.rawrepl import RawRepl

    return Console(RawRepl(ports.open_port(str(chip.path)), str(chip.path)))


# ------------------------------------------------------------------------------------------- the virtual chip


def test_the_chip_keeps_what_a_chip_keeps(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)) as board:
        board.run(
            "import esp32\nn = esp32.NVS('tocsin')\nn.set_i32('boot', 41)\nn.set_blob('key', b'\\x00\\xff')\nn.commit()"
        )
        board.run("n.set_i32('boot', 42)\nimport machine\nmachine.RTC().memory(b'kept')")
        board.run("import gc")
    for cut in (False, True):
        if cut:
            chip.unplug()
            chip.plug()
        with Board.open(str(chip.path)) as board:
            assert board.value("__import__('machine').RTC().memory()") == (b"" if cut else b"kept")
            board.run("import esp32\nn = esp32.NVS('tocsin')\nroom = bytearray(4)")
            assert board.value("n.get_i32('boot'), n.get_blob('key', room), bytes(room[:2])") == (41, 2, b"\x00\xff")
            with pytest.raises(Raised) as missing:
                board.run("n.get_i32('none')")
            assert missing.value.errno == -4354


def test_the_radio_joins_only_with_the_right_password(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)) as board:
        board.run("import network\nw = network.WLAN(network.STA_IF)\nw.active(True)\nw.connect('Gate', 'right')")
        assert board.value("w.isconnected(), w.status()") == (False, 201)
        chip.air({"ssid": "Gate", "password": "other", "rssi": -71, "up": True})
        assert board.value("w.isconnected(), w.status()") == (False, 210)
        chip.air({"ssid": "Gate", "password": "right", "rssi": -71, "up": True})
        assert board.value("w.isconnected(), w.status(), w.status('rssi')") == (True, 1010, -71)
        chip.air({"ssid": "Gate", "password": "right", "up": False})
        assert board.value("w.isconnected()") is False


def test_unplugging_takes_the_chips_processes_along(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)):
        child = chip.pid
        assert child is not None
        os.kill(child, 0)
    chip.unplug()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert json.loads((chip.state / "efuse.json").read_text())["mac"] == "240ac4000001"
