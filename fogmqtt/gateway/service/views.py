"""Pictures of jobs for a screen: the original, and the result as far as it is merged.

They are made in threads, one at a time, and never by those that work on tiles. Of a running stage a
small copy is kept, to which only new tiles are added. The newest pictures are kept by version.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from fogmqtt.core.geometry import Rect
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.execution.live_stage import LiveStage
from fogmqtt.gateway.jobs.model import JobHandle
from fogmqtt.gateway.service.jobs import Jobs
from fogmqtt.gateway.service.refusals import RequestRefused, no_job
from fogmqtt.images.pictures import MEDIA_TYPES, picture, resized
from fogmqtt.images.source import ArrayImage, ImageSource, whole
from fogmqtt.images.spec import Image, Spec
from fogmqtt.wire.service_messages import GetView, View

#: Bytes of decoded images of ended jobs, and of pictures, that are kept.
_DECODED_BYTES: Final = 256_000_000
_PICTURES_BYTES: Final = 32_000_000
#: The longest side of the small copy of a running stage, in pixels.
CANVAS_SIDE: Final = 1600
#: Seconds that a picture of an ended job may take, with the wait for memory.
_DECODE_S: Final = 30.0
#: Versions of ended jobs begin here: those of running jobs count from 1.
_ENDED: Final = 1 << 40


@dataclass(slots=True)
class _Canvas:
    """A small copy of what is merged of a stage."""

    key: str
    factor: int
    source: ImageSource
    image: Image
    #: How often each tile had been pasted when it was copied.
    pasted: dict[int, int] = field(default_factory=dict)

    def add(self, cores: list[Rect]) -> None:
        """Copy these parts of the merged image; in a thread."""
        spec, factor = self.source.spec, self.factor
        for core in cores:
            top, left = core.top // factor, core.left // factor
            bottom, right = -(-core.bottom // factor), -(-core.right // factor)
            rect = Rect(
                top * factor,
                left * factor,
                min(bottom * factor, spec.height) - top * factor,
                min(right * factor, spec.width) - left * factor,
            )
            pixels = self.source.read(rect)
            self.image[top:bottom, left:right] = resized(pixels, bottom - top, right - left)


@dataclass(slots=True)
class _LiveView:
    """What is shown of a running job's result, and the number of its version."""

    source: ImageSource
    key: str
    pasted: dict[int, int]
    version: int
    canvas: _Canvas | None = None


