"""Headquarters brings a new firmware to its buttons: staged, never two of a site at once, halted by the first that fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from demo.process import wait_until
from demo.world import World
from firmware import VERSION, wire
from gateway.cli import app
from gateway.rollout import (
    DONE,
    HALTED,
    HEARD_MS,
    RUNNING,
    SILENT_MS,
    Progress,
    Rollout,
    RolloutRefusedError,
    Store,
    chosen,
    next_step,
)
from gateway.passing import Passing
from tests.firmware.releases import POINT, real, small
from tests.operator import Operator

if TYPE_CHECKING:
    from pathlib import Path

GATE, VISA = "clifton-gate", "clifton-visa"
MANY = [f"b{n}" for n in range(20)]
SITES = {child: f"site{n % 5}" for n, child in enumerate(MANY)}
NOW = 10**12
HEARD = dict.fromkeys(MANY, NOW)


def rollout(at_once: int = 5) -> Rollout:
    return Rollout("0.3.0", tuple(MANY), at_once, "rana", NOW)


def so_far(**states: str) -> list[Progress]:
    return [Progress(child, states.get(child, ""), "why", NOW) for child in MANY]


def test_a_staged_fraction_goes_on_with_others() -> None:
    first = chosen(MANY, {}, "0.3.0", 10)
    assert len(first) == 2
    running = dict.fromkeys(first, "0.3.0")
    assert chosen(MANY, running, "0.3.0", 10) == ()
    second = chosen(MANY, running, "0.3.0", 50)
    assert len(second) == 8
    assert not set(first) & set(second)
    assert set(chosen(MANY, running, "0.3.0", 100)) == set(MANY) - set(first)
    assert len(chosen(MANY, {}, "0.3.0", 0.1)) == 1
    assert chosen(MANY, {}, "0.4.0", 10) != first


def test_never_two_of_a_site_and_no_more_than_so_many_at_once() -> None:
    _, offers = next_step(rollout(3), so_far(), HEARD, SITES, NOW)
    assert offers == MANY[:3]
    _, offers = next_step(rollout(10), so_far(b0="waiting", b1="done"), HEARD, SITES, NOW)
    assert sorted(SITES[child] for child in offers) == ["site1", "site2", "site3", "site4"]
    assert "b1" not in offers


def test_a_button_that_is_not_heard_is_offered_nothing_yet() -> None:
    heard = HEARD | {"b0": NOW - HEARD_MS - 1}
    assert "b0" not in next_step(rollout(), so_far(), heard, SITES, NOW)[1]


@pytest.mark.parametrize("state", ["failed", "expired", "replaced"])
def test_one_that_fails_halts_the_rest(state: str) -> None:
    after, offers = next_step(rollout(), so_far(b0="done", b1="waiting", b2=state), HEARD, SITES, NOW)
    assert (after.state, offers) == (HALTED, [])
    assert after.why.startswith("b2: ")


def test_one_that_does_not_come_back_halts_the_rest() -> None:
    later = NOW + SILENT_MS
    heard = dict.fromkeys(MANY, later) | {"b1": NOW - 5}
    assert next_step(rollout(), so_far(b1="waiting"), heard, SITES, later)[0].state == RUNNING
    after, offers = next_step(rollout(), so_far(b1="waiting"), heard, SITES, later + 1)
    assert (after.state, offers) == (HALTED, [])
    assert "b1 has not been heard for 15 minutes" in after.why


def test_it_is_done_when_all_are() -> None:
    assert next_step(rollout(), so_far(**dict.fromkeys(MANY, "done")), HEARD, SITES, NOW)[0].state == DONE


def test_only_a_release_with_a_good_signature_is_taken_in(tmp_path: Path) -> None:
    new = small()
    store = Store(tmp_path / "releases", POINT)
    for at in (0, 70, new.head - 1, new.head, len(new.octets) - 1):
        spoiled = bytearray(new.octets)
        spoiled[at] ^= 1
        with pytest.raises(RolloutRefusedError, match="nothing was taken in"):
            store.take(bytes(spoiled))
    for length in (0, 10, 64, 100, new.head, len(new.octets) - 1):
        with pytest.raises(RolloutRefusedError, match="nothing was taken in"):
            store.take(new.octets[:length])
    with pytest.raises(RolloutRefusedError, match="release_key"):
        Store(tmp_path, None).take(new.octets)
    assert store.versions() == []
    store.take(new.octets)
    assert store.take(new.octets).version == "0.2.0"
    with pytest.raises(RolloutRefusedError, match="give this one a new version"):
        store.take(small(boards=("esp32_devkitc",)).octets)
    store.take(small("0.10.0").octets)
    assert store.versions() == ["0.2.0", "0.10.0"]
    (tmp_path / "releases" / "0.2.0.release").write_bytes(new.octets[:-1] + b"x")
    with pytest.raises(RolloutRefusedError):
        store.read("0.2.0")


def test_a_site_passes_on_what_asks_for_pieces_and_still_bounds_it() -> None:
    passing = Passing()
    beat = {wire.BOOT: 1, wire.SEQ: 0, wire.WANTED: [bytes(8), 0]}
    passed = [passing.passes("b1", beat | {wire.SEQ: n}, n * 10, afresh=False) for n in range(300)]
    assert all(passed[:110])
    assert sum(passed) < 150


def tocsin(world: World, *words: str) -> str:
    result = CliRunner().invoke(app, ["update", words[0], "--config", str(world.folder / "hq.toml"), *words[1:]])
    assert result.exit_code == 0, result.output
    return result.output


def taken(world: World, folder: Path, version: str, *changes: tuple[str, str, str]) -> None:
    file = folder / f"{version}.file"
    file.write_bytes(real(folder, version, *changes).octets)
    assert version in tocsin(world, "take", str(file))


def versions(operator: Operator) -> dict[str, Any]:
    return {child["id"]: child["firmware"] for child in operator.get("children") if child["kind"] == "button"}


def test_a_good_release_reaches_one_button_then_a_bad_one_halts_at_the_first(tmp_path: Path) -> None:
    with World(buttons=(GATE, VISA), release_key=POINT.hex()) as world:
        operator = Operator(world).sign_in()
        taken(world, tmp_path, "0.3.0")
        assert "1 of 2" in tocsin(world, "start", "--fraction", "50%")
        wait_until(lambda: "0.3.0: done" in tocsin(world, "status"), 120, "the update is done", every_s=0.5)
        wait_until(
            lambda: sorted(versions(operator).values()) == [VERSION, "0.3.0"], 30, "headquarters sees it", every_s=0.2
        )
        first = next(child for child, version in versions(operator).items() if version == "0.3.0")
        world.wait_ready()
        world.buttons[first].press()
        wait_until(lambda: world.buttons[first].light == "at_hq", 20, "an alarm from the new firmware")
        operator.close_all()

        taken(world, tmp_path, "0.4.0", ("app", "BEAT_MS = 5000\n", "BEAT_MS = 5000\nraise ValueError('spoiled')\n"))
        tocsin(world, "start", "--fraction", "100%")
        wait_until(lambda: "0.4.0: halted" in tocsin(world, "status"), 120, "it halted", every_s=0.5)
        said = tocsin(world, "status")
        assert "it does not start: ValueError: spoiled" in said
        assert said.count("not offered yet") == 1
        world.wait_ready()
        assert sorted(versions(operator).values()) == [VERSION, "0.3.0"]
        told = operator.get("happenings")
        assert any("0.4.0 halted" in one["detail"] for one in told if one["code"] == "rollout")
        assert any("ValueError: spoiled" in one["detail"] for one in told if one["code"] == "command_failed")
