"""docs/protocol.md names every field of every message, and its examples are right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import msgspec
import pytest
import xxhash

from fogmqtt.wire import messages
from fogmqtt.wire.messages import Decoder, Message, Result, TileTask, check_digest
from fogmqtt.wire.topics import Topics

PAGE: Final = (Path(__file__).parents[2] / "docs/protocol.md").read_text("utf-8")
#: The heading of the section that describes each message.
SECTIONS: Final[dict[type[Message], str]] = {
    messages.TileTask: "tile (gateway → device)",
    messages.Cancel: "control (gateway → device)",
    messages.DeviceInfo: "device (info)",
    messages.GatewayInfo: "gateway (info)",
    messages.JobStatus: "job (status)",
    messages.CancelSubmission: "cancel_submission",
    messages.DeadJob: "dead",
}
REPLIES: Final = (messages.Accepted, messages.Result, messages.Failure, messages.Rejected)
#: How the page writes a default.
DEFAULTS: Final = {"null": None, '`""`': "", "`raw`": "raw", "0": 0, "false": False} | {
    "`[]`": [],
    "`{}`": {},
}


def section(heading: str) -> str:
    """The text under a heading, up to the next one."""
    found = re.search(
        rf"^#+ {re.escape(heading)}.*?\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found is not None, heading
    return found[1]


def named(text: str) -> set[str]:
    """The words of a text that are code."""
    return {word for code in re.findall(r"`([^`]+)`", text) for word in code.split()}


def table(heading: str) -> dict[str, list[str]]:
    """The rows of a table of fields: type, default and meaning by the field's name."""
    rows = {}
    for line in section(heading).splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if line.startswith("| `"):
            rows |= dict.fromkeys(re.findall(r"`(\w+)`", cells[0]), cells[1:])
    return rows


def fields(message: type[Message]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(message) if field.name != "v"}


def default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


@pytest.mark.parametrize("message", SECTIONS, ids=lambda message: message.__name__)
def test_the_page_names_every_field_of_a_message(message: type[Message]) -> None:
    assert fields(message).keys() - named(section(SECTIONS[message])) == set()


@pytest.mark.parametrize("message", [messages.TileTask, messages.DeviceInfo])
def test_a_table_gives_the_defaults_and_no_default_to_a_required_field(
    message: type[Message],
) -> None:
    rows, actual = table(SECTIONS[message]), fields(message)
    assert rows.keys() == actual.keys()
    for name, field in actual.items():
        shown = rows[name][1]
        assert bool(shown) != field.required, name
        if shown:
            assert DEFAULTS[shown] == default(field), name


@pytest.mark.parametrize("message", REPLIES, ids=lambda message: message.__name__)
def test_the_table_of_replies_tells_required_from_optional_fields(message: type[Message]) -> None:
    tag = message.__struct_config__.tag
    row = next(line for line in section("Replies").splitlines() if line.startswith(f"| `{tag}` "))
    _, required, optional = (named(re.sub(r"\(.*?\)", "", cell)) for cell in row[1:-1].split("|"))
    # A receiver decodes a result without a digest, and then refuses it.
    must = {name for name, field in fields(message).items() if field.required or name == "digest"}
    assert (required, optional) == (must, fields(message).keys() - must)


def test_the_examples_are_messages_with_the_digests_of_their_headers() -> None:
    code = "\n".join(re.findall(r"```json\n(.*?)```", section("Example"), re.DOTALL))
    task, _, result = (
        Decoder(TileTask, messages.Accepted, Result).decode(line.encode()) for line in code.split()
    )
    assert isinstance(task, TileTask)
    assert isinstance(result, Result)
    assert bytes(255 - value for value in task.pixels) == bytes(result.pixels)
    header = re.search(r"^    (.+)$", section("Example"), re.MULTILINE)
    short = re.search(r"digest is `([^`]+)`", section("Example"))
    assert header is not None
    assert short is not None
    for message, head in ((task, header[1]), (result, short[1])):
        check_digest(message)
        assert xxhash.xxh3_64_hexdigest(head.encode() + message.pixels) == message.digest


def test_an_encoded_tile_has_the_documented_form() -> None:
    line = re.search(r'^\{"type":"tile".*$', section("Example"), re.MULTILINE)
    assert line is not None
    task = Decoder(TileTask).decode(line[0].encode())
    assert json.loads(messages.encode(task, "base64")) == json.loads(line[0])
    packed = messages.encode(task)
    assert packed.endswith(b"\xa6pixels\xc4\x02\x00\x63"), "pixels are bin"


def test_the_page_lists_every_topic() -> None:
    topics = Topics()
    for topic in (
        *(topics.device("<device>", leaf) for leaf in ("status", "info", "tiles", "control")),
        *(topics.gateway("<gateway>", leaf) for leaf in ("status", "dead")),
        topics.results("<gateway>", "<device>"),
        topics.submit("<pipeline>", "<reply>"),
        *(topics.reply("<reply>", leaf) for leaf in ("image", "facts", "status")),
        topics.reply("<reply>", "image", "<tag>"),
        topics.cancel("<reply>"),
        topics.latest("<name>", "image"),
        topics.job_status("<job>"),
    ):
        assert f"`{topic}`" in PAGE
