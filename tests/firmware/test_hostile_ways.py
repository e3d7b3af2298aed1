"""No path and no broker holds a button up for longer than it says, or makes it believe: real MicroPython, real TLS."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from firmware import vigil, wire
from provisioning.pki import Authority
from tests.firmware import far_ends
from tests.firmware.bench import Bench, Post
from tests.firmware.far_ends import Broker, Liar, Way, accepted
from tests.firmware.lies import lie
from tests.firmware.test_button_end_to_end import connected
from tests.firmware.test_firmware_docs import constants
from tests.firmware.test_session import BUTTON, QUICK, Probe, authority, identities, serve, session
from tests.parts import PROJECT, micropython

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from tests.firmware.far_ends import Act, Weather

__all__ = ["authority", "identities"]  # fixtures

pytestmark = pytest.mark.timeout(120)

OPEN_S = int(constants("session")["OPEN_MS"]) / 1000
SILENT_S = (vigil.PING_MS + vigil.TRUST_MS) / 1000
PAUSE_S = vigil.LONGEST_MS / 1000
SLACK_S = 6  # of a busy machine
STALL_MS = 2000  # ten buttons at once on two cores
SEED = random.randrange(2**32)
PROMISES = ("at_gateway", "at_hq", "acknowledged", "responding")
LIES = 4000
LIES_OVER_TLS = 30

# What happens on the way: (to the button, from the button), and how the session says it.
WAYS: dict[str, tuple[Weather | None, Weather | None, str]] = {
    "late": (far_ends.late(7), None, "not answered"),
    "trickling": (far_ends.trickling, None, "not answered"),
    "truncated": (far_ends.truncated, None, "closed|Error"),
    "lost": (far_ends.lost(1), None, "not answered|closed|Error"),
    "half-closed": (far_ends.half_closed, None, "closed"),
    "half-closed from the button": (None, far_ends.half_closed, "closed|Error"),
    "garbled": (far_ends.garbled, None, "Error"),
    "garbled from the button": (None, far_ends.garbled, "closed|Error"),
    "deaf": (None, far_ends.deaf, "not answered|taken nothing"),
}


def endure(name: str, way: Way, probe: Probe) -> str:
    """A connection goes bad, the next one can't be made, and then the way is good again: each within its bound."""
    down, up, why = WAYS[name]
    probe.until("up")
    before = probe.sum()
    way.bend(down, up)
    began = time.monotonic()
    if name == "deaf":
        probe.ask("flood", "flooded", [f"tocsin/1/{BUTTON}/event", 1000])
    reason = probe.until("down")["down"]
    noticed_s = time.monotonic() - began
    assert re.search(why, reason), (name, reason)
    assert noticed_s < SILENT_S + SLACK_S, name
    probe.until("log")  # of the connection
    tried = time.monotonic()
    failed = probe.until("log")["log"]
    tried_s = time.monotonic() - tried
    for_a_while_s = (
        SILENT_S if name == "lost" else 0
    )  # where some get through, a connection may be made, and be lost again
    assert tried_s < PAUSE_S + OPEN_S + for_a_while_s + SLACK_S, (name, failed)
    way.bend()
    straight = time.monotonic()
    probe.until("up")
    back_s = time.monotonic() - straight
    assert back_s < OPEN_S + PAUSE_S + OPEN_S + SLACK_S, name
    after = probe.sum()
    assert after["files"] == before["files"], name
    assert after["worst_ms"] < STALL_MS, name
    assert not [line for line in probe.lines if "message" in line], name
    return f"{name:28} noticed {noticed_s:4.1f} s, back {back_s:4.1f} s: {reason}; {failed.split(': ', 1)[1]}"


def test_a_way_that_goes_bad_holds_nobody_up(authority: Authority, identities: Path, tmp_path: Path) -> None:
    print("seed", SEED)
    for n in range(len(WAYS)):
        authority.issue(f"khi-cn-w{n}").write_der(identities / f"khi-cn-w{n}")

    def one(n: int, name: str) -> str:
        with Way(broker.port) as way, session(identities, way.port, name=f"khi-cn-w{n}") as probe:
            return endure(name, way, probe)

    with Broker(authority, tmp_path / "broker") as broker, ThreadPoolExecutor(len(WAYS)) as pool:
        broker.start()
        for line in pool.map(one, range(len(WAYS)), WAYS):
            print(line)


