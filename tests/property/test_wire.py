"""Every message survives encoding. Any other bytes raise WireError and no other error."""

import contextlib

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.errors import WireError
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Cancel,
    Decoder,
    DeviceInfo,
    Drain,
    Failure,
    GatewayInfo,
    JobStatus,
    Rejected,
    Result,
    TileTask,
    Warm,
    check_digest,
    encode,
    encode_in_pieces,
    with_digest,
)

ids = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,47}", fullmatch=True)
texts = st.text(max_size=30)
figures = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10_000_000)
extents = st.integers(1, 1_000_000)
shapes = st.tuples(extents, extents, st.integers(1, 4))
dtypes = st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"])
pixels = st.binary(max_size=64).map(memoryview)
lease = {"job": ids, "tile": counts, "attempt": st.integers(1, 1_000_000)}
calls = st.builds(Call, texts, st.dictionaries(texts, st.integers(-99, 99) | texts | figures))

tasks = st.builds(
    TileTask,
    **lease,
    gateway=ids,
    stage=st.lists(calls, max_size=3),
    shape=shapes,
    dtype=dtypes,
    core=st.tuples(counts.map(lambda x: x % 9), counts.map(lambda x: x % 9), extents, extents),
    seams=st.sets(st.sampled_from("tlbr")).map(lambda s: "".join(x for x in "tlbr" if x in s)),
    codec=st.sampled_from(["raw", "png"]),
    lease_s=figures,
    priority=st.integers(-4, 4),
    pixels=pixels,
)
results = st.builds(
    Result,
    **lease,
    shape=shapes,
    dtype=dtypes,
    queue_s=st.none() | figures,
    compute_s=st.none() | figures,
    pixels=pixels,
)
announcement = {"boot": texts, "sequence": counts, "uptime_s": figures, "host": texts}
device_infos = st.builds(
    DeviceInfo,
    **announcement,
    workers=st.integers(1, 1024),
    operators=st.lists(texts),
    versions=st.dictionaries(texts, texts),
    temperature_c=st.none() | figures,
)
messages = st.one_of(
    tasks,
    results,
    device_infos,
    st.builds(Accepted, **lease),
    st.builds(Failure, **lease, reason=texts, traceback=texts),
    st.builds(Rejected, **lease, reason=texts),
    st.builds(Cancel, **lease, gateway=ids),
    st.just(Drain()),
    st.just(Warm()),
    st.builds(GatewayInfo, **announcement, pipelines=st.dictionaries(texts, texts)),
    st.builds(
        JobStatus, job=texts, state=st.just("running"), devices=st.dictionaries(texts, counts)
    ),
)
encodings = st.sampled_from(["binary", "base64"])
ANYTHING = Decoder(TileTask, Result, Accepted, Failure, Rejected, Cancel, Drain, Warm, DeviceInfo)


@settings(deadline=None)
@given(messages, encodings)
def test_every_message_survives_both_encodings(message, encoding):
    assert Decoder(type(message)).decode(encode(message, encoding)) == message


@settings(deadline=None)
@given(tasks | results)
def test_a_message_in_pieces_is_the_same_message_and_valid_messagepack(message):
    pieces = b"".join(encode_in_pieces(message))
    assert Decoder(type(message)).decode(pieces) == message
    assert msgspec.msgpack.decode(pieces) == msgspec.msgpack.decode(encode(message))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_wire_error(payload):
    with contextlib.suppress(WireError):
        ANYTHING.decode(payload)


@settings(deadline=None)
@given(messages, encodings, st.data())
def test_a_truncated_message_is_a_wire_error(message, encoding, data):
    payload = encode(message, encoding)
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    try:
        Decoder(type(message)).decode(cut)
    except WireError:
        return
    raise AssertionError(f"{cut!r} was decoded")


@settings(deadline=None)
@given(messages, st.data())
def test_a_message_with_one_changed_byte_decodes_or_raises_a_wire_error(message, data):
    payload = bytearray(encode(message, "binary"))
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        ANYTHING.decode(bytes(payload))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | figures | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(tasks, st.data(), json_values)
def test_a_message_with_one_replaced_field_decodes_or_raises_a_wire_error(task, data, value):
    fields = msgspec.json.decode(encode(task, "base64"))
    fields[data.draw(st.sampled_from(sorted(fields)))] = value
    with contextlib.suppress(WireError):
        ANYTHING.decode(msgspec.json.encode(fields))


@settings(deadline=None)
@given(tasks | results, st.data())
def test_the_digest_detects_a_changed_pixel_byte(message, data):
    message = with_digest(message)
    check_digest(message)
    changed = bytearray(message.pixels)
    if not changed:
        return
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    other = msgspec.structs.replace(message, pixels=memoryview(bytes(changed)))
    try:
        check_digest(other)
    except WireError:
        return
    raise AssertionError("the digest matches a changed pixel")
