"""Wi-Fi: which network to be on, and how a new one replaces an old one without ever losing the button.

What decides is pure: time, radio and session go in, an action comes out. A network is judged by whether headquarters'
sealed answers come over it, never by the radio's word alone. A network that a command brings is tried once, as soon
as headquarters answers over the present one and no alarm is open; if it fails, the button is back within TRIAL_MS and
JOIN_MS. Both are kept until the new one worked: one whose password is not valid yet is tried again when the old fails.
Where a board has Ethernet, the radio is joined beside it as the spare path (paths.py): then a network serves while a station
accepts connections over it, and a trial takes the session off the cable for as long as it lasts.
"""

import asyncio
import hashlib

from firmware import wire
from firmware.paths import RADIO, address_of

MAX_NETWORKS = 4
STEP_MS = 250
GRACE_MS = 3_000  # before the radio's complaint counts: it may be about the network before
JOIN_MS = 20_000
TRIAL_MS = 45_000  # joining, connecting and headquarters' answer together
LOST_MS = 20_000  # without a session; doubled with every round of all networks
SILENT_MS = 120_000  # with a session, but without headquarters; likewise
FRESH_MS = 90_000  # headquarters' answer, of which there is one a minute, counts for so long

JOINED = "joined"
JOINING = "joining"
RENEW = "renew"

_FILE = "wifi"
_NETWORKS, _ORIGIN, _TRIAL = 0, 1, 2

# What network.WLAN.status() of the ESP32 says, and the disconnect reasons of the IDF behind it.
_REASONS = {
    15: "wrong password",
    200: "its signal was lost",
    201: "no network of this name is in reach",
    202: "wrong password",
    203: "the access point refuses the button",
    204: "wrong password",
    205: "the access point does not let the button in",
    210: "wrong password",
    211: "its security is too old to be used",
    212: "its signal is too weak",
}


class Trial:
    """A network that a command brought and that has not worked yet. tried: it failed once, and waits for its time."""

    def __init__(self, network: tuple, number: tuple, tried: bool) -> None:
        self.network = network
        self.number = number
        self.tried = tried


class Known:
    """The networks that the button knows, in flash: those that are relied on, newest first, and one on trial.

    told: the (name, password) of settings.json. They come first again when a technician has changed them since.
    """

    def __init__(self, flash, told: list, complain) -> None:
        self._flash = flash
        self._origin = hashlib.sha256(wire.encode([list(network) for network in told])).digest()[:8]
        self.networks = list(told)
        self.trial = None
        octets = flash.read(_FILE)
        if octets is None:
            return
        try:
            kept = wire.decode(octets)
            networks = [tuple(network) for network in kept[_NETWORKS]]
            trial = kept.get(_TRIAL)
            if trial:
                self.trial = Trial((trial[0], trial[1]), (trial[2], trial[3]), trial[4])
            told_now = self._origin != kept[_ORIGIN]
        except (wire.WireError, AttributeError, KeyError, TypeError, IndexError):
            complain("state/wifi is damaged: the networks of settings.json are used")
            return
        self.networks = _newest(told, networks) if told_now else networks

    def put_on_trial(self, network: tuple, number: tuple) -> None:
        """Keeps a network beside the others; one that was on trial makes room. Raises OSError."""
        if self.trial is None or self.trial.number != number:
            self._save(self.networks, Trial(network, number, False))

    def failed(self) -> None:
        """The network on trial failed: it waits until all others do."""
        self._save(self.networks, Trial(self.trial.network, self.trial.number, True))

    def worked(self) -> None:
        """The network on trial is the newest from now on, and the one of the same name is forgotten."""
        self._save(_newest([self.trial.network], self.networks), None)

    def _save(self, networks: list, trial) -> None:
        kept = {_NETWORKS: [list(network) for network in networks], _ORIGIN: self._origin}
        if trial:
            kept[_TRIAL] = [trial.network[0], trial.network[1], trial.number[0], trial.number[1], trial.tried]
        self._flash.write(_FILE, wire.encode(kept))
        self.networks = networks
        self.trial = trial


def _newest(first: list, then: list) -> list:
    names = [network[0] for network in first]
    return (list(first) + [network for network in then if network[0] not in names])[:MAX_NETWORKS]


class Sight:
    """What is seen at one moment: radio is JOINED, JOINING or a sentence; the rest is the button's.

    up_ms: since when the session is up; None: it is not. proved_ms: when headquarters last answered on this session.
    quiet: no alarm is open. urgent: headquarters lacks an alarm. carried: the radio carries the session; if not, up_ms and
    proved_ms are of the looks at the spare path. well: headquarters answers, by whatever path.
    """

    def __init__(
        self, now_ms: int, radio: str, up_ms, proved_ms, quiet: bool, urgent: bool, carried=True, well=False
    ) -> None:
        self.now_ms = now_ms
        self.radio = radio
        self.up_ms = up_ms
        self.proved_ms = proved_ms
        self.quiet = quiet
        self.urgent = urgent
        self.carried = carried
        self.well = well


