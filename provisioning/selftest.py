"""The button proves itself: contacts, network, TLS, headquarters, a test alarm to the light and back, and a power cut.

Nothing is asked of headquarters here but what the button itself says: its light is green only for a receipt whose MAC it
checked. Every press in this start is a test alarm (firmware/bench.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from provisioning.errors import SelfTestFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from provisioning.board import Console
    from provisioning.teller import Teller

Said = dict[str, Any]

START_S = 20
SETTLE_S = 6
NETWORK_S = 45  # an address from DHCP, then TLS
ANSWER_S = 40  # headquarters answers a heartbeat about every 10 s
PERSON_S = 120
RECEIPT_S = 20
_GREEN = {"at_hq", "acknowledged", "responding"}
_LINE = {
    "cut": "is cut: look at the terminals and at the cable",
    "shorted": "is shorted: look for a strand that touches its neighbour",
    "faulty": "contradicts the other contact: are A and B wired to the right contacts?",
}
_TLS = (
    ("validity starts in the future", "the board's clock is wrong: run the same command again, it sets the clock"),
    ("expired", "a certificate has expired: have the station's renewed"),
    ("hostname", "the station's certificate is for another name: check `name` under [[brokers]] in the site's file"),
    ("not correctly signed", "the station's certificate is of another authority than this laptop's"),
    ("ECONNREFUSED", "nothing listens at that address and port: is the station's broker running?"),
    ("EHOSTUNREACH", "there is no way to that address: check cable, network and [[brokers]] in the site's file"),
)


@dataclass(frozen=True)
class Proved:
    """What the button showed. alarm: (boot, seq) of the test alarm; stage: 2 headquarters has it, 1 the gateway only."""

    alarm: tuple[int, int]
    stage: int
    boot: int
    signal_dbm: int | None


def prove(console: Console, teller: Teller, *, offline: bool = False) -> Proved:
    """Runs every check on a button that was just started in bench mode. Raises SelfTestFailed, BoardLost.

    offline: headquarters does not know the button yet, so the gateway's word is the most there can be.
    """
    boot = _started(console, teller)
    _at_rest(console, teller)
    signal_dbm = _connected(console, teller)
    if not offline:
        _supervised(console, teller)
    alarm, stage = _pressed(console, teller, offline=offline)
    _tampered(console, teller)
    boot = _survives(console, teller, boot, alarm, offline=offline)
    return Proved(alarm, stage, boot, signal_dbm)


def starts(console: Console, teller: Teller, *, offline: bool = False) -> None:
    """The short form, after an update: it starts, connects, and headquarters answers. Needs nobody's hands."""
    _started(console, teller, on_bench=False)
    _at_rest(console, teller)
    _connected(console, teller)
    if not offline:
        _supervised(console, teller)


def _started(console: Console, teller: Teller, *, on_bench: bool = True) -> int:
    with teller.step("start", "The firmware starts") as now:
        said = console.wait_for(lambda said: "started" in said or "error" in said, START_S, "The start of the firmware")
        if "error" in said:
            raise SelfTestFailed(f"The firmware does not start: {said['error']} Run the same command again.")
        started = said["started"]
        if on_bench and not started.get("bench"):
            raise SelfTestFailed("The board lost power while it restarted. Run the same command again.")
        now.text = f"firmware {started['firmware']}, start {started['boot']}"
        return int(started["boot"])


def _at_rest(console: Console, teller: Teller) -> None:
    with teller.step("loop", "The contacts are read") as now:
        loop = console.wait_for(_whole_loop, SETTLE_S, "A reading of the contacts")["loop"]
        for name in ("A", "B"):
            if loop[name] != "fine":
                raise SelfTestFailed(f"Loop {name} {_LINE.get(loop[name], loop[name])}.")
        if loop["pressed"]:
            raise SelfTestFailed("The button is pressed: release or reset it, then run the same command again.")
        tamper = console.wait_for(lambda said: "tamper" in said, SETTLE_S, "A reading of the tamper loop")["tamper"]
        if tamper != "fine":
            raise SelfTestFailed(f"The tamper loop is {tamper}: close the cover, then run the same command again.")
        now.text = "both loops at rest, cover closed"


def _whole_loop(said: Said) -> bool:
    return isinstance(said.get("loop"), dict) and {"A", "B", "pressed"} <= said["loop"].keys()


def _connected(console: Console, teller: Teller) -> int | None:
    with teller.step("network", "The network is joined, TLS and the station's name are verified") as now:
        try:
            console.wait_for(lambda said: said.get("link") == "up", NETWORK_S, "The connection to the station", 0)
        except SelfTestFailed as failed:
            raise SelfTestFailed(_why_not_connected(console, failed)) from failed
        radio = next((said["wifi"] for said in reversed(console.said) if said.get("wifi")), None)
        signal_dbm = radio["rssi"] if radio else None
        through = f"Wi-Fi {radio['ssid']}, {signal_dbm} dBm" if radio else "cable"
        now.text = f"connected ({through}), certificate and name verified"
        return signal_dbm


