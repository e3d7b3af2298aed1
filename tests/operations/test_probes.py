"""Metrics with a token; health that tells what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gateway import keys
from gateway.console.probes import Probes

TOKEN = "9a1c5f7e2b4d6a8c0e1f"


def asking(probes: Probes, address: str = "127.0.0.1") -> TestClient:
    app = FastAPI()
    app.include_router(probes.router())
    return TestClient(app, base_url="http://127.0.0.1:8443", client=(address, 50_000))


def test_with_a_token_in_the_settings_it_is_what_counts() -> None:
    metrics = asking(Probes(metrics=lambda: b"tocsin_ready 1\n", token=TOKEN), "192.0.2.7")
    assert metrics.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text == "tocsin_ready 1\n"
    for header in (
        {},
        {"Authorization": "Bearer no"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer \xff"},
    ):
        answer = metrics.get("/metrics", headers={name: value.encode("latin-1") for name, value in header.items()})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert asking(Probes(token=TOKEN)).get("/metrics").status_code == 401, "a proxy may stand on this machine"


def test_without_a_token_only_this_machine_is_answered() -> None:
    assert asking(Probes(), "192.0.2.7").get("/metrics").status_code == 403
    assert asking(Probes(), "::1").get("/metrics").status_code == 200
    assert asking(Probes()).get("/metrics", headers={"Host": "[::1]:8443"}).status_code == 200
    assert asking(Probes()).get("/metrics", headers={"Host": "hq.example:8443"}).status_code == 403


def test_health_tells_what_is_wrong() -> None:
    bad = asking(Probes(stuck=lambda: ["the relay hangs"], unready=lambda: ["no broker"]))
    assert (bad.get("/healthz").status_code, bad.get("/healthz").json()) == (
        503,
        {"ok": False, "wrong": ["the relay hangs"]},
    )
    assert bad.get("/readyz").json() == {"ok": False, "wrong": ["the relay hangs", "no broker"]}
    waiting = asking(Probes(unready=lambda: ["no broker"]))
    assert (waiting.get("/healthz").status_code, waiting.get("/readyz").status_code) == (200, 503)


def test_a_token_file_is_one_long_word(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for text in ("", "short", "two words of a token", "x" * 20 + "\nmore"):
        path.write_text(text)
        with pytest.raises(keys.KeyFileError, match="openssl rand"):
            keys.token(path)
    path.write_text(f"{TOKEN}\n")
    assert keys.token(path) == TOKEN
