"""A new certificate for the button's key: which one is tried, and that one that works is always there."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from firmware import wire
from firmware.renewal import SHOW, TRIAL_MS, Renewal
from firmware.wifi import Sight
from gateway import keys
from provisioning.pki import Authority

AUTHORITY = Authority.create()
OWN = AUTHORITY.issue("b1")
POINT = keys.point(OWN.certificate.public_key())


def der(certificate: Any) -> bytes:
    octets: bytes = certificate.public_bytes(Encoding.DER)
    return octets


OLD = der(OWN.certificate)
NEW = der(AUTHORITY.renew("b1", POINT, (-1, 3650)))


class Folder:
    """Files in memory; `full`: nothing can be written."""

    def __init__(self, **files: bytes) -> None:
        self.files = files
        self.full = False

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)

    def write(self, name: str, octets: bytes) -> None:
        if self.full:
            raise OSError(28)
        self.files[name] = octets

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


class Bench:
    """A renewal with its folders; `start` is what a power cut leads to."""

    def __init__(self) -> None:
        self.state, self.identity = Folder(), Folder(**{"cert.der": OLD, "ca.der": AUTHORITY.der})
        self.answers: list[tuple[bool, str]] = []
        self.errors: list[str] = []
        self.start()

    def start(self) -> None:
        def answer(done: bool, _: object, text: str) -> None:
            self.answers.append((done, text))

        self.renewal = Renewal("b1", self.state, self.identity, answer, self.errors.append)

    def step(
        self, now_ms: int, up_ms: int | None, proved_ms: int | None, *, quiet: bool = True, urgent: bool = False
    ) -> Any:
        return self.renewal.step(Sight(now_ms, "", up_ms, proved_ms, quiet, urgent))


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.renewal.put_on_trial((5, 6), NEW)
    return made


def test_it_is_tried_when_headquarters_answers_and_takes_the_old_one_s_place_when_it_worked(bench: Bench) -> None:
    assert bench.step(1_000, None, None) is None
    assert bench.step(2_000, 1_500, 1_900, quiet=False) is None
    assert bench.step(3_000, 1_500, 2_900) == (SHOW, NEW)
    assert bench.step(3_500, 1_500, 2_900) is None  # the session that ends: still the old one
    assert bench.step(4_000, 3_900, None) is None
    assert bench.identity.files["cert.der"] == OLD
    assert bench.step(5_000, 3_900, 4_800) is None
    assert bench.identity.files["cert.der"] == NEW
    assert bench.answers == [(True, "headquarters answers over the new certificate")]
    assert bench.state.files == {}
    assert bench.step(6_000, 3_900, 5_900) is None


def test_one_that_does_not_work_leaves_the_old_one(bench: Bench) -> None:
    assert bench.step(1_000, 500, 900) == (SHOW, NEW)
    assert bench.step(1_000 + TRIAL_MS - 1, None, None) is None
    assert bench.step(1_000 + TRIAL_MS, None, None) == (SHOW, None)
    assert bench.identity.files["cert.der"] == OLD
    assert bench.answers[0][0] is False
    assert "keeps the old certificate" in bench.answers[0][1]
    assert bench.step(99_000, 98_000, 98_500) is None


def test_a_press_comes_first_and_it_is_tried_again(bench: Bench) -> None:
    assert bench.step(1_000, 500, 900) == (SHOW, NEW)
    assert bench.step(2_000, None, None, urgent=True, quiet=False) == (SHOW, None)
    assert bench.step(9_000, 8_000, 8_500, quiet=False) is None
    assert bench.step(10_000, 8_000, 9_500) == (SHOW, NEW)
    assert bench.answers == []


def test_whenever_the_power_goes_one_of_the_two_is_whole_and_it_ends_well(bench: Bench) -> None:
    bench.start()  # kept, not tried yet
    assert bench.step(1_000, 500, 900) == (SHOW, NEW)
    bench.start()  # in the middle of the trial
    assert bench.step(1_000, None, None) is None
    assert bench.step(2_000, 1_500, 1_900) == (SHOW, NEW)
    bench.identity.files["cert.der"] = NEW  # after the rename, before anything was told
    bench.start()
    assert bench.step(1_000, 500, 900) is None
    assert bench.answers == [(True, "headquarters answers over the new certificate")]
    assert bench.state.files == {}


def test_a_flash_that_is_full_or_damaged_loses_nothing(bench: Bench) -> None:
    bench.identity.full = True
    assert bench.step(1_000, 500, 900) == (SHOW, NEW)
    assert bench.step(3_000, 2_000, 2_900) == (SHOW, None)
    assert bench.answers[0][0] is False
    assert bench.identity.files["cert.der"] == OLD
    bench.state.files["renewal"] = b"\xff"
    bench.start()
    assert bench.errors == ["state/renewal is damaged: headquarters sends the certificate again"]
    assert bench.step(9_000, 8_000, 8_500) is None


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (None, "brings no certificate"),
        (b"hello", "not a certificate in DER"),
        (NEW[:-1], "not a certificate in DER"),
        (der(AUTHORITY.renew("b2", POINT, (-1, 9))), "it is for b2"),
        (der(AUTHORITY.issue("b1").certificate), "another key"),
        (
            der(Authority.create("Somebody else").renew("b1", POINT, (-1, 9))),
            "not by the authority that this button knows",
        ),
    ],
)
def test_what_can_t_be_its_own_is_not_even_kept(octets: object, why: str) -> None:
    bench = Bench()
    with pytest.raises(wire.WireError, match=why):
        bench.renewal.put_on_trial((5, 6), octets)
    assert bench.state.files == {}
    assert bench.step(2_000, 1_500, 1_900) is None
