"""Headquarters, as the bench reaches it: the registry over HTTPS, with a technician's token.

Every call has one deadline for all of it, names and handshake included, and may be repeated. What goes wrong is
HeadquartersUnreachable (no answer: work offline, or try again) or HeadquartersRefused (the answer is no), in words. The
token goes to an address that proved itself, or to this machine, and into no text.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import httpx

from provisioning.errors import HeadquartersRefused, HeadquartersUnreachable, ProvisioningError, SetupFault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

DEADLINE_S = 15.0
_HERE = {"localhost", "127.0.0.1", "::1"}
_NEW_TOKEN = "ask headquarters for a new token: tocsin technician NAME"  # noqa: S105 it tells how to get one


@dataclass(frozen=True, slots=True)
class Facts:
    """Which station headquarters is. message_key: 65 bytes in hex, for the button's settings."""

    station: str
    name: str
    message_key: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the registry. Times are UTC milliseconds. point: the button's public key, 65 bytes in hex."""

    id: str
    kind: str
    state: str  # "pending", "enrolled", "retired"
    site: str
    site_name: str
    site_name_ur: str
    entrance: str
    entrance_name: str
    entrance_name_ur: str
    address: str
    phone: str
    mac: str
    point: str
    by: str
    replaces: str | None
    enrolled_at_ms: int | None
    expires_at_ms: int | None
    retired_at_ms: int | None
    why: str
    certified_until_ms: int | None


