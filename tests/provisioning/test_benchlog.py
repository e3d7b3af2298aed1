"""The bench's log shows whatever was done to it, and tells a power cut from a hand."""

from __future__ import annotations

import json
import multiprocessing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from provisioning import benchlog
from provisioning.benchlog import BenchLog
from provisioning.errors import SetupFault

MAC = "24:0a:c4:00:00:01"


@pytest.fixture
def log(tmp_path: Path) -> BenchLog:
    made = BenchLog(tmp_path, who="amna@bench", clock=lambda: datetime(2026, 11, 24, 9, tzinfo=UTC))
    for n in range(5):
        made.append("provisioned", MAC, id=f"khi-gate-{n}", entrance="صدر دروازہ")
    return made


def lines(log: BenchLog) -> list[bytes]:
    return log.path.read_bytes().splitlines(keepends=True)


def test_what_was_done_is_kept(log: BenchLog) -> None:
    assert log.entries()[0] == {
        "n": 1, "at": "2026-11-24T09:00:00+00:00", "who": "amna@bench", "did": "provisioned", "board": MAC,
        "id": "khi-gate-0", "entrance": "صدر دروازہ",
    }  # fmt: skip
    assert log.verify() == benchlog.Verdict(5)
    assert str(log.verify()) == "5 entries, none of them altered, removed or reordered"
    assert (log.path.parent / "bench-key.pem").stat().st_mode & 0o777 == 0o600
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_a_new_bench_has_an_empty_log(tmp_path: Path) -> None:
    log = BenchLog(tmp_path / "new")
    assert log.verify().is_whole
    assert log.entries() == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("line", range(5))
def test_any_altered_octet_is_found(log: BenchLog, line: int) -> None:
    whole = lines(log)
    for at in range(0, len(whole[line]) - 1, 37):
        changed = bytearray(whole[line])
        changed[at] ^= 1
        log.path.write_bytes(b"".join([*whole[:line], bytes(changed), *whole[line + 1 :]]))
        verdict = log.verify()
        assert verdict.line == line + 1, (at, verdict)
        assert "altered" in verdict.what
    log.path.write_bytes(b"".join(whole))
    assert log.verify().is_whole


@pytest.mark.parametrize("space", [b" ", b"\t", b"\r"])
def test_white_space_counts(log: BenchLog, space: bytes) -> None:
    log.path.write_bytes(log.path.read_bytes()[:-1] + space + b"\n")
    assert log.verify().line == 5


@pytest.mark.parametrize(
    ("kept", "line", "what"),
    [
        ([1, 2, 3, 4], 1, "entry 1 was removed from before it"),
        ([0, 3, 4], 2, "entries 2 to 3 were removed"),
        ([0, 1, 2], 4, "entries up to 5 that stood here were removed from the end"),
        ([], 1, "entries up to 5 that stood here were removed"),
        ([0, 2, 1, 3, 4], 2, "entry 2 was removed from before it"),
        ([0, 1, 1, 2, 3, 4], 3, "does not follow"),
        ([0, 1, 2, 3, 4, 0], 6, "does not follow"),
    ],
)
def test_removed_repeated_and_reordered_lines_are_found(log: BenchLog, kept: list[int], line: int, what: str) -> None:
    whole = lines(log)
    log.path.write_bytes(b"".join(whole[n] for n in kept))
    assert log.verify().line == line
    assert what in log.verify().what


def test_lines_that_were_taken_from_the_end_stay_missed(log: BenchLog) -> None:
    log.path.write_bytes(b"".join(lines(log)[:3]))
    assert log.append("tested", MAC)["n"] == 6
    assert log.verify().line == 4
    assert "entries 4 to 5 were removed" in log.verify().what
    log.path.unlink()
    log.append("tested", MAC)
    assert "entries 1 to 6 were removed" in log.verify().what


def test_a_line_of_another_bench_is_found(log: BenchLog, tmp_path: Path) -> None:
    other = BenchLog(tmp_path / "other", who="amna@bench")
    for _ in range(6):
        other.append("provisioned", MAC)
    log.path.write_bytes(log.path.read_bytes() + lines(other)[5])
    assert log.verify().line == 6


