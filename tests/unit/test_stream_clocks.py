"""When a frame was captured, and when one of a file is due."""

import pytest

from fogmqtt.streams.clocks import MediaClock, Moment, UtcClock


@pytest.mark.parametrize(
    ("stamps", "times"),
    [
        ([3.0, 3.5, 4.0], [0.0, 0.5, 1.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.1, 0.2]),
        ([None, None, None], [0.0, 0.1, 0.2]),
        ([0.0, 0.5, 0.0, 0.5], [0.0, 0.5, 0.6, 1.1]),
        ([0.0, 9000.0, 9000.5], [0.0, 0.1, 0.6]),
    ],
)
def test_the_times_of_a_file_rise_whatever_its_timestamps_are(stamps, times):
    clock = MediaClock(10)
    assert [clock.time_of(stamp) for stamp in stamps] == pytest.approx(times)


def test_a_file_without_a_rate_has_the_usual_one():
    clock = MediaClock(None)
    assert [clock.time_of(None) for _ in range(2)] == pytest.approx([0.0, 0.04])


def now(at: float) -> Moment:
    return Moment(at, 1_700_000_000 + at, "arrival")


def test_the_clock_of_a_camera_says_when_a_frame_was_captured():
    clock = UtcClock("rtcp", lambda: 1_700_000_000.0)
    assert clock.moment(9.5, now(10)) == Moment(9.5, 1_700_000_009.5, "rtcp")


@pytest.mark.parametrize(
    ("began", "stamp"),
    [(None, 9.5), (1_700_000_000.0, None), (1_700_000_003.0, 9.5), (1_600_000_000.0, 9.5)],
)
def test_a_clock_that_is_not_known_or_wrong_is_not_used(began, stamp):
    clock = UtcClock("rtcp", lambda: began)
    assert clock.moment(stamp, now(10)) == now(10)


def test_no_frame_is_captured_after_it_arrived():
    clock = UtcClock("sensor", lambda: 1_700_000_000.0)
    assert clock.moment(11.0, now(10)) == Moment(10, 1_700_000_010, "sensor")


def test_times_of_capture_do_not_fall_when_a_clock_jumps_back():
    clock = UtcClock("rtcp", lambda: 1_700_000_000.0)
    times = [clock.moment(stamp, now(10)).at for stamp in (9.9, 9.0, 9.95)]
    assert times == pytest.approx([9.9, 9.9, 9.95], abs=1e-6)
