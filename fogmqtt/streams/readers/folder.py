"""Reads a folder of pictures, one after the other in the order of the numbers in their names."""

from __future__ import annotations

import re
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import av
import av.error

from fogmqtt.streams.clocks import USUAL_RATE, Moment, arrival
from fogmqtt.streams.decoding import original_of, prepare
from fogmqtt.streams.newest import Damaged, NewestPicture, Picture
from fogmqtt.streams.reasons import SourceFailed, in_words

if TYPE_CHECKING:
    from fogmqtt.streams.settings import SourceSettings

_ENDINGS: Final = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"))
_JPEG_ENDINGS: Final = frozenset((".jpg", ".jpeg"))
_NUMBERS = re.compile(r"(\d+)")


def in_order(paths: list[Path]) -> list[Path]:
    """Return files by their names, with numbers by their value: 2.png is before 10.png."""

    def key(path: Path) -> list[tuple[int, str]]:
        parts = _NUMBERS.split(path.name.lower())
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]

    return sorted(paths, key=lambda path: (key(path), path.name))


def read_folder(settings: SourceSettings, newest: NewestPicture) -> None:
    """Offer the pictures of a folder: `fps` a second, or as fast as they are taken if all are kept.

    Raises SourceFailed if there are none.
    """
    folder = Path(settings.source)
    try:
        files = [one for one in folder.iterdir() if one.suffix.lower() in _ENDINGS]
    except OSError as problem:
        raise SourceFailed(in_words(problem)) from None
    if not files:
        raise SourceFailed("there is no picture in this folder")
    newest.opened()
    began, rate = arrival(), settings.fps or USUAL_RATE
    for index, path in enumerate(in_order(files)):
        moment = arrival()
        if settings.keep != "all":
            due = began.at + index / rate
            time.sleep(max(0.0, due - time.monotonic()))
            moment = Moment(due, began.utc + index / rate, "arrival")
        _offer(path, moment, newest)


def _offer(path: Path, moment: Moment, newest: NewestPicture) -> None:
    try:
        data = path.read_bytes()
    except OSError:
        newest.damaged()
        return
    is_jpeg = path.suffix.lower() in _JPEG_ENDINGS
    original = original_of(data) if is_jpeg and data.startswith(b"\xff\xd8") else b""
    name = "mjpeg" if is_jpeg else path.suffix[1:].lower()
    newest.offer(Picture(moment, name, lambda: _decode(path), original))


def _decode(path: Path) -> av.VideoFrame:
    try:
        with closing(av.open(str(path))) as container:
            prepare(container.streams.video[0].codec_context)
            return next(container.decode(video=0))
    except (av.error.FFmpegError, StopIteration, IndexError, ValueError, MemoryError) as problem:
        raise Damaged(type(problem).__name__) from None
