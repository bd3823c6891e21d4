"""Files of results: the format with its options, several pages, and the metadata that is kept."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from PIL import ImageCms, IptcImagePlugin, PngImagePlugin

from fogmqtt.errors import ImageError, UsageError
from fogmqtt.images import reader
from fogmqtt.images.encode import encode
from fogmqtt.images.formats.tag_directory import (
    ASCII,
    EXIF_TAG,
    POSITION_TAG,
    Directory,
    Value,
    read_exif,
    write_exif,
)
from fogmqtt.images.formats.xmp import EXTENSION_PREFIX, XMP_PREFIX
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.result_format import ResultFormat, format_of_suffix, parse_result_format
from tests.corpus import bgr, colour, gray, pillow, tiff

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
IMAGE = bgr(colour())
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6">'
    b"<dc:title>a title</dc:title></rdf:Description></rdf:RDF></x:xmpmeta>"
)
IPTC = b"\x1c\x02\x05\0\x07a title\x1c\x02\x50\0\x08a person"


def exif_with(orientation: int = 1) -> Pillow.Exif:
    exif = Pillow.Exif()
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0x829A: 0.004})
    exif.get_ifd(0x8825).update({1: "N", 2: (36.0, 48.0, 30.5)})
    exif[0x0112] = orientation
    loaded = Pillow.Exif()
    loaded.load(exif.tobytes())
    return loaded


def opened(data: bytes) -> Pillow.Image:
    image = Pillow.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("png", ResultFormat("png")),
        ("png compression=9", ResultFormat("png", compression=9)),
        ("jpeg quality=80", ResultFormat("jpeg", quality=80)),
        ("  webp   quality=1 ", ResultFormat("webp", quality=1)),
        ("tiff compression=none", ResultFormat("tiff", compression="none")),
        ("bmp", ResultFormat("bmp")),
    ],
)
def test_a_format_is_a_kind_with_its_options(text: str, expected: ResultFormat) -> None:
    assert parse_result_format(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no format; use one of png, jpeg, webp, bmp, tiff"),
        ("gif", "'gif' is no format"),
        ("png quality=5", "png has no option 'quality'; it has compression"),
        ("bmp quality=5", "bmp has no option 'quality'; it has none"),
        ("jpeg quality=101", "quality is a number from 1 to 100"),
        ("jpeg quality", "quality is a number from 1 to 100"),
        ("jpeg quality=0", "quality is a number from 1 to 100"),
        ("tiff compression=lzw", "compression is one of none, deflate"),
    ],
)
def test_a_wrong_format_is_refused_with_what_it_could_be(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_result_format(text)


def test_a_suffix_tells_the_format() -> None:
    assert format_of_suffix(".JPG") == ResultFormat("jpeg")
    assert ResultFormat("tiff").suffix == ".tiff"
    with pytest.raises(ImageError, match=r"cannot write '.gif' files; use one of .png, .jpeg"):
        format_of_suffix(".gif")


def test_a_lower_quality_makes_a_smaller_jpeg_and_webp() -> None:
    for kind in ("jpeg", "webp"):
        usual = encode([IMAGE], ResultFormat(kind)).data
        assert len(encode([IMAGE], ResultFormat(kind, quality=30)).data) < len(usual)


def test_a_compression_changes_the_size_and_no_pixel() -> None:
    flat = np.zeros((200, 200, 3), np.uint8)
    sizes = {}
    for text in ("png compression=0", "png compression=9", "tiff", "tiff compression=none"):
        data = encode([flat], parse_result_format(text)).data
        assert np.array_equal(reader.read(data, text).image, flat)
        sizes[text] = len(data)
    assert sizes["png compression=9"] < sizes["png compression=0"]
    assert sizes["tiff"] < sizes["tiff compression=none"]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_a_result_keeps_the_profile_of_its_image(form: str, kind: str) -> None:
    loaded = reader.read(pillow(colour(), form, icc_profile=PROFILE), "photo")
    assert loaded.metadata.icc == PROFILE
    encoded = encode([loaded.image], ResultFormat(kind), [loaded.metadata])
    assert opened(encoded.data).info["icc_profile"] == PROFILE
    assert not [note for note in encoded.notes if "ICC" in note]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "bmp"])
def test_a_result_keeps_the_resolution_of_its_image(form: str, kind: str) -> None:
    loaded = reader.read(pillow(colour(), form, dpi=(300, 150)), "photo")
    encoded = encode([loaded.image], ResultFormat(kind), [loaded.metadata])
    assert opened(encoded.data).info["dpi"] == pytest.approx((300, 150), abs=0.1)
    assert encoded.notes == ()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_a_result_keeps_exif_data_without_the_orientation(form: str, kind: str) -> None:
    loaded = reader.read(pillow(colour(), form, exif=exif_with(6)), "photo")
    assert loaded.spec.size == colour().shape[1::-1]
    encoded = encode([loaded.image], ResultFormat(kind), [loaded.metadata])
    kept = opened(encoded.data).getexif()
    assert kept[0x010F] == "a camera"
    assert 0x0112 not in kept or kind == "tiff"
    assert kept.get(0x0112, 1) == 1
    assert kept.get_ifd(0x8769)[0x9003] == "2024:05:06 07:08:09"
    assert kept.get_ifd(0x8825)[2] == (36.0, 48.0, 30.5)
    again = reader.read(encoded.data, "again")
    assert again.spec == loaded.spec


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_exif_data_of_every_kind_of_tiff_are_kept_with_their_types(
    byteorder: str, bigtiff: bool
) -> None:
    tags = [(271, 2, 0, "a maker", True), (33432, 2, 0, "me", True), (40091, 1, 4, b"t\0x\0", True)]
    data = tiff(colour(), photometric="rgb", byteorder=byteorder, bigtiff=bigtiff, extratags=tags)
    loaded = reader.read(data, "x")
    said = read_exif(loaded.metadata.exif)
    assert said[271] == Value(ASCII, 8, b"a maker\0")
    again = encode([loaded.image] * 2, ResultFormat("tiff"), [loaded.metadata] * 2).data
    with tifffile.TiffFile(io.BytesIO(again)) as file:
        for page in file.pages:
            assert page.tags[33432].value == "me"
            assert page.tags[40091].value == b"t\0x\0"


def test_exif_data_of_either_byte_order_keep_their_types_in_a_tiff() -> None:
    directory: Directory = {
        271: Value(ASCII, 6, b"maker\0"),
        EXIF_TAG: {
            0x9000: Value(7, 4, b"0232"),
            0x829A: Value(5, 1, (1).to_bytes(4, "little") + (250).to_bytes(4, "little")),
            0x9204: Value(10, 1, (-1 & 0xFFFFFFFF).to_bytes(4, "little") + b"\3\0\0\0"),
            0xA005: {1: Value(ASCII, 4, b"R98\0")},
        },
        POSITION_TAG: {1: Value(ASCII, 2, b"N\0"), 5: Value(1, 1, b"\0")},
    }
    exif = write_exif(directory)
    assert read_exif(exif) == directory
    data = encode([IMAGE], ResultFormat("tiff"), [Metadata(exif=exif)]).data
    assert read_exif(reader.read(data, "x").metadata.exif) == directory


def test_a_description_of_the_layout_is_not_kept() -> None:
    for text in ("ImageJ=1.54f\nunit=micron", '{"shape": [40, 53]}', "<?xml version='1.0'?><OME/>"):
        data = tiff(gray(), photometric="minisblack", description=text)
        loaded = reader.read(data, "x")
        assert 270 not in read_exif(loaded.metadata.exif)
        assert loaded.notes == ("description dropped: it tells the layout of the file",)


@pytest.mark.parametrize(
    "exif",
    [
        b"MM\0*",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\x08\0\0\0\1\0\x0f\1\2\0\xff\0\0\0\xff\0\0\0",
        b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\xff\0\0\0",
    ],
)
def test_damaged_exif_data_are_not_written_into_a_tiff(exif: bytes) -> None:
    encoded = encode([IMAGE], ResultFormat("tiff"), [Metadata(exif=exif)])
    assert encoded.notes == ("EXIF data dropped: they are damaged",)
    assert np.array_equal(reader.read(encoded.data, "x").image, IMAGE)


def test_a_directory_that_leads_to_itself_ends() -> None:
    circle = b"II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0"
    assert read_exif(circle)[EXIF_TAG] == {EXIF_TAG: Value(4, 1, b"\x08\0\0\0")}


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
def test_a_result_keeps_xmp_data_with_the_orientation_of_turned_pixels(
    source: str, kind: str
) -> None:
    loaded = reader.read(with_xmp(source), "photo")
    encoded = encode([loaded.image], ResultFormat(kind), [loaded.metadata])
    assert encoded.notes == ()
    kept = opened(encoded.data).info["xmp"]
    assert kept == XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert reader.read(encoded.data, "again").metadata.xmp == kept


@pytest.mark.parametrize("source", ["JPEG", "TIFF"])
@pytest.mark.parametrize("kind", ["jpeg", "tiff"])
def test_a_result_keeps_iptc_data_where_its_format_has_a_place(source: str, kind: str) -> None:
    loaded = reader.read(with_iptc(source), "photo")
    assert loaded.metadata.iptc == IPTC
    encoded = encode([loaded.image], ResultFormat(kind), [loaded.metadata])
    assert encoded.notes == ()
    image = opened(encoded.data)
    assert IptcImagePlugin.getiptcinfo(image) == {(2, 5): b"a title", (2, 80): b"a person"}


@pytest.mark.parametrize("is_behind", [False, True])
def test_a_result_keeps_xmp_iptc_and_exif_data_of_jpeg_2000(*, is_behind: bool) -> None:
    exif = exif_with(6).tobytes().removeprefix(b"Exif\0\0")
    boxes = b"".join(
        (len(body) + 24).to_bytes(4, "big") + b"uuid" + number + body
        for number, body in (
            (bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), XMP),
            (bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38"), IPTC),
            (b"JpgTiffExif->JP2", exif),
        )
    )
    data = pillow(colour(), "JPEG2000")
    at = len(data) if is_behind else data.index(b"jp2c") - 4
    loaded = reader.read(data[:at] + boxes + data[at:], "photo")
    assert loaded.spec.size == colour().shape[:2], "its viewers do not turn it by EXIF data"
    assert loaded.metadata.iptc == IPTC
    encoded = encode([loaded.image], ResultFormat("jpeg"), [loaded.metadata])
    assert encoded.notes == ()
    kept = opened(encoded.data)
    assert kept.info["xmp"] == XMP.replace(b'Orientation="6"', b'Orientation="1"')
    assert kept.getexif()[0x010F] == "a camera"
    assert kept.getexif().get(0x0112, 1) == 1


def test_xmp_and_iptc_data_that_a_result_cannot_hold_are_told() -> None:
    given = Metadata(xmp=XMP, iptc=IPTC)
    assert encode([IMAGE], ResultFormat("png"), [given]).notes == (
        "IPTC data dropped: a png file does not hold them",
    )
    assert encode([IMAGE], ResultFormat("bmp"), [given]).notes == (
        "XMP data dropped: a bmp file does not hold them",
        "IPTC data dropped: a bmp file does not hold them",
    )
    long = Metadata(xmp=XMP.replace(b"a title", b"a title" * 10_000))
    assert encode([IMAGE], ResultFormat("jpeg"), [long]).notes == (
        "XMP data dropped: a jpeg file does not hold them",
    )


@pytest.mark.parametrize(
    ("segments", "note"),
    [
        ([XMP_PREFIX + XMP, EXTENSION_PREFIX + b"more"], "they are in several parts"),
        ([XMP_PREFIX + XMP.decode().encode("utf-16")], "they are no UTF-8 text"),
    ],
)
def test_xmp_data_that_are_not_read_are_told(segments: list[bytes], note: str) -> None:
    data = pillow(colour(), "JPEG")
    extra = b"".join(b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body for body in segments)
    loaded = reader.read(data[:2] + extra + data[2:], "photo")
    assert loaded.metadata.xmp == b""
    assert f"XMP data dropped: {note}" in loaded.notes


def test_iptc_data_as_text_of_a_png_are_told() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type iptc", "\niptc\n 2\n1c02\n", zip=True)
    notes = reader.read(pillow(colour(), "PNG", pnginfo=info), "photo").notes
    assert "IPTC data dropped: a png file holds them as text only" in notes


def with_xmp(form: str) -> bytes:
    """A file with an XMP packet, written by Pillow."""
    if form == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
        return pillow(colour(), form, pnginfo=info)
    if form == "TIFF":
        return pillow(colour(), form, tiffinfo={700: XMP})
    return pillow(colour(), form, xmp=XMP)


def with_iptc(form: str) -> bytes:
    """A file with IPTC records: of Photoshop in a JPEG, and in their own tag in a TIFF."""
    if form == "TIFF":
        return pillow(colour(), form, tiffinfo={33723: IPTC})
    # Another resource first, with a name of odd length.
    other = b"8BIM\x03\xed\x03abc" + (3).to_bytes(4, "big") + b"xyz\0"
    own = b"8BIM\x04\x04\0\0" + len(IPTC).to_bytes(4, "big") + IPTC + bytes(len(IPTC) % 2)
    body = b"Photoshop 3.0\0" + other + own
    data = pillow(colour(), form)
    return data[:2] + b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


@pytest.mark.parametrize("kind", ["png", "webp", "tiff", "bmp"])
def test_metadata_change_no_pixel(kind: str) -> None:
    exif = exif_with().tobytes().removeprefix(b"Exif\0\0")
    given = Metadata(icc=PROFILE, exif=exif, dpi=(72, 72))
    encoded = encode([IMAGE], ResultFormat(kind), [given])
    assert np.array_equal(reader.read(encoded.data, kind).image, IMAGE)


@pytest.mark.parametrize(
    ("kind", "notes"),
    [
        (
            "bmp",
            [
                "ICC profile dropped: a bmp file holds none",
                "EXIF data dropped: a bmp file does not",
            ],
        ),
        ("webp", ["resolution dropped: a webp file holds none"]),
        ("tiff", []),
    ],
)
def test_what_a_file_cannot_hold_is_told(kind: str, notes: list[str]) -> None:
    exif = exif_with().tobytes().removeprefix(b"Exif\0\0")
    told = encode([IMAGE], ResultFormat(kind), [Metadata(PROFILE, exif, (72, 72))]).notes
    assert len(told) == len(notes)
    assert all(note.startswith(begin) for note, begin in zip(told, notes, strict=True))


def test_a_profile_of_colours_is_not_put_on_a_gray_result() -> None:
    encoded = encode([gray()], ResultFormat("png"), [Metadata(icc=PROFILE)])
    assert encoded.notes == ("ICC profile dropped: it is not one of 53x40 gray uint8 images",)
    assert "icc_profile" not in opened(encoded.data).info


def test_several_pages_make_one_tiff() -> None:
    pages = [gray(), bgr(colour("uint16")), gray("float32")[:9]]
    data = encode(pages, ResultFormat("tiff")).data
    header = reader.inspect(data, "scan", pages="all")
    for index, page in enumerate(pages):
        assert np.array_equal(reader.decode(data, header, "scan", index).image, page)
    assert len(tifffile.TiffFile(io.BytesIO(data)).pages) == 3


def test_several_pages_in_another_file_are_refused_with_the_way_out() -> None:
    with pytest.raises(ImageError, match="a png file holds one image, and this result has 2 pages"):
        encode([gray(), gray()], ResultFormat("png"))


def test_a_large_profile_is_divided_into_segments_of_a_jpeg() -> None:
    large = PROFILE + bytes(150_000)
    data = encode([IMAGE], ResultFormat("jpeg"), [Metadata(icc=large)]).data
    assert reader.read(data, "x").metadata.icc == large


def test_damaged_exif_data_turn_nothing() -> None:
    data = pillow(colour(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    with warnings.catch_warnings(action="ignore"):  # Pillow's, about the same damage
        loaded = reader.read(data, "x")
    assert loaded.spec.size == colour().shape[:2]


def test_what_a_tiff_loses_beside_its_pixels_is_told() -> None:
    geo = tiff(colour(), photometric="rgb", extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)])
    assert reader.read(geo, "map.tif").notes == ("georeference dropped",)


@pytest.mark.parametrize(
    ("kind", "width"), [("png", 1_000_001), ("jpeg", 65_501), ("webp", 16_384)]
)
def test_an_image_that_is_too_wide_for_a_file_is_refused_with_its_limit(
    kind: str, width: int
) -> None:
    strip = np.zeros((1, width), np.uint8)
    with pytest.raises(
        ImageError, match=rf"{width}x1 pixels, .* at most {width - 1} .*; write .ti"
    ):
        encode([strip], ResultFormat(kind))
    data = encode([strip], ResultFormat("tiff")).data
    assert np.array_equal(reader.read(data, "strip").image, strip)
