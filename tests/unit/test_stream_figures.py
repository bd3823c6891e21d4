"""The figures of a stream in its last seconds."""

from __future__ import annotations

import pytest

from fogmqtt.gateway.streams.figures import Figures


def test_the_rate_of_a_source_is_right_as_soon_as_there_is_one() -> None:
    figures, rates = Figures(), dict[float, float]()
    for look in range(80):  # connected after 4 s, 25 frames a second, looked at 4 times a second
        at = look / 4
        figures.receive(max(0, int((at - 4) * 25)), at)
        rates[at] = figures.fps_in(at)
    assert {rates[at] for at in (0.0, 2.0, 4.0, 4.25)} == {0.0}
    assert all(rate == pytest.approx(25, rel=0.1) for at, rate in rates.items() if at >= 5)


def test_the_rate_of_a_source_that_went_away_falls_to_nothing() -> None:
    figures = Figures()
    for look in range(80):
        figures.receive(min(100, 10 * look + 1), look / 4)
    assert figures.fps_in(20.0) == 0.0


def test_results_are_counted_from_the_second_one_on() -> None:
    figures = Figures()
    assert figures.fps_out(0.0) == 0.0
    for number in range(20):
        figures.publish(0.01 * number, number / 10)
    assert figures.fps_out(1.9) == pytest.approx(10)
    assert figures.ages(1.9).max == pytest.approx(0.19)
    assert figures.fps_out(30.0) == 0.0
