"""The whole button fits what a chip leaves it, with a TLS reconnect inside, and never needs more than 8 KB in one piece.

On a 32-bit MicroPython, whose objects are as large as on the chip; on the 64-bit one too, with a measured conversion.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from mpremote.romfs import VfsRomWriter  # type: ignore[import-untyped]

from firmware import wire
from provisioning import bundle
from provisioning.pki import Authority
from tests.firmware.bench import Bench, Button, Peer, Post
from tests.firmware.far_ends import Way
from tests.firmware.test_button_end_to_end import connected
from tests.parts import PROJECT, micropython, micropython32, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(90)

CHIP_KB = 100
TLS_KB = 28  # one session on the chip, P-256; here it lies outside the heap
WIDER = 2.0  # how much more a 64-bit MicroPython needs of the heap, at most; measured: 1.76 to 1.9
FROM_FILES_KB = 140  # at 32 bits, where the modules are copied into the heap
"""Without a TLS session. It does not fit beside Wi-Fi on a chip without PSRAM."""


@dataclass
class Place:
    """Buttons' folders, compiled firmware, a broker and a way to it."""

    bench: Bench
    peer: Peer
    way: Way
    image: Path
    folder: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("compiled")
    files = {path: octets for path, octets in bundle.build(PROJECT, "virtual").items() if path.endswith(".mpy")}
    for path, octets in files.items():
        target = folder / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(octets)
    image = folder / "firmware.romfs"
    image.write_bytes(rom(files))
    bench = Bench(Authority.create(), tmp_path_factory.mktemp("heap"))
    with bench.broker(), connected(bench) as peer, Way(bench.port) as way:
        yield Place(bench, peer, way, image, folder)


def rom(files: dict[str, bytes]) -> bytes:
    """A ROMFS image of the files of /firmware."""
    writer = VfsRomWriter()
    writer.opendir("firmware")
    for path, octets in files.items():
        if path.count("/") == 2:
            writer.mkfile(path.rpartition("/")[2], octets)
    writer.opendir("boards")
    for path, octets in files.items():
        if path.count("/") == 3:
            writer.mkfile(path.rpartition("/")[2], octets)
    writer.closedir()
    writer.closedir()
    octets: bytes = writer.finalise()
    return octets


@contextlib.contextmanager
def start(place: Place, device: str, python: str, heap_kb: int, *told: str) -> Iterator[tuple[Button, Post]]:
    """A button with so much heap, whose broker is behind the way."""
    post = place.bench.post(place.peer, device)
    path = place.bench.folder / device / "settings.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["brokers"][0][1] = place.way.port
    path.write_text(json.dumps(settings), encoding="utf-8")
    command = [python, "-X", f"heapsize={heap_kb}k", str(PROJECT / "tests" / "firmware" / "run_placed.py"), *told]
    env = {"MICROPYPATH": ".frozen"}
    with running(command, cwd=path.parent, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Button(process), post


def live(place: Place, button: Button, post: Post) -> dict[int, object]:
    """A day of a button in short: connect, press, every receipt, a fault, a command, a reconnect. The last heartbeat."""
    button.until("link", "up")
    number = button.press()
    post.until("alarm")
    for stage in (wire.AT_GATEWAY, wire.AT_HQ, wire.ACKNOWLEDGED):
        post.receipt(number, stage)
        button.until("alarm", list(number), stage=stage)
    button.set(loop_a=1000)
    button.until("loop", {"A": "cut"})
    button.set(loop_a=340)
    order = {wire.KIND: wire.COMMAND, wire.BOOT: 1, wire.SEQ: 1, wire.DEVICE: post.device, wire.CODE: wire.IDENTIFY}
    beat = post.until("heartbeat")
    order[wire.UPON] = [beat[wire.BOOT], beat[wire.SEQ]]
    place.peer.command(post.device, wire.seal(order, "hq", post.key))
    button.until("answer")
    place.way.cut()
    button.until("link", "down")
    button.until("link", "up")
    post.receipt(number, wire.CLOSED)
    button.until("alarm", list(number), stage=wire.CLOSED)
    beat = post.until("heartbeat", lambda beat: beat[wire.RECONNECTS] >= 1)
    assert beat[wire.HEAP_LEAST] <= beat[wire.HEAP]
    assert not [line for line in button.lines if "MemoryError" in str(line)]
    return beat


def narrow() -> str:
    """The 32-bit MicroPython."""
    found = micropython32()
    if found is None:
        pytest.skip("there is no 32-bit MicroPython on this machine")
    return found


def test_the_whole_fits_a_chip_that_executes_it_where_it_lies(place: Place) -> None:
    heap_kb = CHIP_KB - TLS_KB
    with start(place, "placed-32", narrow(), heap_kb, str(place.image)) as (button, post):
        beat = live(place, button, post)
        print(f"of {heap_kb} KB at 32 bits free: {beat[wire.HEAP]}, least {beat[wire.HEAP_LEAST]}")


def test_on_64_bits_it_fits_what_that_is_there(place: Place) -> None:
    heap_kb = int((CHIP_KB - TLS_KB) * WIDER)
    with start(place, "placed-64", micropython(), heap_kb, str(place.image)) as (button, post):
        beat = live(place, button, post)
        print(f"of {heap_kb} KB at 64 bits free: {beat[wire.HEAP]}, least {beat[wire.HEAP_LEAST]}")


def test_copied_from_files_it_takes_no_more_than_documented(place: Place) -> None:
    with start(place, "copied-32", narrow(), FROM_FILES_KB, str(place.folder)) as (button, post):
        beat = live(place, button, post)
        print(f"of {FROM_FILES_KB} KB at 32 bits free: {beat[wire.HEAP]}, least {beat[wire.HEAP_LEAST]}")


def test_nothing_after_the_start_asks_for_more_than_8_kb_at_once(place: Place) -> None:
    with start(place, "holes", micropython(), 1000, str(place.folder), "holes", "0") as (button, post):
        print("free in holes", button.until("holes")["holes"])
        live(place, button, post)
        assert button.process.poll() is None


def test_an_allocation_of_10_kb_would_be_seen(place: Place) -> None:
    with start(place, "greedy", micropython(), 1000, str(place.folder), "holes", "10") as (button, _):
        button.until("holes")
        assert "MemoryError" in button.until("error")["error"]


@pytest.mark.parametrize(("heap", "threshold"), [("150k", 2048), ("4m", -1)])
def test_only_a_small_heap_is_tidied_all_the_time(heap: str, threshold: int) -> None:
    """Without it, 72 KB were too little in two of five starts; a large one would cost too much time."""
    script = "import firmware, gc; print(gc.threshold())"
    env = {"MICROPYPATH": f"{PROJECT}:.frozen"}
    done = subprocess.run([narrow(), "-X", f"heapsize={heap}", "-c", script], env=env, capture_output=True, check=True)
    assert int(done.stdout) == threshold
