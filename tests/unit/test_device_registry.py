"""Devices' topics become events; strange ones are refused and change nothing."""

from __future__ import annotations

import pytest

from fogmqtt.core.presence import MAX_KNOWN_DEVICES, SILENCE_S
from fogmqtt.core.scheduling.events import (
    DeviceDraining,
    DeviceJoined,
    DeviceLost,
    DeviceReported,
    Event,
)
from fogmqtt.errors import WireError
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.registry import DEVICE_LINES_PER_S, MAX_INFOS_BYTES, DeviceRegistry
from fogmqtt.wire.messages import DTYPES, DeviceInfo, encode

#: Of the operators, the gateway knows one.
ABILITIES = frozenset(f"gray/{dtype}" for dtype in DTYPES)


def info(**fields: object) -> bytes:
    operators = ["gray", "x" * 64]
    known = {"boot": "b1", "sequence": 1, "uptime_s": 1.0, "workers": 2, "operators": operators}
    return encode(DeviceInfo(**{**known, **fields}))  # type: ignore[arg-type]


@pytest.fixture
def fed() -> list[Event]:
    return []


@pytest.fixture
def registry(fed: list[Event]) -> DeviceRegistry:
    """One that takes devices at their word; `fed` has what it tells but the check-ins."""

    def feed(event: Event) -> None:
        if not isinstance(event, DeviceReported):
            fed.append(event)

    return DeviceRegistry(feed, Compatibility(exact=False))


def join(registry: DeviceRegistry, device: str = "eya", **fields: object) -> None:
    registry.received(device, "info", info(**fields), False, 0.0)
    registry.received(device, "status", b"online", False, 0.0)


def test_a_device_that_introduced_itself_joins_once(
    registry: DeviceRegistry, fed: list[Event]
) -> None:
    join(registry)
    join(registry)
    assert fed == [DeviceJoined("eya", "b1", 2, ABILITIES)]
    assert registry.present() == ("eya",)
    assert registry.workers() == 2
    assert registry.operators("eya") == ABILITIES


def test_a_device_that_joins_is_told_to_warm_up(fed: list[Event]) -> None:
    warmed: list[str] = []
    registry = DeviceRegistry(fed.append, Compatibility(exact=False), warmed.append)
    registry.received("manar", "info", info(), True, 0.0)
    join(registry)
    assert warmed == ["eya"]


def test_a_check_in_tells_how_many_tiles_a_device_has_of_any_gateway() -> None:
    fed: list[Event] = []
    registry = DeviceRegistry(fed.append, Compatibility(exact=False))
    registry.received("eya", "info", info(tiles_held=3), True, 0.0)
    assert fed == [], "a retained info is old"
    join(registry, tiles_held=7)
    registry.received("eya", "info", info(tiles_held=7), False, 1.0)
    assert fed[-1] == DeviceReported("eya", 7)


def test_an_unknown_device_can_do_nothing(registry: DeviceRegistry) -> None:
    assert registry.operators("nobody") == frozenset()


def test_a_retained_info_alone_is_no_device(registry: DeviceRegistry, fed: list[Event]) -> None:
    registry.received("eya", "info", info(), True, 0.0)
    assert fed == []
    assert "eya" in registry.infos


def test_offline_loses_it(registry: DeviceRegistry, fed: list[Event]) -> None:
    join(registry)
    registry.received("eya", "status", b"offline", False, 1.0)
    assert isinstance(fed[-1], DeviceLost)
    assert registry.present() == ()


def test_a_draining_device_is_told_as_such(registry: DeviceRegistry, fed: list[Event]) -> None:
    join(registry)
    registry.received("eya", "info", info(draining=True), False, 1.0)
    assert fed[-1] == DeviceDraining("eya")


def test_silence_loses_it_and_a_word_saves_it(registry: DeviceRegistry, fed: list[Event]) -> None:
    join(registry)
    registry.note_message("eya", 10.0)
    registry.lose_silent(SILENCE_S)
    assert registry.next_silence() == 10.0 + SILENCE_S
    assert registry.present() == ("eya",)
    registry.lose_silent(10.0 + SILENCE_S)
    assert registry.next_silence() is None
    assert isinstance(fed[-1], DeviceLost)


def test_when_the_broker_is_lost_nobody_is_known_and_nobody_blamed(
    registry: DeviceRegistry, fed: list[Event]
) -> None:
    join(registry)
    fed.clear()
    registry.broker_lost()
    assert fed == []
    assert registry.present() == ()


def test_a_device_that_is_away_is_forgotten_when_its_info_is_cleared(
    registry: DeviceRegistry,
) -> None:
    join(registry)
    registry.received("eya", "info", b"", False, 1.0)
    assert [view.id for view in registry.views()] == ["eya"]
    registry.received("eya", "status", b"offline", False, 2.0)
    registry.received("eya", "info", b"", False, 3.0)
    assert registry.views() == ()
    join(registry)
    assert [view.id for view in registry.views()] == ["eya"]


