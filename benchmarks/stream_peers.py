"""What others take for the same frames: three workers, each of which does whole frames.

A lane is one worker of a peer. It takes a gray frame, and returns when its edges are there. None of
the peers spreads frames or drops old ones by itself: here each lane takes the newest frame when its
worker has answered, which is more than any of them does.
"""

from __future__ import annotations

import multiprocessing
import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
from bare import client

from fogmqtt.cli.demo import free_port
from fogmqtt.images.cv import cv2, one_thread
from fogmqtt.images.spec import Image

Lane = Callable[[Image], Image]
Lanes = Callable[[int, str], AbstractContextManager[list[Lane]]]

_CONTEXT = multiprocessing.get_context("spawn")
#: Seconds after which a frame counts as lost.
_PATIENCE_S = 10.0


def edges(gray: Image) -> Image:
    """Do what the pipeline of the benchmark does with a gray frame."""
    return cv2.Canny(gray, 50, 150)


def hub(port: int) -> None:
    """A worker of imagezmq."""
    import imagezmq

    one_thread()
    images = imagezmq.ImageHub(open_port=f"tcp://127.0.0.1:{port}")
    while True:
        _, gray = images.recv_image()
        images.send_reply(edges(gray).tobytes())


@contextmanager
def imagezmq_lanes(workers: int, _url: str) -> Iterator[list[Lane]]:
    """A request of a sender carries a frame, and the reply of its hub the edges."""
    import imagezmq

    def lane(sender: imagezmq.ImageSender, gray: Image) -> Image:
        return np.frombuffer(sender.send_image("", gray), np.uint8).reshape(gray.shape)

    with ExitStack() as stack:
        lanes: list[Lane] = []
        for _ in range(workers):
            port = free_port()
            _start(stack, hub, port)
            sender = imagezmq.ImageSender(connect_to=f"tcp://127.0.0.1:{port}")
            stack.callback(sender.close)
            lanes.append(partial(lane, sender))
        yield lanes


def subscriber(number: int, port: int, shape: tuple[int, int]) -> None:
    """A worker of naive MQTT: the pixels come in a message, and the edges go back in one."""
    one_thread()
    worker = client(f"naive{number}", port)

    def reply(_client: object, _userdata: object, message: object) -> None:
        gray = np.frombuffer(message.payload, np.uint8).reshape(shape)
        worker.publish(f"naive/back/{number}", edges(gray).tobytes())

    worker.on_message = reply
    worker.on_connect = lambda *_: worker.subscribe(f"naive/out/{number}")
    worker.loop_forever()


@contextmanager
def mqtt_lanes(workers: int, url: str, shape: tuple[int, int]) -> Iterator[list[Lane]]:
    """Plain paho through the broker of the benchmark, QoS 0, without anything around it."""
    port = urlsplit(url).port
    assert port is not None
    backs: list[queue.SimpleQueue[bytes]] = [queue.SimpleQueue() for _ in range(workers)]
    with ExitStack() as stack:
        mine = client("naive", port)
        mine.on_message = lambda _client, _userdata, message: backs[
            int(message.topic.rsplit("/", 1)[1])
        ].put(message.payload)
        mine.subscribe("naive/back/+")
        mine.loop_start()
        stack.callback(mine.loop_stop)
        stack.callback(mine.disconnect)

        def lane(number: int, gray: Image, patience_s: float = _PATIENCE_S) -> Image:
            mine.publish(f"naive/out/{number}", gray.tobytes())
            back = backs[number].get(timeout=patience_s)
            return np.frombuffer(back, np.uint8).reshape(gray.shape)

        lanes = [partial(lane, number) for number in range(workers)]
        for number, each in enumerate(lanes):
            _start(stack, subscriber, number, port, shape)
            _await(partial(each, np.zeros(shape, np.uint8), 0.5))
        yield lanes


@contextmanager
def dask_lanes(workers: int, _url: str) -> Iterator[list[Lane]]:
    """`Client.submit` for each frame; Dask chooses the worker."""
    from dask_system import cluster_client

    with cluster_client(workers) as dask:
        dask.run(one_thread)
        yield [lambda gray: dask.submit(edges, gray, pure=False).result()] * workers


def present(shape: tuple[int, int]) -> tuple[Mapping[str, Lanes], list[str]]:
    """Return the peers that can be measured here, and a sentence for each that cannot."""
    peers: dict[str, Lanes] = {"naive MQTT": partial(mqtt_lanes, shape=shape)}
    lacking = []
    for name, package, lanes in (
        ("imagezmq", "imagezmq", imagezmq_lanes),
        ("Dask", "distributed", dask_lanes),
    ):
        if find_spec(package) is None:
            lacking.append(f"{name} is not measured: pip install -e '.[bench]' brings {package}")
        else:
            peers[name] = lanes
    return peers, lacking


def _start(stack: ExitStack, work: Callable[..., None], *arguments: object) -> None:
    process = _CONTEXT.Process(target=work, args=arguments, daemon=True)
    process.start()
    stack.callback(process.join)
    stack.callback(process.terminate)


def _await(first: Callable[[], object]) -> None:
    """Send until the worker answers: what is published before it has subscribed is lost."""
    while True:
        try:
            first()
        except queue.Empty:
            continue
        return
