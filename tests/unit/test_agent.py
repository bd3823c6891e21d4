"""The agent at work: which tiles it accepts, answers and refuses."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from fogmqtt.agent import service
from fogmqtt.agent.service import QUEUE_AHEAD
from fogmqtt.conformance.report import ConformanceReport, OperatorReport
from fogmqtt.core.geometry import Grid, cut
from fogmqtt.errors import OperatorError
from fogmqtt.images import codec
from fogmqtt.images.cv import cv2
from fogmqtt.log import CountedWarnings
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Cancel,
    Decoder,
    Drain,
    Encoding,
    Failure,
    FromDevice,
    Overdue,
    Rejected,
    Result,
    Warm,
    check_digest,
    encode,
)
from tests.agent_rig import (
    CONTROL,
    INFO,
    PIXELS,
    REPORT,
    RESULTS,
    STATUS,
    TILES,
    PendingConformance,
    block_operators,
    pixels_of,
    running_agent,
    task,
    unblock,
)
from tests.fog import wait_for


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    block_operators(monkeypatch)


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Have every tile raise this."""

    def install(problem: BaseException) -> None:
        def run_tile(*_: object) -> None:
            raise problem

        monkeypatch.setattr("fogmqtt.operators.api.pipeline.run_tile", run_tile)

    return install


@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_a_tile_is_accepted_and_answered_in_its_own_encoding(encoding: Encoding) -> None:
    with running_agent() as rig:
        rig.tile(task(), encoding)
        rig.link.wait(lambda: len(rig.link.replies()) == 2)
    accepted, result = rig.link.replies()
    assert accepted == Accepted(job="job", tile=0, attempt=1)
    assert isinstance(result, Result)
    assert np.array_equal(pixels_of(result), 255 - PIXELS)
    assert result.compute_s is not None
    assert result.compute_s >= 0
    is_json = [
        published[1][:1] == b"{" for published in rig.link.published if published[0] == RESULTS
    ]
    assert is_json == [encoding == "base64"] * 2


def test_tiles_of_a_colour_pipeline_equal_opencv_on_the_whole_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    whole = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (5, 5), 0)
    merged = np.zeros_like(whole)
    tiles = cut((61, 83), Grid(3, 2), halo=2)
    with running_agent(workers=2) as rig:
        for tile in tiles:
            sent = np.ascontiguousarray(image[tile.outer.slices])
            core = tile.core.within(tile.outer)
            rig.tile(
                task(
                    tile.index,
                    stage=[Call("gray"), Call("gaussian", {"ksize": 5})],
                    shape=sent.shape,
                    core=(core.top, core.left, core.height, core.width),
                    seams="".join(
                        side[0]
                        for side in ("top", "left", "bottom", "right")
                        if getattr(tile.seams, side)
                    ),
                    codec="png",
                    result_codec="png",
                    pixels=memoryview(codec.encode(sent, "png")),
                )
            )
        rig.link.wait(lambda: len(rig.link.of(Result)) == len(tiles))
    for result in rig.link.of(Result):
        merged[tiles[result.tile].core.slices] = pixels_of(result)
    assert np.array_equal(merged, whole)


def test_the_same_tile_delivered_twice_runs_once(blocked: None) -> None:
    with running_agent() as rig:
        rig.tile(task())
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 2)
        unblock.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        rig.tile(task())
        rig.tile(task(1))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
    assert [result.tile for result in rig.link.of(Result)] == [0, 1]


def test_the_result_is_for_the_newest_attempt(blocked: None) -> None:
    with running_agent() as rig:
        rig.tile(task(attempt=1))
        rig.tile(task(attempt=2), "base64")
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 2)
        unblock.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    (result,) = rig.link.of(Result)
    assert result.attempt == 2
    check_digest(result)


