"""Image files of every kind that docs/formats.md lists, made here, with the pixels they must give.

Run `python -m tests.corpus` to print the table of that page.
"""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image as Pillow

from fogmqtt.errors import ImageError
from fogmqtt.images import reader
from tests.corpus_bytes import (
    apng,
    bmp,
    heif_header,
    jpeg2000_of,
    packed_tiff,
    png,
    png_of,
    rle8_bmp,
)

Array = npt.NDArray[Any]
HEIGHT, WIDTH = 40, 53


@dataclass(frozen=True)
class Sample:
    """One line of the table."""

    form: str
    variant: str
    data: bytes
    #: The pixels that must come out; None if the file must be refused.
    expected: Array | None = None
    #: Part of the reason, or of the notes.
    says: str = ""
    #: What an independent decoder gives, in the same form; None where none reads the file.
    independent: Callable[[bytes], Array] | None = None
    #: How far a pixel may be from the expected one: decoders round lossy files differently.
    tolerance: float = 0


@cache
def colour(dtype: str = "uint8") -> Array:
    """RGB."""
    smooth = cv2.GaussianBlur(_noise(dtype), (7, 7), 2)
    return np.ascontiguousarray(smooth.astype(dtype))


def _noise(dtype: str) -> Array:
    rng = np.random.default_rng(11)
    if dtype.startswith("float"):
        return rng.random((HEIGHT, WIDTH, 3)).astype(np.float32) * 3 - 1
    return rng.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, 3), endpoint=True).astype(dtype)


def gray(dtype: str = "uint8") -> Array:
    return np.ascontiguousarray(colour(dtype)[..., 1])


def alpha(dtype: str = "uint8") -> Array:
    most = np.iinfo(dtype).max
    ramp = np.linspace(0, most, WIDTH).astype(dtype)
    return np.ascontiguousarray(np.broadcast_to(ramp, (HEIGHT, WIDTH)))


def bgr(rgb: Array) -> Array:
    return np.ascontiguousarray(rgb[..., ::-1])


def mask() -> Array:
    return gray() > 127


# Independent decoders. Each gives gray or BGR without alpha.


def by_pillow(data: bytes) -> Array:
    with Pillow.open(io.BytesIO(data)) as image:
        if image.mode in ("1", "L", "LA"):
            return np.asarray(image.convert("L"))
        if image.mode.startswith(("I;16", "F")):
            found = np.asarray(image)
            return found.astype(found.dtype.newbyteorder("="))
        if image.mode in ("RGBA", "RGBa") or "transparency" in image.info:
            return bgr(np.asarray(image.convert("RGBA"))[..., :3])
        return bgr(np.asarray(image.convert("RGB")))


def by_tifffile(data: bytes, page: int = 0) -> Array:
    found = tifffile.imread(io.BytesIO(data), key=page)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        planar = int(file.pages[0].planarconfig) == 2 and found.ndim == 3
    found = np.moveaxis(found, 0, -1) if planar else found
    return found if found.ndim == 2 else bgr(found[..., :3])


def by_inverted_tifffile(data: bytes) -> Array:
    """tifffile gives the values as they are stored."""
    return 65_535 - by_tifffile(data)


def by_divided_tifffile(data: bytes) -> Array:
    rgba = tifffile.imread(io.BytesIO(data)).astype(np.uint64)
    colours, opacity = rgba[..., :3], rgba[..., 3:]
    divided = np.divide(65_535 * colours, opacity, out=np.zeros(colours.shape), where=opacity > 0)
    return bgr(np.floor(divided).astype(np.uint16))


def by_ffmpeg(data: bytes, form: str) -> Array:
    """FFmpeg's decoders: JPEG 2000 as "j2k_pipe", PAM as "pam_pipe"."""
    with av.open(io.BytesIO(data), format=form) as file:
        return bgr(next(file.decode(video=0)).to_ndarray()[..., :3])


def by_cv2(data: bytes) -> Array:
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if found is None:
        raise ValueError("OpenCV reads nothing")
    return found if found.ndim == 2 else found[..., :3]


# Generators.


