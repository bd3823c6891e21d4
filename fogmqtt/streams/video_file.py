"""The main program of a process that writes the results of a stream into video files.

    one line of JSON, a `FrameHeader` -> height x width x channels bytes of pixels, and so on

It loads FFmpeg through `av`, and never OpenCV, which has another FFmpeg. If it crashes, or its disk
is full, only this output of the stream ends. It says why on stderr, in one line.
"""

from __future__ import annotations

import signal
import sys
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Final

import av
import msgspec
import numpy as np
from av.video.stream import VideoStream

from fogmqtt.streams.frame_header import FrameHeader

#: Times of frames are milliseconds.
_TICK: Final = Fraction(1, 1000)
#: Frames a second that the codec reckons with; the times of frames are their own.
_RATE: Final = 25
#: A file of pieces: what is on the disk can be played, whenever the power fails.
_OPTIONS: Final = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",
}
#: Nothing waits for later frames, so a crash costs little.
_CODEC_OPTIONS: Final = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
#: Frames in a piece: a crash costs the piece that was not finished.
_PIECE: Final = 50
#: The formats of pixels by the number of channels.
_PIXELS: Final = {1: "gray", 3: "bgr24", 4: "bgra"}


class VideoFile:
    """One file. All frames have one size."""

    def __init__(self, path: Path, header: FrameHeader) -> None:
        self.made_for = (header.path, header.height, header.width)
        self._container = av.open(str(path), "w", format="mp4", container_options=_OPTIONS)
        stream = self._container.add_stream("libx264", rate=_RATE, options=_CODEC_OPTIONS)
        assert isinstance(stream, VideoStream)  # noqa: S101  # the codec is one of video
        # H.264 has colours for two pixels by two.
        stream.width, stream.height = header.width // 2 * 2, header.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TICK
        stream.codec_context.gop_size = _PIECE
        stream.codec_context.thread_count = 1  # the cores are for tiles
        self._stream = stream
        self._began_ms = header.time_ms
        self._last_ms = -1

    def write(self, header: FrameHeader, pixels: bytes) -> None:
        """Add a frame. Raises OSError."""
        shape = (header.height, header.width, header.channels)
        image = np.frombuffer(pixels, np.uint8).reshape(shape)
        image = image[: self._stream.height, : self._stream.width]
        if header.channels == 1:
            image = image[..., 0]
        frame = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(image), format=_PIXELS[header.channels]
        )
        self._last_ms = max(self._last_ms + 1, header.time_ms - self._began_ms)
        frame.pts, frame.time_base = self._last_ms, _TICK
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left. Raises OSError."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()


def write_all(source: BinaryIO) -> None:
    """Write frames until the source ends. Raises OSError and msgspec.MsgspecError."""
    file: VideoFile | None = None
    try:
        while line := source.readline():
            header = msgspec.json.decode(line, type=FrameHeader)
            pixels = source.read(header.nbytes)
            if len(pixels) < header.nbytes:
                return
            if file is None or file.made_for != (header.path, header.height, header.width):
                if file is not None:
                    file.close()
                file = VideoFile(free_path(Path(header.path)), header)
            file.write(header, pixels)
    finally:
        if file is not None:
            file.close()


def free_path(path: Path) -> Path:
    """Return a path at which there is nothing: yard.mp4, yard-2.mp4 and so on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the gateway ends it, after the last frame
    try:
        write_all(sys.stdin.buffer)
    except FileExistsError:
        sys.stderr.write("a file is where the folder should be\n")
        return 1
    except OSError as problem:
        sys.stderr.write(f"{problem.strerror or problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
