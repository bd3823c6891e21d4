"""Draws the figures that were written down: ours beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot
from matplotlib.axes import Axes

OURS, THEIRS = "#1f6f5c", "#b8bfc6"
NAMES = {"fog": "fogmqtt", "bare": "bare paho", "bare+work": "bare paho + cv2", "dask": "Dask"}
NAMES |= {"imagezmq": "imagezmq", "celery": "Celery + Redis", "strips": "one strip each"}
FLEETS = {"eight": "eight, to 5 MP/s", "eight, fast": "eight, to 20 MP/s"}


def draw(written: dict[str, Any], path: Path) -> None:
    """Draw wall and CPU time of 24 MP, and the makespans of the fleets, as an SVG file."""
    # The same figures give the same file.
    mpl.rcParams |= {"svg.hashsalt": "fogmqtt", "font.size": 9, "svg.fonttype": "none"}
    figure, grid = pyplot.subplots(2, 3, figsize=(12, 5.5), layout="constrained")
    for axes, (pipeline, systems) in zip(grid, written["systems"].items(), strict=True):
        shown = {
            name: seen for name, seen in systems.items() if pipeline == "invert" or name != "bare"
        }
        notes = [f"  {seen['wrong']} px wrong" if seen["wrong"] else "" for seen in shown.values()]
        _bars(axes[0], {name: seen["wall_s"] for name, seen in shown.items()}, notes)
        _bars(axes[1], {name: seen["cpu_s"] for name, seen in shown.items()})
        axes[0].set_title(f"24 MP {pipeline}, wall s", loc="left")
        axes[1].set_title("CPU-seconds of all processes", loc="left")
    for axes, (key, title) in zip(grid[:, 2], FLEETS.items(), strict=True):
        _bars(axes, {"fog": written["figures"][key], **written["beside"].get(key, {})})
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(f"{title}: makespan ÷ ideal", loc="left")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(axes: Axes, values: dict[str, float], notes: Sequence[str] = ()) -> None:
    colours = [OURS if name == "fog" else THEIRS for name in values]
    bars = axes.barh([NAMES[name] for name in values], list(values.values()), color=colours)
    labels = zip_longest(values.values(), notes, fillvalue="")
    axes.bar_label(bars, [f"{value:.2f}{note}" for value, note in labels], padding=2)
    axes.invert_yaxis()
    axes.margins(x=0.5)
    axes.spines[["top", "right"]].set_visible(False)
