"""The topic tree: the only place that knows how a topic is spelt.

<prefix>/devices/<device>/status      device and its last will, retained: online | offline
<prefix>/devices/<device>/info        device, retained: JSON
<prefix>/devices/<device>/tiles       gateway → device
<prefix>/devices/<device>/control     gateway → device: JSON
<prefix>/gateways/<gateway>/results/<device>
<prefix>/gateways/<gateway>/status | info
<prefix>/submit/<pipeline>/<reply>    anyone → a gateway: an image file's bytes
<prefix>/replies/<reply>/image | status
<prefix>/jobs/<job>/status            gateway, retained, expires
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fogmqtt.errors import ConfigError, WireError

ONLINE = b"online"
OFFLINE = b"offline"

#: The id of the gateway's own cores among the devices; no board may take it.
LOCAL = "local"

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PREFIX = re.compile(r"[^/+#$\x00\s][^+#\x00\s]{0,63}(?<!/)")


def check_id(value: str, what: str) -> str:
    """Return `value` if it can be one level of a topic. Raises ConfigError naming `what`."""
    if _ID.fullmatch(value) is None:
        raise ConfigError(
            f"{what}: {value!r} is not an id; use 1 to 32 of a-z, 0-9, _ and -, "
            "beginning with a letter or digit"
        )
    return value


def is_id(value: str) -> bool:
    return _ID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """The tree under one prefix."""

    prefix: str = "fog/v1"

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None or "//" in self.prefix:
            raise ConfigError(
                f"wire.prefix: {self.prefix!r} cannot begin a topic; "
                "leave out blanks, +, #, a leading $ and slashes at either end"
            )

    def device(self, device: str, leaf: str) -> str:
        """`leaf`: status, info, tiles or control; `+` as device for all."""
        return f"{self.prefix}/devices/{device}/{leaf}"

    def gateway(self, gateway: str, leaf: str) -> str:
        """`leaf`: status, info or dead."""
        return f"{self.prefix}/gateways/{gateway}/{leaf}"

    def results(self, gateway: str, device: str) -> str:
        return f"{self.prefix}/gateways/{gateway}/results/{device}"

    def submit(self, pipeline: str = "+", reply: str = "+") -> str:
        return f"{self.prefix}/submit/{pipeline}/{reply}"

    def reply(self, reply: str, leaf: str) -> str:
        """`leaf`: image, facts or status."""
        return f"{self.prefix}/replies/{reply}/{leaf}"

    def job_status(self, job: str) -> str:
        return f"{self.prefix}/jobs/{job}/status"

    def levels(self, topic: str) -> tuple[str, ...]:
        """The levels below the prefix. Raises WireError for a topic outside it."""
        if not topic.startswith(f"{self.prefix}/"):
            raise WireError(f"topic {topic[:80]!r} is not under {self.prefix}")
        return tuple(topic[len(self.prefix) + 1 :].split("/"))
