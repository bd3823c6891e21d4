"""Devices' topics become events; strange ones are refused and change nothing."""

from __future__ import annotations

import pytest

from fogmqtt.core.events import DeviceDraining, DeviceJoined, DeviceLost, Event
from fogmqtt.core.presence import SILENCE_S
from fogmqtt.errors import WireError
from fogmqtt.gateway.fleet import Fleet
from fogmqtt.wire.messages import DeviceInfo, encode


def info(**fields: object) -> bytes:
    known = {"boot": "b1", "sequence": 1, "uptime_s": 1.0, "workers": 2, "operators": ["gray"]}
    return encode(DeviceInfo(**{**known, **fields}))  # type: ignore[arg-type]


@pytest.fixture
def fed() -> list[Event]:
    return []


@pytest.fixture
def fleet(fed: list[Event]) -> Fleet:
    return Fleet(fed.append)


def join(fleet: Fleet, device: str = "eya", **fields: object) -> None:
    fleet.received(device, "info", info(**fields), False, 0.0)
    fleet.received(device, "status", b"online", False, 0.0)


def test_a_device_that_introduced_itself_joins_once(fleet: Fleet, fed: list[Event]) -> None:
    join(fleet)
    join(fleet)
    assert fed == [DeviceJoined("eya", "b1", 2, frozenset({"gray"}))]
    assert fleet.present() == ("eya",)
    assert fleet.workers() == 2
    assert fleet.operators("eya") == {"gray"}


def test_an_unknown_device_can_do_nothing(fleet: Fleet) -> None:
    assert fleet.operators("nobody") == frozenset()


def test_a_retained_info_alone_is_no_device(fleet: Fleet, fed: list[Event]) -> None:
    fleet.received("eya", "info", info(), True, 0.0)
    assert fed == []
    assert "eya" in fleet.infos


def test_offline_loses_it(fleet: Fleet, fed: list[Event]) -> None:
    join(fleet)
    fleet.received("eya", "status", b"offline", False, 1.0)
    assert isinstance(fed[-1], DeviceLost)
    assert fleet.present() == ()


def test_a_draining_device_is_told_as_such(fleet: Fleet, fed: list[Event]) -> None:
    join(fleet)
    fleet.received("eya", "info", info(draining=True), False, 1.0)
    assert fed[-1] == DeviceDraining("eya")


def test_silence_loses_it_and_a_word_saves_it(fleet: Fleet, fed: list[Event]) -> None:
    join(fleet)
    fleet.heard("eya", 10.0)
    assert fleet.tick(SILENCE_S) == 10.0 + SILENCE_S
    assert fleet.present() == ("eya",)
    assert fleet.tick(10.0 + SILENCE_S) is None
    assert isinstance(fed[-1], DeviceLost)


def test_when_the_broker_is_lost_nobody_is_known_and_nobody_blamed(
    fleet: Fleet, fed: list[Event]
) -> None:
    join(fleet)
    fed.clear()
    fleet.broker_lost()
    assert fed == []
    assert fleet.present() == ()


def test_a_cleared_topic_says_nothing(fleet: Fleet, fed: list[Event]) -> None:
    join(fleet)
    fed.clear()
    fleet.received("eya", "status", b"", False, 1.0)
    fleet.received("eya", "info", b"", False, 1.0)
    assert fed == []
    assert fleet.present() == ("eya",)


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [("status", b"perhaps"), ("status", b"\xff" * 9999), ("info", b"{}"), ("info", b"\x00")],
)
def test_strange_words_are_refused(
    fleet: Fleet, fed: list[Event], leaf: str, payload: bytes
) -> None:
    with pytest.raises(WireError):
        fleet.received("eya", leaf, payload, False, 0.0)
    assert fed == []


def test_no_device_takes_the_name_of_the_gateways_own_cores(fleet: Fleet, fed: list[Event]) -> None:
    with pytest.raises(WireError, match="'local'"):
        join(fleet, "local")
    assert fed == []


def test_made_up_devices_do_not_fill_the_memory(fleet: Fleet) -> None:
    join(fleet)
    for number in range(5000):
        fleet.received(f"ghost{number}", "info", info(), True, 0.0)
    assert len(fleet.infos) <= 4096
    assert "eya" in fleet.infos
