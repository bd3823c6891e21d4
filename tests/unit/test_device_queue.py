"""The device queue: which tiles a device accepts, runs next, and answers."""

from __future__ import annotations

from collections import Counter
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.core.device_queue import MOST_OVERTAKEN, DeviceQueue, OfferResult, TileKey

A = TileKey("mariem", "job", 0)
B = TileKey("mariem", "job", 1)
C = TileKey("other", "job", 0)


def test_a_tile_is_queued_run_and_answered() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    assert queue.offer(A, 1, "a1") is OfferResult.ACCEPTED
    assert queue.take() == "a1"
    assert (queue.tiles_held, queue.tiles_running) == (1, 1)
    assert queue.finish(A) == "a1"
    assert (queue.tiles_held, queue.tiles_running) == (0, 0)


def test_take_returns_none_if_nothing_is_queued() -> None:
    assert DeviceQueue[str](4).take() is None


def test_a_tile_that_cannot_start_now_is_passed_over_and_keeps_its_place() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    for key, item in ((A, "a"), (B, "b"), (C, "c")):
        queue.offer(key, 1, item)
    assert queue.take(lambda item: item != "a") == "b"
    queue.check_invariants()
    assert queue.take(lambda item: item != "a") == "c"
    assert queue.take(lambda item: item != "a") is None
    queue.check_invariants()
    assert queue.take() == "a"
    queue.check_invariants()


def test_the_same_attempt_delivered_twice_runs_once() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    assert queue.offer(A, 1, "again") is OfferResult.ALREADY_HELD
    assert queue.take() == "a1"
    assert queue.offer(A, 1, "again") is OfferResult.ALREADY_HELD
    assert queue.take() is None
    queue.finish(A)
    assert queue.offer(A, 1, "again") is OfferResult.ALREADY_ENDED


def test_a_newer_attempt_of_a_queued_tile_replaces_it_in_the_queue() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.offer(B, 1, "b1")
    assert queue.offer(A, 2, "a2") is OfferResult.ALREADY_HELD
    assert queue.take() == "a2"


def test_a_newer_attempt_of_a_running_tile_gets_the_answer() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    assert queue.offer(A, 3, "a3") is OfferResult.ALREADY_HELD
    assert queue.finish(A) == "a3"


def test_an_older_attempt_that_arrives_late_changes_nothing() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 2, "a2")
    assert queue.offer(A, 1, "a1") is OfferResult.ALREADY_HELD
    assert queue.take() == "a2"


def test_a_newer_attempt_of_an_ended_tile_runs_again() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    queue.finish(A)
    assert queue.offer(A, 2, "a2") is OfferResult.ACCEPTED


def test_a_full_queue_accepts_nothing_until_a_tile_is_finished() -> None:
    queue: DeviceQueue[str] = DeviceQueue(1)
    queue.offer(A, 1, "a1")
    assert queue.offer(B, 1, "b1") is OfferResult.FULL
    queue.take()
    assert queue.offer(B, 1, "b1") is OfferResult.FULL
    queue.finish(A)
    assert queue.offer(B, 1, "b1") is OfferResult.ACCEPTED


def test_bytes_are_bounded_but_an_empty_queue_accepts_any_tile() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8, capacity_bytes=100)
    assert queue.offer(A, 1, "a1", 1000) is OfferResult.ACCEPTED
    assert queue.offer(B, 1, "b1", 1) is OfferResult.FULL


def test_gateways_take_turns() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    for tile in range(3):
        queue.offer(TileKey("greedy", "job", tile), 1, f"greedy {tile}")
    queue.offer(C, 1, "other 0")
    assert [queue.take() for _ in range(4)] == ["greedy 0", "other 0", "greedy 1", "greedy 2"]


def served(gateways: dict[str, tuple[int, int]], tiles: int, ahead: int = 2) -> Counter[str]:
    """Return the bytes done by gateway after `tiles` tiles on one worker.

    `gateways` maps a name to (priority, bytes of each tile). Each gateway keeps `ahead` tiles
    queued: it sends the next tile when one of its own is done.
    """
    queue: DeviceQueue[TileKey] = DeviceQueue(64)
    done: Counter[str] = Counter()
    for number in range(tiles + ahead):
        senders = list(gateways)
        if number >= ahead:
            started = queue.take()
            assert started is not None
            queue.finish(started)
            done[started.gateway] += gateways[started.gateway][1]
            senders = [started.gateway]
        for name in senders:
            key, (priority, nbytes) = TileKey(name, "job", number), gateways[name]
            queue.offer(key, 1, key, nbytes, priority)
        queue.check_invariants()
    return done


