"""`python -m demo`: the whole system on this machine, to look at, to press, or (`--presses N`) to test itself."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from demo.panel import Panel
from demo.process import wait_until
from demo.world import OPERATOR, World

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

PRESS_TIMEOUT_S = 20


def say(text: str) -> None:
    """Tells the person at the terminal; standard output is kept for results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def percentiles(values_ms: list[float]) -> dict[str, float | None]:
    """Median and 99th percentile (nearest rank), in milliseconds."""
    if not values_ms:
        return {"p50": None, "p99": None}
    ranked = sorted(values_ms)
    return {
        name: round(ranked[min(len(ranked) - 1, int(len(ranked) * share))], 1)
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def press_in_turn(world: World, presses: int) -> dict[str, Any]:
    """Presses the buttons in turn; waits each time until the row is committed at headquarters and the light is green."""
    to_hq: list[float] = []
    to_light: list[float] = []
    database = world.database()
    buttons = list(world.buttons.values())
    for number in range(presses):
        button = buttons[number % len(buttons)]
        since = len(button.said)
        pressed: list[int] = []
        finger = threading.Thread(target=lambda button=button, pressed=pressed: pressed.append(button.press()))
        at = time.time_ns()
        finger.start()
        try:
            boot, seq = _latched(button.wait_for(lambda said: "latched" in said, PRESS_TIMEOUT_S, since))
            wait_until(
                lambda key=(button.device, boot, seq): database.execute(
                    "SELECT 1 FROM incidents WHERE device = ? AND boot = ? AND seq = ?", key
                ).fetchone(),
                PRESS_TIMEOUT_S,
                "the row at headquarters",
                every_s=0.0005,
            )
            to_hq.append((time.time_ns() - at) / 1e6)
            said = button.wait_for(
                _receipt_of(boot, seq),
                PRESS_TIMEOUT_S,
                since,
            )
            to_light.append((said["at"] - at) / 1e6)
            say(
                f"  press {number + 1} of {presses}: {button.device}: at headquarters, receipt after {to_light[-1]:.0f} ms"
            )
        except TimeoutError as error:
            say(f"  press {number + 1} of {presses}: {button.device}: {error}")
        finger.join()
        time.sleep(0.2)  # a finger needs as long
    return {
        "presses": presses,
        "at_hq": len(to_hq),
        "receipts": len(to_light),
        "press_to_hq_ms": percentiles(to_hq),
        "press_to_light_ms": percentiles(to_light),
    }


def _receipt_of(boot: int, seq: int) -> Callable[[dict[str, Any]], bool]:
    return lambda said: said.get("stage") == 2 and said["alarm"] == [boot, seq]


def _latched(said: dict[str, Any]) -> tuple[int, int]:
    return said["latched"]["boot"], said["latched"]["seq"]


def main() -> int:
    """Runs the demo; returns its exit status."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--presses", type=int, metavar="N", help="press N times, print what arrived as JSON, and stop")
    parser.add_argument("--port", type=int, help="of the console; by default any free one")
    arguments = parser.parse_args()
    if arguments.presses is not None and arguments.presses < 1:
        parser.error("PRESSES must be 1 or more")
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    world = None
    result: dict[str, Any] = {}
    try:
        say("Making an authority, headquarters, a site and three buttons …")
        world = World(console_port=arguments.port)
        say("Starting them, and waiting until headquarters hears every button …")
        world.start()
        if arguments.presses:
            result = press_in_turn(world, arguments.presses)
            complete = result["at_hq"] == result["receipts"] == arguments.presses
            if not complete:
                say(f"{world.log_tails()}\nThe logs are kept in {world.folder}")
            world.close(keep=not complete)
            sys.stdout.write(json.dumps(result) + "\n")
            return 0 if complete else 1
        say("")
        say(f"  Console   {world.url}")
        say(f"  Sign in   {OPERATOR}")
        say(f"  Password  {world.password}")
        say("")
        if sys.stdin.isatty() and sys.stdout.isatty():
            Panel(world).run()
        else:
            say("Running without a terminal; Ctrl-C or SIGTERM ends it.")
            while not ending.wait(1):
                pass
    except TimeoutError as error:
        if world:
            say(f"{error}\nThe logs are kept in {world.folder}")
            world.close(keep=True)
        return 1
    except KeyboardInterrupt:
        say("\nEnding every process …")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if world:
        world.close()
    if arguments.presses:
        say("The self-test was interrupted: it says nothing.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
