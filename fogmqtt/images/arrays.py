"""Images that a program has in memory: arrays, Pillow images, and whatever turns into an array.

Inside a job, three channels are blue, green and red. A program says the order of its own arrays.
"""

from __future__ import annotations

import sys
from typing import Any, Final, Literal, get_args

import numpy as np

from fogmqtt.errors import ImageError
from fogmqtt.images.spec import Image

#: The order of the three colours in a program's arrays; a fourth channel stays the last.
Colour = Literal["bgr", "rgb"]

_DTYPES: Final = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")
_CHANNELS: Final = (1, 3, 4)
#: How to make an array of another dtype one that can be processed.
_CASTS: Final = {
    "b": "convert it, such as with mask.astype(np.uint8) * 255",
    "f": "convert it with image.astype(np.float32)",
    "i": "convert it with image.astype(np.int32) if its values fit, or to uint8 or uint16",
    "u": "convert it with image.astype(np.uint16) if its values fit, or to uint8",
}
#: Modes of Pillow whose samples are used as they are; others become gray or colour.
_PLAIN_MODES: Final = ("L", "F", "I", "I;16", "I;16L", "I;16B", "I;16N", "RGB")
_GRAY_MODES: Final = ("1", "LA", "La")


def check_colour(colour: str) -> Colour:
    """Return the order of colours. Raises ImageError unless it is bgr or rgb."""
    if colour not in get_args(Colour):
        raise ImageError(f"colour={colour!r}: expected 'bgr' (as OpenCV) or 'rgb' (as Pillow)")
    return "rgb" if colour == "rgb" else "bgr"


def from_program(image: object, name: str, colour: Colour, *, is_kept: bool) -> Image:
    """Return a program's image as a contiguous array of gray, BGR or BGRA pixels.

    `colour` is the order in an array; that of a Pillow image is known. `is_kept`: the program may
    change its array before the job is done, so the result has memory of its own. Raises ImageError.
    """
    if _is_pillow(image):
        given, colour = _from_pillow(image), "rgb"
    else:
        given = _as_array(image, name)
    pixels = _plain(given, name)
    if colour == "rgb":
        pixels = _swap_colours(pixels)
    native = pixels.dtype.newbyteorder("=")
    made = np.ascontiguousarray(pixels, native)
    if is_kept and isinstance(image, np.ndarray) and np.may_share_memory(made, image):
        return made.copy()
    return made


def for_program(image: Image, colour: Colour) -> Image:
    """Return a BGR result in the order of colours that a program wants."""
    return np.ascontiguousarray(_swap_colours(image)) if colour == "rgb" else image


def _swap_colours(image: Image) -> Image:
    """Return an image whose first and third of three or more channels are swapped."""
    if image.ndim == 2:
        return image
    order = [2, 1, 0, *range(3, image.shape[2])]
    return image[:, :, ::-1] if len(order) == 3 else image[:, :, order]


def _is_pillow(image: object) -> bool:
    pillow = sys.modules.get("PIL.Image")  # there is no such image if nobody has loaded it
    return pillow is not None and isinstance(image, pillow.Image)


def _from_pillow(image: Any) -> Image:
    """Return gray or RGB samples. Alpha is dropped, as it is from files."""
    if image.mode in _GRAY_MODES:
        image = image.convert("L")
    elif image.mode not in _PLAIN_MODES:
        image = image.convert("RGB")
    return np.asarray(image)


def _as_array(image: object, name: str) -> Image:
    if not hasattr(image, "__array__"):
        raise ImageError(
            f"{name}: a {type(image).__name__} is no image; give an array, a path, the bytes of a "
            "file, or a Pillow image"
        )
    try:
        return np.asarray(image)
    except Exception as problem:  # foreign code may raise anything
        raise ImageError(
            f"{name}: the {type(image).__name__} gives no array: {type(problem).__name__}: "
            f"{problem}"
        ) from problem


def _plain(image: Image, name: str) -> Image:
    """Return the array without an axis of one channel. Raises ImageError if it is no image."""
    if image.dtype.name not in _DTYPES:
        raise ImageError(
            f"{name}: {image.dtype} values; {_CASTS.get(image.dtype.kind, 'they are no pixels')} "
            f"(possible are {', '.join(_DTYPES)})"
        )
    shape = image.shape
    if image.ndim not in (2, 3):
        raise ImageError(
            f"{name}: an array of {shape}; an image has the shape (height, width) or "
            "(height, width, channels)"
        )
    if 0 in shape:
        raise ImageError(f"{name}: an array of {shape} has no pixels")
    if image.ndim == 3 and shape[2] not in _CHANNELS:
        way = "1, 3 or 4 are possible"
        if shape[0] in _CHANNELS and min(shape[1:]) > max(_CHANNELS):
            way = "channels come last: give image.transpose(1, 2, 0)"
        raise ImageError(f"{name}: an array of {shape} has {shape[2]} channels; {way}")
    return image[:, :, 0] if shape[2:] == (1,) else image
