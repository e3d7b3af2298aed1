"""What a station talks with: the console's browsers, and the parents above."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec

from gateway import keys, link
from gateway.checks.identity import dates, secret
from gateway.checks.machine import port_free

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.checks.look import Finding, Grade, Look
    from gateway.settings import Parent

CONNECT_S = 5.0
ALERT_S = 1.0  # TLS 1.3: a refusal of our certificate comes after the handshake


def console_part(look: Look) -> Iterator[Finding]:
    """The console's port, its TLS, and the token of the metrics."""
    console = look.settings.console
    if console is None:
        return
    yield from port_free(look, ("console", "port"), "port of the console", console.listen, console.port)
    if (console.certificate is None) != (console.key is None):
        lacks = "key" if console.key is None else "certificate"
        yield look.say("mistake", "console", f"TLS needs both, and `console.{lacks}` is missing", "console")
    elif console.certificate is not None and console.key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                console.certificate, console.key, password=look.passphrase or ""
            )
            yield from dates(
                look,
                "console's certificate",
                console.certificate,
                keys.certificate(console.certificate),
                "console",
                "certificate",
            )
        except (OSError, keys.KeyFileError) as error:
            text = f"{console.certificate} and {console.key} are no certificate and its key in PEM: {error}"
            yield look.say("mistake", "console", text, "console", "certificate")
        yield from secret(look, console.key, "console's key", "console", "key")
    elif not _is_loopback(console.listen):
        text = (
            f"served on {console.listen} without TLS: passwords could be read on the network; give `certificate` and "
            "`key`, or listen on 127.0.0.1 behind a TLS proxy"
        )
        yield look.say("warning", "console", text, "console", "listen")
    if console.metrics_token is not None:
        try:
            keys.token(console.metrics_token)
        except keys.KeyFileError as error:
            yield look.say("mistake", "token of the metrics", str(error), "console", "metrics_token")
        yield from secret(look, console.metrics_token, "token of the metrics", "console", "metrics_token")


def parent_part(look: Look, number: int, parent: Parent, *, connect: bool) -> Iterator[Finding]:
    """A parent as the settings name it. connect: also whether it answers, and is who it should be."""
    what = f"parent {parent.id}"
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(parent.message_key))
    except ValueError:
        text = "its message key is no point of P-256: copy what `tocsin check` prints there, whole"
        yield look.say("mistake", what, text, "parents", number, "message_key")
    if connect:
        grade, text = _reach(look, parent)
        yield look.say(grade, what, text, "parents", number, "address")


def _reach(look: Look, parent: Parent) -> tuple[Grade, str]:
    at = f"{parent.address}:{parent.port}"
    try:
        context = link.context(parent.id, look.settings.identity, look.passphrase)
    except OSError:
        return "mistake", "not asked: this station's own certificate or key can't be used"
    try:
        opened = socket.create_connection((parent.address, parent.port), CONNECT_S)
    except socket.gaierror:
        return "mistake", f"the name {parent.address} is not known here: correct `address`, or the machine's DNS"
    except OSError as error:
        return (
            "mistake",
            f"{at} does not answer ({error.strerror or error}): is it on, and does a firewall let this through?",
        )
    try:
        with opened, context.wrap_socket(opened) as secured:
            secured.settimeout(ALERT_S)
            if secured.recv(1) == b"":
                return "mistake", f"{at} ended the connection: its log says why"
    except TimeoutError:  # it waits for us to speak: all is well
        return "good", f"{at} answers and is {parent.id}"
    except ssl.SSLCertVerificationError as error:
        return "mistake", f"{at} shows a certificate that is not {parent.id}'s: {error.verify_message}"
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return (
            "mistake",
            f"{at} turns this station away ({reason}): is its certificate of the same authority, not revoked?",
        )
    except OSError as error:
        return "mistake", f"{at} ended the connection ({error.strerror or error}): is it Tocsin's broker?"
    return "warning", f"{at} speaks first: is it Tocsin's broker?"


def _is_loopback(listen: str) -> bool:
    return listen in {"localhost", "::1"} or listen.startswith("127.")
