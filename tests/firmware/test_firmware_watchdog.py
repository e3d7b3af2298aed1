"""Nothing that the button depends on stops silently: each task in turn is frozen, and the board starts again in time."""

from __future__ import annotations

import ast
import contextlib
import json
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from provisioning.pki import Authority
from firmware import roll, wire
from firmware.roll import Roll
from tests.firmware.bench import Bench, Button, Post
from tests.firmware.test_button_end_to_end import connected
from tests.firmware.test_firmware_docs import table
from tests.firmware.test_firmware_wifi import AIR
from tests.parts import PROJECT, free_port, micropython, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HERE = "127.0.0.1"
AFTER_MS = 4000  # by then it is connected, and its lamps have been tried
WATCHDOG_S = 8
SLACK_S = 4  # of a busy machine
HANGS = {
    "watch": "app:_watch",
    "send": "app:_send",
    "show": "app:_show",
    "beat": "app:_beat",
    "chirp": "app:_chirp",
    "restart": "app:_restart",
    "renewal": "renewal:run",
    "session": "session:Session.run",
    "vigil": "session:Session._watch",
    "look": "session:Session._look",
    "sound": "app:_play_beside",
    "wifi": "wifi:run",
    "update": "update:run",
    "paths": "paths:run",
    "introduce": "app:_introduce",  # on the bench alone it lasts; here it never begins
}
OTHERS = {
    "app:_feed": "nobody feeds the watchdog: it bites",
    "boards.virtual:Board._sample": "the loops are not read any more",
    "session:Session._look_at": "it signs as `look`",
    "session:Session._flush": "the session is replaced: the connection takes nothing (test_hostile_ways.py)",
}
SPINS = ("app:_beat", "session:Session._watch", "boards.virtual:Board._sample")


def stated() -> dict[str, int]:
    """What docs/firmware.md says: task -> back within ms."""
    return {row[0].strip("`"): int(row[2]) for row in table("Nobody stops silently")}


class Fake:
    """A clock that the test winds."""

    now = 0

    def ms(self) -> int:
        return self.now


def test_the_roll_misses_whoever_is_late_and_nobody_who_left() -> None:
    clock = Fake()
    signed = Roll(clock)
    assert signed.missing() is None
    signed.sign("beat", 5000)
    signed.sign("look", 2000)
    clock.now = 2000 + roll.GRACE_MS
    assert signed.missing() is None
    clock.now += 1
    assert signed.missing() == "look"
    signed.leave("look")
    signed.leave("look")
    assert signed.missing() is None
    clock.now = 5000 + roll.GRACE_MS + 1
    assert signed.missing() == "beat"
    signed.sign("beat", 5000)
    assert signed.missing() is None


