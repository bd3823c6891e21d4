"""A short share of the fuzz; 100 000 messages and 10 000 files by `make fuzz`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fogmqtt.errors import WireError
from fogmqtt.wire.messages import (
    Accepted,
    Cancel,
    Decoder,
    DeviceInfo,
    Drain,
    Failure,
    GatewayInfo,
    JobStatus,
    Message,
    Rejected,
    Result,
    TileTask,
    Warm,
)
from tests.fuzz import DEVICES, besiege, decode_apart
from tests.hostile import bombs, mutants, noise

EVERY: Decoder[Message] = Decoder(
    *(Accepted, Cancel, DeviceInfo, Drain, Failure, GatewayInfo, JobStatus, Warm),
    *(Result, Rejected, TileTask),
)


def test_whatever_comes_is_a_message_or_a_wire_error() -> None:
    rng = random.Random(1)
    taken = 0
    for payload in (*mutants(rng, 20_000), *noise(rng, 2000), *bombs()):
        try:
            taken += isinstance(EVERY.decode(payload), Message)
        except WireError:
            continue
    # Some must get through, or nothing behind the decoder is ever tried.
    assert 1000 < taken < 19_000


def test_damaged_image_files_are_read_or_refused() -> None:
    decoded = decode_apart(seed=1, count=600)
    assert decoded.read + decoded.refused == 600
    assert decoded.refused > 300


@pytest.mark.broker
@pytest.mark.chaos
def test_hostile_messages_on_every_topic_stop_and_grow_nobody(
    broker: object, tmp_path: Path
) -> None:
    del broker  # skips or fails where Mosquitto is missing
    siege = besiege(tmp_path, seed=1, count=3000)
    assert siege.sent >= 3000
    assert set(siege.grown) >= {f"{name}-{number}" for number, name in enumerate(DEVICES)}
