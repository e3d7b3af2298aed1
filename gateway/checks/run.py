"""Every check, in the order of the settings file, and how its findings are told. Changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.checks.identity import identity, message_key, passphrase, revoked
from gateway.checks.links import console_part, parent_part
from gateway.checks.look import Finding, Look
from gateway.checks.machine import clock, mosquitto, port_free, state
from gateway.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MARKS = {"good": "✓", "warning": "!", "mistake": "✗"}
EX_CONFIG = 78  # of sysexits.h, as a station that can't read its settings ends


def run(path: Path, *, connect: bool, as_json: bool, say: Callable[[str], None]) -> int:
    """Checks everything and tells it. Returns the exit status."""
    try:
        settings = load(path)
    except SettingsError as error:
        if as_json:
            mistakes = [asdict(Finding("mistake", "settings", text)) for text in str(error).splitlines()]
            say(json.dumps({"ok": False, "findings": mistakes}, ensure_ascii=False, indent=1))
        else:
            say("\n".join(f"{MARKS['mistake']} {text}" for text in str(error).splitlines()))
        return EX_CONFIG
    text = path.read_text(encoding="utf-8")
    found = list(everything(Look(settings, text, datetime.now(UTC)), connect=connect))
    ok = not any(finding.grade == "mistake" for finding in found)
    if as_json:
        say(json.dumps({"ok": ok, "findings": [asdict(one) for one in found]}, ensure_ascii=False, indent=1))
        return 0 if ok else 1
    for one in found:
        at = f"{path.name}:{one.line} " if one.line else ""
        say(f"{MARKS[one.grade]} {at}{one.what}: {one.text}")
    verdict = "in order" if ok else "not in order: the station can't do its work like this"
    say(f"{path}: {verdict}: station {settings.station}, role {settings.role}")
    return 0 if ok else 1


def everything(look: Look, *, connect: bool) -> Iterator[Finding]:
    """Every finding. connect: also reach the parents."""
    yield from passphrase(look)
    yield from identity(look)
    yield from message_key(look)
    yield from revoked(look)
    yield from state(look)
    yield from mosquitto(look)
    broker = look.settings.broker
    yield from port_free(look, ("broker", "port"), "port of the broker", broker.listen, broker.port)
    yield from console_part(look)
    for number, parent in enumerate(look.settings.parents):
        yield from parent_part(look, number, parent, connect=connect)
    yield from clock(look)
