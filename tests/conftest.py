"""For every test: random tests say how to repeat them, and are not judged by the clock of a noisy machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings

if TYPE_CHECKING:
    import pytest

settings.register_profile("tocsin", deadline=None, print_blob=True)
settings.load_profile("tocsin")

LONG = (
    "simulation/test_simulation.py",
    "test_firmware_simulation.py",
    "provisioning/test_provision.py",
    "faults/",
    "gateway/",
    "browser/",
)
"""Files that take minutes begin first, so that no worker waits for them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, in the order of LONG."""
    items.sort(key=lambda item: next((n for n, name in enumerate(LONG) if name in item.nodeid), len(LONG)))
