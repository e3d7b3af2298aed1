"""`tocsin provision batch`: several boards at once, each a row of a table."""

from __future__ import annotations

import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from provisioning import steps
from provisioning.errors import ProvisioningError, SetupFault
from provisioning.teller import Teller, Told

if TYPE_CHECKING:
    from rich.console import Console


def run(rows: list[Row], bench: steps.Bench, console: Console) -> None:
    """Does every row at the same time and shows how far each is. Raises the error of the first that failed, for all."""
    with Live(_table(rows), console=console) as live:
        threads = [threading.Thread(target=row.run, args=(bench,), daemon=True) for row in rows]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(0.05)
            live.update(_table(rows))
        live.update(_table(rows))


def pair(text: str) -> tuple[str, str]:
    """(port, entrance) of "PORT=ENTRANCE". Raises SetupFault."""
    port, sign, entrance = text.rpartition("=")
    if not sign or not port or not entrance:
        raise SetupFault(f"{text!r} does not say which board goes where: write it like /dev/ttyUSB0=main-gate.")
    return port, entrance


class Row(Teller):
    """One board of a batch: its teller, and its row of the table."""

    def __init__(self, port: str, wanted: steps.Wanted) -> None:
        super().__init__()
        self.port = port
        self.wanted = wanted
        self.now = "waits"
        self.todo = ""
        self.share: float | None = None
        self.result: steps.Result | None = None
        self.error: ProvisioningError | None = None

    def run(self, bench: steps.Bench) -> None:
        """Does it; what goes wrong is kept in `error`."""
        try:
            self.result = steps.provision(bench, self.wanted, self)
        except ProvisioningError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - one board's trouble is that board's
            self.error = ProvisioningError(f"{type(error).__name__}: {error}")

    def begins(self, now: Told) -> None:
        """Shows it."""
        self.now, self.todo, self.share = now.text, "", None

    def progress(self, done: int, of: int) -> None:
        """Shows it."""
        self.share = done / of if of else None

    def ask(self, text: str) -> None:
        """Shows it."""
        super().ask(text)
        self.todo = text

    def cells(self) -> list[str | Text]:
        """Port, entrance, state and what to do."""
        if self.error:
            return [
                self.port,
                self.wanted.entrance.id,
                Text("failed", style="bold red"),
                str(self.error).split("\n")[0],
            ]
        if self.result:
            return [self.port, self.wanted.entrance.id, Text("ready", style="green"), self.result.device]
        share = f" {self.share:.0%}" if self.share is not None else ""
        return [self.port, self.wanted.entrance.id, self.now + share, Text(self.todo, style="bold")]

    def as_json(self) -> dict[str, Any]:
        """The row for --json."""
        made: dict[str, Any] = {"port": self.port, "entrance": self.wanted.entrance.id, "ok": self.error is None}
        if self.result:
            made |= asdict(self.result)
        if self.error:
            made["error"] = {"kind": type(self.error).__name__, "text": str(self.error)}
        return made


def _table(rows: list[Row]) -> Table:
    table = Table(expand=False)
    for name in ("board", "entrance", "now", "do"):
        table.add_column(name)
    for row in rows:
        table.add_row(*row.cells())
    return table
