"""The image that is read from a file, and what writes image files.

What reads them is in `fogmqtt.images.reader`: a gateway leaves that to a process of its own, and
loads no decoder.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from msgspec import Struct

from fogmqtt.errors import ImageError
from fogmqtt.images.encode import encode
from fogmqtt.images.file_names import is_refused, plain_path
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.result_format import format_of_suffix
from fogmqtt.images.spec import Image, Spec

#: The default of `max_pixels`.
MAX_PIXELS: Final = 500_000_000
_NO_METADATA: Final = Metadata()

#: The files that are being written now, under their temporary names.
_parts: set[Path] = set()


class LoadedImage(Struct, frozen=True):
    """The pixels of a page: gray (height, width) or BGR (height, width, 3).

    The dtype is uint8, uint16 or float32.
    """

    image: Image
    spec: Spec
    #: Notes for the user about what was dropped or converted.
    notes: tuple[str, ...]
    #: The name of the file's format, such as "PNG".
    format: str
    metadata: Metadata = _NO_METADATA


def encode_file(image: Image, suffix: str) -> bytes:
    """Return the bytes of an image file of the kind that `suffix` (such as ".png") names.

    Raises ImageError for an unknown suffix and for an image that such a file cannot hold.
    """
    return encode([image], format_of_suffix(suffix)).data


def check_suffix(path: Path) -> None:
    """Raise ImageError unless `write` supports the suffix of the path."""
    format_of_suffix(path.suffix)


def write(path: Path, image: Image) -> None:
    """Write an image file of the kind that the suffix names, atomically.

    Raises ImageError as `encode_file` and `write_bytes` do.
    """
    write_bytes(path, encode_file(image, path.suffix))


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file atomically: a reader finds the old content or all of the new content.

    Returns the path: a file system that does not take the name gets a similar one. Raises
    ImageError if the folder cannot be written.
    """
    # Without the name in it: that may be as long as the file system allows.
    part = path.with_name(f".fog-{os.getpid()}-{threading.get_ident()}.part")
    _parts.add(part)
    try:
        part.write_bytes(data)
        return _rename(part, path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ImageError(f"cannot write {path}: {problem.strerror}") from None
    finally:
        _parts.discard(part)


def _rename(part: Path, path: Path) -> Path:
    try:
        return part.replace(path)
    except OSError as problem:
        if not is_refused(problem):
            raise
    return part.replace(plain_path(path))


def remove_parts() -> None:
    """Remove the files that other threads are writing, before the process ends without them."""
    for part in list(_parts):
        with contextlib.suppress(OSError):
            part.unlink()
