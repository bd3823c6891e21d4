"""The Python API on the cores of this machine: what a program gives, gets, and gets wrong."""

from __future__ import annotations

import gc
import io
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ALL_COMPLETED, CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest

import fogmqtt
from fogmqtt.client.fog import Fog
from fogmqtt.images.spec import Image
from tests.fog import wait_for
from tests.processes import photo

PHOTO = photo(120, 160)
#: Seconds of work that no test waits for.
SLOW = "denoise h=10 template=9 search=35"
LARGE = photo(2000, 2000)


@pytest.fixture(scope="module")
def fog() -> Iterator[Fog]:
    with fogmqtt.connect("local") as made:
        yield made


def edges(image: Image = PHOTO) -> Image:
    return cv2.Canny(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), 50, 150)


def png(image: Image) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


class Lazy:
    """Pixels that somebody else's library holds."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Image:
        return PHOTO


def test_every_kind_of_image_gives_the_same_array(fog: Fog, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(PHOTO))
    given = (
        PHOTO,
        path,
        str(path),
        png(PHOTO),
        bytearray(png(PHOTO)),
        PIL.Image.open(path),
        Lazy(),
        np.asfortranarray(PHOTO),
    )
    for image in given:
        got = fog.run(image, "gray | canny low=50 high=150")
        assert np.array_equal(got, edges()), type(image)
        assert got.flags.writeable


def test_colours_are_in_the_order_that_was_asked_for(fog: Fog, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png(PHOTO))
    expected = 255 - PHOTO
    rgb = PHOTO[:, :, ::-1]
    assert np.array_equal(fog.run(PHOTO, "invert"), expected)
    assert np.array_equal(fog.run(rgb, "invert", colour="rgb"), expected[:, :, ::-1])
    assert np.array_equal(fog.run(path, "invert", colour="rgb"), expected[:, :, ::-1])
    # Gray weighs the colours, so the order counts although the result has none.
    assert np.array_equal(fog.run(rgb, "gray", colour="rgb"), fog.run(PHOTO, "gray"))
    # A Pillow image knows its order.
    assert np.array_equal(fog.run(PIL.Image.open(path), "invert"), expected)


def test_the_order_of_colours_is_that_of_the_fog_unless_a_call_says_otherwise() -> None:
    with fogmqtt.connect("local", colour="rgb") as fog:
        assert np.array_equal(fog.run(PHOTO, "gray"), cv2.cvtColor(PHOTO, cv2.COLOR_RGB2GRAY))
        assert np.array_equal(
            fog.run(PHOTO, "gray", colour="bgr"), cv2.cvtColor(PHOTO, cv2.COLOR_BGR2GRAY)
        )
    with pytest.raises(fogmqtt.ImageError, match=r"colour='grb': expected 'bgr' .* or 'rgb'"):
        fogmqtt.connect("local", colour="grb")  # type: ignore[arg-type]


def test_channels_that_are_no_colours_keep_their_order(fog: Fog) -> None:
    rgb = np.ascontiguousarray(PHOTO[:, :, ::-1])
    hsv = cv2.cvtColor(PHOTO, cv2.COLOR_BGR2HSV)
    assert np.array_equal(fog.run(rgb, "hsv", colour="rgb"), hsv)
    there_and_back = fog.run(rgb, "hsv | hsv back=true", colour="rgb")
    assert np.array_equal(there_and_back, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def test_an_alpha_channel_stays_the_last(fog: Fog) -> None:
    rgba = np.dstack((PHOTO, np.full(PHOTO.shape[:2], 7, np.uint8)))
    got = fog.run(rgba, "median ksize=3", colour="rgb")
    assert np.array_equal(got, cv2.medianBlur(rgba, 3))


def test_other_dtypes_and_one_channel(fog: Fog) -> None:
    gray = PHOTO[:, :, 0]
    assert np.array_equal(fog.run(gray[:, :, np.newaxis], "invert"), 255 - gray)
    sixteen = gray.astype(">u2") * 256
    got = fog.run(sixteen, "invert")
    assert got.dtype == np.uint16
    assert np.array_equal(got, 65535 - sixteen)
    halves = gray.astype(np.float32) / 255
    assert fog.run(halves, "gaussian").dtype == np.float32


def test_facts_come_as_a_dict(fog: Fog) -> None:
    facts = fog.measure(PHOTO, "gray | stats")
    assert facts["pixels"] == 120 * 160
    assert fog.submit(PHOTO, "gray | stats").result() == facts


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4), bool), "bool values; convert it, such as with mask.astype"),
        (np.zeros((4, 4), np.float16), r"float16 values; .*image.astype\(np.float32\)"),
        (np.zeros((4, 4), np.int64), "int64 values; convert it"),
        (np.array([["a"]]), "they are no pixels"),
        (np.zeros((4,), np.uint8), r"an array of \(4,\); an image has the shape"),
        (np.zeros((0, 4), np.uint8), "has no pixels"),
        (np.zeros((3, 40, 50), np.uint8), r"channels come last: give image.transpose\(1, 2, 0\)"),
        (np.zeros((4, 4, 5), np.uint8), "has 5 channels; 1, 3 or 4 are possible"),
        ([[1, 2], [3, 4]], "a list is no image; give an array, a path, the bytes"),
        (None, "a NoneType is no image"),
        (b"GIF and nothing", "not an image that is read here: it is a text file"),
        ("no/such/photo.png", "no/such/photo.png: No such file"),
    ],
)
def test_what_is_no_image_is_refused_with_a_way_out(fog: Fog, image: object, says: str) -> None:
    with pytest.raises(fogmqtt.ImageError, match=says):
        fog.run(image, "invert")


def test_an_image_that_an_operator_does_not_take_is_named(fog: Fog) -> None:
    with pytest.raises(fogmqtt.OperatorError, match="canny takes uint8, not 4x4 gray float32"):
        fog.run(np.zeros((4, 4), np.float32), "canny")


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda fog: fog.run(PHOTO, "edgs"), fogmqtt.PipelineError, "did you mean 'edges'"),
        (lambda fog: fog.run(PHOTO, "gray | cany"), fogmqtt.PipelineError, "mean 'canny'"),
        (lambda fog: fog.run(PHOTO, "canny lo=5"), fogmqtt.PipelineError, "mean 'low'"),
        (lambda fog: fog.run(PHOTO, ""), fogmqtt.PipelineError, "the pipeline is empty"),
        (lambda fog: fog.run(PHOTO, "stats"), fogmqtt.UsageError, "use fog.measure"),
        (lambda fog: fog.measure(PHOTO, "gray"), fogmqtt.UsageError, "use fog.run"),
        (lambda fog: fog.map([], "cany"), fogmqtt.PipelineError, "mean 'canny'"),
        (lambda fog: fog.map([], "gray", ahead=0), fogmqtt.UsageError, "ahead=0"),
        (lambda fog: fog.map([], "gray", errors="skip"), fogmqtt.UsageError, "errors='skip'"),
        (lambda fog: fog.run(PHOTO, "gray", verfy=True), TypeError, "did you mean 'verify'"),
        (lambda fog: fog.run(PHOTO, "gray", pages="all"), fogmqtt.UsageError, "fog.submit"),
        (lambda fog: fog.submit(PHOTO, "gray", pages=0), fogmqtt.UsageError, "pages=0"),
        (lambda fog: fog.submit(PHOTO, "gray", priority=9), fogmqtt.UsageError, "-4 to 4"),
        (lambda fog: fog.submit(PHOTO, "gray", timeout=0), fogmqtt.UsageError, "timeout=0"),
        (lambda fog: fog.submit(PHOTO, "gray", tiles="3"), fogmqtt.FogError, "not a tile plan"),
    ],
)
def test_a_mistake_is_told_at_the_call(fog: Fog, call: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        call(fog)


def test_the_configured_pipeline_is_the_default(fog: Fog) -> None:
    assert np.array_equal(fog.run(PHOTO), edges())
    assert np.array_equal(fog.run(PHOTO, "edges"), edges())
    assert fog.pipelines == {"edges": "gray | canny low=50 high=150"}


def test_futures_work_with_the_standard_library(fog: Fog) -> None:
    jobs = {fog.submit(PHOTO[:rows], "invert"): rows for rows in (30, 60, 90)}
    for job in as_completed(jobs, timeout=30):
        assert np.array_equal(job.result(), 255 - PHOTO[: jobs[job]])
    done, _ = wait(jobs, 30, ALL_COMPLETED)
    assert done == set(jobs)
    job = fog.submit(PHOTO, "gray")
    assert job.exception(30) is None
    assert job.progress.fraction == 1.0
    assert str(job.progress) == f"100 %, {job.progress.done} of {job.progress.tiles} tiles"
    assert "gray: done, 100 %" in repr(job)
    assert job.report.pixels == 120 * 160
    assert not job.cancel()


def test_an_array_may_be_changed_as_soon_as_it_is_submitted(fog: Fog) -> None:
    image = PHOTO.copy()
    job = fog.submit(image, "invert")
    image[:] = 0
    assert np.array_equal(job.result(30), 255 - PHOTO)


def test_a_callback_neither_blocks_other_jobs_nor_the_gateway(fog: Fog) -> None:
    release, called = threading.Event(), threading.Event()

    def callback(job: Future[Any]) -> None:
        called.set()
        release.wait(30)

    fog.submit(PHOTO, "invert").add_done_callback(callback)
    assert called.wait(30)
    assert fog.devices()  # the gateway's event loop answers
    release.set()


def test_cancel_really_ends_the_job(fog: Fog) -> None:
    job = fog.submit(LARGE, SLOW, tiles="grid 8x8")
    wait_for(job.running, what="the job's turn")
    assert job.cancel()
    assert job.cancelled()
    assert wait([job], 0).done == {job}
    with pytest.raises(CancelledError):
        job.result()
    assert job.cancel(), "a second time changes nothing"
    wait_for(lambda: fog._door.jobs() == (), what="the end of the job")
    assert np.array_equal(fog.run(PHOTO), edges()), "the cores are free again"


def test_ctrl_c_ends_a_job_whose_future_nobody_has_yet(
    fog: Fog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fogmqtt.client.future.JobFuture.add_done_callback", interrupted)
    for call in (fog.run, fog.submit):
        with pytest.raises(KeyboardInterrupt):
            call(LARGE, SLOW, tiles="grid 8x8")
        wait_for(lambda: fog._door.jobs() == (), within=30, what="no job")


def test_a_time_limit_ends_the_job_and_is_a_timeout(fog: Fog) -> None:
    with pytest.raises(TimeoutError, match=r"not done after 0\.05 s") as late:
        fog.run(LARGE, SLOW, tiles="grid 8x8", timeout=0.05)
    assert isinstance(late.value, fogmqtt.JobTimedOut)
    wait_for(lambda: fog._door.jobs() == ())


def test_waiting_for_a_result_may_end_before_the_job_does(fog: Fog) -> None:
    job = fog.submit(LARGE, SLOW, tiles="grid 8x8")
    with pytest.raises(TimeoutError):
        job.result(0.01)
    assert not job.done()
    job.cancel()


def test_progress_grows_from_stage_to_stage(fog: Fog) -> None:
    job = fog.submit(photo(600, 600), "median ksize=9 | equalize | median ksize=9")
    seen = [0.0]
    while not job.done():
        seen.append(job.progress.fraction)
    assert seen == sorted(seen)
    job.result()
    assert job.progress.fraction == 1.0


def test_a_map_yields_in_order(fog: Fog) -> None:
    heights = [100, 20, 60, 10, 90, 30]
    results = fog.map([PHOTO[:rows] for rows in heights], "invert", ahead=3)
    assert [image.shape[0] for image in results] == heights


def test_a_map_takes_only_a_few_images_ahead_and_keeps_none_behind(fog: Fog) -> None:
    taken = 0
    alive: list[weakref.ref[Image]] = []

    def camera() -> Iterator[Image]:
        nonlocal taken
        while True:
            taken += 1
            frame = PHOTO.copy()
            alive.append(weakref.ref(frame))
            yield frame

    stream = fog.map(camera(), "invert", ahead=3)
    for index, result in enumerate(stream, 1):
        assert np.array_equal(result, 255 - PHOTO)
        assert taken <= index + 3
        if index == 20:
            break
    stream.close()  # type: ignore[attr-defined]
    del result
    gc.collect()
    assert sum(one() is not None for one in alive) <= 1  # the camera's own


def test_a_map_that_is_left_early_cancels_what_is_under_way(fog: Fog) -> None:
    results = fog.map([PHOTO[:9, :9], LARGE, LARGE, LARGE], SLOW, ahead=4)
    next(results)
    assert len(fog._door.jobs()) == 3
    results.close()  # type: ignore[attr-defined]
    wait_for(lambda: fog._door.jobs() == (), what="the end of all jobs")


def test_an_error_of_the_source_comes_after_the_results_before_it(fog: Fog) -> None:
    def broken() -> Iterator[Image]:
        yield PHOTO
        yield PHOTO
        raise OSError("the camera is gone")

    results = fog.map(broken(), "invert", ahead=8)
    assert all(np.array_equal(next(results), 255 - PHOTO) for _ in range(2))
    with pytest.raises(OSError, match="the camera is gone"):
        next(results)


def test_a_failed_image_ends_a_map_or_takes_its_place_there(fog: Fog) -> None:
    images = [PHOTO, np.zeros((2, 2), bool), b"no image", PHOTO]
    results = fog.map(images, "invert")
    next(results)
    with pytest.raises(fogmqtt.ImageError, match="bool values"):
        next(results)
    kinds = [type(result) for result in fog.map(images, "invert", errors="yield")]
    assert kinds == [np.ndarray, fogmqtt.ImageError, fogmqtt.ImageError, np.ndarray]


def test_several_pages_come_as_a_list_if_all_are_wanted(fog: Fog) -> None:
    file = io.BytesIO()
    pages = [PIL.Image.fromarray(PHOTO[:rows, :, 0]) for rows in (40, 50)]
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    both = fog.submit(file.getvalue(), "invert", pages="all").result(30)
    assert [page.shape[0] for page in both] == [40, 50]
    assert fog.run(file.getvalue(), "invert").shape[0] == 40
    assert fog.run(file.getvalue(), "invert", pages=2).shape[0] == 50
    facts = fog.submit(file.getvalue(), "stats", pages="all").result(30)
    assert [page["pixels"] for page in facts] == [40 * 160, 50 * 160]


def test_what_was_dropped_from_a_file_is_noted(fog: Fog) -> None:
    rgba = np.dstack((PHOTO, np.full(PHOTO.shape[:2], 7, np.uint8)))
    job = fog.submit(png(rgba), "invert")
    job.result(30)
    assert "alpha channel dropped" in " ".join(job.report.notes)
    assert "alpha channel dropped" in repr(job.report)


def test_a_verified_result_is_compared_with_one_machine(fog: Fog) -> None:
    job = fog.submit(PHOTO, "gray | canny", verify=True, tiles="grid 2x2")
    job.result(30)
    assert job.report.differ == 0


def test_the_fleet_and_reports_are_tables_in_a_notebook(fog: Fog) -> None:
    fleet = fog.devices()
    assert [device.id for device in fleet.online] == ["local"]
    html = fleet._repr_html_()
    assert html.startswith("<table><caption>1 online, ")
    assert "<td>local</td><td>online</td>" in html
    job = fog.submit(PHOTO, "invert", name="<b>photo</b>")
    job.result(30)
    html = job.report._repr_html_()
    assert "&lt;b&gt;photo&lt;/b&gt;: invert: " in html
    assert "<script" not in html
    assert "<td>local</td>" in html


def test_a_closed_fog_says_so() -> None:
    fog = fogmqtt.connect("local")
    stream = fog.map([PHOTO], "invert")
    fog.close()
    fog.close()
    assert fog.closed
    for call in (
        lambda: fog.run(PHOTO),
        lambda: fog.submit(PHOTO),
        lambda: next(stream),
        fog.devices,
        fog.__enter__,
    ):
        with pytest.raises(fogmqtt.FogError, match="this fog is closed; connect again"):
            call()


def test_leaving_the_block_waits_for_jobs_and_an_exception_cancels_them() -> None:
    with fogmqtt.connect("local") as fog:
        job = fog.submit(PHOTO, "invert")
    assert np.array_equal(job.result(0), 255 - PHOTO)
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), fogmqtt.connect("local") as fog:  # noqa: PT012
        job = fog.submit(LARGE, SLOW, tiles="grid 8x8")
        wait_for(job.running)
        _ = 1 / 0
    assert job.cancelled()
    assert time.monotonic() - began < 20


def test_a_fog_that_is_dropped_ends_its_threads() -> None:
    fog = fogmqtt.connect("local")
    job = fog.submit(PHOTO, "invert")
    threads = fog._thread._thread, fog._settler._thread
    del fog
    gc.collect()
    assert np.array_equal(job.result(30), 255 - PHOTO), "a job keeps its fog"
    del job
    gc.collect()
    wait_for(lambda: not any(one.is_alive() for one in threads), what="the end of its threads")


def test_two_fogs_work_at_once(fog: Fog) -> None:
    with fogmqtt.connect("local") as other:
        jobs = [one.submit(PHOTO, "invert") for one in (fog, other)]
        assert all(np.array_equal(job.result(30), 255 - PHOTO) for job in jobs)


def test_progress_is_shown_on_stderr(fog: Fog, capsys: pytest.CaptureFixture[str]) -> None:
    fog.run(PHOTO, "invert", progress=True, name="photo")
    list(fog.map([PHOTO] * 3, "invert", progress=True))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "photo" in shown.err
    assert "100 %" in shown.err
    assert "3/3" in shown.err
