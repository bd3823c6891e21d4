"""Decoded pixels of large images on disk: reading them is faster than decoding again."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from fogmqtt.gateway.storage.durable_files import PART, DurableFiles
from fogmqtt.images.spec import Image, Spec

#: The suffix of such a file's name.
PIXELS_SUFFIX = ".pixels"
#: Smaller images are decoded again, which is fast; storing them would slow their jobs down more.
WORTHWHILE_PIXELS = 40_000_000
#: The pixels' offset in the file: a page, so that they can be mapped.
_START = 4096


class _Header(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    dtype: str
    digest: str


def is_worthwhile(image: Image) -> bool:
    """Whether an image is large enough to store its pixels."""
    return Spec.of(image).height * Spec.of(image).width >= WORTHWHILE_PIXELS


def write(disk: DurableFiles, path: Path, image: Image) -> None:
    """Store pixels without waiting for the disk; `read` checks their digest. Blocking.

    Raises OSError and leaves no file then.
    """
    part = path.with_name(f".{path.name}{PART}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        data = np.ascontiguousarray(image).data.cast("B")
        header = _Header(image.shape, image.dtype.name, xxhash.xxh3_64_hexdigest(data))
        disk.write_at(descriptor, msgspec.json.encode(header).ljust(_START), 0)
        disk.write_at(descriptor, data, _START)
        disk.rename(part, path)
    except (OSError, MemoryError):
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def read(path: Path) -> Image | None:
    """The stored pixels, mapped copy-on-write; None: missing or damaged. Blocking."""
    try:
        with path.open("rb") as file:
            header = msgspec.json.decode(file.read(_START), type=_Header)
        pixels = np.memmap(path, header.dtype, "c", offset=_START, shape=header.shape)
    except (OSError, ValueError, TypeError):
        return None
    image: Image = np.asarray(pixels)
    return image if xxhash.xxh3_64_hexdigest(image.data.cast("B")) == header.digest else None
