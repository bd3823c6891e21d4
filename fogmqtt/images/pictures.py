"""Pictures of images for a screen: smaller, with 8 bits, as JPEG or PNG."""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

from fogmqtt.errors import ImageError
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image

PictureFormat = Literal["jpeg", "png"]
MEDIA_TYPES: Final[dict[PictureFormat, str]] = {"jpeg": "image/jpeg", "png": "image/png"}
#: Good enough for a screen; a quality of 95 takes twice the bytes.
QUALITY: Final = 85
#: A picture is looked at for a moment: the fastest compression.
_PNG_LEVEL: Final = 1
#: A picture is not made smaller than this for the sake of its bytes.
_LEAST_SIDE: Final = 64


def picture(
    image: Image,
    max_side: int,
    form: PictureFormat = "jpeg",
    max_bytes: int | None = None,
    quality: int = QUALITY,
) -> bytes:
    """Return an image file of an image, at most `max_side` pixels long, and never enlarged.

    It is smaller if it would have more than `max_bytes`. Raises ImageError if it cannot be encoded.
    """
    data = encode_picture(shrunk(image, max_side), form, quality)
    while max_bytes is not None and len(data) > max_bytes and max_side > _LEAST_SIDE:
        max_side = max(_LEAST_SIDE, min(max_side, max(image.shape[:2])) * 3 // 4)
        data = encode_picture(shrunk(image, max_side), form, quality)
    return data


def side_for(image: Image, *, width: int = 0, height: int = 0) -> int:
    """Return the `max_side` with which a picture is so wide or high at most; 0: no limit."""
    rows, columns = int(image.shape[0]), int(image.shape[1])
    longest = max(rows, columns)
    across = longest * width // columns if 0 < width < columns else longest
    down = longest * height // rows if 0 < height < rows else longest
    return max(1, min(across, down))


def shrunk(image: Image, max_side: int) -> Image:
    """Return an image with 8 bits, at most `max_side` pixels long."""
    height, width = image.shape[:2]
    factor = max(height, width) / max_side
    if factor > 1:
        image = resized(image, max(1, round(height / factor)), max(1, round(width / factor)))
    return to_8_bits(image)


def resized(image: Image, height: int, width: int) -> Image:
    """Return a smaller image: by means of pixels or, where OpenCV has none, by single pixels.

    It is halved as often as possible, and interpolated from there: in a tenth of the time that
    OpenCV needs for means of areas that are no whole pixels.
    """
    if image.dtype in (np.uint8, np.uint16, np.float32):
        while image.shape[0] >= 2 * height and image.shape[1] >= 2 * width:
            rows, columns = image.shape[0] // 2, image.shape[1] // 2
            even = image[: 2 * rows, : 2 * columns]
            image = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    rows = np.arange(height) * image.shape[0] // height
    columns = np.arange(width) * image.shape[1] // width
    return np.ascontiguousarray(image[rows][:, columns])


def to_8_bits(image: Image) -> Image:
    """Return the values as a screen shows them; those that have no range of their own fill it."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    values = np.nan_to_num(image.astype(np.float32))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and image.dtype.kind == "f":
        low, high = 0.0, 1.0
    scaled = (values - low) * (255 / (high - low)) if high > low else values * 0
    return scaled.astype(np.uint8)


def encode_picture(image: Image, form: PictureFormat, quality: int = QUALITY) -> bytes:
    """Return the file of an image with 8 bits. Raises ImageError if it cannot be encoded."""
    image = np.ascontiguousarray(image)
    if image.ndim == 3 and image.shape[2] == 2:
        image = image[:, :, 0]
    if form == "jpeg":
        if image.ndim == 3 and image.shape[2] == 4:
            image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    else:
        done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    if not done:
        raise ImageError(f"a picture of {image.shape} cannot be encoded as {form}")
    return bytes(data)
