"""Recordings of streams: what was decided is decided again, and what differs is named."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogmqtt.config import RecordSettings, StreamSettings
from fogmqtt.core.streaming.decisions import Arrival, Decisions, StreamRules, WorkEnd
from fogmqtt.core.streaming.recording import EndLine, FrameLine, LastLine, Line, Redecision
from fogmqtt.errors import UsageError
from fogmqtt.gateway.streams import recorder
from fogmqtt.gateway.streams.outputs import PublishedFrame
from fogmqtt.gateway.streams.replay import Recording, ReplayReport, replay
from tests.frame_sources import Collected, Pictures, PlayedSource
from tests.gateway_rig import Rig, config, eventually, run

PICTURES = [np.random.default_rng(seed).integers(0, 256, (48, 64), np.uint8) for seed in range(5)]
WAYS = (("tiles", "frames", "here"), ("tiles",), ("here",), (), None)


# --- decisions, in virtual time


def recorded(rules: StreamRules, seed: int) -> list[Line]:
    """A stream with random frames, and all that it decided."""
    random = np.random.default_rng(seed)
    decisions, lines, under_way = Decisions(rules), list[Line](), list[int]()
    at = 0.0
    for number in range(60):
        at += float(random.random()) * 0.05
        ways = WAYS[random.integers(0, len(WAYS))]
        if rules.keep == "all" and ways == ():
            ways = ("tiles",)
        arrival = Arrival(
            at, number, at - float(random.random()) * 0.2, (4, 4 + number // 20), 0, 0, ways
        )
        verdict = decisions.arrive(arrival)
        lines.append(FrameLine(arrival, verdict, at))
        if verdict.seq:
            under_way.append(verdict.seq)
        while under_way and random.random() < 0.5:
            at += float(random.random()) * 0.05
            seq = under_way.pop(int(random.integers(0, len(under_way))))
            ending = WorkEnd(at, seq, is_done=random.random() < 0.8, late=random.random() < 0.5)
            lines.append(EndLine(ending, tuple(decisions.end(ending))))
    return lines


def differences(rules: StreamRules, lines: list[Line]) -> list[str]:
    again = Redecision(rules)
    return [text for line in lines for text in again.differences(line)]


@given(
    st.integers(0, 2**32), st.sampled_from(["latest", "all"]), st.sampled_from(["strict", "any"])
)
def test_a_log_decides_the_same_again_after_it_was_a_file(seed: int, keep: Any, order: Any) -> None:
    rules = StreamRules(0.2, keep, order)
    texts = [msgspec.json.encode(line) for line in recorded(rules, seed)]
    lines = [msgspec.json.decode(text, type=Line) for text in texts]
    assert differences(rules, lines) == []


def test_other_rules_decide_differently_and_the_frame_is_named() -> None:
    lines = recorded(StreamRules(0.2), 1)
    found = differences(StreamRules(0.01), lines)
    assert found
    assert "dropped as too_late" in found[0]
    assert "in the recording" in found[0]


# --- recordings of a gateway


def settings(folder: Path, **more: Any) -> StreamSettings:
    record = RecordSettings(str(folder), more.pop("max_bytes", 10_000_000))
    values = {"source": "played", "pipeline": "invert", "max_age_s": 30.0, "keep": "all"}
    return StreamSettings(**{**values, **more}, record=record)


def record(
    folder: Path, source: PlayedSource, devices: tuple[str, ...] = ("eya", "manar"), **more: Any
) -> tuple[Path | None, Collected, Any]:
    """Record a stream over devices; returns the recording, and what came out."""
    output, found = Collected(), list[Any]()

    async def test() -> None:
        rig = Rig()
        for name in devices:
            rig.device(name)
        async with rig.gateway(config(local="auto")) as gateway:
            await eventually(lambda: len(gateway.online()) == len(devices))
            stream = gateway.open_stream("yard", settings(folder, **more), source, [("", output)])
            await gateway.run_stream(stream)
            found.append(stream)

    run(test())
    return found[0].recording, output, found[0].view()


def replayed(folder: Path) -> tuple[ReplayReport, list[PublishedFrame]]:
    results = list[PublishedFrame]()

    async def test() -> ReplayReport:
        return await replay(Recording(folder), lambda path, _: Pictures(path), results.append)

    return asyncio.run(test()), results


def first(folder: Path, kind: str) -> int:
    """The index of the first line of a kind in the log."""
    lines = (folder / "log.jsonl").read_text("utf-8").splitlines()
    return next(at for at, line in enumerate(lines) if f'"type":"{kind}"' in line)


def change(path: Path, edit: Callable[[dict[str, Any]], None], line: int) -> None:
    texts = path.read_text("utf-8").splitlines()
    found = json.loads(texts[line])
    edit(found)
    texts[line] = json.dumps(found)
    path.write_text("\n".join(texts) + "\n", "utf-8")


@pytest.mark.parametrize("pipeline", ["invert", "stats", "diff", "average | invert"])
def test_a_replay_decides_and_computes_the_same(tmp_path: Path, pipeline: str) -> None:
    source = PlayedSource(PICTURES, count=12)
    devices = () if "|" in pipeline or pipeline == "diff" else ("eya", "manar")
    folder, output, view = record(tmp_path, source, devices, pipeline=pipeline)
    assert folder is not None
    report, results = replayed(folder)
    assert (report.texts, report.is_whole, report.not_comparable) == ([], True, 0)
    assert (report.frames, report.begun, report.compared) == (12, 12, 12)
    assert [one.seq for one, _ in output.results] == list(range(1, 13))
    assert [one.digest() for one in results] == [one.digest() for one, _ in output.results]
    assert [one.seq for one in results] == list(range(1, 13))
    assert view.books.published == 12


def test_frames_that_were_dropped_are_dropped_again_and_have_no_picture(tmp_path: Path) -> None:
    source = PlayedSource(PICTURES, fps=200, count=30)
    folder, _, view = record(tmp_path, source, keep="latest", max_age_s=0.02)
    assert folder is not None
    report, _ = replayed(folder)
    assert (report.texts, report.is_whole) == ([], True)
    assert report.frames == view.books.given
    assert len(list((folder / "frames").iterdir())) == report.begun == view.books.begun


def test_a_frame_that_its_source_would_not_leave_out_now_is_named(tmp_path: Path) -> None:
    folder, _, view = record(tmp_path, PlayedSource(PICTURES, fps=5000, count=300), keep="latest")
    assert folder is not None
    assert view.books.superseded
    log = folder / "log.jsonl"
    number = log.read_text("utf-8").split('"supersedes"')[0].count('["offered"') - 1
    log.write_text(log.read_text("utf-8").replace('"supersedes"', '"decimated"', 1), "utf-8")
    report, _ = replayed(folder)
    named = f"frame {number}, in its source: supersedes now, decimated in the recording"
    assert report.texts == [named]


def test_a_frame_that_its_source_lost_without_a_step_is_named(tmp_path: Path) -> None:
    folder, _, _ = record(tmp_path, PlayedSource(PICTURES, count=3))
    assert folder is not None
    change(folder / "log.jsonl", lambda one: one["steps"].insert(0, ["damaged", 0, ""]), 0)
    report, _ = replayed(folder)
    assert report.texts[:2] == [
        "frame 0, received in its source: 2 now, 1 in the recording",
        "frame 0, gap in its source: 1 now, 0 in the recording",
    ]
    assert "count of received: 4 now, 3 in the recording" in report.texts


def test_a_result_that_is_another_now_is_named(tmp_path: Path) -> None:
    folder, _, _ = record(tmp_path, PlayedSource(PICTURES, count=3))
    assert folder is not None
    change(folder / "log.jsonl", lambda one: one.update(digest="0" * 16), first(folder, "end"))
    report, _ = replayed(folder)
    assert report.differences == 1
    assert "0000000000000000 in the recording" in report.texts[0]


def test_a_picture_that_is_another_now_is_named(tmp_path: Path) -> None:
    folder, _, _ = record(tmp_path, PlayedSource(PICTURES, count=3))
    assert folder is not None
    cv2.imwrite(str(folder / "frames/00000002.png"), PICTURES[0])
    report, results = replayed(folder)
    assert report.differences == 1
    assert report.texts[0].startswith("frame 1 (00000002.png): its pixels are ")
    assert [one.seq for one in results] == [1, 3]


def test_a_recording_ends_at_its_limit_and_the_stream_goes_on(tmp_path: Path) -> None:
    source = PlayedSource(PICTURES, count=12)
    folder, output, _ = record(tmp_path, source, max_bytes=15_000)
    assert len(output.results) == 12
    assert folder is not None
    assert sum(one.stat().st_size for one in folder.rglob("*") if one.is_file()) <= 15_000
    report, _ = replayed(folder)
    assert (report.texts, report.is_whole) == ([], False)
    assert 0 < report.begun < 12
    assert sorted(source.released) == list(range(12))


def test_the_limit_counts_earlier_recordings_and_none_is_overwritten(tmp_path: Path) -> None:
    first, _, _ = record(tmp_path, PlayedSource(PICTURES, count=2))
    second, _, _ = record(tmp_path, PlayedSource(PICTURES, count=2))
    assert first is not None
    assert second is not None
    assert first != second
    size = sum(one.stat().st_size for one in tmp_path.rglob("*") if one.is_file())
    third, output, _ = record(tmp_path, PlayedSource(PICTURES, count=2), max_bytes=size)
    assert (third, len(output.results)) == (None, 2)


def test_a_folder_where_a_file_is_costs_the_recording_and_not_the_stream(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder, output, _ = record(tmp_path / "file", PlayedSource(PICTURES, count=2))
    assert (folder, len(output.results)) == (None, 2)


def test_a_disk_that_hangs_ends_the_recording_and_the_stream_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    monkeypatch.setattr(recorder, "_LONGEST_WRITE_S", 0.05)
    monkeypatch.setattr(recorder, "encode", lambda *_: back.wait())
    try:
        source = PlayedSource(PICTURES, count=12)
        _, output, _ = record(tmp_path, source)
        assert len(output.results) == 12
    finally:
        back.set()


def test_the_log_of_a_gateway_that_was_killed_is_replayed_to_its_last_whole_line(
    tmp_path: Path,
) -> None:
    folder, _, _ = record(tmp_path, PlayedSource(PICTURES, count=4))
    assert folder is not None
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    report, _ = replayed(folder)
    assert (report.texts, report.is_whole, report.begun) == ([], False, 4)


def test_what_is_no_recording_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder, _, _ = record(tmp_path, PlayedSource(PICTURES, count=2))
    assert folder is not None
    with pytest.raises(UsageError, match=f"give one of them, such as {folder}"):
        Recording(tmp_path)
    with pytest.raises(UsageError, match="has no recording; give a folder that --record"):
        Recording(folder / "frames")
    (folder / "frames/00000001.png").unlink()
    with pytest.raises(UsageError, match=r"00000001\.png of the recording is missing"):
        replayed(folder)
    change(folder / "log.jsonl", lambda one: one.pop("arrival"), first(folder, "frame"))
    with pytest.raises(UsageError, match=r"log\.jsonl:2: this line is damaged"):
        replayed(folder)
    (folder / "recording.json").write_text("{}", "utf-8")
    with pytest.raises(UsageError, match="no recording of a stream"):
        Recording(folder)


def test_counts_that_do_not_add_up_are_named() -> None:
    lines = recorded(StreamRules(0.2), 1)
    again = Redecision(StreamRules(0.2))
    for line in lines:
        assert list(again.differences(line)) == []
    last = LastLine(lines[0].arrival.totals, {"begun": 1_000})  # type: ignore[union-attr]
    assert any("count of begun: " in text for text in again.differences(last))
