"""QR codes, bar codes and ArUco markers, found across seams."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import OperatorError
from fogmqtt.images.cv import cv2
from fogmqtt.images.frames import Colour, frame
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Facts, Samples
from fogmqtt.operators.api.registry import suggestion
from fogmqtt.operators.support.sliding_window import TileFindings, WindowDetector, to_hundredths

log = logging.getLogger(__name__)

Kind = Literal["qr", "bar", "aruco"]
#: Pixels; a corner may lie slightly outside its window.
_LARGEST_POSITION = 10_000
#: In hundredths of a pixel.
_Place = Annotated[int, msgspec.Meta(ge=-100 * _LARGEST_POSITION, le=100 * _LARGEST_POSITION)]
_Corners = tuple[_Place, _Place, _Place, _Place, _Place, _Place, _Place, _Place]
#: A QR code holds 7 089 digits, or 4 296 letters, or 2 953 bytes.
_LONGEST_TEXT = 8_000


class Code(msgspec.Struct, frozen=True, array_like=True):
    """A code in a window. `corners` are x and y of its four corners in hundredths of a pixel."""

    kind: Kind
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_TEXT)]
    corners: _Corners


@dataclass(frozen=True)
class Codes(WindowDetector[Code]):
    """QR codes, bar codes (EAN-13, EAN-8, UPC) and ArUco markers, with their texts and corners.

    Takes uint8 of 1 or 3 channels; `gray | codes` sends a third of the bytes. The image is searched
    in windows: squares of twice `size`, every `size` pixels, each by OpenCV's detectors
    (`QRCodeDetector`, `QRCodeDetectorAruco`, `BarcodeDetector`, `ArucoDetector`). Of overlapping
    codes of one kind and text, the one that is farthest from a cut side of its window is kept.
    Halo: `size`. Exact for any tiling, between devices with the same OpenCV build and kind of
    processor.

    The facts::

        {"codes": [{"kind": "qr", "text": "…", "corners": [[x, y], [x, y], [x, y], [x, y]]}],
         "left_out": 0}

    Codes are listed in reading order, with their corners in pixels of the whole image, to a
    hundredth, in the detector's order. Only codes whose text could be read are listed. The text of
    an ArUco marker is its number. Invalid UTF-8 becomes U+FFFD. The findings of a window may take
    `size` squared / 4 bytes (a code takes about 40 bytes and its text); `left_out` counts the codes
    beyond that, the smallest ones.

    Parameters
    ----------
    kinds : str
        The kinds to search, separated by commas: qr, bar, aruco.
    dictionary : str
        The dictionary of the ArUco markers: one of OpenCV's, such as 4x4_50 or apriltag_36h11.
    size : int
        The largest code that is certainly found, with its white margin: the longer side of its
        upright bounding box, 32 to 2048 pixels.
    """

    name: ClassVar[str] = "codes"
    part: ClassVar[Any] = TileFindings[Code]
    # The test images contain no codes, so builds of OpenCV are compared instead of results.
    samples: ClassVar[Samples] = ()
    exactness: ClassVar[str] = (
        "searched in windows of twice its size, not in the whole image at once; only between "
        "devices with the same OpenCV build and kind of processor"
    )

    kinds: str = "qr,bar,aruco"
    dictionary: str = "4x4_50"
    size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = self.kinds.split(",")
        known = set(kinds) <= set(_DETECTORS) and len(kinds) == len(set(kinds))
        self._require(known, "kinds", f"expected some of {','.join(_DETECTORS)}, each once")
        names = _dictionaries()
        self._require(self.dictionary in names, "dictionary", suggestion(self.dictionary, names))
        self._require(32 <= self.size <= 2048, "size", "expected 32 to 2048 pixels")

    def output(self, spec: Spec) -> Spec:
        self._accept(spec, dtypes=("uint8",), channels=(1, 3))
        if "qr" in self.kinds and not hasattr(cv2.QRCodeDetector, "detectAndDecodeBytesMulti"):
            raise OperatorError(
                f"codes: QR codes need OpenCV 4.12 or newer, this is {cv2.__version__}; "
                "update it, or write kinds=bar,aruco"
            )
        return spec

    def window_layout(self) -> tuple[int, int]:
        return 2 * self.size, self.size

    def detect(self, pixels: Image) -> Sequence[Code]:
        gray = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
        codes: set[Code] = set()
        for kind in self.kinds.split(","):
            try:
                codes.update(_DETECTORS[kind](gray, self.dictionary))
            except cv2.error as problem:  # it fails alike on every device
                log.warning("codes: OpenCV failed to search for %s in a window: %s", kind, problem)
        return sorted(codes, key=lambda code: (-_box_area(code.corners), *_order(code)))

    def merge(self, found: Sequence[tuple[Rect, Code]], size: tuple[int, int]) -> Facts:
        ranked = sorted(
            (code.kind, code.text, -_distance_to_cut(code, window, size), _to_image(code, window))
            for window, code in found
        )
        kept: list[Code] = []
        for (kind, text), same in groupby(ranked, key=lambda one: one[:2]):
            separate: list[Any] = []
            for *_, corners in same:
                if not any(_overlap(corners, other) for other in separate):
                    separate.append(corners)
            kept.extend(Code(kind, text, corners) for corners in separate)
        return {"codes": [_fact(code) for code in sorted(kept, key=_order)]}

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Draw a frame around each code, with its text above it."""
        for code in facts["codes"]:
            corners = np.array(code["corners"])
            frame(picture, corners, f"{code['kind']} {code['text']}", _COLOURS[code["kind"]])
        return picture


