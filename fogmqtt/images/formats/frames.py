"""Decodes frames of animations and other images of 8 bits with Pillow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as Pillow

from fogmqtt.images.spec import Image


def decode_frame(data: bytes, form: str, index: int) -> Image:
    """Return a frame as BGR without alpha, with all that earlier frames left in it."""
    with Pillow.open(io.BytesIO(data), formats=(form,)) as file:
        file.seek(index)
        rgb = np.asarray(file.convert("RGBA") if _has_alpha(file) else file.convert("RGB"))
        return np.ascontiguousarray(rgb[..., 2::-1])


def _has_alpha(file: Pillow.Image) -> bool:
    return "A" in file.getbands() or "transparency" in file.info
