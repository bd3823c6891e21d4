"""Which other files an ONNX model needs: exporters may put the weights beside the model.

An ONNX file is a protocol buffer. Only the fields on the way to the tensors are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Numbers of fields in onnx.proto, by their message.
_MODEL_GRAPH: Final = 7
_MODEL_FUNCTIONS: Final = 25
_GRAPH_NODE: Final = 1
_GRAPH_INITIALIZER: Final = 5
_GRAPH_SPARSE: Final = 15
_FUNCTION_NODE: Final = 7
_NODE_ATTRIBUTE: Final = 5
_ATTRIBUTE_TENSORS: Final = (5, 10)
_ATTRIBUTE_GRAPHS: Final = (6, 11)
_ATTRIBUTE_SPARSE: Final = (22, 23)
_SPARSE_TENSORS: Final = (1, 2)
_TENSOR_EXTERNAL: Final = 13
_ENTRY_KEY: Final = 1
_ENTRY_VALUE: Final = 2

#: Kinds of values on the wire.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(model: bytes) -> list[str]:
    """Return the names of the files that hold weights of a model, in order.

    A file that is no ONNX model, or is cut, gives those found so far.
    """
    found: dict[str, None] = {}
    try:
        for number, graph in _messages(memoryview(model)):
            if number == _MODEL_GRAPH:
                found.update(dict.fromkeys(_in_graph(graph)))
            elif number == _MODEL_FUNCTIONS:
                found.update(dict.fromkeys(_in_nodes(graph, _FUNCTION_NODE)))
    except (ValueError, RecursionError):
        return list(found)
    return list(found)


def _in_graph(graph: memoryview) -> Iterator[str]:
    yield from _in_nodes(graph, _GRAPH_NODE)
    for number, value in _messages(graph):
        if number == _GRAPH_INITIALIZER:
            yield from _in_tensor(value)
        elif number == _GRAPH_SPARSE:
            yield from _in_sparse(value)


def _in_nodes(parent: memoryview, field: int) -> Iterator[str]:
    for number, node in _messages(parent):
        if number != field:
            continue
        for inner, attribute in _messages(node):
            if inner == _NODE_ATTRIBUTE:
                yield from _in_attribute(attribute)


def _in_attribute(attribute: memoryview) -> Iterator[str]:
    for number, value in _messages(attribute):
        if number in _ATTRIBUTE_TENSORS:
            yield from _in_tensor(value)
        elif number in _ATTRIBUTE_GRAPHS:
            yield from _in_graph(value)
        elif number in _ATTRIBUTE_SPARSE:
            yield from _in_sparse(value)


def _in_sparse(sparse: memoryview) -> Iterator[str]:
    for number, value in _messages(sparse):
        if number in _SPARSE_TENSORS:
            yield from _in_tensor(value)


def _in_tensor(tensor: memoryview) -> Iterator[str]:
    for number, entry in _messages(tensor):
        if number == _TENSOR_EXTERNAL:
            fields = dict(_messages(entry))
            if bytes(fields.get(_ENTRY_KEY, b"")) == b"location":
                yield bytes(fields.get(_ENTRY_VALUE, b"")).decode("utf-8", "backslashreplace")


def _messages(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the fields of a message that hold bytes. Raises ValueError for a damaged one."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("the message is cut")
            yield key >> 3, data[at : at + length]
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"kind {kind} of a field")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the message is cut")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number has too many bytes")