class Headquarters:
    """The registry of headquarters. Safe from any thread; close it at the end."""

    def __init__(
        self, url: str, token: str | None, ca_file: Path | str | None = None, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """url: of the console. token: None for what needs none. ca_file: the authority of the console's certificate, if
        it is none that this machine trusts. Raises SetupFault.
        """
        try:
            address = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise SetupFault(
                f"{url!r} is no address of headquarters ({error}): give one like https://hq.example.pk"
            ) from error
        if address.scheme not in {"https", "http"} or not address.host:
            raise SetupFault(f"{url!r} is no address of headquarters: give one like https://hq.example.pk")
        if address.scheme == "http" and address.host not in _HERE:
            raise SetupFault(
                f"{url} would send the technician's token for everybody to read: give an address with https://"
            )
        if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
            raise SetupFault(
                "The technician's token holds characters that no token has: copy it again, the whole line."
            )
        self.host = address.host
        self._deadline_s = deadline_s
        self._http = httpx.Client(
            base_url=address,
            verify=_trust(ca_file),
            timeout=deadline_s,
            trust_env=address.scheme == "https",  # a proxy must not read what goes to this machine itself
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )

    def facts(self) -> Facts:
        """Which station this is."""
        return _made(Facts, self._json("GET", "registry/station"))

    def entries(self, site: str | None = None) -> list[Entry]:
        """Every entry, or those of a site."""
        found = self._json("GET", "registry", params={"site": site} if site else {})
        if not isinstance(found, list):
            raise _not_tocsin()
        return [_made(Entry, one) for one in found]

    def entry(self, child: str) -> Entry | None:
        """The entry of a child; None: nobody of that id is known."""
        found = self._json("GET", f"registry/{quote(child, safe='')}", absent=True)
        return None if found is None else _made(Entry, found)

    def enrol(
        self,
        child: str,
        certificate_pem: str | bytes,
        *,
        site: str,
        entrance: str,
        site_name: str = "",
        site_name_ur: str = "",
        entrance_name: str = "",
        entrance_name_ur: str = "",
        address: str = "",
        phone: str = "",
        mac: str = "",
        replaces: str | None = None,
    ) -> Entry:
        """Makes a pending entry, or leaves the one with the same key as it is."""
        wanted = {
            "certificate": certificate_pem.decode() if isinstance(certificate_pem, bytes) else certificate_pem,
            "site": site,
            "site_name": site_name,
            "site_name_ur": site_name_ur,
            "entrance": entrance,
            "entrance_name": entrance_name,
            "entrance_name_ur": entrance_name_ur,
            "address": address,
            "phone": phone,
            "mac": mac,
            "replaces": replaces,
        }
        return _made(Entry, self._json("PUT", f"registry/{quote(child, safe='')}", json=wanted))

    def retire(self, child: str, reason: str) -> Entry:
        """Has a button believed no more; one that is retired already stays as it is."""
        return _made(Entry, self._json("POST", f"registry/{quote(child, safe='')}/retire", json={"reason": reason}))

    def change_network(self, child: str, ssid: str, password: str) -> None:
        """Has a button told of a Wi-Fi network, over the air, sealed for it alone."""
        wanted = {"command": "wifi", "ssid": ssid, "password": password}
        self._json("POST", f"children/{quote(child, safe='')}/commands", json=wanted)

    def send_certificate(self, child: str, certificate_pem: str) -> None:
        """Has a button sent a certificate for the key that it has, over the air."""
        self._json("PUT", f"registry/{quote(child, safe='')}/certificate", json={"certificate": certificate_pem})

    def send_revocations(self, crl_pem: bytes) -> bool:
        """Puts a revocation list into place; needs no token. True if it is newer than the one that was there."""
        headers = {"Content-Type": "application/x-pem-file"}
        answer = self._json("PUT", "revocations", content=crl_pem, headers=headers)
        if not isinstance(answer, dict) or not isinstance(answer.get("changed"), bool):
            raise _not_tocsin()
        return bool(answer["changed"])

    def close(self) -> None:
        """Ends its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    # ----------------------------------------------------------------------------------- one call

    def _json(self, method: str, path: str, *, absent: bool = False, **options: Any) -> Any:
        """The answer to a call; None if `absent` is allowed and it is a 404 of the registry's own."""
        answer = self._within(lambda: self._http.request(method, f"/api/v1/{path}", **options))
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.is_success and told is not None:
            return told
        said = told["error"].get("message") if isinstance(told, dict) and isinstance(told.get("error"), dict) else None
        if absent and answer.status_code == 404 and said:
            return None
        raise self._refusal(answer, said if isinstance(said, str) else None)

    def _refusal(self, answer: httpx.Response, said: str | None) -> ProvisioningError:
        if answer.status_code == 401 and said:
            return HeadquartersRefused(
                f"Headquarters does not accept the technician's token: {said} Then {_NEW_TOKEN}."
            )
        if answer.is_redirect:
            return HeadquartersRefused(
                f"{self.host} sends us on to {answer.headers.get('location', 'another address')}: give that address as "
                "headquarters'. The token was not sent there."
            )
        if answer.status_code >= 500:
            return HeadquartersUnreachable(
                f"{self.host} answers, but headquarters behind it does not work ({answer.status_code}"
                f"{': ' + said if said else ''}). Try again in a minute, or work offline."
            )
        return HeadquartersRefused(f"Headquarters refuses: {said}") if said else _not_tocsin()

    def _within(self, work: Callable[[], httpx.Response]) -> httpx.Response:
        """Does `work` on a thread of its own, which is left behind when the deadline is over: no name server that is
        silent, and no answer that drips, holds the bench up for longer.
        """
        done: list[httpx.Response | Exception] = []

        def working() -> None:
            try:
                done.append(work())
            except Exception as error:  # noqa: BLE001 it is raised again where somebody waits for it
                done.append(error)

        thread = threading.Thread(target=working, name="headquarters", daemon=True)
        thread.start()
        thread.join(self._deadline_s)
        if not done:
            raise self._unreachable(f"gave no whole answer within {self._deadline_s:g} s")
        result = done[0]
        if isinstance(result, httpx.Response):
            return result
        if not isinstance(result, httpx.HTTPError):
            raise result
        raise self._fault(result) from result

    def _fault(self, error: Exception) -> ProvisioningError:
        reason = _tls_reason(error)
        if reason is not None:
            return HeadquartersRefused(
                f"{self.host} could not prove that it is headquarters: {reason}. The token was not sent."
            )
        if isinstance(error, httpx.TimeoutException):
            return self._unreachable(f"gave no whole answer within {self._deadline_s:g} s")
        if isinstance(error, httpx.ConnectError):
            return self._unreachable(f"can't be reached ({_plain(error)})")
        return self._unreachable(f"broke off in the middle ({_plain(error)})")

    def _unreachable(self, what: str) -> HeadquartersUnreachable:
        return HeadquartersUnreachable(
            f"Headquarters at {self.host} {what}. Check the network and the address and run the same command again, or work "
            "offline: --offline writes a signed request that headquarters imports later."
        )


def _trust(ca_file: Path | str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError) as error:
        raise SetupFault(f"{ca_file}: no usable certificate of headquarters' authority ({_plain(error)})") from error


def _tls_reason(error: BaseException | None) -> str | None:
    """What was wrong with the TLS handshake, if it was that."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            words = error.verify_message
            if "not yet valid" in words:
                return "its certificate is not valid yet: is this laptop's clock right? (`timedatectl`)"
            if "expired" in words:
                return (
                    "its certificate has expired: have it renewed, unless this laptop's clock is wrong (`timedatectl`)"
                )
            if "mismatch" in words or "not valid for" in words:
                return f"its certificate is for another name ({words.rstrip('.')}): use the name that is in it"
            return f"its certificate is signed by nobody whom we trust ({words}): name its authority's file as `ca` under [hq] in the site's file"
        if isinstance(error, ssl.SSLError):
            if error.reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
                return "that port does not speak TLS: check the port and https://"
            return f"the encrypted connection failed ({(error.reason or str(error)).lower().replace('_', ' ')})"
        error = error.__cause__ or error.__context__
    return None


def _plain(error: BaseException) -> str:
    return (str(error) or type(error).__name__).replace("[Errno ", "[errno ")[:200]


def _not_tocsin() -> HeadquartersRefused:
    return HeadquartersRefused("What answers there is not Tocsin's console: check headquarters' address and port.")


def _made(kind: type[T], told: Mapping[str, Any]) -> T:
    """A record from what headquarters told; what a newer one tells besides is left out."""
    try:
        return kind(**{field.name: told[field.name] for field in fields(kind)})  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise _not_tocsin() from error
