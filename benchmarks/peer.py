"""What all peers share: strips of an image, the work on a strip, and how results are put together.

A peer is another library that can spread the work over processes. For canny a strip has the rows
around it that cv2.Canny reads; an edge that continues in another strip still comes out wrong.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from emulated import DROP
from photo import HALO, photo, whole
from system import Done, Task

from fogmqtt.images.spec import Image
from fogmqtt.workers.throttle import Throttle


@dataclass(frozen=True)
class Order:
    """What a worker does with a strip."""

    pipeline: str
    #: Rows of halo that the worker removes from its result.
    above: int
    below: int
    #: The emulated speeds of all workers in pixels per second; empty to work at full speed.
    speeds: tuple[float, ...] = ()
    #: The time at which the first worker's speed drops.
    drop_at: float | None = None


@dataclass(frozen=True)
class Strip:
    """The pixels of a strip with its halo, and the rows of its result in the whole."""

    rows: slice
    pixels: Image
    order: Order


@dataclass
class Sheet:
    """An image in strips, and the whole result that grows."""

    strips: list[Strip]
    result: Image
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.strips)

    def paste(self, strip: Strip, part: Image) -> None:
        self.result[strip.rows] = part.reshape(-1, self.result.shape[1])
        self.missing -= 1

    def done(self) -> Done:
        assert self.missing == 0, f"{self.missing} strips are missing"
        return Done(self.result, len(self.strips))


def sheet(task: Task, speeds: Iterable[float] = ()) -> Sheet:
    """Cut the photograph into the task's number of strips, as equal as rows allow."""
    image, halo = photo(task.megapixels), HALO[task.pipeline]
    drop_at = None if task.drop_after_s is None else time.time() + task.drop_after_s
    bounds = [len(image) * number // task.tiles for number in range(task.tiles + 1)]
    strips = []
    for top, bottom in pairwise(bounds):
        first, last = max(0, top - halo), min(len(image), bottom + halo)
        order = Order(task.pipeline, top - first, last - bottom, tuple(speeds), drop_at)
        strips.append(Strip(slice(top, bottom), image[first:last], order))
    return Sheet(strips, np.empty_like(image))


def process(pixels: Image, order: Order, number: int) -> Image:
    """Do the work on a strip in worker `number`, and return no sooner than its speed allows."""
    began = time.time()
    made = whole(pixels, order.pipeline)
    made = made[order.above : len(made) - order.below]
    if order.speeds:
        speed = order.speeds[number]
        throttle = Throttle((speed, speed * DROP))
        if order.drop_at is not None and number == 0:
            throttle.next_speed(order.drop_at)
        time.sleep(max(0.0, throttle.finish_time(began, made.size) - time.time()))
    return made
