"""Large messages, small messages and whole jobs over each kind of link to a broker."""

from __future__ import annotations

import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.transport.base import Refused
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker, free_port, probe
from tests.processes import fog_at
from tests.websocket_proxy import websocket_proxy

pytestmark = pytest.mark.proof

KINDS = ("mqtt", "mqtts", "ws", "wss")
CLIENTS = ("fast", "plain")
CERTS = Path(__file__).parents[2] / "broker" / "make-certs.sh"


@dataclass(frozen=True)
class Links:
    """One broker, and its urls."""

    broker: RealBroker
    ca: str
    #: mqtt, mqtts, and a proxy for ws and wss. Mosquitto 2.0 sends 40 kB/s over a WebSocket.
    urls: dict[str, str]
    #: ws and wss of Mosquitto itself.
    own: dict[str, str]

    def ca_of(self, kind: str) -> str | None:
        return self.ca if kind in ("mqtts", "wss") else None


@pytest.fixture(scope="module")
def links(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    """`broker` is asked for only since it skips or fails where Mosquitto is missing."""
    folder = tmp_path_factory.mktemp("links")
    if os.geteuid() == 0:
        for part in (folder, *folder.parents[:2]):  # mosquitto gives up root's rights
            part.chmod(0o755)
    certs = folder / "certs"
    subprocess.run(
        [CERTS, "broker", "localhost"], check=True, env=os.environ | {"FOGMQTT_CERTS": str(certs)}
    )
    with_tls = f"cafile {certs}/ca.crt\ncertfile {certs}/broker.crt\nkeyfile {certs}/broker.key\n"
    mqtts, ws, wss = free_port(), free_port(), free_port()
    more = (
        f"listener {mqtts} 127.0.0.1\n{with_tls}"
        f"listener {ws} 127.0.0.1\nprotocol websockets\n"
        f"listener {wss} 127.0.0.1\nprotocol websockets\n{with_tls}"
    )
    mosquitto = RealBroker(folder, more=more)
    mosquitto.start()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certs / "broker.crt", certs / "broker.key")
    with ExitStack() as opened:
        opened.callback(mosquitto.kill)
        plain, secret = (
            opened.enter_context(websocket_proxy(mosquitto.port, tls)) for tls in (None, server)
        )
        yield Links(
            mosquitto,
            str(certs / "ca.crt"),
            {
                "mqtt": mosquitto.url,
                "mqtts": f"mqtts://localhost:{mqtts}",
                "ws": f"ws://localhost:{plain}",
                "wss": f"wss://localhost:{secret}/mqtt",
            },
            {"ws": f"ws://localhost:{ws}", "wss": f"wss://localhost:{wss}/any/path"},
        )


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_64_megabytes_arrives_unchanged(links: Links, kind: str) -> None:
    image = np.random.default_rng(1).integers(0, 256, 64_000_000, np.uint8)
    pieces = (b"header", image.data[:1_000_000], image.data[1_000_000:])
    with probe(links.urls[kind], "large", client_id=f"large-{kind}", ca=links.ca_of(kind)) as one:
        for _ in range(2):
            one.publish("large", pieces)
            payload = one.message("large", within=60).payload
            assert payload[:6] == b"header"
            assert np.array_equal(np.frombuffer(payload, np.uint8)[6:], image)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_messages_of_all_sizes_arrive_in_order(links: Links, kind: str, client: str) -> None:
    sizes = [0, 1, 125, 126, 8_190, 65_000, 66_000, 900_000, 3, 2_000_000, 5] * 2
    payloads = [np.random.default_rng(size).bytes(size) for size in sizes]
    with probe(
        links.urls[kind],
        "sizes",
        client_id=f"s-{kind}-{client}",
        ca=links.ca_of(kind),
        client=client,
    ) as one:
        for index, payload in enumerate(payloads):
            one.publish("sizes", payload, qos=1 + index % 2)
        arrived = [one.message("sizes", within=30).payload for _ in payloads]
    # Messages of QoS 1 and 2 may overtake each other.
    assert sorted(map(bytes, arrived)) == sorted(payloads)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", ["ws", "wss"])
def test_the_listener_of_mosquitto_is_a_link_too(links: Links, kind: str, client: str) -> None:
    with probe(
        links.own[kind],
        "own/#",
        client_id=f"own-{kind}-{client}",
        ca=links.ca_of(kind),
        client=client,
    ) as one:
        for number in range(20):
            one.publish(f"own/{number}", bytes([number]) * 1000)
            assert one.message(f"own/{number}").payload == bytes([number]) * 1000


def refusal(url: str, **link: str) -> Refused:
    """What a client hears that does not get in."""
    inbox = Inbox()
    transport = PahoTransport(Link(url, "refused", **link), inbox.put)  # type: ignore[arg-type]
    transport.start()
    try:
        return inbox.take(Refused)
    finally:
        transport.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_websocket_at_a_port_for_tcp_says_so(links: Links, client: str) -> None:
    refused = refusal(f"ws://127.0.0.1:{links.broker.port}", client=client)
    assert "does not speak WebSocket; use mqtt://" in refused.reason


def test_mqtt_over_tcp_at_a_websocket_port_says_so(links: Links) -> None:
    refused = refusal(links.own["ws"].replace("ws://", "mqtt://"))
    assert "if it is a WebSocket port, use ws://" in refused.reason


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_path_is_named_with_the_servers_answer(links: Links, client: str) -> None:
    refused = refusal(links.urls["ws"] + "/elsewhere", client=client)
    assert "no WebSocket at /elsewhere: HTTP status 404" in refused.reason
    assert "broker.url" in refused.reason
    assert refused.final


def test_tls_at_a_websocket_port_without_tls_says_so(links: Links) -> None:
    refused = refusal(links.urls["ws"].replace("ws://", "wss://"))
    assert "does not speak TLS; use ws://" in refused.reason


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_64_megabytes_is_submitted_and_its_result_comes_back(
    links: Links, kind: str, tmp_path: Path
) -> None:
    image = np.random.default_rng(3).integers(0, 256, (8000, 8000), np.uint8)
    _, file = cv2.imencode(".bmp", image)
    settings = {
        "BROKER__URL": links.urls[kind],
        "BROKER__CA": links.ca_of(kind) or "",
        "GATEWAY__LOCAL": "always",
        "GATEWAY__FORMAT": "bmp",
        "PIPELINES__NEGATIVE": "invert",
    }
    reply = f"fog/v1/replies/{kind}"
    with (
        fog_at(tmp_path, links.broker, **settings) as fog,
        probe(links.urls[kind], f"{reply}/#", client_id="app", ca=links.ca_of(kind)) as app,
    ):
        fog.serve()
        app.publish(f"fog/v1/submit/negative/{kind}", file.tobytes())
        answer = app.message(f"{reply}/image", within=120).payload
    result = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(result, 255 - image)


@pytest.mark.parametrize("kind", ["ws", "wss"])
def test_a_job_over_websockets_is_exact(links: Links, kind: str, tmp_path: Path) -> None:
    photo = np.random.default_rng(2).integers(0, 256, (900, 1200), np.uint8)
    cv2.imwrite(str(tmp_path / "in.png"), photo)
    settings = {"BROKER__URL": links.urls[kind], "GATEWAY__LOCAL": "never"}
    if kind == "wss":
        settings["BROKER__CA"] = links.ca
    with fog_at(tmp_path, links.broker, **settings) as fog:
        fog.device("eya").says("eya is online")
        fog.run("in.png", "-o", "out.png", "--pipeline", "invert")
    assert np.array_equal(cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED), 255 - photo)
