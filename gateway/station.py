"""Composition root of a station: every part, built, joined, started and stopped on this page."""

from __future__ import annotations

import functools
import gc
import json
import logging
import secrets
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn
from sqlalchemy.exc import DBAPIError

from firmware import wire
from gateway import entries, keys, link, logs, salvage, sealing
from gateway.chain import Checkpoint, Sealer
from gateway.clock import monotonic_ms, utc_ms
from gateway.clockwatch import ClockWatch
from gateway.console.app import create_app
from gateway.console.probes import Probes
from gateway.desk import Link, StorageError
from gateway.exchange import Exchange
from gateway.journal import Journal
from gateway.metrics import Metrics
from gateway.notice import NoticeBoard
from gateway.notify import ServiceManager
from gateway.reception import Reception
from gateway.refusals import Refusals
from gateway.registrar import Registrar
from gateway.registry import Registry
from gateway.rollout import Rollouts, store_of
from gateway.settings import VERSION
from gateway.standing import digest, standing
from gateway.uplink import Uplink
from gateway.vitals import ConsoleServer, Vitals

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

    from gateway.settings import Settings

logger = logging.getLogger(__name__)

TICK_S = 0.5
HEARTBEAT_TICKS = 10
ROLLOUT_TICKS = 4
SAVE_TICKS = 10
STALLED_S = 5.0  # a commit that takes longer: the disk does not answer
CHECKPOINT_TOLD_MS = 600_000
STOOD_STILL_MS = 3_000  # between two ticks: this process, or the machine, was stopped
EX_SOFTWARE = 70  # of sysexits.h


