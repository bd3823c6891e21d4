"""From a request to pixels and a plan of work. Runs in the pool."""

from __future__ import annotations

from dataclasses import dataclass

from fogmqtt.config import Limits
from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs import JobRequest
from fogmqtt.images import files
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.base import Operator
from fogmqtt.operators.pipeline import Stage, parse, parse_post, result, stages


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request, understood."""

    image: Image
    operators: tuple[Operator, ...]
    stages: tuple[Stage, ...]
    post: tuple[Operator, ...]
    #: What was dropped or converted on the way in, for a person.
    notes: tuple[str, ...]


def prepare(request: JobRequest, limits: Limits) -> Prepared:
    """Understand the pipelines first, since that is cheap, then read the image.

    Raises ImageError, PipelineError and OperatorError with the image's or the word's name.
    """
    operators = parse(request.pipeline)
    post = parse_post(request.post)
    image, notes = _pixels(request, limits)
    spec = Spec.of(image)
    plan = stages(operators, spec)
    picture = Spec(*plan[-1].source.size, 3) if plan[-1].measures else plan[-1].result
    result(post, picture)
    return Prepared(image, operators, plan, post, notes)


def _pixels(request: JobRequest, limits: Limits) -> tuple[Image, tuple[str, ...]]:
    if request.image is not None:
        return request.image, ()
    if request.diary is not None and (kept := request.diary.pixels()) is not None:
        return kept, ()
    loaded = files.read(_data(request, limits), request.name, max_pixels=limits.max_pixels)
    if request.diary is not None:
        request.diary.keep_pixels(loaded.image)
    return loaded.image, loaded.notes


def _data(request: JobRequest, limits: Limits) -> bytes:
    if request.data is not None:
        _check_size(len(request.data), request.name, limits)
        return request.data
    if request.path is None:
        raise ImageError(f"{request.name}: a request without an image")
    if request.path.exists() and not request.path.is_file():
        raise ImageError(f"{request.path}: not a file; name an image")
    if request.diary is not None and not request.path.exists():
        raise ImageError(f"{request.name}: its image is gone from the spool, {request.path}")
    try:
        _check_size(request.path.stat().st_size, request.name, limits)
        return request.path.read_bytes()
    except OSError as problem:
        raise ImageError(f"{request.path}: {problem.strerror}") from None


def _check_size(size: int, name: str, limits: Limits) -> None:
    if size > limits.max_file_bytes:
        raise ImageError(
            f"{name}: {size:,} bytes are over limits.max_file_bytes ({limits.max_file_bytes:,}); "
            "raise it in the configuration if this is meant"
        )
