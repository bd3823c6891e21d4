"""Brokers that take small packets only, or few at a time: jobs are exact all the same."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fogmqtt.errors import TooLarge
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.transport import connection
from fogmqtt.transport.base import Connected, Disconnected, Published, Refused
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, Probe, RealBroker
from tests.packets import Framer, is_publish
from tests.processes import PATIENCE_S, edges_of, photo, private_fog, read, same, until
from tests.relay import Relay, slow_relay

pytestmark = pytest.mark.broker

LIMIT = 131_072
PUBACK = 4
#: A DISCONNECT of MQTT 5 with the reason "packet too large".
PACKET_TOO_LARGE = b"\xe0\x02\x95\x00"
#: The learned limits from the usual size of a tile down to that one, and so the losses.
STEPS = 2


def noise(height: int = 400, width: int = 500) -> Image:
    """A picture that no codec makes smaller."""
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_job_is_exact_over_a_broker_with_a_small_packet_limit(
    broker: object, tmp_path: Path, protocol: str
) -> None:
    del broker
    with private_fog(tmp_path, f"max_packet_size {LIMIT}", BROKER__PROTOCOL=protocol) as fog:
        fog.fleet("eya", "oumayma")
        path = fog.save("in.png", noise(900, 1200))
        ran = fog.run(path, "-o", "out.png", "--pipeline", "median ksize=5")
        assert same(read(tmp_path / "out.png"), cv2.medianBlur(read(path), 5))
        assert ran.report["tiles"] > 25
        # The limit is announced, or learned from a loss or two. It is said when it is lowered: the
        # next connection may be lost, too, by a tile that was cut before.
        losses = ran.err.count("lost the broker")
        said = ran.err.count("tiles and results stay below")
        if protocol == "5":
            assert (losses, said) == (0, 0), ran.err
        else:
            assert 1 <= said <= losses <= STEPS, ran.err


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_written_tile_plan_gives_way_to_the_brokers_limit(
    broker: object, tmp_path: Path, protocol: str
) -> None:
    del broker
    with private_fog(tmp_path, f"max_packet_size {LIMIT}", BROKER__PROTOCOL=protocol) as fog:
        fog.fleet("eya")
        path = fog.save("in.png", noise())
        ran = fog.run(path, "-o", "out.png", "--pipeline", "median ksize=5", "--tiles", "grid 2x2")
        assert same(read(tmp_path / "out.png"), cv2.medianBlur(read(path), 5))
        assert ran.report["tiles"] > 4


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_job_is_exact_over_a_broker_that_drops_large_messages(
    broker: object, tmp_path: Path, protocol: str
) -> None:
    """With MQTT 3.1.1 Mosquitto confirms such a message, so only the devices' silence shows it."""
    del broker
    with private_fog(tmp_path, f"message_size_limit {LIMIT}", BROKER__PROTOCOL=protocol) as fog:
        fog.fleet("eya", "oumayma")
        path = fog.save("in.png", noise(600, 800))
        ran = fog.run(path, "-o", "out.png", "--pipeline", "median ksize=5")
        assert same(read(tmp_path / "out.png"), cv2.medianBlur(read(path), 5))
        assert ran.report["tiles"] > 10


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_result_that_is_larger_than_its_tile_is_cut_smaller(
    broker: object, tmp_path: Path, protocol: str
) -> None:
    del broker
    with private_fog(tmp_path, f"max_packet_size {LIMIT}", BROKER__PROTOCOL=protocol) as fog:
        (device,) = fog.fleet("eya")
        path = fog.save("in.png", noise())
        # A pixel has one byte on its way out and four on its way back: 100 kB and 400 kB.
        arguments = path, "-o", "out.tiff", "--pipeline", "gray | tofloat"
        fog.run(*arguments, WIRE__MAX_MESSAGE_BYTES="400000")
        gray = cv2.cvtColor(read(path), cv2.COLOR_BGR2GRAY)
        assert np.array_equal(read(tmp_path / "out.tiff"), run(gray, "tofloat"))
        assert device.said.count("lost the broker") <= STEPS


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_reply_over_the_limit_fails_its_job_and_stops_no_other(
    broker: object, tmp_path: Path, protocol: str, *, restarted: bool
) -> None:
    del broker
    with private_fog(tmp_path, f"max_packet_size {LIMIT}", BROKER__PROTOCOL=protocol) as fog:
        fog.fleet("eya")
        fog.settings |= {"GATEWAY__SPOOL": "spool", "GATEWAY__DELIVER": "reply"}
        serving = fog.serve(PIPELINES__NEGATIVE="invert")
        jpeg = cv2.imencode(".jpg", noise(), [cv2.IMWRITE_JPEG_QUALITY, 5])[1].tobytes()
        small = cv2.imencode(".png", photo(60, 80))[1].tobytes()
        assert len(jpeg) < LIMIT
        with fog.probe("fog/v1/replies/#", client_id="me") as me:
            me.publish("fog/v1/submit/negative/large", jpeg)
            if restarted:
                until(lambda: "negative/large: done in" in serving.said, "the result")
                serving.kill()
                serving = fog.serve(PIPELINES__NEGATIVE="invert")
            failed = last_status(me, "large")
            assert failed["state"] == "failed"
            assert "max_packet_size" in failed["error"], failed
            me.publish("fog/v1/submit/negative/small", small)
            assert last_status(me, "small")["state"] == "done"
        assert serving.stop() == 0
        # Two for the reply that cannot be made smaller, and those for the tiles before.
        assert serving.said.count("lost the broker") <= 2 + STEPS, serving.said


