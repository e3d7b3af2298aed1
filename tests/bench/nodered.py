"""Node-RED with its SQLite node as it comes: MQTT in, one INSERT per message. Where npm is present.

Nothing is verified, and the node acknowledges a message when it has come, before anything is on the disk: it is the usual
flow, not an equal one. Its database is in WAL mode, which favours it.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from demo.process import Process
from demo.world import PROJECT
from tests.bench.storing import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("node-red@4.1.8", "node-red-node-sqlite@1.1.1")
_HEADERS = Path("/usr/include/node")
_INSTALL_S = 900
_INSERT = "INSERT INTO messages (source, payload) VALUES ($topic, $payload)"


def installed(say: Callable[[str], None]) -> Path | None:
    """Its folder under the project's cache, installed at the first time; None, and why is said, if it can't be."""
    npm, folder = shutil.which("npm"), PROJECT / ".cache" / "node-red"
    if (folder / "ready").exists():
        return folder
    if npm is None:
        say("Node-RED is left out: npm is not installed.")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    say("Installing Node-RED and compiling its SQLite: some minutes, once …")
    command = [npm, "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--build-from-source=sqlite3"]
    if _HEADERS.exists():  # the compiler's headers would come from Node's own site
        command.append("--nodedir=/usr")
    try:
        made = subprocess.run([*command, *PACKAGES], capture_output=True, text=True, timeout=_INSTALL_S, check=False)
    except subprocess.TimeoutExpired:
        say(f"Node-RED is left out: npm was not ready after {_INSTALL_S} s.")
        return None
    if made.returncode:
        say(f"Node-RED is left out: npm says: {(made.stderr or made.stdout).strip()[-400:]}")
        return None
    (folder / "ready").touch()
    return folder


def prepare(program: Path, folder: Path, port: int, log: Path) -> Process:
    """The process, with its flow and its database in `folder`, where the identity "subscriber" is; not started."""
    database = folder / "messages.db"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(SCHEMA)
    connection.close()
    (folder / "flow.json").write_text(json.dumps(_flow(folder, port, database)))
    (folder / "settings.js").write_text(
        'module.exports = {httpAdminRoot: false, httpNodeRoot: false, logging: {console: {level: "warn"}}}\n'
    )
    red = program / "node_modules" / "node-red" / "red.js"
    command = [shutil.which("node") or "node", str(red), "--settings", str(folder / "settings.js"), "--userDir"]
    return Process(
        "node-red",
        [*command, str(program), "--port", "0", str(folder / "flow.json")],
        cwd=folder,
        env={},
        log=log,
    )


def _flow(folder: Path, port: int, database: Path) -> list[dict[str, object]]:
    identity = folder / "subscriber"
    return [
        {"id": "tab", "type": "tab", "label": "store"},
        {
            "id": "tls",
            "type": "tls-config",
            "cert": str(identity / "cert.pem"),
            "key": str(identity / "key.pem"),
            "ca": str(identity / "ca.pem"),
            "servername": "localhost",
            "verifyservercert": True,
        },
        {
            "id": "broker",
            "type": "mqtt-broker",
            "broker": "localhost",
            "port": str(port),
            "clientid": "subscriber",
            "usetls": True,
            "tls": "tls",
            "protocolVersion": "4",
            "keepalive": "30",
            "cleansession": False,
            "autoConnect": True,
        },
        {
            "id": "in",
            "type": "mqtt in",
            "z": "tab",
            "topic": "tocsin/1/+/alarm",
            "qos": "1",
            "datatype": "buffer",
            "broker": "broker",
            "inputs": 0,
            "wires": [["row"]],
        },
        {
            "id": "row",
            "type": "function",
            "z": "tab",
            "func": "return {params: {$topic: msg.topic, $payload: msg.payload}}",
            "outputs": 1,
            "wires": [["insert"]],
        },
        {
            "id": "insert",
            "type": "sqlite",
            "z": "tab",
            "mydb": "db",
            "sqlquery": "prepared",
            "sql": _INSERT,
            "wires": [[]],
        },
        {"id": "db", "type": "sqlitedb", "db": str(database), "mode": "RW"},
    ]
