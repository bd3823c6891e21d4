"""What lost connections say about the largest packet that a broker takes."""

from __future__ import annotations

import pytest

from fogmqtt.transport.packet_limit import PacketLimit


def limit(announced: int | None = None) -> PacketLimit:
    made = PacketLimit()
    made.connected(announced, 0.0)
    return made


def lose(made: PacketLimit, *sizes: int, certain: bool = False) -> int | None:
    """Lose a connection with these packets on their way, and connect again."""
    for number, size in enumerate(sizes):
        made.sent(1000 + number, size, has_ack=True)
    refused = made.lost(1.0, is_certain=certain)
    made.connected(None, 2.0)
    return refused


def deliver(made: PacketLimit, size: int) -> None:
    made.sent(1, size, has_ack=True)
    made.acknowledged(1)


def test_an_announced_limit_counts_for_all_packets() -> None:
    assert (limit().soft, limit().hard) == (None, None)
    assert (limit(60_000).soft, limit(60_000).hard) == (60_000, 60_000)


def test_one_loss_lowers_the_limit_for_what_can_be_made_smaller() -> None:
    made = limit()
    assert lose(made, 6_000, 900_000) == 900_000
    assert (made.soft, made.hard) == (262_144, None)


@pytest.mark.parametrize(
    ("sizes", "soft"),
    [
        ([4_000_000], 1_048_576),
        ([900_000, 262_000], 131_072),
        ([900_000, 262_000, 131_000, 65_000, 32_000, 16_500], 16_384),
    ],
)
def test_each_loss_lowers_it_to_the_next_limit_of_common_brokers(
    sizes: list[int], soft: int
) -> None:
    made = limit()
    for size in sizes:
        lose(made, size)
    assert made.soft == soft


def test_two_losses_forbid_the_packet_that_cannot_be_made_smaller() -> None:
    made = limit()
    lose(made, 414_000)
    assert made.hard is None
    lose(made, 414_000)
    assert made.hard == 413_999


def test_one_loss_is_enough_if_the_broker_names_the_reason() -> None:
    made = limit()
    lose(made, 414_000, certain=True)
    assert made.hard == 413_999


def test_a_size_that_was_acknowledged_is_never_suspected() -> None:
    made = limit()
    deliver(made, 900_000)
    assert lose(made, 900_000) is None
    assert lose(made, 5_000_000) == 5_000_000
    assert made.soft == 1_048_576
    assert lose(made, 1_000_000) == 1_000_000
    assert made.soft == 900_000


def test_an_acknowledgement_clears_the_suspicion_of_a_loss_that_had_another_cause() -> None:
    made = limit()
    lose(made, 900_000)
    deliver(made, 900_000)
    assert made.soft is None


def test_a_broker_that_cannot_be_reached_after_the_loss_had_no_packet_that_was_too_large() -> None:
    made = limit()
    lose(made, 900_000)
    made.sent(1, 100_000, has_ack=True)
    assert made.lost(3.0) == 100_000
    assert made.unreachable()
    assert not made.unreachable()
    assert made.soft == 262_144
    made.connected(None, 4.0)
    assert not made.unreachable()


def test_what_the_broker_said_stands_although_it_cannot_be_reached_after_that() -> None:
    made = limit()
    made.sent(1, 100_000, has_ack=True)
    made.lost(3.0, is_certain=True)
    assert not made.unreachable()
    assert made.soft == 65_536


def test_small_packets_say_nothing() -> None:
    made = limit()
    assert lose(made, 16_384) is None
    assert made.soft is None


def test_what_the_broker_acknowledges_confirms_packets_of_qos_0_before_it() -> None:
    made = limit()
    made.sent(1, 900_000, has_ack=False)
    made.acknowledged(1)  # the socket has it, the broker may not
    assert made.suspects_packet
    assert not made.waits_for_large
    made.sent(2, 100, has_ack=True)
    made.acknowledged(2)
    assert not made.suspects_packet


def test_it_waits_only_for_packets_that_are_larger_than_all_before() -> None:
    made = limit()
    made.sent(1, 900_000, has_ack=True)
    assert made.waits_for_large
    made.acknowledged(1)
    made.sent(2, 900_000, has_ack=True)
    assert not made.waits_for_large


def test_a_later_connection_begins_without_limits() -> None:
    made = limit()
    lose(made, 900_000)
    made.connected(None, 3_000.0)
    assert made.soft == 262_144
    made.connected(None, 4_000.0)
    assert made.soft is None
