"""A JSON Schema of Home Assistant's discovery messages, of the kinds of entities that we announce.

It follows `DEVICE_DISCOVERY_SCHEMA` and each platform's `DISCOVERY_SCHEMA` of Home Assistant
2026.2, and is stricter: Home Assistant ignores fields that it does not know, and this refuses them.
`tests/home_assistant_package.py` asks Home Assistant itself.
"""

from __future__ import annotations

from typing import Any, Final

_TEXT: Final = {"type": "string", "minLength": 1}
_TOPIC: Final = {"type": "string", "pattern": r"^[^+#\s]+$", "maxLength": 200}
_SECONDS: Final = {"type": "integer", "minimum": 0}
_AVAILABILITY: Final = {
    "availability": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["topic"],
            "properties": {
                "topic": _TOPIC,
                "payload_available": _TEXT,
                "payload_not_available": _TEXT,
                "value_template": _TEXT,
            },
            "additionalProperties": False,
        },
    },
    "availability_mode": {"enum": ["all", "any", "latest"]},
}


def _entity(platform: str, required: list[str], **fields: Any) -> dict[str, Any]:
    """The schema of one kind of entity."""
    return {
        "type": "object",
        "required": ["platform", "unique_id", "name", *required],
        "properties": {
            "platform": {"const": platform},
            "unique_id": {"type": "string", "pattern": "^[a-zA-Z0-9_-]+$"},
            # null: the entity has the name of its device.
            "name": {"type": ["string", "null"], "minLength": 1},
            "icon": {"type": "string", "pattern": "^mdi:[a-z0-9-]+$"},
            "enabled_by_default": {"type": "boolean"},
            "json_attributes_topic": _TOPIC,
            "json_attributes_template": _TEXT,
            "qos": {"enum": [0, 1, 2]},
            **_AVAILABILITY,
            **fields,
        },
        "additionalProperties": False,
    }


#: What only a sensor, binary sensor, camera or image may be: nothing is configured by it.
_SHOWS: Final = {"entity_category": {"const": "diagnostic"}}
_COMPONENTS: Final = {
    "sensor": _entity(
        "sensor",
        ["state_topic"],
        state_topic=_TOPIC,
        value_template=_TEXT,
        device_class={"enum": ["enum", "temperature", "duration"]},
        state_class={"enum": ["measurement", "total", "total_increasing"]},
        unit_of_measurement=_TEXT,
        suggested_display_precision=_SECONDS,
        options={"type": "array", "minItems": 1, "items": _TEXT, "uniqueItems": True},
        expire_after=_SECONDS,
        **_SHOWS,
    )
    | {
        # A list of options belongs to the class `enum`, which has neither unit nor statistics.
        "if": {"properties": {"device_class": {"const": "enum"}}, "required": ["device_class"]},
        "then": {
            "required": ["options"],
            "not": {
                "anyOf": [{"required": ["state_class"]}, {"required": ["unit_of_measurement"]}]
            },
        },
        "else": {"not": {"required": ["options"]}},
    },
    "binary_sensor": _entity(
        "binary_sensor",
        ["state_topic"],
        state_topic=_TOPIC,
        value_template=_TEXT,
        device_class={"enum": ["connectivity", "motion", "occupancy", "problem", "running"]},
        payload_on=_TEXT,
        payload_off=_TEXT,
        off_delay=_SECONDS,
        expire_after=_SECONDS,
        **_SHOWS,
    ),
    "switch": _entity(
        "switch",
        ["command_topic"],
        command_topic=_TOPIC,
        state_topic=_TOPIC,
        value_template=_TEXT,
        payload_on=_TEXT,
        payload_off=_TEXT,
        state_on=_TEXT,
        state_off=_TEXT,
        entity_category={"const": "config"},
    ),
    "event": _entity(
        "event",
        ["state_topic", "event_types"],
        state_topic=_TOPIC,
        event_types={"type": "array", "minItems": 1, "items": _TEXT, "uniqueItems": True},
        device_class={"enum": ["button", "doorbell", "motion"]},
        value_template=_TEXT,
    ),
    # Home Assistant asks for one of two topics; we never use the other, `url_topic`.
    "image": _entity(
        "image",
        ["image_topic"],
        image_topic=_TOPIC,
        content_type={"enum": ["image/jpeg", "image/png", "image/webp"]},
        image_encoding={"enum": ["b64", "raw"]},
    ),
    "camera": _entity("camera", ["topic"], topic=_TOPIC, image_encoding={"const": "b64"}),
}

SCHEMA: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["device", "origin", "components"],
    "properties": {
        "device": {
            "type": "object",
            "required": ["identifiers", "name"],
            "properties": {
                "identifiers": {"type": "array", "minItems": 1, "items": _TEXT},
                "name": _TEXT,
                "manufacturer": _TEXT,
                "model": _TEXT,
                "sw_version": _TEXT,
                "via_device": _TEXT,
            },
            "additionalProperties": False,
        },
        "origin": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": _TEXT, "sw_version": _TEXT},
            "additionalProperties": False,
        },
        **_AVAILABILITY,
        "components": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["platform"],
                "properties": {"platform": {"enum": list(_COMPONENTS)}},
                "allOf": [
                    {"if": {"properties": {"platform": {"const": name}}}, "then": schema}
                    for name, schema in _COMPONENTS.items()
                ],
            },
        },
    },
    "additionalProperties": False,
}
