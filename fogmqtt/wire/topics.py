"""The topic tree. Only this module builds and splits topic names.

<prefix>/devices/<device>/status      device and its last will, retained: online | offline
<prefix>/devices/<device>/info        device, retained: JSON
<prefix>/devices/<device>/tiles       gateway → device
<prefix>/devices/<device>/control     gateway → device: JSON
<prefix>/gateways/<gateway>/results/<device>   device → gateway
<prefix>/gateways/<gateway>/status | info      gateway, retained
<prefix>/gateways/<gateway>/dead      gateway: JSON
<prefix>/submit/<pipeline>/<reply>    anyone → a gateway: the bytes of an image file
<prefix>/replies/<reply>/image | facts | status   gateway → submitter
<prefix>/jobs/<job>/status            gateway, retained, expires
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fogmqtt.errors import ConfigError, WireError

ONLINE = b"online"
OFFLINE = b"offline"

#: The device id of the gateway's own cores; no other device may use it.
LOCAL = "local"

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_PREFIX = re.compile(r"[^/+#$\x00\s][^+#\x00\s]{0,63}(?<!/)")


def check_id(value: str, what: str) -> str:
    """Return `value` if it is a valid id, which is one level of a topic.

    Raises ConfigError, which names `what`, if it is not.
    """
    if not is_id(value):
        raise ConfigError(
            f"{what}: {value!r} is not an id; use 1 to 32 of the characters a-z, 0-9, _ and -, "
            "and begin with a letter or digit"
        )
    return value


def is_id(value: str) -> bool:
    """Return whether `value` is a valid id of a device, gateway, pipeline or reply."""
    return _ID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one prefix. Raises ConfigError if no topic can begin with the prefix."""

    prefix: str = "fog/v1"

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None or "//" in self.prefix:
            raise ConfigError(
                f"wire.prefix: {self.prefix!r} cannot begin a topic; use 1 to 64 characters "
                "without blanks, + and #, without $ at the start and without slashes at either end"
            )

    def device(self, device: str, leaf: str) -> str:
        """Return a topic of a device, or the filter for all devices if `device` is `+`.

        `leaf` is status, info, tiles or control.
        """
        return f"{self.prefix}/devices/{device}/{leaf}"

    def gateway(self, gateway: str, leaf: str) -> str:
        """Return a topic of a gateway. `leaf` is status, info or dead."""
        return f"{self.prefix}/gateways/{gateway}/{leaf}"

    def results(self, gateway: str, device: str) -> str:
        """Return the topic on which a device answers a gateway."""
        return f"{self.prefix}/gateways/{gateway}/results/{device}"

    def submit(self, pipeline: str = "+", reply: str = "+") -> str:
        """Return the topic on which images are submitted; by default the filter for all."""
        return f"{self.prefix}/submit/{pipeline}/{reply}"

    def reply(self, reply: str, leaf: str) -> str:
        """Return a topic of a reply. `leaf` is image, facts or status."""
        return f"{self.prefix}/replies/{reply}/{leaf}"

    def job_status(self, job: str) -> str:
        """Return the topic of a job's retained status."""
        return f"{self.prefix}/jobs/{job}/status"

    def levels(self, topic: str) -> tuple[str, ...]:
        """Return the levels of a topic below the prefix. Raises WireError for another prefix."""
        if not topic.startswith(f"{self.prefix}/"):
            raise WireError(f"topic {topic[:80]!r} is not under {self.prefix}")
        return tuple(topic[len(self.prefix) + 1 :].split("/"))
