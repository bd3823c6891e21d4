"""A decoder process that misbehaves as the name of a file says: `crash.png` crashes it."""

from __future__ import annotations

import ctypes
import os
import time

import numpy as np

from fogmqtt.images import files, reader
from fogmqtt.workers import decoder_process

_honest = reader.decode
_kept: list[bytearray] = []


def crash() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(7)


def hang() -> None:
    while True:
        time.sleep(0.01)


def native_hang() -> None:
    ctypes.PyDLL(None).sleep(1000)


def eat() -> None:
    while True:
        _kept.append(bytearray(1 << 24))


def eat_at_once() -> None:
    np.ones(1 << 40, np.uint8)


def raises() -> None:
    raise ValueError("boom \ud800")


def keep() -> None:
    _kept.append(bytearray(100 << 20))


def _rotten(data: bytes, header: reader.Header, name: str, index: int) -> files.LoadedImage:
    globals().get(name.split(".")[0], int)()
    return _honest(data, header, name, index)


def main() -> None:
    reader.decode = _rotten
    decoder_process.main()
