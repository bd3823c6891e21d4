"""What a stream is told of its source, and what the text of a source means."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from fogmqtt.errors import ConfigError, UsageError

#: How a source is read.
Kind = Literal["rtsp", "http", "v4l2", "picamera", "mqtt", "file", "folder"]
#: What is kept of the frames: the newest, all (the reader waits), or key frames only.
Keep = Literal["latest", "all", "keys"]
#: What a frame is: blue, green and red, or gray; by FFmpeg's swscale.
Convert = Literal["bgr24", "gray"]

_SECONDS = msgspec.Meta(gt=0)
_FORMS = (
    "rtsp://host/path, http://host/path, v4l2:/dev/video0, picamera:0, mqtt, "
    "a video file or a folder of pictures"
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
#: Kinds of sources that give all their frames, also if they are slowed.
_PATIENT: tuple[Kind, ...] = ("file", "folder")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The keys of a stream that are about its source; times are in seconds.

    The process that reads the source reads `password_file` each time it opens the source.
    """

    source: str = ""
    username: str = ""
    password_file: str = ""
    transport: Literal["tcp", "udp"] = "tcp"
    keep: Keep = "latest"
    #: Frames a second at most; 0: all.
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    convert: Convert = "bgr24"
    stall_s: Annotated[float, _SECONDS] = 5.0
    retry_s: Annotated[float, _SECONDS] = 1.0
    retry_max_s: Annotated[float, _SECONDS] = 30.0


def kind_of(source: str) -> Kind:
    """Return how a source is read.

    Raises ConfigError if no source has this form, and if a user is part of the address.
    """
    scheme = _SCHEME.match(source)
    if scheme is not None:
        return _kind_of_address(source, scheme[1].lower())
    if source == "mqtt":
        return "mqtt"
    if source.startswith("v4l2:"):
        if not source.startswith("v4l2:/"):
            raise ConfigError(f"{source!r} names no device; write v4l2:/dev/video0")
        return "v4l2"
    if source.startswith("picamera:"):
        if not source.removeprefix("picamera:").isdecimal():
            raise ConfigError(f"{source!r} names no camera; write picamera:0")
        return "picamera"
    if not source:
        raise ConfigError(f"the source is empty; give {_FORMS}")
    return "folder" if Path(source).is_dir() else "file"


def shown(source: str) -> str:
    """Return a source as everybody may see it: what follows a `?` may have a password."""
    address, mark, _ = source.partition("?")
    return f"{address}?…" if mark and _SCHEME.match(source) else source


def check_source(settings: SourceSettings) -> SourceSettings:
    """Return the settings if they fit each other. Raises ConfigError."""
    kind = kind_of(settings.source)
    if settings.keep == "all" and kind not in _PATIENT:
        raise ConfigError(
            f"keep: all slows its source, and {settings.source} cannot be slowed; "
            "use latest or keys, or a file or folder"
        )
    if settings.password_file and not settings.username:
        raise ConfigError("password_file is given without username; give both")
    if settings.username and kind not in ("rtsp", "http"):
        raise ConfigError(f"{settings.source} takes no username; remove it")
    return settings


def require_pyav() -> None:
    """Raise UsageError if the package is missing that reads sources."""
    if importlib.util.find_spec("av") is None:
        raise UsageError("frames need PyAV; install it: pip install 'fogmqtt[streams]'")


def check_device_camera(settings: SourceSettings) -> SourceSettings:
    """Return the settings if a device can have such a camera. Raises UsageError."""
    if kind_of(settings.source) == "mqtt":
        raise ConfigError("a device's camera cannot be mqtt; give picamera:0, for example")
    if settings.convert != "bgr24":
        raise ConfigError(
            "a device's camera sends JPEGs as they are; "
            "set convert in the gateway's stream, and leave it out here"
        )
    require_pyav()
    return check_source(settings)


def _kind_of_address(source: str, scheme: str) -> Kind:
    if scheme not in ("rtsp", "rtsps", "http", "https"):
        raise ConfigError(f"{scheme}:// is no source; give {_FORMS}")
    try:
        parts = urlsplit(source)
        host, user = parts.hostname, "@" in parts.netloc
        _ = parts.port
    except ValueError as problem:
        raise ConfigError(f"the address of the source is wrong: {problem}") from None
    if user:  # the address is shown to everybody
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise ConfigError(
            f"a user stands in the address; write source: {shown}, "
            "and use username and password_file"
        )
    if not host:
        raise ConfigError(f"{source!r} names no host")
    return "rtsp" if scheme.startswith("rtsp") else "http"
