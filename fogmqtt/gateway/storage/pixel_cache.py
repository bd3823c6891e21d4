"""Decoded pixels of large images on disk: decoding again would take longer than a restart."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import xxhash

from fogmqtt.gateway.storage.durable_files import PART, DurableFiles
from fogmqtt.images.spec import Image, Spec

#: How such a file's name ends.
PIXELS = ".pixels"
#: Smaller images are decoded again: that is soon done, and this would cost their jobs more.
WORTHWHILE_PIXELS = 40_000_000
#: Pixels begin at a page, so that they can be mapped.
_START = 4096


class _Header(msgspec.Struct, frozen=True):
    shape: tuple[int, ...]
    dtype: str
    digest: str


def is_worthwhile(image: Image) -> bool:
    """Whether an image is so large that its pixels are to be kept."""
    return Spec.of(image).height * Spec.of(image).width >= WORTHWHILE_PIXELS


def write(disk: DurableFiles, path: Path, image: Image) -> None:
    """Keep pixels; nobody waits for the disk, and their digest tells if it has them.

    Raises OSError and leaves nothing.
    """
    part = path.with_name(f".{path.name}{PART}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        data = np.ascontiguousarray(image).data.cast("B")
        header = _Header(image.shape, image.dtype.name, xxhash.xxh3_64_hexdigest(data))
        disk.write_at(descriptor, msgspec.json.encode(header).ljust(_START), 0)
        disk.write_at(descriptor, data, _START)
        disk.rename(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def read(path: Path) -> Image | None:
    """The pixels, mapped; what is written to them stays in memory. None: missing or damaged."""
    try:
        with path.open("rb") as file:
            header = msgspec.json.decode(file.read(_START), type=_Header)
        pixels = np.memmap(path, header.dtype, "c", offset=_START, shape=header.shape)
    except (OSError, ValueError, TypeError):
        return None
    image: Image = np.asarray(pixels)
    return image if xxhash.xxh3_64_hexdigest(image.data.cast("B")) == header.digest else None
