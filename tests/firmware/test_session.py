"""A session comes back from everything that brokers and networks do: real MicroPython, real mosquitto, mutual TLS."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from provisioning.pki import Authority
from firmware import mqtt
from tests.firmware.bench import Button, Peer
from tests.firmware.far_ends import NAME, Broker, Liar, Way, accepted
from tests.parts import PROJECT, free_port, micropython, running

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from pathlib import Path

    from tests.firmware.far_ends import Act

pytestmark = pytest.mark.timeout(60)

HERE = "127.0.0.1"
BUTTON = "khi-cn-b1"
QUICK = {"FIRST_MS": 20, "LONGEST_MS": 20}
STALL_MS = 500  # the loop may pause for a handshake's arithmetic, never for a wait


class Probe(Button):
    """run_session.py, told what to do."""

    def tell(self, **what: object) -> None:
        """One line to it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, what: str, answer: str, value: object = True) -> Any:  # noqa: ANN401, FBT002 - JSON
        """The value of the answer's line."""
        self.tell(**{what: value})
        return self.until(answer)[answer]

    def sum(self) -> dict[str, Any]:
        """Free memory, open files, the longest stall since the last sum, counts."""
        line: dict[str, Any] = self.ask("sum", "sum")
        return line

    def until_log(self, part: str) -> str:
        """The next logged text with this part."""
        while True:
            text: str = self.until("log")["log"]
            if part in text:
                return text


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority.create()
    folder = tmp_path_factory.getbasetemp()
    for number in (1, 2):
        made.issue(f"khi-cn-b{number}").write_der(folder / f"khi-cn-b{number}")
    return made


@pytest.fixture
def broker(authority: Authority, tmp_path: Path) -> Iterator[Broker]:
    with Broker(authority, tmp_path / "broker") as made:
        yield made


