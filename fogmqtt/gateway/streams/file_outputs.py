"""Results of a stream in files: videos, and lines of JSON.

A path may have the signs of strftime, such as yard-%Y%m%d.mp4, for the time of capture in UTC; a
new name begins a new file. A disk that is full or slow delays no frame: an output gets the newest
result when it is ready, and tries again after a pause.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from fogmqtt.errors import StreamOutputFailed, reason_of
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.threads import IoThread
from fogmqtt.images.pictures import to_8_bits
from fogmqtt.images.spec import Image
from fogmqtt.parent import child_path
from fogmqtt.streams.frame_header import FrameHeader
from fogmqtt.wire.stream_messages import utc_text

#: Seconds after a failure in which nothing is tried.
_PAUSE_S: Final = 5.0
#: Seconds that a video has for its last frames.
_LAST_S: Final = 4.0


class FactsOutput:
    """Adds a line of JSON for each result: its number, time, age, digest, and its facts."""

    needs_original = False

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._thread = IoThread("stream facts")

    async def publish(self, frame: PublishedFrame) -> None:
        """Write a line. Raises StreamOutputFailed."""
        path = path_of(self._pattern, frame)
        await self._thread.call(partial(_append, path, frame_line(frame)))

    async def close(self) -> None:
        self._thread.close()


def _append(path: Path, line: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line)
    except FileExistsError:
        raise StreamOutputFailed(f"{path}: a file is where the folder should be") from None
    except OSError as problem:
        raise StreamOutputFailed(f"{path}: {reason_of(problem, path)}") from None


class VideoOutput:
    """Writes a video by a process of its own, which may crash without harm to the gateway."""

    needs_original = False

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._thread = IoThread("stream video")
        self._process: subprocess.Popen[bytes] | None = None
        self._again_at = float("-inf")

    async def publish(self, frame: PublishedFrame) -> None:
        """Write a frame. Raises StreamOutputFailed."""
        if frame.image is None:
            return
        header, pixels = _described(path_of(self._pattern, frame), frame, frame.image)
        await self._thread.call(partial(self._write, header, pixels))

    async def close(self) -> None:
        """Finish the file."""
        try:
            await self._thread.call(self._finish)
        finally:
            self._thread.close()

    def _write(self, header: FrameHeader, pixels: Image) -> None:
        if time.monotonic() < self._again_at:
            return
        process = self._process = self._process or _start()
        assert process.stdin is not None  # noqa: S101  # it has a pipe
        try:
            process.stdin.write(msgspec.json.encode(header) + b"\n")
            process.stdin.write(pixels.data.cast("B"))
            process.stdin.flush()
        except OSError:  # it has ended
            raise self._failed(process, header.path) from None

    def _finish(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            _, said = process.communicate(timeout=_LAST_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise StreamOutputFailed(f"the video took over {_LAST_S:g} s for its end") from None
        if process.returncode:
            raise StreamOutputFailed(f"{self._pattern}: {_why(said)}")

    def _failed(self, process: subprocess.Popen[bytes], path: str) -> StreamOutputFailed:
        self._process, self._again_at = None, time.monotonic() + _PAUSE_S
        process.kill()
        assert process.stdin is not None  # noqa: S101  # it has a pipe
        with suppress(OSError):  # what was not written yet
            process.stdin.close()
        assert process.stderr is not None  # noqa: S101  # it has a pipe
        with process.stderr as said:
            why = _why(said.read())
        process.wait()
        return StreamOutputFailed(f"{path}: {why}; tried again in {_PAUSE_S:g} s")


def frame_line(frame: PublishedFrame) -> bytes:
    """Return a line of JSON about a result, without its pixels."""
    described = {
        "seq": frame.seq,
        "number": frame.number,
        "captured_at": utc_text(frame.captured_utc),
        "age_ms": round(1000 * frame.age_s, 1),
        "epoch": frame.epoch,
        "digest": frame.digest(),
        **({} if frame.facts is None else {"facts": frame.facts}),
    }
    return msgspec.json.encode(described) + b"\n"


def path_of(pattern: str, frame: PublishedFrame) -> Path:
    """Return the path of a result by its time."""
    return Path(time.strftime(pattern, time.gmtime(frame.captured_utc)))


def _described(path: Path, frame: PublishedFrame, image: Image) -> tuple[FrameHeader, Image]:
    pixels = np.ascontiguousarray(to_8_bits(image))
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    height, width = pixels.shape[:2]
    return FrameHeader(str(path), height, width, channels, round(1000 * frame.captured_utc)), pixels


def _start() -> subprocess.Popen[bytes]:
    code = (
        f"import sys; sys.path[:] = {child_path()!r}; "
        "from fogmqtt.streams.video_file import main; sys.exit(main())"
    )
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )


def _why(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "the process that writes the video was ended"
