"""What is drawn of a real run: tiles where the device's own figures put them."""

import pytest

from fogmqtt.core.scheduling.actions import CancelTile, DropResult, KeepResult, SendTile, SplitTile
from fogmqtt.core.scheduling.events import (
    DeviceLost,
    JobSubmitted,
    ResultArrived,
    Tick,
    TileAccepted,
)
from fogmqtt.simulate.observed import Observer
from fogmqtt.simulate.record import SpanState

WORKERS = {"eya": 1, "manar": 2}


def send(tile, device="eya", attempt=1):
    return SendTile("job", tile, attempt, device, 30.0)


def result(tile, compute_s, device="eya", attempt=1):
    return ResultArrived("job", tile, attempt, device, compute_s)


def keep(tile, device="eya", attempt=1):
    return KeepResult("job", tile, attempt, device)


def spans(*notes):
    watch = Observer()
    for event, actions, now in notes:
        watch(event, list(actions), now)
    return watch.record(100.0, WORKERS).spans


SUBMITTED = JobSubmitted("job", "invert", (1000, 2001))


def test_a_tile_ends_when_its_result_is_here_and_began_as_the_device_says():
    (one,) = spans(
        (SUBMITTED, [send(0)], 101.0),
        (TileAccepted("job", 0, 1, "eya"), [], 101.1),
        (result(0, 0.5), [keep(0)], 102.0),
    )
    assert (one.device, one.tile, one.pixels, one.state) == ("eya", 0, 1000, SpanState.KEPT)
    assert (one.begin_s, one.end_s) == (pytest.approx(1.5), pytest.approx(2.0))


def test_no_tile_begins_before_it_was_sent_or_the_one_before_was_done():
    first, second = spans(
        (SUBMITTED, [send(0), send(1)], 101.0),
        (result(0, 9.0), [keep(0)], 102.0),
        (result(1, 9.0), [keep(1)], 103.0),
    )
    assert (first.begin_s, first.end_s) == (1.0, 2.0)
    assert (second.begin_s, second.end_s) == (2.0, 3.0)


def test_two_workers_have_a_row_each():
    rows = spans(
        (SUBMITTED, [send(0, "manar"), send(1, "manar")], 101.0),
        (result(0, 0.9, "manar"), [keep(0, "manar")], 102.0),
        (result(1, 0.9, "manar"), [keep(1, "manar")], 102.1),
    )
    assert {span.worker for span in rows} == {0, 1}


def test_the_slower_of_two_copies_was_for_nothing():
    slow, copy = spans(
        (SUBMITTED, [send(0)], 101.0),
        (Tick(), [send(0, "manar", 2)], 102.0),
        (result(0, 0.5, "manar", 2), [keep(0, "manar", 2), CancelTile("job", 0, 1, "eya")], 103.0),
    )[::-1]
    assert (copy.device, copy.hedge, copy.state) == ("manar", True, SpanState.KEPT)
    assert (slow.device, slow.hedge, slow.state) == ("eya", False, SpanState.WASTED)
    assert (slow.begin_s, slow.end_s) == (1.0, 3.0)


def test_a_result_that_nobody_wants_any_more_is_drawn_too():
    kept, late = spans(
        (SUBMITTED, [send(0), send(0, "manar", 2)], 101.0),
        (result(0, 0.5), [keep(0)], 102.0),
        (result(0, 0.5, "manar", 2), [DropResult("job", 0, 2, "manar", "late")], 103.0),
    )
    assert (kept.state, late.state) == (SpanState.KEPT, SpanState.WASTED)


def test_what_a_lost_device_had_in_hand_is_cut_off():
    watch = Observer()
    watch(SUBMITTED, [send(0), send(1)], 101.0)
    watch(DeviceLost("eya", "its last will"), [], 102.0)
    record = watch.record(100.0, WORKERS)
    (cut,) = record.spans
    assert (cut.tile, cut.state, cut.begin_s, cut.end_s) == (0, SpanState.CUT, 1.0, 2.0)
    assert [(mark.device, mark.at_s, mark.what) for mark in record.marks] == [("eya", 2.0, "crash")]


def test_halves_have_half_the_pixels():
    (half,) = spans(
        (SUBMITTED, [SplitTile("job", 1, 2, 3), send(2)], 101.0),
        (result(2, 0.5), [keep(2)], 102.0),
    )
    assert half.pixels == 1001
