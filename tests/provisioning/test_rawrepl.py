"""The raw REPL client: the same suite through ours and through mpremote, then what only ours promises."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Protocol

import pytest
from mpremote.transport import TransportExecError
from mpremote.transport_serial import SerialTransport

from provisioning import ports
from provisioning.board import Board
from provisioning.errors import BoardFault, BoardLost
from provisioning.rawrepl import Raised, RawRepl
from tests.provisioning.virtual_board import Faults, VirtualBoard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEED = random.randrange(1 << 32)


class Client(Protocol):
    """What both clients can do."""

    def run(self, source: str) -> str: ...
    def error(self, source: str) -> str: ...
    def write(self, path: str, octets: bytes) -> None: ...
    def read(self, path: str) -> bytes: ...


class Ours:
    def __init__(self, board: Board) -> None:
        self.board = board
        self.run, self.write, self.read = board.run, board.write, board.read

    def error(self, source: str) -> str:
        with pytest.raises(Raised) as raised:
            self.board.run(source)
        return raised.value.traceback


class Theirs:
    def __init__(self, transport: SerialTransport) -> None:
        self.transport = transport
        self.write, self.read = transport.fs_writefile, transport.fs_readfile

    def run(self, source: str) -> str:
        return self.transport.exec(source).decode().replace("\r\n", "\n")

    def error(self, source: str) -> str:
        with pytest.raises(TransportExecError) as raised:
            self.transport.exec(source)
        return raised.value.error_output.strip()

    def write(self, path: str, octets: bytes) -> None:
        self.transport.fs_writefile(path, octets)


@contextlib.contextmanager
def connected(kind: str, path: Path) -> Iterator[Client]:
    if kind == "ours":
        with Board.open(str(path)) as board:
            yield Ours(board)
    else:
        transport = SerialTransport(str(path), timeout=10)
        try:
            transport.enter_raw_repl()
            yield Theirs(transport)
        finally:
            transport.serial.close()


@pytest.fixture(params=["ours", "mpremote"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[False, True], ids=["paste", "plain"])
def client(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    with VirtualBoard(tmp_path / "chip", boot_s=0.02, faults=Faults(no_paste=request.param)) as chip:
        chip.wait_for_prompt()  # mpremote asks once; a booting board does not hear it
        with connected(kind, chip.path) as made:
            yield made


def test_both_clients_get_the_same_answers(client: Client) -> None:
    assert client.run("print('hello')") == "hello\n"
    assert client.run("x = 40") == ""
    assert client.run("print(x + 2)") == "42\n"
    assert client.run("print('پولیس ہیڈکوارٹر', 'é')") == "پولیس ہیڈکوارٹر é\n"
    assert client.run("for i in range(3):\n    print(i)\n") == "0\n1\n2\n"
    assert client.run("for i in range(3000): print('%06d' % i)") == "".join(f"{i:06d}\n" for i in range(3000))
    assert client.run("y = [\n" + "".join(f"  {i},\n" for i in range(2000)) + "]\nprint(len(y))") == "2000\n"


def test_both_clients_get_the_same_exceptions(client: Client) -> None:
    assert client.error("1/0").splitlines()[-1] == "ZeroDivisionError: divide by zero"
    assert client.error("open('/missing')").splitlines()[-1] == "OSError: [Errno 2] ENOENT"
    assert "SyntaxError" in client.error("for for for")
    assert client.run("print('still there')") == "still there\n"


def test_both_clients_carry_every_octet_there_and_back(client: Client) -> None:
    for octets in (
        b"",
        bytes(range(256)) * 5,
        b"\x03\x04\x01\x02\r\n\r\n\x00" * 100,
        random.Random(SEED).randbytes(5000),
        "سفارت خانہ\n".encode() * 100,
    ):
        client.write("/file", octets)
        assert client.read("/file") == octets, f"seed {SEED}"


def test_mpremote_works_as_a_foreign_client(chip: VirtualBoard, tmp_path: Path) -> None:
    def mpremote(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mpremote", "connect", str(chip.path), *command],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done
        return done.stdout.replace("\r\n", "\n")

    chip.wait_for_prompt()
    octets = random.Random(SEED).randbytes(3000)
    (tmp_path / "sent").write_bytes(octets)
    said = mpremote("exec", "print(6*7)", "+", "fs", "cp", str(tmp_path / "sent"), ":/kept", "+", "fs", "ls", ":/")
    assert said.startswith("42\n")
    assert "3000 kept" in said
    mpremote("fs", "cp", ":/kept", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == octets == (chip.flash / "kept").read_bytes(), f"seed {SEED}"


# ------------------------------------------------------------------------------------------- getting in


def opened(chip: VirtualBoard, timeout_s: float = 5) -> RawRepl:
    repl = RawRepl(ports.open_port(str(chip.path)), str(chip.path))
    repl.enter(timeout_s)
    return repl


@pytest.mark.parametrize(
    "main",
    [
        "while True: print('line after line after line')",
        "while True: pass",
        "import time\nwhile True:\n  try: time.sleep(1)\n  except OSError: pass",
        "1/0",
        "import sys\nsys.exit(3)",
        "import machine\nmachine.reset()",
    ],
    ids=["prints endlessly", "computes", "sleeps", "fails", "exits for ever", "resets for ever"],
)
def test_gets_in_whatever_main_does(chip: VirtualBoard, main: str) -> None:
    (chip.flash / "main.py").write_text(main)
    chip.power_cut()
    with Board.open(str(chip.path)) as board:
        assert board.value("1 + 1") == 2


def test_gets_in_while_the_board_boots(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path, boot_s=1.2) as chip, Board.open(str(chip.path)) as board:
        assert board.value("1 + 1") == 2


@pytest.mark.parametrize(
    "left_by", [b"\x01", b"\x01print(1", b"\x01\x05A\x01print(", b"\x01\x05A\x01", b"1 +", b"\x02"]
)
def test_gets_in_whatever_another_client_left_behind(chip: VirtualBoard, left_by: bytes) -> None:
    repl = opened(chip)
    repl.port.write(b"\x02" + left_by)
    time.sleep(0.05)
    repl.close()
    with Board.open(str(chip.path)) as board:
        assert board.run("print('clean')") == "clean\n"


def test_a_silent_board_is_lost_in_time_and_its_port_is_free_again(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path, faults=Faults(silent=True), boot_s=0) as chip:
        while True:  # the boot loader's lines are heard or not, as the port is opened late or early
            began = time.monotonic()
            with pytest.raises(BoardLost, match="is silent|no MicroPython prompt") as lost:
                Board.open(str(chip.path), timeout_s=1.0)
            assert time.monotonic() - began < 2.5
            if "is silent" in str(lost.value):
                break
        assert "reset button" in str(lost.value)
        ports.open_port(str(chip.path)).close()


def test_a_babbling_board_is_lost_in_time_and_its_port_is_free_again(tmp_path: Path) -> None:
    with VirtualBoard(tmp_path, faults=Faults(babble=True)) as chip:
        began = time.monotonic()
        with pytest.raises(BoardLost, match="gives no MicroPython prompt"):
            Board.open(str(chip.path), timeout_s=1.0)
        assert time.monotonic() - began < 2.5
        ports.open_port(str(chip.path)).close()


# ------------------------------------------------------------------------------------------- running


def test_a_program_that_does_not_end_is_given_up_in_time(chip: VirtualBoard) -> None:
    board = Board.open(str(chip.path))
    began = time.monotonic()
    with pytest.raises(BoardLost, match="did not finish in time"):
        board.run("while True: pass", timeout_s=0.5)
    assert time.monotonic() - began < 2
    with Board.open(str(chip.path)) as again:
        assert again.value("3") == 3


def test_an_exception_keeps_its_errno_and_says_its_last_line(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)) as board:
        with pytest.raises(BoardFault, match=r"The board says: OSError: \[Errno 2\] ENOENT") as raised:
            board.read("/missing")
        assert raised.value.errno == 2
        assert "Traceback" in raised.value.traceback
        with pytest.raises(BoardFault, match="not a value"):
            board.value("object()")
        assert board.value("b'\\x00\\xff', [1, {'a': None}]") == (b"\x00\xff", [1, {"a": None}])


def test_unplugging_in_the_middle_of_a_program_is_a_lost_board(chip: VirtualBoard) -> None:
    board = Board.open(str(chip.path))
    chip.unplug()
    with pytest.raises(BoardLost, match="unplugged: plug it in again and run the same command") as lost:
        board.run("print(1)")
    assert isinstance(lost.value.__cause__, OSError)
    chip.plug()
    with Board.open(str(chip.path)) as again:
        assert again.value("4") == 4