def test_every_task_of_the_firmware_is_frozen_below() -> None:
    """Whoever adds a task must sign the roll, or say here what notices its end."""
    tasks = set()
    for path in sorted((PROJECT / "firmware").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("asyncio.create_task", "asyncio.gather"):
                tasks |= {ast.unparse(arg.func) for arg in node.args if isinstance(arg, ast.Call)}
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith("tasks"):
                values = node.value.values if isinstance(node.value, ast.Dict) else [node.value]
                tasks |= {ast.unparse(value.func) for value in values if isinstance(value, ast.Call)}
    tasks -= {
        "board.run",
        "self._listen",
        "tasks.values",
    }  # the first waits for the sampling, the second is the test's hand
    known = {name.split(":")[1].split(".")[-1] for name in [*HANGS.values(), *OTHERS]}
    assert {task.split(".")[-1] for task in tasks} == known
    assert set(stated()) == set(HANGS)


class Frozen:
    """A button of which one task stops after a while, on a chip whose watchdog is real."""

    def __init__(self, bench: Bench, name: str, how: str = "hang", after_ms: int = AFTER_MS) -> None:
        self.name = name
        self._bench = bench
        self._told = [name, how, str(after_ms)]
        self.device = f"{how}-{name}".replace(":", "-").replace("_", "").lower()
        self.key = bench.enrol(self.device)
        self.folder = bench.folder / self.device
        path = self.folder / "settings.json"
        told = json.loads(path.read_text(encoding="utf-8"))
        told["brokers"].insert(0, [HERE, free_port(), "khi-cn"])  # which never comes, and is looked for
        told["wifi"] = [["Consulate", "a password"]]
        path.write_text(json.dumps(told), encoding="utf-8")
        air = {"Consulate": {"password": "a password", "rssi": -60}} | ({"cable": True} if "paths" in name else {})
        (self.folder / "air.json").write_text(json.dumps(air), encoding="utf-8")

    @contextlib.contextmanager
    def start(self) -> Iterator[Button]:
        """It runs in its folder."""
        command = [micropython(), "-X", "heapsize=2m", str(PROJECT / "tests" / "firmware" / "run_frozen.py")]
        env = {"MICROPYPATH": f"{AIR}:{PROJECT}:.frozen"}
        with running(
            [*command, *self._told], cwd=self.folder, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self.button = Button(process)
            yield self.button

    def ended(self) -> tuple[float, int, str]:
        """Seconds from the freeze to the end, exit status, its last error. Waits for the end."""
        self.button.until("frozen", self.name)
        since = time.monotonic()
        status = self.button.process.wait(40)
        took_s = time.monotonic() - since
        errors = []
        while (line := self.button._came.get(timeout=5)) is not None:
            errors += [line["error"]] if "error" in line else []
        return took_s, status, errors[-1] if errors else ""


@pytest.mark.timeout(120)
def test_whatever_stops_the_button_starts_again_and_a_busy_one_goes_on(tmp_path: Path) -> None:
    bench = Bench(Authority.create(), tmp_path)
    at_once = ("look", "sound", "introduce")
    hanging = {task: Frozen(bench, name, "hang", 0 if task in at_once else AFTER_MS) for task, name in HANGS.items()}
    spinning = [Frozen(bench, name, "spin") for name in SPINS]
    fed_by_nobody, unread = Frozen(bench, "app:_feed"), Frozen(bench, "boards.virtual:Board._sample")
    busy = Frozen(bench, "app:_beat", "never", 10**9)
    with bench.broker(), ThreadPoolExecutor(32) as pool, contextlib.ExitStack() as stack:
        with connected(bench) as peer:
            frozen = [*hanging.values(), *spinning, fed_by_nobody, unread]
            for one in [busy, *frozen]:
                stack.enter_context(one.start())
            ends = {one: pool.submit(one.ended) for one in frozen}
            number = busy.button.press()
            post = Post(peer, busy.device, busy.key)
            while not all(end.done() for end in ends.values()):
                for _ in range(200):
                    post.receipt(number, wire.AT_HQ, key=bytes(32))
                    peer.publish(busy.device, b"\xd1\x84 rubbish" * 50)
                busy.button.press()
                post.until("alarm")
        bench.stop_broker()
        busy.button.until("link", "down")
        busy.button.press()
        assert busy.button.process.poll() is None
        for task, one in hanging.items():
            took_s, status, error = ends[one].result()
            print(f"{task:10} {took_s:.1f} s  {error}")
            assert (status, error) == (70, f"RuntimeError: {task} makes no progress any more")
            assert took_s < (stated()[task] + roll.GRACE_MS + 1000) / 1000 + SLACK_S
            kept = json.loads((one.folder / "state" / "errors").read_bytes())
            assert error.partition(": ")[2] in kept[-1][2]
        took_s, status, error = ends[unread].result()
        print(f"sampling   {took_s:.1f} s  {error}")
        assert (status, error) == (70, "RuntimeError: the loops are not read any more")
        assert took_s < 6 + SLACK_S
        for one in (*spinning, fed_by_nobody):
            took_s, status, error = ends[one].result()
            print(f"{one.name:28} {took_s:.1f} s  {status}")
            assert (status, error) == (-signal.SIGALRM, "")
            assert took_s < WATCHDOG_S + SLACK_S
