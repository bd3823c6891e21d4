"""The bare transport: the same bytes through the same broker with plain paho, and nothing else.

A publisher sends tiles to echo processes, keeps a window in flight for each, and counts answers
of a given size. It is what any MQTT program of this shape must spend.
"""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from dataclasses import dataclass

import paho.mqtt.client as mqtt

WINDOW = 4


def client(client_id: str, port: int) -> mqtt.Client:
    made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv5)
    made.on_socket_open = lambda _client, _userdata, sock: sock.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )
    made.max_inflight_messages_set(100)
    made.connect("127.0.0.1", port)
    return made


def echo(name: str, port: int, stop: multiprocessing.synchronize.Event) -> None:
    """A device that does nothing: answers with as many bytes as the task's head says."""
    device = client(name, port)

    def answer(_client: object, _userdata: object, message: mqtt.MQTTMessage) -> None:
        size = int.from_bytes(message.payload[:4], "big")
        device.publish(f"bare/back/{name}", message.payload[:size], qos=1)

    device.on_message = answer
    device.on_connect = lambda *_: device.subscribe(f"bare/out/{name}", 1)
    device.loop_start()
    stop.wait()
    device.disconnect()
    device.loop_stop()


@dataclass(frozen=True)
class Load:
    """Bytes per tile, out and back."""

    tiles: int
    out: int
    back: int


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
        time.sleep(2)  # the echoes have no way to say that they are there

    def seconds(self, load: Load) -> float:
        """How long `load` takes, round trip."""
        tile = load.back.to_bytes(4, "big") + bytes(load.out - 4)
        self._left = [tile] * load.tiles
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