def test_a_way_that_is_slow_but_whole_serves(authority: Authority, identities: Path, tmp_path: Path) -> None:
    with Broker(authority, tmp_path / "broker") as broker, Way(broker.port) as way:
        broker.start()
        way.bend(far_ends.late(0.2), far_ends.late(0.2))
        with session(identities, way.port) as probe:
            probe.until("up")
            assert max(probe.ask("latency", "latency_us", 3)) > 390_000
            assert probe.sum()["reconnects"] == 0


def test_what_a_broker_acknowledged_and_forgot_is_sent_again_and_shown_as_unconfirmed(tmp_path: Path) -> None:
    """Nobody listens, the broker acknowledges, dies, and comes back empty, twice; only headquarters' receipt counts."""
    bench = Bench(Authority.create(), tmp_path)
    key = bench.enrol("forgotten")
    with bench.button("forgotten") as button:
        with bench.broker():
            button.until("link", "up")
            number = button.press()
            button.until_light("unconfirmed")
            bench.stop_broker()
            button.until("link", "down")
        with bench.broker():
            button.until("link", "up")
            bench.stop_broker()
            button.until("link", "down")
        with bench.broker(), connected(bench) as peer:
            post = Post(peer, "forgotten", key)
            alarm = post.until("alarm")
            assert (alarm[wire.BOOT], alarm[wire.SEQ]) == number
            assert not [line for line in button.lines if "alarm" in line or line.get("light") in PROMISES]
            post.receipt(number, wire.AT_HQ)
            button.until_light("at_hq")


def drips(connection: ssl.SSLSocket, hello: bytes) -> None:
    """A broker that begins a message of 2,000 octets and sends one of them a second, each well encrypted."""
    connection.sendall(accepted(hello) + b"\x30\xd0\x0f")
    for _ in range(2000):
        connection.sendall(b"\x00")
        time.sleep(1)


def test_a_message_that_never_ends_is_no_sign_of_life(authority: Authority, identities: Path, tmp_path: Path) -> None:
    with Liar(authority, tmp_path, [drips, serve]) as liar, session(identities, liar.port) as probe:
        probe.until("up")
        began = time.monotonic()
        assert "not answered" in probe.until("down")["down"]
        assert time.monotonic() - began < SILENT_S + SLACK_S
        probe.until("up")


def test_no_lie_over_tls_outlasts_its_connection(authority: Authority, identities: Path, tmp_path: Path) -> None:
    print("seed", SEED)
    topics = [f"tocsin/1/{BUTTON}/{lane}" for lane in ("receipt", "command")]

    def lies(seed: int) -> Act:
        def act(connection: ssl.SSLSocket, hello: bytes) -> None:
            connection.sendall(accepted(hello))
            for piece in lie(seed, topics, [bytes(80)]):
                connection.sendall(piece)

        return act

    acts = [serve, *(lies(SEED + n) for n in range(LIES_OVER_TLS)), serve]
    with Liar(authority, tmp_path, acts) as liar, session(identities, liar.port, vigil=QUICK) as probe:
        probe.until("up")
        first = probe.sum()
        liar.cut()
        probe.until("log")
        for n in range(LIES_OVER_TLS):
            log = probe.until("log")["log"]
            assert not re.search("Error: (?!.*(ECONNRESET|EPIPE|104|32))", log), (SEED + n, log)
        probe.until("up", LIES_OVER_TLS + 2)
        last = probe.sum()
        assert last["files"] == first["files"]
        assert first["free"] - last["free"] < 1024
        assert last["worst_ms"] < STALL_MS


def test_of_thousands_of_lies_none_is_believed_none_hangs_and_none_costs_memory(tmp_path: Path) -> None:
    """The whole button without sockets (run_lies.py), one connection a seed."""
    print("seed", SEED)
    command = [
        micropython(),
        "-X",
        "heapsize=4m",
        str(PROJECT / "tests" / "firmware" / "run_lies.py"),
        str(SEED),
        str(LIES),
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    print(result)
    assert result["connections"] == LIES
    assert sum(result["endings"].values()) == LIES
    assert not [why for why in result["endings"] if "Error" in why or "callback" in why]
    assert result["refused"] > LIES / 20  # many of them did reach the button
    assert result["grown"] < 2048
    assert result["worst_ms"] < STALL_MS
