"""Writes the schemas of docs/asyncapi.yaml from the messages: `python -m tests.asyncapi`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from fogmqtt.wire import messages
from fogmqtt.wire.stream_messages import FrameFacts, StreamEventMessage, StreamState

PAGE: Final = Path(__file__).parents[1] / "docs/asyncapi.yaml"
#: The line from which on the page is written by this program.
START: Final = "  schemas:\n"


def message_types() -> list[type[messages.Message]]:
    """All messages of the wire, in the order of the module."""
    return [
        one
        for one in vars(messages).values()
        if inspect.isclass(one)
        and issubclass(one, messages.Message)
        and one.__module__ == messages.__name__
        and one.__struct_config__.tag is not None
        and one is not messages.Message
    ]


def schemas() -> dict[str, Any]:
    """The schema of each message, with the comments of the code as descriptions."""
    types: list[type] = [*message_types(), StreamState, FrameFacts, StreamEventMessage]
    _, made = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    for one in types:
        for name, comment in comments(one).items():
            made[one.__name__]["properties"][name]["description"] = comment
    # It may be left out, since nothing else comes on that topic.
    made["CancelSubmission"]["required"].remove("type")
    return {name: _as_draft_07(schema) for name, schema in made.items()}


def _as_draft_07(node: Any) -> Any:
    """The schema in the dialect of AsyncAPI, with patterns that JavaScript reads, too."""
    if isinstance(node, list):
        return [_as_draft_07(each) for each in node]
    if not isinstance(node, dict):
        return node
    made = {key: _as_draft_07(one) for key, one in node.items() if (key, one) != ("required", [])}
    if "prefixItems" in made:
        made |= {"items": made.pop("prefixItems"), "additionalItems": False}
    if "pattern" in made:
        made["pattern"] = made["pattern"].replace(r"\Z", "$")
    return made


def comments(struct: type) -> dict[str, str]:
    """The comment above each field of a struct."""
    found, lines = {}, list[str]()
    for line in inspect.getsource(struct).splitlines():
        text = line.strip()
        if text.startswith("#:"):
            lines.append(text.removeprefix("#:").strip())
        elif lines:
            field = re.match(r"(\w+):", text)
            assert field is not None, f"{struct.__name__}: a comment above {text!r}"
            found[field[1]] = " ".join(lines)
            lines = []
    return found


def written() -> str:
    """The page as it should be."""
    before, _, _ = PAGE.read_text("utf-8").partition(START)
    text = yaml.safe_dump(schemas(), sort_keys=False, allow_unicode=True, width=110)
    return before + START + re.sub(r"^(?=.)", "    ", text, flags=re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(written(), "utf-8")
