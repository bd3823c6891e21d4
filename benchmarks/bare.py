"""The bare transport: the same bytes through the same broker with plain paho, and nothing else.

A publisher sends tiles to echo processes, keeps a window in flight for each, and counts replies of
a given size. Any MQTT program of this kind needs this time. On request an echo also calls plain cv2
on the tile: any program that processes tiles needs that time.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import paho.mqtt.client as mqtt
from photo import photo
from system import Done, System, Task

from fogmqtt.cli.demo import free_port
from fogmqtt.images.cv import cv2
from fogmqtt.transport.embedded import EmbeddedBroker
from fogmqtt.transport.own_password import USER, password_at

WINDOW = 4
#: The bytes of the reply, the width of the tile, and the index of the work.
HEAD = struct.Struct(">IIB")
WORK = ("nothing", "invert", "canny")


def client(client_id: str, port: int) -> mqtt.Client:
    connected = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5
    )
    connected.on_socket_open = lambda _client, _userdata, sock: sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    connected.username_pw_set(USER, password_at(port))
    connected.max_inflight_messages_set(100)
    connected.connect("127.0.0.1", port)
    return connected


def echo(name: str, port: int, stop: multiprocessing.synchronize.Event) -> None:
    """A device: does the work of the task's head, and replies with the requested bytes."""
    cv2.setNumThreads(1)
    device = client(name, port)

    def reply(_client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        size, width, work = HEAD.unpack_from(message.payload)
        tile = np.frombuffer(message.payload, np.uint8)
        tile = tile[: len(tile) // width * width].reshape(-1, width)
        if WORK[work] == "invert":
            cv2.bitwise_not(tile)
        elif WORK[work] == "canny":
            cv2.Canny(tile, 50, 150)
        device.publish(f"bare/back/{name}", message.payload[:size], qos=1)

    device.on_message = reply
    device.on_connect = lambda *_: device.subscribe(f"bare/out/{name}", 1)
    device.loop_start()
    stop.wait()
    device.disconnect()
    device.loop_stop()


@dataclass(frozen=True)
class Load:
    """The gray pixels of the tiles, and the bytes of a reply."""

    pixels: bytes
    width: int
    tiles: int
    back: int
    work: str = "nothing"

    def tasks(self) -> list[bytes]:
        size = len(self.pixels) // self.tiles
        head = HEAD.pack(self.back, self.width, WORK.index(self.work))
        starts = range(0, size * self.tiles, size)
        return [head + self.pixels[start + len(head) : start + size] for start in starts]


class Bare:
    """Echo processes and their publisher."""

    def __init__(self, port: int, devices: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._names = [f"echo{number}" for number in range(devices)]
        self._processes = [
            context.Process(target=echo, args=(name, port, self._stop)) for name in self._names
        ]
        for process in self._processes:
            process.start()
        self._client = client("bare", port)
        self._client.on_message = self._on_message
        self._client.subscribe("bare/back/+", 1)
        self._client.loop_start()
        self._lock = threading.Lock()
        self._left: list[bytes] = []
        self._missing = 0
        self._done = threading.Event()
        self._await_echoes()

    def run(self, tasks: list[bytes]) -> None:
        """Send all tasks, and wait for their replies."""
        self._left = tasks
        self._missing = len(tasks)
        self._done.clear()
        for _ in range(WINDOW):
            for name in self._names:
                self._send(name)
        if not self._done.wait(60):
            raise RuntimeError(f"{self._missing} replies are missing after 60 s")

    def close(self) -> None:
        self._stop.set()
        for process in self._processes:
            process.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _await_echoes(self) -> None:
        """Publish until each echo replies: messages before their subscription are lost."""
        silent = set(self._names)
        self._client.on_message = lambda _client, _userdata, message: silent.discard(
            message.topic.rsplit("/", 1)[1]
        )
        while silent:
            for name in sorted(silent):
                self._client.publish(f"bare/out/{name}", HEAD.pack(HEAD.size, 1, 0), qos=1)
            time.sleep(0.3)
        time.sleep(0.3)
        self._client.on_message = self._on_message

    def _send(self, name: str) -> None:
        with self._lock:
            if not self._left:
                return
            tile = self._left.pop()
        self._client.publish(f"bare/out/{name}", tile, qos=1)

    def _on_message(self, _client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        self._send(message.topic.rsplit("/", 1)[1])
        self._missing -= 1
        if self._missing == 0:
            self._done.set()


@dataclass
class BareSystem:
    """The bare transport as a system under measurement. It makes no image."""

    bare: Bare
    works: bool
    tasks: list[bytes]

    def prepare(self, task: Task) -> None:
        image = photo(task.megapixels)
        work = task.pipeline if self.works else "nothing"
        back = max(HEAD.size, task.bytes_back)
        self.tasks = Load(image.tobytes(), image.shape[1], task.tiles, back, work).tasks()

    def run(self, task: Task) -> Done:
        self.bare.run(self.tasks)
        return Done(None, task.tiles, task.bytes_back)


@contextmanager
def start(name: str, workers: int, _speeds: tuple[float, ...]) -> Iterator[System]:
    """Start a broker and echoes; those of `bare+work` call plain cv2 on each tile."""
    with ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        bare = Bare(int(broker.url.rsplit(":", 1)[1]), workers)
        stack.callback(bare.close)
        yield BareSystem(bare, name == "bare+work", [])
