"""A log line is one line, whoever sent what is in it; a log that nobody reads holds nobody up."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time

import pytest

from demo.process import wait_until
from gateway import logs


def record(message: str, level: int = logging.INFO, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("gateway.test", level, "", 0, message, None, None)
    made.fields = fields
    return made


def test_a_strangers_bytes_stay_one_line() -> None:
    evil = 'b1"\n2026-01-01 INFO committed id=b1/1/1\u202e'
    text = logs.TextLines().format(record("refused", who=evil, why="no=reason", count=1, nothing=None))
    assert text.count("\n") == 0 and "\u202e" not in text
    assert text.endswith(
        'INFO refused who="b1\\"\\n2026-01-01 INFO committed id=b1/1/1\\u202e" why="no=reason" count=1'
    )
    made = json.loads(logs.JsonLines().format(record("refused", who=evil)))
    assert (made["who"], made["message"], made["level"]) == (evil, "refused", "info")
    assert logs.TextLines().format(record("a\nb")).endswith("a\\nb")


def test_a_traceback_is_kept_in_both_formats() -> None:
    try:
        raise ValueError("deep\nreason")
    except ValueError:
        made = record("it failed", logging.ERROR)
        made.exc_info = sys.exc_info()
    assert "\n    ValueError: deep" in logs.TextLines().format(made)
    assert "deep\nreason" in json.loads(logs.JsonLines().format(made))["exception"]


def test_a_flood_is_cut_short_and_counted() -> None:
    allowance = logs.Allowance(per_s=10, at_once=5)
    assert [allowance.take(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert allowance.left_out == 2
    assert [allowance.take(100.2) for _ in range(3)] == [True, True, False]
    assert sum(allowance.take(1_000.0) for _ in range(9)) == 5


def test_a_flood_of_events_leaves_room_for_alarms(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logs, "_allowances", {True: logs.Allowance(1, 2), False: logs.Allowance(1, 2)})
    with caplog.at_level(logging.INFO):
        for seq in range(50):
            logs.hop("received", ("b1", 1, seq))
        logs.hop("received", ("b1", 1, 99), alarm=True, via="gw")
    assert [made.fields["id"] for made in caplog.records] == ["b1/1/0", "b1/1/1", "b1/1/99"]
    assert caplog.records[-1].fields == {"id": "b1/1/99", "kind": "alarm", "via": "gw"}
    assert logs.left_out() == 48


def test_a_reader_that_stops_reading_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "ROOM", 50)
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    outlet = logs.Outlet(stream)
    outlet.setFormatter(logs.TextLines())
    began = time.monotonic()
    for number in range(5_000):
        outlet.handle(record(f"line {number} {'x' * 200}"))
    assert time.monotonic() - began < 5
    said: list[str] = []
    lines = os.fdopen(reader)
    reading = threading.Thread(target=lambda: said.extend(lines), daemon=True)
    reading.start()

    def accounted() -> int:
        lost = sum(int(line.split()[0]) for line in list(said) if "found no room" in line)
        return lost + sum(" line " in line for line in list(said))

    wait_until(lambda: accounted() >= 5_000, 20, "every line written, or told as lost")
    assert accounted() == 5_000
    assert any("found no room" in line for line in said)
    stream.close()
    reading.join(10)


def test_an_error_is_written_at_once() -> None:
    stream = io.StringIO()
    outlet = logs.Outlet(stream, priorities=True)
    outlet.setFormatter(logs.TextLines())
    outlet.handle(record("before"))
    outlet.handle(record("the journal can't be written", logging.CRITICAL))
    assert [line[:3] for line in stream.getvalue().splitlines()] == ["<6>", "<2>"]


def test_json_under_systemd_text_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    for form, environment, kind in (
        (None, {}, logs.TextLines),
        (None, {"JOURNAL_STREAM": "8:1"}, logs.JsonLines),
        ("text", {"JOURNAL_STREAM": "8:1"}, logs.TextLines),
        ("json", {}, logs.JsonLines),
    ):
        logs.begin(form, environment)
        assert isinstance(root.handlers[0].formatter, kind)
