"""EXIF data of image files: their orientation, and the data without it."""

from __future__ import annotations

from typing import Final

from PIL import Image as Pillow

from fogmqtt.images.metadata import EXIF_PREFIX

#: The EXIF tag of the orientation.
ORIENTATION_TAG: Final = 0x0112


def orientation_of(exif: bytes) -> int:
    """Return the orientation in EXIF data, with or without the prefix; 1 if there is none."""
    try:
        value = _parse(exif).get(ORIENTATION_TAG, 1)
    except _DAMAGED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def without_orientation(exif: bytes) -> bytes:
    """Return EXIF data without their prefix and their orientation; empty if they are damaged."""
    try:
        parsed = _parse(exif)
        if ORIENTATION_TAG not in parsed:
            return exif.removeprefix(EXIF_PREFIX)
        del parsed[ORIENTATION_TAG]
        return parsed.tobytes().removeprefix(EXIF_PREFIX)
    except _DAMAGED:
        return b""


# Pillow raises many kinds of errors for damaged EXIF data.
_DAMAGED: Final = (OSError, ValueError, SyntaxError, LookupError, TypeError, ArithmeticError)


def _parse(exif: bytes) -> Pillow.Exif:
    parsed = Pillow.Exif()
    if exif:
        parsed.load(EXIF_PREFIX + exif.removeprefix(EXIF_PREFIX))
    return parsed
