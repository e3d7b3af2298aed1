"""The whole command, for real: a board on a serial port becomes a button that a real headquarters believes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import threading
import time
import tty
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from demo.process import wait_until
from demo.workshop import SITE_ID, Hands, Workshop
from demo.world import HQ
from provisioning import images, sites
from provisioning.benchlog import BenchLog
from tests.operator import Operator
from tests.provisioning import esp_image, rom_loader
from tests.provisioning.virtual_board import VirtualBoard

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

STEPS = [
    "find", "micropython", "headquarters' key", "firmware", "key", "certificate", "enrolment", "settings", "clock", "start",
    "loop", "network", "headquarters", "press", "tamper", "power", "confirmed", "label",
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with Workshop(tmp_path_factory.mktemp("workshop")) as made:
        yield made


@pytest.fixture(scope="module")
def plug_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], VirtualBoard]]:
    """Plugs in a new bare board."""
    plugged: list[VirtualBoard] = []

    def make() -> VirtualBoard:
        folder = tmp_path_factory.mktemp("board")
        board = VirtualBoard(folder, mac=f"240ac4{len(plugged) + 1:06x}", boot_s=0.05)
        board.start()
        plugged.append(board)
        return board

    yield make
    for board in plugged:
        board.stop()


def new(
    shop: Workshop, board: VirtualBoard, entrance: str, *more: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    hands = Hands(board.pins)
    return shop.run(
        "new",
        "--site",
        SITE_ID,
        "--entrance",
        entrance,
        "--port",
        str(board.path),
        *more,
        hears=hands.hears,
        **environment,
    )


def told(done: subprocess.CompletedProcess[str], status: int = 0) -> dict[str, Any]:
    assert done.returncode == status, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["ok"] == (status == 0)
    return found


def entries(shop: Workshop) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in shop.must("list", "--site", SITE_ID)["buttons"]}


def outcomes(answer: dict[str, Any]) -> dict[str, str]:
    return {step["step"]: step["outcome"] for step in answer["steps"]}


@pytest.fixture(scope="module")
def entrance(shop: Workshop) -> Callable[[], str]:
    """A new entrance of the site."""
    made: list[str] = []

    def make() -> str:
        site = sites.load(shop.home, SITE_ID)
        name = f"door-{len(made) + 1}"
        more = (*site.entrances, sites.Entrance(id=name, name=name.title()))
        sites.save(shop.home, site.model_copy(update={"entrances": more}))
        made.append(name)
        return name

    return make


def test_a_bare_board_becomes_a_button_and_the_same_command_again_changes_nothing(
    shop: Workshop, plug_in: Callable[[], VirtualBoard]
) -> None:
    board = plug_in()
    first = told(new(shop, board, "main-gate"))
    assert [step["step"] for step in first["steps"]] == STEPS
    assert (first["device"], first["test_alarm"], first["enrolment"]) == ("clifton-main-gate", "hq", "enrolled")
    cause = "SELECT cause, how FROM incidents WHERE device = 'clifton-main-gate'"
    assert shop.world.database().execute(cause).fetchall() == [("test", "both")]
    pdf, png = (path for path in first["files"])
    assert pdf.endswith(".pdf")
    assert png.endswith(".png")
    key = (board.flash / "identity" / "key.der").read_bytes()
    again = told(new(shop, board, "main-gate"))
    assert again["device"] == first["device"]
    assert (board.flash / "identity" / "key.der").read_bytes() == key
    done = outcomes(again)
    assert {done[name] for name in ("micropython", "firmware", "certificate")} == {"kept"}
    assert [one.serial for one in shop.authority.issued("clifton-main-gate")] == [
        shop.authority.issued("clifton-main-gate")[0].serial
    ]
    verdict = BenchLog(shop.home / "log").verify()
    assert verdict.is_whole
    shop.must("log", "verify")


def test_no_secret_of_the_button_crosses_the_cable(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    board = plug_in()
    crossed = bytearray()
    say = board._say
    monkeypatch.setattr(board, "_say", lambda octets: (crossed.extend(octets), say(octets))[1])
    told(new(shop, board, entrance()))
    key = (board.flash / "identity" / "key.der").read_bytes()
    secret = key[7:39]
    assert len(secret) == 32
    for form in (secret, secret.hex().encode(), repr(secret)[2:-1].encode()):
        assert form not in bytes(crossed)


def test_cut_anywhere_and_run_again(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    """After every cut: a board with a working identity is one that headquarters knows; and again means done."""
    seed = time.time_ns() % 1_000_000
    print(f"cut: seed {seed}")
    chance = random.Random(seed)
    board, door = plug_in(), entrance()
    whole = 56_000  # octets from the host in a whole run; most of it firmware
    cuts = sorted(
        [*(chance.randrange(200, whole) for _ in range(3)), *(chance.randrange(whole, whole + 9_000) for _ in range(5))]
    )
    finished = 0
    for cut_after in cuts:
        fresh = plug_in() if finished else board
        if finished:
            board, door, finished = fresh, entrance(), 0
        board.faults.cut_after = cut_after
        done = new(shop, board, door)
        board.faults.cut_after = None
        settings = board.flash / "settings.json"
        if settings.exists():
            device = json.loads(settings.read_text())["id"]
            assert device in entries(shop), f"cut after {cut_after}: headquarters does not know {device}"
        if done.returncode == 0:
            finished += 1
            continue
        assert done.returncode in {3, 5}, done.stderr
        if not board.plugged:
            board.plug()
    if not finished:
        answer = told(new(shop, board, door))
        assert answer["device"] == f"clifton-{door}", "an interrupted run goes on with the id that it had"
    assert not list(board.flash.rglob("*.part"))


def test_a_board_of_another_entrance_is_not_overwritten(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, here, there = plug_in(), entrance(), entrance()
    old = told(new(shop, board, here))["device"]
    key = (board.flash / "identity" / "key.der").read_bytes()
    refused = told(new(shop, board, there), 6)
    assert old in refused["error"]["text"]
    assert "--replace" in refused["error"]["text"]
    assert (board.flash / "identity" / "key.der").read_bytes() == key
    moved = told(new(shop, board, there, "--replace"))
    assert moved["device"] == f"clifton-{there}"
    assert (board.flash / "identity" / "key.der").read_bytes() != key
    known = entries(shop)
    assert (known[old]["state"], known[moved["device"]]["state"]) == ("retired", "enrolled")
    assert all(one.revoked_at for one in shop.authority.issued(old))


def test_a_broken_button_is_replaced_and_the_entrance_keeps_its_history(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    broken, door = plug_in(), entrance()
    old = told(new(shop, broken, door))["device"]
    broken.stop()
    board = plug_in()
    refused = told(new(shop, board, door), 6)
    assert "already has" in refused["error"]["text"]
    done = shop.run(
        "replace", "--site", SITE_ID, "--entrance", door, "--port", str(board.path), hears=Hands(board.pins).hears
    )
    answer = told(done)
    assert (answer["device"], answer["replaced"]) == (f"{old}-2", [old])
    known = entries(shop)
    assert (known[old]["state"], known[f"{old}-2"]["state"]) == ("retired", "enrolled")
    history = shop.world.database().execute(
        "SELECT entrance FROM incidents JOIN children ON children.id = device WHERE device IN (?, ?)", (old, f"{old}-2")
    )
    assert history.fetchall() == [(door,), (door,)]
    listed = (shop.world.folder / "revoked.pem").read_bytes()
    from cryptography import x509

    serials = {one.serial_number for one in x509.load_pem_x509_crl(listed)}
    assert {one.serial for one in shop.authority.issued(old)} <= serials


def test_another_button_leaves_the_first_alone_and_replacing_says_which(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    door = entrance()
    first = told(new(shop, plug_in(), door))["device"]
    second = told(new(shop, plug_in(), door, "--another"))["device"]
    assert (entries(shop)[first]["state"], entries(shop)[second]["state"]) == ("enrolled", "enrolled")
    board = plug_in()
    unclear = told(new(shop, board, door, "--replace"), 6)
    assert "--replaces ID" in unclear["error"]["text"]
    third = told(new(shop, board, door, "--replace", "--replaces", second))
    known = entries(shop)
    assert [known[name]["state"] for name in (first, second, third["device"])] == ["enrolled", "retired", "enrolled"]


def test_a_board_that_fails_its_test_takes_nobodys_place(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    door = entrance()
    old = told(new(shop, plug_in(), door))["device"]
    board = plug_in()
    board.pins(loop_a=1000, loop_b=610)
    failed = told(new(shop, board, door, "--replace"), 12)
    assert "Loop A is cut" in failed["error"]["text"]
    known = entries(shop)
    assert (known[old]["state"], known[f"{old}-2"]["state"]) == ("enrolled", "pending")
    wait_until(lambda: board._executing, 10, "the button runs on")
    board.pins(loop_a=340, loop_b=610)
    assert told(new(shop, board, door, "--replace"))["device"] == f"{old}-2"
    known = entries(shop)
    assert (known[old]["state"], known[f"{old}-2"]["state"]) == ("retired", "enrolled")
    assert all(one.revoked_at for one in shop.authority.issued(old))


def test_a_refusal_leaves_a_working_button_working(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, here, there = plug_in(), entrance(), entrance()
    device = told(new(shop, board, here))["device"]
    firmware = {path.name: path.read_bytes() for path in (board.flash / "firmware").rglob("*.mpy")}
    told(new(shop, board, there), 6)
    told(new(shop, board, there, "--offline", "--replace"), 2)
    told(shop.run("retire", "--site", SITE_ID, "--id", "clifton-other", "--port", str(board.path)), 6)
    assert {path.name: path.read_bytes() for path in (board.flash / "firmware").rglob("*.mpy")} == firmware

    def heard() -> int:
        found = shop.world.database().execute("SELECT heard_at_ms FROM latest WHERE child = ?", (device,)).fetchone()
        return int(found[0])

    since = heard()
    wait_until(lambda: heard() > since, 30, "its next heartbeat", every_s=0.5)


def test_headquarters_is_down_and_the_board_stays_blank(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, door = plug_in(), entrance()
    station = shop.world.processes[f"station {HQ}"]
    station.stop()
    try:
        failed = told(new(shop, board, door), 10)
        assert "--offline" in failed["error"]["text"]
        assert not (board.flash / "settings.json").exists()
    finally:
        station.start()
    wait_until(lambda: shop.run("list", "--site", SITE_ID).returncode == 0, 20, "headquarters is back", every_s=0.5)
    told(new(shop, board, door))


def test_an_ended_token_is_refused_in_words(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, door = plug_in(), entrance()
    shop.headquarters("technician", "rabia", "--revoke")
    try:
        failed = told(new(shop, board, door), 11)
        assert "token" in failed["error"]["text"]
        assert shop.token not in json.dumps(failed)
        assert not (board.flash / "settings.json").exists()
    finally:
        shop.token = shop.headquarters("technician", "rabia").strip().splitlines()[-1]
        shop.must("token", "--site", SITE_ID, says=shop.token + "\n")


def test_offline_the_request_is_carried_to_headquarters(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, door = plug_in(), entrance()
    answer = told(new(shop, board, door, "--offline"))
    assert (answer["enrolment"], answer["test_alarm"]) == ("request", "gateway")
    request = next(path for path in answer["files"] if path.endswith(".request.json"))
    device = answer["device"]
    assert device not in entries(shop)
    assert "pending" in shop.headquarters("import-request", request)
    wait_until(lambda: entries(shop)[device]["state"] == "enrolled", 20, "headquarters hears it", every_s=1)
    held = told(shop.run("inspect", "--site", SITE_ID, "--port", str(board.path)))
    assert held["verdict"].startswith("enrolled")
    assert held["firmware_is_current"]


def test_a_batch_finishes_the_good_board_beside_a_bad_one(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    good, bad = plug_in(), plug_in()
    bad.faults.wrong_hashes = True
    bad.stop()
    bad.start()
    one, other = entrance(), entrance()

    def hears(_line: str) -> None:
        """The table is for eyes; these hands do everything once the board asks for a press."""

    def hands() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not done.is_set():
            for readings in (
                {"loop_a": 610, "loop_b": 340},
                {"loop_a": 340, "loop_b": 610},
                {"tamper": 1000},
                {"tamper": 340},
            ):
                good.pins(**readings)
                if done.wait(0.7):
                    return

    done = threading.Event()
    thread = threading.Thread(target=hands, daemon=True)
    # The hands begin once the firmware runs: before that, a pressed button is not at rest.
    starter = threading.Thread(
        target=lambda: (
            wait_until(lambda: (good.flash / "state" / "message-key").exists(), 60, "the start"),
            time.sleep(3),
            thread.start(),
        ),
        daemon=True,
    )
    starter.start()
    try:
        answer = told(shop.run("batch", "--site", SITE_ID, f"{good.path}={one}", f"{bad.path}={other}", hears=hears), 7)
    finally:
        done.set()
    rows = {row["port"]: row for row in answer["boards"]}
    assert rows[str(good.path)]["ok"], rows
    assert rows[str(good.path)]["test_alarm"] == "hq"
    assert rows[str(bad.path)]["error"]["kind"] == "BoardFault"
    assert not (bad.flash / "settings.json").exists()


def test_the_rest_of_the_life(shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]) -> None:
    board, door = plug_in(), entrance()
    device = told(new(shop, board, door))["device"]
    (board.flash / "firmware" / "latch.mpy").unlink()
    updated = told(shop.run("update", "--site", SITE_ID, "--port", str(board.path)))
    assert updated["sent"] == ["/firmware/latch.mpy"]
    tested = told(shop.run("test", "--port", str(board.path), hears=Hands(board.pins).hears))
    assert (tested["device"], tested["test_alarm"]) == (device, "hq")
    wrong = told(shop.run("retire", "--site", SITE_ID, "--id", "clifton-other", "--port", str(board.path)), 6)
    assert "nothing was done" in wrong["error"]["text"]
    retired = told(shop.run("retire", "--site", SITE_ID, "--port", str(board.path), "--reason", "worn out"))
    assert retired["device"] == device
    assert entries(shop)[device]["state"] == "retired"
    assert not (board.flash / "settings.json").exists()
    assert not (board.flash / "identity").exists()
    assert told(shop.run("inspect", "--site", SITE_ID, "--port", str(board.path)))["identity"] is None
    reborn = told(new(shop, board, door))
    assert reborn["device"] == f"{device}-2", "an id is never used twice"


def test_mistakes_of_the_technician_are_told_in_words(shop: Workshop, plug_in: Callable[[], VirtualBoard]) -> None:
    board = plug_in()
    for arguments, status, words in (
        (("new", "--site", "lahore", "--entrance", "x"), 2, "is not set up on this laptop"),
        (("new", "--site", SITE_ID, "--entrance", "roof"), 2, "has no entrance 'roof'"),
        (("new", "--site", SITE_ID, "--entrance", "visa-hall", "--port", "/dev/ttyUSB77"), 3, "unplugged"),
        (("test", "--port", str(board.path)), 6, "no button yet"),
        (("batch", "--site", SITE_ID, "visa-hall"), 2, "write it like"),
    ):
        failed = told(shop.run(*arguments), status)
        assert words in failed["error"]["text"]


class Blank:
    """A chip whose BOOT button is held, at the pty behind `port`. Only a client has the port open, as with a cable."""

    def __init__(self, rom: rom_loader.RomLoader, port: Path) -> None:
        self._rom = rom
        self._ending = threading.Event()
        self._master, near = os.openpty()
        tty.setraw(near)
        port.symlink_to(os.ttyname(near))
        os.close(near)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._master)

    def _serve(self) -> None:
        while not self._ending.is_set():
            try:
                if not select.select([self._master], [], [], 0.1)[0]:
                    continue
                out = self._rom.feed(os.read(self._master, 65536))
                while out:
                    out = out[os.write(self._master, out) :]
            except OSError:
                self._ending.wait(0.02)  # nobody has the port open


def test_a_blank_chip_is_flashed_by_esptool_first(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str], tmp_path: Path
) -> None:
    """A ROM loader behind the port until the image is in its flash and the reset button was pressed; then MicroPython."""
    image = tmp_path / "image.bin"
    image.write_bytes(esp_image.image())
    cache = tmp_path / "cache"
    pins = tmp_path / "images.toml"
    pins.write_text("")
    images.pin(image, hashlib.sha256(image.read_bytes()).hexdigest(), pinned=pins)
    rom = rom_loader.RomLoader()
    port = tmp_path / "port"
    with Blank(rom, port):
        board = plug_in()
        hands = Hands(board.pins)

        def hears(line: str) -> None:
            if "reset button (EN)" in line:
                at = images.OFFSET
                assert bytes(rom.flash[at : at + image.stat().st_size]) == image.read_bytes()
                port.unlink()
                port.symlink_to(board.path.readlink())
            hands.hears(line)

        environment = {"XDG_CACHE_HOME": str(cache), "TOCSIN_IMAGES": str(pins)}
        arguments = ("new", "--site", SITE_ID, "--entrance", entrance(), "--port", str(port), "--no-reset")
        without = told(shop.run(*arguments, **environment), 2)
        assert "--image" in without["error"]["text"]
        answer = told(shop.run(*arguments, "--image", str(image), hears=hears, **environment))
    assert answer["test_alarm"] == "hq"
    assert "written and verified" in answer["steps"][1]["text"]


def test_a_new_wifi_password_reaches_the_button_over_the_air(
    shop: Workshop, plug_in: Callable[[], VirtualBoard], entrance: Callable[[], str]
) -> None:
    board, door = plug_in(), entrance()
    old = {"ssid": "Guards", "password": "first password", "rssi": -58, "up": True}
    board.air(old)
    shop.must("wifi", "--site", SITE_ID, "--network", "Guards", says="first password\n")
    answer = told(new(shop, board, door))
    assert any("Wi-Fi Guards, -58 dBm" in step["text"] for step in answer["steps"])
    board.air(old, {"ssid": "Guards-2", "password": "second password", "rssi": -50, "up": True})
    close_incidents(shop)
    pushed = shop.must("wifi", "--site", SITE_ID, "--network", "Guards-2", "--push", says="second password\n")
    assert answer["device"] in pushed["sent_to"]

    def state() -> str:
        told_by = httpx.get(
            f"{shop.world.url}/api/v1/children/{answer['device']}/commands",
            headers={"Authorization": f"Bearer {shop.token}"},
        ).json()
        return str(told_by[0]["state"])

    pushes = 1
    end = time.monotonic() + 180
    while state() != "done":
        assert time.monotonic() < end, f"the button is not on the new network: {state()}"
        if state() == "failed" and pushes < 3:  # the trial has a limit that a busy machine may miss: so push again
            pushes += 1
            shop.must("wifi", "--site", SITE_ID, "--network", "Guards-2", "--push", says="second password\n")
        time.sleep(1)
    assert shop.must("renew", "--site", SITE_ID)["sent_to"] == []
    renewed = shop.must("renew", "--site", SITE_ID, "--within", "4000")
    assert answer["device"] in renewed["sent_to"]
    wait_until(lambda: state() == "done", 90, "the button shows its new certificate", every_s=1)
    text = (shop.world.folder / "hq" / "state" / "station.db").read_bytes()
    assert b"second password" not in text
    site = sites.load(shop.home, SITE_ID)
    sites.save(shop.home, site.model_copy(update={"wifi": ()}))


def close_incidents(shop: Workshop) -> None:
    """A test alarm that is still on a light keeps the button from trying a network."""
    Operator(shop.world).sign_in().close_all()
