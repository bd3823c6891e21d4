"""The bare transport: the same bytes through the same broker with plain paho, and nothing else.

A publisher sends tiles to echo processes, keeps a window in flight for each, and counts answers
of a given size. It is what any MQTT program of this shape must spend. On request an echo also
calls plain cv2 on the tile: what any program that has the work done must spend.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import threading
import time
from dataclasses import dataclass

import numpy as np
import paho.mqtt.client as mqtt

from fogmqtt.images.cv import cv2

WINDOW = 4
#: Bytes to answer with, the tile's width, what to do with it.
HEAD = struct.Struct(">IIB")
WORK = ("nothing", "invert", "canny")


def client(client_id: str, port: int) -> mqtt.Client:
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    made.on_socket_open = lambda _client, _userdata, sock: sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    made.max_inflight_messages_set(100)
    made.connect("127.0.0.1", port)
    return made


def echo(name: str, port: int, stop: multiprocessing.synchronize.Event) -> None:
    """A device: does what the task's head says, and answers with as many bytes as it says."""
    cv2.setNumThreads(1)
    device = client(name, port)

    def answer(_client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        size, width, work = HEAD.unpack_from(message.payload)
        tile = np.frombuffer(message.payload, np.uint8)
        tile = tile[: len(tile) // width * width].reshape(-1, width)
        if WORK[work] == "invert":
            cv2.bitwise_not(tile)
        elif WORK[work] == "canny":
            cv2.Canny(tile, 50, 150)
        device.publish(f"bare/back/{name}", message.payload[:size], qos=1)

    device.on_message = answer
    device.on_connect = lambda *_: device.subscribe(f"bare/out/{name}", 1)
    device.loop_start()
    stop.wait()
    device.disconnect()
    device.loop_stop()


@dataclass(frozen=True)
class Load:
    """The tiles' pixels, gray, and bytes per answer."""

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

    def seconds(self, load: Load) -> float:
        """How long `load` takes, round trip."""
        self._left = load.tasks()
        self._missing = load.tiles
        self._done.clear()
        began = time.perf_counter()
        for _ in range(WINDOW):
            for name in self._names:
                self._send(name)
        if not self._done.wait(60):
            raise RuntimeError(f"{self._missing} tiles never came back")
        return time.perf_counter() - began

    def close(self) -> None:
        self._stop.set()
        for process in self._processes:
            process.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _await_echoes(self) -> None:
        """Knock until each has answered; what is published before they listen is lost."""
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