@pytest.fixture
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@contextlib.contextmanager
def session(
    identities: Path,
    *ports: int,
    name: str = BUTTON,
    server: str = NAME,
    host: str = HERE,
    vigil: dict[str, int] | None = None,
    route: dict[str, int] | None = None,
) -> Iterator[Probe]:
    """A session with brokers at these ports; vigil, route: their constants, where a test needs others."""
    told = {
        "id": name,
        "brokers": [[host, port, server] for port in ports],
        "identity": str(identities / name),
        "vigil": vigil or {},
        "route": route or {},
    }
    with running(
        [micropython(), str(PROJECT / "tests" / "firmware" / "run_session.py"), json.dumps(told)],
        env={"MICROPYPATH": f"{PROJECT}:.frozen"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Probe(process)


@contextlib.contextmanager
def peer(authority: Authority, broker: Broker, folder: Path) -> Iterator[Peer]:
    """A subscriber to everything."""
    with Peer(broker.port, authority.issue(NAME), folder / "peer") as made:
        yield made


def until(listener: Peer, lane: str) -> bytes:
    """The next message in this lane."""
    while True:
        topic, payload = listener.came.get(timeout=15)
        if topic == f"tocsin/1/{BUTTON}/{lane}":
            return payload


def test_messages_go_up_and_receipts_come_down(
    authority: Authority, broker: Broker, identities: Path, tmp_path: Path
) -> None:
    broker.start()
    with peer(authority, broker, tmp_path) as listener, session(identities, broker.port) as probe:
        assert until(listener, "presence") == b"here 1"
        probe.until("up")
        assert probe.ask("publish", "published", [f"tocsin/1/{BUTTON}/alarm", "hold-up", 1])
        assert until(listener, "alarm") == b"hold-up"
        assert probe.ask("publish", "published", [f"tocsin/1/{BUTTON}/heartbeat", "beat", 0])
        assert until(listener, "heartbeat") == b"beat"
        for n in range(50):
            listener.publish(BUTTON, b"receipt %d" % n)
        for n in range(50):
            assert probe.until("message")["message"] == [f"tocsin/1/{BUTTON}/receipt", f"receipt {n}"]
        end = probe.sum()
        assert end["worst_ms"] < STALL_MS
        assert end["weighed"] >= 1  # after each step of the handshake; a quick peer leaves one
        probe.cut_power()
        assert until(listener, "presence") == b"gone 1"


def test_every_message_is_acknowledged(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port) as probe:
        probe.until("up")
        took_us = sorted(probe.ask("latency", "latency_us", 100))
        print("publish to PUBACK, microseconds: p50", took_us[50], "p90", took_us[90], "worst", took_us[-1])
        assert len(took_us) == 100


def test_a_flood_of_receipts_starves_nobody(
    authority: Authority, broker: Broker, identities: Path, tmp_path: Path
) -> None:
    broker.start()
    with peer(authority, broker, tmp_path) as listener, session(identities, broker.port) as probe:
        probe.until("up")
        probe.sum()
        for n in range(900):  # mosquitto queues 1,000
            listener.publish(BUTTON, b"%d " % n + b"x" * 900)
        for n in range(900):
            assert probe.until("message")["message"][1].split()[0] == str(n)
        worst_ms = probe.sum()["worst_ms"]
        print("longest stall", worst_ms)
        assert worst_ms < STALL_MS


def test_an_orderly_end_leaves_no_will(authority: Authority, broker: Broker, identities: Path, tmp_path: Path) -> None:
    broker.start()
    with peer(authority, broker, tmp_path) as listener, session(identities, broker.port) as probe:
        probe.until("up")
        assert until(listener, "presence") == b"here 1"
        assert probe.ask("close", "closed")
        probe.process.wait(10)
        with session(identities, broker.port) as again:
            again.until("up")
            assert until(listener, "presence") == b"here 1"
        assert until(listener, "presence") == b"gone 1"


def test_a_broker_that_is_down_at_boot_is_found_when_it_comes(broker: Broker, identities: Path) -> None:
    with session(identities, free_port(), broker.port) as probe:
        for _ in range(3):
            probe.until_log("OSError")
        broker.start()
        probe.until("up")
        assert probe.sum()["reconnects"] == 0


def test_a_broker_that_is_killed_and_restarted_has_us_back(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, vigil={"LASTED_MS": 1}) as probe:
        probe.until("up")
        broker.kill()
        probe.until("down")
        assert not probe.ask("publish", "published", [f"tocsin/1/{BUTTON}/alarm", "hold-up", 1])
        probe.until_log("OSError")
        broker.start()
        back = time.monotonic()
        probe.until("up", 2)
        print("back after", time.monotonic() - back)
        assert probe.sum()["reconnects"] == 1


def test_a_press_ends_the_pause_between_tries(broker: Broker, identities: Path) -> None:
    with session(identities, broker.port, vigil={"FIRST_MS": 30_000, "LONGEST_MS": 30_000}) as probe:
        probe.until("log")
        broker.start()
        pressed = time.monotonic()
        probe.tell(urgent=True)
        probe.until("up")
        assert time.monotonic() - pressed < 1


def test_the_preferred_station_is_returned_to_when_it_is_back(
    authority: Authority, broker: Broker, identities: Path, tmp_path: Path
) -> None:
    broker.start()
    with (
        Broker(authority, tmp_path / "preferred") as preferred,
        session(identities, preferred.port, broker.port, route={"LOOK_MS": 300, "LASTED_MS": 1}) as probe,
    ):
        probe.until("up")
        preferred.start()
        assert str(broker.port) in probe.until_log("the preferred station is back")
        probe.until("up")
        preferred.kill()
        assert str(preferred.port) in probe.until("log")["log"]
        probe.until("up")


def test_while_an_alarm_waits_each_address_has_three_seconds(
    authority: Authority, broker: Broker, identities: Path, tmp_path: Path
) -> None:
    """Three stations accept connections and say nothing; the fourth one works."""
    broker.start()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server((HERE, 0))) for _ in range(3)]
        ports = [one.getsockname()[1] for one in silent]
        probe = stack.enter_context(session(identities, *ports, broker.port))
        probe.tell(urgent=True)
        began = time.monotonic()
        for port in ports:
            assert str(port) in probe.until_log("no connection within 3000 ms")
        probe.until("up")
        took_s = time.monotonic() - began
        print("the fourth address after", took_s)
        assert took_s < 4 * 3
        assert probe.sum()["worst_ms"] < STALL_MS


def test_a_station_may_be_named(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, host="localhost") as probe:
        probe.until("up")
    with session(identities, broker.port, host="nobody.invalid") as probe:
        assert "no address for nobody.invalid" in probe.until("log")["log"]