class Station:
    """A running station."""

    def __init__(self, settings: Settings) -> None:
        try:
            settings.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the folder of the station's state can't be made: {error}") from error
        self._passphrase = sealing.passphrase(settings)
        identity_key = keys.private_key(settings.identity / "key.pem", self._passphrase)
        message_key = keys.private_key(settings.message_key, self._passphrase) if settings.message_key else None
        self.settings = settings
        self.started_ms = utc_ms()
        self._started = monotonic_ms()
        self.notices = NoticeBoard()
        self.refusals = Refusals()
        self.metrics = Metrics()
        salvage.recover(settings)
        self.journal = Journal(
            settings.store,
            [parent.id for parent in settings.parents],
            Sealer(settings.station, identity_key, settings.checkpoints),
        )
        self.journal.on_damage = functools.partial(salvage.mark, settings)
        self.journal.measured = self.metrics.journal_commit.observe
        self.registry = Registry(self.journal.readers, settings.station, message_key)
        self.exchange = Exchange(
            settings, self.journal, self.registry, self.refusals, self.notices, self.journal.next_boot()
        )
        self.registrar = Registrar(settings, self.journal, self.registry, self.exchange)
        self.exchange.confirm = self.registrar.confirm
        self.rollouts = Rollouts(store_of(settings), self.journal, self.registry, self.exchange)
        self.exchange.wanted = self.rollouts.wanted
        self.exchange.commands.certified = self.registrar.certified
        self.journal.on_trouble = self._storage_failed
        self.journal.on_recovered = self._storage_restored
        self.journal.on_checkpoint = self._checkpoint
        self._checkpoint_told: int | None = None
        self._clocks = ClockWatch()
        self.exchange.send_down = self._send_down
        self.exchange.marking.beat = self._beat_to
        self.exchange.pressed = self.metrics.press_to_commit.observe
        self.uplinks = [
            Uplink(
                settings,
                parent,
                keys.between(identity_key, bytes.fromhex(parent.message_key), child=settings.station, parent=parent.id),
                self.exchange.next_identity,
                self.journal,
                self.exchange.receipted,
                self.exchange.commanded,
                self._parent_link,
                self.journal.report,
                passphrase=self._passphrase,
            )
            for parent in settings.parents
        ]
        self.exchange.uplinks = self.exchange.marking.uplinks = self.uplinks
        self.broker_up = False
        self._broker_seen = False
        self._session = 0  # which of the connections to the broker stands
        self._acknowledging = threading.Lock()
        self._broker_told: dict[tuple[str, str], int] = {}
        self._broker_run: int | None = None
        self._client = link.client(
            settings.station,
            settings.station,
            settings.identity,
            keepalive_s=10,
            keep_session=True,
            passphrase=self._passphrase,
        )
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_message = self._message
        self._client.full = lambda: self.journal.full
        self._certificate_ns = self._certified_at()
        self._watched: set[str] = set()
        self._registry_reads = 0
        self._ticked = monotonic_ms()
        self._digests = 0
        self._ending = threading.Event()
        self._failed = False
        self.vitals = Vitals(self)
        self._service = ServiceManager()
        reception = Reception(self)
        self.metrics.watch(self, reception)
        self.console_server = self._make_console(reception) if settings.console else None

    # ------------------------------------------------------------------------------------- life

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT."""
        gc.freeze()  # modules and tables stay for good: no collection need look at them
        gc.set_threshold(20_000, 20, 20)  # hardly anything that a message leaves behind is a circle
        sys.setswitchinterval(0.0005)  # an alarm's thread does not wait 5 ms for a page's
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        self.journal.start()
        self.exchange.remember()
        self.registrar.begin()
        self._expect()
        self.exchange.event(wire.STATION_STARTED, self.settings.station, f"version {VERSION}")
        for uplink in self.uplinks:
            uplink.start()
        self._client.beat()
        self._client.connect_async(self.settings.broker.address, self.settings.broker.port, keepalive=10)
        self._client.loop_start()
        serving = (
            threading.Thread(target=self.console_server.run, name="console", daemon=True)
            if self.console_server
            else None
        )
        if serving:
            serving.start()
        logger.info("station %s (%s) runs", self.settings.station, self.settings.role)
        ticks = 0
        while not self._ending.wait(TICK_S):
            if serving and not serving.is_alive():
                logger.critical("the console can't be served on port %d: stopping", self._console_port())
                return 1
            self._tick(ticks)
            self.vitals.tick()
            self._service.beat(stuck=self.vitals.stuck(), unready=self.vitals.unready(), status=self._status())
            ticks += 1
        return self._stop(serving)

    def _stop(self, serving: threading.Thread | None) -> int:
        logger.info("stopping")
        self._service.stopping()
        if self.console_server and serving:
            self.console_server.config.app.state.console.live.stop()  # type: ignore[union-attr]
            self.console_server.should_exit = True
            serving.join(5)
        self._client.disconnect()
        self._client.loop_stop()
        for uplink in self.uplinks:
            uplink.stop()
        if self.journal.trouble is None:
            self.exchange.save()
        self.registry.close()
        self.journal.stop()
        return EX_SOFTWARE if self._failed else 0

    def _tick(self, ticks: int) -> None:
        now = monotonic_ms()
        jumped_ms = self._clocks.look(utc_ms(), now)
        if jumped_ms is not None:
            self.exchange.event(wire.CLOCK_JUMPED, self.settings.station, f"by {jumped_ms / 1000:+.1f} s")
        try:
            self.registry.refresh()
            if self.registry.reads != self._registry_reads:  # also by whoever changed it here
                self._registry_reads = self.registry.reads
                self._expect()
        except DBAPIError as error:
            self.journal.report(error)
        if self.registry.overdue(utc_ms()):
            self.registrar.expire()
        stood_still_ms, self._ticked = now - self._ticked, now
        with self.exchange.watch_lock:
            # This loop alone may wait for a disk or a database; children are heard by the broker's client.
            if min(stood_still_ms, self._client.gap_ms(now)) > STOOD_STILL_MS:
                self.exchange.supervision.excuse(stood_still_ms, now)
            back = self.exchange.supervision.returns(now)
            found = self.exchange.supervision.due(now, broker_up=self.broker_up)
        self.exchange.returned(back)
        self.exchange.silent(found)
        self.exchange.relieve()
        self.exchange.commands.expire(utc_ms())
        if ticks % ROLLOUT_TICKS == 0 and self.settings.role == "hq" and self.journal.trouble is None:
            self.rollouts.step(utc_ms())
        self._read_broker_refusals()
        if ticks % HEARTBEAT_TICKS == 0 and self.uplinks:
            self._beat()
        if ticks % SAVE_TICKS == 0:
            self._look_at_certificate()
        if ticks % SAVE_TICKS == 0 and self.journal.trouble is None:
            self.exchange.save()
        if ticks % 2 == 0:
            self.notices.tell("children")

    def _look_at_certificate(self) -> None:
        """A renewed certificate is shown to the station's own broker from the next connection on.

        A parent gets it with each new connection; the broker shows it by itself.
        """
        changed = self._certified_at()
        if changed == self._certificate_ns:
            return
        self._certificate_ns = changed
        try:
            self._client.show(self.settings.identity, self._passphrase)
        except (OSError, ValueError):
            logger.exception(
                "the new cert.pem can't be used: put a good one there, before a connection must be made again"
            )

    def _certified_at(self) -> int:
        try:
            return (self.settings.identity / "cert.pem").stat().st_mtime_ns
        except OSError:
            return 0

    def _expect(self) -> None:
        with self.exchange.watch_lock:
            working = self.registry.working()
            for child in working.values():
                self.exchange.supervision.expect(child.id, station=child.kind == "station", now_ms=monotonic_ms())
            watched = self.exchange.supervision.children.keys()
            gone = (self._watched | self.registry.children().keys()) - working.keys()
            if watched & gone:  # retired, or never heard in time; a site watches on whom its own registry lacks
                self.exchange.forget(gone)
            self._watched = set(working)
        self.exchange.load_maintenance()

    def _health_fields(self) -> dict[int, Any]:
        now, exchange = monotonic_ms(), self.exchange
        with exchange.watch_lock:
            states = {}
            for name, watched in exchange.supervision.children.items():
                report = exchange.reports.get(name)
                states[name], _ = standing(exchange.supervision, watched, report.message if report else None, now)
        self._digests += 1
        return {
            wire.UPTIME: now - self._started,
            wire.UTC: utc_ms(),
            wire.CHILDREN: len(states),
            wire.ONLINE: sum(link is Link.ONLINE for link in states.values()),
            wire.DIGEST: digest(states, self._digests),
            wire.REFUSED: self.refusals.total,
            wire.DISK: self._free_mib(),
            wire.FIRMWARE: VERSION,
            wire.STORAGE: int(self.journal.trouble is not None or self.journal.waiting_s > STALLED_S),
        }

    def _free_mib(self) -> int:
        try:
            return shutil.disk_usage(self.settings.state).free >> 20
        except OSError:  # the disk is in trouble: the journal tells of it
            return 0

    # -------------------------------------------------------------------------------- the journal

    def _storage_failed(self, _why: str) -> None:
        """Nothing can be journaled: parents hear of it in the heartbeat, now, and journal it themselves."""
        self._beat()
        self.notices.tell("health")

    def _storage_restored(self, why: str, lasted_s: float) -> None:
        self._beat()
        told = entries.detail(f"it could not write its journal for {lasted_s:.0f} s", why)
        self.exchange.event(wire.STORAGE_RESTORED, self.settings.station, told)
        self.notices.tell("health")

    def _checkpoint(self, checkpoint: Checkpoint) -> None:
        now = monotonic_ms()
        if self._checkpoint_told is None or now - self._checkpoint_told >= CHECKPOINT_TOLD_MS:
            self._checkpoint_told = now
            self.exchange.event(wire.CHECKPOINT, self.settings.station, checkpoint.detail)

    def _beat(self) -> None:
        fields = self._health_fields()
        for uplink in self.uplinks:
            uplink.heartbeat(fields)

    def _status(self) -> str:
        """All is well, in words, for the service manager."""
        parents = ", ".join(f"{up.parent.id} {'connected' if up.connected else 'not connected'}" for up in self.uplinks)
        return f"ready; {parents or 'no parent above'}"

    @property
    def link_beat_ms(self) -> int:
        """When the thread of the broker's client last came round, monotonic."""
        return self._client.beat_ms

    def _parent_link(self, parent: str, up: bool) -> None:
        """A parent that hears us for the first time watches us from then on: so at once, not at the next beat."""
        logs.hop("connected" if up else "disconnected", None, parent=parent)
        if up:
            self._beat_to(parent)
        self.notices.tell("health")

    def _beat_to(self, parent: str) -> None:
        for uplink in self.uplinks:
            if uplink.parent.id == parent:
                uplink.heartbeat(self._health_fields())

    # ------------------------------------------------------------------------- the local broker

    def _send_down(self, topic: str, payload: bytes) -> None:
        if self.broker_up:  # what is lost here is asked for again by the button
            self._client.publish(topic, payload, 1)

    def _connected(self, client: mqtt.Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            logger.error("the station's own broker refuses it: %s", reason)
            return
        lanes = ("alarm", "event", "heartbeat", "presence")
        client.subscribe([(f"tocsin/1/+/{lane}", 1) for lane in lanes])
        self.broker_up = True
        if self._broker_seen:
            self.exchange.event(wire.BROKER_BACK, self.settings.station)
        self._broker_seen = True
        self.notices.tell("health")

    def _disconnected(self, *_: object) -> None:
        with self._acknowledging:
            self._session += 1
        was, self.broker_up = self.broker_up, False
        if was and not self._ending.is_set():
            self.exchange.event(wire.BROKER_LOST, self.settings.station)
            self.notices.tell("health")

    def _message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        mid, qos, session = message.mid, message.qos, self._session

        def done() -> None:
            with self._acknowledging:
                if session == self._session:  # else this number may be another message's by now
                    client.ack(mid, qos)

        try:
            self.exchange.arrived(message.topic, bytes(message.payload), done)
        except DBAPIError as error:
            self.journal.report(error)
        except Exception:
            logger.critical("a message could not be dealt with: stopping, to start afresh", exc_info=True)
            self._failed = True
            self._ending.set()

    def _read_broker_refusals(self) -> None:
        """What the broker turned away since the last look (its wrapper writes it down)."""
        try:
            said = json.loads(self.settings.refusals.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        if said["broker"] != self._broker_run:
            self._broker_run = said["broker"]
            self._broker_told = {}
        for who, why, count, last_ms, sample in said["refused"]:
            news = count - self._broker_told.get((who, why), 0)
            if news <= 0:
                continue
            self._broker_told[who, why] = count
            if last_ms < self.started_ms:  # the station's last run told of it, or it fell while there was none
                self.refusals.note(who, why, last_ms, sample, news)
            else:
                self.exchange.refuse(who, why, sample, news)

    # ----------------------------------------------------------------------------------- console

    def _console_port(self) -> int:
        return self.settings.console.port if self.settings.console else 0

    def _make_console(self, reception: Reception) -> ConsoleServer:
        console = self.settings.console
        assert console is not None
        secret = self.settings.state / "console.secret"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_bytes(secrets.token_bytes(32))
        probes = Probes(
            self.vitals.stuck,
            self.vitals.unready,
            self.metrics.text,
            keys.token(console.metrics_token) if console.metrics_token else None,
        )
        app = create_app(
            reception, secret=secret.read_bytes(), secure_cookies=console.certificate is not None, probes=probes
        )
        config = uvicorn.Config(
            app,
            host=console.listen,
            port=console.port,
            ssl_certfile=console.certificate,
            ssl_keyfile=console.key,
            ssl_keyfile_password=self._passphrase or "",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        return ConsoleServer(config)

    @property
    def uptime_s(self) -> float:
        """Since the start."""
        return (time.time_ns() // 1_000_000 - self.started_ms) / 1000