def _why_not_connected(console: Console, failed: SelfTestFailed) -> str:
    """The last word of the button's session, with what it means."""
    last = next((str(said["session"]) for said in reversed(console.said) if "session" in said), None)
    if last is None:
        return str(failed)
    meaning = next((words for sign, words in _TLS if sign.lower() in last.lower()), None)
    if meaning is None:
        meaning = (
            "the broker's log says why it turns this button away: `tocsin provision test` again after looking there"
        )
    return f"The button can't connect: {last}. Most likely {meaning}."


def _supervised(console: Console, teller: Teller) -> None:
    with teller.step("headquarters", "Headquarters hears the button") as now:
        console.wait_for(
            lambda said: bool(said.get("supervised")) or said.get("light") == "rest",
            ANSWER_S,
            "Headquarters' sealed answer to a heartbeat",
            0,
        )
        now.text = "answered, sealed with the button's own message key"


def _pressed(console: Console, teller: Teller, *, offline: bool) -> tuple[tuple[int, int], int]:
    with teller.step("press", "A test alarm, from the contact to the light") as now:
        since = len(console.said)
        teller.ask("Press the button. It is a test: headquarters sees it marked as one.")
        latched = console.wait_for(lambda said: "latched" in said, PERSON_S, "A press", since)["latched"]
        if not latched.get("test"):
            raise SelfTestFailed("The press was not marked as a test: tell headquarters at once that it was one.")
        alarm = (int(latched["boot"]), int(latched["seq"]))
        least = 1 if offline else 2
        stage = int(console.wait_for(_receipt(alarm, least), RECEIPT_S, _receipt_of(least), since)["stage"])
        light = {"at_gateway"} if offline else _GREEN
        shown = _last(console, "light")  # a light that a quick receipt found green already is not told of again
        console.wait_for(lambda said: said.get("light") in light, RECEIPT_S, "The green light", shown)
        if console_is_pressed(console):
            teller.ask("Reset the button, if it latches.")
            console.wait_for(_released, PERSON_S, "The release of the button", since)
        now.text = (
            "the gateway has it; headquarters does not know this button yet" if offline else "headquarters has it"
        )
        return alarm, stage


def _last(console: Console, word: str) -> int:
    """Where in what was said the word stands last; the end of it where it does not stand."""
    return max((at for at, said in enumerate(console.said) if word in said), default=len(console.said))


def console_is_pressed(console: Console) -> bool:
    """Whether the contact was pressed when it was last told of."""
    for said in reversed(console.said):
        if isinstance(said.get("loop"), dict) and "pressed" in said["loop"]:
            return bool(said["loop"]["pressed"])
    return False


def _released(said: Said) -> bool:
    return isinstance(said.get("loop"), dict) and said["loop"].get("pressed") is False


def _receipt(alarm: tuple[int, int], least: int) -> Callable[[Said], bool]:
    return lambda said: said.get("stage", 0) >= least and said.get("alarm") == list(alarm)


def _receipt_of(stage: int) -> str:
    return "The gateway's receipt" if stage == 1 else "Headquarters' receipt"


def _tampered(console: Console, teller: Teller) -> None:
    with teller.step("tamper", "The cover is watched") as now:
        since = len(console.said)
        teller.ask("Open the cover.")
        console.wait_for(lambda said: said.get("tamper") in {"cut", "shorted"}, PERSON_S, "The open cover", since)
        since = len(console.said)
        teller.ask("Close the cover.")
        console.wait_for(lambda said: said.get("tamper") == "fine", PERSON_S, "The closed cover", since)
        now.text = "opening and closing were seen"


def _survives(console: Console, teller: Teller, boot: int, alarm: tuple[int, int], *, offline: bool) -> int:
    with teller.step("power", "The power is cut, and the alarm is still there") as now:
        since = len(console.said)
        console.power_cut()
        said = console.wait_for(lambda said: "started" in said, START_S, "A start after the power cut", since)
        again = int(said["started"]["boot"])
        if again <= boot:
            raise SelfTestFailed(
                f"The start counter went from {boot} to {again}: the flash forgets. Replace the board."
            )
        wanted = {"unconfirmed", "at_gateway"} if offline else _GREEN
        console.wait_for(
            lambda said: said.get("light") in wanted, NETWORK_S, f"The light of alarm {alarm} after it", since
        )
        now.text = f"start {again}; the light is back"
        return again