def test_a_path_that_swallows_everything_is_noticed(
    authority: Authority, broker: Broker, identities: Path, tmp_path: Path
) -> None:
    broker.start()
    with (
        Way(broker.port) as calm_way,
        Way(broker.port) as urgent_way,
        peer(authority, broker, tmp_path) as listener,
        session(identities, calm_way.port, name="khi-cn-b2") as calm,
        session(identities, urgent_way.port) as urgent,
    ):
        calm.until("up")
        urgent.until("up")
        until(listener, "presence")
        calm_way.swallow()
        urgent_way.swallow()
        dead = time.monotonic()
        urgent.tell(urgent=True)
        assert urgent.ask("publish", "published", [f"tocsin/1/{BUTTON}/alarm", "swallowed", 1])
        assert "not answered" in urgent.until("down")["down"]
        noticed_s = time.monotonic() - dead
        assert 1.5 < noticed_s < 4
        urgent.until("up", 2)
        assert urgent.ask("publish", "published", [f"tocsin/1/{BUTTON}/alarm", "arrives", 1])
        assert until(listener, "alarm") == b"arrives"
        print("urgent: noticed after", noticed_s, "alarm at the peer after", time.monotonic() - dead)
        assert "not answered" in calm.until("down")["down"]
        noticed_s = time.monotonic() - dead
        print("at rest: noticed after", noticed_s)
        assert noticed_s < 10
        calm.until("up", 2)
        assert max(urgent.sum()["worst_ms"], calm.sum()["worst_ms"]) < STALL_MS


def test_a_frozen_broker_freezes_nobody(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port) as probe:
        probe.until("up")
        probe.sum()
        broker.signal(signal.SIGSTOP)
        probe.tell(urgent=True)
        assert "not answered" in probe.until("down")["down"]
        # The kernel accepts for the frozen process, which never answers the handshake.
        probe.until_log("no connection within")
        worst_ms = probe.sum()["worst_ms"]
        print("longest stall", worst_ms)
        assert worst_ms < STALL_MS
        broker.signal(signal.SIGCONT)
        thawed = time.monotonic()
        probe.until("up")
        print("back after", time.monotonic() - thawed)


def test_a_wrong_certificate_is_refused_and_forgiven_once_it_is_right(
    authority: Authority, broker: Broker, identities: Path
) -> None:
    broker.show(Authority.create("somebody else"))
    broker.start()
    with session(identities, broker.port) as probe:
        for _ in range(3):
            probe.until_log("ValueError")
        assert not probe.sum()["up"]
        broker.kill()
        broker.show(authority)
        broker.start()
        probe.until("up")


def test_a_broker_of_another_name_is_refused(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, server="khi-ru") as probe:
        for _ in range(2):
            assert "ValueError" in probe.until("log")["log"]
        assert not probe.sum()["up"]


def test_a_missing_identity_is_said_again_and_again(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, name="late", vigil=QUICK) as probe:
        probe.until_log("ENOENT")
        probe.until_log("ENOENT")
        shutil.copytree(identities / BUTTON, identities / "late")
        probe.until("up")


def serve(connection: ssl.SSLSocket, hello: bytes) -> None:
    """A broker as it should be, just."""
    connection.sendall(accepted(hello))
    while octets := connection.recv(4096):
        if octets == b"\xc0\x00":
            connection.sendall(b"\xd0\x00")


def sends(*octets: str, after: bool = True) -> Act:
    """The act of a broker that sends `octets` after accepting the client, or instead of that, and waits."""

    def act(connection: ssl.SSLSocket, hello: bytes) -> None:
        connection.sendall((accepted(hello) if after else b"") + bytes.fromhex("".join(octets)))
        while connection.recv(4096):
            pass

    return act


def test_what_no_broker_may_send_is_refused_counted_and_outlived(
    authority: Authority, identities: Path, tmp_path: Path
) -> None:
    lies: list[tuple[Act | None, str]] = [
        (None, "Error"),
        (lambda *_: None, "closed the connection"),
        (sends("00ff" * 200, after=False), "not for a button"),
        (sends("20020005", after=False), "not authorised"),
        (sends("20020000 2002 0000", after=False), "twice"),
        (sends("3003000161", after=False), "before it has accepted"),
        (sends("20020000 9004ffff0101", after=False), "was not asked for"),
        (sends("20020000 900400018080", after=False), "refuses a subscription"),
        (sends("900400000101"), "was not asked for"),
        (sends("900400010101"), "was not asked for"),
        (sends("30ffff7f"), "too long"),
        (sends("3003000161" * 2000, "f000"), "not for a button"),
        (sends("30ffffffffff7f"), "malformed"),
    ]
    with (
        Liar(authority, tmp_path, [*(act for act, _ in lies), serve]) as liar,
        session(identities, liar.port, vigil=QUICK) as probe,
    ):
        for _, why in lies:
            assert why in probe.until("log")["log"]
        probe.until("up")
        end = probe.sum()
        assert end["refused"] == len(lies) - 2  # noise is no TLS, and a closed connection no lie
        assert end["reconnects"] == 5
        assert end["worst_ms"] < STALL_MS


