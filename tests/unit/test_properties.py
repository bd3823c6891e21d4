"""Properties of a message are written and read as paho does it, and nothing malformed passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fogmqtt.transport.base import NO_PROPERTIES, MessageProperties
from fogmqtt.transport.properties import pack, read

ALL = MessageProperties(
    response_topic="fog/v1/replies/me/7",
    correlation=bytes(range(200)),
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    content_type="image/png",
)


def packed(expires_s: float | None, content_type: str | None, given: MessageProperties) -> bytes:
    made = pack(expires_s, content_type, given)
    assert made is not None
    return made.pack()


def test_paho_reads_what_is_written() -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.unpack(packed(29.5, "image/png", ALL))
    assert properties.MessageExpiryInterval == 30
    assert properties.ContentType == "image/png"
    assert properties.ResponseTopic == ALL.response_topic
    assert properties.CorrelationData == ALL.correlation
    assert properties.UserProperty == [("traceparent", ALL.traceparent)]


def test_what_paho_writes_is_read_and_the_rest_is_skipped() -> None:
    properties = Properties(PacketTypes.PUBLISH)
    properties.PayloadFormatIndicator = 1
    properties.MessageExpiryInterval = 7
    properties.TopicAlias = 3
    properties.UserProperty = ("before", "x")
    properties.ContentType = ALL.content_type
    properties.ResponseTopic = ALL.response_topic
    properties.CorrelationData = ALL.correlation
    properties.UserProperty = ("traceparent", ALL.traceparent)
    properties.UserProperty = ("traceparent", "a second one does not count")
    properties.SubscriptionIdentifier = 300_000
    block = properties.pack()
    expected = replace(ALL, user=(("before", "x"),))
    assert read(block[2:]) == expected  # two bytes of length


def test_a_message_without_properties_has_none() -> None:
    assert pack(None, None, NO_PROPERTIES) is None
    assert read(b"") is NO_PROPERTIES


@pytest.mark.parametrize(
    "block",
    [
        b"\x08",
        b"\x08\x00\x05abc",
        b"\x02\x00",
        b"\x26\x00\x01a",
        b"\x7f",
        b"\x0b\xff",
        b"\x08\x00\x01\xff",
        packed(None, None, ALL)[2:-1],
    ],
)
def test_malformed_properties_are_refused(block: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read(block)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(block: bytes) -> None:
    try:
        read(memoryview(block))
    except ValueError:
        return


def test_the_size_covers_what_is_written() -> None:
    without = len(packed(10, "image/png", NO_PROPERTIES))
    assert len(packed(10, "image/png", ALL)) - without <= ALL.size
    assert NO_PROPERTIES.size == 0
