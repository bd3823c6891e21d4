"""Parts of a picture in which things count, or do not count: polygons in shares of its sides.

A thing is where it stands: at the middle of its box's lower side. Whether that point lies in a
polygon is decided with integers; the polygon's border belongs to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fogmqtt.core.streaming.tracker import BoundingBox
from fogmqtt.errors import ConfigError

#: A corner's position is in ten-thousandths of the picture's side.
SCALE = 10_000
#: The most corners of a polygon.
MOST_CORNERS = 100

_NUMBER = re.compile(r"(?:0|1)?\.?\d{0,4}")


@dataclass(frozen=True, slots=True)
class Polygon:
    """Corners in order, each x and y in ten-thousandths of the picture's width and height."""

    corners: tuple[tuple[int, int], ...]

    def contains(self, x: int, y: int, width: int, height: int) -> bool:
        """Return whether a point lies in it, which is in hundredths of a pixel."""
        # Corner / SCALE and point / (100 * side) are compared: both are multiplied by both.
        px, py = x * SCALE, y * SCALE
        points = [(cx * 100 * width, cy * 100 * height) for cx, cy in self.corners]
        inside = False
        for (ax, ay), (bx, by) in zip(points, (*points[1:], points[0]), strict=True):
            side = (bx - ax) * (py - ay) - (by - ay) * (px - ax)
            on_line = min(ax, bx) <= px <= max(ax, bx) and min(ay, by) <= py <= max(ay, by)
            if side == 0 and on_line:
                return True
            if (ay > py) != (by > py) and (side > 0) == (by > ay):
                inside = not inside
        return inside


@dataclass(frozen=True, slots=True)
class Zones:
    """Where things count. Without `include`, everywhere but in `exclude`."""

    include: Mapping[str, Polygon]
    exclude: Mapping[str, Polygon]

    def of(self, box: BoundingBox, width: int, height: int) -> tuple[str, ...] | None:
        """Return the zones in which a thing is; None if it does not count."""
        x, y = (box.left + box.right) // 2, box.bottom
        if any(one.contains(x, y, width, height) for one in self.exclude.values()):
            return None
        found = tuple(
            name for name, one in sorted(self.include.items()) if one.contains(x, y, width, height)
        )
        return found if found or not self.include else None


def parse_polygon(text: str) -> Polygon:
    """Return a polygon from a text such as "0,0.5 1,0.5 1,1 0,1". Raises ConfigError."""
    corners = tuple(_corner(word) for word in text.split())
    if not 3 <= len(corners) <= MOST_CORNERS:
        raise ConfigError(
            f"{text[:60]!r} has {len(corners)} corner(s); write 3 to {MOST_CORNERS}, each as x,y "
            "from 0 to 1"
        )
    return Polygon(corners)


def _corner(word: str) -> tuple[int, int]:
    x, comma, y = word.partition(",")
    values = [_share(one) for one in (x, y)]
    if not comma or None in values:
        raise ConfigError(
            f"{word[:30]!r} is no corner; write x,y from 0 to 1, with up to four decimals"
        )
    return values[0] or 0, values[1] or 0


def _share(text: str) -> int | None:
    if not any(map(str.isdigit, text)) or _NUMBER.fullmatch(text) is None:
        return None
    whole, _, decimals = text.partition(".")
    value = int(whole or 0) * SCALE + int(decimals.ljust(4, "0")[:4] or 0)
    return value if value <= SCALE else None