def test_a_cancelled_tile_has_no_result(blocked: None) -> None:
    with running_agent() as rig:
        for tile in range(3):
            rig.tile(task(tile))
        for tile in (0, 1):
            cancel = Cancel(job="job", tile=tile, attempt=1, gateway="mariem")
            rig.link.deliver(Received(CONTROL, encode(cancel, "base64")))
        rig.tile(task(3))
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 4)
        unblock.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
    assert [result.tile for result in rig.link.of(Result)] == [2, 3]


def test_a_full_device_rejects_tiles(blocked: None) -> None:
    with running_agent() as rig:
        for tile in range(QUEUE_AHEAD + 3):
            rig.tile(task(tile))
        rig.link.wait(lambda: len(rig.link.replies()) == QUEUE_AHEAD + 3)
        assert [rejected.tile for rejected in rig.link.of(Rejected)] == [
            QUEUE_AHEAD + 1,
            QUEUE_AHEAD + 2,
        ]
        assert "full" in rig.link.of(Rejected)[0].reason


def served(priority: int) -> list[str]:
    """Whose tiles are done, in their order: three of mariem, then three of another gateway's."""
    with running_agent() as rig:
        for tile in range(3):
            rig.tile(task(tile))
        for tile in range(3):
            rig.tile(task(tile, gateway="second", priority=priority))
        unblock.set()
        rig.link.wait(lambda: sum(topic != INFO for topic, *_ in rig.link.published) >= 13)
    decoder: Decoder[FromDevice] = Decoder(Accepted, Result)
    return [
        topic.split("/")[3]
        for topic, payload, _ in rig.link.published
        if topic not in (INFO, STATUS) and isinstance(decoder.decode(payload), Result)
    ]


def test_several_gateways_take_turns(blocked: None) -> None:
    assert served(0)[1:5] in (["mariem", "second"] * 2, ["second", "mariem"] * 2)


def test_a_gateway_whose_job_has_a_higher_priority_gets_a_larger_share(blocked: None) -> None:
    assert served(4) == ["mariem", *["second"] * 3, *["mariem"] * 2]


# Failures.


@pytest.mark.parametrize(
    "problem", [ValueError("boom \ud800"), SystemExit(3), KeyboardInterrupt(), MemoryError()]
)
def test_any_exception_of_an_operator_becomes_a_failure_with_its_traceback(
    raising: Callable[[BaseException], None], problem: BaseException
) -> None:
    raising(problem)
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
        assert rig.thread.is_alive()
    (failure,) = rig.link.of(Failure)
    assert failure.reason.startswith(type(problem).__name__)
    assert "run_tile" in failure.traceback


def test_the_reason_of_a_fog_error_is_its_message(raising: Callable[[BaseException], None]) -> None:
    raising(OperatorError("canny takes uint8"))
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert rig.link.of(Failure)[0].reason == "canny takes uint8"


def test_a_traceback_is_bounded(raising: Callable[[BaseException], None]) -> None:
    raising(ValueError("x" * 100_000))
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    (failure,) = rig.link.of(Failure)
    assert len(failure.reason) <= 2_000
    assert len(failure.traceback) <= 20_000


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stage": [Call("cany")]}, "cany"),
        ({"stage": [Call("gaussian", {"ksize": 4})]}, "ksize"),
        ({"stage": [Call("gaussian", {"sice": 4})]}, "sice"),
        ({"stage": []}, "has no operators"),
        ({"codec": "gif"}, "gif"),
        ({"result_codec": "gif"}, "gif"),
        ({"core": (0, 0, 21, 30)}, "core"),
        ({"core": (1, 0, 20, 30)}, "core"),
        ({"shape": (20, 31, 1)}, "620"),
        ({"codec": "png"}, "PNG"),
    ],
)
def test_an_impossible_task_fails_with_the_reason(changes: dict[str, Any], expected: str) -> None:
    with running_agent() as rig:
        rig.tile(task(**changes))
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert expected in rig.link.of(Failure)[0].reason


