"""Codes made for machines: QR codes, bar codes and ArUco markers, found across seams."""

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
#: Pixels; a detector's corner may lie a little outside of its window.
_FARTHEST = 10_000
#: In hundredths of a pixel.
_Place = Annotated[int, msgspec.Meta(ge=-100 * _FARTHEST, le=100 * _FARTHEST)]
_Corners = tuple[_Place, _Place, _Place, _Place, _Place, _Place, _Place, _Place]
#: A QR code holds 7 089 digits, or 4 296 letters, or 2 953 bytes.
_LONGEST_TEXT = 8_000


class Code(msgspec.Struct, frozen=True, array_like=True):
    """A code in a window: x and y of four corners."""

    kind: Kind
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_TEXT)]
    corners: _Corners


@dataclass(frozen=True)
class Codes(WindowDetector[Code]):
    """QR codes, bar codes (EAN-13, EAN-8, UPC) and ArUco markers, with their texts and corners.

    Takes uint8 of 1 or 3 channels; write `gray | codes`, and a third of the bytes travel. The
    whole is defined window by window: squares of twice `size`, every `size` pixels, each searched
    alone by OpenCV's detectors (`QRCodeDetector` and `QRCodeDetectorAruco`, `BarcodeDetector`,
    `ArucoDetector`). Codes of one kind and text that overlap are one: the one that lies farthest
    from where its window was cut. Exact against that for any tiling. Halo: `size`.

    The facts::

        {"codes": [{"kind": "qr", "text": "…", "corners": [[x, y], [x, y], [x, y], [x, y]]}],
         "left_out": 0}

    Codes stand in reading order; corners in pixels of the whole image, to a hundredth, in the
    detector's order. Only what could be read is told; an ArUco marker's text is its number. Bytes
    of a text that are no UTF-8 become U+FFFD. `left_out` counts codes beyond what a window may
    tell (`size` squared / 4 bytes; a code takes some 40 bytes and its text), smallest first.

    Parameters
    ----------
    kinds : str
        What to look for: qr, bar, aruco, with commas between them.
    dictionary : str
        Which ArUco markers: OpenCV's predefined dictionaries, as 4x4_50 or apriltag_36h11.
    size : int
        The largest code that is surely found, with the white around it: the longer side of its
        upright bounding box, 32 to 2048 pixels.
    """

    name: ClassVar[str] = "codes"
    part: ClassVar[Any] = TileFindings[Code]
    # No picture of ours has codes, so the build of OpenCV decides who agrees.
    samples: ClassVar[Samples] = ()
    exactness: ClassVar[str] = (
        "searched in windows of twice its size, not in the whole image at once; "
        "the same OpenCV build and kind of processor on every device"
    )

    kinds: str = "qr,bar,aruco"
    dictionary: str = "4x4_50"
    size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = self.kinds.split(",")
        known = set(asked) <= set(_READERS) and len(asked) == len(set(asked))
        self._require(known, "kinds", f"expected some of {','.join(_READERS)}, each once")
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
                codes.update(_READERS[kind](gray, self.dictionary))
            except cv2.error as problem:  # what breaks it here breaks it everywhere
                log.warning("codes: OpenCV gave up on %s in a window: %s", kind, problem)
        return sorted(codes, key=lambda code: (-_extent(code.corners), *_order(code)))

    def merge(self, found: Sequence[tuple[Rect, Code]], size: tuple[int, int]) -> Facts:
        ranked = sorted(
            (code.kind, code.text, -_depth(code, window, size), _moved(code, window))
            for window, code in found
        )
        kept: list[Code] = []
        for (kind, text), same in groupby(ranked, key=lambda one: one[:2]):
            apart: list[Any] = []
            for *_, corners in same:
                if not any(_overlap(corners, other) for other in apart):
                    apart.append(corners)
            kept.extend(Code(kind, text, corners) for corners in apart)
        return {"codes": [_fact(code) for code in sorted(kept, key=_order)]}

    def draw(self, picture: Image, facts: Facts) -> Image:
        """Each code in its frame, with its text above it."""
        for code in facts["codes"]:
            corners = np.array(code["corners"])
            frame(picture, corners, f"{code['kind']} {code['text']}", _COLOURS[code["kind"]])
        return picture


