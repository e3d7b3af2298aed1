"""Wherever the power goes while a board becomes a button, it is the old button, the new one, or none; never half of one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import pytest

from firmware import certificate, enrolment, keys, p256
from firmware.enrolment import Enrolment
from tests.firmware.enrolling import AUTHORITY, DER, ID, check_pair, deliver, enrol, files, on_micropython

pytestmark = pytest.mark.usefixtures("board")


class PowerCut(BaseException):
    """The power is gone; nothing in the firmware can catch it."""


class CuttingFiles:
    """`os` and `open`, until `steps` changes were made: one operation is one step, a write is two."""

    def __init__(self, steps: int = 10**9) -> None:
        self.steps = steps
        self.done = 0

    def step(self) -> None:
        if self.done >= self.steps:
            raise PowerCut
        self.done += 1

    def stat(self, path: str) -> os.stat_result:
        return os.stat(path)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        if not Path(path).exists():
            self.step()
        Path(path).mkdir()

    def rmdir(self, path: str) -> None:
        self.step()
        Path(path).rmdir()

    def rename(self, old: str, new: str) -> None:
        self.step()
        Path(old).rename(new)

    def remove(self, path: str) -> None:
        self.step()
        Path(path).unlink()

    def open(self, path: str, mode: str) -> Any:  # noqa: ANN401 - as open's
        if mode == "rb":
            return Path(path).open("rb")
        self.step()
        return CuttingFile(self, path)


class CuttingFile:
    """A file of which half arrives, then the rest."""

    def __init__(self, files: CuttingFiles, path: str) -> None:
        self.files = files
        self.file = Path(path).open("wb", buffering=0)

    def write(self, octets: bytes) -> None:
        half = len(octets) // 2
        self.file.write(octets[:half])
        self.files.step()
        self.file.write(octets[half:])

    def flush(self) -> None:
        self.files.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def cutting(steps: int, what: str, *arguments: Any) -> bool:  # noqa: ANN401
    """Does `what` of an Enrolment until the power goes after so many steps; whether it came to its end."""
    cut = CuttingFiles(steps)
    try:
        getattr(Enrolment(cut, cut.open), what)(*arguments)
    except PowerCut:
        return False
    return True


def check_whole(before: dict[str, bytes], new_id: str, *, keeps: bool) -> None:
    """The board is the button before, untouched, or the new one, whole, or none. keeps: the state stays in any case."""
    now = files()
    state = {name: octets for name, octets in before.items() if name.startswith("state/")}
    there = {name: octets for name, octets in now.items() if name.startswith("state/")}
    if keeps:
        assert there == state
    if "settings.json" not in now:
        assert enrolment.state()["id"] is None
        return
    key = p256.public(keys.private_number(now["identity/key.der"]))
    name, point = certificate.of_certificate(now["identity/cert.der"])
    assert point == key
    assert json.loads(now["settings.json"])["id"] == name == enrolment.state()["id"]
    if now["settings.json"] == before.get("settings.json") and now["identity/cert.der"] == before.get(
        "identity/cert.der"
    ):
        assert {n: o for n, o in now.items() if n in before} == before, "the old button, untouched"
    else:
        assert name == new_id
        assert there == (state if keeps else {}), "the new button with the old one's state"


def scene(kind: str) -> str:
    """A board on which an identity was delivered and waits for `complete`; its id."""
    if kind != "blank":
        enrol("khi-cn-b0")
    if kind == "littered":  # an enrolment before was cut while it tidied up, one before that while it was erased
        Path("identity.old").mkdir()
        Path("identity.old/cert.der").write_bytes(AUTHORITY.issue("older").certificate.public_bytes(DER))
        Path("identity/request.der").write_bytes(b"rest")
    Path("state").mkdir()
    for name in ("boot-a", "boot-b", "a-7-1", "message-key", "new"):
        Path("state", name).write_bytes(name.encode())
    if kind == "same key":
        deliver("khi-cn-b0", enrolment.request("khi-cn-b0", same_key=True))
        return "khi-cn-b0"
    new = "khi-cn-b0" if kind == "same id" else ID
    deliver(new, enrolment.request(new))
    Path("identity.new/cert.der.part").write_bytes(b"an upload that was cut off")
    return new


KINDS = ["blank", "another id", "same id", "same key", "littered"]


def restored(place: Path, template: Path) -> None:
    os.chdir(template)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    os.chdir(place)


@pytest.fixture
def template(board: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    """A folder that holds the scene, and the id that is to come."""
    folder = board / "template"
    folder.mkdir()
    os.chdir(folder)
    return folder, scene(request.param)


@pytest.mark.parametrize("template", KINDS, indirect=True)
def test_completing_is_cut_after_every_step_and_goes_on(
    board: Path, template: tuple[Path, str], request: pytest.FixtureRequest
) -> None:
    folder, new = template
    before = files()
    keeps = request.node.callspec.params["template"] == "same key"
    steps, finished = 0, False
    while not finished:
        restored(board / "board", folder)
        finished = cutting(steps, "complete")
        check_whole(before, new, keeps=keeps)
        again = 0
        while not cutting(again, "complete"):  # the power goes while it goes on, too: one step further each time
            check_whole(before, new, keeps=keeps)
            again += 1
        check_whole(before, new, keeps=keeps)
        left = sorted(name for name in files() if not name.startswith("state/"))
        assert left == ["identity/ca.der", "identity/cert.der", "identity/key.der", "settings.json"], steps
        assert files()["identity/cert.der"] == before["identity.new/cert.der"]
        assert enrolment.state() == {**enrolment.state(), "id": new, "pending": None}
        steps += 1
    assert steps > (3 if keeps else 9)


@pytest.mark.parametrize("template", KINDS, indirect=True)
def test_a_tool_that_begins_again_after_a_cut_gets_to_the_same_end(
    board: Path, template: tuple[Path, str], request: pytest.FixtureRequest
) -> None:
    folder, new = template
    before = files()
    same_key = request.node.callspec.params["template"] == "same key"
    steps, finished = 0, False
    while not finished:
        restored(board / "board", folder)
        finished = cutting(steps, "complete")
        if not (enrolment.state()["id"] == new and enrolment.state()["pending"] is None):
            assert enrolment.state()["pending"] == new
            asked = enrolment.request(new, same_key=same_key)
            assert asked == before["identity.new/request.der"], "the key that was certified is kept"
            deliver(new, asked)
        assert enrolment.complete() == new
        check_whole(before, new, keeps=same_key)
        steps += 1


def test_requesting_is_cut_after_every_step() -> None:
    enrol("khi-cn-b0")
    before = files()
    steps, finished = 0, False
    while not finished:
        Enrolment()._remove("identity.new")
        if steps % 2:
            enrolment.request("khi-cn-b7")
        finished = cutting(steps // 2, "request", ID) and steps % 2 == 1
        assert before.items() <= files().items()
        assert enrolment.state()["id"] == "khi-cn-b0"
        request = enrolment.request(ID)
        check_pair(Path("identity.new/key.der").read_bytes(), request, ID)
        steps += 1
    assert steps > 20
    deliver(ID, request)
    assert enrolment.complete() == ID


@pytest.mark.parametrize("template", KINDS, indirect=True)
def test_erasing_is_cut_after_every_step_and_leaves_no_button(board: Path, template: tuple[Path, str]) -> None:
    folder, _ = template
    steps, finished = 0, False
    while not finished:
        restored(board / "board", folder)
        finished = cutting(steps, "erase")
        if steps:
            assert enrolment.state()["id"] is None
        enrol("khi-cn-b5")
        assert [name for name in files() if name.startswith("state/")] == [], "nothing of the old one is left"
        enrolment.erase()
        assert files() == {}
        steps += 1
    assert steps > 10


def test_completing_is_cut_at_every_operation_of_a_real_littlefs(board: Path) -> None:
    scene("another id")
    word, cuts = on_micropython("run_enrolment_littlefs.py", board).split()
    assert word == "passed"
    assert int(cuts) > 10
