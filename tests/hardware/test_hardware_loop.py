"""Worst case of the loops: the thresholds keep their guard, and the firmware carries the same thresholds."""

import ast
import random
from itertools import pairwise
from pathlib import Path

import pytest

from hardware import loop

FIRMWARE_LOOP = Path(__file__).parents[2] / "firmware" / "loop.py"
LOOPS = loop.read()
KINDS = sorted(LOOPS.loops)
STATES = [(kind, state) for kind in KINDS for state in LOOPS.loops[kind].states_ohm]
SEED = 20240


def firmware_thresholds(path: Path = FIRMWARE_LOOP) -> tuple[int | None, ...]:
    """SHORT_LOW, LOW_HIGH, HIGH_OPEN of a firmware file (`= 202` or `= const(202)`), read without importing it."""
    assert path.exists(), f"{path} is missing: the firmware has no thresholds to check."
    found: dict[str, int] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            if isinstance(value, ast.Constant) and isinstance(value.value, int):
                found |= {ast.unparse(target): value.value for target in node.targets}
    return tuple(found.get(name) for name in ("SHORT_LOW", "LOW_HIGH", "HIGH_OPEN"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_threshold_keeps_its_stated_guard_in_the_worst_case(kind: str) -> None:
    for threshold, guard, room in zip(
        LOOPS.loops[kind].thresholds, LOOPS.loops[kind].guard, loop.guards(LOOPS, kind), strict=True
    ):
        assert min(room) >= guard, f"{kind}: {threshold} keeps {room}"


@pytest.mark.parametrize("kind", KINDS)
def test_bands_do_not_touch(kind: str) -> None:
    for below, above in pairwise(loop.bands(LOOPS, kind).values()):
        assert below.high < above.low


@pytest.mark.parametrize(("kind", "state"), STATES)
def test_no_random_reading_leaves_its_band(kind: str, state: str) -> None:
    rng, band = random.Random(SEED), loop.bands(LOOPS, kind)[state]
    readings = [loop.sample(LOOPS, kind, state, rng) for _ in range(5_000)]
    assert band.low <= min(readings), f"seed {SEED}"
    assert max(readings) <= band.high, f"seed {SEED}"


def test_random_readings_leave_more_guard_than_the_worst_case() -> None:
    rng, thresholds = random.Random(SEED), LOOPS.loops["button"].thresholds
    drawn = [
        [loop.sample(LOOPS, "button", state, rng) for _ in range(5_000)] for state in LOOPS.loops["button"].states_ohm
    ]
    for threshold, (below, above) in zip(thresholds, pairwise(drawn), strict=True):
        assert threshold - max(below) >= 80, f"seed {SEED}"
        assert min(above) - threshold >= 80, f"seed {SEED}"


def test_a_worse_resistor_loses_guard() -> None:
    """The computation sees what it must see: 10 % parts in the button do not keep the stated guard."""
    button = LOOPS.loops["button"]
    poor = button.model_copy(update={"end": button.end.model_copy(update={"tolerance": 0.10})})
    loops = LOOPS.model_copy(update={"loops": {**LOOPS.loops, "button": poor}})
    assert any(min(room) < guard for room, guard in zip(loop.guards(loops, "button"), button.guard, strict=True))


@pytest.mark.parametrize(
    ("kind", "state", "per_mille"),
    [
        ("button", "SHORT", 0),
        ("button", "LOW", 1000 * 1.0 / 3.2),
        ("button", "HIGH", 1000 * 3.2 / 5.4),
        ("button", "OPEN", 1000),
        ("tamper", "NORMAL", 1000 * 4.8 / 14.8),
        ("tamper", "OPEN", 1000),
    ],
)
def test_nominal_readings_by_hand(kind: str, state: str, per_mille: float) -> None:
    assert loop.nominal(LOOPS, kind, state) == pytest.approx(per_mille)


def test_reference_and_contact_load_by_hand() -> None:
    assert LOOPS.reference.ratio == pytest.approx(0.5238, abs=5e-5)
    assert loop.wetting(LOOPS, "button", "LOW", "HIGH") == pytest.approx((3.3 / 3.2, 3.3 * 2.2 / 5.4))
    assert loop.wetting(LOOPS, "tamper", "NORMAL", "OPEN") == pytest.approx((3.3 / 14.8, 3.3))
    assert loop.contact_film_ohm(LOOPS) == pytest.approx(2200 * 0.476 / 0.524 - 1200)


def test_firmware_carries_the_same_thresholds() -> None:
    assert firmware_thresholds() == LOOPS.loops["button"].thresholds


def test_a_different_or_missing_firmware_threshold_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "loop.py"
    copy.write_text("SHORT_LOW = 202\nLOW_HIGH = const(476)\nHIGH_OPEN = 753\n", encoding="utf-8")
    assert firmware_thresholds(copy) == LOOPS.loops["button"].thresholds
    copy.write_text("SHORT_LOW = 203\nLOW_HIGH = const(476)\n", encoding="utf-8")
    assert firmware_thresholds(copy) == (203, 476, None)