def test_pixels_that_do_not_match_their_digest_are_refused() -> None:
    broken = msgspec.structs.replace(task(), digest="0" * 16)
    with running_agent() as rig:
        rig.tile(broken)
        rig.link.wait(lambda: len(rig.link.replies()) == 1)
    assert "digest" in rig.link.of(Failure)[0].reason
    assert rig.agent.warning_counts == {"wrong digest": 1}


def test_an_invalid_task_fails_if_it_names_gateway_and_tile() -> None:
    fields = {"type": "tile", "job": "job", "tile": 3, "attempt": 1, "gateway": "mariem"}
    with running_agent() as rig:
        rig.link.deliver(Received(TILES, msgspec.json.encode(fields)))
        rig.link.wait(lambda: len(rig.link.replies()) == 1)
    (failure,) = rig.link.of(Failure)
    assert (failure.job, failure.tile) == ("job", 3)


def test_a_task_with_an_invalid_gateway_id_has_no_reply() -> None:
    with running_agent() as rig:
        rig.tile(task(gateway="a.b"))
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert {topic for topic, *_ in rig.link.published} == {INFO, STATUS, RESULTS}


def test_a_retained_task_is_refused() -> None:
    with running_agent() as rig:
        rig.link.deliver(Received(TILES, encode(task()), retained=True))
        rig.link.deliver(Received(CONTROL, encode(Drain(), "base64"), retained=True))
        rig.tile(task(1))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert rig.agent.warning_counts == {"retained": 2}
    assert [reply.tile for reply in rig.link.replies()] == [1, 1]


def test_a_warm_message_starts_the_workers() -> None:
    with running_agent() as rig:
        assert not rig.is_warm.is_set()
        rig.link.deliver(Received(CONTROL, encode(Warm(), "base64")))
        assert rig.is_warm.wait(10)


def test_no_worker_is_warmed_before_the_conformance_report_is_known() -> None:
    with running_agent(conformance_runner=PendingConformance) as rig:
        rig.link.deliver(Received(CONTROL, encode(Warm(), "base64")))
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        assert not rig.is_warm.is_set()
        PendingConformance.deliver(REPORT)
        assert rig.is_warm.wait(10)


def test_abilities_are_announced_as_they_are_checked(caplog: pytest.LogCaptureFixture) -> None:
    """With a cold cache the conformance run takes half a minute on a small board."""
    first = ConformanceReport(REPORT.operators, ["odd: no module"], unchecked=["canny"])
    canny = OperatorReport("canny", "fogmqtt", "1", {"canny/uint8": "def"}, 9.5)
    last = ConformanceReport({**REPORT.operators, "canny": canny}, first.problems)
    with running_agent(conformance_runner=PendingConformance) as rig:
        PendingConformance.deliver(first)
        rig.link.wait(lambda: bool(rig.link.infos()[-1].fingerprints))
        info = rig.link.infos()[-1]
        assert info.fingerprints == {"invert/uint8": "abc"}
        assert info.operators == ["canny", "invert"]
        assert info.conformance_running
        PendingConformance.deliver(last)
        rig.link.wait(lambda: not rig.link.infos()[-1].conformance_running)
        info = rig.link.infos()[-1]
        assert info.fingerprints == {"invert/uint8": "abc", "canny/uint8": "def"}
        assert info.rates == {"invert": 1.5, "canny": 9.5}
    assert caplog.text.count("odd: no module") == 1


def test_the_workers_processes_start_soon_after_the_device_is_online(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "PREPARE_AFTER_S", 0.0)
    with running_agent() as rig:
        assert rig.is_prepared.wait(10)


def test_they_do_not_start_before_the_conformance_report_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service, "PREPARE_AFTER_S", 0.0)
    with running_agent(conformance_runner=PendingConformance) as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        assert not rig.is_prepared.is_set()
        PendingConformance.deliver(REPORT)
        assert rig.is_prepared.wait(10)


