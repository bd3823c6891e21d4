"""Devices' topics become events; strange ones are refused and change nothing."""

from __future__ import annotations

import pytest

from fogmqtt.core.presence import MAX_KNOWN_DEVICES, SILENCE_S
from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost, Event
from fogmqtt.errors import WireError
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.registry import MAX_INFOS_BYTES, NEWS_A_SECOND, DeviceRegistry
from fogmqtt.wire.messages import DeviceInfo, encode


def info(**fields: object) -> bytes:
    known = {"boot": "b1", "sequence": 1, "uptime_s": 1.0, "workers": 2, "operators": ["gray"]}
    return encode(DeviceInfo(**{**known, **fields}))  # type: ignore[arg-type]


@pytest.fixture
def fed() -> list[Event]:
    return []


@pytest.fixture
def roster(fed: list[Event]) -> DeviceRegistry:
    """One that takes devices at their word."""
    return DeviceRegistry(fed.append, Compatibility(exact=False))


def join(roster: DeviceRegistry, device: str = "eya", **fields: object) -> None:
    roster.received(device, "info", info(**fields), False, 0.0)
    roster.received(device, "status", b"online", False, 0.0)


def test_a_device_that_introduced_itself_joins_once(
    roster: DeviceRegistry, fed: list[Event]
) -> None:
    join(roster)
    join(roster)
    assert fed == [DeviceJoined("eya", "b1", 2, frozenset({"gray"}))]
    assert roster.present() == ("eya",)
    assert roster.workers() == 2
    assert roster.operators("eya") == {"gray"}


def test_who_joins_is_welcome(fed: list[Event]) -> None:
    welcome: list[str] = []
    roster = DeviceRegistry(fed.append, Compatibility(exact=False), welcome.append)
    roster.received("manar", "info", info(), True, 0.0)
    join(roster)
    assert welcome == ["eya"]


def test_an_unknown_device_can_do_nothing(roster: DeviceRegistry) -> None:
    assert roster.operators("nobody") == frozenset()


def test_a_retained_info_alone_is_no_device(roster: DeviceRegistry, fed: list[Event]) -> None:
    roster.received("eya", "info", info(), True, 0.0)
    assert fed == []
    assert "eya" in roster.infos


def test_offline_loses_it(roster: DeviceRegistry, fed: list[Event]) -> None:
    join(roster)
    roster.received("eya", "status", b"offline", False, 1.0)
    assert isinstance(fed[-1], DeviceLost)
    assert roster.present() == ()


def test_a_draining_device_is_told_as_such(roster: DeviceRegistry, fed: list[Event]) -> None:
    join(roster)
    roster.received("eya", "info", info(draining=True), False, 1.0)
    assert fed[-1] == DeviceDraining("eya")


def test_silence_loses_it_and_a_word_saves_it(roster: DeviceRegistry, fed: list[Event]) -> None:
    join(roster)
    roster.heard("eya", 10.0)
    assert roster.tick(SILENCE_S) == 10.0 + SILENCE_S
    assert roster.present() == ("eya",)
    assert roster.tick(10.0 + SILENCE_S) is None
    assert isinstance(fed[-1], DeviceLost)


def test_when_the_broker_is_lost_nobody_is_known_and_nobody_blamed(
    roster: DeviceRegistry, fed: list[Event]
) -> None:
    join(roster)
    fed.clear()
    roster.broker_lost()
    assert fed == []
    assert roster.present() == ()


def test_a_cleared_topic_says_nothing(roster: DeviceRegistry, fed: list[Event]) -> None:
    join(roster)
    fed.clear()
    roster.received("eya", "status", b"", False, 1.0)
    roster.received("eya", "info", b"", False, 1.0)
    assert fed == []
    assert roster.present() == ("eya",)


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [("status", b"perhaps"), ("status", b"\xff" * 9999), ("info", b"{}"), ("info", b"\x00")],
)
def test_strange_words_are_refused(
    roster: DeviceRegistry, fed: list[Event], leaf: str, payload: bytes
) -> None:
    with pytest.raises(WireError):
        roster.received("eya", leaf, payload, False, 0.0)
    assert fed == []


def test_no_device_takes_the_name_of_the_gateways_own_cores(
    roster: DeviceRegistry, fed: list[Event]
) -> None:
    with pytest.raises(WireError, match="'local'"):
        join(roster, "local")
    assert fed == []


def test_made_up_devices_do_not_fill_the_memory(roster: DeviceRegistry) -> None:
    join(roster)
    for number in range(20_000):
        roster.received(f"ghost{number}", "info", info(), True, 0.0)
        roster.received(f"other{number}", "status", b"offline", True, 0.0)
    assert len(roster.infos) <= 2 * MAX_KNOWN_DEVICES
    assert "eya" in roster.infos
    assert roster.present() == ("eya",)
    roster.received("manar", "info", info(), False, 1.0)
    assert roster.present() == ("eya", "manar"), "whoever lives is still taken in"


def test_no_more_devices_than_the_limit_are_present_and_the_rest_is_refused_in_words(
    roster: DeviceRegistry, fed: list[Event]
) -> None:
    for number in range(MAX_KNOWN_DEVICES):
        join(roster, f"ghost{number}")
    with pytest.raises(WireError, match="4096 devices are here: no room for eya"):
        join(roster)
    join(roster, "ghost0", boot="b2")
    assert len(roster.present()) == len(roster.infos) == MAX_KNOWN_DEVICES
    assert len(fed) == MAX_KNOWN_DEVICES + 1
    roster.tick(SILENCE_S)
    join(roster)
    assert roster.present() == ("eya",), "ghosts are silent, and their room is free"


def test_comings_and_goings_are_logged_at_a_bounded_rate(
    roster: DeviceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for number in range(1000):
            join(roster, f"ghost{number}")
        roster.tick(SILENCE_S)
        roster.tick(2 * SILENCE_S)
        roster.received("ghost1", "info", info(), False, 2 * SILENCE_S)
    assert len(caplog.messages) == NEWS_A_SECOND + 1 + NEWS_A_SECOND + 1 + 1
    assert caplog.messages[NEWS_A_SECOND] == "and 950 more lines"
    assert caplog.messages[-1] == "ghost1 is here, 2 worker(s)"


def test_an_info_of_no_sane_size_is_refused(roster: DeviceRegistry, fed: list[Event]) -> None:
    with pytest.raises(WireError, match=r"eya has an info of 7\d+ bytes, over 65536"):
        join(roster, host="x" * 70_000)
    assert fed == []


def test_large_infos_of_many_devices_are_bounded_and_strangers_make_room(
    roster: DeviceRegistry,
) -> None:
    large = info(host="x" * 60_000)
    for number in range(2000):
        roster.received(f"ghost{number}", "info", large, True, 0.0)
    assert len(roster.infos) * 60_000 <= MAX_INFOS_BYTES
    join(roster)
    assert "eya" in roster.infos


def test_where_all_who_say_much_are_present_one_more_is_refused(roster: DeviceRegistry) -> None:
    several = MAX_INFOS_BYTES // len(info(host="x" * 60_000))
    for number in range(several):
        join(roster, f"ghost{number}", host="x" * 60_000)
    with pytest.raises(WireError, match="no room for the info of eya"):
        join(roster, host="x" * 60_000)
    assert len(roster.infos) == several
