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


def squares(path: Path, window: int = WINDOW, *, weights: str = "") -> str:
    """Write the network to `path` and return its SHA-256.

    `weights` names the file that has the weights; empty: the network has them itself.
    """
    data = _squares(window, weights)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _squares(window: int, file: str) -> bytes:
    """Return a network of one convolution: a square's mean minus its border's, and the negative."""
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
    graph = b"".join(
        (
            *(_field(1, node) for node in nodes),
            _field(2, b"squares"),
            *(_field(5, _tensor(name, values, file)) for name, values in constants.items()),
            _field(11, _value("images", (1, 3, window, window))),
            _field(12, _value("output0", (1, 6, x.size))),
        )
    )
    version, opset = _number(1, 8), _field(8, _number(2, 13))
    return version + _field(7, graph) + opset


# Protocol Buffers: numbers and byte strings, each with the number of its field; the fields' names
# stand in onnx.proto.


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: Image, file: str) -> bytes:
    sides = b"".join(_number(1, side) for side in values.shape)
    kind = _number(2, 1 if values.dtype == np.float32 else 7)
    place = _field(1, b"location") + _field(2, file.encode())
    content = _field(13, place) + _number(14, 1) if file else _field(9, values.tobytes())
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
