"""The speed of an emulated device before and after a change."""

import pytest

from fogmqtt.workers.throttle import Throttle


def test_a_tile_takes_its_pixels_divided_by_the_speed():
    assert Throttle([100.0]).finish_time(10.0, 50) == 10.5


def test_the_rest_of_a_tile_runs_at_the_new_speed():
    throttle = Throttle([100.0, 10.0])
    throttle.next_speed(10.25)
    assert throttle.finish_time(10.0, 50) == pytest.approx(10.25 + 2.5)
    assert throttle.finish_time(10.0, 20) == pytest.approx(10.2)
    assert throttle.finish_time(11.0, 50) == pytest.approx(16.0)


def test_the_first_speed_follows_the_last_one():
    throttle = Throttle([100.0, 10.0])
    throttle.next_speed(1.0)
    throttle.next_speed(2.0)
    assert throttle.finish_time(3.0, 50) == 3.5
    assert throttle.finish_time(0.5, 50 + 10 + 100) == pytest.approx(3.0)
