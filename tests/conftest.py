"""Brokers for everybody: one that all share, and private ones that a test may kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fog import RealBroker, mosquitto, need

# A shell has what it starts in the background ignore Ctrl-C, and so would our programs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _need_mosquitto() -> None:
    need(mosquitto(), "Mosquitto", "sudo apt install mosquitto")


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Our programs remember what they find here, and nothing of the tester's own.

    The processes of pytest-xdist share it: what one of them examined, the others know.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(cache)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealBroker]:
    """One Mosquitto for all tests of a process. Use ids and a prefix of your own; never stop it."""
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
