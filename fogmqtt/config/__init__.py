"""config.yaml and the environment as frozen values, with errors that name the key.

A setting comes from, later ones winning: the default here, the YAML file, the environment
(`FOGMQTT_BROKER__URL` is `broker.url`). Relative paths in a file are relative to the file's
folder, those in the environment to the working directory. The classes are the schema; what each
key means, with its unit, is said in config.yaml.
"""

from __future__ import annotations

from fogmqtt.config.load import load_device, load_gateway
from fogmqtt.config.schema import (
    BrokerSettings,
    DashboardSettings,
    DeviceConfig,
    DeviceSettings,
    GatewayConfig,
    GatewaySettings,
    LimitSettings,
    WireSettings,
)

__all__ = [
    "BrokerSettings",
    "DashboardSettings",
    "DeviceConfig",
    "DeviceSettings",
    "GatewayConfig",
    "GatewaySettings",
    "LimitSettings",
    "WireSettings",
    "load_device",
    "load_gateway",
]
