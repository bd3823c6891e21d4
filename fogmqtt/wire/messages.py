"""Messages as structs, and structs as bytes: MessagePack (`binary`) or JSON (`base64`).

Both encodings have one schema; the first byte tells them apart, so a receiver takes either.
Pixels are a `memoryview`: in MessagePack they are read in place, in JSON they are base64.
A message is an object whose `type` names it; unknown fields are ignored, so that a newer peer
may add some; a missing or mistyped one is a WireError. docs/protocol.md is this file in prose.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar, Union

import msgspec
import xxhash

from fogmqtt.errors import UnsupportedVersion, WireError

#: The protocol version that we speak: the number in `fog/v1`.
VERSION = 1

Encoding = Literal["binary", "base64"]
#: What MQTT 5's content type says of each encoding.
CONTENT_TYPES: dict[Encoding, str] = {"binary": "application/msgpack", "base64": "application/json"}

#: An id may carry the number of the job's stage: `k3f09c2a.0`.
Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,47}\Z")]
Index = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
#: One side of an image, pixels.
Extent = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
#: Each step doubles a job's share of the time, of the fleet's and of one device's.
Priority = Annotated[int, msgspec.Meta(ge=-4, le=4)]
Channels = Annotated[int, msgspec.Meta(ge=1, le=4)]
Dtype = Literal["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]
Sentence = Annotated[str, msgspec.Meta(max_length=400)]
#: An operator's name, what it sees, and a variant of its work: `gaussian/uint8/k15`.
Ability = Annotated[str, msgspec.Meta(max_length=160)]
Fingerprint = Annotated[str, msgspec.Meta(max_length=64)]
#: Sentences of a device about its operators.
MOST_PROBLEMS = 64


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Base of all messages."""

    v: int = VERSION


class Call(msgspec.Struct, frozen=True):
    """One operator of a stage: its name and its parameters."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    params: dict[str, Any] = {}


class TileTask(Message, frozen=True, kw_only=True, tag="tile"):
    """Gateway → device: do these operators on these pixels and answer for the core."""

    job: Id
    tile: Index
    attempt: Attempt
    #: Whom to answer: results go to gateways/<gateway>/results/<device>.
    gateway: Id
    stage: list[Call]
    #: Of the pixels sent: height, width, channels.
    shape: tuple[Extent, Extent, Channels]
    dtype: Dtype
    #: The core inside the pixels sent: top, left, height, width.
    core: tuple[Offset, Offset, Extent, Extent]
    #: Which sides of the core are cuts and not the image's border: letters of "tlbr".
    seams: Annotated[str, msgspec.Meta(pattern=r"^t?l?b?r?\Z")] = ""
    codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: How to encode the result's pixels.
    result_codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: Seconds that the gateway waits before it gives the tile to somebody else as well.
    lease_s: float
    #: Of the job, for a device that serves several gateways.
    priority: Priority = 0
    digest: str = ""
    pixels: memoryview


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """Device → gateway: I have it and shall do it."""

    job: Id
    tile: Index
    attempt: Attempt


class Result(Message, frozen=True, kw_only=True, tag="result"):
    """Device → gateway: the core's pixels."""

    job: Id
    tile: Index
    attempt: Attempt
    shape: tuple[Extent, Extent, Channels]
    dtype: Dtype
    codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: Seconds that the device spent: waiting for a worker, starting it, and on the operators.
    queue_s: float | None = None
    start_s: float | None = None
    compute_s: float | None = None
    digest: str = ""
    pixels: memoryview


class Failure(Message, frozen=True, kw_only=True, tag="failure"):
    """Device → gateway: it did not work; `traceback` is for the job's story."""

    job: Id
    tile: Index
    attempt: Attempt
    reason: Text
    traceback: Text = ""


