"""`max_tile_pixels`: how a device announces it and refuses a larger tile."""

from __future__ import annotations

import math

import pytest

from fogmqtt.agent.task_decoder import InvalidTask, TaskDecoder
from fogmqtt.config import DeviceSettings, load_device
from fogmqtt.core.scheduling.events import DeviceJoined, Event
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.devices.compatibility import Compatibility
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.wire.messages import DeviceInfo, encode
from tests.agent_rig import task


def test_the_limit_is_configured() -> None:
    assert load_device(None, {}).device.max_tile_pixels == "any"
    assert load_device(None, {"FOGMQTT_DEVICE__MAX_TILE_PIXELS": "65536"}).device == DeviceSettings(
        max_tile_pixels=65536
    )
    with pytest.raises(ConfigError, match="MAX_TILE_PIXELS"):
        load_device(None, {"FOGMQTT_DEVICE__MAX_TILE_PIXELS": "0"})


@pytest.mark.parametrize(("announced", "told"), [(0, math.inf), (65536, 65536)])
def test_the_scheduler_gets_the_limit_of_a_device(announced: int, told: float) -> None:
    fed: list[Event] = []
    registry = DeviceRegistry(fed.append, Compatibility(exact=False))
    info = DeviceInfo(
        boot="b",
        sequence=1,
        uptime_s=1.0,
        workers=1,
        operators=["gray"],
        max_tile_pixels=announced,
    )
    registry.received("zero", "info", encode(info), False, 0.0)
    registry.received("zero", "status", b"online", False, 0.0)
    (joined,) = (event for event in fed if isinstance(event, DeviceJoined))
    assert joined.max_tile_pixels == told


def test_a_larger_tile_is_refused_with_both_sizes() -> None:
    payload = encode(task(), "binary")
    height, width, _ = task().shape
    refused = TaskDecoder(height * width - 1).decode(payload, 0.0)
    assert isinstance(refused, InvalidTask)
    assert refused.reason == "too large"
    sizes = f"{height * width:,} pixels, this device accepts {height * width - 1:,}"
    assert sizes in refused.text
    assert refused.address is not None
    for limit in (0, height * width):
        assert not isinstance(TaskDecoder(limit).decode(payload, 0.0), InvalidTask)
