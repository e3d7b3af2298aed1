"""Whether a station lives and could take an alarm now: what its health endpoints and the service manager are told.

*Stuck* is a part of this process that makes no progress: only a new start helps. *Unready* is anything without which an
alarm can't be taken, this process's fault or not. Each is a list of sentences; an empty one is good news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn

from gateway.clock import monotonic_ms

if TYPE_CHECKING:
    from gateway.station import Station

TICK_LIMIT_MS = 5_000  # the main loop beats twice a second
JOURNAL_LIMIT_S = 5.0  # the oldest write's wait
CONSOLE_LIMIT_MS = 15_000  # its loop beats ten times a second; a page may be slow
LINK_LIMIT_MS = 40_000  # an attempt to connect may take a name's look-up, a connection and a handshake
RELAY_LIMIT_MS = 15_000  # an uplink's own thread beats every second
READY_WAIT_S = 2.0


class ConsoleServer(uvicorn.Server):
    """The console's server, with the time of its loop's last beat, monotonic milliseconds."""

    beat_ms: int | None = None

    async def on_tick(self, counter: int) -> bool:
        """Beats."""
        self.beat_ms = monotonic_ms()
        return await super().on_tick(counter)


class Vitals:
    """A running station's."""

    def __init__(self, station: Station) -> None:
        self._of = station
        self._ticked_ms = monotonic_ms()

    def tick(self) -> None:
        """The main loop came round. Gives the journal a write that changes nothing, to see that its thread takes it."""
        self._ticked_ms = monotonic_ms()
        if not self._of.journal.backlog:
            self._of.journal.later(lambda _: None)

    def stuck(self) -> list[str]:
        """Parts that make no progress."""
        of, now = self._of, monotonic_ms()
        beats = [
            ("the main loop", self._ticked_ms, TICK_LIMIT_MS),
            ("the broker's client", of.link_beat_ms, LINK_LIMIT_MS),
        ]
        if of.console_server and of.console_server.beat_ms is not None:
            beats.append(("the console", of.console_server.beat_ms, CONSOLE_LIMIT_MS))
        for uplink in of.uplinks:
            beats.append((f"the client of parent {uplink.parent.id}", uplink.link_beat_ms, LINK_LIMIT_MS))
            beats.append((f"the relay to parent {uplink.parent.id}", uplink.beat_ms, RELAY_LIMIT_MS))
        found = [
            f"{what} has made no progress for {(now - at) / 1000:.0f} s"
            for what, at, limit in beats
            if now - at > limit
        ]
        waits = of.journal.waiting_s
        if (
            waits > JOURNAL_LIMIT_S and of.journal.trouble is None
        ):  # in trouble it tries every second, which is progress
            found.append(f"the journal has made no progress for {waits:.0f} s")
        return found

    def unready(self) -> list[str]:
        """Why no alarm could be taken now."""
        of = self._of
        found = []
        if of.journal.trouble is not None:
            found.append(f"the journal can't be written: {of.journal.trouble.why}")
        elif of.journal.waiting_s > READY_WAIT_S:
            found.append(
                f"the journal does not write: the oldest write has been waiting for {of.journal.waiting_s:.1f} s"
            )
        if not of.broker_up:
            found.append("the station's own broker is not connected: no child can be heard")
        if of.console_server and not of.console_server.started:
            found.append("the console is not served yet")
        return found
