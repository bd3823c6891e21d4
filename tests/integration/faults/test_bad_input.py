"""Bad input gets one clear line, the right exit code, and harms nobody."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from fogmqtt.images.spec import Image
from tests.processes import Fog, edges_of, fog_at, gray_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def alone(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """A gateway that does everything itself: what is wrong here is wrong before any device."""
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("alone"), GATEWAY__LOCAL="always") as fog:
        fog.save("in.png", photo(90, 120))
        yield fog


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


WHOLE = cv2.imencode(".png", photo(90, 120))[1].tobytes()
JPEG = cv2.imencode(".jpg", photo(90, 120))[1].tobytes()

FILES: dict[str, tuple[bytes, str]] = {
    "words.jpg": (b"To whom it may concern\n", "not an image"),
    "zero-bytes.png": (b"", "empty"),
    "half.png": (WHOLE[: len(WHOLE) // 2], "truncated"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "flipped.png": (WHOLE[:2000] + bytes([WHOLE[2000] ^ 255]) + WHOLE[2001:], "damaged"),
    "no-rows.png": (png_header(10, 0), "no pixels"),
    "bomb.png": (png_header(100_000, 100_000), "limits.max_pixels"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_image_is_refused_by_name(alone: Fog, name: str) -> None:
    data, says = FILES[name]
    path = alone.folder / name
    path.write_bytes(data)
    error = alone.run(path, "-o", "out.png", code=1).error
    assert name in error
    assert says in error


def test_a_missing_file_is_refused_by_name(alone: Fog) -> None:
    assert "absent.png: No such file" in alone.run("absent.png", "-o", "out.png", code=1).error


def test_the_limit_of_pixels_is_the_configured_one(alone: Fog) -> None:
    error = alone.run("in.png", "-o", "out.png", code=1, LIMITS__MAX_PIXELS="10799").error
    assert "120x90 is 10800 pixels, over limits.max_pixels = 10799" in error
    alone.run("in.png", "-o", "out.png", LIMITS__MAX_PIXELS="10800")


@pytest.mark.parametrize("mode", ["CMYK", "P", "RGBA", "LA", "1", "I;16"])
def test_unusual_kinds_of_images_become_what_opencv_reads(alone: Fog, mode: str) -> None:
    name = "kind.jpg" if mode == "CMYK" else "kind.png"
    path = alone.folder / name
    if mode == "I;16":
        rng = np.random.default_rng(1)
        Pillow.fromarray(rng.integers(0, 65536, (90, 120), np.uint16)).save(path)
        pipeline, expected = "to8bit | canny", _sixteen
    else:
        Pillow.fromarray(photo(90, 120)).convert(mode).save(path)
        pipeline, expected = "gray | canny", edges_of
    ran = alone.run(
        path, "-o", "out.png", "--pipeline", pipeline, "--verify", "--tiles", "grid 2x2"
    )
    assert ran.report["differ"] == 0
    assert same(read(alone.folder / "out.png"), expected(path))
    if mode in ("CMYK", "RGBA", "LA"):
        assert "converted" in ran.err or "alpha channel dropped" in ran.err


def test_sixteen_bits_are_refused_by_an_operator_that_cannot(alone: Fog) -> None:
    deep = alone.save("deep.png", np.full((40, 40), 40_000, np.uint16))
    error = alone.run(deep, "-o", "out.png", code=1).error
    assert "canny" in error
    assert "uint16" in error


@pytest.mark.parametrize(
    ("pipeline", "says"),
    [
        ("gray | cany", "canny"),
        ("gray | canny lo=3", "low"),
        ("gray | canny low=many", "low"),
        ("gray | canny aperture=4", "aperture"),
        ("gray | median ksize=6", "ksize"),
        ("gray || canny", "between the bars"),
        ("", "empty"),
    ],
)
def test_a_wrong_word_in_a_pipeline_is_named(alone: Fog, pipeline: str, says: str) -> None:
    assert says in alone.run("in.png", "-o", "out.png", "--pipeline", pipeline, code=2).error


@pytest.mark.parametrize(
    ("tiles", "says"),
    [
        ("grid 121x1", "finer than the image's 120x90"),
        ("grid 0x2", "at least 1"),
        ("some", "is not a tile plan"),
        ("size 512", "is not a tile plan"),
    ],
)
def test_an_impossible_way_to_cut_is_told(alone: Fog, tiles: str, says: str) -> None:
    code = 1 if tiles == "grid 121x1" else 2
    assert says in alone.run("in.png", "-o", "out.png", "--tiles", tiles, code=code).error


def test_a_tile_larger_than_a_message_is_told_with_the_way_out(alone: Fog) -> None:
    error = alone.run(
        *("in.png", "-o", "out.png", "--tiles", "grid 1x1"),
        code=1,
        WIRE__MAX_MESSAGE_BYTES="5000",
    ).error
    assert "wire.max_message_bytes" in error
    assert "tiles: auto" in error


def test_a_message_limit_too_small_for_any_tile_is_told(alone: Fog) -> None:
    error = alone.run(
        *("in.png", "-o", "out.png", "--pipeline", "gray | median ksize=99"),
        code=1,
        WIRE__MAX_MESSAGE_BYTES="4096",
        GATEWAY__LOCAL="never",
    ).error
    assert "no tile fits into a message of 4096 bytes" in error


@pytest.mark.parametrize("tiles", ["grid 3x3", "size 5x5"])
def test_a_halo_larger_than_the_image_is_no_obstacle(alone: Fog, tiles: str) -> None:
    path = alone.save("tiny.png", photo(20, 20))
    alone.run(path, "-o", "out.png", "--pipeline", "gray | median ksize=61", "--tiles", tiles)
    assert same(read(alone.folder / "out.png"), cv2.medianBlur(gray_of(path), 61))


def test_an_image_of_one_pixel_is_an_image(alone: Fog) -> None:
    path = alone.save("dot.png", photo(1, 1))
    alone.run(path, "-o", "out.png", "--verify")
    assert same(read(alone.folder / "out.png"), edges_of(path))


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("out.gif", "cannot write '.gif' files; use one of .png"),
        ("nowhere/out.png", "no folder nowhere"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_before_any_work(
    alone: Fog, out: str, says: str
) -> None:
    assert says in alone.run("in.png", "-o", out, code=2).error


def test_several_images_into_one_file_are_refused(alone: Fog) -> None:
    (alone.folder / "taken.png").write_bytes(WHOLE)
    error = alone.run("in.png", "in.png", "-o", "taken.png", code=2).error
    assert "several images need a folder" in error


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("BROKER__URK", "x", "FOGMQTT_BROKER__URL"),
        ("BROKER__URL", "http://x", "mqtt://"),
        ("GATEWAY__ID", "a/b", "is not an id"),
        ("GATEWAY__ID", "x" * 33, "is not an id"),
        ("GATEWAY__ID", "+", "is not an id"),
        ("WIRE__PREFIX", "a/#", "cannot begin a topic"),
        ("WIRE__QOS", "3", "WIRE__QOS"),
        ("TILES", "many", "is not a tile plan"),
        ("POST", "invrt", "invert"),
    ],
)
def test_a_wrong_setting_is_named_with_its_way_out(
    alone: Fog, setting: str, value: str, says: str
) -> None:
    ran = alone.run("in.png", "-o", "out.png", code=2, **{setting: value})
    assert says in ran.error


def test_an_unknown_key_in_the_file_is_named_with_the_nearest(alone: Fog) -> None:
    config = alone.folder / "bad.yaml"
    config.write_text("gateway:\n  spol: here\n")
    done = alone.command("--config", str(config))
    assert done.returncode == 2
    assert (
        done.stderr == f"error: {config}: gateway.spol: unknown key; did you mean gateway.spool?\n"
    )


def test_a_serving_gateway_finds_a_wrong_pipeline_at_its_start(alone: Fog) -> None:
    serving = alone.start_serving(PIPELINES__EDGES="gray | cany")
    assert serving.ended() == 2
    assert "error: pipelines.edges: column 8: no operator is called 'cany'" in serving.said


def test_nobody_listens_to_an_unknown_command(alone: Fog) -> None:
    done = alone.command("dance")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_devices_command_lists_who_is_there(alone: Fog, tmp_path: Path) -> None:
    with fog_at(tmp_path, alone.broker) as other:
        assert "no device has announced itself at this broker" in other.command("devices").stdout
        other.fleet("eya")
        assert '"online": true' in other.command("devices", "--json").stdout
        assert "eya" in other.command("devices").stdout


def _sixteen(path: Path) -> Image:
    return cv2.Canny((read(path) >> 8).astype(np.uint8), 50, 150)