class _Kept(OrderedDict[object, Image | bytes]):
    """The newest values, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._used = 0

    def find(self, key: object) -> Image | bytes | None:
        if (value := self.get(key)) is not None:
            self.move_to_end(key)
        return value

    def keep(self, key: object, value: Image | bytes) -> None:
        if key in self or _size(value) > self._limit:
            return
        self[key] = value
        self._used += _size(value)
        while self._used > self._limit:
            self._used -= _size(self.popitem(last=False)[1])


def _size(value: Image | bytes) -> int:
    return len(value) if isinstance(value, bytes) else value.nbytes


class Views:
    """Makes pictures of jobs. It belongs to the event loop."""

    def __init__(self, gateway: Gateway, jobs: Jobs) -> None:
        self._gateway = gateway
        self._jobs = jobs
        self._live: dict[str, _LiveView] = {}
        self._decoded = _Kept(_DECODED_BYTES)
        self._pictures = _Kept(_PICTURES_BYTES)
        #: One picture is made at a time: looking must not cost the jobs more.
        self._turn = asyncio.Lock()

    async def view(self, asked: GetView) -> View:
        """Return a picture. Raises RequestRefused, FogError and OSError."""
        self._forget_ended()
        handle = self._gateway.job(asked.job)
        if handle is None or self._jobs.tracked(asked.job) is None:
            return await self._ended(asked)
        if asked.file == "original":
            if handle.original is None:
                raise _not_decoded(asked.job)
            return await self._picture(asked, handle.original, 1)
        live = self._newest(handle)
        if asked.version == live.version:
            return _view(asked, live.version, live.source.spec, b"")
        if live.canvas is None or asked.area is not None or live.canvas.factor == 1:
            return await self._picture(asked, live.source, live.version)
        return await self._whole_canvas(asked, live)

    def _newest(self, handle: JobHandle) -> _LiveView:
        """Return what is shown of a job's result now; with another version if that changed."""
        known, stage = self._live.get(handle.id), self._gateway.live_stage(handle.id)
        if stage is not None and (merged := stage.merged) is not None:
            return self._of_stage(handle.id, stage, merged, known)
        if known is not None and known.canvas is not None:
            return known  # the stage is merged, and the next one has not begun
        source = handle.entering or handle.original
        if source is None:
            raise _not_decoded(handle.id)
        if known is None or known.source is not source:
            version = known.version + 1 if known is not None else 1
            known = self._live[handle.id] = _LiveView(source, "", {}, version)
        return known

    def _of_stage(
        self, job: str, stage: LiveStage, merged: ImageSource, known: _LiveView | None
    ) -> _LiveView:
        pasted = stage.pasted()
        if known is not None and known.key == stage.key and known.pasted == pasted:
            return known
        version = known.version + 1 if known is not None else 1
        canvas = known.canvas if known is not None and known.key == stage.key else None
        made = self._live[job] = _LiveView(merged, stage.key, pasted, version, canvas)
        made.canvas = canvas or _begin_canvas(stage.key, merged)
        return made

    async def _whole_canvas(self, asked: GetView, live: _LiveView) -> View:
        """Return the whole picture of a running stage, from its small copy."""
        canvas, stage = live.canvas, self._gateway.live_stage(asked.job)
        assert canvas is not None  # noqa: S101  # asked before
        async with self._turn:
            changed = [
                tile for tile, count in live.pasted.items() if canvas.pasted.get(tile) != count
            ]
            cores = [stage.core(tile) for tile in changed] if stage is not None else []
            if stage is None and changed:
                cores = [whole(canvas.source.spec)]
            canvas.pasted = dict(live.pasted)

            def work() -> bytes:
                canvas.add(cores)
                return picture(
                    canvas.image, asked.max_side, asked.format, self._gateway.link.max_picture_bytes
                )

            data = await self._gateway.threads.apart(work, "view")
        return _view(asked, live.version, canvas.source.spec, data)

    async def _picture(self, asked: GetView, source: ImageSource, version: int) -> View:
        """Return a picture of a source, or of an area of it."""
        spec = source.spec
        if asked.version == version:
            return _view(asked, version, spec, b"")
        area = _area(asked, spec)
        key = (asked.job, asked.file, version, area, asked.max_side, asked.format)
        if (kept := self._pictures.find(key)) is not None:
            assert isinstance(kept, bytes)  # noqa: S101  # only files are kept there
            return _view(asked, version, spec, kept)

        def work() -> bytes:
            return picture(
                source.read(area),
                asked.max_side,
                asked.format,
                self._gateway.link.max_picture_bytes,
            )

        async with self._turn:
            data = await self._gateway.threads.apart(work, "view")
        self._pictures.keep(key, data)
        return _view(asked, version, spec, data)

    # Ended jobs.

    async def _ended(self, asked: GetView) -> View:
        ended = await self._jobs.ended(asked.job)
        facts = ended.card.files.get(asked.file)
        if facts is None:
            raise RequestRefused(
                "not-found", f"job {asked.job} has no {asked.file}, or not any more"
            )
        version = _ENDED + int(facts.digest, 16) % _ENDED
        key = (asked.job, asked.file, facts.digest)
        image = self._decoded.find(key)
        if image is None:
            path = await self._jobs.on_disk(lambda history: history.path(asked.job, asked.file))
            if path is None:
                raise no_job(asked.job)
            image = await self._decode(path, facts.name)
            self._decoded.keep(key, image)
        assert isinstance(image, np.ndarray)  # noqa: S101  # only images are kept there
        return await self._picture(asked, ArrayImage(image), version)

    async def _decode(self, path: Path, name: str) -> Image:
        try:
            async with asyncio.timeout(_DECODE_S):
                return await self._gateway.decode(path, name)
        except TimeoutError:
            raise RequestRefused(
                "busy", f"{name} is not decoded within {_DECODE_S:g} s", retry_after_s=5.0
            ) from None

    def _forget_ended(self) -> None:
        for job in [job for job in self._live if self._gateway.job(job) is None]:
            del self._live[job]


def _begin_canvas(key: str, merged: ImageSource) -> _Canvas:
    spec = merged.spec
    factor = max(1, -(-max(spec.height, spec.width) // CANVAS_SIDE))
    size = -(-spec.height // factor), -(-spec.width // factor)
    small = Spec(*size, spec.channels, spec.dtype)
    return _Canvas(key, factor, merged, np.zeros(small.array_shape, spec.dtype))


def _area(asked: GetView, spec: Spec) -> Rect:
    """Return the part of the image that is asked for. Raises RequestRefused if there is none."""
    if asked.area is None:
        return whole(spec)
    top, left, height, width = asked.area
    bottom, right = min(top + height, spec.height), min(left + width, spec.width)
    top, left = max(0, top), max(0, left)
    if top >= bottom or left >= right:
        raise RequestRefused(
            "invalid", f"area {asked.area} is not within the image, which is {spec}"
        )
    return Rect(top, left, bottom - top, right - left)


def _view(asked: GetView, version: int, spec: Spec, data: bytes) -> View:
    area = _area(asked, spec)
    return View(
        id=asked.id,
        version=version,
        media_type=MEDIA_TYPES[asked.format],
        area=(area.top, area.left, area.height, area.width),
        height=spec.height,
        width=spec.width,
        data=data,
    )


def _not_decoded(job: str) -> RequestRefused:
    return RequestRefused(
        "busy", f"the image of {job} is not decoded yet; ask again", retry_after_s=0.5
    )
