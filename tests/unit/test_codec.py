"""The codecs: lossless in both directions, and safe for bytes from other machines."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.errors import WireError
from fogmqtt.images import codec
from fogmqtt.images.spec import Image

DTYPES = ["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"]


def noise(shape: tuple[int, ...], dtype: str = "uint8") -> Image:
    data = np.random.default_rng(1).integers(0, 255, shape)
    return data.astype(dtype)


def states(height: int, width: int) -> Image:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.choice(np.array([0, 128, 255], np.uint8), (height, width))


def announced(image: Image) -> tuple[int, int, int]:
    return (*image.shape[:2], image.shape[2] if image.ndim == 3 else 1)


def round_trip(image: Image, name: str) -> Image:
    data = bytes(codec.encode(image, name))
    return codec.decode(data, name, announced(image), image.dtype.name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (7, 5, 3), (1, 9, 4)])
def test_raw_holds_any_image(shape: tuple[int, ...], dtype: str) -> None:
    image = noise(shape, dtype)
    assert np.array_equal(round_trip(image, "raw"), image)


def test_raw_is_a_view_of_a_contiguous_image_and_a_copy_of_any_other() -> None:
    image = noise((6, 6))
    view = codec.encode(image, "raw")
    assert isinstance(view, memoryview)
    assert np.may_share_memory(np.frombuffer(view, np.uint8), image)
    assert bytes(codec.encode(image[1:4, 2:5], "raw")) == image[1:4, 2:5].tobytes()


def test_a_decoded_raw_image_is_a_read_only_view() -> None:
    image = codec.decode(b"abcdef", "raw", (2, 3, 1), "uint8")
    assert not image.flags.writeable


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (7, 5, 3), (4, 9, 4)])
def test_png_holds_8_and_16_bits(shape: tuple[int, ...], dtype: str) -> None:
    image = noise(shape, dtype)
    assert np.array_equal(round_trip(image, "png"), image)


@settings(deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_planes_hold_three_states(height: int, width: int) -> None:
    image = states(height, width)
    assert np.array_equal(round_trip(image, "bitplanes"), image)


def defined_planes(image: Image) -> bytes:
    """What is deflated by the definition in docs/protocol.md, from a transposed image."""
    columns = image.T
    planes = b"".join(np.packbits(columns == value, axis=1).T.tobytes() for value in (255, 128))
    blocks = [planes[start : start + 64].ljust(64, b"\0") for start in range(0, len(planes), 64)]
    used = np.packbits([any(block) for block in blocks]).tobytes()
    return used + b"".join(block for block in blocks if any(block))


@settings(deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    values=st.sampled_from([(0, 128, 255), (0, 255), (0, 128), (128,), (255,), (0,)]),
    share=st.sampled_from([0.0, 0.01, 1.0]),
)
def test_planes_have_the_bits_of_the_definition(
    height: int, width: int, values: tuple[int, ...], share: float
) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    image = rng.choice(np.array(values, np.uint8), (height, width))
    image[rng.random(image.shape) >= share] = 0
    assert zlib.decompress(codec.encode(image, "bitplanes")) == defined_planes(image)
    assert np.array_equal(round_trip(image, "bitplanes"), image)


def test_planes_of_empty_blocks_are_accepted_too() -> None:
    """Another program need not look for them."""
    whole = zlib.compress(b"\x80" + b"\x01" * 6 + bytes(58))
    image = codec.decode(whole, "bitplanes", (8, 6, 1), "uint8")
    assert (image[7] == 255).all()
    empty = zlib.compress(b"\x80" + bytes(64))
    assert not codec.decode(empty, "bitplanes", (8, 6, 1), "uint8").any()


@pytest.mark.parametrize("value", sorted({*range(256)} - {0, 128, 255}))
def test_planes_refuse_every_other_value(value: int) -> None:
    for row in range(9):
        image = states(9, 3)
        image[row, 1] = value
        with pytest.raises(WireError, match="only the values 0, 128 and 255"):
            codec.encode(image, "bitplanes")


def test_planes_of_edges_are_small() -> None:
    image: Image = np.zeros((1000, 1000), np.uint8)
    image[::100] = 255
    assert len(codec.encode(image, "bitplanes")) < 0.001 * image.size


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        ("png", noise((3, 3), "int16"), "png cannot hold a 1-channel int16"),
        ("png", noise((3, 3, 2)), "png cannot hold a 2-channel"),
        ("bitplanes", noise((3, 3, 3)), "bitplanes cannot hold"),
        ("bitplanes", np.full((3, 3), 7, np.uint8), "only the values 0, 128 and 255"),
        ("jpeg", noise((3, 3)), "codec 'jpeg' is unknown; known are raw, png, bitplanes"),
    ],
)
def test_an_image_that_a_codec_cannot_hold_is_refused(
    name: str, image: Image, message: str
) -> None:
    with pytest.raises(WireError, match=message):
        codec.encode(image, name)


PNG = bytes(codec.encode(noise((4, 6)), "png"))
PLANES = bytes(codec.encode(states(4, 6), "bitplanes"))


@pytest.mark.parametrize(
    ("data", "name", "shape", "dtype", "message"),
    [
        (b"abcde", "raw", (2, 3, 1), "uint8", "5 bytes of pixels, but .* needs 6"),
        (b"abcdefg", "raw", (2, 3, 1), "uint8", "7 bytes of pixels"),
        (b"abc", "raw", (1, 3, 1), "object", "dtype 'object'"),
        (b"", "raw", (0, 3, 1), "uint8", "has no pixels"),
        (b"", "raw", (-2, -3, 1), "uint8", "has no pixels"),
        (b"", "raw", (1_000_000, 1_000_000, 4), "float64", "cut smaller"),
        (b"abc", "webp", (1, 3, 1), "uint8", "codec 'webp' is unknown"),
        (b"", "png", (4, 6, 1), "uint8", "0 bytes are no PNG"),
        (b"x" * 60, "png", (4, 6, 1), "uint8", "no PNG"),
        (PNG, "png", (4, 7, 1), "uint8", "announced"),
        (PNG, "png", (4, 6, 3), "uint8", "announced"),
        (PNG, "png", (4, 6, 1), "uint16", "announced"),
        (PNG[:-12], "png", (4, 6, 1), "uint8", "truncated"),
        (PNG[:40] + b"\0" * 9 + PNG[49:], "png", (4, 6, 1), "uint8", "cannot be decoded"),
        (PLANES, "bitplanes", (4, 6, 3), "uint8", "one channel of uint8"),
        (
            PLANES,
            "bitplanes",
            (40, 200, 1),
            "uint8",
            "do not inflate to the 32 blocks",
        ),
        (PLANES, "bitplanes", (4, 600, 1), "uint8", "do not inflate"),
        (PLANES[:-5], "bitplanes", (4, 6, 1), "uint8", "do not inflate"),
        (PLANES + b"x", "bitplanes", (4, 6, 1), "uint8", "do not inflate"),
        (b"garbage", "bitplanes", (4, 6, 1), "uint8", "cannot be inflated"),
        (zlib.compress(b"\x80" * 64), "bitplanes", (4, 6, 1), "uint8", "do not inflate"),
        (zlib.compress(b"\x80" * 66), "bitplanes", (4, 6, 1), "uint8", "do not inflate"),
        (
            zlib.compress(b"\x80" + b"\xff" * 64),
            "bitplanes",
            (4, 6, 1),
            "uint8",
            "both an edge and open",
        ),
    ],
)
def test_bytes_that_do_not_hold_the_announced_image_are_refused(
    data: bytes, name: str, shape: tuple[int, int, int], dtype: str, message: str
) -> None:
    with pytest.raises(WireError, match=message):
        codec.decode(data, name, shape, dtype)


def test_a_decompression_bomb_is_not_inflated() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    with pytest.raises(WireError, match="do not inflate to the 1 blocks of their map"):
        codec.decode(bomb, "bitplanes", (4, 6, 1), "uint8")


def test_a_shape_that_the_bytes_cannot_fill_is_refused_before_it_is_allocated() -> None:
    for name, data in (("bitplanes", PLANES), ("png", _png_header(16_000, 16_000))):
        with pytest.raises(WireError, match="cannot hold the"):
            codec.decode(data, name, (16_000, 16_000, 1), "uint8")


def _png_header(height: int, width: int) -> bytes:
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return PNG[:16] + size + PNG[24:]


@settings(deadline=None, max_examples=300)
@given(
    data=st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: PNG[:50] + tail),
    name=st.sampled_from(["raw", "png", "bitplanes"]),
)
def test_random_bytes_are_refused_or_give_an_image_of_the_announced_shape(
    data: bytes, name: str
) -> None:
    try:
        image = codec.decode(data, name, (4, 6, 1), "uint8")
    except WireError:
        return
    assert image.shape == (4, 6)
