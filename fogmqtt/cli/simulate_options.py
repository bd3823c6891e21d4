"""The options of `fog-gateway simulate`. Importing this module does not import the simulator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from fogmqtt.cli.common import positive_number

if TYPE_CHECKING:
    from fogmqtt.simulate.fleet import Addition

_DRAWING_SUFFIXES = (".svg", ".png")
_MAX_ADDED = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `simulate`."""
    fleets = parser.add_mutually_exclusive_group(required=True)
    fleets.add_argument("--fleet", type=Path, metavar="FILE", help="the fleet (YAML)")
    fleets.add_argument(
        "--from-live",
        action="store_true",
        help="use the devices that are online, at their announced speeds",
    )
    parser.add_argument(
        "--add",
        type=_addition,
        action="append",
        default=[],
        metavar="NxSPEED",
        help="add devices: 2x5e6 (two of 5e6 pixels per second), or 2xeya (two like eya)",
    )
    parser.add_argument(
        "--pixels",
        required=True,
        type=positive_number("pixels"),
        help="the pixels of the image, such as 100e6",
    )
    parser.add_argument("--pipeline", help="'gray | canny low=50 high=150', or a configured name")
    parser.add_argument(
        "--tiles", help="auto, 'size 512x512' (w x h) or 'grid 3x1' (columns x rows)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="the seed of random numbers (default: 1)"
    )
    parser.add_argument(
        "--gantt",
        type=_drawing_path,
        metavar="FILE",
        help="draw the tiles of each device over time: .svg or .png",
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a trace for ui.perfetto.dev (JSON)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _addition(text: str) -> Addition:
    from fogmqtt.simulate.fleet import Addition

    count, _, like = text.partition("x")
    if not (count.isdecimal() and 0 < int(count) <= _MAX_ADDED and like):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a number and a speed, such as 2x5e6, or a device, such as 2xeya"
        )
    return Addition(int(count), like)


def _drawing_path(text: str) -> Path:
    path = Path(text)
    if path.suffix.lower() not in _DRAWING_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text!r}: the name of a drawing ends in .svg or .png")
    return path
