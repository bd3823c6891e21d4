"""The Python API for coroutines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fogmqtt
from fogmqtt.client.async_fog import AsyncFog
from fogmqtt.images.spec import Image
from tests.fog import free_port
from tests.processes import photo

PHOTO = photo(60, 80)
LARGE = photo(600, 600)
SLOW = "denoise h=10 template=9 search=35"


def in_fog(test: Callable[[AsyncFog], Awaitable[None]]) -> None:
    """Run a coroutine with a fog of this machine's cores."""

    async def main() -> None:
        async with asyncio.timeout(60), fogmqtt.aconnect("local") as fog:
            await test(fog)

    asyncio.run(main())


async def none_under_way(fog: AsyncFog) -> None:
    while fog._fog._door.jobs():
        await asyncio.sleep(0.01)


def test_coroutines_get_images_facts_and_devices() -> None:
    async def test(fog: AsyncFog) -> None:
        several = await asyncio.gather(*(fog.run(PHOTO[:rows], "invert") for rows in (20, 40)))
        assert [np.array_equal(one, 255 - PHOTO[: len(one)]) for one in several] == [True, True]
        assert (await fog.measure(PHOTO, "gray | stats"))["pixels"] == 4800
        assert np.array_equal(await fog.submit(PHOTO, "invert"), 255 - PHOTO)
        assert np.array_equal(await fog.run(PHOTO, "invert", progress=True), 255 - PHOTO)
        assert [device.id for device in await fog.devices()] == ["local"]
        with pytest.raises(fogmqtt.PipelineError, match="did you mean 'canny'"):
            await fog.run(PHOTO, "cany")

    in_fog(test)


def test_a_stream_may_come_from_either_kind_of_iterable() -> None:
    async def frames() -> AsyncIterator[Image]:
        for rows in (30, 10, 20):
            await asyncio.sleep(0)
            yield PHOTO[:rows]

    def threads() -> Iterator[Image]:
        for rows in (30, 10, 20):
            assert threading.current_thread() is not threading.main_thread()
            yield PHOTO[:rows]

    async def test(fog: AsyncFog) -> None:
        for source in (frames(), threads()):
            heights = [len(one) async for one in fog.map(source, "invert", ahead=2, progress=True)]
            assert heights == [30, 10, 20]

    in_fog(test)


def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    async def broken() -> AsyncIterator[Image]:
        yield PHOTO
        raise OSError("the camera is gone")

    async def test(fog: AsyncFog) -> None:
        results = fog.map(broken(), "invert")
        assert np.array_equal(await anext(results), 255 - PHOTO)
        with pytest.raises(OSError, match="the camera is gone"):
            await anext(results)
        kinds = [type(one) async for one in fog.map([PHOTO, b"x"], "invert", errors="yield")]
        assert kinds == [np.ndarray, fogmqtt.ImageError]

    in_fog(test)


def test_a_stream_that_is_left_early_cancels_what_is_under_way() -> None:
    async def test(fog: AsyncFog) -> None:
        async for _ in fog.map([PHOTO[:9, :9], LARGE, LARGE], SLOW, tiles="auto"):
            break
        await none_under_way(fog)

    in_fog(test)


def test_a_cancelled_coroutine_cancels_its_job() -> None:
    async def test(fog: AsyncFog) -> None:
        for progress in (False, True):
            running = asyncio.create_task(fog.run(LARGE, SLOW, tiles="grid 8x8", progress=progress))
            while not fog._fog._door.jobs():
                await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await none_under_way(fog)

    in_fog(test)


def test_the_programs_own_event_loop_is_never_needed_by_a_job() -> None:
    async def test(fog: AsyncFog) -> None:
        job = fog.submit(PHOTO, "invert", tiles="grid 2x2")
        result: Any = job.result(30)  # the loop stands still meanwhile
        assert np.array_equal(result, 255 - PHOTO)

    in_fog(test)


def test_connecting_can_be_cancelled_and_fails_as_it_does_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOGMQTT_BROKER__EMBEDDED", "never")
    monkeypatch.setenv("FOGMQTT_BROKER__CONNECT_TIMEOUT_S", "0.5")
    url = f"mqtt://127.0.0.1:{free_port()}"

    async def late() -> None:
        async with asyncio.timeout(0.1), fogmqtt.aconnect(url):
            pass

    async def nobody() -> None:
        async with fogmqtt.aconnect(url):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(late())
    with pytest.raises(fogmqtt.NoBroker, match="nothing listens at"):
        asyncio.run(nobody())


def test_a_fog_that_was_not_entered_says_how() -> None:
    with pytest.raises(fogmqtt.FogError, match="this fog is not connected; use it as"):
        fogmqtt.aconnect("local").submit(PHOTO)
