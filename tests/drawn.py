"""Strategies for property tests: operators with all their parameters, images, and tile plans."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import fogmqtt
from fogmqtt.core.geometry import Grid, Size
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.base import Operator

odd = st.integers(1, 12).map(lambda half: 2 * half + 1)
bounds = st.floats(-50, 1500)
kernels = {
    "ksize": st.integers(1, 9),
    "shape": st.sampled_from(["rect", "ellipse", "cross"]),
    "iterations": st.integers(1, 3),
    "element": st.sampled_from(["", "", "1", "0110", "010/111/011", "1/0/0/1/1", "00001/10000"]),
}
slopes = {"ksize": st.sampled_from([1, 3, 5, 7]), "absolute": st.booleans()}
first_slopes = st.sampled_from([{}, {"dx": 0, "dy": 1}, {"dx": 1, "dy": 0, "absolute": False}])
eighths = st.integers(1, 64).map(lambda count: count / 8)
binary = {"max": st.floats(0, 65535), "inverse": st.booleans()}
halves = st.integers(0, 15)

Strategies = dict[str, st.SearchStrategy[Any]]

#: Parameters of every operator with memory; `test_stream_law` fails without one.
MEMORY_PARAMS: dict[str, Strategies] = {
    "average": {"rate": st.integers(1, 12)},
    "background": {
        "rate": st.integers(1, 12),
        "threshold": st.integers(1, 16),
        "noise": st.integers(1, 64),
        "absorb": st.integers(1, 15),
    },
    "diff": {},
    "median_of": {"frames": st.integers(1, 7).map(lambda half: 2 * half + 1)},
    "mog2": {
        "history": st.integers(1, 1000),
        "threshold": st.floats(1, 100),
        "shadows": st.booleans(),
    },
}

#: Those of all other tiled operators; `test_every_tiled_operator_is_tested_here` checks it.
PARAMS: dict[str, Strategies | st.SearchStrategy[dict[str, Any]]] = {
    "adaptive": {
        "method": st.sampled_from(["mean", "gaussian"]),
        "block": odd,
        "c": st.floats(-255, 255) | st.integers(-4, 4).map(float),
        "max": st.floats(0, 255),
        "inverse": st.booleans(),
    },
    "adjust": {"contrast": st.floats(0, 10), "brightness": st.floats(-255, 255)},
    "autocanny": {
        "sigma": st.floats(0, 1),
        "aperture": st.sampled_from([3, 5, 7]),
        "l2": st.booleans(),
    },
    "autolevels": {"clip": st.floats(0, 49), "each": st.booleans()},
    "bilateral": {
        "d": st.integers(0, 9),
        "color": st.floats(0.1, 300),
        "space": st.floats(0.1, 3),
    },
    "blackhat": kernels,
    "blur": {"ksize": odd},
    "canny": {
        "low": bounds,
        "high": bounds,
        "aperture": st.sampled_from([3, 5, 7]),
        "l2": st.booleans(),
    },
    "channel": {"which": st.sampled_from(["0", "1", "2", "red", "hue", "value"])},
    "clahe": {
        "clip": st.floats(0, 40),
        "columns": st.integers(1, 9),
        "rows": st.integers(1, 9),
    },
    "close": kernels,
    "denoise": {
        "h": st.floats(0.5, 60),
        "color": st.floats(0.5, 60),
        "template": st.sampled_from([1, 3, 5, 7]),
        "search": st.sampled_from([1, 3, 5, 9]),
    },
    "dilate": kernels,
    "equalize": {},
    "erode": kernels,
    "gamma": {"gamma": st.floats(0.05, 20)},
    "gaussian": (
        st.builds(lambda half: {"ksize": 2 * half + 1}, halves)
        | st.builds(lambda sigma: {"ksize": 0, "sigma": sigma}, st.floats(0.2, 4))
    ),
    "gradient": kernels,
    "gray": {},
    "hsv": {"back": st.booleans(), "full": st.booleans()},
    "invert": {},
    "kernel": {
        "weights": st.sampled_from([1, 3, 5, 7]).flatmap(
            lambda side: st.lists(
                st.integers(-5, 5).map(str), min_size=side**2, max_size=side**2
            ).map(",".join)
        ),
        "divisor": st.sampled_from([1, 2, 16, 256]),
        "offset": st.sampled_from([0, 0, 3, -100]),
    },
    "lab": {"back": st.booleans()},
    "laplacian": slopes,
    "median": {"ksize": odd},
    "normalize": {"low": st.floats(0, 100), "high": st.floats(101, 400) | st.just(0.0)},
    "open": kernels,
    "otsu": binary,
    "prewitt": first_slopes,
    "scharr": first_slopes,
    "sharpen": {"amount": eighths},
    "sobel": st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 0), (0, 2), (2, 2)]).flatmap(
        lambda order: st.fixed_dictionaries(
            {"dx": st.just(order[0]), "dy": st.just(order[1])}, optional=slopes
        )
    ),
    "threshold": {"value": st.floats(-10, 65536), **binary},
    "to8bit": {},
    "tofloat": {},
    "tophat": kernels,
    "triangle": binary,
    "unsharp": {"ksize": halves.map(lambda half: 2 * half + 1), "amount": eighths},
    "whitebalance": {},
}


@st.composite
def operators(draw: st.DrawFn, name: str) -> Operator:
    params = PARAMS[name] if name in PARAMS else MEMORY_PARAMS[name]
    optional = st.fixed_dictionaries({}, optional=params) if isinstance(params, dict) else params
    return registry.build(name, draw(optional))


#: Float operators are exact by tiles that begin and end at multiples of 64 pixels: images must
#: be wider than that to show it.
sides = st.integers(1, 70) | st.integers(1, 70) | st.integers(65, 240)


@st.composite
def images(draw: st.DrawFn, dtypes: tuple[str, ...] = ("uint8", "uint16", "float32")) -> Image:
    """Noise, a photograph, lines that wind through all tiles, steps, nothing at all."""
    shape = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["noise", "photo", "spiral", "smooth", "steps", "constant"]))
    values = _values(kind, shape, rng)
    if draw(st.booleans()):
        values = values[..., 0].copy()
    dtype = draw(st.sampled_from(dtypes))
    most = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    return (values * most).astype(dtype)


def _values(kind: str, size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Three channels from 0 to 1."""
    shape = (*size, 3)
    match kind:
        case "photo":
            return _photo_part(size, rng)
        case "spiral":
            return _spiral(size, rng)
        case "smooth":
            values = cv2.GaussianBlur(rng.random(shape), (0, 0), rng.uniform(0.7, 4))
            return (values - values.min()) / (np.ptp(values) or 1)
        case "steps":
            return rng.integers(0, 4, shape) / 3
        case "constant":
            return np.full(shape, rng.random())
    return rng.random(shape)