def test_gateways_of_equal_priority_get_equal_shares_for_any_tile_size() -> None:
    done = served({"large": (0, 300), "small": (0, 100), "huge": (0, 900)}, 1000)
    assert max(done.values()) - min(done.values()) <= 900


@pytest.mark.parametrize("priority", [-4, -1, 1, 2, 4])
def test_each_step_of_priority_doubles_the_share_of_a_gateway(priority: int) -> None:
    done = served({"plain": (0, 100), "other": (priority, 100)}, 1700)
    assert done["other"] / done["plain"] == pytest.approx(2.0**priority, rel=0.02)


def test_equal_gateways_with_equal_tiles_alternate_in_arrival_order() -> None:
    queue: DeviceQueue[str] = DeviceQueue(16)
    for tile in range(3):
        for gateway in ("c", "a", "b"):
            queue.offer(TileKey(gateway, "job", tile), 1, gateway, 100, 1)
    assert [queue.take() for _ in range(9)] == ["c", "a", "b"] * 3


def test_tiles_of_one_gateway_run_in_arrival_order_for_any_priority() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    for tile, priority in enumerate((-4, 4, 0)):
        queue.offer(TileKey("mariem", "job", tile), 1, str(tile), 100, priority)
    assert [queue.take() for _ in range(3)] == ["0", "1", "2"]


def test_a_tile_with_a_nearer_deadline_goes_before_those_without() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    for number, deadline in enumerate((inf, 2.0, inf, 1.0, 2.0)):
        key = TileKey("mariem", "job", number)
        queue.offer(key, 1, f"{number}", deadline=deadline)
    assert [queue.take() for _ in range(5)] == ["3", "1", "4", "0", "2"]


def test_a_tile_is_overtaken_a_few_times_and_then_it_is_next() -> None:
    queue: DeviceQueue[str] = DeviceQueue(20)
    queue.offer(A, 1, "job")
    for number in range(10):
        queue.offer(TileKey("mariem", "stream", number), 1, "frame", deadline=float(number))
    taken = [queue.take() for _ in range(6)]
    assert taken == ["frame"] * MOST_OVERTAKEN + ["job", "frame"]
    queue.check_invariants()


def test_a_gateway_gets_no_credit_for_time_without_queued_tiles() -> None:
    queue: DeviceQueue[str] = DeviceQueue(64)
    queue.offer(TileKey("slow", "job", 0), 1, "slow", 1)
    assert queue.take() == "slow"
    for tile in range(20):
        queue.offer(TileKey("busy", "job", tile), 1, "busy", 1)
    assert [queue.take() for _ in range(10)] == ["busy"] * 10
    for tile in range(1, 11):
        queue.offer(TileKey("slow", "job", tile), 1, "slow", 1)
    assert sorted(filter(None, (queue.take() for _ in range(8)))) == ["busy"] * 4 + ["slow"] * 4


def test_a_tile_of_zero_bytes_still_has_a_cost() -> None:
    queue: DeviceQueue[str] = DeviceQueue(16)
    for tile in range(8):
        queue.offer(TileKey("plain", "job", tile), 1, "plain")
        queue.offer(TileKey("urgent", "job", tile), 1, "urgent", priority=1)
    assert Counter(queue.take() for _ in range(9)) == {"urgent": 6, "plain": 3}


def test_a_gateway_keeps_its_virtual_time_while_one_of_its_tiles_is_held() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    queue.offer(TileKey("a", "job", 0), 1, "a", 100)
    queue.take()
    for tile in range(2):
        queue.offer(TileKey("b", "job", tile), 1, "b", 10)
    assert queue.take() == "b"
    queue.offer(TileKey("a", "job", 1), 1, "a", 100)
    assert [queue.take(), queue.take()] == ["b", "a"]


def test_a_gateway_that_returns_after_its_last_tile_starts_at_the_current_virtual_time() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    queue.offer(TileKey("a", "job", 0), 1, "a", 100, -4)
    queue.take()
    queue.finish(TileKey("a", "job", 0))
    for tile in range(2):
        queue.offer(TileKey("b", "job", tile), 1, "b", 100)
    queue.offer(TileKey("a", "job", 1), 1, "a", 100)
    assert [queue.take() for _ in range(3)] == ["b", "a", "b"]


