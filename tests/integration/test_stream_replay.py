"""Streams of real sources are recorded by the command, and come out the same when replayed."""

from __future__ import annotations

import json
import signal

import cv2
import pytest

from tests.cameras import WebCamera, jpeg, painted, write_video
from tests.processes import PATIENCE_S, Fog, until


@pytest.mark.parametrize("kind", ["video", "jpegs"])
def test_a_recording_gives_the_same_decisions_and_bytes(lone_fog: Fog, kind: str) -> None:
    source = lone_fog.folder / "clip.mp4"
    if kind == "video":
        write_video(source, 12)
    else:
        source = lone_fog.folder / "pictures"
        source.mkdir()
        for number in range(12):
            (source / f"{number}.jpg").write_bytes(jpeg(painted(number)))
    options = ("--pipeline", "gray | background", "--record", "kept", "-o", "out")
    done = lone_fog.command("stream", str(source), *options, GATEWAY__LOCAL="auto")
    assert done.returncode == 0, done.stderr
    (recording,) = (lone_fog.folder / "kept").iterdir()
    suffixes = {path.suffix for path in (recording / "frames").iterdir()}
    assert suffixes == ({".png"} if kind == "video" else {".jpg"})

    again = lone_fog.command("replay", str(recording), "-o", "again")
    assert again.returncode == 0, again.stderr
    assert "12 frames decided again, 12 of them begun; 12 results computed" in again.stderr
    results = [sorted((lone_fog.folder / name).iterdir()) for name in ("out", "again")]
    assert [one.name for one in results[0]] == [one.name for one in results[1]]
    assert [one.read_bytes() for one in results[0]] == [one.read_bytes() for one in results[1]]

    changed = sorted((recording / "frames").iterdir())[3]
    cv2.imwrite(str(changed), painted(99))
    again = lone_fog.command("replay", str(recording))
    assert again.returncode == 1
    assert f"frame 3 ({changed.name}): its pixels are " in again.stderr


def moving(number: int) -> bytes:
    """A JPEG in which a white square appears, moves and is gone again; some are damaged."""
    picture = painted(number)
    if number % 60 > 30:
        left = 4 * (number % 60)
        picture[100:160, left : left + 40] = 255
    whole = jpeg(picture)
    return whole if number % 7 else whole[: len(whole) // 2] + b"\xff\xd9"


def test_a_camera_with_all_that_can_happen_is_decided_again_with_events_and_pictures(
    lone_fog: Fog,
) -> None:
    """Frames over the limit, replaced, damaged and lost with a camera; devices; motion."""
    lone_fog.fleet("eya", "manar")
    config, kept = lone_fog.folder / "fog.yaml", lone_fog.folder / "kept"
    with WebCamera(fps=60) as camera, lone_fog.probe("fog/v1/streams/#") as client:
        camera.make = moving
        config.write_text(
            "gateway: {local: never}\n"
            f"streams: {{yard: {{source: '{camera.url('/stream')}', fps: 25, stall_s: 2, "
            "retry_s: 0.2, pipeline: gray | canny low=50 high=150, motion: {sensitivity: 90}, "
            f"events: {{start: 1, end: 3, update_s: 0.1}}, record: {{folder: {kept}}}}}}}\n"
        )
        gateway = lone_fog.serve_with(config)
        ends = 0
        while ends < 2:
            message = client.message("fog/v1/streams/yard/events", within=PATIENCE_S)
            ends += json.loads(message.payload)["event_type"] == "end"
        camera.stop()
        camera.restart()
        log = next(kept.iterdir()) / "log.jsonl"
        until(lambda: log.read_bytes().count(b'"opened"') > 1, "another connection in the log")
        lines = len(log.read_bytes().splitlines())
        until(lambda: len(log.read_bytes().splitlines()) > lines + 50, "frames after it")
        gateway.signal(signal.SIGTERM)
        assert gateway.ended() == 0
    lines = [json.loads(one) for one in log.read_text("utf-8").splitlines()]
    counts = lines[-1]["counts"]
    assert counts["decimated"]
    assert counts["gap"]
    assert {"source", "frame", "end", "events", "snapshot", "last"} == {
        one["type"] for one in lines
    }
    again = lone_fog.command("replay", str(log.parent))
    assert again.returncode == 0, again.stderr
    assert "looked at again" in again.stderr
    assert "picture(s) of them" in again.stderr
    assert "no end" not in again.stderr
    begun = f"{counts['received']} frames decided again, {counts['begun']} of them begun"
    assert begun in again.stderr

    text = log.read_text("utf-8")
    log.write_text(text.replace('"decimated"]', '""]', 1), "utf-8")
    again = lone_fog.command("replay", str(log.parent))
    assert again.returncode == 1
    assert "in its source: decimated now, kept in the recording" in again.stderr
