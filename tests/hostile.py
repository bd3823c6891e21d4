"""Hostile messages: valid ones with wrong fields, random bytes, and decompression bombs."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import msgspec

from fogmqtt.errors import WireError
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Cancel,
    Decoder,
    DeviceInfo,
    Failure,
    GatewayInfo,
    JobStatus,
    Message,
    Rejected,
    Result,
    TileTask,
    encode,
    with_digest,
)

PIXELS = memoryview(bytes(64 * 64))
LEASE: dict[str, Any] = {"job": "j0123456789abcdef.0", "tile": 0, "attempt": 1}
TASK = with_digest(
    TileTask(
        **LEASE,
        gateway="mariem",
        stage=[Call("invert")],
        shape=(64, 64, 1),
        dtype="uint8",
        core=(0, 0, 64, 64),
        lease_s=30.0,
        pixels=PIXELS,
    )
)
RESULT = with_digest(Result(**LEASE, shape=(64, 64, 1), dtype="uint8", pixels=PIXELS))
INFO = DeviceInfo(boot="b", sequence=1, uptime_s=1.0, workers=1, operators=["invert"])
VALID: tuple[Message, ...] = (
    TASK,
    RESULT,
    Accepted(**LEASE),
    Failure(**LEASE, reason="no"),
    Rejected(**LEASE),
    Cancel(**LEASE, gateway="mariem"),
    INFO,
    GatewayInfo(boot="b", sequence=1, uptime_s=1.0),
    JobStatus(job="j0123456789abcdef", state="running"),
)
PIXEL_MESSAGES: Decoder[TileTask | Result] = Decoder(TileTask, Result)

#: Values that no field expects.
ODD: tuple[Any, ...] = (
    -1,
    0,
    2**31,
    2**63 - 1,
    1e308,
    "",
    "x" * 3000,
    "../../etc/passwd",
    "\x00",
    [],
    [0, 0, 0],
    [10**6, 10**6, 4],
    {},
    None,
    True,
    [[[]]],
)

#: Values that some field expects.
WORDS = (
    *("", "raw", "png", "bitplanes", "facts", "zip"),
    *("uint8", "uint16", "float32", "float64", "bool"),
    *("invert", "canny", "gaussian", "clahe", "stats", "components", "dnn", "ksize", "low"),
    *("t", "tlbr", "mariem", "eya", "ghost", "local", "j0123456789abcdef.0", "j0123456789abcdef"),
    *("tile", "result", "failure", "accepted", "rejected", "cancel", "device", "gateway", "job"),
)


def mutants(rng: random.Random, count: int) -> Iterator[bytes]:
    """Yield valid messages with one to three wrong fields, in both encodings."""
    for _ in range(count):
        is_binary = rng.random() < 0.5
        message = _fields(rng.choice(VALID), is_binary)
        for _ in range(rng.randint(1, 3)):
            _mutate(message, rng)
        data = bytearray(_encode(message, is_binary))
        damage = rng.random()
        if damage < 0.25:
            data = data[: rng.randrange(len(data))]
        elif damage < 0.5:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif damage < 0.75:
            data = bytearray(_with_correct_digest(bytes(data), is_binary))
        yield bytes(data)


def _fields(message: Message, is_binary: bool) -> dict[str, Any]:
    fields = msgspec.to_builtins(message, builtin_types=(bytes, memoryview) if is_binary else ())
    return {key: _plain(value) for key, value in fields.items()}


def _mutate(fields: dict[str, Any], rng: random.Random) -> None:
    """Replace or remove one field, or a field within it."""
    key = rng.choice([*fields, "v", "type", "extra"])
    inner = fields.get(key)
    if isinstance(inner, list) and inner and rng.random() < 0.5:
        at = rng.randrange(len(inner))
        if isinstance(inner[at], dict):
            _mutate(inner[at], rng)
        else:
            inner[at] = _wrong(inner[at], rng)
    elif rng.random() < 0.2:
        fields.pop(key, None)
    else:
        fields[key] = _wrong(fields.get(key), rng)


def _wrong(value: Any, rng: random.Random) -> Any:
    """Return a wrong value, often of the same type, because a decoder accepts that further."""
    if rng.random() < 0.4:
        return deepcopy(rng.choice(ODD))
    match value:
        case bool():
            return not value
        case int():
            return rng.choice((0, 1, 2, 3, 63, 65, 4096, 65_536, value + 1))
        case float():
            return rng.choice((0.0, 1e-9, 0.5, 1e9, -value))
        case str():
            return rng.choice(WORDS)
        case bytes():
            return rng.choice((b"", value[1:], value + b"x", value[: len(value) // 2], value[::-1]))
        case list():
            return rng.choice((value[::-1], value * 2, value[1:], value * 100))
        case dict():
            return value | {rng.choice(WORDS): rng.choice((-1, 99_999, "x", None, [1]))}
    return deepcopy(rng.choice(ODD))


def _encode(fields: dict[str, Any], is_binary: bool) -> bytes:
    return msgspec.msgpack.encode(fields) if is_binary else json.dumps(fields).encode()


def _with_correct_digest(data: bytes, is_binary: bool) -> bytes:
    """Correct the digest of a message if it has one, so that it passes that check."""
    try:
        message = PIXEL_MESSAGES.decode(data)
    except WireError:
        return data
    return encode(with_digest(message), "binary" if is_binary else "base64")


def noise(rng: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        yield rng.randbytes(rng.choice((0, 1, 2, 10, 100, 1000, 20_000)))


def bombs() -> Iterator[bytes]:
    """Yield messages that are small on the wire and would be large or deeply nested in memory."""
    yield b'{"a":' * 100_000
    yield b"[" * 200_000
    yield b"\x91" * 200_000
    yield b"\x81\xa1a" * 100_000
    yield b"\xdd\xff\xff\xff\xff"
    yield b"\xdf\xff\xff\xff\xff"
    yield b"\xc6\xff\xff\xff\xff"
    yield b'{"v": 2, "type": "tile"}'
    yield b'{"v": 99999999999999999999999999, "type": "result"}'
    yield msgspec.msgpack.encode({"v": 7, "type": "result", "future": [1, 2, 3]})
    huge = msgspec.structs.replace(TASK, shape=(1_000_000, 1_000_000, 4), core=(0, 0, 9, 9))
    for codec in ("raw", "png", "bitplanes", "zip", ""):
        yield encode(with_digest(msgspec.structs.replace(huge, codec=codec)))
        yield encode(
            with_digest(
                msgspec.structs.replace(RESULT, codec=codec, shape=(1_000_000, 1_000_000, 4))
            )
        )
    yield encode(msgspec.structs.replace(INFO, workers=1024, operators=["x" * 64] * 5000))
    yield encode(
        with_digest(msgspec.structs.replace(TASK, stage=[Call("resize", {"factor": 100.0})]))
    )
    yield encode(with_digest(msgspec.structs.replace(TASK, stage=[Call("invert")] * 2000)))
    yield encode(with_digest(msgspec.structs.replace(TASK, gateway="../x", job="j.0")))
    yield encode(with_digest(msgspec.structs.replace(TASK, lease_s=float("nan"))))


#: Topics to which gateway and devices subscribe, and similar ones.
TOPICS = (
    "fog/v1/devices/eya/tiles",
    "fog/v1/devices/eya/control",
    "fog/v1/devices/manar/tiles",
    "fog/v1/devices/ghost/info",
    "fog/v1/devices/ghost/status",
    "fog/v1/devices/Not An Id/info",
    "fog/v1/devices/local/info",
    "fog/v1/gateways/mariem/results/eya",
    "fog/v1/gateways/mariem/results/ghost",
    "fog/v1/gateways/mariem/results/local",
    "fog/v1/submit/edges/me",
    "fog/v1/submit/no-such/me",
    "fog/v1/submit/edges/" + "y" * 200,
    "fog/v1/devices/manar/control",
    "fog/v1/devices/local/tiles",
    "fog/v1/devices/eya/no-such-leaf",
    "fog/v1/gateways/mariem/results/Not An Id",
    "fog/v1/gateways/ghost/info",
    "fog/v1/gateways/ghost/status",
    "fog/v1/gateways/ghost/results/eya",
    "fog/v1/jobs/j0123456789abcdef/status",
    "fog/v1/replies/me/image",
    "fog/v1/replies/me/status",
    "fog/v1/submit/edges/Not An Id",
    "fog/v1/submit/edges",
    "fog/v1",
)
#: Topics on which a valid message means that a client is gone or has a duplicate id.
RESERVED = (
    "fog/v1/devices/eya/info",
    "fog/v1/devices/eya/status",
    "fog/v1/devices/manar/info",
    "fog/v1/gateways/mariem/info",
    "fog/v1/gateways/mariem/status",
)
#: The id of a gateway that does not run, for replies that only a test reads.
WITNESS = "witness"


def _plain(value: Any) -> Any:
    """Return a copy that can be changed."""
    if isinstance(value, tuple):
        return list(value)
    return bytes(value) if isinstance(value, memoryview) else value