@cache
def _photo() -> Image:
    return cv2.imread(str(Path(fogmqtt.__file__).parent / "cli" / "photo.png"))


def _photo_part(size: tuple[int, int], rng: np.random.Generator) -> Image:
    photo = _photo()
    top, left = (int(rng.integers(photo.shape[axis] - size[axis])) for axis in (0, 1))
    return photo[top : top + size[0], left : left + size[1]] / 255


def _spiral(size: tuple[int, int], rng: np.random.Generator) -> Image:
    """Strong in the middle, faint from a few turns on; a little different in each channel."""
    y, x = np.indices(size) - np.reshape(size, (2, 1, 1)) / 2
    radius = np.hypot(y, x)
    arms = np.sin(np.arctan2(y, x) - radius * 2 * np.pi / rng.uniform(6, 14))
    strength = np.maximum(rng.uniform(0.04, 0.3), 0.5 - radius / 60)
    return (0.5 + strength * arms)[..., np.newaxis] * [1, 0.98, 0.9]


@st.composite
def plans(draw: st.DrawFn, image: Image) -> Size | Grid:
    height, width = image.shape[:2]
    rows, columns = draw(st.integers(1, min(height, 8))), draw(st.integers(1, min(width, 8)))
    if draw(st.booleans()):
        return Grid(rows, columns)
    return Size(-(-height // rows), -(-width // columns))
