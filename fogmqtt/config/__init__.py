"""Loads config.yaml and the environment into frozen values, with errors that name the key.

The environment (`FOGMQTT_BROKER__URL` is `broker.url`) overrides the YAML file, which overrides the
defaults of the classes. Relative paths in a file are relative to the folder of the file, those in
the environment to the working directory. The classes are the schema. config.yaml explains each key
with its unit.
"""

from __future__ import annotations

from fogmqtt.config.load import load_device, load_device_and_broker, load_gateway
from fogmqtt.config.schema import (
    BrokerSettings,
    CallbackSettings,
    DeviceConfig,
    DeviceSettings,
    EventSettings,
    GatewayConfig,
    GatewaySettings,
    LimitSettings,
    MemorySettings,
    MotionSettings,
    PreviewSettings,
    RecordSettings,
    StreamSettings,
    WireSettings,
)

__all__ = [
    "BrokerSettings",
    "CallbackSettings",
    "DeviceConfig",
    "DeviceSettings",
    "EventSettings",
    "GatewayConfig",
    "GatewaySettings",
    "LimitSettings",
    "MemorySettings",
    "MotionSettings",
    "PreviewSettings",
    "RecordSettings",
    "StreamSettings",
    "WireSettings",
    "load_device",
    "load_device_and_broker",
    "load_gateway",
]
