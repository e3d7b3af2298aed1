"""A technician's workshop on this machine: a laptop's folder, an authority, a site, and a headquarters that knows her.

Everything is real but the board: stations, brokers, TLS, the `tocsin` commands. Whoever works in it brings boards.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

from demo.world import HQ, PROJECT, SITE, World
from provisioning import sites
from provisioning.authority import AuthorityFolder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SITE_ID = "clifton"
TECHNICIAN = "rabia"
ENTRANCES = (("main-gate", "Main gate", "صدر دروازہ"), ("visa-hall", "Visa hall", "ویزا ہال"))
COMMAND_S = 300


class Workshop:
    """A context manager: inside it headquarters and the gateway run, and the technician's token is kept."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.passphrase = secrets.token_urlsafe(12)
        self.environment = {
            **os.environ,
            "TOCSIN_HOME": str(self.home),
            "TOCSIN_VAULT": "file",
            "TOCSIN_PASSPHRASE": self.passphrase,
            "TOCSIN_TECHNICIAN": TECHNICIAN,
            "COLUMNS": "120",
        }
        self.must("ca", "init", "--name", "Clifton authority", says=self.passphrase + "\n")
        self.authority = AuthorityFolder.open(self.home / "authority", self.passphrase)
        self.world = World(buttons=(), authority=self.authority)
        self._write_site()

    def _write_site(self) -> None:
        site = sites.Site(
            id=SITE_ID,
            name="Consulate, Clifton",
            name_ur="قونصل خانہ، کلفٹن",
            address="Plot 20, Block 4, Clifton",
            phone="021 5550 123",
            hq=sites.Headquarters(url=self.world.url),
            brokers=(sites.Broker(address="127.0.0.1", port=self.world.site_port, name=SITE),),
            entrances=tuple(sites.Entrance(id=id_, name=name, name_ur=name_ur) for id_, name, name_ur in ENTRANCES),
            revocation_urls=(f"http://127.0.0.1:{self.world.site_console}",),
        )
        sites.save(self.home, site)

    def __enter__(self) -> Self:
        """Starts the stations and has headquarters know the technician."""
        try:
            for process in self.world.processes.values():
                process.start()
            self.token = self.headquarters("technician", TECHNICIAN).strip().splitlines()[-1]
            self._keep_token()
        except BaseException:
            self.world.close(keep=True)
            raise
        return self

    def _keep_token(self) -> None:
        for left in range(20, -1, -1):
            kept = self.run("token", "--site", SITE_ID, says=self.token + "\n")
            if kept.returncode == 0:
                return
            if not left or kept.returncode != 10:  # 10: headquarters is just starting
                raise RuntimeError(kept.stderr)
            threading.Event().wait(0.3)

    def __exit__(self, *_: object) -> None:
        """Ends everything."""
        self.world.close()

    def headquarters(self, *arguments: str) -> str:
        """Runs a `tocsin` command at headquarters; what it printed. Raises CalledProcessError."""
        config = str(self.world.folder / f"{HQ}.toml")
        command = [sys.executable, "-m", "gateway.cli", arguments[0], "--config", config, *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=PROJECT, timeout=60).stdout

    def command(self, *arguments: str, as_json: bool = False) -> list[str]:
        """The command line of a `tocsin provision` command."""
        return [sys.executable, "-m", "provisioning.cli", *(["--json"] if as_json else []), *arguments]

    def run(
        self, *arguments: str, says: str = "", hears: Callable[[str], None] | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs `tocsin provision --json …`. hears: is told every line of standard error at once."""
        process = subprocess.Popen(
            self.command(*arguments, as_json=True),
            cwd=PROJECT,
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        killer = threading.Timer(COMMAND_S, process.kill)
        killer.start()
        try:
            process.stdin.write(says)
            process.stdin.close()
            printed: list[str] = []
            reader = threading.Thread(target=lambda: printed.append(process.stdout.read()), daemon=True)  # type: ignore[union-attr]
            reader.start()
            lines = []
            for line in process.stderr:
                lines.append(line)
                if hears:
                    hears(line)
            status = process.wait()
            reader.join()
        finally:
            killer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
        return subprocess.CompletedProcess(process.args, status, printed[0], "".join(lines))

    def must(self, *arguments: str, **more: Any) -> dict[str, Any]:
        """Runs a command that must succeed; its JSON."""
        done = self.run(*arguments, **more)
        if done.returncode:
            raise RuntimeError(f"tocsin provision {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told


class Hands:
    """A technician's hands at one board: they do what the tool asks for."""

    def __init__(self, pins: Callable[..., None]) -> None:
        self._pins = pins
        self.did: list[str] = []

    def hears(self, line: str) -> None:
        """One line of the tool's."""
        for words, act in (
            ("Press the button", self._press),
            ("Open the cover", lambda: self._pins(tamper=1000)),
            ("Close the cover", lambda: self._pins(tamper=340)),
        ):
            if words in line:
                self.did.append(words)
                act()

    def _press(self) -> None:
        self._pins(loop_a=610, loop_b=340)
        threading.Timer(0.4, lambda: self._pins(loop_a=340, loop_b=610)).start()
