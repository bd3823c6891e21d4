"""From packets of a codec to pictures, and from pictures to pixels or a JPEG."""

from __future__ import annotations

import mmap
from fractions import Fraction
from typing import TYPE_CHECKING, Final, cast

import av
import av.error
import numpy as np
from av.video.reformatter import VideoReformatter

from fogmqtt.streams.newest import Damaged

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

    from fogmqtt.streams.settings import Convert

#: The largest picture, in pixels. A damaged header can name any size.
MAX_PIXELS: Final = 64_000_000
#: FFmpeg's scale for the JPEG of a camera that sends none: 2 is the best, 31 the worst.
_JPEG_SCALE: Final = 4
_FRAME_TIME: Final = Fraction(1, 25)
_CHANNELS: Final[dict[Convert, int]] = {"bgr24": 3, "gray": 1}
_BEGIN, _END, _TABLES = b"\xff\xd8", b"\xff\xd9", b"\xff\xc4"


def prepare(decoder: VideoCodecContext, *, is_patient: bool = False) -> None:
    """Set what all decoders need.

    More threads are for a file of which all frames are wanted: each makes a frame later.
    """
    decoder.thread_count = 0 if is_patient else 1
    decoder.thread_type = "AUTO" if is_patient else "NONE"
    # Without this, FFmpeg gives the picture that it guesses for damaged data.
    decoder.options = {"max_pixels": str(MAX_PIXELS), "err_detect": "explode"}


class Stills:
    """Decodes pictures that need no other one: JPEGs, and key frames. One thread uses it."""

    def __init__(self, decoder: VideoCodecContext) -> None:
        prepare(decoder)
        self._decoder = decoder

    @classmethod
    def of_jpegs(cls) -> Stills:
        """Return a decoder of JPEG files."""
        return cls(av.CodecContext.create("mjpeg", "r"))

    @classmethod
    def of_stream(cls, stream: VideoStream) -> Stills:
        """Return a decoder of the key frames of a stream. It works after the stream is closed."""
        known = stream.codec_context
        decoder = cast("VideoCodecContext", av.CodecContext.create(known.codec.name, "r"))
        decoder.extradata = known.extradata
        if known.pix_fmt:  # raw pixels do not say their size themselves
            decoder.width, decoder.height, decoder.pix_fmt = (
                known.width,
                known.height,
                known.pix_fmt,
            )
        return cls(decoder)

    def decode(self, data: bytes) -> av.VideoFrame:
        """Return the picture of a packet or of a JPEG file. Raises Damaged."""
        try:
            frames = [*self._decoder.decode(av.Packet(data)), *self._decoder.decode(None)]
        except (av.error.FFmpegError, ValueError, MemoryError) as problem:
            raise Damaged(str(type(problem).__name__)) from None
        finally:
            self._decoder.flush_buffers()
        if not frames or is_damaged(frames[0]):
            raise Damaged("no whole picture")
        return frames[0]


def is_damaged(frame: av.VideoFrame) -> bool:
    """Return whether pixels of a decoded frame are missing."""
    return frame.is_corrupt or frame.width < 1 or frame.height < 1


def is_whole_jpeg(data: bytes) -> bool:
    """Return whether data begin and end as a JPEG does. Cameras may pad the end."""
    return data.startswith(_BEGIN) and _END in data[-1024:]


def original_of(data: bytes) -> bytes:
    """Return the JPEG if any program can read it: a webcam may leave out tables that it needs."""
    return data if _TABLES in data[:4096] else b""


class Converter:
    """Writes pictures as pixels or as a JPEG. Keeps what FFmpeg prepares for one size."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._encoder: VideoCodecContext | None = None
        self._encoded = 0

    def size(self, frame: av.VideoFrame, convert: Convert) -> tuple[int, int, int]:
        """Return height, width and channels of the pixels."""
        return frame.height, frame.width, _CHANNELS[convert]

    def write_pixels(self, frame: av.VideoFrame, convert: Convert, memory: mmap.mmap) -> None:
        """Write what `frame.to_ndarray(convert)` is, with one copy less."""
        height, width, channels = self.size(frame, convert)
        plane = self._scaler.reformat(frame, format=convert).planes[0]
        row = width * channels
        rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * height]
        target = np.frombuffer(memory, np.uint8, height * row).reshape(height, row)
        np.copyto(target, rows.reshape(height, plane.line_size)[:, :row])

    def jpeg(self, frame: av.VideoFrame) -> bytes:
        """Return a picture as a JPEG file. Raises Damaged if FFmpeg cannot encode it."""
        encoder = self._encoder
        if encoder is None or (encoder.width, encoder.height) != (frame.width, frame.height):
            encoder = self._encoder = _jpeg_encoder(frame.width, frame.height)
        converted = self._scaler.reformat(frame, format="yuvj420p")
        self._encoded += 1
        # The encoder wants times that rise.
        converted.pts, converted.time_base = self._encoded, _FRAME_TIME
        try:
            return b"".join(bytes(packet) for packet in encoder.encode(converted))
        except (av.error.FFmpegError, ValueError) as problem:
            raise Damaged(str(type(problem).__name__)) from None


def _jpeg_encoder(width: int, height: int) -> VideoCodecContext:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = "yuvj420p"
    encoder.time_base = _FRAME_TIME
    encoder.thread_count = 1
    encoder.qmin = encoder.qmax = _JPEG_SCALE
    return encoder