def test_they_do_not_start_where_memory_is_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def has_memory(workers: int) -> bool:
        asked.append(workers)
        return False

    monkeypatch.setattr(service, "PREPARE_AFTER_S", 0.0)
    monkeypatch.setattr(service, "has_memory_for_workers", has_memory)
    with running_agent(workers=3) as rig:
        wait_for(lambda: asked == [3])
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        assert not rig.is_prepared.is_set()


def garbage(rng: random.Random, valid: list[bytes]) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    payload = bytearray(rng.choice(valid))
    if kind == 1:
        return bytes(payload[: rng.randrange(len(payload))])
    if kind == 2:
        return b"[" * rng.randrange(5000)
    if kind == 3:
        return msgspec.json.encode({"type": "tile", "v": rng.randrange(3), "job": "x" * 99})
    for _ in range(rng.randrange(1, 4)):
        payload[rng.randrange(len(payload))] = rng.randrange(256)
    return bytes(payload)


def test_the_agent_survives_thousands_of_malformed_messages_with_few_log_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = random.Random(7)
    tiles = [encode(task(shape=(2, 2, 1), core=(0, 0, 2, 2), pixels=memoryview(b"1234")))]
    tiles.append(encode(msgspec.structs.replace(task(), lease_s=float("nan"))))
    controls = [encode(Cancel(job="j", tile=0, attempt=1, gateway="mariem"), "base64")]
    with running_agent() as rig, caplog.at_level(logging.WARNING):
        for _ in range(2000):
            rig.link.deliver(Received(TILES, garbage(rng, tiles)))
            rig.link.deliver(Received(CONTROL, garbage(rng, controls)))
            rig.link.deliver(Received(INFO, garbage(rng, controls)))
        rig.link.deliver(Received("some/other/topic", b""))
        rig.tile(task(77))
        rig.link.wait(lambda: any(one.tile == 77 for one in rig.link.of(Result)))
        assert rig.thread.is_alive()
    assert sum(rig.agent.warning_counts.values()) > 4000
    assert len(caplog.records) < 50


def test_all_warnings_are_counted_and_one_per_second_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = CountedWarnings()
    for step in range(100):
        warnings.add("retained", "on tiles", step / 50)
    assert warnings.counts["retained"] == 100
    assert [record.message for record in caplog.records] == [
        "retained: on tiles",
        "retained: on tiles (and 49 more)",
    ]


# Tiles with a budget


def test_a_tile_within_its_budget_has_a_result() -> None:
    with running_agent() as rig:
        rig.tile(task(budget_s=60.0))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)


def test_a_tile_that_is_done_after_its_budget_is_overdue_and_has_no_result(blocked: None) -> None:
    with running_agent() as rig:
        rig.tile(task(budget_s=0.05))
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 1)
        over_at = time.monotonic() + 0.06
        wait_for(lambda: time.monotonic() > over_at)
        unblock.set()
        rig.link.wait(lambda: len(rig.link.of(Overdue)) == 1)
        (overdue,) = rig.link.of(Overdue)
        assert (overdue.job, overdue.tile, overdue.attempt) == ("job", 0, 1)
        assert overdue.after_s >= 0.05
        assert rig.link.of(Result) == []


def test_a_tile_that_waits_longer_than_its_budget_is_not_begun(blocked: None) -> None:
    with running_agent() as rig:
        rig.tile(task())
        rig.tile(task(1, budget_s=0.01))
        rig.tile(task(2))
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 3)
        over_at = time.monotonic() + 0.02
        wait_for(lambda: time.monotonic() > over_at)
        unblock.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
        assert [one.tile for one in rig.link.of(Overdue)] == [1]
        assert sorted(one.tile for one in rig.link.of(Result)) == [0, 2]
        # Its place is free again, and a later attempt is another tile.
        rig.tile(task(1, attempt=2))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 3)
