"""Small drawings of boxes, lines and labels, as SVG text and as PNG bytes.

Coordinates are pixels from the upper left corner. Colours are `#rrggbb`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import Literal

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

#: The distance between two lines of a hatch.
_HATCH = 5
#: A PNG has this many times the size of its drawing, so that thin lines and letters stay sharp.
_SCALE = 2
#: The maximum height and width of a PNG. Pillow accepts no larger image.
_MAX_SIDE = 16_000


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle. `hatch` is the colour of diagonal lines over it, `tip` its tool tip."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    hatch: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """A text. `y` is its base line."""

    x: float
    y: float
    text: str
    size: int = 12
    colour: str = "#333333"
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Box | Line | Label


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes on a white background. Later shapes cover earlier ones."""

    width: int
    height: int
    shapes: Sequence[Shape]


def svg(drawing: Drawing) -> str:
    """Return the text of an SVG file."""
    boxes = [shape for shape in drawing.shapes if isinstance(shape, Box)]
    hatches = sorted({box.hatch for box in boxes if box.hatch})
    size = f'width="{drawing.width}" height="{drawing.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="0 0 {drawing.width} {drawing.height}" font-family="sans-serif">',
        "<defs>",
        *(_pattern(colour) for colour in hatches),
        "</defs>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *(_element(shape) for shape in drawing.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _pattern(colour: str) -> str:
    return (
        f'<pattern id="h{colour[1:]}" width="{_HATCH}" height="{_HATCH}" '
        'patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        f'<line x1="0" y1="0" x2="0" y2="{_HATCH}" stroke="{colour}" stroke-width="2"/></pattern>'
    )


def _element(shape: Shape) -> str:
    match shape:
        case Box(x, y, width, height):
            place = f'x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}"'
            tip = f"<title>{escape(shape.tip)}</title>" if shape.tip else ""
            box = f'<rect {place} fill="{shape.fill}">{tip}</rect>'
            over = f'<rect {place} fill="url(#h{shape.hatch[1:]})" pointer-events="none"/>'
            return box + over if shape.hatch else box
        case Line(x1, y1, x2, y2, colour, width, dashed):
            dash = ' stroke-dasharray="5 4"' if dashed else ""
            place = f'x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"'
            return f'<line {place} stroke="{colour}" stroke-width="{width:g}"{dash}/>'
        case Label(x, y, text, size, colour, anchor):
            return (
                f'<text x="{x:.2f}" y="{y:.2f}" font-size="{size}" fill="{colour}" '
                f'text-anchor="{anchor}">{escape(text)}</text>'
            )


def png(drawing: Drawing) -> bytes:
    """Return the bytes of a PNG file of twice the drawing's size, if that is not too large."""
    longest = max(drawing.width, drawing.height)
    scale = _SCALE if longest * _SCALE <= _MAX_SIDE else min(1.0, _MAX_SIDE / longest)
    size = max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale))
    image = Pillow.new("RGB", size, "#ffffff")
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        _draw(pen, shape, scale)
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: Shape, scale: float) -> None:
    match shape:
        case Box():
            _draw_box(pen, shape, scale)
        case Line(x1, y1, x2, y2, colour, width, dashed):
            thick = max(1, round(width * scale))
            for a, b in _dashes(shape) if dashed else (((x1, y1), (x2, y2)),):
                ends = (a[0] * scale, a[1] * scale, b[0] * scale, b[1] * scale)
                pen.line(ends, fill=colour, width=thick)
        case Label(x, y, text, points, colour, anchor):
            font = ImageFont.load_default(points * scale)
            where = {"start": "ls", "middle": "ms", "end": "rs"}[anchor]
            pen.text((x * scale, y * scale), text, fill=colour, font=font, anchor=where)


def _draw_box(pen: ImageDraw.ImageDraw, box: Box, scale: float) -> None:
    left, top = box.x * scale, box.y * scale
    right = max(left, (box.x + box.width) * scale - 1)
    bottom = max(top, (box.y + box.height) * scale - 1)
    pen.rectangle((left, top, right, bottom), fill=box.fill)
    if box.hatch:
        for ends in _hatch(left, top, right, bottom, _HATCH * 1.4 * scale):
            pen.line(ends, fill=box.hatch, width=max(1, round(scale)))


def _hatch(
    left: float, top: float, right: float, bottom: float, step: float
) -> Iterator[tuple[float, float, float, float]]:
    """Yield diagonals clipped to a rectangle. The diagonals of all rectangles are on one grid."""
    diagonal = (left + top) // step * step + step
    while diagonal < right + bottom:
        x1 = max(left, diagonal - bottom)
        x2 = min(right, diagonal - top)
        yield x1, diagonal - x1, x2, diagonal - x2
        diagonal += step


def _dashes(line: Line) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    length = max(1e-9, ((line.x2 - line.x1) ** 2 + (line.y2 - line.y1) ** 2) ** 0.5)
    at = 0.0
    while at < length:
        end = min(at + 5, length)
        yield _along(line, at / length), _along(line, end / length)
        at += 9


def _along(line: Line, part: float) -> tuple[float, float]:
    return (
        line.x1 + (line.x2 - line.x1) * part,
        line.y1 + (line.y2 - line.y1) * part,
    )
