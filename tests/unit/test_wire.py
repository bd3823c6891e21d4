"""Messages and topics by example: which are accepted and which are refused."""

import json

import msgspec
import pytest

from fogmqtt.errors import ConfigError, UnsupportedVersion, WireError
from fogmqtt.wire.messages import (
    Call,
    Cancel,
    Decoder,
    Drain,
    JobStatus,
    Result,
    TileTask,
    check_digest,
    encode,
    encode_in_pieces,
    with_digest,
)
from fogmqtt.wire.topics import Topics, check_id, is_id

TASK = TileTask(
    job="k3f09c2a.0",
    tile=7,
    attempt=1,
    gateway="mariem",
    stage=[Call("canny", {"low": 50, "high": 150})],
    shape=(2, 3, 1),
    dtype="uint8",
    core=(0, 1, 2, 2),
    seams="l",
    lease_s=35.0,
    pixels=memoryview(b"abcdef"),
)
RESULT = Result(
    job="k3f09c2a.0", tile=7, attempt=1, shape=(2, 2, 1), dtype="uint8", pixels=memoryview(b"abcd")
)
ENCODINGS = ["binary", "base64"]


# Messages


def test_json_is_text_with_base64_pixels():
    fields = json.loads(encode(TASK, "base64"))
    assert fields["type"] == "tile"
    assert fields["pixels"] == "YWJjZGVm"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_one_decoder_reads_both_encodings_and_several_messages(encoding):
    decoder = Decoder(Cancel, Drain)
    cancel = Cancel(job="k1", tile=0, attempt=1, gateway="mariem")
    assert decoder.decode(encode(cancel, encoding)) == cancel
    assert decoder.decode(encode(Drain(), encoding)) == Drain()


def test_binary_pixels_are_a_view_of_the_payload():
    payload = encode(TASK)
    assert Decoder(TileTask).decode(payload).pixels.obj is payload


@pytest.mark.parametrize("message", [TASK, RESULT])
def test_the_pixels_are_a_piece_of_their_own_that_is_not_copied(message):
    header, pixels = encode_in_pieces(message)
    assert pixels.obj is message.pixels.obj
    assert Decoder(type(message)).decode(header + pixels) == message


def test_json_is_in_one_piece():
    assert encode_in_pieces(TASK, "base64") == encode(TASK, "base64")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_message_of_another_type_is_refused(encoding):
    with pytest.raises(WireError, match="not a valid message"):
        Decoder(TileTask).decode(encode(RESULT, encoding))


def test_unknown_fields_are_ignored():
    payload = b'{"type": "drain", "colour": "blue"}'
    assert Decoder(Drain).decode(payload) == Drain()


@pytest.mark.parametrize("added", [{}, {"job": 7}, {"v": 2, "job": 7}])
def test_a_message_of_another_version_names_both_versions_even_if_its_fields_differ(added):
    payload = msgspec.json.encode({"type": "tile", "v": 2} | added)
    with pytest.raises(UnsupportedVersion, match=r"version 2, .* has version 1; update"):
        Decoder(TileTask).decode(payload)


def test_a_message_of_another_version_with_the_same_fields_is_refused():
    payload = msgspec.msgpack.encode({"type": "drain", "v": 3})
    with pytest.raises(UnsupportedVersion, match="version 3"):
        Decoder(Drain).decode(payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "the message is empty"),
        (b"{}", "not a valid message"),
        (b"{" * 100_000, "not a valid message"),
        (b'{"type":"drain","x":' + b"[" * 100_000, "not a valid message"),
        (b'{"x":' * 100_000, "not a valid message"),
        (b"\x91" * 100_000, "not a valid message"),
        (b"\x81\xa1x" * 100_000, "not a valid message"),
        (b"\x82\xa4type\xa5drain\xa1x" + b"\x91" * 100_000, "not a valid message"),
        (b"\xdf\xff\xff\xff\xff", "not a valid message"),
        (b"\xc6\xff\xff\xff\xff", "not a valid message"),
        (b'{"type":"drain","v":"1"}', "not a valid message"),
        (b'{"type":"drain"}{', "not a valid message"),
        (b"\xff\xfe", "not a valid message"),
    ],
)
def test_garbage_and_nesting_bombs_are_wire_errors(payload, reason):
    with pytest.raises(WireError, match=reason):
        Decoder(Cancel, Drain).decode(payload)


