"""Message structs and their two encodings: MessagePack (`binary`) and JSON (`base64`).

Both encodings share one schema. A JSON message starts with `{`, so a receiver recognises the
encoding from the first byte and accepts both. Pixels are a `memoryview`: a view of the payload in
MessagePack, decoded from base64 in JSON. The field `type` names the message. Unknown fields are
ignored, so that a newer peer may add fields. A missing or mistyped field raises WireError.
docs/protocol.md describes the same schema in prose.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, get_args

import msgspec
import xxhash

from fogmqtt.errors import UnsupportedVersion, WireError

#: The protocol version that this program implements: the number in `fog/v1`.
VERSION = 1

Encoding = Literal["binary", "base64"]
#: The MQTT 5 content type of each encoding.
CONTENT_TYPES: dict[Encoding, str] = {"binary": "application/msgpack", "base64": "application/json"}

#: The id of a job, a gateway or a device. A job id may end with the stage number: `k3f09c2a.0`.
Id = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,47}\Z")]
Index = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Attempt = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
#: The height or width of an image, in pixels.
Extent = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Offset = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
#: Each step doubles a job's share of fleet time and of each device's time.
Priority = Annotated[int, msgspec.Meta(ge=-4, le=4)]
Channels = Annotated[int, msgspec.Meta(ge=1, le=4)]
Dtype = Literal["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
LongText = Annotated[str, msgspec.Meta(max_length=20_000)]
Traceparent = Annotated[str, msgspec.Meta(max_length=64)]
Tracestate = Annotated[str, msgspec.Meta(max_length=512)]
Sentence = Annotated[str, msgspec.Meta(max_length=400)]
#: A version of fogmqtt.
Release = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,5}(\.[0-9]{1,5}){1,3}\Z")]
#: An operator's name, its input dtype, and a variant if there is one: `hsv/uint8/back`.
Ability = Annotated[str, msgspec.Meta(max_length=160)]
Fingerprint = Annotated[str, msgspec.Meta(max_length=64)]
#: The maximum number of sentences in `DeviceInfo.problems`.
MAX_PROBLEMS = 64


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """The base of all messages. `v` is the protocol version."""

    v: int = VERSION


#: Levels of lists and maps in the parameters of an operator. The largest that we send has three.
MAX_DEPTH = 16


class Call(msgspec.Struct, frozen=True):
    """One operator of a stage: its name and its parameters."""

    name: Annotated[str, msgspec.Meta(max_length=64)]
    params: dict[str, Any] = {}


class TileMemory(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which memory of a stream's tile a task applies to; docs/streams.md describes it.

    The device must have the memory of this epoch at the version `after`. With `apply` it does the
    frame, and then has the next version. `begin` takes the memory for empty at `after`, and `load`
    for the copy in `pixels`. `save` asks for a copy.
    """

    stream: Id
    deed: Literal["apply", "begin", "load", "save"]
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    #: The number of frames of the epoch before this one.
    after: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    #: The result needs no pixels.
    silent: bool = False


#: The codec of a task or result without pixels, and that of a copy of a memory.
NO_PIXELS = "none"
MEMORY_CODEC = "memory"


class TileTask(Message, frozen=True, kw_only=True, tag="tile"):
    """Gateway → device: run these operators on these pixels and return the core."""

    job: Id
    tile: Index
    attempt: Attempt
    #: The gateway that sent the tile: results go to gateways/<gateway>/results/<device>.
    gateway: Id
    stage: list[Call]
    #: Height, width and channels of the pixels in this message.
    shape: tuple[Extent, Extent, Channels]
    dtype: Dtype
    #: Top, left, height and width of the core within these pixels.
    core: tuple[Offset, Offset, Extent, Extent]
    #: The sides of the core that are cuts, as letters of "tlbr". Other sides are the image border.
    seams: Annotated[str, msgspec.Meta(pattern=r"^t?l?b?r?\Z")] = ""
    codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: The codec of the result's pixels.
    result_codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: Seconds until the gateway also sends the tile to another device.
    lease_s: float
    #: Seconds after its arrival from which on nobody wants the result; 0 for no such limit. It is
    #: relative, because a device has another clock. What is over it is answered by `overdue`.
    budget_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    #: The job's priority. A device that serves several gateways shares its time by it.
    priority: Priority = 0
    #: The trace that the job belongs to, as W3C Trace Context writes it. The result repeats it.
    traceparent: Traceparent = ""
    #: What vendors add to the trace. The result repeats it.
    tracestate: Tracestate = ""
    #: Of a tile whose operators remember earlier frames.
    memory: TileMemory | None = None
    digest: str = ""
    pixels: memoryview


