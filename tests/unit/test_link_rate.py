"""The rate of a link is measured while the link is busy, and decides whether a codec pays."""

from __future__ import annotations

import pytest

from fogmqtt.core.link_rate import Compression, LinkRate

MB = 1_000_000


def test_nothing_is_known_before_something_arrived() -> None:
    rate = LinkRate()
    assert rate.bytes_per_s is None
    rate.sent("a", MB, 0.0)
    assert rate.bytes_per_s is None


def test_the_rate_is_what_arrived_over_the_time_since_the_link_is_busy() -> None:
    rate = LinkRate()
    for tile in range(4):
        rate.sent(tile, MB, 10.0)
    for tile in range(4):
        rate.arrived(tile, 10.0 + 0.5 * (tile + 1))
    assert rate.bytes_per_s == pytest.approx(2 * MB)


def test_the_time_between_two_busy_times_does_not_count() -> None:
    rate = LinkRate()
    for start in (0.0, 100.0):
        rate.sent(start, MB, start)
        rate.arrived(start, start + 1.0)
    assert rate.bytes_per_s == pytest.approx(MB)


def test_a_few_slow_arrivals_at_a_busy_machine_do_not_count() -> None:
    rate = LinkRate()
    for start in range(8):
        rate.sent(start, MB, start)
        rate.arrived(start, start + (0.9 if start % 2 else 0.01))
    assert rate.bytes_per_s == pytest.approx(100 * MB)


def test_one_arrival_that_seems_too_fast_does_not_count() -> None:
    rate = LinkRate()
    for start in range(3):
        rate.sent(start, MB, start)
        rate.arrived(start, start + (0.001 if start == 1 else 0.5))
    assert rate.bytes_per_s == pytest.approx(2 * MB)


def test_a_link_that_becomes_slow_is_measured_as_slow() -> None:
    rate = LinkRate()
    for start in range(8):
        rate.sent(start, MB, start)
        rate.arrived(start, start + 0.01)
    for start in range(100, 220, 10):
        rate.sent(start, MB, start)
        rate.arrived(start, start + 8.0)
    assert rate.bytes_per_s == pytest.approx(MB / 8)


def test_small_messages_say_nothing() -> None:
    rate = LinkRate()
    rate.sent("a", 100, 0.0)
    rate.arrived("a", 0.5)
    assert rate.bytes_per_s is None


def test_a_few_tiles_that_take_milliseconds_say_nothing() -> None:
    rate = LinkRate()
    for start in range(8):
        for tile in range(6):
            rate.sent((start, tile), 40_000, start)
            rate.arrived((start, tile), start + 0.02)
    assert rate.bytes_per_s is None


def test_a_few_tiles_that_take_long_tell_the_rate() -> None:
    rate = LinkRate()
    for start in (0.0, 10.0):
        rate.sent(start, 40_000, start)
        rate.arrived(start, start + 0.4)
    assert rate.bytes_per_s == pytest.approx(100_000)


def test_a_message_that_never_arrives_keeps_the_link_busy_for_a_while_only() -> None:
    rate = LinkRate()
    rate.sent("lost", MB, 0.0)
    for start in (1000.0, 1100.0):
        rate.sent(start, MB, start)
        rate.arrived(start, start + 1.0)
    assert rate.bytes_per_s == pytest.approx(MB)
    assert not rate.arrived("lost", 1200.0)


@pytest.mark.parametrize(
    ("bytes_per_s", "pays"),
    [
        (None, False),
        (500 * MB, False),
        (20 * MB, False),
        (11 * MB, True),
        (MB, True),
    ],
)
def test_png_pays_on_slow_links_only(bytes_per_s: float | None, pays: bool) -> None:
    assert Compression().pays(bytes_per_s) is pays


def test_png_does_not_pay_for_pixels_that_it_does_not_make_smaller() -> None:
    noise = Compression()
    for _ in range(8):
        noise.learn(MB, 1_001_000, 0.02)
    assert not noise.pays(0.1 * MB)