def test_the_head_does_not_pass_for_a_line_nor_a_line_for_the_head(log: BenchLog) -> None:
    head, whole = log.path.parent / "bench-head.json", log.path.read_bytes()
    log.append("tested", MAC, sha256="0" * 64)
    log.path.write_bytes(whole + head.read_bytes())
    assert log.verify().line == 6
    log.path.write_bytes(whole)
    head.write_bytes(lines(log)[4])
    assert "was altered" in log.verify().what


@pytest.mark.parametrize("octets", [1, 40, 200])
def test_a_power_cut_is_told_from_a_hand_and_repaired(log: BenchLog, octets: int) -> None:
    head = log.path.parent / "bench-head.json"
    before, said = log.path.read_bytes(), head.read_bytes()
    log.append("provisioned", MAC)
    unfinished = log.path.read_bytes()[: len(before) + octets]
    log.path.write_bytes(unfinished)
    head.write_bytes(said)
    verdict = log.verify()
    assert verdict.is_whole
    assert verdict.cut
    assert "loss of power" in str(verdict)
    assert log.append("tested", MAC)["cut"] == unfinished[len(before) :].decode()
    assert log.verify() == benchlog.Verdict(6)


def test_the_last_line_with_its_end_taken_off_is_no_power_cut(log: BenchLog) -> None:
    log.path.write_bytes(log.path.read_bytes()[:-20])
    verdict = log.verify()
    assert verdict.line == 5
    assert "removed from the end" in verdict.what


def test_a_power_cut_before_the_head_was_written_is_no_fault(log: BenchLog, tmp_path: Path) -> None:
    head = log.path.parent / "bench-head.json"
    said = head.read_bytes()
    log.append("tested", MAC)
    head.write_bytes(said)
    assert log.verify().is_whole
    first = BenchLog(tmp_path / "first")
    first.append("tested", MAC)
    (tmp_path / "first" / "bench-head.json").unlink()
    assert first.verify().is_whole
    first.append("tested", MAC)
    assert first.verify() == benchlog.Verdict(2)


def test_a_missing_old_or_altered_head_is_found(log: BenchLog) -> None:
    head = log.path.parent / "bench-head.json"
    old = head.read_bytes()
    log.append("tested", MAC)
    log.append("tested", MAC)
    head.write_bytes(old)
    assert "not the head of this log" in log.verify().what
    head.write_bytes(old.replace(b'"n":5', b'"n":7'))
    assert "was altered" in log.verify().what
    head.unlink()
    assert "is missing" in log.verify().what


def test_the_public_key_alone_is_enough_to_audit(log: BenchLog, tmp_path: Path) -> None:
    copy, pem = tmp_path / "copy.jsonl", log.public_key()
    copy.write_bytes(log.path.read_bytes())
    assert benchlog.verify(copy, pem).is_whole
    foreign = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert benchlog.verify(copy, foreign).line == 1
    assert benchlog.verify(copy, foreign.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).line == 1
    with pytest.raises(SetupFault, match="can't be read"):
        benchlog.verify(copy, b"no key")


def test_a_lost_key_is_told_and_not_replaced(log: BenchLog) -> None:
    (log.path.parent / "bench-key.pem").unlink()
    for attempt in (lambda: log.append("tested", MAC), log.verify, log.public_key):
        with pytest.raises(SetupFault, match=r"bench-key.pem can't be used.*put it back"):
            attempt()
    assert len(lines(log)) == 5


def _append(folder: Path, who: str) -> None:
    log = BenchLog(folder, who=who)
    for _ in range(25):
        log.append("tested", MAC)


def test_two_programs_write_at_once(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_append, args=(tmp_path, who)) for who in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    log = BenchLog(tmp_path)
    assert log.verify() == benchlog.Verdict(50)
    assert sorted(entry["who"] for entry in log.entries()) == ["a"] * 25 + ["b"] * 25
    assert [json.loads(line)["n"] for line in lines(log)] == list(range(1, 51))
