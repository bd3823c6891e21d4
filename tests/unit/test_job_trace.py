"""Every job records where each of its tiles is now, and where the time of each attempt went."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from fogmqtt.core.geometry import Grid, Rect, Tile
from fogmqtt.gateway.jobs import trace
from fogmqtt.gateway.jobs.model import JobHandle
from fogmqtt.gateway.jobs.trace import AttemptRecord, DeviceTimes, JobTrace
from fogmqtt.gateway.jobs.trace_values import PHASES, AttemptEnd, JobTraceSnapshot, TracedAttempt
from fogmqtt.wire.messages import Accepted, Failure, Result, TileTask, with_digest
from tests.gateway_rig import (
    Rig,
    accepted,
    config,
    do_nothing,
    eventually,
    request,
    result,
    run,
)


def record(**marks: Any) -> AttemptRecord:
    """An attempt ordered at second 10 by which nothing else has happened."""
    return AttemptRecord(
        "j.0", 0, Rect(0, 0, 1, 1), 1, "eya", is_hedge=False, ordered_at=10.0, **marks
    )


def phases_of(one: AttemptRecord, at: float = 99.0) -> dict[str, float]:
    seconds = zip(PHASES, one.phases(at), strict=True)
    return {name: pytest.approx(value) for name, value in seconds if value > 1e-9}


SENT = {"cut_began_at": 10.1, "cut_at": 10.3, "encoded_at": 10.6, "published_at": 11.0}


def finished(**marks: Any) -> AttemptRecord:
    """A kept attempt: on its way at 11, accepted at 12, received at 20, pasted at 23."""
    told = {"received_at": 20.0, "checked_at": 21.0, "paste_began_at": 22.5, "ended_at": 23.0}
    return record(**{**SENT, **told, "accepted_at": 12.0, **marks})


class TestPhases:
    """The phases of one attempt."""

    def test_a_devices_durations_are_placed_between_sending_and_receiving(self) -> None:
        times = DeviceTimes(
            queue_s=1.0, start_s=0.5, compute_s=4.0, decode_s=0.25, encode_s=0.75, worker=1
        )
        assert phases_of(finished(times=times)) == {
            "wait": 0.1,
            "cut": 0.2,
            "encode": 0.3,
            "queue": 0.4,
            "wire_out": 1.0,
            "device_queue": 1.0,
            "start": 0.5,
            "decode": 0.25,
            "compute": 3.0,
            "encode_result": 0.75,
            "wire_back": 2.5,
            "check": 1.0,
            "merge_queue": 1.5,
            "paste": 0.5,
        }

    def test_without_an_accepted_message_the_wire_is_shared_out_by_bytes(self) -> None:
        times = DeviceTimes(compute_s=5.0, queue_s=0.0)
        one = finished(accepted_at=None, times=times, bytes_out=300, bytes_back=100)
        assert phases_of(one)["wire_out"] == 3.0
        assert phases_of(one)["wire_back"] == 1.0

    def test_a_device_that_reports_nothing_has_one_phase_of_its_own(self) -> None:
        assert phases_of(finished())["device"] == 8.0

    @pytest.mark.parametrize("claim", [math.nan, math.inf, -5.0, 1e9, 100.0])
    @pytest.mark.parametrize("field", ["queue_s", "start_s", "compute_s", "decode_s", "encode_s"])
    def test_no_claim_of_a_device_moves_anything_out_of_its_time(
        self, field: str, claim: float
    ) -> None:
        honest = {"queue_s": 1.0, "start_s": 0.0, "compute_s": 3.0, "decode_s": 1.0, "encode_s": 1}
        phases = finished(times=DeviceTimes(**{**honest, field: claim})).phases(99.0)
        assert min(phases) >= 0.0
        assert sum(phases) == pytest.approx(13.0)
        assert sum(phases[4:12]) == pytest.approx(9.0)

    @pytest.mark.parametrize(
        ("marks", "last"),
        [
            ({}, "wait"),
            ({"cut_began_at": 10.1}, "cut"),
            (SENT, "wire_out"),
            ({**SENT, "accepted_at": 12.0}, "device"),
        ],
    )
    def test_an_attempt_that_runs_or_was_lost_is_in_its_last_phase_until_then(
        self, marks: dict[str, float], last: str
    ) -> None:
        for one in (record(**marks), record(**marks, ended_at=30.0, end=AttemptEnd.LOST)):
            phases = one.phases(30.0)
            assert sum(phases) == pytest.approx(20.0)
            assert PHASES[max(index for index, value in enumerate(phases) if value)] == last


def begin(count: int, job: JobTrace | None = None) -> tuple[JobTrace, trace.StageTrace]:
    job = job or JobTrace("j", "photo", "invert")
    size = (count, 1)
    tiles = [Tile(row, Rect(row, 0, 1, 1), Rect(row, 0, 1, 1), size) for row in range(count)]
    return job, job.begin_stage("j.0", size, tiles)


class TestTiles:
    """The state of each tile, for a picture that fills in."""

    def test_a_reader_gets_what_changed_since_its_last_look(self) -> None:
        job, stage = begin(3)
        first = job.tiles()
        assert first is not None
        assert {tile.index: tile.status for tile in first.tiles} == dict.fromkeys(
            range(3), "waiting"
        )
        stage.ordered((1, 1, "eya"))
        then = job.tiles(first.version)
        assert then is not None
        assert [(one.index, one.status, one.device) for one in then.tiles] == [
            (1, "cutting", "eya")
        ]
        again = job.tiles(then.version)
        assert again is not None
        assert again.tiles == []

    def test_a_tile_goes_from_waiting_to_done(self) -> None:
        job, stage = begin(1)
        key = (0, 1, "eya")

        def status() -> str:
            now = job.tiles()
            assert now is not None
            return now.tiles[0].status

        seen = [status()]
        for step in (
            lambda: stage.ordered(key),
            lambda: stage.published(key, 7),
            lambda: stage.accepted(key, 1.0),
            lambda: stage.kept(key),
        ):
            step()
            seen.append(status())
        assert seen == ["waiting", "cutting", "sent", "running", "done"]

    def test_a_split_tile_and_its_halves_are_shown(self) -> None:
        job, stage = begin(1)
        before = job.tiles()
        assert before is not None
        halves = [Tile(i, Rect(0, 0, 1, 1), Rect(0, 0, 1, 1), (2, 1)) for i in (1, 2)]
        stage.split(0, halves)
        now = job.tiles(before.version)
        assert now is not None
        assert {one.index: one.status for one in now.tiles} == {
            0: "split",
            1: "waiting",
            2: "waiting",
        }
        assert now.count == 3

    def test_a_new_stage_has_a_new_number_and_all_its_tiles_are_changed(self) -> None:
        job, stage = begin(2)
        stage.ordered((0, 1, "eya"))
        before = job.tiles()
        assert before is not None
        begin(3, job)
        now = job.tiles(before.version)
        assert now is not None
        assert (before.number, now.number, len(now.tiles)) == (1, 2, 3)

    def test_a_hedge_is_shown_and_the_one_that_loses_was_outrun(self) -> None:
        job, stage = begin(1)
        stage.ordered((0, 1, "eya"))
        stage.ordered((0, 2, "mona"))
        now = job.tiles()
        assert now is not None
        assert now.tiles[0].copies == 2
        stage.received((0, 2, "mona"), trace.now(), DeviceTimes(), 9)
        stage.ended((0, 1, "eya"), AttemptEnd.TAKEN_BACK)
        stage.kept((0, 2, "mona"))
        ends = {one.device: (one.end, one.is_hedge) for one in job.snapshot().attempts}
        assert ends == {"eya": (AttemptEnd.OUTRUN, False), "mona": (AttemptEnd.KEPT, True)}

    def test_a_message_in_the_name_of_another_device_changes_nothing(self) -> None:
        job, stage = begin(1)
        stage.ordered((0, 1, "eya"))
        stage.published((0, 1, "eya"), 7)
        stage.accepted((0, 1, "liar"), 1.0)
        stage.received((0, 1, "liar"), 1.0, DeviceTimes(), 9)
        now = job.tiles()
        assert now is not None
        assert (now.tiles[0].status, now.tiles[0].device) == ("sent", "eya")


def test_a_job_keeps_so_many_attempts_and_counts_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace, "MAX_ATTEMPTS", 3)
    job, stage = begin(5)
    for index in range(5):
        stage.ordered((index, 1, "eya"))
        stage.kept((index, 1, "eya"))
    now = job.tiles()
    assert now is not None
    assert {one.status for one in now.tiles} == {"done"}
    assert (len(job.snapshot().attempts), job.snapshot().left_out) == (3, 2)


def test_a_worker_never_seems_to_do_two_tiles_at_once() -> None:
    """Each `accepted` is late by another time, so each tile is placed too late by that."""
    late = [0.9, 0.0, 0.5, 0.1]
    records = []
    for number, delay in enumerate(late):
        arrived, began = 11.0 + number, 11.0 + number
        records.append(
            finished(
                published_at=arrived - 0.05,
                accepted_at=arrived + delay,
                received_at=began + 2.0,
                checked_at=20.0,
                times=DeviceTimes(0.0, 0.0, 1.0, 0.1, 0.1, 0),
            )
        )
    attempts = trace._traced(records, 0.0, 99.0)
    spans = [work(one) for one in attempts]
    assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(spans))
    assert [seconds_of(span) for span in spans] == pytest.approx([1.0] * 4)
    assert all(one.end_s == pytest.approx(23.0) for one in attempts)


def test_a_device_that_claims_more_than_its_workers_can_have_done_is_cut_short() -> None:
    lie = DeviceTimes(0.0, 0.0, 8.0, 0.0, 0.0, 0)
    records = [finished(times=lie, received_at=20.0 + number / 10) for number in range(4)]
    attempts = trace._traced(records, 0.0, 99.0)
    spans = sorted(work(one) for one in attempts)
    assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(spans))
    for one in attempts:
        assert min(one.phases) >= -1e-12
        assert one.end_s == pytest.approx(23.0)


def work(one: TracedAttempt) -> tuple[float, float]:
    """When the worker began and ended."""
    begin_s, _ = one.phase("start")
    end_s, seconds = one.phase("encode_result")
    return begin_s, end_s + seconds


def seconds_of(span: tuple[float, float]) -> float:
    return span[1] - span[0]


# A gateway with played devices.


def with_times(task: TileTask) -> list[Accepted | Result]:
    told = msgspec.structs.replace(
        result(task), queue_s=0.0, start_s=0.0, decode_s=0.0002, encode_s=0.0002, worker=1
    )
    return [accepted(task), with_digest(told)]


async def traced(rig: Rig, **options: Any) -> JobTraceSnapshot:
    async with rig.gateway(config()) as gateway:
        handle = gateway.submit(request(**options))
        await handle.outcome()
        return handle.trace.snapshot()


def test_the_phases_of_a_real_job_follow_each_other_and_sum_to_the_attempt() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device(answer=with_times)
        found = await traced(rig, plan=Grid(4, 4), verify=True, post="invert")
        assert len(found.attempts) == 16
        for one in found.attempts:
            assert one.end is AttemptEnd.KEPT
            assert (one.device, one.worker) == ("eya", 1)
            assert min(one.phases) >= 0.0
            # The device may claim more than the time that there was; the proportions stay.
            assert one.phase("compute")[1] == pytest.approx(3 * one.phase("decode")[1])
            assert 0.0 < one.phase("compute")[1] < 0.00061
            assert 0.0 <= one.begin_s < one.end_s <= found.seconds
            assert one.bytes_out > 0
        works = sorted(work(one) for one in found.attempts)
        assert all(first[1] <= second[0] + 1e-9 for first, second in pairwise(works))

    run(test())


def test_the_steps_of_a_job_are_recorded() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device()
        found = await traced(
            rig, pipeline="invert | otsu", verify=True, post="invert", deliver=lambda _: None
        )
        names = [span.name for span in found.spans]
        assert names[0] == "wait for its turn"
        assert [name for name in names if not name.startswith("stage")][1:] == [
            "decode",
            "plan",
            "cut into tiles",
            "tiles",
            "merge",
            "plan",
            "cut into tiles",
            "tiles",
            "merge",
            "verify",
            "post",
            "deliver",
        ]
        assert all(0 <= span.begin_s <= span.end_s <= found.seconds for span in found.spans)

    run(test())


def test_a_failed_attempt_and_the_one_that_replaced_it_are_both_there() -> None:
    async def test() -> None:
        rig = Rig()

        def fail_once(task: TileTask) -> list[Any]:
            if task.tile == 0 and task.attempt == 1:
                broken = Failure(job=task.job, tile=0, attempt=1, reason="no\nmemory")
                return [accepted(task), broken]
            return [accepted(task), result(task)]

        rig.device(answer=fail_once)
        found = await traced(rig)
        story = [(one.attempt, one.end) for one in found.attempts if one.tile == 0]
        assert story == [(1, AttemptEnd.FAILED), (2, AttemptEnd.KEPT)]
        assert found.attempts[0].reason == "no\N{REPLACEMENT CHARACTER}memory"

    run(test())


def test_the_attempts_of_a_device_that_left_are_lost() -> None:
    async def test() -> None:
        rig = Rig()
        mona = rig.device("mona", answer=do_nothing)
        async with rig.gateway(config()) as gateway:
            handle = gateway.submit(request())
            await eventually(lambda: mona.tasks, "a tile")
            mona._link.publish("fog/v1/devices/mona/status", b"offline", retain=True)
            await eventually(lambda: ends(handle) == {AttemptEnd.LOST}, "the loss")
            now = handle.trace.tiles()
            assert now is not None
            assert {tile.status for tile in now.tiles} == {"waiting"}
            rig.device("eya")
            await handle.outcome()
            kept = {
                one.device for one in handle.trace.snapshot().attempts if one.end.name == "KEPT"
            }
            assert kept == {"eya"}

    run(test())


def test_a_cancelled_job_has_cancelled_attempts() -> None:
    async def test() -> None:
        rig = Rig()
        mona = rig.device("mona", answer=do_nothing)
        async with rig.gateway(config()) as gateway:
            handle = gateway.submit(request())
            await eventually(lambda: mona.tasks, "a tile")
            handle.cancel()
            await handle.outcome()
            assert ends(handle) == {AttemptEnd.CANCELLED}

    run(test())


def test_check_tiles_are_told_apart() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device("eya")
        rig.device("mona")
        made = config()
        made = replace(made, verify=replace(made.verify, sample=1.0))
        async with rig.gateway(made) as gateway:
            handle = gateway.submit(request())
            await handle.outcome()
            attempts = handle.trace.snapshot().attempts
            checks = {one.tile for one in attempts if one.end is AttemptEnd.CHECKED}
            assert checks == {4, 5, 6, 7}

    run(test())


def ends(handle: JobHandle) -> set[AttemptEnd]:
    return {one.end for one in handle.trace.snapshot().attempts}
