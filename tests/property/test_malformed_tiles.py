"""No tile ends an agent: what a device cannot take is refused in words."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.agent.task_decoder import InvalidTask, TaskDecoder
from fogmqtt.agent.tile_lease import TileLease
from fogmqtt.wire.messages import MAX_DEPTH, Call, TileTask, with_digest
from tests.hostile import LEASE, PIXELS, TASK

#: Whatever MessagePack can say, and JSON cannot: extensions, and keys that are no text.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=12))
)
keys = st.text(max_size=4) | st.integers(-9, 9) | st.booleans() | st.binary(max_size=4) | st.none()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def decoded(fields: dict[str, Any]) -> TileLease | InvalidTask:
    return TaskDecoder().decode(msgspec.msgpack.encode(fields), time.monotonic())


def fields_of(params: dict[Any, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(TASK, builtin_types=(bytes, memoryview))
    return {**fields, "pixels": bytes(PIXELS), "stage": [{"name": "invert", "params": params}]}


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=4), values, max_size=3))
def test_any_parameters_are_taken_or_refused(params: dict[str, Any]) -> None:
    answer = decoded(fields_of(params))
    assert isinstance(answer, InvalidTask) or not params
    assert not isinstance(answer, InvalidTask) or answer.text


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*fields_of({})]), values)
def test_any_value_of_any_field_is_taken_or_refused(name: str, value: Any) -> None:
    assert isinstance(decoded({**fields_of({}), name: value}), InvalidTask | TileLease)


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 100, 500, 900, 990, 1000, 5000, 100_000])
def test_a_tile_with_deep_parameters_is_refused(kind: type, depth: int) -> None:
    # An encoder of our own recursion limit cannot make the deepest ones.
    opening = b"\x91" if kind is list else b"\x81\xa1a"
    head, tail = msgspec.msgpack.encode(fields_of({"a": "END"})).split(b"\xa3END")
    payload = head + opening * depth + b"\x01" + tail
    answer = TaskDecoder().decode(payload, time.monotonic())
    assert isinstance(answer, InvalidTask)


def test_parameters_as_we_send_them_are_taken() -> None:
    params = {"table": b"\0" * 256, "rows": [[1, 2.5], [3, math.pi]], "name": "x", "on": True}
    task = with_digest(msgspec.structs.replace(TASK, stage=[Call("invert", params)]))
    assert isinstance(decoded(msgspec.msgpack.decode(msgspec.msgpack.encode(task))), TileLease)
    assert isinstance(task, TileTask)
    assert LEASE["job"] == task.job
