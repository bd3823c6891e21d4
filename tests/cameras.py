"""Cameras for tests: painted frames, files of them, and servers that can be made to fail.

The number of a frame is painted as 16 black and white squares. It survives any codec, so a test
reads off the pixels which frame it has, and how old it is.
"""

from __future__ import annotations

import base64
import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
from PIL import Image as Pillow

WIDTH, HEIGHT = 320, 240
#: Squares in a row that begins at the left.
_SQUARES = 16


def painted(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return a picture in blue, green and red with a number painted at its top."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    image[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    image[..., 2] = number * 5 % 256
    side = width // _SQUARES
    for bit in range(_SQUARES):
        image[:side, bit * side : (bit + 1) * side] = 255 * (number >> bit & 1)
    return image


def number_of(image: np.ndarray) -> int:
    """Read the number that is painted in a picture."""
    gray = image if image.ndim == 2 else image.mean(axis=2)
    side = image.shape[1] // _SQUARES
    middle, quarter = side // 2, max(1, side // 4)
    rows = gray[middle - quarter : middle + quarter]
    return sum(
        1 << bit
        for bit in range(_SQUARES)
        if rows[:, bit * side + middle - quarter : bit * side + middle + quarter].mean() > 127
    )


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    """Return a picture as a JPEG file; gray if it has two dimensions."""
    written = io.BytesIO()
    rgb = image if image.ndim == 2 else image[..., ::-1]
    Pillow.fromarray(np.ascontiguousarray(rgb)).save(written, "JPEG", quality=quality)
    return written.getvalue()


def write_video(
    path: Path,
    count: int,
    *,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    fps: int = 25,
    codec: str = "libx264",
    gop: int = 10,
    pts: Callable[[int], int] = lambda index: index,
    first: int = 0,
    pixels: str = "yuv420p",
) -> Path:
    """Write a video of painted frames, with the timestamps that `pts` says."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.gop_size = gop
        if codec == "libx264":
            stream.options = {"tune": "zerolatency", "preset": "ultrafast"}
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(painted(first + index, width, height), "bgr24")
            frame.pts, frame.time_base = pts(index), Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class WebCamera:
    """A camera over HTTP: `/stream` sends JPEGs, `/snapshot` one, `/text` no picture.

    `fps` pictures a second. `user` and `password` are asked for if they are set, by `digest` or by
    basic authentication. `make` gives the picture of a number. After `silence`, it accepts
    connections and sends nothing.
    """

    def __init__(self, fps: float = 20.0, user: str = "", password: str = "") -> None:
        self.fps = fps
        self.user, self.password = user, password
        self.make: Callable[[int], bytes] = lambda number: jpeg(painted(number))
        self.silent = threading.Event()
        #: How many pictures were sent.
        self.sent = 0
        self._number = 0
        self._server = _start_server(self)
        self.port = self._server.server_address[1]

    def __enter__(self) -> WebCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.silent.clear()
        self.stop()

    def url(self, path: str) -> str:
        """Return an address."""
        return f"http://127.0.0.1:{self.port}{path}"

    def stop(self) -> None:
        """End the server and cut its connections."""
        self._server.shutdown()
        self._server.server_close()
        for connection in self._server.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def restart(self) -> None:
        """Listen again at the same port."""
        self._server = _start_server(self, self.port)

    def next_picture(self) -> bytes:
        """Return the next picture as a file."""
        self._number += 1
        self.sent += 1
        return self.make(self._number - 1)

    def refuses(self, header: str | None) -> bool:
        """Return whether a request has not the right user and password."""
        if not self.user:
            return False
        right = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        return header != f"Basic {right}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, camera: WebCamera, port: int) -> None:
        self.camera = camera
        self.connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, object]:
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """A viewer that is gone is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        camera = self.server.camera
        if camera.silent.is_set():
            self._wait_until_it_speaks()
        if camera.refuses(self.headers.get("Authorization")):
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif self.path.startswith("/stream"):
            self._stream()
        elif self.path.startswith("/snapshot"):
            self._send(camera.next_picture(), "image/jpeg")
        elif self.path == "/text":
            self._send(b"<html>hello</html>", "text/html")
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        camera = self.server.camera
        while True:
            if camera.silent.is_set():
                self._wait_until_it_speaks()
            data = camera.next_picture()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")
            time.sleep(1 / camera.fps)

    def _wait_until_it_speaks(self) -> None:
        while self.server.camera.silent.is_set():
            time.sleep(0.02)


def _start_server(camera: WebCamera, port: int = 0) -> _Server:
    server = _Server(camera, port)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and send nothing; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


class RtspCamera:
    """A real RTSP server in a process: it loops the video files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.port, self._control = free_port(), free_port()
        self._folder = folder
        self.process = self._start()

    def __enter__(self) -> RtspCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"rtsp://127.0.0.1:{self.port}/{name}"

    def restart(self) -> None:
        """Start the server again at the same port."""
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        program = Path(sys.executable).with_name("rtsp-server")
        where = ["--dir", str(self._folder), "-H", "127.0.0.1"]
        ports = ["-p", str(self.port), "-cp", str(self._control)]
        process = subprocess.Popen(
            [sys.executable, str(program), *where, *ports],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return process
        process.kill()
        raise TimeoutError("the RTSP server did not start")


class UdpCamera:
    """A camera that is controlled by RTSP and sends H.264 as RTP over UDP, with FFmpeg's muxer.

    It asks for `user` and `password`. `asked` has the Authorization headers that came.
    """

    FPS = 15

    def __init__(self, user: str, password: str) -> None:
        self.user, self.password = user, password
        self.asked: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> UdpCamera:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        gone = threading.Event()
        target = 0
        with connection, connection.makefile("rb") as lines:
            try:
                while request := _read_request(lines):
                    method, headers = request
                    if (sent := headers.get("authorization")) is not None:
                        self.asked.append(sent)
                    status, more, body = self._answer(method, headers)
                    head = f"RTSP/1.0 {status}\r\nCSeq: {headers.get('cseq', '0')}\r\n{more}"
                    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                    if method == "SETUP":
                        target = _client_port(headers["transport"])
                    elif method == "PLAY":
                        threading.Thread(target=self._send, args=(target, gone)).start()
            except OSError:
                return  # the viewer is gone
            finally:
                gone.set()

    def _answer(self, method: str, headers: dict[str, str]) -> tuple[str, str, str]:
        """Return the status, more headers and the body."""
        right = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if method == "OPTIONS":
            return "200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""
        if headers.get("authorization") != f"Basic {right}":
            return "401 Unauthorized", 'WWW-Authenticate: Basic realm="camera"\r\n', ""
        if method == "DESCRIBE":
            return "200 OK", "Content-Type: application/sdp\r\n", _SDP
        if method == "SETUP":
            ports = f"{headers['transport']};server_port=0-0"
            return "200 OK", f"Session: 1\r\nTransport: {ports}\r\n", ""
        return "200 OK", "Session: 1\r\n", ""

    def _send(self, port: int, gone: threading.Event) -> None:
        with av.open(f"rtp://127.0.0.1:{port}", "w", format="rtp") as container:
            stream = container.add_stream("libx264", rate=self.FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            stream.codec_context.gop_size = self.FPS
            stream.options = {"tune": "zerolatency", "preset": "ultrafast"}
            number = 0
            while not gone.wait(1 / self.FPS):
                frame = av.VideoFrame.from_ndarray(painted(number), "bgr24")
                frame.pts, frame.time_base = number, Fraction(1, self.FPS)
                container.mux(stream.encode(frame))
                number += 1


_SDP = "\r\n".join(
    (
        "v=0",
        "o=- 0 0 IN IP4 127.0.0.1",
        "s=camera",
        "c=IN IP4 127.0.0.1",
        "t=0 0",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1",
        "a=control:track",
        "",
    )
)


def _client_port(transport: str) -> int:
    """Return the first port of `client_port=6000-6001`."""
    return int(transport.partition("client_port=")[2].partition("-")[0])


def _read_request(lines: io.BufferedReader) -> tuple[str, dict[str, str]] | None:
    """Read an RTSP request; None at the end of the connection."""
    method = lines.readline().decode().partition(" ")[0]
    if not method:
        return None
    headers: dict[str, str] = {}
    while line := lines.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return method, headers
