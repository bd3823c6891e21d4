"""The same fleets as workers of Dask: a process and a thread each, and tasks that take their time.

A task carries a tile's pixels there and back. Dask decides who gets which, and when.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import time

import numpy as np
from distributed import Client, LocalCluster, as_completed, get_worker
from emulated import DROP, MP, Case, image, later

from fogmqtt.images.spec import Image
from fogmqtt.workers.throttle import Throttle

#: Pixels of a tile; the best is told.
TILES = (MP // 8, MP // 4, MP // 2, MP)
#: After a worker was killed a new fleet is needed, so only one is tried.
USUAL = MP // 4


def run(case: Case, rounds: int) -> list[float]:
    """Seconds of each round with the tiles that suit Dask best."""
    if case.fault == "killed":
        return [_fleet(case, (USUAL,), 1)[0][0] for _ in range(rounds)]
    return min(_fleet(case, TILES, rounds), key=statistics.median)


def _fleet(case: Case, tiles: tuple[int, ...], rounds: int) -> list[list[float]]:
    """Rounds with each size of tiles, on one fleet."""
    workers = LocalCluster(
        n_workers=len(case.speeds),
        threads_per_worker=1,
        dashboard_address=None,
        silence_logs=logging.CRITICAL,
    )
    with workers, Client(workers) as client:
        _job(client, case, USUAL, faulty=False)
        return [
            [_job(client, case, pixels, faulty=True) for _ in range(rounds)] for pixels in tiles
        ]


def _job(client: Client, case: Case, pixels: int, *, faulty: bool) -> float:
    client.wait_for_workers(len(case.speeds))  # one may be starting anew
    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
    paces = {
        at: Throttle([speed, speed * DROP]) for at, speed in zip(workers, case.speeds, strict=True)
    }
    if faulty and case.fault == "drops":
        paces[workers[0]].next_speed(time.time() + case.fault_s)
    whole = image(case.pixels)
    made = np.empty_like(whole)
    victim = client.run(os.getpid)[workers[0]]
    kills = case if faulty and case.fault == "killed" else Case("", case.speeds, case.pixels, 0.0)
    rows = max(1, pixels // whole.shape[1])
    began = time.perf_counter()
    with later(kills, lambda: os.kill(victim, signal.SIGKILL)):
        tops = range(0, len(whole), rows)
        futures = {
            client.submit(work, whole[top : top + rows], paces, key=f"{began}-{top}"): top
            for top in tops
        }
        for future, part in as_completed(futures, with_results=True):
            made[futures[future] : futures[future] + rows] = part
        return time.perf_counter() - began


def work(tile: Image, paces: dict[str, Throttle]) -> Image:
    """Inverted, and not before the worker's speed allows."""
    began = time.time()
    done = np.bitwise_not(tile)
    pace = paces.get(get_worker().address)
    while pace is not None and (left_s := pace.finish_time(began, tile.size) - time.time()) > 0:
        time.sleep(left_s)
    return done
