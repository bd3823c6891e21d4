"""A small network, written byte by byte as an ONNX file: no package is needed to make it.

It answers like YOLOv8 with two classes, and is sure of bright and of dark squares of SIDE pixels.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from fogmqtt.images.spec import Image

#: Sides of the squares that it detects and of its input, and the distance between boxes; pixels.
SIDE, WINDOW, STEP = 8, 64, 2
#: The side of the input of the network by which devices are compared, pixels.
PROBE = 96


def squares(path: Path, window: int = WINDOW, *, weights: str = "") -> str:
    """Write the network to `path` and return its SHA-256.

    `weights` names the file that has the weights; empty: the network has them itself. Otherwise,
    the hash is that of both files, one after the other.
    """
    model, data = _squares(window, weights)
    path.write_bytes(model)
    if weights:
        (path.parent / weights).write_bytes(data)
    return hashlib.sha256(model + data).hexdigest()


def squares_apart(weights: str) -> bytes:
    """Return the network without its weights, which it says are in a file."""
    return _squares(WINDOW, weights)[0]


def _squares(window: int, file: str) -> tuple[bytes, bytes]:
    """Return a network of one convolution: a square's mean minus its border's, and the negative.

    The second bytes are the weights, if they are in a file.
    """
    reach = SIDE + 2
    weights = np.full((reach, reach), -1 / (reach**2 - SIDE**2), np.float32)
    weights[1:-1, 1:-1] = 1 / SIDE**2
    weights = np.tile(weights / 3, (1, 3, 1, 1))
    count = (window - reach) // STEP + 1
    middles = np.arange(count, dtype=np.float32) * STEP + reach // 2
    y, x = np.meshgrid(middles, middles, indexing="ij")
    side = np.full(x.size, SIDE, np.float32)
    boxes = np.stack([x.ravel(), y.ravel(), side, side])[np.newaxis]
    constants = {
        "weights": np.vstack([weights, -weights]),
        "shape": np.array([1, 2, x.size], np.int64),
        "places": boxes,
    }
    nodes = [
        _node("Conv", "images weights", "fit", kernel_shape=[reach, reach], strides=[STEP, STEP]),
        _node("Relu", "fit", "sure"),
        _node("Reshape", "sure shape", "scores"),
        _node("Concat", "places scores", "output0", axis=1),
    ]
    tensors, data = [], b""
    for name, values in constants.items():
        apart = file if values.dtype == np.float32 else ""  # exporters leave small ones in place
        tensors.append(_tensor(name, values, apart, len(data)))
        data += values.tobytes() if apart else b""
    graph = b"".join(
        (
            *(_field(1, node) for node in nodes),
            _field(2, b"squares"),
            *(_field(5, tensor) for tensor in tensors),
            _field(11, _value("images", (1, 3, window, window))),
            _field(12, _value("output0", (1, 6, x.size))),
        )
    )
    version, opset = _number(1, 8), _field(8, _number(2, 13))
    return version + _field(7, graph) + opset, data


def probe() -> bytes:
    """Return the network by which devices are compared: kinds of layers that detectors are made of.

    Its weights are from a formula, and its input is 1 x 3 x PROBE x PROBE.
    """
    constants = {
        "first": _weights(16, 3, 3, 3),
        "second": _weights(16, 16, 3, 3),
        "apart": _weights(16, 1, 5, 5),
        "mixing": _weights(24, 16, 1, 1),
        "last": _weights(12, 24, 3, 3),
    }
    nodes = [
        _node("Conv", "images first", "a", kernel_shape=[3, 3], pads=[1] * 4),
        _node("Sigmoid", "a", "b"),
        _node("Mul", "a b", "c"),
        _node("Conv", "c second", "d", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4),
        _node("Relu", "d", "e"),
        _node("Conv", "e apart", "f", kernel_shape=[5, 5], pads=[2] * 4, group=16),
        _node("Conv", "f mixing", "g", kernel_shape=[1, 1]),
        _node("Tanh", "g", "h"),
        _node("MaxPool", "h", "i", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Conv", "i last", "j", kernel_shape=[3, 3], pads=[1] * 4),
        _node("Softmax", "j", "output0", axis=1),
    ]
    graph = b"".join(
        (
            *(_field(1, node) for node in nodes),
            _field(2, b"probe"),
            *(_field(5, _tensor(name, values)) for name, values in constants.items()),
            _field(11, _value("images", (1, 3, PROBE, PROBE))),
            _field(12, _value("output0", (1, 12, PROBE // 4, PROBE // 4))),
        )
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _number(2, 13))


def _weights(*shape: int) -> Image:
    """Return float32 of a size that suits their number, without a pattern."""
    index = np.arange(np.prod(shape), dtype=np.int64)
    values = ((index * 0x45D9F3B) ^ (index * 0x119DE1F3 >> 7)) >> 5 & 0xFFF
    scale = 2.0 ** -np.round(np.log2(np.prod(shape[1:])) / 2)
    return ((values - 2000) / 512 * scale).astype(np.float32).reshape(shape)


# Protocol Buffers: numbers and byte strings, each with the number of its field; the fields' names
# stand in onnx.proto.


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: Image, file: str = "", offset: int = 0) -> bytes:
    sides = b"".join(_number(1, side) for side in values.shape)
    kind = _number(2, 1 if values.dtype == np.float32 else 7)
    content = _field(9, values.tobytes())
    if file:
        entries = {"location": file, "offset": str(offset), "length": str(values.nbytes)}
        pairs = (_field(1, key.encode()) + _field(2, one.encode()) for key, one in entries.items())
        content = b"".join(_field(13, pair) for pair in pairs) + _number(14, 1)
    return sides + kind + _field(8, name.encode()) + content


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> bytes:
    names = b"".join(_field(1, name.encode()) for name in inputs.split())
    given = b"".join(_field(5, _attribute(*one)) for one in attributes.items())
    return names + _field(2, output.encode()) + _field(4, kind.encode()) + given


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _field(1, name.encode()) + _number(3, value) + _number(20, 2)
    return _field(1, name.encode()) + b"".join(_number(8, one) for one in value) + _number(20, 7)


def _value(name: str, shape: tuple[int, ...]) -> bytes:
    sides = b"".join(_field(1, _number(1, side)) for side in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, sides)))
