"""The schema of the configuration: frozen values with defaults, types and limits.

config.yaml explains each key with its unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.wire.messages import Priority

Mode = Literal["auto", "never", "always"]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The connection to the broker. `load` sets `password` from `password_file` if that is set."""

    url: str = "mqtt://127.0.0.1:1883"
    embedded: Mode = "auto"
    protocol: Literal[5, "3.1.1"] = 5
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    keepalive_s: Annotated[float, msgspec.Meta(ge=1, le=65535)] = 60.0
    connect_timeout_s: Seconds = 10.0
    client: Literal["fast", "plain"] = "fast"


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The identity, folders and local work of a gateway."""

    id: str = "mariem"
    local: Mode = "auto"
    local_after: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    inbox: str = "inbox"
    outbox: str = "outbox"
    spool: str = "spool"
    spool_keep_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 20_000_000_000
    session_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 60
    deliver: Literal["auto", "outbox", "reply", "both"] = "auto"
    #: As `images.result_format` reads it: a kind with options.
    format: str = "png"
    pages: Literal["first", "all"] | Annotated[int, msgspec.Meta(ge=1)] = "all"


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Topic prefix, encoding, QoS, message size and codec."""

    prefix: str = "fog/v1"
    encoding: Literal["binary", "base64"] = "binary"
    qos: Literal[0, 1, 2] = 1
    max_message_bytes: Annotated[int, msgspec.Meta(ge=4096, le=256_000_000)] = 900_000
    codec: Literal["auto", "raw", "png"] = "auto"


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limits of submitted images and of concurrent jobs."""

    max_pixels: Count = 500_000_000
    max_file_bytes: Count = 256 * 1024 * 1024
    max_jobs: Count = 4
    max_waiting: Count = 1000


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """The share of tiles that a second device also processes, from 0 to 1."""

    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    max_window: Count = 16
    first_lease_s: Seconds = 30.0
    max_failures: Count = 4
    max_losses: Count = 3
    quarantine_s: Seconds = 10.0
    hedging: bool = True


def default_pipelines() -> dict[str, str]:
    """Return the pipelines of a gateway without configuration."""
    return {"edges": "gray | canny low=50 high=150"}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The configuration of `fog-gateway`."""

    broker: BrokerSettings = BrokerSettings()
    gateway: GatewaySettings = GatewaySettings()
    wire: WireSettings = WireSettings()
    pipelines: dict[str, str] = field(default_factory=default_pipelines)
    priorities: dict[str, Priority] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    pipeline: str = "edges"
    tiles: str = "auto"
    post: str = ""
    models: str = "models"
    plugins: tuple[str, ...] = ()
    exact: bool = True
    verify: VerifySettings = VerifySettings()
    limits: LimitSettings = LimitSettings()
    scheduler: SchedulerSettings = SchedulerSettings()

    def policy(self) -> Policy:
        """The scheduler's numbers; limits that belong to a configured number keep their ratio."""
        chosen = self.scheduler
        return Policy(
            max_window=chosen.max_window,
            first_lease_s=chosen.first_lease_s,
            max_lease_s=20 * chosen.first_lease_s,
            max_failures=chosen.max_failures,
            max_expiries=2 * chosen.max_failures,
            max_losses=chosen.max_losses,
            quarantine_s=chosen.quarantine_s,
            quarantine_max_s=30 * chosen.quarantine_s,
            hedging=chosen.hedging,
            starve_s=self.gateway.local_after,
        )


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """The identity and the resources of a device."""

    id: str = ""
    workers: Literal["auto"] | Annotated[int, msgspec.Meta(ge=1, le=1024)] = "auto"
    checkin_s: Seconds = 5.0
    worker_memory_mb: Literal["auto"] | Annotated[int, msgspec.Meta(ge=64)] = "auto"
    max_tile_pixels: Literal["any"] | Annotated[int, msgspec.Meta(ge=1)] = "any"
    isolate: Literal["auto", "always"] = "auto"


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The configuration of `fog-device`. It uses only `prefix` and `qos` of `wire`."""

    broker: BrokerSettings = BrokerSettings()
    wire: WireSettings = WireSettings()
    device: DeviceSettings = DeviceSettings()
    models: str = "models"
    plugins: tuple[str, ...] = ()
