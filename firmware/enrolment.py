"""Enrolment: a blank board, or one that had another identity, becomes a button that headquarters can believe.

The technician's tool calls this over the serial console, from the raw REPL. The board makes its own key, and no word
here lets it out:

    request(id)  makes key and signing request in identity.new/; the same request again as long as it is pending
                 (the tool has it signed, and puts cert.der, ca.der and settings.json beside the key)
    complete()   checks that the four belong together and makes them the button's own
    state()      what this board is and what it is about to be
    erase()      makes it blank

A button is enrolled exactly as long as there is a settings.json at the root. It is taken away before anything of the
old identity is touched, and moved into place after everything of the new one is: so wherever the power goes, the board
is the old button, or the new one, or none, and `complete` called again goes on from there.
"""

import os

from firmware import certificate, keys, p256, settings, wire
from firmware.flash import Flash

SETTINGS = "settings.json"
ACTIVE = "identity"
NEW = "identity.new"
OLD = "identity.old"  # the one before, from the moment when it was moved out of the way until the new one is in force
STATE = "state"  # belongs to one identity: counters, outbox, message key

_KEY = "key.der"
_CERTIFICATE = "cert.der"
_AUTHORITY = "ca.der"
_REQUEST = "request.der"
_OF_AN_IDENTITY = (_KEY, _CERTIFICATE, _AUTHORITY)
_FOLDER = 0x4000  # of st_mode


class EnrolmentFault(Exception):
    """Why it cannot go on, in one sentence that says what to do."""


def switch_radio_on() -> None:
    """On an ESP32 os.urandom is truly random only while the radio is on. Where there is no radio, the system sees to it.

    Raises EnrolmentFault.
    """
    try:
        import network
    except ImportError:
        return
    try:
        network.WLAN(network.STA_IF).active(True)
    except Exception as problem:  # noqa: BLE001 - whatever it is: no key is made without it
        raise EnrolmentFault(
            "the radio cannot be switched on (%s), and without it the board has no random numbers for a key: "
            "restart the board, then try again" % problem
        ) from None


def _fresh_number() -> int:
    while True:
        number = int.from_bytes(os.urandom(32), "big")
        if 0 < number < p256.N:
            return number


def _place(folder: str, name: str) -> str:
    return folder + "/" + name


