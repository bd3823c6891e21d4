"""docs/asyncapi.yaml is valid AsyncAPI, and has every topic and every field of the messages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import msgspec
import pytest
import yaml

from fogmqtt.wire import messages, topics
from fogmqtt.wire.messages import CancelSubmission, JobStatus
from tests import asyncapi

DOCUMENT: Final[dict[str, Any]] = yaml.safe_load(asyncapi.PAGE.read_text("utf-8"))
SCHEMA: Final = Path(__file__).parents[1] / "asyncapi_schema/3.0.0.json"


def test_the_document_is_valid_asyncapi() -> None:
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text("utf-8")))
    assert [error.message for error in validator.iter_errors(DOCUMENT)] == []


def test_a_mistake_in_the_document_would_be_found() -> None:
    validator = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text("utf-8")))
    operation = {"action": "publish", "channel": {"$ref": "#/channels/submit"}}
    assert not validator.is_valid({**DOCUMENT, "operations": {"wrong": operation}})


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(references(DOCUMENT)):
        node: Any = DOCUMENT
        for step in reference.removeprefix("#/").split("/"):
            assert step in node, reference
            node = node[step]


def test_every_channel_and_message_is_used() -> None:
    used = set(references(DOCUMENT))
    for kind, named in (
        ("channels", DOCUMENT["channels"]),
        ("components/messages", DOCUMENT["components"]["messages"]),
        ("components/schemas", DOCUMENT["components"]["schemas"]),
    ):
        assert [one for one in named if f"#/{kind}/{one}" not in used] == [], kind


def documented_topics() -> set[str]:
    """The topics of the tree that `fogmqtt.wire.topics` begins with."""
    found = set()
    for line in re.findall(r"^<prefix>/(.+)$", topics.__doc__ or "", re.MULTILINE):
        topic = re.split(r"\s{2,}", line)[0]
        stem, _, last = topic.rpartition("/")
        for leaf in last.replace("]", "").split(" | ") if "|" in last else [last]:
            whole = f"fog/v1/{stem}/{leaf}".replace("<", "{").replace(">", "}")
            without = re.sub(r"\[[^\]]*\]?", "", whole).rstrip("[")
            found |= {without, whole.replace("[", "").replace("]", "")}
    return found


def test_every_topic_is_a_channel() -> None:
    assert "fog/v1/replies/{reply}/{tag}/facts" in documented_topics()
    assert "fog/v1/submit/{pipeline}/{reply}" in documented_topics()
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert addresses - {None} == documented_topics()


def test_every_parameter_of_an_address_is_described() -> None:
    for name, channel in DOCUMENT["channels"].items():
        names = set(re.findall(r"{(\w+)}", channel["address"] or ""))
        assert names == channel.get("parameters", {}).keys(), name


def test_the_schemas_are_those_of_the_messages() -> None:
    assert asyncapi.PAGE.read_text("utf-8") == asyncapi.written(), "run python -m tests.asyncapi"


@pytest.mark.parametrize("message", asyncapi.message_types(), ids=lambda one: one.__name__)
def test_every_field_of_a_message_is_there(message: type[messages.Message]) -> None:
    schema = DOCUMENT["components"]["schemas"][message.__name__]
    fields = {field.encode_name for field in msgspec.structs.fields(message)}
    assert schema["properties"].keys() == fields | {"type"}


def test_the_examples_are_messages() -> None:
    for name, kind in (("jobStatus", JobStatus), ("cancelSubmission", CancelSubmission)):
        for example in DOCUMENT["components"]["messages"][name]["examples"]:
            payload = json.dumps(example["payload"]).encode()
            assert messages.Decoder(kind).decode(payload)  # type: ignore[type-var]
