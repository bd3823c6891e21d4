"""A camera that people look at: camera, broker, gateway and dashboard are real, and so is HTTP."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse

import cv2
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from fogmqtt.transport.base import Received
from tests.cameras import WebCamera, number_of
from tests.integration.test_dashboard import WITH_PAGE, Page, page_of
from tests.processes import PATIENCE_S, Fog, private_fog, probe, until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def camera() -> Iterator[WebCamera]:
    with WebCamera(fps=20) as made:
        yield made


@pytest.fixture(scope="module")
def fog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    with private_fog(tmp_path_factory.mktemp("live"), **WITH_PAGE) as made:
        yield made


@pytest.fixture(scope="module")
def page(fog: Fog, camera: WebCamera) -> Page:
    config = fog.folder / "config.yaml"
    yard = {"source": camera.url("/stream"), "pipeline": "invert", "max_age_s": 20}
    config.write_text(json.dumps({"streams": {"yard": {**yard, "preview": {"fps": 5}}}}))
    made = page_of(fog.serve_with(config))
    until(lambda: made.ask("GET", "/api/streams/yard/frame.jpg")[0] == 200, "the first frame")
    return made


def picture(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image


def number(data: bytes) -> int:
    """The number of the frame, which the pipeline has inverted."""
    return number_of(255 - picture(data))


@contextmanager
def watching(page: Page, path: str, receive_bytes: int = 0) -> Iterator[HTTPResponse]:
    """Open an endless answer, which this test reads as it likes."""
    with closing(HTTPConnection(page.host, page.port, timeout=PATIENCE_S)) as connection:
        connection.connect()
        if receive_bytes:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.request("GET", path)
        with connection.getresponse() as answer:
            yield answer


def part(answer: HTTPResponse) -> bytes:
    length = 0
    while (line := answer.readline().strip()) or not length:
        if line.lower().startswith(b"content-length"):
            length = int(line.split(b":")[1])
    return answer.read(length)


def live(page: Page, **headers: str) -> ClientConnection:
    return connect(
        f"ws://{page.host}:{page.port}/api/live",
        additional_headers=headers,
        open_timeout=PATIENCE_S,
        close_timeout=5,
    )


def test_the_newest_frame_comes_as_a_jpeg_of_the_width_that_was_asked_for(page: Page) -> None:
    status, headers, body = page.ask("GET", "/api/streams/yard/frame.jpg")
    assert (status, headers["content-type"]) == (200, "image/jpeg")
    assert picture(body).shape == (240, 320, 3)
    assert picture(page.ask("GET", "/api/streams/yard/frame.jpg?w=100")[2]).shape == (120, 160, 3)
    (card,) = page.json("/api/streams")["streams"]
    assert (card["name"], card["status"]) == ("yard", "online")
    until(lambda: page.json("/api/streams")["streams"][0]["state"]["fps_in"] > 0, "frames a second")


def test_a_viewer_sees_newer_and_newer_frames_beside_one_that_takes_nothing(page: Page) -> None:
    stream = "/api/streams/yard/stream.mjpeg"
    with watching(page, stream, 4096), watching(page, f"{stream}?w=160") as quick:
        numbers = [number(part(quick)) for _ in range(20)]
    assert numbers == sorted(set(numbers))


def test_a_wall_of_streams_needs_one_socket_and_a_frame_needs_credit(page: Page) -> None:
    with live(page) as wall:
        wall.send(json.dumps({"show": {"yard": 160}}))
        numbers: list[int] = []
        heard = ""
        while len(numbers) < 10 or not heard:
            message = wall.recv(PATIENCE_S)
            if isinstance(message, str):
                heard = message
                continue
            length = int.from_bytes(message[:2], "big")
            head = json.loads(message[2 : 2 + length])
            assert head["stream"] == "yard"
            numbers.append(number(message[2 + length :]))
            wall.send(json.dumps({"ready": "yard"}))
        assert numbers == sorted(set(numbers))
        assert json.loads(heard)["streams"][0]["name"] == "yard"


def test_a_page_of_another_site_gets_no_socket(page: Page) -> None:
    with pytest.raises(InvalidStatus) as refused:
        live(page, Origin="https://evil.example")
    assert refused.value.response.status_code == 403


def test_the_preview_is_retained_at_the_broker(page: Page, fog: Fog) -> None:
    topic = "fog/v1/frames/yard/preview"
    with probe(fog.broker.url, topic, client_id="previews") as client:
        message = client.inbox.take(Received, within=PATIENCE_S)
        assert message.retained
        assert picture(bytes(message.payload)).shape == (240, 320, 3)


def test_when_the_camera_is_gone_the_card_says_so(page: Page, camera: WebCamera) -> None:
    camera.stop()
    try:
        until(lambda: page.json("/api/streams")["streams"][0]["tone"] == "bad", "the loss")
        assert "away" in page.json("/api/streams")["streams"][0]["sentence"]
    finally:
        camera.restart()
    until(lambda: page.json("/api/streams")["streams"][0]["tone"] == "good", "the camera")
