"""A broker of its own for every test that kills. `make proof` runs them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Fog, private_fog


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker that may be killed, and nobody there yet."""
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path) as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.proof)
