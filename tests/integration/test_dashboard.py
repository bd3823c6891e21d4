"""The dashboard as a process beside a real gateway: HTTP in, the fleet's results out."""

from __future__ import annotations

import http.client
import json
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from fogmqtt.dashboard.events import MOST_STREAMS
from tests.fog import free_port, wait_for
from tests.processes import (
    PATIENCE_S,
    Fog,
    Program,
    edges_of,
    photo,
    private_fog,
    same,
    until,
)

pytestmark = pytest.mark.broker

#: The settings of a gateway whose dashboard listens at any free port.
WITH_PAGE = {
    "DASHBOARD__ENABLED": "always",
    "DASHBOARD__LISTEN": "127.0.0.1:0",
    "GATEWAY__LOCAL": "always",
}


class Page:
    """A client of a dashboard."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").strip("/").rpartition(":")
        self.port = int(port)

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        link = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE_S)
        try:
            link.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            answer = link.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        finally:
            link.close()

    def json(self, path: str) -> Any:
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def problem(self, method: str, path: str, body: Any = None, **headers: str) -> dict[str, Any]:
        status, got, data = self.ask(method, path, body, **headers)
        assert got["content-type"] == "application/problem+json", data
        told: dict[str, Any] = json.loads(data)
        assert told["status"] == status
        return told

    def socket(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), PATIENCE_S)


def page_of(program: Program) -> Page:
    """Wait until a gateway's dashboard is there and reaches it."""
    program.says("the page is at http://")
    page = Page(re.findall(r"the page is at (\S+)", program.said)[-1])
    until(lambda: page.ask("GET", "/readyz")[0] == 200, "the dashboard to reach its gateway")
    return page


@pytest.fixture(scope="module")
def fog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    with private_fog(tmp_path_factory.mktemp("page"), **WITH_PAGE) as made:
        yield made


@pytest.fixture(scope="module")
def gateway(fog: Fog) -> Program:
    return fog.serve(LIMITS__MAX_FILE_BYTES="2000000")


@pytest.fixture(scope="module")
def page(gateway: Program) -> Page:
    return page_of(gateway)


@pytest.fixture(scope="module")
def picture(fog: Fog) -> Path:
    return fog.save("photo.png", photo(240, 320))


def test_an_image_that_is_put_comes_back_as_its_edges(page, picture):
    status, headers, body = page.ask("PUT", "/api/run/edges", picture.read_bytes())
    assert status == 200, body
    got = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED)
    assert same(got, edges_of(picture))
    job = headers["fogmqtt-job"]
    assert page.json(f"/api/jobs/{job}")["state"] == "done"
    status, _, original = page.ask("GET", f"/api/jobs/{job}/original")
    assert (status, original) == (200, picture.read_bytes())
    status, _, part = page.ask("GET", f"/api/jobs/{job}/image", range="bytes=1-3")
    assert (status, part) == (206, body[1:4])


