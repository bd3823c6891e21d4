"""Reads a Raspberry Pi's own camera through picamera2, which only such boards have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import av

from fogmqtt.streams.clocks import Moment, arrival
from fogmqtt.streams.newest import NewestPicture, Picture
from fogmqtt.streams.reasons import SourceFailed

if TYPE_CHECKING:
    from fogmqtt.streams.settings import SourceSettings

_ADVICE: Final = (
    "picamera2 is not installed for this Python; "
    "run `sudo apt install python3-picamera2`, and make the environment with "
    "`python3 -m venv --system-site-packages`"
)
#: What picamera2 calls blue, green and red in this order.
_FORMAT: Final = "RGB888"


def read_picamera(settings: SourceSettings, newest: NewestPicture) -> None:
    """Read the camera until it fails. Raises SourceFailed."""
    try:
        from picamera2 import Picamera2
    except ImportError:
        raise SourceFailed(_ADVICE) from None
    number = int(settings.source.removeprefix("picamera:"))
    if number >= len(Picamera2.global_camera_info()):
        raise SourceFailed(f"this board has no camera {number}")
    try:
        camera = Picamera2(number)
    except RuntimeError:
        raise SourceFailed("another program uses the camera, or it does not answer") from None
    try:
        camera.configure(camera.create_video_configuration(main={"format": _FORMAT}))
        camera.start()
        newest.opened(fps=settings.fps)
        _read(camera, newest)
    finally:
        camera.close()


def _read(camera: Any, newest: NewestPicture) -> None:
    while True:
        request = camera.capture_request()
        try:
            newest.packet_came()
            moment = _moment(request.get_metadata())
            if not newest.passes(moment.at):
                continue
            pixels = request.make_array("main")
        finally:
            request.release()
        frame = av.VideoFrame.from_ndarray(pixels, "bgr24")
        newest.offer(Picture(moment, "picamera", lambda frame=frame: frame))  # type: ignore[misc]


def _moment(metadata: dict[str, Any]) -> Moment:
    """Return when the sensor began to read the frame; it tells nanoseconds since the boot."""
    now = arrival()
    stamp = metadata.get("SensorTimestamp")
    if not stamp or not hasattr(time, "CLOCK_BOOTTIME"):
        return now
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - stamp / 1e9
    if not 0 <= age_s < 10:
        return now
    return Moment(now.at - age_s, now.utc - age_s, "sensor")
