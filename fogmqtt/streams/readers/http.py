"""Reads cameras over HTTP: a stream of JPEGs, or one JPEG that is asked for again and again."""

from __future__ import annotations

import io
import time
import urllib.error
import urllib.request
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Final, cast

import av

from fogmqtt.streams.clocks import Moment, arrival
from fogmqtt.streams.decoding import Stills, is_whole_jpeg, original_of
from fogmqtt.streams.newest import NewestPicture, Picture
from fogmqtt.streams.readers.addresses import LOOK_SHORTLY, open_video_url, read_password
from fogmqtt.streams.readers.container import read_live
from fogmqtt.streams.reasons import SourceFailed

if TYPE_CHECKING:
    from av.container import InputContainer

    from fogmqtt.streams.settings import SourceSettings

#: A picture that is asked for is asked for so often if `fps` is 0.
_SNAPSHOTS_PER_S: Final = 1.0
#: The largest file that is taken for a picture.
_MAX_BYTES: Final = 64 << 20
_VIDEO: Final = ("video/", "application/vnd.apple.mpegurl", "application/x-mpegurl")


def read_http(settings: SourceSettings, newest: NewestPicture) -> None:
    """Read a camera until it is lost, as its content type says.

    Raises SourceFailed, OSError and errors of FFmpeg.
    """
    opener = _opener(settings)
    with closing(_open(opener, settings)) as response:
        kind = response.headers.get_content_type()
        if kind == "multipart/x-mixed-replace":
            _read_parts(response, settings, newest)
        if not kind.startswith("image/") and not kind.startswith(_VIDEO):
            raise SourceFailed(f"it sends {kind}, and no picture; is the path right?")
        first = response.read(_MAX_BYTES) if kind.startswith("image/") else b""
    if kind.startswith(_VIDEO):
        with closing(open_video_url(settings)) as container:
            read_live(container, settings, newest)
    _poll(opener, first, settings, newest)


def _read_parts(response: HTTPResponse, settings: SourceSettings, newest: NewestPicture) -> None:
    stream = _AsItComes(response, settings.stall_s)
    opened = cast("InputContainer", av.open(stream, format="mpjpeg", options=LOOK_SHORTLY))
    with closing(opened) as container:
        read_live(container, settings, newest)


class _AsItComes(io.RawIOBase):
    """What FFmpeg reads of a response: what is there, without waiting for a full buffer."""

    def __init__(self, response: HTTPResponse, stall_s: float) -> None:
        self._response = response
        self._stall_s = stall_s

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        try:
            return self._response.read1(size)
        except TimeoutError:
            raise SourceFailed(f"it sends no picture for {self._stall_s:g} s") from None


def _poll(
    opener: urllib.request.OpenerDirector,
    first: bytes,
    settings: SourceSettings,
    newest: NewestPicture,
) -> None:
    pause_s = 1 / (settings.fps or _SNAPSHOTS_PER_S)
    newest.opened(pause_s=pause_s)
    stills = Stills.of_jpegs()
    offer_file(first, arrival(), stills, newest)
    due = time.monotonic()
    while True:
        due = max(due + pause_s, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
        with closing(_open(opener, settings)) as response:
            data = response.read(_MAX_BYTES)
        offer_file(data, arrival(), stills, newest)


def offer_file(data: bytes, moment: Moment, stills: Stills, newest: NewestPicture) -> None:
    """Offer a JPEG file, or count it as damaged or as one too many."""
    if not is_whole_jpeg(data):
        newest.damaged()
    elif newest.passes(moment.at):
        newest.offer(Picture(moment, "mjpeg", lambda: stills.decode(data), original_of(data)))


def _open(opener: urllib.request.OpenerDirector, settings: SourceSettings) -> HTTPResponse:
    try:
        response: HTTPResponse = opener.open(settings.source, timeout=settings.stall_s)
    except urllib.error.URLError:
        raise
    except TimeoutError:
        raise SourceFailed(
            f"it accepts the connection and sends nothing for {settings.stall_s:g} s"
        ) from None
    except HTTPException:
        raise SourceFailed("it does not answer as an HTTP server does") from None
    return response


def _opener(settings: SourceSettings) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = []
    if settings.username:
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        passwords.add_password(None, settings.source, settings.username, read_password(settings))
        handlers += [
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),
        ]
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
