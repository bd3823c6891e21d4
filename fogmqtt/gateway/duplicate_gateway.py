"""Two gateways under one id."""

from __future__ import annotations

from fogmqtt.core.duplicate_id import DuplicateIdCheck
from fogmqtt.errors import DuplicateId
from fogmqtt.log import one_line
from fogmqtt.wire.messages import GatewayInfo


def is_duplicate_gateway(
    rivals: DuplicateIdCheck, info: GatewayInfo, boot: str, uptime_s: float, gateway: str
) -> bool:
    """Whether `info`, said under our id, is another's, who must hear that we stay.

    Raises DuplicateId where it is we who must leave. `boot` and `uptime_s` are ours.
    """
    if info.boot == boot:
        # Heard back: what comes after this was said after us.
        rivals.own_info_seen()
    if rivals.must_exit(info.boot, info.uptime_s, uptime_s):
        host = one_line(info.host) or "unknown"
        raise DuplicateId(
            f"another gateway (host {host}) is already running under the "
            f"id {gateway!r}; give this one another gateway.id"
        )
    return rivals.is_duplicate(info.boot)