_COLOURS: dict[str, Colour] = {"qr": (0, 160, 0), "bar": (200, 80, 0), "aruco": (0, 0, 220)}


@cache
def _dictionaries() -> dict[str, int]:
    names = [name for name in dir(cv2.aruco) if name.startswith("DICT_")]
    return {name.removeprefix("DICT_").lower(): getattr(cv2.aruco, name) for name in names}


# The readers: what OpenCV finds in a gray window. New detectors for each, so that nothing is
# remembered from one window to the next.


def _qr(gray: Image, dictionary: str) -> Iterator[Code]:
    """By each of OpenCV's three ways: none of them finds all that another finds."""
    del dictionary
    for detector in (cv2.QRCodeDetector(), cv2.QRCodeDetectorAruco()):
        cv2.setRNGSeed(0)  # it clusters from random beginnings
        _, texts, corners, _ = detector.detectAndDecodeBytesMulti(gray)
        yield from _read("qr", texts, corners)
    cv2.setRNGSeed(0)
    text, corner, _ = cv2.QRCodeDetector().detectAndDecodeBytes(gray)
    yield from _read("qr", [text], corner)


def _bar(gray: Image, dictionary: str) -> Iterator[Code]:
    del dictionary
    _, texts, corners, _ = cv2.barcode.BarcodeDetector().detectAndDecodeMulti(gray)
    yield from _read("bar", texts, corners)


def _aruco(gray: Image, dictionary: str) -> Iterator[Code]:
    markers = cv2.aruco.getPredefinedDictionary(_dictionaries()[dictionary])
    corners, numbers, _ = cv2.aruco.ArucoDetector(markers).detectMarkers(gray)
    if numbers is not None:
        yield from _read("aruco", (str(number) for number in numbers.flat), corners)


def _read(kind: Kind, texts: Iterable[str | bytes], corners: Any) -> Iterator[Code]:
    """What was not only found, but read, and lies where a code can."""
    for index, raw in enumerate(texts):
        text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
        if text and np.all(np.abs(corners[index]) <= _FARTHEST):
            places = to_hundredths(corners[index]).ravel().tolist()
            yield Code(kind, text[:_LONGEST_TEXT], tuple(places))


_READERS: dict[str, Callable[[Image, str], Iterator[Code]]] = {
    "qr": _qr,
    "bar": _bar,
    "aruco": _aruco,
}


# Quads, in whole hundredths of a pixel: no rounding, so the order of work does not matter.


def _order(code: Code) -> tuple[int, int, str, str, _Corners]:
    """Reading order: from the top, from the left."""
    return min(code.corners[1::2]), min(code.corners[::2]), code.kind, code.text, code.corners


def _extent(corners: _Corners) -> int:
    """The area of the upright box around a quad."""
    across, down = corners[::2], corners[1::2]
    return (max(across) - min(across)) * (max(down) - min(down))


def _depth(code: Code, window: Rect, size: tuple[int, int]) -> int:
    """How far the middle of a code is from the next side at which its window was cut, times 4."""
    x, y = sum(code.corners[::2]), sum(code.corners[1::2])
    cuts = (
        (y, window.top > 0),
        (400 * window.height - y, window.bottom < size[0]),
        (x, window.left > 0),
        (400 * window.width - x, window.right < size[1]),
    )
    return min((distance for distance, cut in cuts if cut), default=400 * max(size))


def _moved(code: Code, window: Rect) -> tuple[int, ...]:
    offset = (100 * window.left, 100 * window.top) * 4
    return tuple(place + by for place, by in zip(code.corners, offset, strict=True))


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two convex quads share more than a border: no side of either separates them."""
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
