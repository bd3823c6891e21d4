"""The worklist: what a device takes, works on, and answers for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.core.device_queue import DeviceQueue, Key, QueueEntry

A = Key("mariem", "job", 0)
B = Key("mariem", "job", 1)
C = Key("other", "job", 0)


def test_a_tile_is_taken_worked_on_and_answered_for() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    assert work.offer(A, 1, "a1") is QueueEntry.TAKEN
    assert work.take() == "a1"
    assert (work.held, work.running) == (1, 1)
    assert work.finish(A) == "a1"
    assert (work.held, work.running) == (0, 0)


def test_nothing_to_take_is_none() -> None:
    assert DeviceQueue[str](4).take() is None


def test_the_same_attempt_delivered_twice_is_worked_once() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    assert work.offer(A, 1, "again") is QueueEntry.HELD
    assert work.take() == "a1"
    assert work.offer(A, 1, "again") is QueueEntry.HELD
    assert work.take() is None
    work.finish(A)
    assert work.offer(A, 1, "again") is QueueEntry.OVER


def test_a_newer_attempt_of_a_queued_tile_takes_its_place_in_the_queue() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.offer(B, 1, "b1")
    assert work.offer(A, 2, "a2") is QueueEntry.HELD
    assert work.take() == "a2"


def test_a_newer_attempt_of_a_running_tile_gets_the_answer() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    assert work.offer(A, 3, "a3") is QueueEntry.HELD
    assert work.finish(A) == "a3"


def test_an_older_attempt_that_comes_late_changes_nothing() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 2, "a2")
    assert work.offer(A, 1, "a1") is QueueEntry.HELD
    assert work.take() == "a2"


def test_a_newer_attempt_of_a_tile_that_is_over_is_worked_again() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    work.finish(A)
    assert work.offer(A, 2, "a2") is QueueEntry.TAKEN


def test_a_full_worklist_takes_nothing_more_until_one_is_finished() -> None:
    work: DeviceQueue[str] = DeviceQueue(1)
    work.offer(A, 1, "a1")
    assert work.offer(B, 1, "b1") is QueueEntry.FULL
    work.take()
    assert work.offer(B, 1, "b1") is QueueEntry.FULL
    work.finish(A)
    assert work.offer(B, 1, "b1") is QueueEntry.TAKEN


def test_memory_is_bounded_too_but_one_large_tile_always_fits() -> None:
    work: DeviceQueue[str] = DeviceQueue(8, capacity_bytes=100)
    assert work.offer(A, 1, "a1", 1000) is QueueEntry.TAKEN
    assert work.offer(B, 1, "b1", 1) is QueueEntry.FULL


def test_gateways_take_turns() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    for tile in range(3):
        work.offer(Key("greedy", "job", tile), 1, f"greedy {tile}")
    work.offer(C, 1, "other 0")
    assert [work.take() for _ in range(4)] == ["greedy 0", "other 0", "greedy 1", "greedy 2"]


def served(gateways: dict[str, tuple[int, int]], tiles: int, ahead: int = 2) -> Counter[str]:
    """Bytes worked on for gateways of (priority, bytes of a tile) that always have tiles waiting.

    One worker; after so many tiles. Each gateway sends another when one of its own is done.
    """
    work: DeviceQueue[Key] = DeviceQueue(64)
    done: Counter[str] = Counter()
    for number in range(tiles + ahead):
        senders = list(gateways)
        if number >= ahead:
            taken = work.take()
            assert taken is not None
            work.finish(taken)
            done[taken.gateway] += gateways[taken.gateway][1]
            senders = [taken.gateway]
        for name in senders:
            key, (priority, nbytes) = Key(name, "job", number), gateways[name]
            work.offer(key, 1, key, nbytes, priority)
        work.check()
    return done


def test_gateways_of_equal_priority_get_equal_parts_whatever_the_size_of_their_tiles() -> None:
    done = served({"large": (0, 300), "small": (0, 100), "huge": (0, 900)}, 1000)
    assert max(done.values()) - min(done.values()) <= 900


@pytest.mark.parametrize("priority", [-4, -1, 1, 2, 4])
def test_each_step_of_priority_doubles_a_gateways_part_of_a_device(priority: int) -> None:
    done = served({"plain": (0, 100), "other": (priority, 100)}, 1700)
    assert done["other"] / done["plain"] == pytest.approx(2.0**priority, rel=0.02)


def test_equal_gateways_with_equal_tiles_alternate_in_the_order_in_which_they_came() -> None:
    work: DeviceQueue[str] = DeviceQueue(16)
    for tile in range(3):
        for gateway in ("c", "a", "b"):
            work.offer(Key(gateway, "job", tile), 1, gateway, 100, 1)
    assert [work.take() for _ in range(9)] == ["c", "a", "b"] * 3


def test_within_a_gateway_the_first_tile_goes_first_whatever_its_priority() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    for tile, priority in enumerate((-4, 4, 0)):
        work.offer(Key("mariem", "job", tile), 1, str(tile), 100, priority)
    assert [work.take() for _ in range(3)] == ["0", "1", "2"]


def test_who_had_nothing_queued_is_not_owed_the_time_that_others_took() -> None:
    work: DeviceQueue[str] = DeviceQueue(64)
    work.offer(Key("slow", "job", 0), 1, "slow", 1)
    assert work.take() == "slow"
    for tile in range(20):
        work.offer(Key("busy", "job", tile), 1, "busy", 1)
    assert [work.take() for _ in range(10)] == ["busy"] * 10
    for tile in range(1, 11):
        work.offer(Key("slow", "job", tile), 1, "slow", 1)
    assert sorted(filter(None, (work.take() for _ in range(8)))) == ["busy"] * 4 + ["slow"] * 4


def test_a_tile_without_a_byte_costs_something_too() -> None:
    work: DeviceQueue[str] = DeviceQueue(16)
    for tile in range(8):
        work.offer(Key("plain", "job", tile), 1, "plain")
        work.offer(Key("urgent", "job", tile), 1, "urgent", priority=1)
    assert Counter(work.take() for _ in range(9)) == {"urgent": 6, "plain": 3}


def test_a_gateway_keeps_what_it_had_as_long_as_one_of_its_tiles_is_held() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    work.offer(Key("a", "job", 0), 1, "a", 100)
    work.take()
    for tile in range(2):
        work.offer(Key("b", "job", tile), 1, "b", 10)
    assert work.take() == "b"
    work.offer(Key("a", "job", 1), 1, "a", 100)
    assert [work.take(), work.take()] == ["b", "a"]


def test_who_comes_again_after_its_last_tile_starts_at_the_present() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    work.offer(Key("a", "job", 0), 1, "a", 100, -4)
    work.take()
    work.finish(Key("a", "job", 0))
    for tile in range(2):
        work.offer(Key("b", "job", tile), 1, "b", 100)
    work.offer(Key("a", "job", 1), 1, "a", 100)
    assert [work.take() for _ in range(3)] == ["b", "a", "b"]


def test_a_newer_attempt_of_another_priority_costs_what_that_says() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    for tile in range(3):
        work.offer(Key("dear", "job", tile), 1, "dear", 100, 4)
        work.offer(Key("other", "job", tile), 1, "other", 100)
    work.offer(Key("dear", "job", 0), 2, "dear", 100, -4)
    assert [work.take() for _ in range(4)] == ["dear", "other", "other", "other"]


def test_a_cancelled_queued_tile_is_gone_and_does_not_come_back() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    assert work.cancel(A, 1)
    assert work.held == 0
    assert work.take() is None
    assert work.offer(A, 1, "a1") is QueueEntry.OVER


def test_a_cancelled_running_tile_gets_no_answer() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    assert work.cancel(A, 1)
    assert not work.cancel(A, 1)
    assert work.offer(A, 1, "again") is QueueEntry.OVER
    assert work.finish(A) is None


def test_a_cancelled_running_tile_that_is_sent_anew_gets_its_answer() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    work.cancel(A, 1)
    assert work.offer(A, 2, "a2") is QueueEntry.HELD
    assert work.finish(A) == "a2"


def test_a_running_tile_whose_lease_expired_may_still_be_answered() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    assert not work.cancel(A, 1, expired=True)
    assert work.finish(A) == "a1"


def test_a_queued_tile_whose_lease_expired_is_dropped() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    assert work.cancel(A, 1, expired=True)
    assert work.held == 0


def test_a_tile_that_was_given_up_is_over_unless_it_was_sent_anew() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 1, "a1")
    work.take()
    work.cancel(A, 1)
    work.give_up(A)
    assert (work.held, work.running) == (0, 0)
    work.offer(A, 2, "a2")
    work.take()
    work.cancel(A, 2)
    work.offer(A, 3, "a3")
    work.give_up(A)
    assert work.take() == "a3"


def test_cancelling_an_older_attempt_leaves_the_newer_one() -> None:
    work: DeviceQueue[str] = DeviceQueue(4)
    work.offer(A, 2, "a2")
    assert not work.cancel(A, 1)
    assert work.take() == "a2"


def test_cancelling_an_unknown_tile_does_nothing() -> None:
    assert not DeviceQueue[str](4).cancel(A, 1)


def test_draining_hands_back_what_is_queued_and_finishes_what_runs() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    for key, item in ((A, "a"), (B, "b"), (C, "c")):
        work.offer(key, 1, item)
    assert work.take() == "a"
    assert work.drain() == ["c", "b"]
    assert work.draining
    assert work.offer(Key("mariem", "job", 9), 1, "new") is QueueEntry.DRAINING
    assert work.finish(A) == "a"


def test_abandoned_tiles_are_handed_back_once() -> None:
    work: DeviceQueue[str] = DeviceQueue(8)
    work.offer(A, 1, "a1")
    work.take()
    assert work.abandon() == ["a1"]
    assert work.abandon() == []
    assert work.finish(A) is None


keys = st.builds(Key, st.sampled_from("gh"), st.sampled_from("jk"), st.integers(0, 3))
steps = st.lists(
    st.tuples(st.sampled_from("ooottfcgd"), keys, st.integers(1, 3), st.integers(0, 60)),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_no_order_of_events_breaks_an_invariant(steps: list[tuple[str, Key, int, int]]) -> None:
    work: DeviceQueue[Key] = DeviceQueue(4, capacity_bytes=100)
    running: set[Key] = set()
    for what, key, attempt, nbytes in steps:
        if what == "o":
            work.offer(key, attempt, key, nbytes, nbytes % 9 - 4)
        elif what == "t" and (taken := work.take()) is not None:
            assert taken not in running
            running.add(taken)
        elif what == "f" and key in running:
            running.remove(key)
            assert work.finish(key) in (key, None)
        elif what == "g" and key in running:
            running.remove(key)
            work.give_up(key)
        elif what == "c":
            work.cancel(key, attempt, expired=nbytes > 20)
        elif what == "d" and nbytes == 0:
            work.drain()
        work.check()
        assert work.running == len(running)


def test_what_is_remembered_of_tiles_that_are_over_is_bounded() -> None:
    work: DeviceQueue[int] = DeviceQueue(4)
    for tile in range(3000):
        work.offer(Key("mariem", "job", tile), 1, tile)
        work.take()
        work.finish(Key("mariem", "job", tile))
    work.check()
