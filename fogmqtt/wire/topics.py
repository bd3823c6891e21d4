"""The topic tree, and the client ids under it. Only this module builds and splits topic names.

<prefix>/devices/<device>/status      device and its last will, retained: online | offline
<prefix>/devices/<device>/info        device, retained: JSON
<prefix>/devices/<device>/tiles       gateway → device
<prefix>/devices/<device>/control     gateway → device: JSON
<prefix>/gateways/<gateway>/results/<device>   device → gateway
<prefix>/gateways/<gateway>/status | info      gateway, retained
<prefix>/gateways/<gateway>/dead      gateway: JSON
<prefix>/gateways/<gateway>/requests/<client>  a dashboard or program → gateway
<prefix>/gateways/<gateway>/answers/<client>   gateway → a dashboard or program
<prefix>/gateways/<gateway>/updates   gateway, while a dashboard watches
<prefix>/gateways/<gateway>/state     gateway, retained: JSON, with `homeassistant.discovery: auto`
<prefix>/gateways/<gateway>/devices/<device>   the same, of a device
<prefix>/gateways/<gateway>/announced    gateway, retained: JSON, which topics its next start clears
<prefix>/submit/<pipeline>/<reply>[/<tag>]    anyone → a gateway: the bytes of an image file
<prefix>/replies/<reply>[/<tag>]/image | facts | status   gateway → submitter
<prefix>/cancel/<reply>               submitter → gateways: JSON
<prefix>/latest/<name>/image | facts  gateway, retained: the newest result of a pipeline
<prefix>/jobs/<job>/status            gateway, retained, expires
<prefix>/streams/<stream>/status | source | state | enabled   gateway, retained
<prefix>/streams/<stream>/motion      gateway, retained: ON while something is seen, or OFF
<prefix>/streams/<stream>/events      gateway: JSON for each thing that is seen, and is gone
<prefix>/streams/<stream>/facts       gateway: JSON for each frame
<prefix>/streams/<stream>/enabled/set     anyone → gateway: ON, OFF
<prefix>/frames/<stream>/frame        gateway: the result of each frame, an image file
<prefix>/frames/<stream>/in           a camera → gateway: a JPEG
<prefix>/frames/<stream>/wanted       gateway → a camera: JSON
<prefix>/frames/<stream>/preview      gateway, retained: a small JPEG of the newest result
<prefix>/frames/<stream>/snapshot     gateway, retained: a JPEG of the newest event
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fogmqtt.errors import ConfigError, UsageError, WireError

ONLINE = b"online"
OFFLINE = b"offline"

#: The device id of the gateway's own cores; no other device may use it.
LOCAL = "local"

#: What a client of the broker is.
Role = Literal["device", "gateway", "dashboard"]

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
#: The levels of a Response Topic below `replies`, at most.
_MAX_RESPONSE_LEVELS = 4
#: What not every broker takes in a client id; an access list of Mosquitto refuses a slash in it.
_NOT_IN_CLIENT_ID = re.compile(r"[^A-Za-z0-9]")
_PREFIX = re.compile(r"[^/+#$\x00\s][^+#\x00\s]{0,63}(?<!/)")
_IN_A_TOPIC = (
    "1 to 64 characters without blanks, + and #, without $ at the start and without slashes at "
    "either end"
)


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


def check_topic(value: str, what: str) -> str:
    """Return `value` if it is a topic that one can publish on.

    Raises ConfigError, which names `what`, if it is not.
    """
    if _PREFIX.fullmatch(value) is None or "//" in value:
        raise ConfigError(f"{what}: {value!r} is no topic; use {_IN_A_TOPIC}")
    return value


def is_tag(value: str) -> bool:
    """Return whether a submitter may name a submission so: one level of a topic."""
    return _TAG.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics under one prefix. Raises ConfigError if no topic can begin with the prefix."""

    prefix: str = "fog/v1"

    def __post_init__(self) -> None:
        if _PREFIX.fullmatch(self.prefix) is None or "//" in self.prefix:
            raise ConfigError(
                f"wire.prefix: {self.prefix!r} cannot begin a topic; use {_IN_A_TOPIC}"
            )

    def device(self, device: str, leaf: str) -> str:
        """Return a topic of a device, or the filter for all devices if `device` is `+`.

        `leaf` is status, info, tiles or control.
        """
        return f"{self.prefix}/devices/{device}/{leaf}"

    def gateway(self, gateway: str, leaf: str) -> str:
        """Return a topic of a gateway: status, info, dead, updates, state or announced."""
        return f"{self.prefix}/gateways/{gateway}/{leaf}"

    def gateway_device(self, gateway: str, device: str) -> str:
        """Return the topic on which a gateway says how a device does."""
        return f"{self.prefix}/gateways/{gateway}/devices/{device}"

    def results(self, gateway: str, device: str) -> str:
        """Return the topic on which a device answers a gateway."""
        return f"{self.prefix}/gateways/{gateway}/results/{device}"

    def requests(self, gateway: str, client: str = "+") -> str:
        """Return the topic on which a client asks a gateway; by default the filter for all."""
        return f"{self.prefix}/gateways/{gateway}/requests/{client}"

    def answers(self, gateway: str, client: str) -> str:
        """Return the topic on which a gateway answers a client."""
        return f"{self.prefix}/gateways/{gateway}/answers/{client}"

    def submit(self, pipeline: str = "+", reply: str = "+") -> str:
        """Return the topic on which images are submitted; by default the filter for all."""
        return f"{self.prefix}/submit/{pipeline}/{reply}"

    def submissions(self, group: str = "") -> tuple[str, str]:
        """Return the filters for submitted images: without a tag, and with one.

        Of the gateways with one `group`, one gets each image. A broker may let any client join a
        group and drop what it may not read, so the name of the group must be a secret.
        """
        shared = f"$share/{group}/" if group else ""
        return f"{shared}{self.submit()}", f"{shared}{self.submit()}/+"

    def reply(self, reply: str, leaf: str, tag: str = "") -> str:
        """Return a topic of a reply. `leaf` is image, facts or status."""
        return "/".join(filter(None, (self.prefix, "replies", reply, tag, leaf)))

    def response(self, topic: str, reply: str) -> str:
        """Return a Response Topic if answers to this reply name may be published on it.

        Raises UsageError if it is not within the replies of this name: a broker's access list lets
        a user submit with its own name only, so nobody's answers come where they are not expected.
        """
        below = topic.removeprefix(f"{self.prefix}/replies/{reply}")
        levels = [reply, *below.split("/")[1:]]
        is_own = below != topic and (not below or below.startswith("/"))
        if is_own and len(levels) <= _MAX_RESPONSE_LEVELS and all(map(is_tag, levels)):
            return topic
        raise UsageError(
            f"the Response Topic {topic[:80]!r} is not answered; use {self.prefix}/replies/"
            f"{reply[:32]} and up to {_MAX_RESPONSE_LEVELS - 1} more levels of 1 to 64 letters, "
            "digits, _, -, . and :"
        )

    def cancel(self, reply: str = "+") -> str:
        """Return the topic on which a submitter cancels jobs; by default the filter for all."""
        return f"{self.prefix}/cancel/{reply}"

    def latest(self, name: str, leaf: str) -> str:
        """Return a topic that keeps the newest result of a name. `leaf` is image or facts."""
        return f"{self.prefix}/latest/{name}/{leaf}"

    def stream(self, stream: str, leaf: str) -> str:
        """Return a topic of a stream with small text, or the filter for all if `stream` is `+`.

        `leaf` is status, source, state, facts, events, motion, enabled or enabled/set.
        """
        return f"{self.prefix}/streams/{stream}/{leaf}"

    def frame(self, stream: str, leaf: str) -> str:
        """Return a topic of a stream with pictures. `leaf` is frame, preview or snapshot."""
        return f"{self.prefix}/frames/{stream}/{leaf}"

    def job_status(self, job: str) -> str:
        """Return the topic of a job's retained status."""
        return f"{self.prefix}/jobs/{job}/status"

    def client_id(self, role: Role, name: str) -> str:
        """Return the MQTT client id of a device, gateway or dashboard, such as fog-v1-device-eya.

        The broker lets in one client with the same client id. With prefix and role in it, another
        fog at the broker, or a device that is named like its gateway, has another one.
        """
        return f"{_NOT_IN_CLIENT_ID.sub('-', self.prefix)}-{role}-{name}"

    def levels(self, topic: str) -> tuple[str, ...]:
        """Return the levels of a topic below the prefix. Raises WireError for another prefix."""
        if not topic.startswith(f"{self.prefix}/"):
            raise WireError(f"topic {topic[:80]!r} is not under {self.prefix}")
        return tuple(topic[len(self.prefix) + 1 :].split("/"))
