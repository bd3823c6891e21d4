"""Discovery messages of Home Assistant: pure functions from what there is to topic and payload.

One message describes a gateway or a device with all its entities (device-based discovery, Home
Assistant 2024.12 and newer). docs/home-assistant.md lists the entities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args

import msgspec

from fogmqtt import __version__
from fogmqtt.core.streaming.events import EventType
from fogmqtt.wire.service_messages import Activity
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

#: An entity's fields by their names in Home Assistant.
Component = Mapping[str, Any]

_ORIGIN: Final = {"name": "fogmqtt", "sw_version": __version__}
_MAKER: Final = "fogmqtt"
_ONLINE, _OFFLINE = ONLINE.decode(), OFFLINE.decode()


@dataclass(frozen=True, slots=True)
class RetainedMessage:
    """A message that the broker retains."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a discovery message says of a device."""

    id: str
    version: str = ""
    workers: int = 1
    has_temperature: bool = False


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a discovery message says of a stream."""

    name: str
    #: Whether previews of it are published.
    has_preview: bool = True
    #: Whether it has events, and whether they are of whatever moves.
    has_events: bool = False
    is_motion: bool = False


@dataclass(frozen=True, slots=True)
class Discovery:
    """Makes the messages of one gateway.

    `prefix` is Home Assistant's: the first levels of all its discovery topics.
    """

    topics: Topics
    gateway: str
    prefix: str

    def owns(self, topic: str) -> bool:
        """Return whether a topic is one on which this gateway announces or tells something.

        Home Assistant's prefix may have been another one when the topic was used.
        """
        if topic.startswith(self.topics.gateway_device(self.gateway, "")):
            return True
        *_, kind, name, leaf = ("", "", *topic.split("/"))
        named = name == self._gateway_name or name.startswith(f"{self._gateway_name}-")
        is_config = kind == "device" and leaf == "config" and named
        return is_config or topic == self.topics.gateway(self.gateway, "state")

    def of_gateway(self) -> RetainedMessage:
        """Return the message about the gateway itself."""
        state = self.topics.gateway(self.gateway, "state")
        return self._message(
            self._gateway_name,
            device={
                "identifiers": [self._gateway_name],
                "name": self.gateway,
                "manufacturer": _MAKER,
                "model": "gateway",
                "sw_version": __version__,
            },
            components={
                "running": _sensor("Jobs", "running", state, icon="mdi:image-sync"),
                "waiting": _sensor("Queue", "waiting", state, icon="mdi:tray-full"),
                "devices": _sensor("Devices online", "devices_online", state, icon="mdi:lan"),
                "paused": _problem("Takes no images", "paused", state)
                | _attributes(state, "reason"),
            },
        )

    def of_device(self, device: DeviceFacts) -> RetainedMessage:
        """Return the message about a device."""
        state = self.topics.gateway_device(self.gateway, device.id)
        # Its figures mean nothing while it is away; its state then says so.
        present = {
            "availability": [
                self._gateway_availability(),
                {
                    "topic": state,
                    "value_template": (
                        f"{{{{ '{_ONLINE}' if value_json.online else '{_OFFLINE}' }}}}"
                    ),
                },
            ],
            "availability_mode": "all",
        }
        components: dict[str, Component] = {
            "state": {
                **_sensor("State", "activity", state, icon="mdi:chip", counts=False),
                "device_class": "enum",
                "options": list(get_args(Activity)),
                **_attributes(state, "sentence", "advice"),
            },
            "speed": {
                **_sensor("Speed", "tiles_per_s", state, icon="mdi:speedometer"),
                "unit_of_measurement": "tiles/s",
                "suggested_display_precision": 1,
                **present,
            },
            "quarantine": _problem("Quarantine", "quarantined", state),
        }
        if device.has_temperature:
            components["temperature"] = {
                **_sensor("Temperature", "temperature_c", state),
                "device_class": "temperature",
                "unit_of_measurement": "°C",
                "suggested_display_precision": 1,
                "entity_category": "diagnostic",
                **present,
            }
        described = {
            # Of the device and not of this gateway: another gateway's entities join these.
            "identifiers": [self.topics.client_id("device", device.id)],
            "name": device.id,
            "manufacturer": _MAKER,
            "model": f"device with {device.workers} worker{'s' if device.workers > 1 else ''}",
            "via_device": self._gateway_name,
        }
        if device.version:
            described["sw_version"] = device.version
        return self._message(f"{self._gateway_name}-device-{device.id}", described, components)

    def of_stream(self, stream: StreamFacts) -> RetainedMessage:
        """Return the message about a stream."""
        runs = {
            "availability": [
                self._gateway_availability(),
                {
                    "topic": self._stream(stream, "status"),
                    # A third word means that somebody switched it off.
                    "value_template": (
                        f"{{{{ '{_ONLINE}' if value == '{_ONLINE}' else '{_OFFLINE}' }}}}"
                    ),
                },
            ],
            "availability_mode": "all",
        }
        components = {
            **(self._picture(stream) if stream.has_preview else {}),
            **self._figures(stream),
            **(self._seen(stream) if stream.has_events else {}),
        }
        return self._message(
            f"{self._gateway_name}-stream-{stream.name}",
            {
                "identifiers": [f"{self._gateway_name}-stream-{stream.name}"],
                "name": stream.name,
                "manufacturer": _MAKER,
                "model": "stream",
                "sw_version": __version__,
                "via_device": self._gateway_name,
            },
            {
                "enabled": {
                    "platform": "switch",
                    "name": "Enabled",
                    "icon": "mdi:cctv",
                    "state_topic": self._stream(stream, "enabled"),
                    "command_topic": self._stream(stream, "enabled/set"),
                },
                **{key: {**component, **runs} for key, component in components.items()},
            },
        )

    def _picture(self, stream: StreamFacts) -> dict[str, Component]:
        # Home Assistant records each message of an image, and none of a camera.
        topic = self.topics.frame(stream.name, "preview")
        return {"preview": {"platform": "camera", "name": None, "topic": topic}}

    def _figures(self, stream: StreamFacts) -> dict[str, Component]:
        state = self._stream(stream, "state")
        return {
            "source": {
                "platform": "binary_sensor",
                "name": "Source",
                "device_class": "connectivity",
                "state_topic": self._stream(stream, "source"),
                "value_template": "{{ 'ON' if value == 'connected' else 'OFF' }}",
                "entity_category": "diagnostic",
                **_attributes(state, "reason", "codec", "width", "height", "reconnects"),
            },
            "fps": {
                **_sensor("Frames", "fps_out", state, icon="mdi:filmstrip"),
                "unit_of_measurement": "fps",
                "suggested_display_precision": 1,
                "entity_category": "diagnostic",
            },
            "age": {
                **_sensor("Age", "age_s.p99", state),
                "device_class": "duration",
                "unit_of_measurement": "s",
                "suggested_display_precision": 2,
                "entity_category": "diagnostic",
                **_attributes(state, "age_s"),
            },
            "dropped": {
                **_sensor("Dropped", "dropped.values() | sum", state, icon="mdi:filmstrip-off"),
                "state_class": "total_increasing",
                "entity_category": "diagnostic",
                **_attributes(state, "dropped"),
            },
        }

    def _seen(self, stream: StreamFacts) -> dict[str, Component]:
        name, kind = ("Motion", "motion") if stream.is_motion else ("Seen", "occupancy")
        return {
            "motion": {
                "platform": "binary_sensor",
                "name": name,
                "device_class": kind,
                "state_topic": self._stream(stream, "motion"),
            },
            "event": {
                "platform": "event",
                "name": "Event",
                "event_types": list(get_args(EventType)),
                "state_topic": self._stream(stream, "events"),
                **({"device_class": "motion"} if stream.is_motion else {"icon": "mdi:eye"}),
            },
            "snapshot": {
                "platform": "image",
                "name": "Last event",
                "image_topic": self.topics.frame(stream.name, "snapshot"),
                "content_type": "image/jpeg",
            },
        }

    def _stream(self, stream: StreamFacts, leaf: str) -> str:
        return self.topics.stream(stream.name, leaf)

    @property
    def _gateway_name(self) -> str:
        return self.topics.client_id("gateway", self.gateway)

    def _gateway_availability(self) -> dict[str, str]:
        return {"topic": self.topics.gateway(self.gateway, "status")}

    def _message(
        self, name: str, device: Mapping[str, Any], components: Mapping[str, Component]
    ) -> RetainedMessage:
        """Return the message for an object id, with an id for each component."""
        payload = {
            "device": device,
            "origin": _ORIGIN,
            "availability": [self._gateway_availability()],
            "components": {
                key: {**component, "unique_id": f"{name}-{key}"}
                for key, component in components.items()
            },
        }
        return RetainedMessage(f"{self.prefix}/device/{name}/config", msgspec.json.encode(payload))


def _sensor(
    name: str, field: str, topic: str, *, icon: str = "", counts: bool = True
) -> dict[str, Any]:
    """Return a sensor of a field of a JSON topic. One that `counts` gets statistics."""
    return {
        "platform": "sensor",
        "name": name,
        "state_topic": topic,
        "value_template": f"{{{{ value_json.{field} }}}}",
        **({"state_class": "measurement"} if counts else {}),
        **({"icon": icon} if icon else {}),
    }


def _problem(name: str, field: str, topic: str) -> dict[str, Any]:
    """Return a binary sensor that is on while a field of a JSON topic is true."""
    return {
        "platform": "binary_sensor",
        "name": name,
        "device_class": "problem",
        "state_topic": topic,
        "value_template": f"{{{{ 'ON' if value_json.{field} else 'OFF' }}}}",
        "entity_category": "diagnostic",
    }


def _attributes(topic: str, *fields: str) -> dict[str, str]:
    """Return what gives an entity attributes from fields of a JSON topic."""
    pairs = ", ".join(f"'{field}': value_json.{field}" for field in fields)
    return {
        "json_attributes_topic": topic,
        "json_attributes_template": f"{{{{ {{{pairs}}} | tojson }}}}",
    }
