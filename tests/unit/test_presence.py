"""Presence: which events statuses, infos and silence of devices cause."""

from __future__ import annotations

from msgspec.structs import replace

from fogmqtt.core.presence import DeviceDescription, Presence
from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost

EYA = DeviceDescription("b1", 2, frozenset({"gray"}))
JOINED = DeviceJoined("eya", "b1", 2, frozenset({"gray"}))


def present() -> Presence:
    presence = Presence(silence_s=20.0)
    assert presence.info("eya", EYA, True, 0.0) == []
    assert presence.status("eya", True, 0.0) == [JOINED]
    return presence


def test_status_and_info_may_arrive_in_either_order() -> None:
    presence = Presence()
    assert presence.status("eya", True, 0.0) == []
    assert presence.info("eya", EYA, True, 0.0) == [JOINED]


def test_a_check_in_after_a_late_will_brings_the_device_back() -> None:
    presence = present()
    assert presence.status("eya", False, 1.0) == [DeviceLost("eya", "it went offline")]
    assert presence.info("eya", EYA, False, 2.0) == [JOINED]


def test_a_retained_info_after_a_will_does_not_bring_the_device_back() -> None:
    presence = present()
    presence.status("eya", False, 1.0)
    assert presence.info("eya", EYA, True, 2.0) == []


def test_a_restarted_device_joins_with_its_new_boot_id() -> None:
    again = replace(EYA, boot="b2")
    assert present().info("eya", again, False, 1.0) == [
        DeviceJoined("eya", "b2", 2, frozenset({"gray"}))
    ]


def test_an_unchanged_check_in_returns_no_event_and_keeps_the_device_present() -> None:
    presence = present()
    assert presence.info("eya", EYA, False, 15.0) == []
    assert presence.expire(20.0) == []
    assert presence.next_wakeup() == 35.0
    assert [type(event) for event in presence.expire(35.0)] == [DeviceLost]
    assert presence.next_wakeup() is None


def test_a_draining_device_is_reported_as_draining() -> None:
    draining = replace(EYA, draining=True)
    assert present().info("eya", draining, False, 1.0)[-1] == DeviceDraining("eya")


def test_offline_of_an_unknown_device_returns_no_event() -> None:
    assert Presence().status("nobody", False, 0.0) == []


def test_all_devices_join_again_after_a_lost_broker() -> None:
    presence = present()
    presence.broker_lost()
    assert presence.present() == {}
    presence.info("eya", EYA, True, 1.0)
    assert presence.status("eya", True, 1.0) == [JOINED]
