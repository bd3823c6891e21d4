"""Who is there: a will is a hint, a fresh word is proof, silence tells the rest."""

from __future__ import annotations

from dataclasses import replace

from fogmqtt.core.presence import Introduction, Presence
from fogmqtt.core.scheduling.events import DeviceDraining, DeviceJoined, DeviceLost

EYA = Introduction("b1", 2, frozenset({"gray"}))
JOINED = DeviceJoined("eya", "b1", 2, frozenset({"gray"}))


def present() -> Presence:
    presence = Presence(silence_s=20.0)
    assert presence.info("eya", EYA, True, 0.0) == []
    assert presence.status("eya", True, 0.0) == [JOINED]
    return presence


def test_status_and_info_may_come_in_either_order() -> None:
    presence = Presence()
    assert presence.status("eya", True, 0.0) == []
    assert presence.info("eya", EYA, True, 0.0) == [JOINED]


def test_a_late_will_is_taken_back_by_the_next_check_in() -> None:
    presence = present()
    assert presence.status("eya", False, 1.0) == [DeviceLost("eya", "it went offline")]
    assert presence.info("eya", EYA, False, 2.0) == [JOINED]


def test_what_was_retained_before_a_will_brings_nobody_back() -> None:
    presence = present()
    presence.status("eya", False, 1.0)
    assert presence.info("eya", EYA, True, 2.0) == []


def test_a_restart_is_told_as_a_new_boot() -> None:
    again = replace(EYA, boot="b2")
    assert present().info("eya", again, False, 1.0) == [
        DeviceJoined("eya", "b2", 2, frozenset({"gray"}))
    ]


def test_an_unchanged_check_in_tells_nothing_and_keeps_it_alive() -> None:
    presence = present()
    assert presence.info("eya", EYA, False, 15.0) == []
    assert presence.silent(20.0) == []
    assert presence.next_wakeup() == 35.0
    assert [type(event) for event in presence.silent(35.0)] == [DeviceLost]
    assert presence.next_wakeup() is None


def test_who_is_draining_is_told_to_be() -> None:
    draining = replace(EYA, draining=True)
    assert present().info("eya", draining, False, 1.0)[-1] == DeviceDraining("eya")


def test_offline_of_a_stranger_is_no_loss() -> None:
    assert Presence().status("nobody", False, 0.0) == []


def test_after_a_lost_broker_everybody_joins_anew() -> None:
    presence = present()
    presence.broker_lost()
    assert presence.present() == {}
    presence.info("eya", EYA, True, 1.0)
    assert presence.status("eya", True, 1.0) == [JOINED]
