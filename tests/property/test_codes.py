"""Codes are found across seams, alike for any tiling and in any thread and process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogmqtt.core.geometry import Grid, Rect, Size, cut
from fogmqtt.errors import OperatorError, PipelineError, WireError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, registry
from fogmqtt.operators.detection.code_readers import Code
from fogmqtt.operators.detection.codes import Codes, _Found, _joined, _overlap, _separate
from fogmqtt.operators.support.sliding_window import TileFindings, WindowFindings
from tests.drawn import images, plans
from tests.printed import aruco, ean13, pasted, qr, zxing
from tests.processes import photo
from tests.tiling import tiled

CODES = {
    "qr": (qr("a seam? grüße!"), "a seam? grüße!"),
    "bar": (ean13("4006381333931", height=60), "4006381333931"),
    "aruco": (aruco(7), "7"),
    "code128": (zxing("Code128", "FOG-128", 1), "FOG-128"),
    "datamatrix": (zxing("DataMatrix", "grüße"), "grüße"),
    "pdf417": (zxing("PDF417", "a seam?", 2), "a seam?"),
}


def paper(height: int, width: int) -> Image:
    return np.full((height, width), 255, np.uint8)


def whole(text: str, image: Image) -> Any:
    return pipeline.run_whole(pipeline.parse(text), image, image)


@st.composite
def pages(draw: st.DrawFn) -> Image:
    """Noise, photographs and patterns with codes at random positions, some of them rotated."""
    image = draw(images(("uint8",)))
    if image.ndim == 3:
        image = image[..., 0].copy()
    image = np.ascontiguousarray(np.tile(image, (3, 3))[:240, :240])
    for kind in draw(st.lists(st.sampled_from(sorted(CODES)), max_size=4)):
        code = CODES[kind][0]
        code = np.rot90(code, draw(st.integers(0, 3)))
        top, left = (draw(st.integers(0, extent - 1)) for extent in image.shape)
        pasted(image, code, top, left)
    return image if draw(st.booleans()) else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_tiles_give_the_facts_of_the_whole_image(data: st.DataObject) -> None:
    image = data.draw(pages())
    kinds = data.draw(st.sampled_from(["qr,bar,aruco", "qr", "datamatrix,code128"]))
    before = data.draw(st.sampled_from(["", "gray | ", "gray | gaussian ksize=5 | "]))
    size = data.draw(st.integers(60, 140))
    chain = pipeline.parse(f"{before}codes kinds={kinds} size={size}")
    assert tiled(chain, image, data.draw(plans(image))) == pipeline.run_whole(chain, image, image)


@pytest.mark.parametrize("kind", sorted(CODES))
@pytest.mark.parametrize("offset", [(0, 0), (-13, 22), (30, -7)])
def test_a_code_on_the_corner_of_four_tiles_is_found_once(
    kind: str, offset: tuple[int, int]
) -> None:
    code, text = CODES[kind]
    image = paper(600, 700)
    top, left = 300 - code.shape[0] // 2 + offset[0], 350 - code.shape[1] // 2 + offset[1]
    pasted(image, code, top, left)
    found = tiled(pipeline.parse("codes"), image, Grid(2, 2))
    assert isinstance(found, dict)
    assert [(one["kind"], one["text"]) for one in found["codes"]] == [(kind, text)]
    corners = np.array(found["codes"][0]["corners"])
    ink = np.argwhere(image == 0)[:, ::-1]
    slack = 25 if kind == "bar" else 3  # OpenCV is content with a part of the bars
    assert np.abs(corners.min(axis=0) - ink.min(axis=0)).max() <= slack
    assert np.abs(corners.max(axis=0) - ink.max(axis=0)).max() <= slack


def test_equal_codes_beside_each_other_stay_two() -> None:
    image = paper(300, 500)
    for left in (40, 140, 240):
        pasted(image, aruco(3), 100, left)
    turned = cv2.warpAffine(
        image, cv2.getRotationMatrix2D((250, 150), 40, 1), (500, 500), borderValue=255
    )
    found = tiled(pipeline.parse("codes size=128"), turned, Grid(3, 4))
    assert isinstance(found, dict)
    assert [one["text"] for one in found["codes"]] == ["3", "3", "3"]


def test_a_code_of_the_largest_size_is_found_at_every_position() -> None:
    code = aruco(11, side=64)  # 96 pixels with its margin
    for top, left in ((0, 0), (31, 77), (96, 96), (150, 204), (204, 133)):
        image = paper(300, 300)
        pasted(image, code, top, left)
        assert len(whole("codes size=96", image)["codes"]) == 1


SAME = """
import hashlib, sys, threading
import numpy as np
from fogmqtt.images.cv import cv2
from fogmqtt.operators.api import pipeline
from tests.property.test_codes import scene
cv2.setNumThreads(int(sys.argv[1]))
answers = []
def work():
    cv2.setRNGSeed(int(sys.argv[2]))
    for _ in range(2):
        answers.append(str(pipeline.run_whole(pipeline.parse("codes size=128"), scene(), scene())))
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert len(set(answers)) == 1
print(hashlib.sha256(answers[0].encode()).hexdigest())
"""


def scene() -> Image:
    """A page of slanted codes on blurred noise."""
    rng = np.random.default_rng(4)
    image = cv2.GaussianBlur(rng.integers(0, 256, (400, 600), dtype=np.uint8), (0, 0), 3)
    for index, kind in enumerate(sorted(CODES) * 2):
        pasted(image, CODES[kind][0], 20 + 190 * (index // 3), 10 + 200 * (index % 3))
    turn = cv2.getRotationMatrix2D((300, 200), 11, 1)
    return cv2.warpAffine(image, turn, (600, 400), borderValue=255)


@pytest.mark.parametrize(
    ("kind", "side", "size"),
    [("qr", 600, 64), ("datamatrix", 600, 64), ("code128", 900, 256), ("pdf417", 480, 128)],
)
@pytest.mark.parametrize("plan", [Grid(1, 1), Grid(3, 4)])
def test_a_code_that_no_window_holds_is_found_by_a_coarser_look(
    kind: str, side: int, size: int, plan: Grid
) -> None:
    """For `size` 64, as if it filled a photograph of 10 million pixels, for `size` 256."""
    code, text = CODES[kind]
    large = enlarged(code, side)
    image = paper(640, 960)
    pasted(image, large, 320 - large.shape[0] // 2, 480 - large.shape[1] // 2)
    chain = pipeline.parse(f"codes kinds={kind} size={size}")
    found = tiled(chain, image, plan)
    assert found == pipeline.run_whole(chain, image, image)
    assert isinstance(found, dict)
    (one,) = found["codes"]
    assert one["text"] == text
    ink = np.argwhere(image < 128)[:, ::-1]
    corners = np.array(one["corners"])
    slack = 40  # bars are read in some of their rows
    assert np.abs(corners.min(axis=0) - ink.min(axis=0)).max() <= slack
    assert np.abs(corners.max(axis=0) - ink.max(axis=0)).max() <= slack


TURNED = {
    "code128": (
        cv2.resize(zxing("Code128", "FOG-128", 2), (300, 90), interpolation=cv2.INTER_AREA)
    ),
    "pdf417": zxing("PDF417", "FOG-128", 3),
}


@pytest.mark.parametrize("kind", sorted(TURNED))
@pytest.mark.parametrize("angle", [-75, -20, 9, 33, 48, 80])
@pytest.mark.parametrize("plan", [Grid(1, 1), Grid(2, 3)])
def test_a_turned_code_of_bars_is_read(kind: str, angle: int, plan: Grid) -> None:
    image = paper(500, 700)
    code = TURNED[kind]
    pasted(image, code, 250 - code.shape[0] // 2, 350 - code.shape[1] // 2)
    turn = cv2.getRotationMatrix2D((350, 250), angle, 1)
    image = cv2.warpAffine(image, turn, (700, 500), borderValue=255)
    found = tiled(pipeline.parse("codes"), image, plan)
    assert isinstance(found, dict)
    (one,) = found["codes"]
    assert (one["kind"], one["text"]) == (kind, "FOG-128")
    assert np.abs(np.mean(one["corners"], axis=0) - (350, 250)).max() < 20


@pytest.mark.parametrize("angle", [1, 2, 3, 5, 8])
def test_a_nearly_level_pdf417_is_read_beside_other_things(angle: int) -> None:
    """ZXing by itself reads this one up to a degree from level."""
    text = "twenty rows of bars, " * 6
    image = cv2.GaussianBlur(photo(600, 800)[..., 0], (0, 0), 2)
    label = paper(260, 620)
    pasted(label, zxing("PDF417", text, 3), 40, 60)
    turn = cv2.getRotationMatrix2D((310, 130), angle, 1)
    shift = np.array([[0, 0, 90], [0, 0, 170]])
    place = cv2.warpAffine(label, turn + shift, (800, 600), borderValue=0)
    inside = cv2.warpAffine(np.full_like(label, 255), turn + shift, (800, 600), borderValue=0)
    image = np.where(inside > 127, np.clip(place, 30, 225), image)
    found = whole("codes kinds=pdf417 size=512", image)
    assert [one["text"] for one in found["codes"]] == [text]


DENSE = "sixty characters in bars that are two pixels wide, 0123456789"


@pytest.mark.parametrize("angle", [0, 25])
def test_a_dense_code_128_that_is_longer_than_a_window_is_read(angle: int) -> None:
    """At half the resolution its bars are a pixel wide."""
    image = paper(1000, 1800)
    code = zxing("Code128", DENSE, 2)
    code = cv2.resize(code, (code.shape[1], 120), interpolation=cv2.INTER_AREA)
    assert code.shape[1] > 1000
    pasted(image, code, 440, 900 - code.shape[1] // 2)
    turn = cv2.getRotationMatrix2D((900, 500), angle, 1)
    image = cv2.warpAffine(image, turn, (1800, 1000), borderValue=255)
    chain = pipeline.parse("codes kinds=code128")
    found = tiled(chain, image, Grid(2, 2))
    assert isinstance(found, dict)
    assert [one["text"] for one in found["codes"]] == [DENSE]


def enlarged(code: Image, side: int) -> Image:
    factor = side / max(code.shape)
    return cv2.resize(code, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("side", [100, 220, 450, 600])
def test_a_code_of_any_size_is_found_once_beside_a_small_one(side: int) -> None:
    image = paper(640, 960)
    pasted(image, enlarged(qr("large"), side), 31, 333)
    pasted(image, aruco(5, side=40), 560, 60)
    found = tiled(pipeline.parse("codes kinds=qr,aruco size=64"), image, Grid(2, 3))
    assert isinstance(found, dict)
    assert [one["text"] for one in found["codes"]] == ["large", "5"]


def test_findings_of_coarser_looks_are_not_sent_to_devices() -> None:
    image = paper(1000, 1500)
    pasted(image, enlarged(qr("large"), 900), 40, 40)
    (prepared,) = pipeline.parse("codes size=64")
    prepared = prepared.prepare(image, image)
    assert prepared._looks  # type: ignore[attr-defined]
    assert prepared.params() == {"size": 64}


def found_at(left: int, right: int, text: str = "x", rank: int = 0) -> Any:
    return _Found("code128", rank, text, (left, 0, right, 0, right, 50, left, 50))


def test_pieces_of_a_code_are_replaced_by_the_whole_and_one_finer_position_is_kept() -> None:
    whole_code, apart = found_at(0, 900), found_at(2000, 2900)
    pieces, nearly = [found_at(10, 300), found_at(500, 890)], found_at(10, 800)
    assert _joined([*pieces, apart], [whole_code]) == [apart, whole_code]
    assert _joined([pieces[0], apart], [whole_code]) == [apart, whole_code]
    assert _joined([nearly, apart], [whole_code]) == [nearly, apart]
    assert _joined([apart], [whole_code]) == [apart, whole_code]
    misread = found_at(0, 900, "y")
    assert _joined([*pieces, apart], [misread]) == [*pieces, apart]


def test_of_overlapping_codes_of_a_kind_the_one_farthest_from_a_cut_is_kept() -> None:
    misread, read = found_at(0, 600, "misread", rank=-10), found_at(0, 900, "read", rank=-200)
    assert _separate(iter([misread, read])) == [read]


def test_threads_processes_and_opencvs_random_state_do_not_matter() -> None:
    there = subprocess.run(
        [sys.executable, "-c", SAME, "1", "99"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    cv2.setNumThreads(3)
    here = str(whole("codes size=128", scene()))
    cv2.setNumThreads(-1)
    assert there == hashlib.sha256(here.encode()).hexdigest()
    assert here.count("'kind'") >= 2


def test_invalid_utf_8_becomes_replacement_characters() -> None:
    code = cv2.QRCodeEncoder.create().encode(b"\xff\xfe caf\xe9")
    image = paper(200, 200)
    pasted(image, np.kron(code, np.ones((4, 4), np.uint8)), 30, 30)
    (found,) = whole("codes", image)["codes"]
    assert msgspec.json.encode(found["text"])


def test_findings_for_another_tiles_window_are_refused() -> None:
    operator = Codes(size=32)
    tiles = cut((200, 200), Size(100, 100), halo=operator.halo)
    code = Code("qr", "x", (0,) * 8)
    first = next(iter(operator._window_grid((200, 200)).owned(tiles[0].core)))
    spec = Spec(200, 200)
    fine = [(tiles[0], TileFindings([WindowFindings(first, [code])]))]
    assert len(operator.gather(fine, spec)["codes"]) == 1
    for views in (
        [WindowFindings(first, [code]), WindowFindings(first, [code])],
        [WindowFindings(10_000, [code])],
        [WindowFindings(first, [code] * 1000)],
        [WindowFindings(first, [code], left_out=-1)],
    ):
        with pytest.raises(WireError, match=r"codes: tile 0 has findings for window \d+"):
            operator.gather([(tiles[0], TileFindings(views))], spec)
    with pytest.raises(WireError, match="codes: tile 3"):
        operator.gather([(tiles[3], TileFindings([WindowFindings(first, [code])]))], spec)


def test_a_tile_that_does_not_contain_its_windows_is_refused() -> None:
    tile = cut((300, 300), Grid(2, 2), halo=3)[0]
    operator = Codes(size=64).for_tile(tile.outer, (300, 300))
    with pytest.raises(OperatorError, match="does not contain its window"):
        operator.measure(paper(tile.outer.height, tile.outer.width), tile.core, tile.seams)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        (
            "codes kinds=qr,qr",
            "kinds=qr,qr: expected some of qr,bar,aruco,code128,datamatrix,pdf417, each once",
        ),
        ("codes kinds=", "kinds=: expected some of"),
        ("codes kinds=ean", "kinds=ean: expected some of"),
        ("codes dictionary=4x4_51", "dictionary=4x4_51: did you mean '4x4_50'?"),
        ("codes size=31", "size=31: expected 32 to 2048 pixels"),
    ],
)
def test_wrong_parameters_are_named(written: str, sentence: str) -> None:
    with pytest.raises(PipelineError) as refusal:
        pipeline.parse(written)
    assert sentence in str(refusal.value)


def test_sixteen_bits_are_refused_with_a_correction() -> None:
    with pytest.raises(OperatorError, match="put 'to8bit' before it"):
        pipeline.split_stages(pipeline.parse("codes"), Spec(9, 9, 1, "uint16"))


def test_an_opencv_that_is_too_old_for_qr_codes_is_refused_with_a_correction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cv2, "QRCodeDetector", object)
    with pytest.raises(
        OperatorError, match=r"need OpenCV 4.12 or newer, .* kinds=bar,aruco,code128"
    ):
        Codes().output(Spec(9, 9))
    assert Codes(kinds="bar,aruco").output(Spec(9, 9)) == Spec(9, 9)


def test_a_detector_that_fails_is_logged_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def giving_up() -> None:
        raise cv2.error("assertion failed")

    image = paper(300, 300)
    pasted(image, aruco(5), 20, 30)
    monkeypatch.setattr(cv2.barcode, "BarcodeDetector", giving_up)
    assert len(whole("codes kinds=bar,aruco", image)["codes"]) == 1
    assert "OpenCV failed to search for bar in a window: assertion failed" in caplog.text


def test_a_drawing_frames_the_codes_and_changes_nothing_else() -> None:
    image = paper(400, 400)
    pasted(image, aruco(5), 150, 150)
    colour = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    operator = registry.build("codes", {})
    drawn = operator.draw(colour.copy(), whole("codes", image))
    changed = np.argwhere((drawn != colour).any(axis=2))
    assert 100 < changed.min() < changed.max() < 250


def naively_separated(found: list[_Found]) -> list[_Found]:
    kept: list[_Found] = []
    for one in sorted(found):
        same = [other for other in kept if other.kind == one.kind]
        if not any(_overlap(one.corners, other.corners) for other in same):
            kept.append(one)
    return kept


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["qr", "bar"]), *[st.integers(0, 60)] * 9), max_size=40))
def test_codes_are_compared_with_those_near_them_as_with_all(drawn: list[Any]) -> None:
    found = [_Found(kind, rank, "x", tuple(corners)) for kind, rank, *corners in drawn]
    assert _separate(found) == naively_separated(found)


@pytest.mark.parametrize("gap", [30, 9])
def test_thousands_of_codes_from_a_device_that_lies_do_not_stall_the_gateway(gap: int) -> None:
    """Small ones beside each other; and thin diagonals, whose boxes all overlap."""
    side = 100
    found = []
    for number in range(20_000):
        top, left = divmod(number, 150)
        top, left = top * gap, left * gap
        corners = (left, top, left + 20, top, left + 20, top + 20, left, top + 20)
        if gap < 20:
            corners = (left, top, left + 1, top, left + 900, top + 900, left + 899, top + 900)
        found.append((Rect(0, 0, side, side), Code("qr", f"{number}", corners)))
    detector = Codes()
    began = time.process_time()
    facts = detector.merge(found[: detector.most_in_image], (4096, 4096))
    assert facts["codes"]
    assert time.process_time() - began < 30, "each was compared with all others"


def test_codes_beyond_the_limit_of_an_image_are_counted() -> None:
    grid = Codes(size=256)._window_grid((256, 256))
    code = Code("qr", "x", (0, 0, 10, 0, 10, 10, 0, 10))
    most = Codes.most_in_image
    assert most is not None
    facts = Codes()._facts([WindowFindings(0, [code] * (most + 7))], grid)
    assert facts["left_out"] == 7
