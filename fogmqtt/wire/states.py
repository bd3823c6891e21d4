"""What a gateway says of itself and of its devices for home automation: JSON, retained.

All fields are always there, since templates read them by name.
"""

from __future__ import annotations

import msgspec

from fogmqtt.wire.service_messages import Activity


class GatewayState(msgspec.Struct, frozen=True, kw_only=True):
    """On gateways/<gateway>/state."""

    running: int
    waiting: int
    devices_online: int
    #: No image is accepted now, and why; an empty reason while images are accepted.
    paused: bool
    reason: str


class GatewayDeviceState(msgspec.Struct, frozen=True, kw_only=True):
    """On gateways/<gateway>/devices/<device>."""

    online: bool
    activity: Activity
    sentence: str
    #: What the user can do about it; empty if nothing needs to be done.
    advice: str
    quarantined: bool
    #: Over the last ten seconds.
    tiles_per_s: float
    temperature_c: float | None


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """On gateways/<gateway>/announced: retained topics of this gateway, for its next start."""

    topics: list[str]
