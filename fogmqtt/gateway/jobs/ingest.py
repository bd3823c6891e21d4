"""From a request to pixels and a plan of work."""

from __future__ import annotations

import os
from dataclasses import dataclass

from fogmqtt.config import LimitSettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs.decode import Decoders, in_memory
from fogmqtt.gateway.jobs.memory_budget import Reservation
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.source import ArrayImage, ImageSource
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import Stage, output_spec, parse, parse_post, split_stages


@dataclass(frozen=True, slots=True)
class IngestedJob:
    """A request, understood."""

    image: ImageSource
    operators: tuple[Operator, ...]
    stages: tuple[Stage, ...]
    post: tuple[Operator, ...]
    #: What was dropped or converted on the way in, for a person.
    notes: tuple[str, ...]


def ingest(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> IngestedJob:
    """Understand the pipelines first, since that is cheap, then read the image.

    Raises ImageError, PipelineError and OperatorError with the image's or the word's name.
    """
    operators = parse(request.pipeline)
    post = parse_post(request.post)
    image, notes = _pixels(request, limits, decoders, memory)
    spec = Spec.of(image)
    plan = split_stages(operators, spec)
    picture = Spec(*plan[-1].source.size, 3) if plan[-1].measures else plan[-1].result
    output_spec(post, picture)
    return IngestedJob(ArrayImage(image), operators, plan, post, notes)


def _pixels(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> tuple[Image, tuple[str, ...]]:
    if request.image is not None:
        memory.take(request.image.nbytes)
        return request.image, ()
    if request.journal is not None and (kept := request.journal.read_pixels()) is not None:
        memory.take(kept.nbytes)
        return kept, ()
    file = _file(request, limits)
    try:
        loaded = decoders.read(
            file, request.name, max_pixels=limits.max_pixels, reserve=memory.take
        )
    finally:
        os.close(file)
    if request.journal is not None:
        request.journal.keep_pixels(loaded.image)
    return loaded.image, loaded.notes


def _file(request: JobRequest, limits: LimitSettings) -> int:
    """The image's file, open; what came as bytes becomes one. The caller closes it."""
    if request.data is not None:
        _check_size(len(request.data), request.name, limits)
        return in_memory(request.data)
    if request.path is None:
        raise ImageError(f"{request.name}: a request without an image")
    if request.path.exists() and not request.path.is_file():
        raise ImageError(f"{request.path}: not a file; name an image")
    if request.journal is not None and not request.path.exists():
        raise ImageError(f"{request.name}: its image is gone from the spool, {request.path}")
    try:
        _check_size(request.path.stat().st_size, request.name, limits)
        return os.open(request.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise ImageError(f"{request.path}: {problem.strerror}") from None


def _check_size(size: int, name: str, limits: LimitSettings) -> None:
    if size > limits.max_file_bytes:
        raise ImageError(
            f"{name}: {size:,} bytes are over limits.max_file_bytes ({limits.max_file_bytes:,}); "
            "raise it in the configuration if this is meant"
        )
