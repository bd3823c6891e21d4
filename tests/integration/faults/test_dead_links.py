"""Links that die without a word: who is cut off notices it, and is back soon after the link is.

Real network stacks in namespaces show what TCP does. Relays show a proxy that stays alive while
nothing gets through it, and a broker that reads and acknowledges nothing.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from fogmqtt.transport.base import Connected, Disconnected, Refused, Transport
from fogmqtt.transport.link import Client, Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker
from tests.netns import Network, network
from tests.packets import Framer, is_puback
from tests.relay import Relay
from tests.weather import HALF_OPEN, Weather

pytestmark = pytest.mark.broker

#: Seconds within which a dead link must be noticed, and a changed address be forgotten.
NOTICED_S, MOVED_S = 20.0, 25.0
#: Seconds until a client is back after its link is.
BACK_S = 5.0
CLIENTS: tuple[Client, ...] = ("fast", "plain")
CERTS = Path(__file__).parents[3] / "broker" / "make-certs.sh"


@contextmanager
def connected(link: Link) -> Iterator[tuple[Transport, Inbox]]:
    """A client that is connected."""
    inbox = Inbox()
    transport = PahoTransport(link, inbox.put)
    transport.start()
    try:
        inbox.take(Connected)
        yield transport, inbox
    finally:
        transport.close()


@contextmanager
def broker_at(net: Network, folder: Path) -> Iterator[dict[str, str]]:
    """A Mosquitto on the machine `broker`; yields its urls, and the path of `ca`."""
    folder.chmod(0o755)
    address, certs = net.address("broker"), folder / "certs"
    environment = {"FOGMQTT_CERTS": str(certs), "PATH": "/usr/sbin:/usr/bin:/bin"}
    subprocess.run([CERTS, "broker", address], check=True, env=environment, capture_output=True)
    tls = f"cafile {certs}/ca.crt\ncertfile {certs}/broker.crt\nkeyfile {certs}/broker.key\n"
    more = (
        f"listener 1884 {address}\nlistener 8884 {address}\n{tls}"
        f"listener 9001 {address}\nprotocol websockets\n"
    )
    broker = RealBroker(folder, more=more)
    with net.inside("broker"):
        broker.start()
    try:
        yield {
            "mqtt": f"mqtt://{address}:1884",
            "mqtts": f"mqtts://{address}:8884",
            "ws": f"ws://{address}:9001",
            "ca": str(certs / "ca.crt"),
        }
    finally:
        broker.kill()


def clients_at(net: Network, urls: dict[str, str]) -> Iterator[Link]:
    for kind in ("mqtt", "mqtts", "ws"):
        for client in CLIENTS:
            ca = urls["ca"] if kind == "mqtts" else None
            yield Link(urls[kind], f"{kind}-{client}", ca=ca, client=client)


def test_every_kind_of_link_notices_in_20_seconds_that_it_is_dead_and_comes_back(
    broker: object, tmp_path: Path
) -> None:
    del broker
    with network("broker", "board") as net, broker_at(net, tmp_path) as urls, ExitStack() as opened:
        with net.inside("board"):
            started = [opened.enter_context(connected(one)) for one in clients_at(net, urls)]
        net.unplug("board")
        began_at = time.monotonic()
        for transport, _ in started:
            transport.publish("cut/off", bytes(100_000))
        for _, inbox in started:
            lost = inbox.take(Disconnected, within=NOTICED_S + began_at - time.monotonic())
            assert "nothing came from it" in lost.reason
        net.plug("board")
        back_at = time.monotonic()
        for _, inbox in started:
            inbox.take(Connected, within=BACK_S + back_at - time.monotonic())


def test_a_machine_with_a_new_address_is_back_in_25_seconds(broker: object, tmp_path: Path) -> None:
    del broker
    with network("broker", "board") as net, broker_at(net, tmp_path) as urls, ExitStack() as opened:
        with net.inside("board"):
            links = list(clients_at(net, urls))
            started = [opened.enter_context(connected(one)) for one in links]
        net.move("board")
        moved_at = time.monotonic()
        for _, inbox in started:
            inbox.take(Connected, within=MOVED_S + moved_at - time.monotonic())


def test_a_proxy_that_passes_nothing_on_is_noticed(broker: RealBroker) -> None:
    with closing(Weather(broker.port)) as weather, ExitStack() as opened:
        links = [Link(weather.url, f"half-{client}", client=client) for client in CLIENTS]
        started = [opened.enter_context(connected(link)) for link in links]
        weather.become(HALF_OPEN)
        began_at = time.monotonic()
        for transport, _ in started:
            transport.publish("half/open", b"x")
        for _, inbox in started:
            lost = inbox.take(Disconnected, within=NOTICED_S + began_at - time.monotonic())
            assert "not even the answer to a ping" in lost.reason


class WithoutPubacks(Relay):
    """A relay that keeps every PUBACK back, as a broker does that is short of memory."""

    def carry(self, source: socket.socket, sink: socket.socket) -> None:
        framer = Framer()
        while data := source.recv(65_536):
            for packet in framer.feed(data):
                if not is_puback(packet):
                    sink.sendall(packet)


def test_a_broker_that_acknowledges_nothing_is_left_with_words_that_help(
    broker: RealBroker,
) -> None:
    with closing(WithoutPubacks(broker.port)) as relay, ExitStack() as opened:
        links = [Link(relay.url, f"deaf-{client}", client=client) for client in CLIENTS]
        started = [opened.enter_context(connected(link)) for link in links]
        for transport, _ in started:
            transport.publish("never/acknowledged", b"x")
        for _, inbox in started:
            lost = inbox.take(Disconnected, within=NOTICED_S + BACK_S)
            assert "has acknowledged no message" in lost.reason
            assert "see its log" in lost.reason
            inbox.take(Connected)


def test_a_tls_port_that_says_nothing_is_given_up_within_the_connect_timeout() -> None:
    inbox = Inbox()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"mqtts://127.0.0.1:{mute.getsockname()[1]}"
        transport = PahoTransport(Link(url, "tls-mute", connect_timeout_s=1.0), inbox.put)
        transport.start()
        try:
            inbox.take(Refused, within=4.0)
        finally:
            transport.close()
