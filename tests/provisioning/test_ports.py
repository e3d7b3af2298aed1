"""Ports: who holds them, who may open them, and what is said when nothing is there."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import serial
from serial import rfc2217
from serial.tools import list_ports

from provisioning import ports
from provisioning.board import Board
from provisioning.errors import BoardLost, BoardNotFound, PortFault
from tests.parts import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.provisioning.virtual_board import VirtualBoard

HOLD = "import serial, sys, time\nport = serial.Serial(sys.argv[1]{}); print('held', flush=True); time.sleep(60)"


@pytest.mark.parametrize("how", ["", ", exclusive=True"], ids=["open", "locked"])
def test_who_holds_the_port_is_named(chip: VirtualBoard, how: str) -> None:
    with running([sys.executable, "-c", HOLD.format(how), str(chip.path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(PortFault, match=rf"is held by python\S* \(process {other.pid}\): end that program"):
            Board.open(str(chip.path))
    Board.open(str(chip.path)).close()


def test_two_boards_of_this_program_can_not_share_a_port(chip: VirtualBoard) -> None:
    with Board.open(str(chip.path)), pytest.raises(PortFault, match="is held by"):
        Board.open(str(chip.path))


def test_without_permission_the_exact_remedy_is_said(chip: VirtualBoard) -> None:
    device = str(chip.path.resolve())
    os.chmod(device, 0 if os.geteuid() else 0o600)
    said, tell = os.pipe()
    child = os.fork()
    if not child:  # root may open everything: another user tries
        try:
            if not os.geteuid():
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            Board.open(device)
        except PortFault as fault:
            os.write(tell, str(fault).encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(said) as words:
        assert "not in the group dialout. Run `sudo usermod -aG dialout $USER`, sign out and in again" in words.read()


def test_a_port_that_is_gone_or_none_is_not_found(chip: VirtualBoard, tmp_path: Path) -> None:
    chip.unplug()
    with pytest.raises(BoardNotFound, match="is the board unplugged"):
        Board.open(str(chip.path))
    (tmp_path / "file").touch()
    with pytest.raises(BoardNotFound, match="is not a serial port"):
        Board.open(str(tmp_path / "file"))


def test_pulling_the_plug_is_said_as_such(chip: VirtualBoard) -> None:
    port = ports.open_port(str(chip.path))
    chip.unplug()
    with pytest.raises(OSError) as problem:
        while True:
            port.read(1)
    lost = ports.fault(problem.value, "/dev/ttyUSB0")
    assert isinstance(lost, BoardLost)
    assert "/dev/ttyUSB0 was unplugged: plug it in again" in str(lost)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (13, PortFault, "usermod -aG dialout"),
        (11, PortFault, "another program"),
        (16, PortFault, "another program"),
        (2, BoardNotFound, "unplugged"),
        (5, BoardLost, "plug it in again"),
        (71, BoardLost, "Protocol error"),
    ],
)
def test_every_errno_has_its_words(
    number: int, kind: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "holder", lambda _path: None)
    problem = OSError(number, os.strerror(number))
    assert type(ports.fault(problem, "/dev/ttyUSB9")) is kind
    assert words in str(ports.fault(problem, "/dev/ttyUSB9"))


def test_candidates_are_usb_ports_with_their_names_and_what_the_user_gave(
    chip: VirtualBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = SimpleNamespace(device="/dev/ttyUSB0", manufacturer="Silicon Labs", product="CP2102N", vid=0x10C4)
    console = SimpleNamespace(device="/dev/ttyS0", manufacturer=None, product=None, vid=None)
    monkeypatch.setattr(list_ports, "comports", lambda: _Sortable.all(adapter, console))
    found = ports.candidates([str(chip.path), "/dev/none", "rfc2217://bench:4000"])
    assert [str(port) for port in found] == [
        "/dev/ttyUSB0 (Silicon Labs CP2102N)",
        str(chip.path),
        "rfc2217://bench:4000",
    ]


class _Sortable(SimpleNamespace):
    @classmethod
    def all(cls, *ports: SimpleNamespace) -> list[_Sortable]:
        return [cls(**vars(port)) for port in ports]

    def __lt__(self, other: _Sortable) -> bool:
        return self.device < other.device


class _Adapter(serial.Serial):
    """What a serial server has in hand: the board's pty, with the reset lines that a pty lacks."""

    chip: VirtualBoard
    dtr = rts = True
    cts = dsr = ri = cd = False
    resets = 0

    def _update_dtr_state(self) -> None: ...

    def _update_rts_state(self) -> None: ...

    def __setattr__(self, name: str, value: object) -> None:
        was = self.in_reset if name in {"dtr", "rts"} else False
        super().__setattr__(name, value)
        if was and not self.in_reset:
            self.resets += 1
            self.chip.power_cut()

    @property
    def in_reset(self) -> bool:
        """EN is low when RTS is on and DTR is off: the two transistors of every ESP32 board."""
        return bool(self.rts and not self.dtr)


@contextlib.contextmanager
def serial_server(chip: VirtualBoard) -> Iterator[tuple[str, _Adapter]]:
    """An RFC 2217 server on loopback with the board behind it, for one client after another."""
    _Adapter.chip = chip
    adapter = _Adapter(str(chip.path), timeout=0.02)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    ending = threading.Event()

    def serve() -> None:
        while not ending.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(0.005)
                manager = rfc2217.PortManager(adapter, SimpleNamespace(write=connection.sendall))
                while not ending.is_set():
                    try:
                        came = connection.recv(1024)
                        if not came:
                            break
                        adapter.write(b"".join(manager.filter(came)))
                    except TimeoutError:
                        pass
                    except OSError:
                        break
                    if waiting := adapter.in_waiting:
                        connection.sendall(b"".join(manager.escape(adapter.read(waiting))))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rfc2217://127.0.0.1:{listener.getsockname()[1]}", adapter
    finally:
        ending.set()
        thread.join()
        listener.close()
        adapter.close()


def test_a_board_behind_a_serial_server_works_and_its_reset_line_does(chip: VirtualBoard) -> None:
    (chip.flash / "main.py").write_text(
        "import json, machine, time\nprint(json.dumps({'started': machine.reset_cause()}))\nwhile True: time.sleep(1)"
    )
    octets = bytes(range(256)) * 30
    with serial_server(chip) as (url, adapter):
        with Board.open(url) as board:
            board.write("/file", octets)
            assert board.read("/file") == octets
            adapter.resets = 0
            with board.restart() as console:
                console.wait_for(lambda said: said.get("started") == 2, 5, "the start")
                console.power_cut()
                console.wait_for(lambda said: said.get("started") == 1, 5, "the start after the reset line")
                assert adapter.resets == 1
        with Board.open(url) as board:
            assert board.value("8") == 8


def test_when_nothing_appears_the_usual_reasons_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_ports, "comports", list)
    with pytest.raises(BoardNotFound) as nothing:
        ports.wait_for_any(timeout_s=0.1)
    for word in ("only charge", "driver", "brltty"):
        assert word in str(nothing.value)