def test_a_full_socket_keeps_its_packet_whole_and_takes_no_other(
    authority: Authority, identities: Path, tmp_path: Path
) -> None:
    go_on = threading.Event()
    came = bytearray()

    def act(connection: ssl.SSLSocket, hello: bytes) -> None:
        # A message that needs a PUBACK, at the moment when nothing can be sent.
        connection.sendall(accepted(hello))
        go_on.wait(10)
        connection.sendall(bytes.fromhex("3206 0001 61 0007 78"))
        time.sleep(0.3)
        while octets := connection.recv(65536):
            came.extend(octets)

    topic = f"tocsin/1/{BUTTON}/event"
    with (
        Liar(authority, tmp_path, [act], receive_buffer=16384) as liar,
        session(identities, liar.port) as probe,
    ):
        probe.until("up")
        flooded = probe.ask("flood", "flooded", [topic, 1000])
        assert not probe.ask("publish", "published", [topic, "the socket is full", 1])
        go_on.set()
        probe.until("message")
        deadline = time.monotonic() + 5
        while not probe.ask("publish", "published", [topic, "goes again", 1]):
            assert time.monotonic() < deadline
        while not bytes(came).endswith(b"goes again"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    payloads, acknowledged = cut(bytes(came))
    print("the socket took", flooded)
    assert acknowledged == [7]
    assert payloads[0] == b"here 1"
    assert [int(payload[:8]) for payload in payloads[1 : flooded + 1]] == list(range(flooded))
    assert payloads[flooded + 1 :] == [b"goes again"]


def cut(stream: bytes) -> tuple[list[bytes], list[int]]:
    """The payloads and the acknowledged packet ids in a client's stream, pings left out."""
    payloads, acknowledged, at = [], [], 0
    while at < len(stream):
        first, length, shift = stream[at], 0, 0
        while True:
            at += 1
            length |= (stream[at] & 127) << shift
            shift += 7
            if stream[at] < 128:
                break
        body = stream[at + 1 : at + 1 + length]
        at += 1 + length
        if first >> 4 == mqtt.PUBLISH:
            assert first & 6
            payloads.append(body[2 + int.from_bytes(body[:2], "big") + 2 :])
        elif first >> 4 == mqtt.PUBACK:
            acknowledged.append(int.from_bytes(body, "big"))
        else:
            assert first == 0xC0
    return payloads, acknowledged


def test_a_callback_that_fails_costs_one_session(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, vigil=QUICK) as probe:
        probe.until("up")
        probe.tell(fail="on_message")
        probe.until("failing")
        assert probe.ask("publish", "published", [f"tocsin/1/{BUTTON}/receipt", "to myself", 1])
        probe.until_log("a callback failed: RuntimeError: the test's on_message")
        for name in ("on_up", "on_down", "will"):
            probe.until("up")
            probe.tell(fail=name)
            probe.until("failing", name)  # or the connection might go first
            broker.kill()
            broker.start()
            probe.until_log(f"the test's {name}")
        probe.until("up")


def test_an_acknowledgement_that_cannot_be_sent_ends_the_session_and_no_more(broker: Broker, identities: Path) -> None:
    broker.start()
    with session(identities, broker.port, vigil=QUICK) as probe:
        probe.until("up")
        probe.tell(fail="write")
        assert probe.ask("publish", "published", [f"tocsin/1/{BUTTON}/receipt", "to myself", 1])
        probe.until("message")
        assert "sending failed" in probe.until("down")["down"]
        probe.until("up")


def test_thirty_reconnects_leave_nothing_behind(broker: Broker, identities: Path) -> None:
    broker.start()
    with Way(broker.port) as way, session(identities, way.port, vigil=QUICK) as probe:
        sums = []
        for n in range(1, 36):
            probe.until("up", n)
            if n in (5, 35):
                sums.append(probe.sum())
            way.cut()
            probe.until("down")
        first, last = sums
        print("free", first["free"], "then", last["free"], "longest stall", last["worst_ms"])
        assert last["reconnects"] - first["reconnects"] == 30
        assert last["files"] == first["files"]
        assert first["free"] - last["free"] < 1024
