"""What a technician sees while a run goes on: a line for each step, a bar for what takes long, and what to do now.

All of it goes to standard error, so that --json has standard output to itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from provisioning.teller import Teller, Told

if TYPE_CHECKING:
    from provisioning.steps import Result

_MARK = {"done": ("✓", "green"), "kept": ("=", "dim"), "skipped": ("-", "yellow"), "failed": ("✗", "bold red")}


class Screen(Teller):
    """A teller on the terminal. Also reads well in a file: without a terminal there are lines only."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begins(self, now: Told) -> None:
        """Shows the step as running."""
        if not self.console.is_terminal:
            return
        self._leave()
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30), DownloadColumn(), TimeElapsedColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task(now.text, total=None)

    def progress(self, done: int, of: int) -> None:
        """Moves the bar."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=done, total=of)

    def ended(self, now: Told) -> None:
        """Leaves one line."""
        self._leave()
        mark, style = _MARK[now.outcome]
        line = Text(f" {mark} ", style=style) + Text(f"{now.step}: ", style="bold") + Text(now.text)
        if now.seconds >= 1:
            line += Text(f"  {now.seconds:.1f} s", style="dim")
        self.console.print(line, soft_wrap=True)

    def ask(self, text: str) -> None:
        """In large, as somebody has to do it."""
        super().ask(text)
        self.console.print(Panel(Text(text, style="bold"), border_style="cyan", expand=False, title="now"))

    def warn(self, text: str) -> None:
        """Says it where it happens."""
        super().warn(text)
        self.console.print(Text(f" ! {text}", style="yellow"), soft_wrap=True)

    def _leave(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = self._task = None

    def summary(self, result: Result) -> None:
        """The green end of a run."""
        facts = Table.grid(padding=(0, 2))
        for name, text in (
            ("button", result.device),
            ("board", result.mac),
            ("headquarters", result.enrolment),
            ("test alarm", {"hq": "at headquarters, and back at the light", "gateway": "at the gateway"}.get(result.test_alarm or "", "not made")),
            ("replaces", ", ".join(result.replaced)),
            ("files", "\n".join(str(path) for path in result.files)),
            ("took", f"{result.seconds:.0f} s"),
        ):  # fmt: skip
            if text:
                facts.add_row(Text(name, style="dim"), text)
        self.console.print(Panel(Group(facts), title="ready", border_style="green", expand=False))

    def failure(self, text: str) -> None:
        """The red end of a run."""
        self._leave()
        self.console.print(Panel(Text(text), title="not finished", border_style="red", expand=False))
