"""Brokers for everybody: one that all share, and private ones that a test may kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fog import RealBroker, mosquitto


def _need_mosquitto() -> None:
    if mosquitto() is not None:
        return
    reason = "Mosquitto is not installed: `sudo apt install mosquitto`"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Our programs remember what they find here, and nothing of the tester's own."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    """One Mosquitto for the whole run. Use ids and a prefix of your own; never stop it."""
    _need_mosquitto()
    shared = RealBroker(tmp_path_factory.mktemp("broker"))
    shared.start()
    yield shared
    shared.stop()


@pytest.fixture
def private_broker(tmp_path: Path) -> Iterator[Callable[..., RealBroker]]:
    """Makes running brokers, `private_broker(more="max_packet_size 100000")`, ended after."""
    _need_mosquitto()
    made: list[RealBroker] = []

    def make(more: str = "") -> RealBroker:
        folder = tmp_path / f"broker-{len(made)}"
        folder.mkdir()
        one = RealBroker(folder, more=more)
        made.append(one)
        one.start()
        return one

    yield make
    for one in made:
        one.kill()