def test_a_file_of_many_pieces_arrives_whole(page):
    noise = np.random.default_rng(1).integers(0, 256, (700, 800, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    assert len(data) > 1_000_000
    status, _, body = page.ask("PUT", "/api/run/invert", data)
    assert status == 200, body
    assert same(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_UNCHANGED), 255 - noise)


def test_a_hundred_small_images_at_once_are_all_done(page):
    data = [cv2.imencode(".png", photo(16, 16, seed))[1].tobytes() for seed in range(100)]

    def submit(image: bytes) -> int:
        return page.ask("PUT", "/api/run/invert", image)[0]

    with ThreadPoolExecutor(100) as pool:
        assert list(pool.map(submit, data)) == [200] * 100


# Bad input


def test_what_is_no_image_is_refused_with_a_sentence(page):
    told = page.problem("PUT", "/api/run/edges", b"this is no image")
    assert told["status"] in (415, 422)
    assert "image" in told["detail"]


def test_a_file_over_the_limit_is_refused_before_it_has_come(page):
    with page.socket() as sock:
        head = b"PUT /api/run/edges HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n"
        sock.sendall(head)
        answer = b""
        while not answer.endswith(b"}"):
            more = sock.recv(65_536)
            assert more, answer
            answer += more
    assert b"413" in answer.partition(b"\r\n")[0]
    assert b"limits.max_file_bytes" in answer


def test_a_file_over_the_limit_whose_length_nobody_said_is_refused_while_it_comes(page):
    told = page.problem("PUT", "/api/run/edges", (b"x" * 100_000 for _ in range(50)))
    assert (told["status"], told["limit"]) == (413, 2_000_000)


def test_an_upload_that_is_aborted_leaves_no_job(page, fog):
    before = page.json("/api/jobs")["jobs"]
    with page.socket() as sock:
        head = b"PUT /api/run/edges HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n"
        sock.sendall(head + b"x" * 50_000)
    uploads = fog.folder / "spool"
    until(lambda: not list(uploads.rglob("*.part")), "the end of the upload")
    assert page.json("/api/jobs")["jobs"] == before


def test_an_unknown_pipeline_is_refused_with_the_nearest_name(page, picture):
    told = page.problem("PUT", "/api/run/edgs", picture.read_bytes())
    assert told["status"] == 422
    assert "edges" in told["detail"]


@pytest.mark.parametrize(
    "target",
    [
        b"/../../etc/passwd",
        b"/%2e%2e/%2e%2e/etc/passwd",
        b"/..%2f..%2fetc/passwd",
        b"/api/jobs/..%2f..%2fspool/image",
        b"/api/jobs/%00/image",
        b"/static//etc/passwd",
    ],
)
def test_no_path_leads_to_a_file_of_the_machine(page, target):
    with page.socket() as sock:
        sock.sendall(
            b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer
    assert b"root:" not in answer


def test_a_request_of_another_site_is_refused(page):
    told = page.problem("POST", "/api/jobs", b"x", origin="http://evil.example")
    assert told["status"] == 403
    assert "evil.example" in told["detail"]


def test_a_name_that_leads_here_from_elsewhere_is_refused(page):
    told = page.problem("GET", "/api/jobs", host="evil.example:80")
    assert told["status"] == 421
    assert "dashboard.hosts" in told["detail"]


def test_the_sixty_fifth_stream_is_refused_and_nothing_else_waits(page):
    streams = []
    try:
        for _ in range(120):
            sock = page.socket()
            sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            streams.append(sock)
        heads = [sock.recv(12) for sock in streams]
        assert heads.count(b"HTTP/1.1 200") == 64
        assert heads.count(b"HTTP/1.1 503") == 56
        assert page.ask("GET", "/api/devices")[0] == 200
    finally:
        for sock in streams:
            sock.close()

    def has_room() -> bool:
        with page.socket() as sock:
            sock.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"

    until(has_room, "a free stream")


# The process


def dashboards(gateway: Program) -> list[psutil.Process]:
    children = psutil.Process(gateway.process.pid).children()
    return [one for one in children if "fogmqtt.cli.dashboard" in one.cmdline()]


def test_the_dashboard_begins_again_after_its_death_and_no_job_notices(gateway, page, picture):
    (before,) = dashboards(gateway)
    before.kill()
    gateway.says("jobs go on, and it starts again in 1 s")
    until(lambda: bool(dashboards(gateway)), "another dashboard")
    said = gateway.said
    wait_for(lambda: gateway.said.count("the page is at") == 2, within=PATIENCE_S)
    again = page_of(gateway)
    page.host, page.port = again.host, again.port
    assert again.ask("PUT", "/api/run/edges", picture.read_bytes())[0] == 200
    assert "Traceback" not in said


def test_a_dashboard_ends_with_its_gateway_however_that_ends(tmp_path):
    with private_fog(tmp_path, **WITH_PAGE) as fog:
        for number in (signal.SIGINT, signal.SIGKILL):
            gateway = fog.serve()
            page_of(gateway)
            (child,) = dashboards(gateway)
            gateway.signal(number)
            gateway.ended()
            child.wait(10)
            gone = not psutil.pid_exists(child.pid)
            assert gone


def test_a_port_that_is_taken_is_named_and_touches_no_job(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        settings = {**WITH_PAGE, "DASHBOARD__LISTEN": f"127.0.0.1:{port}"}
        with private_fog(tmp_path, **settings) as fog:
            gateway = fog.serve()
            gateway.says(f"dashboard.listen: 127.0.0.1:{port}: another program listens there")
            gateway.says("jobs go on")
            image = fog.save("photo.png", photo(32, 32))
            image.replace(fog.folder / "inbox" / "photo.png")
            until(lambda: any((fog.folder / "outbox").glob("photo*")), "the result")


def test_a_dashboard_alone_shows_a_gateway_of_another_machine(fog, gateway, page):
    port = free_port()
    command = ["-m", "fogmqtt.cli.dashboard", "--broker", fog.broker.url]
    alone = fog._start("alone", [*command, "--listen", f"127.0.0.1:{port}"], {})
    other = page_of(alone)
    assert other.json("/api/gateway")["id"] == "mariem"
    assert alone.stop() == 0


def test_a_dashboard_says_when_its_gateway_or_broker_is_gone_and_comes_back(tmp_path):
    with private_fog(tmp_path, **WITH_PAGE) as fog:
        gateway = fog.serve()
        page = page_of(gateway)
        with page.socket() as events:
            events.sendall(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            reads = events.makefile("rb")
            _until_line(reads, b"event: snapshot")
            fog.broker.stop()
            _until_line(reads, b"The dashboard cannot reach the broker")
            assert page.problem("GET", "/readyz")["status"] == 503
            fog.broker.start()
            _until_line(reads, b"event: snapshot")


def _until_line(reads: Any, text: bytes) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while text not in (line := reads.readline()):
        assert line, "the stream ended"
        assert time.monotonic() < deadline


def test_a_thousand_event_streams_get_an_answer_each_and_images_are_done(page, picture):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    head = f"GET /api/events HTTP/1.1\r\nHost: {page.host}:{page.port}\r\n\r\n".encode()
    with ExitStack() as opened:
        links = [opened.enter_context(page.socket()) for _ in range(1000)]
        for link in links:
            link.sendall(head)
        answers = [link.recv(65_536) for link in links]
        streams = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")]
        refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
        assert (len(streams), len(refused)) == (MOST_STREAMS, 1000 - MOST_STREAMS)
        assert all(b"application/problem+json" in answer for answer in refused)
        assert page.ask("PUT", "/api/run/edges", picture.read_bytes())[0] == 200
    page.json("/api/devices")