def test_a_cleared_topic_says_nothing(registry: DeviceRegistry, fed: list[Event]) -> None:
    join(registry)
    fed.clear()
    registry.received("eya", "status", b"", False, 1.0)
    registry.received("eya", "info", b"", False, 1.0)
    assert fed == []
    assert registry.present() == ("eya",)


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [("status", b"perhaps"), ("status", b"\xff" * 9999), ("info", b"{}"), ("info", b"\x00")],
)
def test_strange_words_are_refused(
    registry: DeviceRegistry, fed: list[Event], leaf: str, payload: bytes
) -> None:
    with pytest.raises(WireError):
        registry.received("eya", leaf, payload, False, 0.0)
    assert fed == []


def test_no_device_takes_the_name_of_the_gateways_own_cores(
    registry: DeviceRegistry, fed: list[Event]
) -> None:
    with pytest.raises(WireError, match="'local'"):
        join(registry, "local")
    assert fed == []


def test_made_up_devices_do_not_fill_the_memory(registry: DeviceRegistry) -> None:
    join(registry)
    for number in range(20_000):
        registry.received(f"ghost{number}", "info", info(), True, 0.0)
        registry.received(f"other{number}", "status", b"offline", True, 0.0)
    assert len(registry.infos) <= 2 * MAX_KNOWN_DEVICES
    assert "eya" in registry.infos
    assert registry.present() == ("eya",)
    registry.received("manar", "info", info(), False, 1.0)
    assert registry.present() == ("eya", "manar"), "whoever lives is still taken in"


def test_no_more_devices_than_the_limit_are_present_and_the_rest_is_refused_in_words(
    registry: DeviceRegistry, fed: list[Event]
) -> None:
    for number in range(MAX_KNOWN_DEVICES):
        join(registry, f"ghost{number}")
    with pytest.raises(WireError, match="4096 devices are known: there is no room for eya"):
        join(registry)
    join(registry, "ghost0", boot="b2")
    assert len(registry.present()) == len(registry.infos) == MAX_KNOWN_DEVICES
    assert len(fed) == MAX_KNOWN_DEVICES + 1
    registry.lose_silent(SILENCE_S)
    join(registry)
    assert registry.present() == ("eya",), "ghosts are silent, and their room is free"


def test_comings_and_goings_are_logged_at_a_bounded_rate(
    registry: DeviceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for number in range(1000):
            join(registry, f"ghost{number}")
        registry.lose_silent(SILENCE_S)
        registry.lose_silent(2 * SILENCE_S)
        registry.received("ghost1", "info", info(), False, 2 * SILENCE_S)
    assert len(caplog.messages) == DEVICE_LINES_PER_S + 1 + DEVICE_LINES_PER_S + 1 + 1
    assert caplog.messages[DEVICE_LINES_PER_S] == "and 950 more lines"
    assert caplog.messages[-1] == "ghost1 is online, 2 worker(s)"


def test_an_info_of_no_sane_size_is_refused(registry: DeviceRegistry, fed: list[Event]) -> None:
    with pytest.raises(WireError, match=r"eya has an info of 7\d+ bytes, over 65536"):
        join(registry, host="x" * 70_000)
    assert fed == []


def test_large_infos_of_many_devices_are_bounded_and_strangers_make_room(
    registry: DeviceRegistry,
) -> None:
    large = info(host="x" * 60_000)
    for number in range(2000):
        registry.received(f"ghost{number}", "info", large, True, 0.0)
    assert len(registry.infos) * 60_000 <= MAX_INFOS_BYTES
    join(registry)
    assert "eya" in registry.infos


def test_where_all_who_say_much_are_present_one_more_is_refused(registry: DeviceRegistry) -> None:
    several = MAX_INFOS_BYTES // len(info(host="x" * 60_000))
    for number in range(several):
        join(registry, f"ghost{number}", host="x" * 60_000)
    with pytest.raises(WireError, match="no room for the info of eya"):
        join(registry, host="x" * 60_000)
    assert len(registry.infos) == several


def test_leaving_is_no_warning_and_being_lost_is_one(
    registry: DeviceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        join(registry)
        registry.received("eya", "info", info(draining=True), False, 1.0)
        registry.received("eya", "status", b"offline", False, 2.0)
    assert caplog.messages == [
        "eya is online, 2 worker(s)",
        "eya takes no more tiles",
        "eya has left",
    ]
    assert {record.levelname for record in caplog.records} == {"INFO"}

    caplog.clear()
    with caplog.at_level("INFO"):
        join(registry, boot="b2")
        registry.received("eya", "status", b"offline", False, 3.0)
    assert caplog.messages == ["eya is online, 2 worker(s)", "eya is lost: it went offline"]
    assert caplog.records[-1].levelname == "WARNING"


def test_a_new_description_is_no_news_and_a_new_connection_is(
    registry: DeviceRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        join(registry)
        join(registry, operators=["gray", "canny"])
        registry.broker_lost()
        join(registry)
    assert caplog.messages == ["eya is online, 2 worker(s)"] * 2
