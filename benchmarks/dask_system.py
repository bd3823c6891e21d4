"""Dask as a system under measurement: workers with a process and a thread each.

A future of `Client.submit` carries a strip there and back. Dask decides which worker gets it, and
when, and repeats the strips of a worker that was killed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from distributed import Client, LocalCluster, as_completed, get_worker
from peer import Order, process, sheet
from photo import photo
from system import Done, System, Task

from fogmqtt.images.cv import one_thread
from fogmqtt.images.spec import Image


@dataclass
class Dask:
    """Submits strips, and pastes results in the order in which they come."""

    client: Client
    speeds: tuple[float, ...]
    jobs: int = 0

    def prepare(self, task: Task) -> None:
        photo(task.megapixels)

    def run(self, task: Task) -> Done:
        self.jobs += 1
        if task.kill_after_s is not None:
            (victim,) = self.client.run(os.getpid, workers=[self._first()]).values()
            threading.Timer(task.kill_after_s, os.kill, (victim, signal.SIGKILL)).start()
        whole = sheet(task, self.speeds)
        futures = {
            self.client.submit(work, strip.pixels, strip.order, key=f"{self.jobs}-{number}"): strip
            for number, strip in enumerate(whole.strips)
        }
        for future, part in as_completed(futures, with_results=True):
            whole.paste(futures[future], part)
        return whole.done()

    def _first(self) -> str:
        """The address of the worker whose speed is the first."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return next(at for at, worker in workers.items() if worker["name"] == 0)


def work(pixels: Image, order: Order) -> Image:
    """Run in a worker of Dask."""
    one_thread()
    return process(pixels, order, int(get_worker().name))


@contextmanager
def cluster_client(workers: int) -> Iterator[Client]:
    """Start a cluster of processes on this machine, and yield its client."""
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    with cluster, Client(cluster) as client:
        client.wait_for_workers(workers)
        yield client


@contextmanager
def start(_name: str, workers: int, speeds: tuple[float, ...]) -> Iterator[System]:
    """Start a cluster whose workers have these speeds."""
    with cluster_client(workers) as client:
        yield Dask(client, speeds)
