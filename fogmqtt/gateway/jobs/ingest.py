"""The first step of a job: parse its pipelines, decode its image, and split it into stages."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fogmqtt.config import LimitSettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs.decode import Decoders, open_bytes
from fogmqtt.gateway.jobs.memory_budget import Reservation
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.source import ArrayImage, ImageSource
from fogmqtt.images.spec import Spec
from fogmqtt.images.text_form import HEAD_BYTES, from_text, may_be_text
from fogmqtt.log import shown_name
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import Stage, output_spec, parse, parse_post, split_stages


@dataclass(frozen=True, slots=True)
class IngestedJob:
    """The decoded image and the parsed pipelines of a request."""

    image: ImageSource
    operators: tuple[Operator, ...]
    stages: tuple[Stage, ...]
    post: tuple[Operator, ...]
    #: Sentences for users about what was dropped or converted.
    notes: tuple[str, ...]


def ingest(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> IngestedJob:
    """Parse the pipelines, then decode the image. Blocking: call from a worker thread.

    Raises PipelineError, OperatorError and ImageError. The text names the word or the image.
    """
    # The pipelines first: that is cheap.
    operators = parse(request.pipeline)
    post = parse_post(request.post)
    image, notes = _load_image(request, limits, decoders, memory)
    stages = split_stages(operators, image.spec)
    last = stages[-1]
    output_spec(post, Spec(*last.source.size, 3) if last.measures else last.result)
    return IngestedJob(image, operators, stages, post, notes)


def _load_image(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> tuple[ImageSource, tuple[str, ...]]:
    """Return the image of a request and notes for users. Raises ImageError."""
    if request.image is not None:
        memory.take(request.image.nbytes)
        return ArrayImage(request.image), ()
    if request.journal is not None and (image := request.journal.read_pixels()) is not None:
        memory.take(image.nbytes)
        return ArrayImage(image), ()
    file = _from_text(_open_file(request, limits))
    try:
        loaded = decoders.read(
            file, request.name, max_pixels=limits.max_pixels, reserve=memory.take
        )
    finally:
        os.close(file)
    if request.journal is not None:
        request.journal.keep_pixels(loaded.image)
    return ArrayImage(loaded.image), loaded.notes


def _open_file(request: JobRequest, limits: LimitSettings) -> int:
    """Return the descriptor of the image's file, or of a file in memory for an image in bytes.

    The caller closes it. Raises ImageError.
    """
    if request.data is not None:
        _check_size(len(request.data), request.name, limits)
        return open_bytes(request.data)
    if request.path is None:
        raise ImageError(f"{request.name}: the request has no image; set path, data or image")
    path = shown_name(str(request.path))
    if request.path.exists() and not request.path.is_file():
        raise ImageError(f"{path}: not a file; name an image")
    if request.journal is not None and not request.path.exists():
        raise ImageError(f"{request.name}: its image is gone from the spool, {path}")
    try:
        _check_size(request.path.stat().st_size, request.name, limits)
        return os.open(request.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise ImageError(f"{path}: {problem.strerror}") from None


def _from_text(file: int) -> int:
    """Return the descriptor of the image that a file has as text, or the file itself.

    The file is closed if another one takes its place.
    """
    try:
        if not may_be_text(os.pread(file, HEAD_BYTES, 0)):
            return file
        with open(file, "rb", closefd=False) as text:
            data = from_text(text.read())
        if data is None:
            os.lseek(file, 0, os.SEEK_SET)
            return file
        image = open_bytes(data)
    except BaseException:
        os.close(file)
        raise
    os.close(file)
    return image


def _check_size(size: int, name: str, limits: LimitSettings) -> None:
    if size > limits.max_file_bytes:
        raise ImageError(
            f"{name}: {size:,} bytes are over limits.max_file_bytes ({limits.max_file_bytes:,}); "
            "raise it in the configuration if this is meant"
        )
