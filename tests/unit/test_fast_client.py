"""The fast client uses private names of paho. These tests fail if a version of paho changes one."""

from __future__ import annotations

import ast
import inspect
import tomllib
from pathlib import Path

import paho.mqtt
import pytest
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fogmqtt.transport.fast_client import FastClient, PiecesForPaho

ROOT = Path(__file__).parents[2]
#: What paho calls on itself, and FastClient replaces. The loop that calls it is paho's.
REPLACED = ("loop_read", "want_write", "_send_publish", "_packet_queue", "_packet_write")


def private_names() -> set[str]:
    """The names `self._name` in the fast client that it does not define itself."""
    tree = ast.parse(inspect.getsource(FastClient))
    attributes = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr.startswith("_")
    ]
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own = methods | {"_reader", "_writer", "_is_reading"}
    return {node.attr for node in attributes} - own


def test_paho_has_the_private_names_that_the_fast_client_uses() -> None:
    names = private_names()
    assert {"_sock", "_sockpairW", "_out_messages", "_do_on_publish", "_packet_handle"} <= names
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    assert [name for name in sorted(names) if not hasattr(client, name)] == []
    assert {"command", "remaining_length", "packet"} <= client._in_packet.keys()
    assert callable(mqtt.MQTTMessageInfo._set_as_published)


@pytest.mark.parametrize("name", REPLACED)
def test_paho_calls_what_the_fast_client_replaces_with_the_same_arguments(name: str) -> None:
    ours, pahos = (inspect.signature(getattr(kind, name)) for kind in (FastClient, mqtt.Client))
    assert list(ours.parameters) == list(pahos.parameters)
    assert f"self.{name}(" in inspect.getsource(mqtt.Client)


def test_the_package_allows_only_the_version_of_paho_that_was_read() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "paho-mqtt>=2.2,<2.3" in project["dependencies"]
    assert paho.mqtt.__version__.startswith("2.2.")


def test_paho_passes_a_payload_in_pieces_on_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[object] = []
    client = FastClient(CallbackAPIVersion.VERSION2)
    monkeypatch.setattr(
        client,
        "_send_publish",
        lambda *arguments, **_: passed.append(arguments[2]) or mqtt.MQTT_ERR_SUCCESS,
    )
    pieces = (b"header", memoryview(b"pixels"))
    for qos in (0, 1):
        client.publish("a", PiecesForPaho.of(pieces), qos)
    assert [each.pieces for each in passed if isinstance(each, PiecesForPaho)] == [pieces, pieces]
