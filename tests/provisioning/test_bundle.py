"""The firmware as it lies on a board: the same everywhere, only what changed is sent, and it runs."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
import subprocess
import sys
import time

import pytest

from provisioning import bundle
from provisioning.board import Board
from provisioning.errors import BoardLost, SetupFault
from tests.parts import PROJECT
from tests.provisioning.virtual_board import VirtualBoard


SEED = random.randrange(1 << 32)
BAUD = 115200


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return bundle.build(PROJECT, "virtual")


def test_the_same_source_gives_the_same_octets_wherever_it_lies(files: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "firmware", tmp_path / "elsewhere" / "firmware")
    again = bundle.build(tmp_path / "elsewhere", "virtual")
    assert again == files
    assert bundle.version(again) == bundle.version(files)
    for octets in again.values():
        assert str(PROJECT).encode() not in octets
        assert str(tmp_path).encode() not in octets
    source = tmp_path / "elsewhere" / "firmware" / "latch.py"
    source.write_text(source.read_text() + "\nX = (1,)\n")
    changed = bundle.build(tmp_path / "elsewhere", "virtual")
    assert [path for path in files if changed[path] != files[path]] == ["/firmware/latch.mpy"]
    assert bundle.version(changed) != bundle.version(files)


def test_a_number_with_a_name_takes_nothing_of_the_heap_and_every_other_name_stays() -> None:
    ours = "KEPT = 1\nOWN = 45  # ms\nNOBODYS = 7\n_SHIFTED = 1 << 4\nTEXT = 'OWN'\n\ndef f(a):\n    return a.OWN_TOO < OWN\n"
    other = "import ours\nprint(ours.KEPT, ours.TOLD, a.ours.TOLD)\n"
    third = "from ours import KEPT\n"
    texts = {"ours": ours + "TOLD = 0x1F\n", "other": other, "third": third}
    lean = {
        path.stem: text
        for path, text in bundle.lean({Path(f"{name}.py"): text for name, text in texts.items()}).items()
    }
    assert lean["other"] == other, "one of the words may be another's"
    assert lean["third"] == third
    assert lean["ours"].splitlines() == [
        "KEPT = 1", "_OWN = const(45)  # ms", "", "_SHIFTED = 1 << 4", "TEXT = 'OWN'", "", "def f(a):", "    return a.OWN_TOO < _OWN",
        "TOLD = 0x1F",
    ]  # fmt: skip


def test_a_number_that_another_module_names_is_put_there() -> None:
    ours = "LEAST = 0x1F  # bytes\n\ndef f(n):\n    return n > LEAST\n"
    other = "import ours\nprint(ours.LEAST, ours.f(ours.LEAST + 1))\n"
    lean = bundle.lean({Path("ours.py"): ours, Path("other.py"): other})
    assert lean[Path("ours.py")] == "_LEAST = const(0x1F)  # bytes\n\ndef f(n):\n    return n > _LEAST\n"
    assert lean[Path("other.py")] == "import ours\nprint(0x1F, ours.f(0x1F + 1))\n"


def test_a_board_gets_its_own_pins_and_no_others() -> None:
    for board in ("virtual", "olimex_esp32_poe_iso"):
        built = bundle.build(PROJECT, board)
        boards = [path for path in built if path.startswith("/firmware/boards/")]
        assert boards == sorted(["/firmware/boards/__init__.mpy", f"/firmware/boards/{board}.mpy"])
        assert built["/main.py"] == (PROJECT / "firmware" / "main.py").read_bytes()
        assert all(path.endswith(".mpy") for path in built if path != "/main.py")
    with pytest.raises(SetupFault, match="no firmware for a board named 'toaster'. There is for: esp32_devkitc, "):
        bundle.build(PROJECT, "toaster")


def test_source_that_does_not_compile_is_named(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "firmware", tmp_path / "firmware")
    (tmp_path / "firmware" / "loop.py").write_text("def x(:\n")
    with pytest.raises(SetupFault, match=r"firmware/loop.py does not compile: .*SyntaxError"):
        bundle.build(tmp_path, "virtual")


def test_only_what_differs_is_sent_and_only_firmware_is_removed(chip: VirtualBoard, files: dict[str, bytes]) -> None:
    kept = {
        "settings.json": b"{}",
        "identity/key.der": b"key",
        "state/boot": b"7",
        "boot.py": b"",
        "notes.txt": b"mine",
    }
    for name, octets in kept.items():
        (chip.flash / name).parent.mkdir(exist_ok=True)
        (chip.flash / name).write_bytes(octets)
    seen: list[tuple[int, int]] = []
    with Board.open(str(chip.path)) as board:
        first = bundle.sync(board, files, lambda done, of: seen.append((done, of)))
        assert first.sent[-1] == "/main.py"
        assert (sorted(first.sent), first.kept, first.removed) == (sorted(files), [], [])
        assert seen[0] == (0, sum(map(len, files.values())))
        assert seen[-1] == (seen[0][1],) * 2
        assert seen == sorted(seen)
        second = bundle.sync(board, files)
        assert (second.sent, second.kept, second.removed) == ([], list(files), [])
        (chip.flash / "firmware" / "latch.mpy").write_bytes(b"other")
        (chip.flash / "firmware" / "latch.py").write_bytes(b"would come first")
        (chip.flash / "firmware" / "loop.mpy.part").write_bytes(b"half")
        third = bundle.sync(board, files)
        assert third.sent == ["/firmware/latch.mpy"]
        assert sorted(third.removed) == ["/firmware/latch.py", "/firmware/loop.mpy.part"]
    there = {
        "/" + path.relative_to(chip.flash).as_posix(): path.read_bytes()
        for path in chip.flash.rglob("*")
        if path.is_file()
    }
    assert there == {**files, **{f"/{name}": octets for name, octets in kept.items()}}


def test_an_interrupted_sync_goes_on_where_it_was(chip: VirtualBoard, files: dict[str, bytes]) -> None:
    chance = random.Random(SEED)
    chip.unplug()
    chip.faults.cut_after = chance.randrange(15_000, 40_000)
    chip.plug()
    with pytest.raises(BoardLost), Board.open(str(chip.path)) as board:
        bundle.sync(board, files)
    assert not (chip.flash / "main.py").exists()
    chip.plug()
    with Board.open(str(chip.path)) as board:
        went_on = bundle.sync(board, files)
        assert len(went_on.kept) > 2, f"seed {SEED}"
        assert bundle.sync(board, files).sent == []
    for path, octets in files.items():
        assert (chip.flash / path[1:]).read_bytes() == octets


def test_what_was_uploaded_boots_as_the_real_firmware(chip: VirtualBoard, files: dict[str, bytes]) -> None:
    with Board.open(str(chip.path)) as board:
        bundle.sync(board, files)
        with board.restart() as console:
            error = console.wait_for(lambda said: "error" in said, 10, "the firmware's first word")["error"]
            assert error == "settings.json is missing: enrol this button first."
            with console.back_to_board() as again:
                assert again.facts().firmware is not None


def test_bytecode_for_the_real_board_loads(chip: VirtualBoard) -> None:
    """Only what needs no chip can be imported here; loading the bytecode itself is what matters."""
    files = bundle.build(PROJECT, "olimex_esp32_poe_iso")
    with Board.open(str(chip.path)) as board:
        bundle.sync(board, files)
        board.run("import firmware.app, firmware.wire, firmware.enrolment")
        with pytest.raises(Exception, match="ImportError.*ADC"):
            board.run("import firmware.boards.olimex_esp32_poe_iso")


def test_upload_is_faster_than_mpremote(tmp_path: Path, files: dict[str, bytes]) -> None:
    """The whole real firmware over a line of 115200 baud, both in this run. Ours also reads every file back."""
    for path, octets in files.items():
        (tmp_path / "send" / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "send" / path[1:]).write_bytes(octets)
    took = {}
    for name in ("ours", "mpremote"):
        with VirtualBoard(tmp_path / name, baud=BAUD, boot_s=0.02) as chip:
            chip.wait_for_prompt()
            began = time.monotonic()
            if name == "ours":
                with Board.open(str(chip.path)) as board:
                    bundle.sync(board, files)
            else:
                sent = [str(tmp_path / "send" / "firmware"), str(tmp_path / "send" / "main.py"), ":/"]
                subprocess.run(
                    [sys.executable, "-m", "mpremote", "connect", str(chip.path), "fs", "cp", "-r", *sent],
                    check=True,
                    capture_output=True,
                    timeout=90,
                )
            took[name] = time.monotonic() - began
            for path, octets in files.items():
                assert (chip.flash / path[1:]).read_bytes() == octets
            print(f"{name}: {took[name]:.1f} s, {chip.from_host} octets sent", end="; ")
    print(f"for {len(files)} files of {sum(map(len, files.values()))} bytes at {BAUD} baud")
    assert took["ours"] < 0.7 * took["mpremote"]