@pytest.mark.parametrize(
    "wrong",
    [
        {"job": "../../etc"},
        {"job": "a/b"},
        {"job": "x" * 49},
        {"job": "job\n"},
        {"tile": -1},
        {"tile": 10_000_001},
        {"tile": "7"},
        {"tile": True},
        {"attempt": 0},
        {"gateway": "a/+"},
        {"shape": [0, 3, 1]},
        {"shape": [2, 3, 5]},
        {"shape": [2, 3]},
        {"shape": [1_000_001, 3, 1]},
        {"dtype": "object"},
        {"core": [-1, 0, 2, 2]},
        {"core": [0, 0, 0, 2]},
        {"seams": "lt"},
        {"seams": "x"},
        {"codec": "x" * 17},
        {"lease_s": "soon"},
        {"priority": 5},
        {"priority": -5},
        {"priority": 10**400},
        {"priority": 0.5},
        {"priority": "2"},
        {"priority": True},
        {"priority": None},
        {"stage": [{"params": {}}]},
        {"stage": {"name": "canny"}},
        {"pixels": "no base64!"},
        {"pixels": None},
    ],
    ids=str,
)
def test_a_field_with_a_wrong_type_or_out_of_range_is_refused(wrong):
    fields = msgspec.json.decode(encode(TASK, "base64")) | wrong
    with pytest.raises(WireError, match="not a valid message"):
        Decoder(TileTask).decode(msgspec.json.encode(fields))


@pytest.mark.parametrize("field", ["job", "tile", "attempt", "gateway", "shape", "core", "pixels"])
def test_a_missing_field_is_named(field):
    fields = msgspec.json.decode(encode(TASK, "base64"))
    del fields[field]
    with pytest.raises(WireError, match=field):
        Decoder(TileTask).decode(msgspec.json.encode(fields))


# Digests


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("message", [TASK, RESULT], ids=["task", "result"])
def test_a_digest_matches_after_both_encodings(message, encoding):
    check_digest(Decoder(type(message)).decode(encode(with_digest(message), encoding)))


def test_a_message_without_digest_is_refused():
    with pytest.raises(WireError, match=r"k3f09c2a.0 tile 7: the digest does not match"):
        check_digest(TASK)


@pytest.mark.parametrize(
    "change",
    [
        {"job": "k3f09c2b.0"},
        {"tile": 8},
        {"attempt": 2},
        {"shape": (3, 2, 1)},
        {"dtype": "int8"},
        {"codec": "png"},
        {"core": (0, 0, 2, 2)},
        {"seams": "r"},
        {"result_codec": "png"},
        {"stage": [Call("canny", {"low": 50.0, "high": 151.0})]},
        {"pixels": memoryview(b"abcdeg")},
        {"pixels": memoryview(b"abcdef\0")},
    ],
    ids=lambda change: next(iter(change)),  # not str: a memory view's says where it is
)
def test_a_digest_covers_every_field_that_gives_pixels_their_meaning(change):
    changed = msgspec.structs.replace(with_digest(TASK), **change)
    with pytest.raises(WireError, match="the digest does not match"):
        check_digest(changed)


def test_a_digest_does_not_cover_the_durations():
    check_digest(msgspec.structs.replace(with_digest(RESULT), compute_s=1.0, queue_s=2.0))


# Topics


def test_every_topic_is_under_the_prefix():
    topics = Topics("home/fog")
    assert topics.device("eya", "status") == "home/fog/devices/eya/status"
    assert topics.gateway("mariem", "info") == "home/fog/gateways/mariem/info"
    assert topics.results("mariem", "eya") == "home/fog/gateways/mariem/results/eya"
    assert topics.submit() == "home/fog/submit/+/+"
    assert topics.submit("edges", "cam1") == "home/fog/submit/edges/cam1"
    assert topics.reply("cam1", "image") == "home/fog/replies/cam1/image"
    assert topics.job_status("k1") == "home/fog/jobs/k1/status"


def test_a_topic_is_split_below_the_prefix():
    assert Topics().levels("fog/v1/devices/eya/tiles") == ("devices", "eya", "tiles")


@pytest.mark.parametrize("topic", ["fog/v2/devices/eya/tiles", "fog/v1", "fog/v11/x", ""])
def test_a_topic_outside_the_prefix_is_refused(topic):
    with pytest.raises(WireError, match="is not under fog/v1"):
        Topics().levels(topic)


@pytest.mark.parametrize(
    "prefix", ["", "/a", "a/", "a//b", "a/+", "#", "$SYS", "a b", "a\0", "a\n"]
)
def test_a_prefix_that_cannot_begin_a_topic_is_refused(prefix):
    with pytest.raises(ConfigError, match=r"wire\.prefix"):
        Topics(prefix)


@pytest.mark.parametrize("name", ["eya", "0", "a" * 32, "pi-4_b"])
def test_a_valid_id_is_returned(name):
    assert check_id(name, "device.id") == name


@pytest.mark.parametrize(
    "name", ["", "Eya", "a/b", "+", "#", "-a", "_a", "a" * 33, "é", "a\n", "a b"]
)
def test_an_invalid_id_is_refused_and_the_error_names_the_key(name):
    assert not is_id(name)
    with pytest.raises(ConfigError, match=r"device\.id: .* is not an id"):
        check_id(name, "device.id")


@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_text_that_is_no_valid_utf_8_is_escaped(encoding):
    status = JobStatus(job="j1", state="failed", error="caf\udce9.png", devices={"\udcff": 2})
    sent = Decoder(JobStatus).decode(encode(status, encoding))
    assert sent.error == r"caf\udce9.png"
    assert sent.devices == {r"\udcff": 2}
    assert sent.state == "failed"
