"""How fast an emulated device is, before and after its speed changes."""

import pytest

from fogmqtt.workers.throttle import Throttle


def test_a_tile_takes_its_pixels_over_the_speed():
    assert Throttle([100.0]).finish(10.0, 50) == 10.5


def test_what_is_left_of_a_tile_goes_on_at_the_new_speed():
    pace = Throttle([100.0, 10.0])
    pace.change(10.25)
    assert pace.finish(10.0, 50) == pytest.approx(10.25 + 2.5)
    assert pace.finish(10.0, 20) == pytest.approx(10.2)
    assert pace.finish(11.0, 50) == pytest.approx(16.0)


def test_after_the_last_speed_comes_the_first_again():
    pace = Throttle([100.0, 10.0])
    pace.change(1.0)
    pace.change(2.0)
    assert pace.finish(3.0, 50) == 3.5
    assert pace.finish(0.5, 50 + 10 + 100) == pytest.approx(3.0)
