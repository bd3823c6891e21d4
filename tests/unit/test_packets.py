"""The framing of MQTT packets for the proxies."""

from tests.packets import Framer, again, is_publish

PUBLISH = b"\x32\x07\x00\x01a\x00\x05xy"
PING = b"\xc0\x00"


def test_a_stream_gives_the_same_packets_in_pieces_of_any_size():
    stream = PING + PUBLISH + b"\x30\x80\x01" + bytes(128) + PING
    for size in (1, 2, 3, 7, 200):
        framer = Framer()
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        packets = [packet for piece in pieces for packet in framer.feed(piece)]
        assert packets == [PING, PUBLISH, b"\x30\x80\x01" + bytes(128), PING]
        assert framer.rest() == b""


def test_an_incomplete_packet_is_kept():
    framer = Framer()
    assert framer.feed(PUBLISH[:5]) == []
    assert framer.rest() == PUBLISH[:5]


def test_a_repeated_publish_has_the_dup_flag_unless_its_qos_is_0():
    assert again(PUBLISH) == b"\x3a" + PUBLISH[1:]
    assert again(b"\x30" + PUBLISH[1:]) == b"\x30" + PUBLISH[1:]
    assert is_publish(PUBLISH)
    assert not is_publish(PING)
