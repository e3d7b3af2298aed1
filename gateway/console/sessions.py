"""Who is signed in: a signed cookie, its expiry, the token that every POST must carry, and sign-out.

The cookie is `payload.signature`: base64url JSON and HMAC-SHA256 under a key derived from the station's secret. It
holds no password and opens nothing after its time, after sign-out, or once the desk no longer knows the person.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import threading
from dataclasses import dataclass

LIFE_MS = 12 * 3_600_000  # a shift
VISIT_MS = 3_600_000  # how long a sign-in page may stay open


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in. `id` is random and names it; times are UTC milliseconds."""

    id: str
    name: str
    ends_ms: int


class Sessions:
    """Makes, checks and ends sessions. Safe from any thread."""

    def __init__(self, secret: bytes) -> None:
        """secret: at least 16 bytes that only the station knows; changing it signs everybody out."""
        if len(secret) < 16:
            msg = "the console's secret is too short: 16 bytes or more"
            raise ValueError(msg)
        self._cookie_key = _derived(secret, b"tocsin console session")
        self._token_key = _derived(secret, b"tocsin console token")
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()

    def begin(self, name: str, now_ms: int) -> tuple[Session, str]:
        """A new session for `name` and its cookie."""
        session = Session(secrets.token_urlsafe(18), name, now_ms + LIFE_MS)
        payload = json.dumps([session.id, session.name, session.ends_ms]).encode()
        return session, f"{_b64(payload)}.{_b64(self._signed(payload))}"

    def read(self, cookie: str, now_ms: int) -> Session | None:
        """The session of a cookie, or None if it is forged, over, or ended by sign-out."""
        try:
            payload, signature = (_unb64(part) for part in cookie.split("."))
        except (ValueError, binascii.Error):
            return None
        if not hmac.compare_digest(signature, self._signed(payload)):
            return None
        session = Session(*json.loads(payload))
        return session if self.lasts(session, now_ms) else None

    def lasts(self, session: Session, now_ms: int) -> bool:
        """Whether a session is neither over nor signed out."""
        with self._lock:
            return now_ms < session.ends_ms and session.id not in self._ended

    def end(self, session: Session, now_ms: int) -> None:
        """Signs out: the cookie opens nothing any more, wherever a copy of it is."""
        with self._lock:
            self._ended = {id_: ends for id_, ends in self._ended.items() if ends > now_ms}
            self._ended[session.id] = session.ends_ms

    def token(self, session: Session) -> str:
        """What a POST of this session has to carry."""
        return _b64(hmac.digest(self._token_key, session.id.encode(), "sha256"))

    def genuine(self, session: Session, token: str) -> bool:
        """Whether a POST's token is this session's."""
        return hmac.compare_digest(self.token(session).encode(), token.encode())

    def visit(self, now_ms: int) -> str:
        """A token for the sign-in form of somebody who has no session yet; goes into a cookie and into the form."""
        stamp = f"{now_ms + VISIT_MS}.{secrets.token_urlsafe(12)}"
        return f"{stamp}.{_b64(hmac.digest(self._token_key, b'visit ' + stamp.encode(), 'sha256'))}"

    def visited(self, cookie: str, token: str, now_ms: int) -> bool:
        """Whether a sign-in form is one that we gave to this browser, and not too long ago."""
        stamp, _, signature = cookie.rpartition(".")
        expected = _b64(hmac.digest(self._token_key, b"visit " + stamp.encode(), "sha256"))
        ours = hmac.compare_digest(expected.encode(), signature.encode())
        same = hmac.compare_digest(cookie.encode(), token.encode())
        ends = stamp.partition(".")[0]
        return ours and same and ends.isdecimal() and now_ms < int(ends)

    def _signed(self, payload: bytes) -> bytes:
        return hmac.digest(self._cookie_key, payload, "sha256")


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, purpose, hashlib.sha256)


def _b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    if not text.isascii():
        raise ValueError
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
