"""The first step of a job: parse its pipelines, decode its image, and split it into stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from fogmqtt.config import LimitSettings
from fogmqtt.errors import ImageError
from fogmqtt.gateway.jobs.decode import Decoders, open_bytes
from fogmqtt.gateway.jobs.memory_budget import Reservation
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.source import ArrayImage, ImageSource
from fogmqtt.images.spec import Image, Spec
from fogmqtt.images.text_form import HEAD_BYTES, from_text, may_be_text
from fogmqtt.log import shown_name
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.memory import refuse_memory
from fogmqtt.operators.api.pipeline import Stage, output_spec, parse, parse_post, split_stages

_NO_METADATA: Final = Metadata()


class IngestedPage(Struct, frozen=True):
    """A decoded image and the stages that its pipeline has for it."""

    image: ImageSource
    stages: tuple[Stage, ...]
    metadata: Metadata


class IngestedJob(Struct, frozen=True):
    """The decoded pages and the parsed pipelines of a request."""

    pages: tuple[IngestedPage, ...]
    operators: tuple[Operator, ...]
    post: tuple[Operator, ...]
    #: Sentences for users about what was dropped or converted.
    notes: tuple[str, ...]


class _Loaded(Struct, frozen=True):
    """A decoded page."""

    image: Image
    notes: tuple[str, ...] = ()
    metadata: Metadata = _NO_METADATA


def ingest(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> IngestedJob:
    """Parse the pipelines, then decode the image. Blocking: call from a worker thread.

    Raises PipelineError, OperatorError and ImageError. The text names the word or the image.
    """
    # The pipelines first: that is cheap.
    operators = parse(request.pipeline)
    refuse_memory(operators)
    post = parse_post(request.post)
    loaded = _load_pages(request, limits, decoders, memory)
    pages = tuple(_plan_page(page, operators, post) for page in loaded)
    return IngestedJob(pages, operators, post, _merge_notes(loaded))


def _plan_page(
    page: _Loaded, operators: tuple[Operator, ...], post: tuple[Operator, ...]
) -> IngestedPage:
    image = ArrayImage(page.image)
    stages = split_stages(operators, image.spec)
    last = stages[-1]
    output_spec(post, Spec(*last.source.size, 3) if last.measures else last.result)
    return IngestedPage(image, stages, page.metadata)


def _merge_notes(pages: Sequence[_Loaded]) -> tuple[str, ...]:
    """Return the notes of all pages, each once; a note of some pages only says which."""
    numbers: dict[str, list[int]] = {}
    for number, page in enumerate(pages, 1):
        for note in page.notes:
            numbers.setdefault(note, []).append(number)
    told = tuple(
        note if len(found) == len(pages) else f"{note} (page {', '.join(map(str, found))})"
        for note, found in numbers.items()
    )
    return told if len(pages) == 1 else (f"{len(pages)} pages; the result has as many", *told)


def _load_pages(
    request: JobRequest, limits: LimitSettings, decoders: Decoders, memory: Reservation
) -> tuple[_Loaded, ...]:
    """Return the pages of a request. Raises ImageError."""

    def reserve(image_bytes: int, work_bytes: int = 0) -> None:
        try:
            memory.take(image_bytes, work_bytes)
        except ImageError as problem:
            raise ImageError(f"{request.name}: {problem}") from None

    if request.image is not None:
        reserve(request.image.nbytes)
        return (_Loaded(request.image),)
    if request.journal is not None and (image := request.journal.read_pixels()) is not None:
        reserve(image.nbytes)
        return (_Loaded(image, ("metadata of the file dropped, since the gateway restarted",)),)
    file = _from_text(_open_file(request, limits))
    try:
        pages = decoders.read(
            file,
            request.name,
            max_pixels=limits.max_pixels,
            pages=request.pages,
            reserve=reserve,
        )
    finally:
        os.close(file)
    memory.keep(sum(page.image.nbytes for page in pages))
    if request.journal is not None and len(pages) == 1:
        request.journal.keep_pixels(pages[0].image)
    return tuple(_Loaded(page.image, page.notes, page.metadata) for page in pages)


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