def pillow(image: Array | Pillow.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    made = image if isinstance(image, Pillow.Image) else Pillow.fromarray(image)
    made.save(stream, form, **options)
    return stream.getvalue()


def opencv(suffix: str, image: Array, *options: int) -> bytes:
    done, data = cv2.imencode(suffix, image, list(options))
    assert done
    return data.tobytes()


def tiff(image: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, image, metadata=None, **options)
    return stream.getvalue()


def planes(image: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(image, -1, 0))


def samples() -> list[Sample]:
    """Return all lines of the table."""
    return [
        *_tiff_layouts(),
        *_tiff_depths(),
        *_tiff_codecs(),
        *_tiff_refused(),
        *_jpeg(),
        *_png(),
        *_bmp(),
        *_webp(),
        *_others(),
        *_foreign(),
    ]


def _tiff_layouts() -> Iterator[Sample]:
    for dtype in ("uint8", "uint16", "float32"):
        rgb = colour(dtype)
        bits = np.dtype(dtype).itemsize * 8
        for layout, image in (("contig", rgb), ("separate", planes(rgb))):
            name = "interleaved" if layout == "contig" else "channels apart (planar)"
            for tile in (None, (16, 32)):
                kind = "tiles" if tile else "strips"
                data = tiff(
                    image, photometric="rgb", planarconfig=layout, tile=tile, rowsperstrip=7
                )
                yield Sample(
                    "TIFF", f"{bits}-bit RGB, {name}, {kind}", data, bgr(rgb), "", by_tifffile
                )
    big = tiff(colour("uint16"), photometric="rgb", bigtiff=True, byteorder=">")
    yield Sample("TIFF", "BigTIFF, big-endian", big, bgr(colour("uint16")), "", by_tifffile)
    for dtype in ("uint8", "uint16"):
        level, bits = gray(dtype), np.dtype(dtype).itemsize * 8
        most = np.iinfo(dtype).max
        black = tiff(level, photometric="minisblack")
        yield Sample("TIFF", f"{bits}-bit gray", black, level, "", by_pillow)
        white = tiff(level, photometric="miniswhite")
        independent = by_pillow if bits == 8 else by_inverted_tifffile
        yield Sample("TIFF", f"{bits}-bit gray, 0 is white", white, most - level, "", independent)
        rgba = np.dstack([colour(dtype), alpha(dtype)])
        loose = tiff(rgba, photometric="rgb", extrasamples=["unassalpha"])
        yield Sample(
            "TIFF",
            f"{bits}-bit RGB, alpha (unassociated)",
            loose,
            bgr(colour(dtype)),
            "alpha channel dropped",
            by_tifffile,
        )
        opacity = alpha(dtype)[..., None].astype(np.int64)
        product = (colour(dtype) * opacity // most).astype(dtype)
        divided = np.where(
            opacity > 0, product.astype(np.int64) * most // np.maximum(opacity, 1), 0
        )
        yield Sample(
            "TIFF",
            f"{bits}-bit RGB, alpha multiplied in (associated)",
            tiff(
                np.dstack([product, alpha(dtype)]), photometric="rgb", extrasamples=["assocalpha"]
            ),
            bgr(divided.astype(dtype)),
            "associated alpha divided out and dropped",
            by_pillow if bits == 8 else by_divided_tifffile,
        )
        nir = tiff(rgba, photometric="rgb", extrasamples=["unspecified"])
        yield Sample(
            "TIFF",
            f"{bits}-bit RGB and infrared",
            nir,
            bgr(colour(dtype)),
            "1 extra channel dropped",
            by_tifffile,
        )
        la = np.dstack([level, alpha(dtype)])
        yield Sample(
            "TIFF",
            f"{bits}-bit gray, alpha",
            tiff(la, photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig"),
            level,
            "alpha channel dropped",
            lambda data: tifffile.imread(io.BytesIO(data))[..., 0],
        )
    cmyk = pillow(Pillow.fromarray(colour()).convert("CMYK"), "TIFF")
    yield Sample("TIFF", "CMYK", cmyk, by_cv2(cmyk), "CMYK converted", by_pillow, 1)
    table = pillow(Pillow.fromarray(colour()).quantize(16), "TIFF")
    yield Sample("TIFF", "palette", table, by_pillow(table), "", by_cv2)
    ycc = pillow(Pillow.fromarray(colour()).convert("YCbCr"), "TIFF")
    yield Sample("TIFF", "YCbCr", ycc, by_cv2(ycc), "", by_pillow, 2)
    turned = tiff(colour(), photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    yield Sample(
        "TIFF", "turned (orientation 6)", turned, np.rot90(bgr(colour()), -1), "", by_tifffile
    )
    stack = tiff(np.stack([gray(), 255 - gray()]), photometric="minisblack")
    yield Sample("TIFF", "several pages", stack, gray(), "page 1 of 2", by_pillow)
    yield Sample(
        "TIFF",
        "a page with a reduced copy",
        _with_reduced(),
        bgr(colour()),
        "reduced copies or masks in the file left out: 1",
        lambda data: by_tifffile(data, 1),
    )


def _with_reduced() -> bytes:
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(colour()[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
        file.write(colour(), photometric="rgb", metadata=None)
    # The reduced copy comes first, as in no file that is known; the page is found all the same.
    return stream.getvalue()


def _tiff_depths() -> Iterator[Sample]:
    for bits in (1, 2, 3, 4, 5, 6, 7):
        most = (1 << bits) - 1
        values = (gray() >> (8 - bits)).astype(np.int64)
        expected = ((values * 255 + most // 2) // most).astype(np.uint8)
        independent = by_pillow if bits in (1, 2, 4) else None
        yield Sample(
            "TIFF", f"{bits}-bit gray", packed_tiff(values, bits), expected, "", independent
        )
    for bits in (10, 12, 14):
        values = (gray("uint16") >> (16 - bits)).astype(np.uint16)
        yield Sample(
            "TIFF",
            f"{bits}-bit gray",
            packed_tiff(values, bits),
            values << (16 - bits),
            f"{bits}-bit values shifted to 16 bits",
            by_cv2,
        )
    half = gray("float32").astype(np.float16)
    yield Sample(
        "TIFF",
        "16-bit floating point",
        tiff(half, photometric="minisblack"),
        half.astype(np.float32),
        "",
        lambda data: by_tifffile(data).astype(np.float32),
    )
    level = gray("float32")
    yield Sample(
        "TIFF",
        "32-bit floating point, gray",
        tiff(level, photometric="minisblack"),
        level,
        "",
        by_pillow,
    )
    double = level.astype(np.float64) * 1.000000001
    yield Sample(
        "TIFF",
        "64-bit floating point",
        tiff(double, photometric="minisblack"),
        double.astype(np.float32),
        "rounded to 32 bits",
        lambda data: by_tifffile(data).astype(np.float32),
    )


def _tiff_codecs() -> Iterator[Sample]:
    names = {
        "tiff_lzw": "LZW",
        "tiff_adobe_deflate": "deflate",
        "packbits": "PackBits",
        "zstd": "Zstandard",
        "lzma": "LZMA",
    }
    for codec, name in names.items():
        yield Sample(
            "TIFF",
            f"compressed by {name}",
            pillow(colour(), "TIFF", compression=codec),
            bgr(colour()),
            "",
            by_pillow,
        )
    for dtype in ("uint8", "uint16"):
        for order in "<>":
            image = planes(colour(dtype))
            data = tiff(
                image,
                photometric="rgb",
                planarconfig="separate",
                compression="zlib",
                predictor=True,
                byteorder=order,
            )
            bits, ends = np.dtype(dtype).itemsize * 8, "little" if order == "<" else "big"
            yield Sample(
                "TIFF",
                f"{bits}-bit, planar, deflate, differences, {ends}-endian",
                data,
                bgr(colour(dtype)),
                "",
                by_tifffile,
            )
    deep = opencv(
        ".tiff",
        bgr(colour("uint16")),
        cv2.IMWRITE_TIFF_COMPRESSION,
        5,
        cv2.IMWRITE_TIFF_PREDICTOR,
        2,
    )
    yield Sample("TIFF", "16-bit, LZW, differences", deep, bgr(colour("uint16")), "", by_cv2)
    floats = opencv(
        ".tiff",
        bgr(colour("float32")),
        cv2.IMWRITE_TIFF_COMPRESSION,
        5,
        cv2.IMWRITE_TIFF_PREDICTOR,
        3,
    )
    yield Sample(
        "TIFF",
        "32-bit floating point, LZW, differences",
        floats,
        bgr(colour("float32")),
        "",
        by_cv2,
    )
    for codec, name in (("group3", "fax (group 3)"), ("group4", "fax (group 4)")):
        yield Sample(
            "TIFF",
            f"1-bit, {name}",
            pillow(mask(), "TIFF", compression=codec),
            mask() * np.uint8(255),
            "",
            by_pillow,
        )
    jpeg = pillow(colour(), "TIFF", compression="jpeg")
    yield Sample("TIFF", "compressed by JPEG", jpeg, by_cv2(jpeg), "", by_pillow, 1)
    turned = pillow(colour(), "TIFF", compression="jpeg", tiffinfo={274: 6})
    upright = np.rot90(by_cv2(jpeg), -1)
    variant = "compressed by JPEG, turned (orientation 6)"
    yield Sample("TIFF", variant, turned, upright, "", lambda data: np.rot90(by_pillow(data)), 1)


def _tiff_refused() -> Iterator[Sample]:
    level = gray().astype(np.int64)
    for dtype, says in (
        ("int8", "8-bit signed"),
        ("int16", "16-bit signed"),
        ("uint32", "32-bit integers"),
        ("uint64", "64-bit integers"),
        ("complex64", "complex numbers"),
    ):
        data = tiff((level // 2).astype(dtype), photometric="minisblack")
        yield Sample("TIFF", f"{dtype} values", data, None, says)
    bands = np.dstack([colour(), colour()[..., :2]])
    yield Sample(
        "TIFF",
        "5 channels that are no colours",
        tiff(bands, photometric="minisblack", planarconfig="contig"),
        None,
        "5 channels that are no colours",
    )
    lab = tiff(colour(), photometric="cielab")
    yield Sample("TIFF", "CIE L*a*b*", lab, None, "CIE L.a.b. colour")
    raw = tiff(gray("uint16"), photometric="cfa")
    yield Sample("TIFF", "raw values of a camera (CFA)", raw, None, "camera's sensor")
    for codec, name in (
        (6, "old-style JPEG"),
        (34712, "JPEG 2000"),
        (34887, "LERC"),
        (50001, "WebP"),
        (50002, "JPEG XL"),
        (34661, "JBIG"),
    ):
        yield Sample(
            "TIFF",
            f"compressed by {name}",
            packed_tiff(level, 8, codec=codec),
            None,
            f"its compression is {name} ",
        )
    volume = tiff(
        np.stack([gray()] * 16), photometric="minisblack", volumetric=True, tile=(16, 16, 16)
    )
    yield Sample("TIFF", "a volume", volume, None, "volume of 16 layers")
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as file:
        file.write(np.stack([gray()] * 3), photometric="minisblack", truncate=True)
    yield Sample("TIFF", "a stack behind one page", stream.getvalue(), None, "a stack of images")
    whole = tiff(colour(), photometric="rgb", rowsperstrip=8)
    yield Sample("TIFF", "strips beyond its end", whole[:-50], None, "truncated")


def _jpeg() -> Iterator[Sample]:
    whole = pillow(colour(), "JPEG", quality=90)
    right = by_cv2(whole)
    yield Sample("JPEG", "8-bit YCbCr", whole, right, "", by_pillow)
    yield Sample(
        "JPEG", "gray", pillow(gray(), "JPEG"), by_cv2(pillow(gray(), "JPEG")), "", by_pillow
    )
    progressive = pillow(colour(), "JPEG", progressive=True)
    yield Sample("JPEG", "progressive", progressive, by_cv2(progressive), "", by_pillow)
    cmyk = pillow(Pillow.fromarray(colour()).convert("CMYK"), "JPEG")
    yield Sample("JPEG", "CMYK", cmyk, by_cv2(cmyk)[..., :3], "CMYK converted", by_pillow, 2)
    yield Sample(
        "JPEG",
        "without an end marker, all pixels there",
        whole[:-2],
        right,
        "",
        lambda data: by_pillow(data + b"\xff\xd9"),
    )
    trailer = whole + b"\0" * 700 + b"SEFH" + bytes(64)
    yield Sample("JPEG", "with a maker's trailer", trailer, right, "", by_pillow)
    exif = Pillow.Exif()
    exif[274] = 6
    turned = pillow(colour(), "JPEG", quality=90, exif=exif)
    yield Sample("JPEG", "turned (EXIF orientation 6)", turned, np.rot90(right, -1), "", by_pillow)
    mpo = pillow(
        Pillow.fromarray(colour()),
        "MPO",
        save_all=True,
        quality=90,
        append_images=[Pillow.fromarray(colour())],
    )
    yield Sample("JPEG", "several pictures (MPO)", mpo, right, "further images", by_pillow)
    large = pillow(np.tile(colour(), (8, 8, 1)), "JPEG", quality=90)
    middle = len(large) // 2
    yield Sample("JPEG", "cut at half", large[:middle], None, "it is truncated")
    yield Sample(
        "JPEG",
        "cut at half, with an end marker",
        large[:middle] + b"\xff\xd9",
        None,
        "it is truncated",
    )
    third = len(whole) // 3
    yield Sample(
        "JPEG",
        "the middle third gone",
        whole[: 2 * third] + whole[2 * third + third // 2 :],
        None,
        "missing",
    )
    zeros = large[:middle] + bytes(len(large) // 5) + large[middle + len(large) // 5 :]
    yield Sample("JPEG", "zeros in the scan", zeros, None, "missing|damaged")
    at = whole.index(b"\xff\xc0")
    announced = whole[: at + 5] + struct.pack(">HH", 8000, 12000) + whole[at + 9 :]
    yield Sample("JPEG", "announces more pixels than it has", announced, None, "missing")
    scans = [
        found for found in range(len(progressive)) if progressive[found : found + 2] == b"\xff\xda"
    ]
    yield Sample(
        "JPEG",
        "progressive, the last scans gone",
        progressive[: scans[4]] + b"\xff\xd9",
        None,
        "scans? (is|are) missing",
    )
    for marker, name in ((0xC3, "lossless JPEG"), (0xC5, "hierarchical JPEG")):
        data = whole[: at + 1] + bytes([marker]) + whole[at + 2 :]
        yield Sample("JPEG", name.removesuffix(" JPEG"), data, None, name)
    yield Sample("JPEG", "12-bit", whole[: at + 4] + b"\x0c" + whole[at + 5 :], None, "12-bit JPEG")


def _png() -> Iterator[Sample]:
    for bits in (1, 2, 4, 8, 16):
        values = (gray("uint16") >> (16 - bits)).astype(np.int64)
        most = (1 << min(bits, 8)) - 1
        expected = (
            values.astype(np.uint16) if bits == 16 else (values * 255 // most).astype(np.uint8)
        )
        yield Sample("PNG", f"{bits}-bit gray", png_of(values, 0, bits), expected, "", by_pillow)
    for dtype in ("uint8", "uint16"):
        rgb, bits = colour(dtype), np.dtype(dtype).itemsize * 8
        yield Sample(
            "PNG",
            f"{bits}-bit RGB",
            png_of(rgb, 2, bits),
            bgr(rgb),
            "",
            by_pillow if bits == 8 else by_cv2,
        )
        rgba = np.dstack([rgb, alpha(dtype)])
        yield Sample(
            "PNG",
            f"{bits}-bit RGB, alpha",
            png_of(rgba, 6, bits),
            bgr(rgb),
            "alpha channel dropped",
            by_pillow if bits == 8 else by_cv2,
        )
        la = np.dstack([gray(dtype), alpha(dtype)])
        yield Sample(
            "PNG",
            f"{bits}-bit gray, alpha",
            png_of(la, 4, bits),
            gray(dtype),
            "alpha channel dropped",
            by_pillow if bits == 8 else _gray_by_cv2,
        )
    clear = png_of(colour(), 2, 8, chunks=[(b"tRNS", struct.pack(">HHH", 1, 2, 3))])
    yield Sample(
        "PNG",
        "RGB with a transparent colour (tRNS)",
        clear,
        bgr(colour()),
        "transparency dropped",
        by_pillow,
    )
    clear = png_of(gray(), 0, 8, chunks=[(b"tRNS", struct.pack(">H", 7))])
    yield Sample(
        "PNG",
        "gray with a transparent value (tRNS)",
        clear,
        gray(),
        "transparency dropped",
        lambda data: by_pillow(data)[..., 0] if by_pillow(data).ndim == 3 else by_pillow(data),
    )
    table = pillow(Pillow.fromarray(colour()).quantize(16), "PNG")
    yield Sample("PNG", "palette", table, by_pillow(table), "", by_cv2)
    exif = Pillow.Exif()
    exif[274] = 8
    turned = pillow(colour(), "PNG", exif=exif)
    yield Sample(
        "PNG", "turned (EXIF orientation 8)", turned, np.rot90(bgr(colour())), "", by_pillow
    )
    yield Sample("PNG", "interlaced", _interlaced(), bgr(colour()), "", by_pillow)
    frames = [255 - colour(), colour() // 2]
    yield Sample(
        "PNG",
        "animation with an image of its own",
        apng(colour(), frames, own_image=True),
        bgr(colour()),
        "page 1 of 3",
        lambda data: by_cv2(png_of(colour(), 2, 8)),
    )
    yield Sample(
        "PNG",
        "animation",
        apng(colour(), frames, own_image=False),
        bgr(colour()),
        "page 1 of 3",
        by_pillow,
    )
    strip = (np.arange(1_100_000) // 7 % 3 == 0) * np.ones((2, 1), np.uint8)
    yield Sample(
        "PNG",
        "wider than 1 000 000, 8-bit",
        png_of(strip, 0, 1),
        strip.astype(np.uint8) * 255,
        "",
        by_pillow,
    )
    wide = png(struct.pack(">IIBBBBB", 1_100_000, 1, 16, 2, 0, 0, 0), bytes(6_600_001))
    yield Sample("PNG", "wider than 1 000 000, 16-bit RGB", wide, None, "1000000")
    yield Sample(
        "PNG",
        "without pixel data",
        png(struct.pack(">IIBBBBB", 5, 5, 8, 2, 0, 0, 0), None),
        None,
        "no IDAT",
    )
    whole = png_of(colour(), 2, 8)
    yield Sample("PNG", "truncated", whole[:-100], None, "truncated")
    short = png(struct.pack(">IIBBBBB", 50, 50, 8, 2, 0, 0, 0), bytes(151 * 30))
    yield Sample("PNG", "fewer rows than announced", short, None, "truncated")


def _gray_by_cv2(data: bytes) -> Array:
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _interlaced() -> bytes:
    """Adam7: seven images one after the other."""
    raw = b""
    steps = (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    )
    for top, left, down, across in steps:
        for row in colour()[top::down, left::across]:
            raw += b"\0" + row.tobytes()
    return png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1), raw)


def _bmp() -> Iterator[Sample]:
    rgb = colour().astype(np.uint32)
    yield Sample("BMP", "24-bit", bmp(bgr(colour()), 24), bgr(colour()), "", by_pillow)
    yield Sample(
        "BMP",
        "24-bit, from the top",
        bmp(bgr(colour()), 24, top_down=True),
        bgr(colour()),
        "",
        by_pillow,
    )
    quads = np.dstack([bgr(colour()), alpha()])
    yield Sample("BMP", "32-bit, fourth byte unused", bmp(quads, 32), bgr(colour()), "", by_cv2)
    for header, name in ((40, "40"), (52, "52"), (56, "56"), (108, "108"), (124, "124")):
        words = rgb[..., 0] << 24 | rgb[..., 1] << 16 | rgb[..., 2] << 8
        data = bmp(words.astype("<u4"), 32, masks=(0xFF000000, 0xFF0000, 0xFF00), header=header)
        yield Sample(
            "BMP",
            f"32-bit RGBX masks, header of {name} bytes",
            data,
            bgr(colour()),
            "",
            by_pillow,
        )
    five = rgb >> 3
    eight = ((five * 255 + 15) // 31).astype(np.uint8)
    words = five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]
    yield Sample("BMP", "16-bit 555", bmp(words.astype("<u2"), 16), bgr(eight), "", by_pillow, 1)
    six = rgb[..., 1] >> 2
    words = five[..., 0] << 11 | six << 5 | five[..., 2]
    mixed = np.dstack([eight[..., 0], (six * 255 + 31) // 63, eight[..., 2]]).astype(np.uint8)
    yield Sample(
        "BMP",
        "16-bit 565",
        bmp(words.astype("<u2"), 16, masks=(0xF800, 0x07E0, 0x001F)),
        bgr(mixed),
        "",
        by_pillow,
        1,
    )
    four = rgb >> 4
    words = four[..., 0] << 8 | four[..., 1] << 4 | four[..., 2]
    yield Sample(
        "BMP",
        "16-bit 444",
        bmp(words.astype("<u2"), 16, masks=(0xF00, 0xF0, 0xF)),
        bgr((four * 17).astype(np.uint8)),
        "",
    )
    ten = rgb << 2
    words = ten[..., 0] << 20 | ten[..., 1] << 10 | ten[..., 2]
    data = bmp(words.astype("<u4"), 32, masks=(0x3FF00000, 0xFFC00, 0x3FF))
    expected = ((ten.astype(np.int64) * 255 + 511) // 1023).astype(np.uint8)
    yield Sample("BMP", "32-bit 10-10-10", data, bgr(expected), "")
    palette = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)
    for bits in (1, 4, 8):
        indices = gray() >> (8 - bits)
        data = bmp(indices, bits, palette=palette[: 1 << bits])
        yield Sample("BMP", f"{bits}-bit palette", data, palette[indices], "", by_pillow)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    yield Sample("BMP", "8-bit gray palette", bmp(gray(), 8, palette=ramp), gray(), "", by_pillow)
    runs = rle8_bmp(gray() >> 6, palette)
    yield Sample(
        "BMP", "8-bit palette, run lengths (RLE8)", runs, palette[gray() >> 6], "", by_pillow
    )
    yield Sample("BMP", "compressed by JPEG", bmp(bgr(colour()), 24, codec=4), None, "JPEG")
    yield Sample(
        "BMP",
        "a mask with gaps",
        bmp(words.astype("<u4"), 32, masks=(0xF0F00000, 0xFF00, 0xFF)),
        None,
        "colour mask",
    )
    yield Sample("BMP", "truncated", bmp(bgr(colour()), 24)[:-100], None, "it is truncated")


def _webp() -> Iterator[Sample]:
    lossless = pillow(colour(), "WEBP", lossless=True)
    yield Sample("WEBP", "lossless", lossless, bgr(colour()), "", by_pillow)
    lossy = pillow(colour(), "WEBP", quality=80)
    yield Sample("WEBP", "lossy", lossy, by_pillow(lossy), "", by_cv2)
    rgba = np.dstack([colour(), np.maximum(alpha(), 1)])
    yield Sample(
        "WEBP",
        "alpha",
        pillow(rgba, "WEBP", lossless=True, exact=True),
        bgr(colour()),
        "alpha channel dropped",
        by_pillow,
    )
    exif = Pillow.Exif()
    exif[274] = 6
    plain = exif.tobytes().removeprefix(b"Exif\0\0")
    for name, block in (
        ("EXIF orientation 6", plain),
        ("EXIF with a JPEG's prefix", b"Exif\0\0" + plain),
    ):
        data = pillow(colour(), "WEBP", lossless=True, exif=block)
        yield Sample("WEBP", f"turned ({name})", data, np.rot90(bgr(colour()), -1), "", by_pillow)
    moving = pillow(
        Pillow.fromarray(colour()),
        "WEBP",
        lossless=True,
        save_all=True,
        append_images=[Pillow.fromarray(255 - colour())],
    )
    yield Sample("WEBP", "animation", moving, bgr(colour()), "page 1 of 2", by_pillow)
    yield Sample("WEBP", "truncated", lossless[:-100], None, "it is truncated")


def _others() -> Iterator[Sample]:
    few = Pillow.fromarray(colour()).quantize(64)
    flat = np.asarray(few.convert("RGB"))
    yield Sample("GIF", "one frame", pillow(few, "GIF"), bgr(flat), "", by_cv2)
    moving = pillow(
        few, "GIF", save_all=True, append_images=[Pillow.fromarray(255 - colour()).quantize(64)]
    )
    yield Sample("GIF", "animation", moving, bgr(flat), "page 1 of 2", by_pillow)
    avif = pillow(colour(), "AVIF", quality=90)
    yield Sample("AVIF", "8-bit", avif, by_pillow(avif), "", by_cv2, 3)
    exif = Pillow.Exif()
    exif[274] = 6  # Pillow writes it into the container
    turned = pillow(colour(), "AVIF", quality=90, exif=exif)
    upright = np.rot90(by_pillow(avif), -1)
    yield Sample("AVIF", "turned (orientation 6)", turned, upright, "", by_pillow)
    deep = opencv(
        ".avif",
        bgr(colour("uint16") >> 6),
        cv2.IMWRITE_AVIF_DEPTH,
        10,
        cv2.IMWRITE_AVIF_QUALITY,
        90,
    )
    yield Sample(
        "AVIF",
        "10-bit",
        deep,
        by_pillow(deep),
        "10 bits per channel reduced to 8",
        lambda data: (by_cv2(data) / 1023 * 255).astype(np.uint8),
        4,
    )
    for dtype in ("uint8", "uint16"):
        bits = np.dtype(dtype).itemsize * 8
        rgb, level = bgr(colour(dtype)), gray(dtype)
        yield Sample(
            "JPEG 2000",
            f"{bits}-bit RGB",
            jpeg2000_of(rgb),
            rgb,
            "",
            by_cv2 if bits == 8 else partial(by_ffmpeg, form="j2k_pipe"),
        )
        yield Sample(
            "JPEG 2000",
            f"{bits}-bit gray",
            jpeg2000_of(level),
            level,
            "",
            by_cv2 if bits == 8 else by_pillow,
        )
        yield Sample(
            "PNM",
            f"{bits}-bit PPM",
            opencv(".ppm", rgb),
            rgb,
            "",
            by_pillow if bits == 8 else by_cv2,
        )
        yield Sample("PNM", f"{bits}-bit PGM", opencv(".pgm", level), level, "", by_cv2)
    text = opencv(".ppm", bgr(colour()), cv2.IMWRITE_PXM_BINARY, 0)
    yield Sample("PNM", "PPM as text", text, bgr(colour()), "", by_pillow)
    bits_file = pillow(mask(), "PPM")
    yield Sample("PNM", "PBM", bits_file, mask() * np.uint8(255), "", by_pillow)
    hundred = (gray() // 3).astype(np.uint8)
    ten = b"P5 # a comment\n53 40\n85\n" + hundred.tobytes()
    yield Sample("PNM", "PGM up to 85", ten, hundred * np.uint8(3), "", by_pillow)
    head = b"P7\nWIDTH 53\nHEIGHT 40\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    yield Sample(
        "PNM",
        "PAM, RGB with alpha",
        head + np.dstack([colour(), alpha()]).tobytes(),
        bgr(colour()),
        "alpha channel dropped",
        partial(by_ffmpeg, form="pam_pipe"),
    )
    yield Sample("PNM", "truncated", opencv(".ppm", bgr(colour()))[:-9], None, "it is truncated")
    for name, image in (("colour", bgr(colour("float32"))), ("gray", gray("float32"))):
        yield Sample("PFM", name, opencv(".pfm", image), image, "", by_cv2)
    light = np.abs(bgr(colour("float32")))
    hdr = opencv(".hdr", light)
    yield Sample("HDR", "RGBE", hdr, by_cv2(hdr), "", lambda data: light, 0.02)
    yield Sample("HDR", "truncated", hdr[:-200], None, "it is truncated")


def _foreign() -> Iterator[Sample]:
    known = "images are read from PNG"
    for name, begin in (
        ("JPEG XL", b"\xff\x0a" + bytes(9)),
        ("PDF", b"%PDF-1.7\n"),
        ("Photoshop", b"8BPS\0\1"),
        ("OpenEXR", b"\x76\x2f\x31\x01"),
        ("DICOM", bytes(128) + b"DICM"),
        ("FITS", b"SIMPLE  =   T"),
        ("SVG", b"<svg xmlns='x'/>"),
        ("PostScript", b"%!PS-Adobe-3.0"),
        ("QOI", b"qoif" + bytes(20)),
        ("SGI", b"\x01\xda\x01\x01" + bytes(20)),
        ("other bytes in front", b"\n" + opencv(".png", colour())),
        ("ZIP", b"PK\x03\x04"),
        ("web page", b"<!DOCTYPE html>"),
        ("text", "Grüße".encode()),
        ("only zeros", bytes(5000)),
        ("QuickTime", heif_header(b"qt  ")),
        ("CR3", heif_header(b"crx ")),
    ):
        yield Sample("other", name, begin, None, f"{name}.*{known}")


def describe(sample: Sample) -> str:
    """Return the line of the table about a sample: what the reader does with it."""
    try:
        loaded = reader.read(sample.data, "x")
    except ImageError as problem:
        gives = str(problem).removeprefix("x: ")
        gives = gives.split(" cannot be read: ", 1)[-1].split("; images are read from")[0]
        gives = f"refused: {gives}"
    else:
        channels = "gray" if loaded.spec.channels == 1 else "colour"
        gives = "; ".join([f"{channels} {loaded.spec.dtype}", *loaded.notes])
    return f"| {sample.form} | {sample.variant} | {gives} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(map(describe, samples())) + "\n")