class Deaf(Relay):
    """A broker that answers nothing after a packet that is too large, as RabbitMQ does."""

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer, is_deaf = Framer(), False
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                is_deaf = is_deaf or len(packet) > LIMIT
                if not is_deaf:
                    sink.sendall(packet)


class Outspoken(Relay):
    """An MQTT 5 broker that announces no limit, and says goodbye with the reason 0x95."""

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                if is_publish(packet) and len(packet) > LIMIT:
                    source.sendall(PACKET_TOO_LARGE)
                    return
                sink.sendall(packet)


def test_a_broker_that_says_that_a_packet_was_too_large_is_believed_at_once(
    broker: RealBroker,
) -> None:
    relay = Outspoken(broker.port)
    inbox = Inbox()
    transport = PahoTransport(Link(relay.url, "outspoken"), inbox.put)
    try:
        transport.start()
        assert inbox.take(Connected).max_packet_bytes is None
        transport.publish("large", bytes(2 * LIMIT))
        inbox.take(Disconnected)
        assert inbox.take(Connected).max_packet_bytes == 2 * LIMIT
        with pytest.raises(TooLarge, match="seems to accept at most"):
            transport.publish("large", bytes(2 * LIMIT))
    finally:
        transport.close()
        relay.close()


def test_a_broker_that_answers_nothing_after_a_large_packet_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_DEAF_S", 1.0)
    broker = RealBroker(tmp_path)
    broker.start()
    relay = Deaf(broker.port)
    inbox = Inbox()
    transport = PahoTransport(Link(relay.url, "loud", "3.1.1"), inbox.put)
    try:
        transport.start()
        assert inbox.take(Connected).max_packet_bytes is None
        for _ in range(2):
            transport.publish("loud", bytes(2 * LIMIT))
            assert "acknowledged nothing" in inbox.take(Disconnected).reason
            assert inbox.take(Connected).max_packet_bytes == 2 * LIMIT
        with pytest.raises(TooLarge, match="seems to accept at most"):
            transport.publish("loud", bytes(2 * LIMIT))
        transport.publish("loud", bytes(LIMIT // 2), token="small")
        assert inbox.take(Published).token == "small"
    finally:
        transport.close()
        relay.close()
        broker.kill()


def test_a_large_packet_on_a_slow_link_does_not_count_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_DEAF_S", 1.0)
    broker = RealBroker(tmp_path)
    broker.start()
    inbox = Inbox()
    with slow_relay(broker.port, 100_000) as relay:
        transport = PahoTransport(Link(relay.url, "slow", 5), inbox.put)
        transport.start()
        inbox.take(Connected)
        transport.publish("slow", bytes(400_000), token="large")
        assert inbox.take(object) == Published("large")
        transport.close()
    broker.kill()


def test_a_broker_that_ends_with_a_packet_on_its_way_teaches_no_limit(tmp_path: Path) -> None:
    broker = RealBroker(tmp_path)
    broker.start()
    inbox = Inbox()
    transport = PahoTransport(Link(broker.url, "loud", "3.1.1"), inbox.put)
    try:
        transport.start()
        inbox.take(Connected)
        broker.freeze()
        transport.publish("loud", bytes(2 * LIMIT))
        assert broker.process is not None
        broker.process.kill()  # without a moment in which it could take the packet
        broker.kill()
        inbox.take(Disconnected)
        inbox.take(Refused)
        broker.start()
        assert inbox.take(Connected).max_packet_bytes is None
    finally:
        transport.close()
        broker.kill()


class Unacknowledged(Relay):
    """Counts the messages of clients that the broker has not acknowledged."""

    most = now = 0

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer, to_broker = Framer(), sink.getpeername()[1] == self._target
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                if to_broker and is_publish(packet):
                    self.now += 1
                    self.most = max(self.most, self.now)
                elif not to_broker and packet[0] >> 4 == PUBACK:
                    self.now -= 1
                sink.sendall(packet)


def test_a_client_sends_no_more_at_once_than_the_broker_announces(tmp_path: Path) -> None:
    broker = RealBroker(tmp_path, more="max_inflight_messages 3")
    broker.start()
    relay = Unacknowledged(broker.port)
    inbox = Inbox()
    transport = PahoTransport(Link(relay.url, "many", 5), inbox.put)
    try:
        transport.start()
        inbox.take(Connected)
        for number in range(50):
            transport.publish("many", bytes(20_000), token=number)
        published = [inbox.take(Published).token for _ in range(50)]
        assert published == list(range(50))
        assert relay.most == 3
    finally:
        transport.close()
        relay.close()
        broker.kill()


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_takes_one_message_at_a_time_stalls_no_job(
    broker: object, tmp_path: Path, protocol: str
) -> None:
    del broker
    with private_fog(tmp_path, "max_inflight_messages 1", BROKER__PROTOCOL=protocol) as fog:
        fog.fleet()
        path = fog.save("in.png", photo())
        ran = fog.run(path, "-o", "out.png", "--tiles", "grid 6x6")
        assert same(read(tmp_path / "out.png"), edges_of(path))
        assert "lost the broker" not in ran.err, ran.err


def last_status(client: Probe, reply: str) -> dict[str, Any]:
    """Wait for the end of a job."""
    while True:
        message = client.message(f"fog/v1/replies/{reply}/status", within=PATIENCE_S)
        status: dict[str, Any] = json.loads(message.payload)
        if status["state"] in ("done", "failed"):
            return status


def run(image: Image, pipeline: str) -> Image:
    made = run_whole(parse(pipeline), image, image)
    assert isinstance(made, np.ndarray)
    return made
