"""What finds codes in a gray window: the detectors of OpenCV, and ZXing.

Each call makes new detectors, so that no state passes from one window to the next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import zxingcpp

from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators.support.edge_angles import edge_angles, level
from fogmqtt.operators.support.sliding_window import to_hundredths

log = logging.getLogger(__name__)

Kind = Literal["qr", "bar", "aruco", "code128", "datamatrix", "pdf417"]
#: Pixels; a corner may lie slightly outside its window.
_LARGEST_POSITION = 10_000
#: In hundredths of a pixel.
_Place = Annotated[int, msgspec.Meta(ge=-100 * _LARGEST_POSITION, le=100 * _LARGEST_POSITION)]
Corners = tuple[_Place, _Place, _Place, _Place, _Place, _Place, _Place, _Place]
#: A QR code holds 7 089 digits, or 4 296 letters, or 2 953 bytes; the others hold less.
_LONGEST_TEXT = 8_000


class Code(msgspec.Struct, frozen=True, array_like=True):
    """A code in a window. `corners` are x and y of its four corners in hundredths of a pixel."""

    kind: Kind
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_TEXT)]
    corners: Corners


def search(
    gray: Image, kinds: Sequence[Kind], dictionary: str, *, quick: bool = False
) -> set[Code]:
    """Return the codes of these kinds in a gray window.

    With `quick`, only ZXing searches QR codes: OpenCV takes forty times as long. `dictionary` is
    that of ArUco markers.
    """
    found = search_bars(gray, [kind for kind in kinds if kind in BARS])
    found.update(_zxing(gray, [kind for kind in kinds if kind in _ZXING and kind not in BARS]))
    if "pdf417" in kinds:
        found.update(_leveled(gray))
    for kind in kinds:
        if kind in _OPENCV and not (quick and kind == "qr"):
            found.update(_unless_opencv_fails(kind, _OPENCV[kind](gray, dictionary)))
    return found


def search_bars(gray: Image, kinds: Sequence[Kind]) -> set[Code]:
    """Return the codes of kinds in BARS: ZXing looks along rows and columns, which is quick."""
    found = set(_zxing(gray, kinds))
    if "code128" in kinds:
        found.update(_unless_opencv_fails("code128", _turned(gray)))
    return found


def _unless_opencv_fails(kind: Kind, found: Iterator[Code]) -> Iterator[Code]:
    try:
        yield from found
    except cv2.error as problem:  # it fails alike on every device
        log.warning("codes: OpenCV failed to search for %s in a window: %s", kind, problem)


@cache
def dictionaries() -> dict[str, int]:
    """Return the dictionaries of ArUco markers by their names in a pipeline."""
    names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
    return {name.removeprefix("DICT_").lower(): getattr(cv2.aruco, name) for name in names}


def _qr(gray: Image, dictionary: str) -> Iterator[Code]:
    """Search with OpenCV's three methods: none finds all codes that the others find."""
    del dictionary
    for detector in (cv2.QRCodeDetector(), cv2.QRCodeDetectorAruco()):
        cv2.setRNGSeed(0)  # its clustering starts at random points
        _, texts, corners, _ = detector.detectAndDecodeBytesMulti(gray)
        yield from _readable("qr", texts, corners)
    cv2.setRNGSeed(0)
    text, corner, _ = cv2.QRCodeDetector().detectAndDecodeBytes(gray)
    yield from _readable("qr", [text], corner)


def _bar(gray: Image, dictionary: str) -> Iterator[Code]:
    del dictionary
    _, texts, corners, _ = cv2.barcode.BarcodeDetector().detectAndDecodeMulti(gray)
    yield from _readable("bar", texts, corners)


def _aruco(gray: Image, dictionary: str) -> Iterator[Code]:
    markers = cv2.aruco.getPredefinedDictionary(dictionaries()[dictionary])
    corners, numbers, _ = cv2.aruco.ArucoDetector(markers).detectMarkers(gray)
    if numbers is not None:
        yield from _readable("aruco", (str(number) for number in numbers.flat), corners)


_OPENCV: Final[dict[Kind, Callable[[Image, str], Iterator[Code]]]] = {
    "qr": _qr,
    "bar": _bar,
    "aruco": _aruco,
}
_ZXING: Final[dict[Kind, str]] = {
    "qr": "QRCode",
    "code128": "Code128",
    "datamatrix": "DataMatrix",
    "pdf417": "PDF417",
}
#: Every kind, in the order of their names in a pipeline.
KINDS: Final[tuple[Kind, ...]] = (*_OPENCV, *(kind for kind in _ZXING if kind not in _OPENCV))


#: Kinds that may be much longer than high.
BARS: Final[tuple[Kind, ...]] = ("code128", "pdf417")
#: Shorter places hold no bar code, pixels.
_SHORTEST_BARS: Final = 8
#: The angles of a window in which PDF417 is searched. Among other things it is hardly the third.
_ANGLES: Final = 2


def _turned(gray: Image) -> Iterator[Code]:
    """Search Code 128 where OpenCV sees bars: it finds those of any angle, and reads EAN only."""
    _, quads = cv2.barcode.BarcodeDetector().detectMulti(gray)
    for quad in () if quads is None else quads:
        along, down = quad[1] - quad[0], quad[2] - quad[1]
        length, height = float(np.hypot(*along)), float(np.hypot(*down))
        if not min(length, height) > _SHORTEST_BARS or max(length, height) > max(gray.shape):
            continue
        # The white margins are needed, too, and the place may be a little short.
        border = 0.15 * max(length, height) + 10
        size = round(length + 2 * border), round(height + 2 * border)
        axes = np.column_stack((along / length, down / height))
        origin = quad.mean(0) - axes @ (size[0] / 2, size[1] / 2)
        upright = cv2.warpAffine(
            gray,
            np.column_stack((axes, origin)),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        for code in _zxing(upright, ["code128"]):
            corners = np.array(code.corners).reshape(4, 2) / 100 @ axes.T + origin
            yield from _readable(code.kind, [code.text], [corners])


def _leveled(gray: Image) -> Iterator[Code]:
    """Search PDF417 along the edges of the window: ZXing finds what is level within a degree."""
    for degrees in edge_angles(gray, _ANGLES):
        if degrees == 0:
            continue  # it was searched so
        turned, back = level(gray, degrees)
        for code in _zxing(turned, ["pdf417"]):
            corners = np.array(code.corners).reshape(4, 2) / 100 @ back[:, :2].T + back[:, 2]
            yield from _readable(code.kind, [code.text], [corners])


def _zxing(gray: Image, kinds: Sequence[Kind]) -> Iterator[Code]:
    for kind in kinds:
        formats = zxingcpp.barcode_formats_from_str(_ZXING[kind])
        plain = zxingcpp.TextMode.Plain
        for one in zxingcpp.read_barcodes(gray, formats=formats, text_mode=plain):
            at = one.position
            points = (at.top_left, at.top_right, at.bottom_right, at.bottom_left)
            # OpenCV gives the bytes of a QR code, and one code must not have two texts.
            text = one.bytes if kind == "qr" else one.text
            yield from _readable(kind, [text], [[(point.x, point.y) for point in points]])


def _readable(kind: Kind, texts: Iterable[str | bytes], corners: Any) -> Iterator[Code]:
    """Yield the codes that have a text and a possible position."""
    for index, raw in enumerate(texts):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        if text and np.all(np.abs(corners[index]) <= _LARGEST_POSITION):
            places = to_hundredths(corners[index]).ravel().tolist()
            yield Code(kind, text[:_LONGEST_TEXT], tuple(places))
