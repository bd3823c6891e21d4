"""Dask arrays: one job for each chunk, with the halo that the pipeline needs around it.

A chunk with its halo is to a job what a tile is to a device, so the same rule holds: chunks equal
the whole, bit for bit.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fogmqtt.client.request import Plan
from fogmqtt.core.geometry import Rect
from fogmqtt.errors import ImageError, UsageError
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.memory import refuse_memory
from fogmqtt.operators.api.pipeline import Stage, parse, split_stages

#: Runs the job of a chunk and waits for its result.
RunPlan = Callable[[Plan, Image], Image]


def map_blocks(run_plan: RunPlan, array: Any, plan: Plan) -> Any:
    """Return a dask array of the results of a plan for the chunks of a dask array.

    Raises UsageError without dask and for pipelines that must see the whole image, ImageError for
    an array that is no image, and OperatorError for an image that an operator does not take.
    """
    dask, dask_array = _load_dask()
    array = _checked(array)
    spec = _spec(array)
    stage = _only_stage(parse(plan.request.pipeline), spec)
    result = stage.result

    def block(core: Rect) -> Any:
        outer = core.grown(stage.halo, spec.size, stage.align)
        job = _Block(run_plan, plan, core.within(outer))
        shape = (core.height, core.width, *result.array_shape[2:])
        pixels = dask.delayed(job, name=f"fog-{uuid.uuid4().hex}")(array[outer.slices])
        return dask_array.from_delayed(pixels, shape, dtype=result.dtype)

    rows, columns = (list(pairwise(_edges(chunks))) for chunks in array.chunks[:2])
    return dask_array.concatenate(
        [
            dask_array.concatenate(
                [block(Rect(top, left, bottom - top, right - left)) for left, right in columns],
                axis=1,
            )
            for top, bottom in rows
        ],
        axis=0,
    )


@dataclass(frozen=True, slots=True)
class _Block:
    """Runs the job of one chunk, and cuts the halo off its result."""

    run_plan: RunPlan
    plan: Plan
    #: The chunk, in the coordinates of the chunk with its halo.
    core: Rect

    def __call__(self, pixels: Image) -> Image:
        result: Image = self.run_plan(self.plan, pixels)[self.core.slices]
        return result.copy()  # the halo's memory is freed

    def __dask_tokenize__(self) -> str:
        return uuid.uuid4().hex  # a running fog has no value that a key could be made of


def _load_dask() -> tuple[Any, Any]:
    """Return the modules, whose functions have no types. Raises UsageError without dask."""
    try:
        import dask
        import dask.array
    except ImportError:
        raise UsageError(
            "map_blocks needs dask; install dask[array], or the extra fogmqtt[dask]"
        ) from None
    return dask, dask.array


def _checked(array: Any) -> Any:
    """Return a dask array whose chunks have all channels. Raises ImageError."""
    if not hasattr(array, "chunks") or not hasattr(array, "rechunk"):
        raise ImageError(
            f"map_blocks takes a dask array, not a {type(array).__name__}; use fog.run, or "
            "dask.array.from_array"
        )
    if array.ndim not in (2, 3):
        raise ImageError(
            f"map_blocks: an array of {array.shape}; an image has the shape (height, width) or "
            "(height, width, channels)"
        )
    if any(math.isnan(size) for size in array.shape):
        raise ImageError(
            "map_blocks: the array does not know the sizes of its chunks; call "
            "array.compute_chunk_sizes() first"
        )
    if array.ndim == 2:
        return array
    return array[:, :, 0] if array.shape[2] == 1 else array.rechunk({2: -1})


def _spec(array: Any) -> Spec:
    height, width, channels = array.shape if array.ndim == 3 else (*array.shape, 1)
    return Spec(height, width, channels, array.dtype.name)


def _only_stage(operators: tuple[Operator, ...], spec: Spec) -> Stage:
    """Return the stage of a pipeline that needs no more than a halo. Raises UsageError."""
    refuse_memory(operators)
    for operator in operators:
        if not _needs_a_halo_only(operator):
            raise UsageError(
                f"map_blocks: {operator.name} must see the whole image, and a chunk with a halo is "
                "only a part of it; use fog.run for the whole array"
            )
    (stage,) = split_stages(operators, spec)
    return stage


def _needs_a_halo_only(operator: Operator) -> bool:
    """Whether a result pixel depends on the pixels within the halo, and on nothing else."""
    depends_on_place = type(operator).for_tile is not Operator.for_tile
    return (
        operator.tiled
        and not operator.ends_stage
        and not operator.reads_image
        and not depends_on_place
    )


def _edges(chunks: tuple[int, ...]) -> list[int]:
    edges = [0]
    for size in chunks:
        edges.append(edges[-1] + size)
    return edges