class Accepted(Message, frozen=True, kw_only=True, tag="accepted"):
    """Device → gateway: the device has queued the tile."""

    job: Id
    tile: Index
    attempt: Attempt


class Result(Message, frozen=True, kw_only=True, tag="result"):
    """Device → gateway: the pixels of the core."""

    job: Id
    tile: Index
    attempt: Attempt
    shape: tuple[Extent, Extent, Channels]
    dtype: Dtype
    codec: Annotated[str, msgspec.Meta(max_length=16)] = "raw"
    #: Seconds that the tile waited for a worker, that the worker needed to start, and for its work.
    queue_s: float | None = None
    start_s: float | None = None
    compute_s: float | None = None
    #: The parts of `compute_s` that decoded the tile's pixels and encoded the result.
    decode_s: float | None = None
    encode_s: float | None = None
    #: The number of the worker, from 0. A worker does one tile after the other.
    worker: Annotated[int, msgspec.Meta(ge=0, le=1023)] | None = None
    #: Those of the tile.
    traceparent: Traceparent = ""
    tracestate: Tracestate = ""
    digest: str = ""
    pixels: memoryview


class Failure(Message, frozen=True, kw_only=True, tag="failure"):
    """Device → gateway: the tile failed. `traceback` goes into the job's event log."""

    job: Id
    tile: Index
    attempt: Attempt
    reason: LongText
    traceback: LongText = ""
    #: The result did not fit into a packet of so many bytes; 0 for any other failure.
    packet_limit: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    #: The device has this version of the tile's memory, and not the one of the task; -1 if it has
    #: none of the epoch. None for any other failure.
    have: Annotated[int, msgspec.Meta(ge=-1, le=2**53)] | None = None


class Rejected(Message, frozen=True, kw_only=True, tag="rejected"):
    """Device → gateway: the device did not process the tile. It is full, draining or stopping."""

    job: Id
    tile: Index
    attempt: Attempt
    reason: LongText = ""


class Overdue(Message, frozen=True, kw_only=True, tag="overdue"):
    """Device → gateway: the tile was over its `budget_s`, so there is no result."""

    job: Id
    tile: Index
    attempt: Attempt
    #: Seconds since the tile arrived.
    after_s: float = 0.0


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Gateway → device: the gateway no longer wants the tile."""

    job: Id
    tile: Index
    attempt: Attempt
    gateway: Id
    #: Only the lease expired. A queued tile is dropped, a running one may go on for its `lease_s`.
    expired: bool = False


class Drain(Message, frozen=True, kw_only=True, tag="drain"):
    """Gateway → device: finish the running tiles, accept no more, then exit."""


class Warm(Message, frozen=True, kw_only=True, tag="warm"):
    """Gateway → device: start the workers now, so that no tile waits until OpenCV is loaded."""


class UpdateBoard(Message, frozen=True, kw_only=True, tag="update"):
    """Gateway → a board that has joined it: fetch this version from the gateway, and run it.

    It names no place: a board fetches from the gateway that it has joined, and from nobody else.
    """

    version: Release


class UpdateReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a board does about an update, or why it did not work."""

    version: Release
    state: Literal["fetching", "installing", "starting", "failed", "taken back"]
    reason: Sentence = ""


class FramesWanted(Message, frozen=True, kw_only=True, tag="wanted"):
    """Gateway → a camera that pushes, repeated every few seconds: send frames for a while."""

    #: Seconds from the arrival of this message.
    for_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    #: Frames a second at most; 0 for all.
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class DeviceInfo(Message, frozen=True, kw_only=True, tag="device"):
    """Device → everybody, retained, repeated every few seconds: identity and state of a device."""

    #: A random id, new at each start of the agent.
    boot: Annotated[str, msgspec.Meta(max_length=64)]
    #: The number of this info, counted from the start of the agent.
    sequence: Annotated[int, msgspec.Meta(ge=0)]
    uptime_s: float
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    operators: list[Annotated[str, msgspec.Meta(max_length=64)]]
    #: The largest tile that the device accepts, in pixels with the halo; 0 means any size.
    max_tile_pixels: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    codecs: list[str] = []
    #: What the operators take, where fingerprints do not tell it; empty means any.
    dtypes: list[Dtype] = []
    host: str = ""
    #: Programs with the same value share cores; empty if the device does not know.
    machine: Annotated[str, msgspec.Meta(max_length=64)] = ""
    versions: dict[str, str] = {}
    draining: bool = False
    #: Tiles that are queued or running.
    tiles_held: int = 0
    #: Tiles whose work ended since the start of the agent.
    tiles_done: int = 0
    #: Degrees Celsius, of the hottest thermal zone.
    temperature_c: float | None = None
    #: The load average of the last minute.
    load: float | None = None
    #: Hashes of test results by ability. A gateway compares them with its own.
    fingerprints: Annotated[dict[Ability, Fingerprint], msgspec.Meta(max_length=4096)] = {}
    #: Nanoseconds per pixel and worker, by operator, where they were measured.
    rates: Annotated[dict[Ability, float], msgspec.Meta(max_length=1024)] = {}
    #: The conformance tests of the operators still run, so the fingerprints are not known yet.
    conformance_running: bool = False
    #: Problems of the device's operators, one sentence each.
    problems: Annotated[list[Sentence], msgspec.Meta(max_length=MAX_PROBLEMS)] = []
    #: The time of this machine's clock, in seconds since 1970; a doctor compares it.
    clock: float | None = None
    #: The device does `update`.
    updates: bool = False
    #: The last update that did not end in a new version, or the one that goes on.
    update: UpdateReport | None = None


