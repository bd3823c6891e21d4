"""A picture of a harbour at dusk, drawn by arithmetic: something to look at in screenshots."""

from __future__ import annotations

import cv2
import numpy as np

from fogmqtt.images.spec import Image


def harbour(height: int = 1200, width: int = 1600, seed: int = 5) -> Image:
    """Sky, sun, hills, houses with lit windows, boats, and all of it in the water."""
    rng = np.random.default_rng(seed)
    horizon = int(height * 0.6)
    picture = _sky(horizon, width)
    _hills(picture, rng)
    _houses(picture, rng)
    water = _water(picture, height - horizon, rng)
    whole = np.vstack((picture, water))
    for at, size in ((0.2, 0.055), (0.47, 0.04), (0.8, 0.07)):
        _boat(whole, int(width * at), horizon + int(height * (0.08 + size)), int(height * size))
    whole += rng.normal(0, 2.0, whole.shape)
    return np.clip(whole, 0, 255).astype(np.uint8)


def _sky(height: int, width: int) -> Image:
    down = np.linspace(0, 1, height)[:, None, None]
    picture = (1 - down) * np.array((140.0, 92, 60)) + down * np.array((120.0, 170, 250))
    picture = np.repeat(picture, width, axis=1)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - width * 0.66, y - height * 0.62) / height
    picture += np.exp(-((distance / 0.16) ** 2))[..., None] * np.array((40.0, 90, 110))
    picture[distance < 0.085] = (190, 235, 255)
    return picture


def _hills(picture: Image, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    x = np.arange(width)
    for layer, colour in enumerate(((118, 100, 96), (92, 74, 72), (66, 52, 52))):
        top = height * (0.62 + 0.11 * layer)
        for wave in range(2, 8):
            size = height * 0.13 / wave**1.2
            top = top - size * np.sin(x / width * wave * 4.4 + rng.uniform(0, 6.3))
        picture[np.arange(height)[:, None] >= top[None, :]] = colour


def _houses(picture: Image, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    unit = height // 40
    left = int(width * 0.04)
    while left < width * 0.94:
        wide, high = int(rng.integers(3, 6)) * unit, int(rng.integers(4, 9)) * unit
        wall = np.array((58.0, 66, 78)) + rng.uniform(-22, 40, 3)
        picture[height - high :, left : left + wide] = wall
        roof = [(left - unit // 2, height - high), (left + wide // 2, height - high - 2 * unit)]
        corners = np.array([*roof, (left + wide + unit // 2, height - high)])
        cv2.fillPoly(picture, [corners], (44, 44, 96), cv2.LINE_AA)
        for row in range(height - high + unit, height - unit, 2 * unit):
            for column in range(left + unit // 2, left + wide - unit, 2 * unit):
                lit = rng.random() < 0.55
                colour = (120, 205, 250) if lit else (52, 44, 40)
                picture[row : row + unit, column : column + unit] = colour
        left += wide + int(rng.integers(0, 3)) * unit


def _water(above: Image, height: int, rng: np.random.Generator) -> Image:
    mirrored = cv2.resize(above[::-1], (above.shape[1], int(height * 1.4)))[:height]
    y, x = np.mgrid[:height, : above.shape[1]].astype(np.float32)
    depth = y / height
    wave = np.sin(y * 0.9 / (0.3 + depth) + 2 * np.sin(x * 0.01)) * (2 + 14 * depth)
    wave += rng.normal(0, 1.0, (height, 1)) * (1 + 5 * depth)
    moved = cv2.remap(
        mirrored.astype(np.float32),
        (x + wave).astype(np.float32),
        y,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved * (0.86 - 0.3 * depth)[..., None] + np.array((26.0, 14, 8))


def _boat(picture: Image, x: int, y: int, size: int) -> None:
    hull = np.array([(x - size, y - size // 4), (x + size, y - size // 4), (x + size * 2 // 3, y)])
    hull = np.vstack((hull, [(x - size * 2 // 3, y)]))
    cv2.fillPoly(picture, [hull], (34, 30, 120), cv2.LINE_AA)
    cv2.line(picture, (x, y - size // 4), (x, y - 2 * size), (30, 30, 34), max(2, size // 22))
    sail = np.array(
        [(x + 4, y - 2 * size), (x + 4, y - size // 2), (x + size * 4 // 5, y - size // 2)]
    )
    cv2.fillPoly(picture, [sail], (226, 236, 240), cv2.LINE_AA)
