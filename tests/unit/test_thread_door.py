"""The gateway's door for other threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from fogmqtt.errors import FogError, NoBroker
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.events import GatewayEvent, JobEnded
from fogmqtt.gateway.thread_door import GatewayThread
from tests.fog import wait_for
from tests.gateway_rig import Rig, config, do_nothing, inverted, request


def test_a_script_does_jobs_from_several_threads() -> None:
    rig = Rig()
    rig.device()
    results: list[bool] = []
    with GatewayThread(config(), "mariem", rig.connect) as gateway:
        gateway.wait_until_settled()
        assert gateway.online() == ("eya",)
        assert [device.id for device in gateway.devices()] == ["eya"]

        def work() -> None:
            results.append(np.array_equal(gateway.run(request()).image, inverted()))

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
        assert gateway.jobs() == ()
    assert results == [True] * 4


def test_a_job_is_cancelled_and_events_are_heard_from_outside() -> None:
    rig = Rig()
    device = rig.device(answer=do_nothing)
    heard: list[GatewayEvent] = []
    with GatewayThread(config(), "mariem", rig.connect) as gateway:
        gateway.listen("script", heard.append)
        future = gateway.submit(request())
        wait_for(lambda: device.tasks, what="a tile")
        (job,) = gateway.jobs()
        assert gateway.cancel(job, "enough")
        assert future.result(10).error == "enough"
        wait_for(lambda: any(isinstance(event, JobEnded) for event in heard))


def test_cancelling_a_future_ends_its_job() -> None:
    rig = Rig()
    device = rig.device(answer=do_nothing)
    with GatewayThread(config(), "mariem", rig.connect) as gateway:
        future = gateway.submit(request())
        wait_for(lambda: device.tasks, what="a tile")
        (job,) = gateway.jobs()
        report = gateway.report(job)
        assert report is not None
        assert (report.tiles, report.fraction) == (4, 0.0)
        assert future.cancel()
        wait_for(lambda: gateway.jobs() == (), what="the end of the job")
        assert gateway.report(job) is None
        wait_for(lambda: device.control, what="the tiles to be taken back")


def test_what_connects_a_gateway_may_be_open_as_long_as_its_thread() -> None:
    rig, threads = Rig(), list[str]()

    @contextmanager
    def opened() -> Iterator[Connect]:
        threads.append(threading.current_thread().name)
        yield rig.connect
        threads.append(threading.current_thread().name)

    rig.device()
    with GatewayThread(config(), "mariem", opened()) as gateway:
        assert np.array_equal(gateway.run(request()).image, inverted())
    assert threads == ["gateway", "gateway"]


def test_what_ends_the_gateway_is_raised_where_it_was_started() -> None:
    rig = Rig()
    rig.broker.stop()
    with (
        pytest.raises(NoBroker),
        GatewayThread(config(), "mariem", rig.connect, broker_within_s=0.1) as gateway,
    ):
        assert gateway.run(request()).error == "the gateway is stopping"


def test_after_the_end_of_the_gateway_every_call_says_so() -> None:
    rig = Rig()
    with GatewayThread(config(), "mariem", rig.connect) as gateway:
        pass
    for call in (gateway.jobs, lambda: gateway.submit(request()), gateway.wait_until_settled):
        with pytest.raises(FogError, match="the gateway has stopped"):
            call()
