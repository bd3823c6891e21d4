"""Clients see pictures of jobs: the original, and the result as far as it is merged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.pictures import picture, to_8_bits
from fogmqtt.images.spec import Image
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import TileTask
from tests.fog import wait_for
from tests.gateway_rig import PlayedDevice, accepted, result
from tests.processes import PATIENCE_S, photo
from tests.serving import Serving
from tests.unit.test_service import client

IMAGE = photo(60, 80)
PICTURE = cv2.imencode(".png", IMAGE)[1].tobytes()


def pixels(view: msg.View) -> Image:
    found = cv2.imdecode(np.frombuffer(view.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert found is not None
    return found


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Serving]:
    with Serving(str(tmp_path / "spool"), "never", tiles="grid 2x2") as made:
        yield made


def test_the_picture_of_a_running_job_fills_in_tile_by_tile(waiting: Serving) -> None:
    page = client(waiting)
    held: list[TileTask] = []

    def answer_two(task: TileTask) -> list[object]:
        held.append(task)
        return [accepted(task), *([result(task)] if len(held) <= 2 else [])]

    device = PlayedDevice(waiting.broker, "eya", answer=answer_two)  # type: ignore[arg-type]
    device.start()
    job = page.upload(PICTURE, pipeline="invert").job.id
    wait_for(lambda: page.card(job).done == 2, within=PATIENCE_S, what="two tiles")
    wait_for(lambda: len(held) == 4, within=PATIENCE_S, what="all tiles at the device")
    first = page.ask(msg.GetView, msg.View, job=job, format="png")
    assert (first.height, first.width, first.area) == (60, 80, (0, 0, 60, 80))
    shown = pixels(first)
    done = (shown == 255 - IMAGE).all(axis=-1)
    missing = (shown == 0).all(axis=-1)
    assert (done | missing).all()
    assert abs(int(done.sum()) - 60 * 80 // 2) < 60 * 80 // 8
    # A tile may have been pasted between the first picture's version and its pixels.
    shown_version = page.ask(msg.GetView, msg.View, job=job, version=first.version).version
    same = page.ask(msg.GetView, msg.View, job=job, version=shown_version)
    assert (same.data, same.version) == (b"", shown_version)
    device.publish(held[2], result(held[2]))
    wait_for(lambda: page.card(job).done == 3, within=PATIENCE_S, what="the third tile")
    more = page.ask(msg.GetView, msg.View, job=job, version=shown_version, format="png")
    assert more.version > shown_version
    original = page.ask(msg.GetView, msg.View, job=job, file="original", format="png")
    assert np.array_equal(pixels(original), IMAGE)
    device.publish(held[3], result(held[3]))
    assert page.ended(job).state == "done"
    last = page.ask(msg.GetView, msg.View, job=job, version=more.version, format="png")
    assert last.version > more.version
    assert np.array_equal(pixels(last), 255 - IMAGE)


def test_an_area_is_shown_with_single_pixels_and_a_large_one_smaller(tmp_path: Path) -> None:
    with Serving(str(tmp_path / "spool")) as serving:
        page = client(serving)
        job = page.upload(PICTURE, pipeline="invert").job.id
        page.ended(job)
        area = (10, 20, 16, 24)
        view = page.ask(msg.GetView, msg.View, job=job, area=area, format="png")
        assert np.array_equal(pixels(view), 255 - IMAGE[10:26, 20:44])
        small = page.ask(msg.GetView, msg.View, job=job, max_side=40)
        assert pixels(small).shape == (30, 40, 3)
        beyond = page.ask(msg.GetView, msg.View, job=job, area=(50, 70, 100, 100), format="png")
        assert beyond.area == (50, 70, 10, 10)
        assert page.refused(msg.GetView, job=job, area=(60, 0, 1, 1)).kind == "invalid"
        assert page.refused(msg.GetView, job=job, area=(0, 0, 0, 5)).kind == "invalid"
        assert page.refused(msg.GetView, job="j0").kind == "not-found"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int32"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_image_has_a_picture(dtype: str, channels: int) -> None:
    shape = (50, 70) if channels == 1 else (50, 70, channels)
    image = np.random.default_rng(1).integers(0, 200, shape).astype(dtype)
    for form in ("jpeg", "png"):
        data = picture(image, 35, form)  # type: ignore[arg-type]
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert shown is not None
        assert shown.shape[:2] == (25, 35)


def test_values_of_odd_ranges_fill_the_screens() -> None:
    floats = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert to_8_bits(floats).tolist() == [[0, 127, 255]]
    labels = np.array([[0, 10, 20]], np.int32)
    assert to_8_bits(labels).tolist() == [[0, 127, 255]]
    assert to_8_bits(np.full((1, 2), np.nan, np.float32)).tolist() == [[0, 0]]
    assert to_8_bits(np.full((1, 2), 7, np.int32)).tolist() == [[0, 0]]


def test_a_picture_fits_into_a_message() -> None:
    noise = np.random.default_rng(2).integers(0, 256, (800, 1000, 3), np.uint8)
    assert len(picture(noise, 1000, "png")) > 1_000_000
    assert len(picture(noise, 1000, "png", 100_000)) <= 100_000
