"""A broker with three devices that the tests of all files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Fog, fog_at, forget_gateways, private_fog


@pytest.fixture(scope="session")
def fleet(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """Three devices at a broker of their own. Stop none of them, and change nothing there."""
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("fleet")) as made:
        made.fleet()
        yield made


@pytest.fixture(scope="module")
def fog(fleet: Fog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """The three devices, with a folder and gateways for the tests of one file."""
    with fog_at(tmp_path_factory.mktemp("fog"), fleet.broker) as made:
        yield made
    forget_gateways(fleet.broker)


@pytest.fixture
def lone_fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker of its own and nobody there; for one test."""
    del broker
    with private_fog(tmp_path) as made:
        yield made
