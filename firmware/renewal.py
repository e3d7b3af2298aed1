"""A new certificate for the key that the button has, before the old one runs out: no visit, and never without a working one.

Headquarters' command brings it. It must be for this button's id and key and name the authority that the button knows; who
signed it, the brokers check. It is tried on a connection when no alarm is open, and takes the old one's place, in one
rename, once headquarters' sealed answer came over that connection. Whenever the power goes, one of the two is whole.
What decides is pure: time and session go in, an action comes out.
"""

import asyncio

from firmware import wire
from firmware.wifi import FRESH_MS, Sight

TRIAL_MS = 45_000  # connecting, and headquarters' answer
STEP_MS = 500
SHOW = "show"

_FILE = "renewal"
_CERT = "cert.der"


def check(octets, own_id: str, identity) -> None:
    """Raises WireError unless this certificate can take the place of that in the folder. identity: a flash.Flash of it."""
    from firmware import certificate

    if not isinstance(octets, bytes):
        raise wire.WireError("it brings no certificate")
    try:
        name, point = certificate.of_certificate(octets)
        now = certificate.of_certificate(identity.read(_CERT) or b"")
        issuer = certificate.names(octets)[0]
        authority = certificate.names(identity.read("ca.der") or b"")[1]
    except certificate.CertificateFault as problem:
        raise wire.WireError(str(problem)) from None
    if name != own_id:
        raise wire.WireError("it is for %s" % name)
    if point != now[1]:
        raise wire.WireError("it is for another key than this button's")
    if issuer != authority:
        raise wire.WireError("it is not by the authority that this button knows")


class Renewal:
    """The certificate on trial, if there is one. identity: a flash.Flash of the folder with cert.der and ca.der.

    answer(done, number, text) is called when it is decided whether it works.
    """

    def __init__(self, own_id: str, flash, identity, answer, complain) -> None:
        self._id = own_id
        self._flash = flash
        self._identity = identity
        self._answer = answer
        self._trial = None  # (certificate, number of the command)
        self._began_ms: int | None = None  # since when it is shown to brokers
        octets = flash.read(_FILE)
        if octets is None:
            return
        try:
            certificate, boot, seq = wire.decode(octets)
            self._trial = certificate, (boot, seq)
        except (wire.WireError, TypeError, ValueError):
            complain("state/renewal is damaged: headquarters sends the certificate again")

    def put_on_trial(self, number: tuple, octets) -> None:
        """Keeps a certificate beside the one in use. Raises WireError if it can't be this button's, and OSError."""
        check(octets, self._id, self._identity)
        self._flash.write(_FILE, wire.encode([octets, number[0], number[1]]))
        self._trial = octets, number

    def step(self, sight: Sight):
        """What to do now: (SHOW, certificate) to brokers, (SHOW, None): the one in use; or None."""
        if self._trial is None:
            return None
        proven = sight.up_ms is not None and sight.proved_ms is not None and sight.now_ms - sight.proved_ms < FRESH_MS
        if self._began_ms is None:
            if not proven:
                return None
            if self._identity.read(_CERT) == self._trial[0]:  # the power went after the rename, or it was sent twice
                return self._worked()
            if not sight.quiet:
                return None
            self._began_ms = sight.now_ms
            return (SHOW, self._trial[0])
        if proven and sight.up_ms >= self._began_ms:
            return self._worked()
        if sight.urgent and sight.up_ms is None:
            self._began_ms = None  # a press comes first: back to what works, and once more when it is closed
            return (SHOW, None)
        if sight.now_ms - self._began_ms >= TRIAL_MS:
            return self._failed("no broker and headquarters answered over it within %d s" % (TRIAL_MS // 1000))
        return None

    def _worked(self):
        try:
            self._identity.write(_CERT, self._trial[0])
        except OSError as problem:
            return self._failed("the flash can't be written: %s" % problem)
        return self._over(True, "headquarters answers over the new certificate", None)

    def _failed(self, why: str):
        return self._over(False, "%s; it keeps the old certificate" % why, (SHOW, None))

    def _over(self, done: bool, text: str, action):
        number = self._trial[1]
        self._trial = self._began_ms = None
        try:
            self._flash.remove(_FILE)
        except OSError:
            pass  # at the next start it is tried, or found in its place, once more
        self._answer(done, number, text)
        return action


async def run(renewal: Renewal, button, roll) -> None:
    """Looks, decides and acts, for ever."""
    while True:
        roll.sign("renewal", STEP_MS)
        await asyncio.sleep_ms(STEP_MS)
        sight = Sight(
            button.clock.ms(),
            "",
            button.up_ms if button.session.up else None,
            button.proved_ms,
            button.latch.least() is None,
            bool(button.latch.unconfirmed()),
        )
        action = renewal.step(sight)
        if action:
            button.board.tell("certificate", "the new one" if action[1] else "the old one")
            button.session.show(action[1])