class Enrolment:
    """The enrolment of the board whose root is the working directory. files, opener: as os and open, for tests."""

    def __init__(self, files=os, opener=open) -> None:
        self._files = files
        self._open = opener

    # ------------------------------------------------------------------------------------------------ files

    def _mode(self, path: str) -> int:
        """The kind of what is at `path`; 0 if nothing is."""
        try:
            return self._files.stat(path)[0]
        except OSError:
            return 0

    def _read(self, folder: str, name: str) -> bytes:
        try:
            with self._open(_place(folder, name), "rb") as file:
                return file.read()
        except OSError:
            raise EnrolmentFault(
                "%s is missing: make a request, and put cert.der, ca.der and settings.json in identity.new"
                % _place(folder, name)
            ) from None

    def _remove(self, path: str) -> None:
        """Removes a file, or a folder with all that is in it; what is not there is as good as removed."""
        mode = self._mode(path)
        if mode & _FOLDER:
            for name in self._files.listdir(path):
                self._remove(_place(path, name))
            self._files.rmdir(path)
        elif mode:
            self._files.remove(path)

    def _empty(self, folder: str, keep=()) -> None:
        if self._mode(folder):
            for name in self._files.listdir(folder):
                if name not in keep:
                    self._remove(_place(folder, name))

    # ---------------------------------------------------------------------------------------------- request

    def request(self, device_id: str, same_key: bool = False) -> bytes:
        """A request in DER for a certificate with the common name `device_id`, for a key that was made here.

        The same again as long as the request is pending; a request for another id takes its place. same_key: for
        the key of the active identity, whose id this must be: for a new certificate or other settings. Takes about a
        second on an ESP32. Raises EnrolmentFault.
        """
        if not wire.is_id(device_id):
            raise EnrolmentFault("an id is 1 to 64 of a-z, 0-9, '-' and '.', not starting with a sign")
        if not self._mode(NEW) and self._mode(_place(ACTIVE, SETTINGS)):
            self._files.rename(ACTIVE, NEW)  # `complete` was cut short before its last step: one step back
        number = self._active_number(device_id) if same_key else None
        pending = self._pending_request(device_id, number)
        if pending is not None:
            return pending
        self._remove(NEW)
        if number is None:
            switch_radio_on()
            number = _fresh_number()
        point = p256.public(number)
        wanted = certificate.request(number, point, device_id)
        new = Flash(NEW, self._files, self._open)
        new.write(_KEY, certificate.private_key(number, point))
        new.write(_REQUEST, wanted)
        return wanted

    def _active_number(self, device_id: str) -> int:
        """The private key of the active identity, which must have this id."""
        folder = self._before()
        if self._identity(folder)[0] != device_id:
            raise EnrolmentFault(
                "this board is not %s: a key is for one id, so make a request with a new one" % device_id
            )
        return keys.private_number(self._read(folder, _KEY))

    def _pending_request(self, device_id: str, number):
        """The pending request if it is for this id, and for the key `number` unless that is None; else None."""
        try:
            pending = self._read(NEW, _REQUEST)
            name, point = certificate.of_request(pending)
            kept = keys.private_number(self._read(NEW, _KEY))
            fits = name == device_id and number in (None, kept) and p256.public(kept) == point
        except (EnrolmentFault, ValueError):
            return None
        return pending if fits else None

    # --------------------------------------------------------------------------------------------- complete

    def complete(self) -> str:
        """Makes the pending identity the button's own, from its next start on; its id.

        Called again, it goes on where it was cut short; once all is done it changes nothing. The state (counters,
        outbox, message key) is cleared unless id and key are those of the identity before. Raises EnrolmentFault, and
        then nothing was changed.
        """
        if self._mode(NEW):
            name, point = self._checked(NEW, _place(NEW, SETTINGS))
            self._take_over(name, point)
        elif self._mode(_place(ACTIVE, SETTINGS)):
            name, _ = self._checked(ACTIVE, _place(ACTIVE, SETTINGS))
        else:
            name, _ = self._checked(ACTIVE, SETTINGS)
        if self._mode(_place(ACTIVE, SETTINGS)):
            self._files.rename(_place(ACTIVE, SETTINGS), SETTINGS)  # from here on it is enrolled
        self._remove(OLD)
        self._empty(ACTIVE, _OF_AN_IDENTITY)
        return name

    def _take_over(self, name: str, point: bytes) -> None:
        """Puts identity.new, settings included, in the place of identity."""
        self._remove(SETTINGS)  # from here on nothing is enrolled
        if self._identity(self._before()) != (name, point):
            self._empty(STATE)
        if self._mode(ACTIVE):
            self._remove(OLD)
            self._files.rename(ACTIVE, OLD)
        self._files.rename(NEW, ACTIVE)

    def _checked(self, folder: str, told: str) -> tuple:
        """(id, point) of a complete identity. told: where its settings are. Raises EnrolmentFault."""
        try:
            number = keys.private_number(self._read(folder, _KEY))
        except p256.KeyFault as fault:
            raise EnrolmentFault("%s: %s" % (_place(folder, _KEY), fault)) from None
        try:
            where = _CERTIFICATE
            name, point = certificate.of_certificate(self._read(folder, _CERTIFICATE))
            where = _AUTHORITY
            certificate.check_form(self._read(folder, _AUTHORITY))
        except certificate.CertificateFault as fault:
            raise EnrolmentFault("%s: %s" % (_place(folder, where), fault)) from None
        if p256.public(number) != point:
            raise EnrolmentFault("the certificate is not for this board's key: have its own request signed")
        try:
            values = settings.read(told)
        except settings.SettingsFault as fault:
            raise EnrolmentFault(str(fault)) from None
        if values.id != name:
            raise EnrolmentFault("the settings are for %s and the certificate is for %s" % (values.id, name))
        if not p256.is_point(values.hq_message_key):
            raise EnrolmentFault("hq_message_key is not a point of P-256: take it from headquarters again")
        return name, point

    # ------------------------------------------------------------------------------------------------ state

    def _identity(self, folder: str) -> tuple:
        """(id, point) of the certificate in a folder; (None, None) if there is none that can be read."""
        try:
            return certificate.of_certificate(self._read(folder, _CERTIFICATE))
        except (EnrolmentFault, certificate.CertificateFault):
            return None, None

    def _before(self) -> str:
        """Where the identity is that a pending one follows; once out of the way it is the old one."""
        return ACTIVE if self._mode(ACTIVE) else OLD

    def state(self) -> dict:
        """{"id": of the active identity, "pending": id that `complete` would make active, "point": hex of its key}.

        None for what there is not. An identity is active if there is a settings.json; its id is the certificate's, or
        if that can't be read the settings' own ("point" is None then), so that no board looks blank that is not.
        """
        name = point = pending = None
        if self._mode(SETTINGS):
            name, point = self._identity(ACTIVE)
            if name is None:
                try:
                    name = settings.read(SETTINGS).id
                except settings.SettingsFault:
                    name = "?"  # no id: enrolled, and nobody can say as what
        if self._mode(NEW):
            try:
                pending = certificate.of_request(self._read(NEW, _REQUEST))[0]
            except (EnrolmentFault, certificate.CertificateFault):
                pending = self._identity(NEW)[0]
        elif self._mode(_place(ACTIVE, SETTINGS)):
            pending = self._identity(ACTIVE)[0]
        return {"id": name, "pending": pending, "point": _hex(point)}

    def erase(self) -> None:
        """Makes the board blank: settings first, so that half erased it is no button any more."""
        for path in (SETTINGS, _place(ACTIVE, SETTINGS), _place(ACTIVE, _KEY), ACTIVE, OLD, NEW, STATE):
            self._remove(path)


def _hex(point):
    return None if point is None else "".join(["%02x" % octet for octet in point])


def request(device_id: str, same_key: bool = False) -> bytes:
    """See Enrolment.request."""
    return Enrolment().request(device_id, same_key)


def complete() -> str:
    """See Enrolment.complete."""
    return Enrolment().complete()


def state() -> dict:
    """See Enrolment.state."""
    return Enrolment().state()


def erase() -> None:
    """See Enrolment.erase."""
    Enrolment().erase()
