"""Reads what FFmpeg opens: cameras by RTSP, webcams, video files, and video over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import av
import av.error

from fogmqtt.streams.clocks import MediaClock, Moment, UtcClock, arrival
from fogmqtt.streams.decoding import (
    Stills,
    is_damaged,
    is_whole_jpeg,
    original_of,
    prepare,
)
from fogmqtt.streams.newest import NewestPicture, Picture
from fogmqtt.streams.reasons import SourceFailed

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

    from fogmqtt.streams.settings import SourceSettings

#: A file whose frames cannot be read at its pace goes on at the pace at which they can.
_MAX_BEHIND_S: Final = 0.5

#: Says when a frame was captured, from its timestamp in seconds.
Stamp = Callable[[float | None], Moment]


def read_live(container: InputContainer, settings: SourceSettings, newest: NewestPicture) -> None:
    """Read a camera until it is lost. Raises SourceFailed or an error of FFmpeg."""
    newest.opened(fps=settings.fps)
    _read_by_clock(UtcClock("rtcp", partial(_rtcp_began, container)), container, settings, newest)
    raise SourceFailed("it ended the connection")


def read_webcam(container: InputContainer, settings: SourceSettings, newest: NewestPicture) -> None:
    """Read a camera whose timestamps are in UTC. Raises as `read_live` does."""
    newest.opened(fps=settings.fps)
    _read_by_clock(UtcClock("sensor", lambda: 0.0), container, settings, newest)
    raise SourceFailed("it was unplugged")


def read_file(container: InputContainer, settings: SourceSettings, newest: NewestPicture) -> None:
    """Read a video file to its end: at its own pace, or as fast as it is taken if all are kept."""
    stream = _video(container)
    newest.opened(fps=settings.fps)
    rate = stream.average_rate
    clock = _FileClock(float(rate) if rate else None, is_paced=settings.keep != "all")
    _Reading(stream, settings, newest, clock.moment, clock.seconds).run(container)


def _read_by_clock(
    clock: UtcClock,
    container: InputContainer,
    settings: SourceSettings,
    newest: NewestPicture,
) -> None:
    def stamp(seconds: float | None) -> Moment:
        return clock.moment(seconds, arrival())

    _Reading(_video(container), settings, newest, stamp, lambda: clock.last.at).run(container)


def _rtcp_began(container: InputContainer) -> float | None:
    """Return the camera's UTC at the timestamp 0, if it told it by RTCP."""
    began = container.start_time_realtime
    return began / 1e6 if began is not None and began > 0 else None


class _FileClock:
    def __init__(self, rate: float | None, *, is_paced: bool) -> None:
        self._clock = MediaClock(rate)
        self._is_paced = is_paced
        self._began: Moment | None = None
        self._seconds = 0.0

    def seconds(self) -> float:
        """Return the time of the last frame by the file's own clock."""
        return self._seconds

    def moment(self, stamp: float | None) -> Moment:
        """Wait until a frame is due, if the file is paced, and return its time."""
        self._seconds = self._clock.time_of(stamp)
        if not self._is_paced:
            return arrival()
        if self._began is None:
            self._began = arrival()
        due = self._began.at + self._seconds
        now = arrival()
        if now.at > due + _MAX_BEHIND_S:
            self._began = Moment(now.at - self._seconds, now.utc - self._seconds, "arrival")
            due = now.at
        time.sleep(max(0.0, due - now.at))
        return Moment(due, self._began.utc + self._seconds, "arrival")


class _Reading:
    """The loop over the packets of one video stream."""

    def __init__(
        self,
        stream: VideoStream,
        settings: SourceSettings,
        newest: NewestPicture,
        stamp: Stamp,
        seconds: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._newest = newest
        self._stamp = stamp
        self._seconds = seconds
        decoder = stream.codec_context
        self._codec = decoder.name
        self._keys_only = settings.keep == "keys"
        #: Such packets need no other one, so only those are decoded whose pixels are asked for.
        self._is_still = self._keys_only or decoder.codec.intra_only
        self._is_jpeg = self._codec == "mjpeg"
        if self._is_still:
            self._stills = Stills.of_stream(stream)
        else:
            prepare(decoder, is_patient=settings.keep == "all")

    def run(self, container: InputContainer) -> None:
        """Read until the end. Raises an error of FFmpeg."""
        take = self._take_still if self._is_still else self._take_frames
        for packet in container.demux(self._stream):
            self._newest.packet_came()
            take(packet)

    def _take_still(self, packet: av.Packet[Any]) -> None:
        if packet.size == 0:
            return  # the end
        if self._keys_only and not packet.is_keyframe:
            self._newest.no_key()
            return
        data = bytes(packet)
        if packet.is_corrupt or (self._is_jpeg and not is_whole_jpeg(data)):
            self._newest.damaged()
            return
        moment = self._stamp(_seconds_of(packet))
        if not self._newest.passes(self._seconds()):
            return
        original = original_of(data) if self._is_jpeg else b""
        decode = partial(self._stills.decode, data)
        self._newest.offer(Picture(moment, self._codec, decode, original))

    def _take_frames(self, packet: av.Packet[Any]) -> None:
        began_at = time.monotonic()
        try:
            frames = self._stream.codec_context.decode(packet if packet.size else None)
        except av.error.EOFError:
            return
        except (av.error.InvalidDataError, av.error.PatchWelcomeError):
            self._newest.damaged()
            return
        self._newest.decoded(time.monotonic() - began_at)
        for frame in frames:
            self._take_frame(frame)

    def _take_frame(self, frame: av.VideoFrame) -> None:
        if is_damaged(frame):
            self._newest.damaged()
            return
        moment = self._stamp(_seconds_of(frame))
        if not self._newest.passes(self._seconds()):
            return
        self._newest.offer(Picture(moment, self._codec, lambda: frame))


def _seconds_of(timed: av.Packet[Any] | av.VideoFrame) -> float | None:
    """Return the timestamp in seconds; None if there is none."""
    if timed.pts is None or not timed.time_base:
        return None
    return float(timed.pts * timed.time_base)


def _video(container: InputContainer) -> VideoStream:
    """Return the first video stream whose codec is known. Raises SourceFailed."""
    videos = container.streams.video
    if not videos:
        raise SourceFailed("it has no video")
    for stream in videos:
        if stream.codec_context is not None and stream.codec_context.is_decoder:
            return stream
    raise SourceFailed("no decoder for the codec of its video is installed")
