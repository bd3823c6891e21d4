"""imagezmq as a system under measurement: a hub in each worker, and a sender for each hub.

A sender's request carries a strip, and the hub's reply its result. imagezmq itself spreads no work
and repeats nothing: here each sender takes the next strip when its hub has replied.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from queue import Empty, SimpleQueue

import imagezmq
import numpy as np
from peer import Order, Sheet, Strip, process, sheet
from photo import photo
from system import Done, System, Task

from fogmqtt.cli.demo import free_port
from fogmqtt.images.cv import one_thread


@dataclass(frozen=True)
class ImageZmq:
    """Sends strips to whichever hub is free, from a thread for each."""

    senders: list[imagezmq.ImageSender]
    threads: ThreadPoolExecutor
    speeds: tuple[float, ...]

    def prepare(self, task: Task) -> None:
        photo(task.megapixels)

    def run(self, task: Task) -> Done:
        whole = sheet(task, self.speeds)
        left: SimpleQueue[Strip] = SimpleQueue()
        for strip in whole.strips:
            left.put(strip)
        for sent in [self.threads.submit(_send, each, left, whole) for each in self.senders]:
            sent.result()
        return whole.done()


def _send(sender: imagezmq.ImageSender, left: SimpleQueue[Strip], whole: Sheet) -> None:
    while True:
        try:
            strip = left.get_nowait()
        except Empty:
            return
        reply = sender.send_image(json.dumps(asdict(strip.order)), strip.pixels)
        whole.paste(strip, np.frombuffer(reply, np.uint8))


def hub(port: int, number: int) -> None:
    """Serve strips until this process is ended."""
    one_thread()
    images = imagezmq.ImageHub(open_port=f"tcp://127.0.0.1:{port}")
    while True:
        text, pixels = images.recv_image()
        images.send_reply(process(pixels, Order(**json.loads(text)), number).tobytes())


@contextmanager
def start(_name: str, workers: int, speeds: tuple[float, ...]) -> Iterator[System]:
    """Start a hub in each worker process, and connect a sender to each."""
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        senders = []
        for number in range(workers):
            port = free_port()
            worker = context.Process(target=hub, args=(port, number), daemon=True)
            worker.start()
            stack.callback(worker.join)
            stack.callback(worker.terminate)
            sender = imagezmq.ImageSender(connect_to=f"tcp://127.0.0.1:{port}")
            stack.callback(sender.close)
            senders.append(sender)
        yield ImageZmq(senders, stack.enter_context(ThreadPoolExecutor(workers)), speeds)
