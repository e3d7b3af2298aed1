"""The registry of a running station: what technicians' programs and believed messages do to it, each journaled with it."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from firmware import wire
from gateway import enrolment, entries, keys, registry_log, revocation, sitebook, technicians
from gateway.clock import utc_ms
from gateway.enrolment import PENDING_MS, RegistryRefusedError, TokenRefusedError, UnfitError, UnknownChildError
from gateway.journal import UnwritableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Connection

    from gateway.enrolment import Enrolment, NewButton, NewCertificate
    from gateway.exchange import Exchange
    from gateway.journal import Journal
    from gateway.registry import Registry
    from gateway.revocation import InPlace
    from gateway.rows import Entry
    from gateway.settings import Settings
    from gateway.sitebook import Told
    from gateway.sites import Site

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETURN_MS = 600_000  # after a start: time for every gateway and button to be heard again


class Registrar:
    """Implements `gateway.enrolment.Registrar`. Safe from any thread."""

    def __init__(self, settings: Settings, journal: Journal, registry: Registry, exchange: Exchange) -> None:
        self._settings = settings
        self._journal = journal
        self._registry = registry
        self._exchange = exchange
        self._confirming: set[str] = set()
        self._list_lock = threading.Lock()

    # ------------------------------------------------------------------------------------ technicians

    def technician(self, token: str, address: str) -> str:
        """The name that goes with a token. Raises TokenRefusedError; what is wrong with it is counted."""
        self._only_at_headquarters()
        try:
            with self._journal.readers.connect() as connection:
                return technicians.holder(connection, token, utc_ms())
        except TokenRefusedError as refusal:
            if token:
                self._exchange.refuse(address, f"a technician's token: {refusal}", "")
            raise

    @property
    def message_key(self) -> str:
        """Headquarters' public message key."""
        self._only_at_headquarters()
        return (self._registry.message_point or b"").hex()

    def entries(self, site: str | None = None) -> list[Enrolment]:
        """Every entry, or those of a site."""
        with self._journal.readers.connect() as connection:
            return entries.entries(connection, site)

    def entry(self, child: str) -> Enrolment:
        """The entry of a child. Raises UnknownChildError."""
        with self._journal.readers.connect() as connection:
            found = entries.entry(connection, child)
        if found is None:
            raise UnknownChildError(f"{child} is not in this registry")
        return found

    def enrol(self, child: str, wanted: NewButton, by: str, until_ms: int | None = None) -> tuple[Enrolment, bool]:
        """A pending entry, until an hour from now or `until_ms`, whichever is later. True: it is new."""
        self._only_at_headquarters()
        enrolment.check_newcomer(child, {self._settings.station}, wanted)
        now = datetime.now(UTC)
        point = enrolment.certified_point(wanted.certificate, child, self._authorities(), now)
        if self._is_revoked(wanted.certificate):
            raise UnfitError(f"the certificate of {child} is on the revocation list: enrol the board anew")
        now_ms, ends_ms = utc_ms(), enrolment.ends_at_ms(wanted.certificate)
        until = max(now_ms + PENDING_MS, until_ms or 0)
        return self._change(
            lambda connection: entries.enrol(
                connection, child, wanted, point, by=by, now_ms=now_ms, until_ms=until, certified_until_ms=ends_ms
            )
        )

    def renew(self, child: str, wanted: NewCertificate, by: str) -> Enrolment:
        """Sends a button a new certificate for the key that it has; it keeps the old one until the new one worked."""
        self._only_at_headquarters()
        known = self.entry(child)
        if known.kind != "button":
            raise RegistryRefusedError(f"{child} is a station: put its new cert.pem into its identity folder")
        if known.state is not enrolment.Standing.ENROLLED:
            raise RegistryRefusedError(f"{child} is {known.state}: only a button in use gets a new certificate")
        point = enrolment.certified_point(wanted.certificate, child, self._authorities(), datetime.now(UTC))
        if point.hex() != known.point:
            raise UnfitError(f"the certificate is for another key than {child}'s: make it for the registry's point")
        if self._is_revoked(wanted.certificate):
            raise UnfitError(f"the certificate of {child} is on the revocation list")
        ends_ms = enrolment.ends_at_ms(wanted.certificate)
        if known.certified_until_ms is not None and ends_ms < known.certified_until_ms:
            raise RegistryRefusedError(
                f"{child} has a certificate until {enrolment.moment(known.certified_until_ms)} already, and this one ends earlier"
            )
        octets = x509.load_pem_x509_certificate(wanted.certificate.encode()).public_bytes(Encoding.DER)
        self._exchange.renew(child, octets, f"until {enrolment.moment(ends_ms)}", by)
        return self.entry(child)

    def retire(self, child: str, reason: str, by: str) -> Enrolment:
        """Believes a button no more."""
        self._only_at_headquarters()
        return self._change(lambda connection: entries.retire(connection, child, reason, by=by, now_ms=utc_ms()))

    def enter(self, row: Mapping[str, Any], names: Mapping[str, str], by: str) -> None:
        """An administrator's entry of a child; see `entries.enter`."""
        self._change(lambda connection: entries.enter(connection, row, names, by=by, now_ms=utc_ms()))

    # ----------------------------------------------------------------------------------------- sites

    def change_site(self, site: str, fields: Mapping[str, str], by: str, seen: int | None = None) -> Site:
        """Gives fields of a site other texts, in an administrator's name; see `sitebook.change`."""
        author = sitebook.Author(by, official=True, at_ms=utc_ms())
        return self._change(lambda connection: sitebook.change(connection, site, fields, author, seen))

    def change_sites(self, wanted: Mapping[str, Mapping[str, str]], by: str) -> None:
        """The same with several sites: all of them, or none, if one is refused; the refusal begins with its id."""
        author = sitebook.Author(by, official=True, at_ms=utc_ms())

        def work(connection: Connection) -> tuple[None, list[Told]]:
            told: list[Told] = []
            with connection.begin_nested():
                for site, fields in wanted.items():
                    try:
                        told += sitebook.change(connection, site, fields, author)[1]
                    except RegistryRefusedError as refusal:
                        raise type(refusal)(f"{site}: {refusal}") from refusal
            return None, told

        self._change(work)

    def undo_site(self, site: str, number: int, by: str) -> Site:
        """Takes a change of a site back; see `sitebook.undo`."""
        author = sitebook.Author(by, official=True, at_ms=utc_ms())
        return self._change(lambda connection: sitebook.undo(connection, site, number, author))

    # --------------------------------------------------------------------------------------- where

    def _only_at_headquarters(self) -> None:
        if self._settings.role != "hq":
            raise RegistryRefusedError(
                f"{self._settings.station} is the gateway of a site: buttons are enrolled at headquarters. Use the address "
                "of headquarters' console"
            )

    # -------------------------------------------------------------------------------- by itself

    def begin(self) -> None:
        """The station was down and heard nobody: entries that are pending get a little more time."""
        self._change_later(lambda connection: entries.extend(connection, utc_ms() + RETURN_MS), lambda: None)
        self._change_later(
            lambda connection: sitebook.declare(connection, self._settings.station, utc_ms()), lambda: None
        )

    def confirm(self, child: str) -> None:
        """A message of a pending child was believed."""
        if child not in self._confirming:
            self._confirming.add(child)
            self._change_later(
                lambda connection: entries.confirm(connection, child, utc_ms()),
                lambda: self._confirming.discard(child),
            )

    def certified(self, child: str, certificate: bytes) -> None:
        """A child shows this certificate, in DER, from now on."""
        ends = x509.load_der_x509_certificate(certificate).not_valid_after_utc
        until_ms = int(ends.timestamp() * 1000)
        self._change_later(lambda connection: entries.certified(connection, child, until_ms), lambda: None)

    def expire(self) -> None:
        """Forgets pending entries whose time is over, but for those whose board is heard: that one would work unknown."""
        heard, now = set(self._exchange.reports), utc_ms()
        self._change_later(
            lambda connection: entries.expire(connection, now, heard, now + PENDING_MS), lambda: None, key="expire"
        )

    # -------------------------------------------------------------------------------- revocation

    def revoke(self, pem: bytes, address: str) -> InPlace:
        """Puts a newer revocation list into place; the broker's wrapper sees it there."""
        path = self._settings.revoked
        if path is None:
            raise RegistryRefusedError(
                f'{self._settings.station} keeps no revocation list: add revoked = "revoked.pem" to its settings, put a list '
                "there, and start its broker and station again"
            )
        with self._list_lock:
            try:
                octets, state = revocation.merged(pem, revocation.read(path), self._authorities(), datetime.now(UTC))
                if state.changed:
                    revocation.put(path, octets)
            except RegistryRefusedError as refusal:
                self._exchange.refuse(address, f"a revocation list: {refusal}", pem[:64])
                raise
            except OSError as error:
                logger.exception("the revocation list can't be written")
                raise RegistryRefusedError(
                    f"{self._settings.station} can't write its revocation list ({error.strerror}): nothing was changed. Its "
                    "administrator must give the station the right to write that file and its folder"
                ) from error
        if state.changed:
            lists = (f"number {one.number} of {one.authority}: {one.revoked} revoked" for one in state.lists)
            self._exchange.event(wire.REVOCATIONS, self._settings.station, entries.detail(f"from {address}", *lists))
        return state

    def _is_revoked(self, certificate: str) -> bool:
        path = self._settings.revoked
        if path is None:
            return False
        serial = x509.load_pem_x509_certificate(certificate.encode()).serial_number
        return serial in revocation.serials(revocation.read(path), self._authorities())

    def _authorities(self) -> list[x509.Certificate]:
        """Those of ca.pem, read each time: an authority may have been added."""
        try:
            return keys.certificates(self._settings.identity / "ca.pem")
        except keys.KeyFileError as error:
            logger.exception("ca.pem can't be used")
            raise RegistryRefusedError(
                f"{self._settings.station} can't read its authorities (identity/ca.pem): see `tocsin check` there"
            ) from error

    # ------------------------------------------------------------------------------- the one commit

    def _change(self, work: Callable[[Connection], tuple[T, Sequence[Told]]]) -> T:
        try:
            result, entries = self._journal.now(lambda connection: self._changed(connection, work))
        except UnwritableError as error:
            raise UnfitError(f"nothing was changed: something that was sent can't be kept ({error})") from error
        if isinstance(result, RegistryRefusedError):
            raise result
        self._registry.refresh()
        self._tell(entries)
        return result

    def _change_later(
        self,
        work: Callable[[Connection], tuple[object, Sequence[Told]]],
        done: Callable[[], None],
        *,
        key: object = None,
    ) -> None:
        """The registry in memory follows at the station's next tick; until then the same may be asked again."""

        def committed(changed: tuple[object, list[Entry]]) -> None:
            self._tell(changed[1])
            done()

        self._journal.later(lambda connection: self._changed(connection, work), committed, key=key)

    def _changed(
        self, connection: Connection, work: Callable[[Connection], tuple[T, Sequence[Told]]]
    ) -> tuple[T | RegistryRefusedError, list[Entry]]:
        try:
            result, told = registry_log.recording(connection, work, lambda told: self._record(connection, *told))
        except RegistryRefusedError as refusal:  # always before anything is written
            return refusal, []
        entries = [self._exchange.own(*what) for what in told]
        for entry in entries:
            self._journal.keep(connection, entry)
        return result, entries

    def _record(self, connection: Connection, child: str, fields: dict[int, object]) -> None:
        entry = self._exchange.own(wire.REGISTRY_ENTRY, child, fields)
        self._journal.keep(connection, entry, relayed=False)

    def _tell(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._exchange.offer(entry)
        if entries:
            self._exchange.changed()
