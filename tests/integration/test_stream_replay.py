"""Streams of real sources are recorded by the command, and come out the same when replayed."""

from __future__ import annotations

import cv2
import pytest

from tests.cameras import jpeg, painted, write_video
from tests.processes import Fog


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
