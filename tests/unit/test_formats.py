"""Image formats: what docs/formats.md says of each variant is what the reader does.

The files are made by `tests.corpus`. Pixels are compared with those that were written, and with an
independent decoder where one reads the file right.
"""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image as Pillow

from fogmqtt.errors import ImageError
from fogmqtt.images import reader
from tests.corpus import Sample, by_cv2, colour, describe, opencv, pillow, samples, tiff

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
ALL = samples()
READ = [sample for sample in ALL if sample.expected is not None]
REFUSED = [sample for sample in ALL if sample.expected is None]


def name(sample: Sample) -> str:
    return f"{sample.form}: {sample.variant}"


def test_the_table_lists_every_variant_with_what_the_reader_gives() -> None:
    text = PAGE.read_text("utf-8")
    table = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert table[1:] == [describe(sample) for sample in ALL], (
        "run python -m tests.corpus, and put what it prints into docs/formats.md"
    )


@pytest.mark.parametrize("sample", READ, ids=name)
def test_a_file_gives_the_pixels_that_were_written_and_says_what_it_drops(sample: Sample) -> None:
    assert sample.expected is not None
    loaded = reader.read(sample.data, "x")
    assert loaded.image.dtype == sample.expected.dtype
    assert np.array_equal(loaded.image, sample.expected)
    assert sample.says in "; ".join(loaded.notes)
    assert loaded.format == sample.form
    assert loaded.image.flags.c_contiguous


@pytest.mark.parametrize("sample", [each for each in READ if each.independent], ids=name)
def test_an_independent_decoder_gives_the_same_pixels(sample: Sample) -> None:
    assert sample.independent is not None
    other = sample.independent(sample.data)
    turns = {"orientation 6": -1, "orientation 8": 1, "a JPEG's prefix": -1}
    for words, quarters in turns.items():
        if words in sample.variant:
            other = np.rot90(other, quarters)
    image = reader.read(sample.data, "x").image
    assert (other.shape, other.dtype) == (image.shape, image.dtype)
    assert np.abs(other.astype(np.float64) - image.astype(np.float64)).max() <= sample.tolerance


def test_the_page_names_the_lines_that_no_independent_decoder_reads_right() -> None:
    alone = {sample.variant for sample in READ if sample.independent is None}
    assert alone == {
        *(f"{bits}-bit gray" for bits in (3, 5, 6, 7)),
        "16-bit 444",
        "32-bit 10-10-10",
    }
    told = " ".join(PAGE.read_text("utf-8").split())
    assert "TIFFs of 3, 5, 6 and 7 bits, and BMPs of 444 and 10-10-10" in told


@pytest.mark.parametrize("sample", REFUSED, ids=name)
def test_a_file_that_cannot_be_read_right_is_refused_for_its_true_reason(sample: Sample) -> None:
    with pytest.raises(ImageError, match=sample.says) as refused:
        reader.read(sample.data, "folder/photo.x")
    said = str(refused.value)
    assert said.startswith("folder/photo.x: ")
    assert sample.form in said or sample.form == "other"
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("sample", READ, ids=name)
def test_the_header_announces_what_the_pixels_will_be(sample: Sample) -> None:
    header = reader.inspect(sample.data, "x")
    loaded = reader.decode(sample.data, header, "x")
    assert header.nbytes == loaded.image.nbytes
    assert header.pixels == loaded.spec.height * loaded.spec.width


@pytest.mark.parametrize("sample", [each for each in READ if each.form != "JPEG"], ids=name)
def test_a_file_that_is_cut_anywhere_gives_the_same_pixels_or_is_refused(sample: Sample) -> None:
    assert sample.expected is not None
    for keep in (0.2, 0.5, 0.8, 0.95):
        try:
            loaded = reader.read(sample.data[: int(keep * len(sample.data))], "x")
        except ImageError:
            continue
        assert np.array_equal(loaded.image, sample.expected), keep


def test_pages_of_an_animation_are_all_read() -> None:
    animated = {"animation", "animation with an image of its own"}
    for sample in (each for each in READ if each.variant in animated):
        header = reader.inspect(sample.data, "x", pages="all")
        images = [
            reader.decode(sample.data, header, "x", index).image
            for index in range(header.page_count)
        ]
        assert len(images) >= 2
        assert np.array_equal(images[0], sample.expected)
        assert not np.array_equal(images[0], images[1])


def test_a_page_that_is_not_there_is_refused() -> None:
    data = tiff(np.stack([colour()[..., 0]] * 3), photometric="minisblack")
    assert reader.inspect(data, "x", pages="all").page_count == 3
    with pytest.raises(ImageError, match="x: there is no page 4; the file has 3"):
        reader.inspect(data, "x", pages=4)


def test_the_limit_counts_the_pixels_of_all_pages_that_are_read() -> None:
    data = tiff(np.stack([colour()[..., 0]] * 3), photometric="minisblack")
    assert reader.inspect(data, "x", pages="first", max_pixels=3000).pixels == 2120
    with pytest.raises(ImageError, match="3 pages of up to 53x40 are 6360 pixels, over"):
        reader.inspect(data, "x", pages="all", max_pixels=3000)


@pytest.mark.parametrize("stray", [1, 4, 16])
def test_a_few_stray_bytes_before_the_end_of_a_jpeg_are_noted(stray: int) -> None:
    whole = pillow(colour(), "JPEG")
    loaded = reader.read(whole[:-2] + bytes(stray) + b"\xff\xd9", "x")
    assert np.array_equal(loaded.image, by_cv2(whole))
    assert all("stray bytes before its end" in note for note in loaded.notes)


def test_many_stray_bytes_in_a_jpeg_are_damage() -> None:
    whole = pillow(colour(), "JPEG")
    with pytest.raises(ImageError, match="extraneous bytes"):
        reader.read(whole[:-2] + bytes(range(1, 200)) + b"\xff\xd9", "x")


def test_a_page_of_a_tiff_whose_jpeg_misses_pixels_is_refused() -> None:
    data = bytearray(pillow(colour(), "TIFF", compression="jpeg"))
    scan = data.index(b"\xff\xda") + 20
    data[scan : scan + 300] = bytes(300)
    with pytest.raises(ImageError, match=r"TIFF cannot be read: .*(missing|damaged)"):
        reader.read(bytes(data), "x")


def test_heic_is_read_with_the_extra_and_otherwise_names_the_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.BytesIO()
    pillow_heif.from_pillow(Pillow.fromarray(colour())).save(stream, quality=95)
    data = stream.getvalue()
    loaded = reader.read(data, "x")
    assert loaded.format == "HEIC"
    assert np.abs(loaded.image.astype(int) - colour()[..., ::-1]).mean() < 4

    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(ImageError, match=r"export it as JPEG, or .* 'fogmqtt\[heif\]'"):
        reader.read(data, "x")


def test_nothing_but_the_announced_kind_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = opencv(".png", colour())
    header = reader.inspect(data, "x")
    other = data[:16] + struct.pack(">II", 9, 9) + data[24:]
    with pytest.raises(ImageError, match="x: "):
        reader.decode(other, header, "x")


def test_the_message_names_the_formats_that_are_read() -> None:
    with pytest.raises(ImageError) as refused:
        reader.read(b"GIMP", "x")
    assert re.search(r"images are read from PNG, JPEG, .*, HDR", str(refused.value))