class GatewayInfo(Message, frozen=True, kw_only=True, tag="gateway"):
    """Gateway → everybody, retained: identity and state of a gateway."""

    boot: Annotated[str, msgspec.Meta(max_length=64)]
    sequence: Annotated[int, msgspec.Meta(ge=0)]
    uptime_s: float
    host: str = ""
    versions: dict[str, str] = {}
    pipelines: dict[str, str] = {}
    #: As of a device.
    clock: float | None = None
    #: Why the gateway accepts no image at this time; empty while it accepts images.
    paused: str = ""


class JobStatus(Message, frozen=True, kw_only=True, tag="job"):
    """Gateway → submitter, and retained on the job's own topic: state of a job."""

    job: str
    #: `unknown` answers a cancellation of a job that this gateway does not have.
    state: Literal["accepted", "running", "waiting", "done", "failed", "unknown"]
    gateway: str = ""
    pipeline: str = ""
    done: int = 0
    total: int = 0
    #: The number of tiles that each device did.
    devices: dict[str, int] = {}
    seconds: float | None = None
    #: Messages of any client that the broker dropped during the job.
    dropped: int = 0
    #: The path of the result file on the gateway's disk.
    file: str | None = None
    error: str | None = None
    #: The places that a result did not reach, or not yet, with the reasons: `latest=NAME` and names
    #: of callbacks.
    undelivered: dict[str, str] = {}
    #: The last level of the topic on which the image was submitted, if it had one more.
    tag: str = ""
    #: The trace that the submission belongs to, as W3C Trace Context writes it.
    traceparent: str = ""
    #: What vendors add to the trace.
    tracestate: str = ""


class CancelSubmission(Message, frozen=True, kw_only=True, tag="cancel_submission"):
    """Submitter → gateways: end a job, or all jobs with a tag, of this submitter's reply name."""

    job: str = ""
    tag: str = ""


class DeadJob(Message, frozen=True, kw_only=True, tag="dead"):
    """Gateway → everybody: a job failed, and the gateway keeps its image for a retry."""

    job: str
    name: str
    pipeline: str
    reason: str
    #: Unix time in seconds.
    failed_at: float
    #: The folder on the gateway's disk that holds the image and the tracebacks.
    folder: str
    #: The number of tile failures that the folder describes.
    failures: int = 0


FromDevice = Accepted | Result | Failure | Rejected | Overdue
Control = Cancel | Drain | UpdateBoard | Warm

_M = TypeVar("_M", bound=Message)
_PixelMessage = TypeVar("_PixelMessage", TileTask, Result)


class _Version(msgspec.Struct):
    """The field that every version of the protocol has."""

    v: int = VERSION


_msgpack = msgspec.msgpack.Encoder()
_json = msgspec.json.Encoder()
#: The digest needs the same text of a stage in both encodings, so its keys are sorted.
_sorted_json = msgspec.json.Encoder(order="sorted")
_NO_PIXELS: Final = memoryview(b"")
#: In MessagePack: byte strings without bytes, and with a length of 32 bits.
_EMPTY_BIN: Final = b"\xc4\x00"
_BIN_32: Final = b"\xc6"


def encode(message: Message, encoding: Encoding = "binary") -> bytes:
    """Return the bytes of a message. Text that is no valid UTF-8 is escaped."""
    encoder = _msgpack if encoding == "binary" else _json
    try:
        return encoder.encode(message)
    except UnicodeEncodeError:  # a name from a file system, or the text of an operator's error
        return encoder.encode(_escaped(message))


