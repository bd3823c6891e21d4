"""The gateway's front door: jobs in, results out, and what goes wrong costs only its own job."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from fogmqtt.core.geometry import Auto, Grid
from fogmqtt.errors import DuplicateId, ListenerDropped, NoBroker, OperatorError
from fogmqtt.gateway import threads
from fogmqtt.gateway.events import (
    BrokerChanged,
    DeviceCame,
    GatewayEvent,
    JobAccepted,
    JobEnded,
    JobProgressed,
)
from fogmqtt.gateway.jobs import runner
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.operators.filters.smoothing import Median
from fogmqtt.transport.base import Connected, Disconnected, Received, Refused
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.wire.messages import (
    Accepted,
    Decoder,
    DeviceInfo,
    Failure,
    GatewayInfo,
    JobStatus,
    Result,
    TileTask,
    encode,
)
from tests.gateway_rig import (
    PHOTO,
    TOPICS,
    Rig,
    accepted,
    config,
    do_at_once,
    do_nothing,
    eventually,
    inverted,
    request,
    run,
)


def test_a_job_goes_in_and_the_exact_result_comes_out() -> None:
    async def test() -> None:
        rig = Rig()
        device = rig.device()
        async with rig.gateway() as gateway:
            handle = gateway.submit(request(pipeline="median ksize=3 | canny", plan=Grid(3, 3)))
            assert gateway.job(handle.id) is handle
            outcome = await handle.outcome()
            assert gateway.jobs() == ()
        assert outcome.error is None
        assert outcome.report.devices["eya"].tiles == 9
        assert len(device.tasks) == 9

    run(test())


def test_devices_and_what_they_may_do_are_told() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device("eya")
        rig.device("manar")
        async with rig.gateway() as gateway:
            await gateway.settled()
            assert gateway.online() == ("eya", "manar")
            (eya, _) = gateway.devices()
            assert (eya.id, eya.online, eya.info.workers) == ("eya", True, 2)
            assert "canny/uint8" in eya.abilities

    run(test())


def test_jobs_of_one_gateway_run_beside_each_other_and_end_one_by_one() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            handles = [gateway.submit(request(f"photo{number}")) for number in range(10)]
            outcomes = [await handle.outcome() for handle in handles]
        assert all(np.array_equal(one.image, inverted()) for one in outcomes if one.error is None)
        assert [one.error for one in outcomes] == [None] * 10

    run(test())


# What ends a job before its time.


def test_a_cancelled_job_takes_its_tiles_back_and_says_why() -> None:
    async def test() -> None:
        rig = Rig()
        device = rig.device(answer=do_nothing)
        async with rig.gateway() as gateway:
            handle = gateway.submit(request())
            await eventually(lambda: device.tasks, "a tile at the device")
            assert gateway.cancel(handle.id, "the user changed his mind")
            outcome = await handle.outcome()
            assert outcome.error == "the user changed his mind"
            assert outcome.image is None
            assert not gateway.cancel(handle.id)
            await eventually(lambda: len(device.control) > 1, "a cancelled tile")
            device.answer = lambda task: []
        assert b"cancel" in b"".join(device.control)

    run(test())


def test_a_job_that_waits_can_be_cancelled_too() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device(answer=do_nothing)
        async with rig.gateway() as gateway:
            handles = [gateway.submit(request()) for _ in range(6)]
            await asyncio.sleep(0)
            assert gateway.waiting == 2
            handles[-1].cancel()
            outcome = await handles[-1].outcome()
            assert outcome.error == "the job was cancelled"
            assert gateway.waiting == 1

    run(test())


def test_a_job_that_is_cancelled_before_it_ran_at_all_has_an_outcome() -> None:
    async def test() -> None:
        rig = Rig()
        async with rig.gateway() as gateway:
            with gateway.events("test") as events:
                handle = gateway.submit(request())
                handle.cancel("too early")
                outcome = await handle.outcome()
                while not isinstance(await anext(events), JobEnded):
                    pass
            assert outcome.error == "too early"
            assert gateway.jobs() == ()

    run(test())


def test_a_job_that_is_late_says_how_far_it_came_and_who_is_online() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device(answer=do_nothing)
        async with rig.gateway() as gateway:
            await gateway.settled()
            outcome = await gateway.submit(request(timeout_s=0.3)).outcome()
        assert outcome.error is not None
        assert (
            "not done after 0.3 s (--timeout): 0 of 4 tiles; devices online: eya" in outcome.error
        )

    run(test())


def test_jobs_that_are_under_way_when_the_gateway_stops_have_an_outcome() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device(answer=do_nothing)
        async with rig.gateway() as gateway:
            handles = [gateway.submit(request()) for _ in range(6)]
            await asyncio.sleep(0.05)
        outcomes = [await handle.outcome() for handle in handles]
        assert {one.error for one in outcomes} == {"the gateway is stopping"}

    run(test())


def test_an_error_that_nobody_expected_ends_its_own_job_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Median, spec: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Median, "output", broken)

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            bad = gateway.submit(request("bad", pipeline="median ksize=3"))
            good = gateway.submit(request("good"))
            assert (await bad.outcome()).error == "bad: ZeroDivisionError: a bug"
            assert (await good.outcome()).error is None

    run(test())


# Deliveries.


def test_an_error_that_does_not_fit_into_a_packet_is_told_in_short_and_ends_no_gateway() -> None:
    long = "\n".join("x" * 280 for _ in range(15))

    def fail(task: TileTask) -> list[Accepted | Failure | Result]:
        where = {"job": task.job, "tile": task.tile, "attempt": task.attempt}
        failure = Failure(**where, reason="y" * 300, traceback=long)
        return [accepted(task), failure] if task.stage[0].name == "invert" else do_at_once(task)

    async def test() -> None:
        rig = Rig(MemoryBroker(max_packet_bytes=5_000))
        rig.device(answer=fail)
        heard: list[JobStatus] = []
        decoder = Decoder(JobStatus)

        def hear(event: object) -> None:
            if isinstance(event, Received):
                heard.append(decoder.decode(event.payload))

        reader = MemoryTransport(rig.broker, "reader", hear)
        reader.subscribe(TOPICS.job_status("+"))
        reader.start()
        made = config()
        made = replace(made, scheduler=replace(made.scheduler, max_failures=1))
        async with rig.gateway(made) as gateway:
            failed = await gateway.submit(request(pipeline="invert", plan=Grid(4, 4))).outcome()
            done = await gateway.submit(request(pipeline="median", plan=Grid(4, 4))).outcome()
            await eventually(lambda: [one.state for one in heard if one.state == "done"])
        assert len(failed.error or "") > 4_000
        assert done.error is None
        (told,) = [one for one in heard if one.state == "failed"]
        assert told.error is not None
        assert told.error.startswith("tile ")
        assert len(told.error) < 2000

    run(test())


def test_a_delivery_that_raises_fails_its_own_job() -> None:
    def refuse(outcome: Outcome) -> None:
        raise OperatorError("the disk is not there")

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            bad, good = gateway.submit(request(deliver=refuse)), gateway.submit(request())
            outcome = await bad.outcome()
            assert (outcome.error, outcome.retryable) == ("the disk is not there", True)
            assert (await good.outcome()).error is None

    run(test())


def test_a_delivery_that_hangs_fails_its_job_in_time_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "DELIVERY_S", 0.3)
    release = threading.Event()

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            bad = gateway.submit(request(deliver=lambda _: release.wait(30)))
            for _ in range(3):
                assert (await gateway.submit(request()).outcome()).error is None
            assert "not delivered within 0.3 s" in str((await bad.outcome()).error)
            assert "delivery" in threads.abandoned()

    try:
        run(test())
    finally:
        release.set()


def test_when_many_deliveries_hang_further_ones_fail_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "DELIVERY_S", 0.05)
    monkeypatch.setattr(runner, "MAX_HUNG_DELIVERIES", 2)
    release = threading.Event()

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            for _ in range(2):
                await gateway.submit(request(deliver=lambda _: release.wait(30))).outcome()
            outcome = await gateway.submit(request(deliver=lambda _: None)).outcome()
            assert "2 deliveries hang" in str(outcome.error)

    try:
        run(test())
    finally:
        release.set()


# Listeners.


def test_listeners_hear_of_devices_jobs_and_the_broker() -> None:
    async def test() -> None:
        rig = Rig()
        rig.device()
        kinds = []
        async with rig.gateway() as gateway:
            with gateway.events("test") as events:
                await gateway.submit(request()).outcome()
                async for event in events:
                    kinds.append(type(event))
                    if isinstance(event, JobEnded):
                        break
        assert {JobAccepted, BrokerChanged, DeviceCame, JobProgressed, JobEnded} == set(kinds)

    run(test())


def test_a_listener_that_raises_is_dropped_and_named_and_jobs_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[GatewayEvent] = []

    def fail(event: GatewayEvent) -> None:
        heard.append(event)
        raise BrokenPipeError("the terminal is closed")

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            gateway.listen("terminal", fail)
            for _ in range(3):
                assert (await gateway.submit(request()).outcome()).error is None

    run(test())
    assert len(heard) == 1
    assert "listener terminal is dropped: it failed" in caplog.text


def test_a_listener_that_blocks_delays_no_job() -> None:
    release = threading.Event()

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            gateway.listen("terminal", lambda _: release.wait(30))
            for _ in range(3):
                assert (await gateway.submit(request()).outcome()).error is None

    try:
        began = time.monotonic()
        run(test())
        assert time.monotonic() - began < 10
    finally:
        release.set()


def test_a_listener_that_lags_is_dropped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            slow, quick = gateway.events("slow", limit=3), gateway.events("quick")
            for _ in range(3):
                await gateway.submit(request()).outcome()
            with pytest.raises(ListenerDropped, match="slow"):
                await anext(slow)
            await anext(quick)

    run(test())
    assert "listener slow is dropped: it is 3 events behind" in caplog.text


# The broker.


def test_a_broker_that_is_lost_costs_time_and_no_job() -> None:
    async def test() -> None:
        rig = Rig()
        device = rig.device(answer=do_nothing)
        async with rig.gateway() as gateway:
            handle = gateway.submit(request())
            await eventually(lambda: device.tasks)
            del device.answer
            device.answer = type(device)(rig.broker, "x").answer
            rig.broker.cut("mariem")
            await eventually(lambda: not gateway.link.connected)
            rig.broker.reconnect("mariem")
            assert (await handle.outcome()).error is None

    run(test())


def test_without_a_broker_in_time_a_one_off_gateway_gives_up() -> None:
    async def test() -> None:
        rig = Rig()
        rig.broker.stop()
        with pytest.raises(NoBroker, match=r"nothing listens .* \(tried for 0.2 s"):
            async with rig.gateway(broker_within_s=0.2) as gateway:
                await gateway.submit(request()).outcome()

    run(test())


def test_a_broker_that_refuses_for_good_ends_the_gateway() -> None:
    async def test() -> None:
        rig = Rig()
        rig.broker.stop()
        async with rig.gateway() as gateway:
            assert rig.deliver is not None
            rig.deliver(Refused("wrong password", final=True))
            await gateway.submit(request()).outcome()

    with pytest.raises(NoBroker, match="wrong password"):
        run(test())


def test_of_two_gateways_under_one_id_the_younger_leaves() -> None:
    async def test() -> None:
        rig = Rig()
        elder = GatewayInfo(boot="elder", sequence=9, uptime_s=1e6, host="attic")
        async with rig.gateway() as gateway:
            await gateway.link.up()
            await eventually(lambda: gateway.link.idle)
            topic = TOPICS.gateway("mariem", "info")
            for _ in range(3):  # anybody may say so: it stays
                rig.links[0].publish(topic, encode(elder, "base64"))
            await eventually(lambda: gateway._warnings.counts["duplicate id"] == 3)
            assert rig.deliver is not None
            rig.deliver(Disconnected("another client came", taken_over=True))
            rig.deliver(Connected())
            rig.links[0].publish(topic, encode(elder, "base64"))
            await asyncio.sleep(5)  # ends as soon as the gateway leaves

    with pytest.raises(DuplicateId, match="attic"):
        run(test())


def test_strange_messages_are_counted_and_change_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            await gateway.settled()
            for payload in (b"", b"{", b"\xff" * 40):
                rig.links[0].publish(TOPICS.results("mariem", "eya"), payload)
            rig.links[0].publish(TOPICS.device("local", "info"), encode(_info(), "base64"))
            assert (await gateway.submit(request()).outcome()).error is None

    run(test())
    assert "invalid message" in caplog.text


def _info() -> DeviceInfo:
    return DeviceInfo(boot="b", sequence=1, uptime_s=1.0, workers=1, operators=["invert"])


# Whole images.


def test_without_devices_a_job_is_done_whole_by_the_gateway() -> None:
    async def test() -> None:
        async with Rig().gateway(config(local="auto")) as gateway:
            outcome = await gateway.submit(request(plan=Auto())).outcome()
        assert np.array_equal(outcome.image, inverted())
        assert outcome.report.devices.keys() == {"local"}

    run(test())


def test_a_whole_image_computation_can_be_cancelled_and_does_not_delay_the_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, release = threading.Event(), threading.Event()

    def endless(self: object, image: object) -> object:
        started.set()
        release.wait(30)
        return image

    monkeypatch.setattr("fogmqtt.operators.colour.tone.Invert.whole", endless)

    async def test() -> None:
        async with Rig().gateway(config(local="auto")) as gateway:
            handle = gateway.submit(request(plan=Auto()))
            await eventually(started.is_set)
            handle.cancel()
            assert (await handle.outcome()).error == "the job was cancelled"

    try:
        began = time.monotonic()
        run(test())
        assert time.monotonic() - began < 10
        assert "image" in threads.abandoned()
    finally:
        release.set()


def test_an_image_that_is_given_as_an_array_is_never_changed() -> None:
    before = PHOTO.copy()

    async def test() -> None:
        rig = Rig()
        rig.device()
        async with rig.gateway() as gateway:
            await gateway.submit(request(pipeline="invert | median ksize=3")).outcome()

    run(test())
    assert np.array_equal(before, PHOTO)
