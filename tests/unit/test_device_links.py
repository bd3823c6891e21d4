"""What a gateway knows of the way to each device, and the codecs that follow from it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from fogmqtt.gateway.devices.links import DeviceLinks
from tests.gateway_rig import PHOTO, Rig, config, inverted, request, run

MB = 1_000_000


def transfer(links: DeviceLinks, device: str, up_s: float, down_s: float) -> None:
    """Measure two tiles of 1 MB."""
    for start in (100.0, 200.0):
        key = device, start
        links.published(key, MB, start)
        links.confirmed(key, device, MB, start + up_s)
        links.accepted(key, device, start + up_s + down_s)


def test_the_slower_part_of_the_way_counts() -> None:
    links = DeviceLinks()
    transfer(links, "eya", 0.01, 1.0)
    transfer(links, "manar", 0.01, 0.02)
    assert links.bytes_per_s("eya") == MB
    assert round(links.bytes_per_s("manar") or 0) == 50 * MB
    assert round(links.bytes_per_s("unknown") or 0) == 100 * MB


def test_an_acceptance_before_the_confirmation_is_handled_says_nothing() -> None:
    links = DeviceLinks()
    links.published("a", MB, 1.0)
    links.accepted("a", "eya", 1.1)
    links.confirmed("a", "eya", MB, 1.2)
    transfer(links, "eya", 0.01, 1.0)
    assert links.bytes_per_s("eya") == MB


def test_every_device_knows_raw_and_others_what_they_announce() -> None:
    links = DeviceLinks()
    links.announced("eya", ["raw", "png"])
    assert links.knows("eya", "png")
    assert links.knows("manar", "raw")
    assert not links.knows("manar", "png")


def test_a_device_that_does_not_announce_bitplanes_returns_edges_raw_and_exact() -> None:
    async def sent(announced: tuple[str, ...]) -> set[str]:
        rig = Rig()
        device = rig.device(codecs=announced)
        async with rig.gateway() as gateway:
            outcome = await gateway.submit(request(pipeline="canny")).outcome()
        assert np.array_equal(outcome.image, cv2.Canny(PHOTO, 50, 150))
        return {task.result_codec for task in device.tasks}

    async def test() -> None:
        assert await sent(("raw", "bitplanes")) == {"bitplanes"}
        assert await sent(("raw",)) == {"raw"}

    run(test())


SMOOTH = np.full((96, 128), 7, np.uint8)


async def sent_codecs(announced: tuple[str, ...], wire_codec: str) -> set[tuple[str, str]]:
    """Return the codecs of the tiles that a device gets, and those that their results must have."""
    rig, made = Rig(), config()
    device = rig.device(codecs=announced)
    async with rig.gateway(replace(made, wire=replace(made.wire, codec=wire_codec))) as gateway:
        outcome = await gateway.submit(request(image=SMOOTH)).outcome()
    assert np.array_equal(outcome.image, inverted(SMOOTH))
    return {(task.codec, task.result_codec) for task in device.tasks}


def test_a_device_gets_no_codec_that_it_does_not_announce() -> None:
    async def test() -> None:
        assert await sent_codecs(("raw",), "png") == {("raw", "raw")}
        assert await sent_codecs((), "png") == {("raw", "raw")}
        assert await sent_codecs(("raw", "png"), "png") == {("png", "raw")}

    run(test())


def test_auto_is_png_both_ways_where_the_link_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float | None] = [None, 117 * MB, MB]

    async def test() -> None:
        monkeypatch.setattr(DeviceLinks, "bytes_per_s", lambda *_: rates[0])
        assert await sent_codecs(("raw", "png"), "auto") == {("raw", "raw")}
        rates.pop(0)
        assert await sent_codecs(("raw", "png"), "auto") == {("raw", "raw")}
        rates.pop(0)
        assert await sent_codecs(("raw", "png"), "auto") == {("png", "png")}
        assert await sent_codecs(("raw",), "auto") == {("raw", "raw")}

    run(test())


def test_tiles_that_no_device_accepts_tell_a_limit() -> None:
    links = DeviceLinks()
    for key in "ab":
        links.published(key, 200_000, 10.0)
        links.confirmed(key, key, 200_000, 10.1)
    assert links.packet_limit("a", 15.0) is None
    assert links.packet_limit("b", 15.0) == 131_072


def test_a_tile_of_a_size_that_arrived_before_tells_no_limit() -> None:
    links = DeviceLinks()
    for key in "abc":
        links.published(key, 200_000, 10.0)
        links.confirmed(key, key, 200_000, 10.1)
    links.accepted("a", "a", 10.2)
    assert links.packet_limit("b", 15.0) is None
    assert links.packet_limit("c", 15.0) is None


def test_a_tile_that_is_revoked_at_once_tells_no_limit() -> None:
    links = DeviceLinks()
    for key in "ab":
        links.published(key, 200_000, 10.0)
        links.confirmed(key, key, 200_000, 10.1)
        assert links.packet_limit(key, 10.5) is None
