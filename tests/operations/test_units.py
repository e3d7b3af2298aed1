"""The files for systemd, Prometheus and Grafana hold together: what they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.parts import PROJECT

OPERATIONS = PROJECT / "operations"
UNITS = ("tocsin-broker@.service", "tocsin-station@.service")


def verified(folder: Path, change: tuple[str, str] = ("", "")) -> str:
    """What systemd says of the units, with something changed; the program itself is not installed on this machine."""
    folder.mkdir()
    for name in UNITS:
        text = (
            (OPERATIONS / "systemd" / name)
            .read_text()
            .replace("/opt/tocsin/.venv/bin/tocsin", shutil.which("true") or "")
        )
        (folder / name).write_text(text.replace(*change))
    dropin = folder / "tocsin-station@hq.service.d"
    dropin.mkdir()
    shutil.copy(OPERATIONS / "systemd" / "headquarters.conf", dropin)
    command = ["systemd-analyze", "verify", "--man=no", *(str(folder / name.replace("@", "@hq")) for name in UNITS)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    assert "Unknown key" in verified(tmp_path / "spoilt", ("WatchdogSec=", "WatchDogSeconds="))
    said = verified(tmp_path / "units")
    assert not [line for line in said.splitlines() if "tocsin" in line], said


def test_the_units_keep_their_promises() -> None:
    for name in UNITS:
        text = (OPERATIONS / "systemd" / name).read_text()
        for line in (
            "Type=notify",
            "WatchdogSec=20",
            "Restart=always",
            "ProtectSystem=strict",
            "NoNewPrivileges=yes",
            "User=tocsin",
        ):
            assert line in text.splitlines(), (name, line)
        assert "StateDirectory=tocsin/%i" in text


def asked() -> dict[str, list[str]]:
    """Every expression of the alert rules and of the dashboard, by its place."""
    rules = yaml.safe_load((OPERATIONS / "prometheus" / "alerts.yml").read_text())["groups"]
    found = {rule["alert"]: [rule["expr"]] for group in rules for rule in group["rules"]}
    board = json.loads((OPERATIONS / "grafana" / "tocsin.json").read_text())
    for panel in board["panels"]:
        found[f"panel {panel['id']} {panel['title']}"] = [target["expr"] for target in panel["targets"]]
    found["variables"] = [one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"]
    return found


def names_in(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(
        re.findall(
            r"\b(?:tocsin|process|up)(?:_[a-z0-9_]+)?\b(?=\s*[{\[)<>=,]|\s*$|\s+[-<>=])",
            re.sub(r'"[^"]*"', '""', expression),
        )
    )


def test_every_alert_is_explained_in_the_docs() -> None:
    docs = (PROJECT / "docs" / "operations.md").read_text()
    rules = yaml.safe_load((OPERATIONS / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]
    assert len(rules) == len({rule["alert"] for rule in rules}) > 10
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "warning"}
        assert rule["annotations"]["summary"]
        assert f"`{rule['alert']}`" in docs, rule["alert"]


def test_panels_do_not_overlap() -> None:
    board = json.loads((OPERATIONS / "grafana" / "tocsin.json").read_text())
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in board["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