_COLOURS: dict[str, Colour] = {"qr": (0, 160, 0), "bar": (200, 80, 0), "aruco": (0, 0, 220)}


@cache
def _dictionaries() -> dict[str, int]:
    names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
    return {name.removeprefix("DICT_").lower(): getattr(cv2.aruco, name) for name in names}


# The detectors return what OpenCV finds in a gray window. Each call makes a new OpenCV detector, so
# that no state passes from one window to the next.


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
    markers = cv2.aruco.getPredefinedDictionary(_dictionaries()[dictionary])
    corners, numbers, _ = cv2.aruco.ArucoDetector(markers).detectMarkers(gray)
    if numbers is not None:
        yield from _readable("aruco", (str(number) for number in numbers.flat), corners)


def _readable(kind: Kind, texts: Iterable[str | bytes], corners: Any) -> Iterator[Code]:
    """Yield the codes that have a text and a possible position."""
    for index, raw in enumerate(texts):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        if text and np.all(np.abs(corners[index]) <= _LARGEST_POSITION):
            places = to_hundredths(corners[index]).ravel().tolist()
            yield Code(kind, text[:_LONGEST_TEXT], tuple(places))


_DETECTORS: dict[str, Callable[[Image, str], Iterator[Code]]] = {
    "qr": _qr,
    "bar": _bar,
    "aruco": _aruco,
}


# Quadrilaterals, in hundredths of a pixel: integers, so the order of the work does not matter.


def _order(code: Code) -> tuple[int, int, str, str, _Corners]:
    """Return the sort key for reading order: from the top, then from the left."""
    return min(code.corners[1::2]), min(code.corners[::2]), code.kind, code.text, code.corners


def _box_area(corners: _Corners) -> int:
    """Return the area of the upright box around a quadrilateral."""
    across, down = corners[::2], corners[1::2]
    return (max(across) - min(across)) * (max(down) - min(down))


def _distance_to_cut(code: Code, window: Rect, size: tuple[int, int]) -> int:
    """Return 4 times the distance of the code's centre from the nearest cut side of its window."""
    x, y = sum(code.corners[::2]), sum(code.corners[1::2])
    cuts = (
        (y, window.top > 0),
        (400 * window.height - y, window.bottom < size[0]),
        (x, window.left > 0),
        (400 * window.width - x, window.right < size[1]),
    )
    return min((distance for distance, cut in cuts if cut), default=400 * max(size))


def _to_image(code: Code, window: Rect) -> tuple[int, ...]:
    offset = (100 * window.left, 100 * window.top) * 4
    return tuple(place + by for place, by in zip(code.corners, offset, strict=True))


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Return whether two convex quadrilaterals overlap: no side of either separates them."""
    return not any(_separates(edges, one, other) for edges in (one, other))


def _separates(edges: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    for corner in range(0, 8, 2):
        following = (corner + 2) % 8
        dx, dy = edges[following] - edges[corner], edges[following + 1] - edges[corner + 1]
        if dx == dy == 0:
            continue
        first, second = ([dx * q[i + 1] - dy * q[i] for i in range(0, 8, 2)] for q in (one, other))
        if max(first) <= min(second) or max(second) <= min(first):
            return True
    return False


def _fact(code: Code) -> dict[str, Any]:
    places = [place / 100 for place in code.corners]
    return {
        "kind": code.kind,
        "text": code.text,
        "corners": [places[i : i + 2] for i in range(0, 8, 2)],
    }
