"""Dask arrays: a job for each chunk, and the same bits as for the whole image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask.array
import numpy as np
import pytest

import fogmqtt
from fogmqtt.client.fog import Fog
from fogmqtt.images.spec import Image
from tests.processes import photo

PHOTO = photo(150, 210)
GRAY = PHOTO[:, :, 1]
CHUNKS = ((40, 7, 103), (64, 101, 45))


@pytest.fixture(scope="module")
def fog() -> Iterator[Fog]:
    with fogmqtt.connect("local") as made:
        yield made


def computed(array: Any) -> Image:
    result: Image = array.compute(scheduler="threads", num_workers=2)
    return result


@pytest.mark.parametrize(
    ("image", "pipeline"),
    [
        (PHOTO, "invert"),
        (PHOTO, "gray"),
        (PHOTO, "median ksize=7 | sharpen"),
        (GRAY, "gaussian ksize=9 | median ksize=5 | sobel"),
        (GRAY, "erode ksize=11 | dilate ksize=11"),
        (GRAY.astype(np.float32) / 255, "gaussian ksize=7"),
        (PHOTO.astype(np.float32) / 255, "gaussian ksize=5 | gray | laplacian"),
        (GRAY.astype(np.uint16) * 257, "median ksize=5"),
    ],
)
def test_chunks_equal_the_whole_image(fog: Fog, image: Image, pipeline: str) -> None:
    whole = fog.run(image, pipeline)
    channels = ((image.shape[2],),) if image.ndim == 3 else ()
    array = fog.map_blocks(dask.array.from_array(image, (*CHUNKS, *channels)), pipeline)
    assert array.chunks[:2] == CHUNKS
    assert (array.shape, array.dtype) == (whole.shape, whole.dtype)
    assert np.array_equal(computed(array), whole)


def test_nothing_runs_before_the_result_is_computed(fog: Fog) -> None:
    array = fog.map_blocks(dask.array.from_array(GRAY, CHUNKS), "invert")
    part = array[:10, :10]
    assert np.array_equal(computed(part), 255 - GRAY[:10, :10])


def test_chunks_of_single_channels_are_joined_first(fog: Fog) -> None:
    array = dask.array.from_array(PHOTO, (75, 105, 1))
    assert np.array_equal(computed(fog.map_blocks(array, "gray")), fog.run(PHOTO, "gray"))
    alone = dask.array.from_array(GRAY[:, :, np.newaxis], (75, 105, 1))
    assert np.array_equal(computed(fog.map_blocks(alone, "invert")), 255 - GRAY)


def test_colours_are_in_the_order_that_was_asked_for(fog: Fog) -> None:
    rgb = dask.array.from_array(PHOTO[:, :, ::-1], (75, 105, 3))
    got = computed(fog.map_blocks(rgb, "median", colour="rgb"))
    assert np.array_equal(got, fog.run(PHOTO, "median")[:, :, ::-1])


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("gray | canny", "canny"),
        ("median | equalize", "equalize"),
        ("gray | otsu", "otsu"),
        ("clahe", "clahe"),
        ("resize width=10", "resize"),
    ],
)
def test_a_pipeline_that_must_see_the_whole_image_is_refused(
    fog: Fog, pipeline: str, name: str
) -> None:
    array = dask.array.from_array(PHOTO, (75, 105, 3))
    with pytest.raises(fogmqtt.UsageError, match=f"{name} must see the whole image"):
        fog.map_blocks(array, pipeline)


def test_what_is_no_dask_array_of_an_image_is_refused(fog: Fog) -> None:
    with pytest.raises(fogmqtt.ImageError, match="takes a dask array, not a ndarray"):
        fog.map_blocks(GRAY, "invert")  # type: ignore[arg-type]
    with pytest.raises(fogmqtt.ImageError, match=r"an array of \(5,\)"):
        fog.map_blocks(dask.array.zeros(5), "invert")
    unknown = dask.array.from_array(GRAY, CHUNKS)
    unknown = unknown[unknown[:, 0] > 3]
    with pytest.raises(fogmqtt.ImageError, match="compute_chunk_sizes"):
        fog.map_blocks(unknown, "invert")
    with pytest.raises(fogmqtt.UsageError, match="stats gives facts"):
        fog.map_blocks(dask.array.from_array(GRAY, CHUNKS), "stats")


def test_an_array_of_a_closed_fog_says_so() -> None:
    with fogmqtt.connect("local") as fog:
        array = fog.map_blocks(dask.array.from_array(GRAY, CHUNKS), "invert")
    with pytest.raises(fogmqtt.FogError, match="this fog is closed"):
        computed(array)