class Wifi:
    """Chooses the network. `on` is the (name, password) that it is on; None: no network is known.

    wired: there is a cable beside the radio. on_trial: the session must go over the network that it is on, to prove it.
    answer(done, number, text) is called when it is decided whether the network of a command works.
    """

    def __init__(self, known: Known, wired: bool, answer) -> None:
        self.known = known
        self.on: tuple | None = None
        self._wired = wired
        self._answer = answer
        self._home: tuple | None = None
        self.on_trial = False
        self._began_ms: int | None = None  # when it changed to `on`
        self._joined_ms: int | None = None  # since when the radio says that it is joined
        self._lost_ms: int | None = None  # since when it is joined and there is no session
        self._heard_ms = 0  # when headquarters last answered, or the session came up
        self._proven = False
        self._failures = 0  # networks in turn that did not work

    def _choices(self) -> list:
        choices = list(self.known.networks) or [None]
        return choices + [self.known.trial.network] if self.known.trial else choices

    def step(self, sight: Sight):
        """What to do now: ("join", name, password), ("leave",), (RENEW,): begin the session anew; or None."""
        choices = self._choices()
        if self._began_ms is None or self.on not in choices:
            self.on_trial = False  # it was replaced by a newer one
            return self._go(choices[0] if self._home not in choices else self._home, sight.now_ms)
        if self._look(sight):
            return (RENEW,)
        self._proven = self._is_proven(sight)
        if self._proven:
            self._failures = 0
            if self.known.trial and self.on == self.known.trial.network and sight.carried:
                return self._worked()
        if self.on_trial:
            return self._try(sight)
        return self._stay_or_change(sight, choices)

    def _go(self, network, now_ms: int) -> tuple:
        self.on = network
        self._began_ms = self._heard_ms = now_ms
        self._lost_ms = None
        self._joined_ms = now_ms if network is None else None
        return ("leave",) if network is None else ("join", network[0], network[1])

    def _look(self, sight: Sight) -> bool:
        """Notes since when it is joined. True: there is a session that came up before, so by another way."""
        if self.on is None:
            return False
        if sight.radio != JOINED:
            if self._joined_ms is not None:
                self._joined_ms, self._began_ms = None, self._began_ms if self.on_trial else sight.now_ms
            return False
        if self._joined_ms is None:
            self._joined_ms = self._heard_ms = sight.now_ms
            return sight.up_ms is not None and not self._wired
        return False

    def _is_proven(self, sight: Sight) -> bool:
        here = self._joined_ms is not None and sight.up_ms is not None and sight.up_ms >= self._joined_ms
        if here:
            self._lost_ms = None
            self._heard_ms = max(self._heard_ms, sight.up_ms)
        elif self._lost_ms is None:
            self._lost_ms = sight.now_ms
        if not here or sight.proved_ms is None or sight.proved_ms < sight.up_ms:
            return False
        self._heard_ms = max(self._heard_ms, sight.proved_ms)
        return sight.now_ms - sight.proved_ms < FRESH_MS

    # --------------------------------------------------------------------------------------------- the trial

    def _worked(self):
        number = self.known.trial.number
        try:
            self.known.worked()
        except OSError:
            return None  # both are still in flash; the next step tries to write again
        self._answer(True, number, "it is on %s, and headquarters answers over it" % self.on[0])
        self.on_trial = False
        self._home = self.on
        return None

    def _try(self, sight: Sight):
        took_ms = sight.now_ms - self._began_ms
        if sight.urgent and self._lost_ms is not None:
            why = None  # a press comes first: back to what works, and once more when it is closed
        elif self._joined_ms is None and sight.radio != JOINING and took_ms >= GRACE_MS:
            why = sight.radio
        elif self._joined_ms is None and took_ms >= JOIN_MS:
            why = "it was not joined within %d s" % (JOIN_MS // 1000)
        elif took_ms >= TRIAL_MS:
            why = "headquarters did not answer over it within %d s" % (TRIAL_MS // 1000)
        else:
            return None
        trial, self.on_trial = self.known.trial, False
        if why:
            try:
                self.known.failed()
            except OSError:
                trial.tried = True  # until the next start at least
            was = "the cable" if self._wired else "the old network"
            text = "%s: %s; it is back on %s and keeps both" % (trial.network[0], why, was)
            self._answer(False, trial.number, text)
        return self._go(self._home, sight.now_ms)

    # ------------------------------------------------------------------------------------------ every day

    def _stay_or_change(self, sight: Sight, choices: list):
        trial = self.known.trial
        if trial and not trial.tried and sight.quiet and (sight.well if self._wired else self._proven):
            self._home, self.on_trial = self.on, True
            return self._go(trial.network, sight.now_ms)
        if len(choices) == 1 and self.on is None:
            return None
        if self._serves(sight, len(choices)):
            return None
        self._failures += 1
        return self._go(choices[(choices.index(self.on) + 1) % len(choices)], sight.now_ms)

    def _serves(self, sight: Sight, choices: int) -> bool:
        rounds = min(self._failures // choices, 3)
        if self._joined_ms is None:
            took_ms = sight.now_ms - self._began_ms
            return took_ms < (JOIN_MS if sight.radio == JOINING else GRACE_MS)
        if self._lost_ms is not None:
            return sight.now_ms - max(self._lost_ms, self._joined_ms) < LOST_MS << rounds
        # The gateway at least is there: alarms reach it, and go on as soon as headquarters can be reached.
        return sight.urgent or choices == 1 or sight.now_ms - self._heard_ms < SILENT_MS << rounds


# ---------------------------------------------------------------------------------------------- the edge


def has_radio() -> bool:
    """Whether this board has Wi-Fi."""
    try:
        import network
    except ImportError:
        return False
    return hasattr(network, "WLAN")


class Radio:
    """network.WLAN as a station; made by the first `join`, not before: its driver takes 40 KB."""

    def __init__(self, wlan=None) -> None:
        self._wlan = wlan
        self._fault: str | None = None

    def join(self, name: str, password: str) -> None:
        """Begins to join a network; `status` tells how it goes."""
        import network

        try:
            if self._wlan is None:
                self._wlan = network.WLAN(getattr(network, "STA_IF", 0))
            self.leave()
            self._wlan.active(True)
            # Without an end to its tries the driver says "connecting" for ever, and never why not.
            self._wlan.config(reconnects=2)
            self._wlan.connect(name, password)
        except (OSError, ValueError, RuntimeError) as problem:
            self._fault = "the radio failed: %s" % problem

    def leave(self) -> None:
        """Switches the radio off."""
        self._fault = None
        if self._wlan is None:
            return
        for switch in (self._wlan.disconnect, lambda: self._wlan.active(False)):
            try:
                switch()
            except OSError:
                pass  # it was not connected, or not on

    def status(self) -> str:
        """JOINED, JOINING, or why not, in a sentence."""
        if self._fault:
            return self._fault
        if self._wlan is None:
            return JOINING
        if self._wlan.isconnected():
            return JOINED
        return _REASONS.get(self._wlan.status(), JOINING)

    def address(self):
        """Its address, in digits; None while it has none."""
        return address_of(self._wlan) if self._wlan and self._wlan.isconnected() else None

    def rssi(self):
        """dBm; None while it is not joined."""
        try:
            return self._wlan.status("rssi") if self._wlan and self._wlan.isconnected() else None
        except (OSError, ValueError):
            return None


def _act(action, radio: Radio, button) -> None:
    carried = button.paths is None or button.paths.at == RADIO
    if action[0] == "join":
        radio.join(action[1], action[2])
        reason = "changing to the network %s" % action[1]
    elif action[0] == "leave":
        radio.leave()
        reason = "leaving the network"
    else:
        reason = "a new way is there"
    if carried:
        button.session.renew(reason)


def _sight(wifi: Wifi, radio: Radio, button) -> Sight:
    now_ms, session, paths = button.clock.ms(), button.session, button.paths
    up_ms, proved_ms = button.up_ms if session.up else None, button.proved_ms
    well = up_ms is not None and proved_ms is not None and now_ms - proved_ms < FRESH_MS
    carried = paths is None or paths.at == RADIO or wifi.on is None
    if not carried:
        for_ms = paths.answered_for_ms(RADIO, session.now_ms())
        up_ms, proved_ms = (None, None) if for_ms is None else (now_ms - for_ms, now_ms)
    quiet, urgent = button.latch.least() is None, bool(button.latch.unconfirmed())
    return Sight(now_ms, radio.status(), up_ms, proved_ms, quiet, urgent, carried, well)


async def run(wifi: Wifi, radio: Radio, button, roll) -> None:
    """Looks, decides and acts, for ever. Every change is told: {"wifi": {"ssid", "state", "rssi"}}."""
    told = None
    while True:
        action = wifi.step(_sight(wifi, radio, button))
        if action:
            _act(action, radio, button)
        if wifi.on:
            saying = (wifi.on[0], radio.status())
            if saying != told:
                told = saying
                button.board.tell("wifi", {"ssid": told[0], "state": told[1], "rssi": radio.rssi()})
        roll.sign("wifi", STEP_MS)
        await asyncio.sleep_ms(STEP_MS)
