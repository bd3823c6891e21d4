"""A serving gateway takes submissions for good, in their order, and each once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.config import GatewayConfig
from fogmqtt.config import GatewaySettings as Settings
from fogmqtt.core.scheduling.actions import Action
from fogmqtt.core.scheduling.events import Event, JobSubmitted
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.errors import ConfigError
from fogmqtt.gateway.server.server import Server
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from tests.fog import wait_for
from tests.serving import Serving


@pytest.fixture(params=["spool", "no spool"])
def serving(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serving]:
    made = Serving(str(tmp_path / "spool") if request.param == "spool" else "")
    yield made
    made.close()


@pytest.fixture
def spooling(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(str(tmp_path / "spool"))
    yield made
    made.close()


def test_whatever_becomes_of_them_they_are_acknowledged_in_their_order(serving: Serving) -> None:
    for mid in range(1, 10):
        serving.submit(mid, "edges" if mid % 3 else "nonsense")
    assert serving.acknowledged(9) == list(range(1, 10))
    assert sorted(serving.end() for _ in range(9)) == ["done"] * 6 + ["failed"] * 3


def test_one_that_the_broker_repeats_is_acknowledged_and_not_done_again(spooling: Serving) -> None:
    spooling.submit(1)
    spooling.submit(1, again=True)
    spooling.submit(2, again=True)  # of this one the first delivery was lost
    assert spooling.acknowledged(3) == [1, 1, 2]
    assert [spooling.end(), spooling.end()] == ["done", "done"]
    assert spooling.idle


def test_the_same_picture_may_be_submitted_twice(spooling: Serving) -> None:
    spooling.submit(1)
    spooling.submit(2)
    assert [spooling.end(), spooling.end()] == ["done", "done"]


def test_the_end_of_a_job_waits_for_the_broker(spooling: Serving) -> None:
    """What the broker did not have when the link broke is said again."""
    spooling.broker.cut("mariem")
    spooling.submit(1)
    wait_for(lambda: spooling.acknowledged(1) and spooling.idle)
    spool = Path(spooling.config.gateway.spool)
    assert len(list(spool.glob("j*.image"))) == 1
    spooling.broker.reconnect("mariem")
    assert spooling.end() == "done"
    wait_for(lambda: not list(spool.glob("j*")), what="an empty spool")


def test_a_job_has_the_priority_of_its_pipeline_for_every_life_of_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    handle = Scheduler.handle

    def hear(scheduler: Scheduler, event: Event, now: float) -> list[Action]:
        if isinstance(event, JobSubmitted):
            begun.append(event.priority)
        return handle(scheduler, event, now)

    monkeypatch.setattr(Scheduler, "handle", hear)
    pipelines = {"camera": "invert", "scan": "invert", "edges": "gray | canny"}
    for priorities in ({"camera": 2, "scan": -1}, {"edges": 4}):
        begun.clear()
        serving = Serving(
            str(tmp_path / "spool"), "never", pipelines=pipelines, priorities=priorities
        )
        if "camera" in priorities:
            for mid, pipeline in enumerate(pipelines, 1):
                serving.submit(mid, pipeline)
        wait_for(lambda: len(begun) == 3, what="three jobs")
        serving.close()
        assert sorted(begun) == [-1, 0, 2]


def test_a_server_whose_inbox_cannot_be_watched_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "inbox").write_bytes(b"a file where the folder should be")
    settings = Settings(
        inbox=str(tmp_path / "inbox"), outbox=str(tmp_path / "out"), spool=str(tmp_path / "spool")
    )
    broker = MemoryBroker()

    async def serve() -> None:
        server = Server(
            GatewayConfig(gateway=settings, exact=False),
            lambda deliver, will: MemoryTransport(broker, "mariem", deliver, will=will),
        )
        await server.run()

    with pytest.raises(ConfigError, match=r"gateway\.inbox"):
        asyncio.run(serve())
    assert not {"spool", "inbox"} & {thread.name for thread in threading.enumerate()}