def test_a_newer_attempt_is_charged_with_its_own_priority() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    for tile in range(3):
        queue.offer(TileKey("dear", "job", tile), 1, "dear", 100, 4)
        queue.offer(TileKey("other", "job", tile), 1, "other", 100)
    queue.offer(TileKey("dear", "job", 0), 2, "dear", 100, -4)
    assert [queue.take() for _ in range(4)] == ["dear", "other", "other", "other"]


def test_a_cancelled_queued_tile_is_removed_and_not_accepted_again() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    assert queue.cancel(A, 1)
    assert queue.tiles_held == 0
    assert queue.take() is None
    assert queue.offer(A, 1, "a1") is OfferResult.ALREADY_ENDED


def test_a_cancelled_running_tile_gets_no_answer() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    assert queue.cancel(A, 1)
    assert not queue.cancel(A, 1)
    assert queue.offer(A, 1, "again") is OfferResult.ALREADY_ENDED
    assert queue.finish(A) is None


def test_a_cancelled_running_tile_that_is_offered_again_gets_an_answer() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    queue.cancel(A, 1)
    assert queue.offer(A, 2, "a2") is OfferResult.ALREADY_HELD
    assert queue.finish(A) == "a2"


def test_a_running_tile_whose_lease_expired_may_still_be_answered() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    assert not queue.cancel(A, 1, expired=True)
    assert queue.finish(A) == "a1"


def test_a_queued_tile_whose_lease_expired_is_dropped() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    assert queue.cancel(A, 1, expired=True)
    assert queue.tiles_held == 0


def test_a_tile_whose_work_ended_early_is_queued_again_only_if_it_was_offered_again() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 1, "a1")
    queue.take()
    queue.cancel(A, 1)
    queue.work_ended_early(A)
    assert (queue.tiles_held, queue.tiles_running) == (0, 0)
    queue.offer(A, 2, "a2")
    queue.take()
    queue.cancel(A, 2)
    queue.offer(A, 3, "a3")
    queue.work_ended_early(A)
    assert queue.take() == "a3"


def test_cancelling_an_older_attempt_keeps_the_newer_one() -> None:
    queue: DeviceQueue[str] = DeviceQueue(4)
    queue.offer(A, 2, "a2")
    assert not queue.cancel(A, 1)
    assert queue.take() == "a2"


def test_cancelling_an_unknown_tile_does_nothing() -> None:
    assert not DeviceQueue[str](4).cancel(A, 1)


def test_draining_returns_queued_tiles_and_keeps_running_ones() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    for key, item in ((A, "a"), (B, "b"), (C, "c")):
        queue.offer(key, 1, item)
    assert queue.take() == "a"
    assert queue.drain() == ["c", "b"]
    assert queue.draining
    assert queue.offer(TileKey("mariem", "job", 9), 1, "new") is OfferResult.DRAINING
    assert queue.finish(A) == "a"


def test_abandoned_tiles_are_returned_once() -> None:
    queue: DeviceQueue[str] = DeviceQueue(8)
    queue.offer(A, 1, "a1")
    queue.take()
    assert queue.abandon() == ["a1"]
    assert queue.abandon() == []
    assert queue.finish(A) is None


keys = st.builds(TileKey, st.sampled_from("gh"), st.sampled_from("jk"), st.integers(0, 3))
steps = st.lists(
    st.tuples(st.sampled_from("ooottfcgd"), keys, st.integers(1, 3), st.integers(0, 60)),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_invariants_hold_for_any_order_of_events(
    steps: list[tuple[str, TileKey, int, int]],
) -> None:
    queue: DeviceQueue[TileKey] = DeviceQueue(4, capacity_bytes=100)
    running: set[TileKey] = set()
    for what, key, attempt, nbytes in steps:
        if what == "o":
            queue.offer(key, attempt, key, nbytes, nbytes % 9 - 4)
        elif what == "t" and (started := queue.take()) is not None:
            assert started not in running
            running.add(started)
        elif what == "f" and key in running:
            running.remove(key)
            assert queue.finish(key) in (key, None)
        elif what == "g" and key in running:
            running.remove(key)
            queue.work_ended_early(key)
        elif what == "c":
            queue.cancel(key, attempt, expired=nbytes > 20)
        elif what == "d" and nbytes == 0:
            queue.drain()
        queue.check_invariants()
        assert queue.tiles_running == len(running)


def test_the_memory_of_ended_tiles_is_bounded() -> None:
    queue: DeviceQueue[int] = DeviceQueue(4)
    for tile in range(3000):
        queue.offer(TileKey("mariem", "job", tile), 1, tile)
        queue.take()
        queue.finish(TileKey("mariem", "job", tile))
    queue.check_invariants()
