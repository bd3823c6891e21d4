"""A fog with three devices that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Fog, private_fog


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """Three devices with a broker of their own. Stop none of them."""
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("fog")) as made:
        made.fleet()
        yield made


@pytest.fixture
def lone_fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker of its own and nobody there; for one test."""
    del broker
    with private_fog(tmp_path) as made:
        yield made
