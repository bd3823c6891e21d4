"""Opens sources by their address, for FFmpeg, and with the user's password."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import av
import av.error

from fogmqtt.streams.reasons import SourceFailed, in_words

if TYPE_CHECKING:
    from av.container import InputContainer

    from fogmqtt.streams.settings import SourceSettings

#: FFmpeg gives packets at once. Otherwise it would look at seconds of them first, and the first
#: frames would be late, or lost up to the next key frame.
LOOK_SHORTLY: Final = {"analyzeduration": "1", "probesize": "32"}
_PORTS: Final = {"rtsp": 554, "rtsps": 322}


def read_password(settings: SourceSettings) -> str:
    """Return the password of the source's user. Raises SourceFailed if its file is unreadable."""
    if not settings.password_file:
        return ""
    try:
        return Path(settings.password_file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise SourceFailed(f"{settings.password_file}: {in_words(problem)}") from None


def open_rtsp(settings: SourceSettings) -> InputContainer:
    """Open a camera. Raises SourceFailed or an error of FFmpeg."""
    _try_to_connect(settings)
    options = {
        "rtsp_transport": settings.transport,
        **LOOK_SHORTLY,
        # Packets that come late are not waited for: a newer frame is worth more.
        "max_delay": "200000",
    }
    began_at = time.monotonic()
    try:
        return av.open(
            _with_user(settings),
            options=options,
            timeout=(settings.stall_s, 2 * settings.stall_s),
        )
    except av.error.FFmpegError:
        # FFmpeg has several errors for the end of this time.
        if time.monotonic() < began_at + settings.stall_s:
            raise
        raise SourceFailed(
            f"it accepts the connection and sends nothing for {settings.stall_s:g} s"
        ) from None


def open_video_url(settings: SourceSettings) -> InputContainer:
    """Open a video over HTTP, such as HLS. Raises as `open_rtsp` does."""
    timeout = settings.stall_s, 2 * settings.stall_s
    return av.open(_with_user(settings), timeout=timeout)


def open_webcam(settings: SourceSettings) -> InputContainer:
    """Open a V4L2 device. Raises an error of FFmpeg."""
    device = settings.source.removeprefix("v4l2:")
    try:
        return _open_device(device, {"input_format": "mjpeg"})
    except (av.error.InvalidDataError, av.error.ArgumentError):
        return _open_device(device, {})  # it has no JPEGs; its own pixels are more on the wire


def open_file(settings: SourceSettings) -> InputContainer:
    """Open a video file. Raises an error of FFmpeg."""
    return av.open(settings.source)


def _open_device(device: str, options: dict[str, str]) -> InputContainer:
    return av.open(device, format="v4l2", options={"timestamps": "abs", **options})


def _try_to_connect(settings: SourceSettings) -> None:
    """Connect once without FFmpeg, which hides why a host is not reached. Raises SourceFailed."""
    parts = urlsplit(settings.source)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme.lower()]
    try:
        socket.create_connection((host, port), timeout=settings.stall_s).close()
    except OSError as problem:
        raise SourceFailed(in_words(problem)) from None


def _with_user(settings: SourceSettings) -> str:
    """Return the address with user and password, which FFmpeg takes in no other way."""
    if not settings.username:
        return settings.source
    user, password = quote(settings.username, ""), quote(read_password(settings), "")
    parts = urlsplit(settings.source)
    return parts._replace(netloc=f"{user}:{password}@{parts.netloc}").geturl()