class Rejected(Message, frozen=True, kw_only=True, tag="returned"):
    """Device → gateway: take it back, undone: full, draining or stopping."""

    job: Id
    tile: Index
    attempt: Attempt
    reason: Text = ""


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Gateway → device: no longer wanted."""

    job: Id
    tile: Index
    attempt: Attempt
    gateway: Id
    #: Only its lease ran out: drop it where it waits; work on it may go on for `lease_s`.
    expired: bool = False


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """Gateway → device: finish what you have, take nothing more, then leave."""


class Warm(Message, frozen=True, kw_only=True, tag="warm"):
    """Gateway → device: tiles may come; let no tile wait until a worker has loaded OpenCV."""


class DeviceInfo(Message, frozen=True, kw_only=True, tag="device"):
    """Device → everybody, retained, and again every few seconds: who I am and how I fare."""

    #: Random, new at each start of the agent.
    boot: Annotated[str, msgspec.Meta(max_length=64)]
    #: Counts what was said since `boot`.
    sequence: Annotated[int, msgspec.Meta(ge=0)]
    uptime_s: float
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    operators: list[Annotated[str, msgspec.Meta(max_length=64)]]
    #: It takes no larger tile, halo included; 0: any.
    max_tile_pixels: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    codecs: list[str] = []
    host: str = ""
    versions: dict[str, str] = {}
    draining: bool = False
    #: Tiles held and done since `boot`.
    held: int = 0
    done: int = 0
    temperature_c: float | None = None
    load: float | None = None
    #: How it rounds, by ability: hashes that a gateway compares with its own.
    fingerprints: Annotated[dict[Ability, Fingerprint], msgspec.Meta(max_length=4096)] = {}
    #: Nanoseconds per pixel and worker, by operator, as far as they are known beforehand.
    rates: Annotated[dict[Ability, float], msgspec.Meta(max_length=1024)] = {}
    #: The fingerprints are not known yet.
    examining: bool = False
    #: What people should know of its operators, a sentence each.
    problems: Annotated[list[Sentence], msgspec.Meta(max_length=MOST_PROBLEMS)] = []


class GatewayInfo(Message, frozen=True, kw_only=True, tag="gateway"):
    """Gateway → everybody, retained."""

    boot: Annotated[str, msgspec.Meta(max_length=64)]
    sequence: Annotated[int, msgspec.Meta(ge=0)]
    uptime_s: float
    host: str = ""
    versions: dict[str, str] = {}
    pipelines: dict[str, str] = {}
    #: Why it takes no image at this time; empty while it does.
    paused: str = ""


class JobStatus(Message, frozen=True, kw_only=True, tag="job"):
    """Gateway → whoever asked, and retained on the job's own topic."""

    job: str
    state: Literal["accepted", "running", "waiting", "done", "failed"]
    gateway: str = ""
    pipeline: str = ""
    done: int = 0
    total: int = 0
    #: Tiles done by each device.
    devices: dict[str, int] = {}
    seconds: float | None = None
    #: Messages that the broker dropped meanwhile, of anybody's.
    dropped: int = 0
    #: Where the result went, on the gateway's disk.
    file: str | None = None
    error: str | None = None


class DeadJob(Message, frozen=True, kw_only=True, tag="dead"):
    """Gateway → everybody: a job failed, and its image is kept for another try."""

    job: str
    name: str
    pipeline: str
    reason: str
    #: Seconds since 1970.
    failed_at: float
    #: Where image and tracebacks lie, on the gateway's disk.
    folder: str
    #: How many failures of tiles are told there.
    failures: int = 0


FromDevice = Accepted | Result | Failure | Rejected
Control = Cancel | Drain | Warm

_M = TypeVar("_M", bound=Message)
_Signed = TypeVar("_Signed", TileTask, Result)


class _Envelope(msgspec.Struct):
    """What every version of the protocol has."""

    v: int = VERSION


_pack = msgspec.msgpack.Encoder()
_write = msgspec.json.Encoder()
#: One spelling of a stage, whichever encoding it travelled in.
_sorted = msgspec.json.Encoder(order="sorted")


def encode(message: Message, encoding: Encoding = "binary") -> bytes:
    """The bytes of a message."""
    return (_pack if encoding == "binary" else _write).encode(message)


class Decoder(Generic[_M]):
    """Bytes, in either encoding, to a message of the expected types.

    `decode` raises WireError for everything else, and UnsupportedVersion (a WireError) where
    the bytes say that they are of another version.
    """

    def __init__(self, *types: type[_M]) -> None:
        expected: Any = Union.__getitem__(types)
        self._binary: msgspec.msgpack.Decoder[_M] = msgspec.msgpack.Decoder(expected)
        self._base64: msgspec.json.Decoder[_M] = msgspec.json.Decoder(expected)

    def decode(self, payload: bytes) -> _M:
        if not payload:
            raise WireError("an empty message")
        written = payload[:1] == b"{"
        try:
            message = (self._base64 if written else self._binary).decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
            _check_version(payload, written)
            raise WireError(f"not a message of ours: {problem}") from None
        if message.v != VERSION:
            raise _other_version(message.v)
        return message


def _check_version(payload: bytes, written: bool) -> None:
    decode = msgspec.json.decode if written else msgspec.msgpack.decode
    try:
        version = decode(payload, type=_Envelope).v
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return
    if version != VERSION:
        raise _other_version(version)


def _other_version(version: int) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"a message of protocol version {version}; this is version {VERSION}: update the older side"
    )


def digest(message: TileTask | Result, pixels: memoryview | bytes) -> str:
    """XXH3-64, in hex, over the header fields that give the pixels their meaning, and the pixels.

    TCP's checksum misses what a bad cable, bad memory or a middlebox changes.
    """
    shape = (*message.shape, message.dtype, message.codec)
    head = [message.job, message.tile, message.attempt, *shape]
    if isinstance(message, TileTask):
        stage = _sorted.encode(message.stage).decode()
        head += [*message.core, message.seams, message.result_codec, stage]
    state = xxhash.xxh3_64("/".join(map(str, head)).encode())
    state.update(pixels)
    return state.hexdigest()


def signed(message: _Signed) -> _Signed:
    """The message with its digest filled in."""
    return msgspec.structs.replace(message, digest=digest(message, message.pixels))


def check_digest(message: TileTask | Result) -> None:
    """Raise WireError where header or pixels changed on the way."""
    if digest(message, message.pixels) != message.digest:
        raise WireError(
            f"{message.job} tile {message.tile}: the digest does not match; "
            "header or pixels changed on the way"
        )