def _escaped(value: Any) -> Any:
    """Return a copy of a message, or of a value in it, without unpaired surrogates."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(one) for key, one in value.items()}
        case list() | tuple():
            return type(value)(_escaped(one) for one in value)
        case msgspec.Struct():
            fields = {name: _escaped(getattr(value, name)) for name in value.__struct_fields__}
            return msgspec.structs.replace(value, **fields)
        case _:
            return value


def encode_in_pieces(
    message: TileTask | Result, encoding: Encoding = "binary"
) -> bytes | tuple[bytes, memoryview]:
    """Return the bytes of a message; in MessagePack, as the header and the pixels where they lie.

    `pixels` is the last field of both messages, so nothing follows it. The caller must not change
    the pixels while the pieces are used.
    """
    if encoding != "binary":
        return encode(message, encoding)
    header = encode(msgspec.structs.replace(message, pixels=_NO_PIXELS))
    pixels = message.pixels.cast("B")
    return header.removesuffix(_EMPTY_BIN) + _BIN_32 + len(pixels).to_bytes(4), pixels


class Head(msgspec.Struct):
    """What even a message that is not understood may have."""

    id: str = ""
    type: str = ""


def head_of(payload: bytes | memoryview) -> Head:
    """Return id and type of a message that may be no valid one; "" for what it has not."""
    decode = msgspec.json.decode if payload[:1] == b"{" else msgspec.msgpack.decode
    try:
        head = decode(payload, type=Head)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return Head()
    return head if len(head.id) <= 64 else Head()


class Decoder(Generic[_M]):
    """Decodes bytes of either encoding to a message of one of the given types.

    `decode` raises WireError for anything else, and UnsupportedVersion (a WireError) if the
    message names another protocol version.
    """

    def __init__(self, *types: type[_M]) -> None:
        expected: Any = reduce(or_, types)
        self._binary: msgspec.msgpack.Decoder[_M] = msgspec.msgpack.Decoder(expected)
        self._base64: msgspec.json.Decoder[_M] = msgspec.json.Decoder(expected)

    def decode(self, payload: bytes | memoryview) -> _M:
        if not payload:
            raise WireError("the message is empty")
        is_json = payload[:1] == b"{"
        try:
            message = (self._base64 if is_json else self._binary).decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError) as problem:
            _check_version(payload, is_json)
            raise WireError(f"not a valid message: {problem}") from None
        if message.v != VERSION:
            raise _unsupported(message.v)
        return message


def _check_version(payload: bytes | memoryview, is_json: bool) -> None:
    decode = msgspec.json.decode if is_json else msgspec.msgpack.decode
    try:
        version = decode(payload, type=_Version).v
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return
    if version != VERSION:
        raise _unsupported(version)


def _unsupported(version: int) -> UnsupportedVersion:
    return UnsupportedVersion(
        f"the message has protocol version {version}, this program has version {VERSION}; "
        "update the older program"
    )


def digest(message: TileTask | Result, pixels: memoryview | bytes) -> str:
    """Return the XXH3-64, as 16 hex digits, of the pixels and of the header that describes them.

    The checksum of TCP does not detect changes by bad cables, bad memory or middleboxes.
    """
    shape = (*message.shape, message.dtype, message.codec)
    head = [message.job, message.tile, message.attempt, *shape]
    if isinstance(message, TileTask):
        stage = _sorted_json.encode(message.stage).decode()
        head += [*message.core, message.seams, message.result_codec, stage]
        if message.memory is not None:
            head.append(_sorted_json.encode(message.memory).decode())
    state = xxhash.xxh3_64("/".join(map(str, head)).encode())
    state.update(pixels)
    return state.hexdigest()


def with_digest(message: _PixelMessage) -> _PixelMessage:
    """Return the message with its digest set."""
    return msgspec.structs.replace(message, digest=digest(message, message.pixels))


def _require_plain(value: object, depth: int = MAX_DEPTH) -> None:
    """Raise WireError unless a value is made of scalars, bytes, lists, and maps with text as keys.

    MessagePack has more: other keys, extensions, and any depth. No operator takes these, and what
    handles parameters later would fail on them.
    """
    if isinstance(value, list | dict):
        if not depth:
            raise WireError(f"the parameters are nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise WireError("the parameters have a map whose keys are not all text")
        for inner in value.values() if isinstance(value, dict) else value:
            _require_plain(inner, depth - 1)
    elif not isinstance(value, str | bytes | int | float | None):
        raise WireError(f"the parameters have a value of type {type(value).__name__}")


def check_digest(message: TileTask | Result) -> None:
    """Raise WireError if header or pixels do not match the digest, or no digest can be made."""
    for call in message.stage if isinstance(message, TileTask) else ():
        _require_plain(call.params)
    if digest(message, message.pixels) != message.digest:
        raise WireError(
            f"{message.job} tile {message.tile}: the digest does not match; "
            "header or pixels changed in transit"
        )
