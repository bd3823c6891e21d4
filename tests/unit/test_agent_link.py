"""The agent and its link: presence, refusals, leaving, and others under its id."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from fogmqtt.agent import host_info
from fogmqtt.agent.presence_publisher import CODECS
from fogmqtt.agent.result_publisher import ResultPublisher
from fogmqtt.agent.service import Agent, AgentSettings
from fogmqtt.agent.tile_lease import TileAddress
from fogmqtt.errors import DuplicateId, NoBroker
from fogmqtt.images import codec
from fogmqtt.transport.base import Connected, Deliver, Received, Refused, Will
from fogmqtt.transport.memory import MemoryBroker, MemoryTransport
from fogmqtt.wire.messages import (
    Accepted,
    DeviceInfo,
    Drain,
    Failure,
    Rejected,
    Result,
    encode,
)
from fogmqtt.wire.topics import Topics
from fogmqtt.workers import resources
from tests.agent_rig import (
    CONTROL,
    FOUND,
    INFO,
    STATUS,
    TILES,
    Link,
    Remembered,
    Rig,
    gate,
    hold_up,
    running,
    started,
    task,
)
from tests.fog import wait_for


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hold_up(monkeypatch)


# Presence.


def test_it_listens_then_introduces_itself_then_says_online() -> None:
    with running(workers=3) as rig:
        assert rig.link.filters == [TILES, CONTROL, INFO]
        assert rig.link.will == Will(STATUS, b"offline")
        (info_topic, _, info_kept), (status_topic, status, status_kept) = rig.link.said
        assert (info_topic, status_topic, status) == (INFO, STATUS, b"online")
        assert info_kept
        assert status_kept
    info = rig.link.infos()[0]
    assert (info.workers, info.tiles_held, info.tiles_done) == (3, 0, 0)
    assert info.operators == list(FOUND.operators)
    assert info.versions["fogmqtt"]
    assert info.versions["opencv"]


def test_the_codecs_it_names_are_those_that_there_are() -> None:
    assert codec.names() == CODECS


def test_it_checks_in_with_a_growing_sequence() -> None:
    with running(checkin_s=0.02) as rig:
        rig.link.wait(lambda: len(rig.link.infos()) >= 4)
    sequence = [info.sequence for info in rig.link.infos()]
    assert sequence == sorted(set(sequence))
    assert len({info.boot for info in rig.link.infos()}) == 1


def test_it_says_everything_anew_at_every_connection() -> None:
    with running() as rig:
        rig.link.lose()
        rig.link.connect()
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.said] == [INFO, STATUS] * 2)


def test_a_link_that_is_not_quite_there_yet_is_told_again() -> None:
    with running() as rig:
        rig.link.linked = False
        rig.link.deliver(Connected())
        time.sleep(0.1)
        rig.link.linked = True
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.said] == [INFO, STATUS] * 2)


def test_a_temperature_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert host_info.temperature_c(tmp_path) is None
    for zone, text in (("thermal_zone0", "41500\n"), ("thermal_zone1", "garbage")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "temp").write_text(text)
    assert host_info.temperature_c(tmp_path) == 41.5


def test_a_containers_memory_is_what_it_was_given(tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    whole = resources.memory_mb([limit])
    assert whole == psutil.virtual_memory().total >> 20
    limit.write_text("max\n")
    assert resources.memory_mb([limit]) == whole
    limit.write_text(f"{100 << 20}\n")
    assert resources.memory_mb([limit]) == 100


def test_workers_share_half_of_the_memory_and_have_enough_for_a_tile() -> None:
    half = resources.memory_mb() // 2
    assert resources.worker_memory_mb(1) == max(256, half)
    assert resources.worker_memory_mb(10_000) == 256


# The link.


def test_a_result_over_the_brokers_limit_becomes_a_failure_that_says_so() -> None:
    with running(limit=3000) as rig:
        rig.link.limit = 500
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert "the limit is 500" in rig.link.of(Failure)[0].reason


def test_a_result_made_without_a_link_is_said_when_it_is_back(held_up: None) -> None:
    with running() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 1)
        rig.link.lose()
        gate.set()
        while rig.agent._answers.kept == 0:
            threading.Event().wait(0.005)
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)


def answers_without_link() -> tuple[ResultPublisher, Link]:
    link = Link(lambda _: None, Will("x", b""))
    return ResultPublisher(link, Topics(), "eya", 1), link


def test_an_answer_whose_lease_ran_out_without_a_link_is_dropped() -> None:
    answers, link = answers_without_link()
    for tile, until in ((0, 5.0), (1, 15.0)):
        answers.fail(TileAddress("mariem", "job", tile, 1, "binary", until), "because")
    link.linked = True
    answers.connected(now=10.0)
    assert [answer.tile for answer in link.answers()] == [1]
    assert answers.kept == 0


def test_what_is_kept_without_a_link_is_bounded() -> None:
    answers, link = answers_without_link()
    for tile in range(1000):
        answers.fail(TileAddress("mariem", "job", tile, 1, "binary", 99.0), "because")
    assert answers.kept == 64
    answers.connected(now=0.0)
    assert answers.kept == 64, "the link broke again"
    link.linked = True
    answers.connected(now=0.0)
    assert [answer.tile for answer in link.answers()] == list(range(936, 1000))


def test_an_answer_that_nothing_can_carry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answers, link = answers_without_link()
    link.linked, link.limit = True, 10
    answers.fail(TileAddress("mariem", "job", 7, 1, "binary", 99.0), "because")
    assert "job tile 7: no answer" in caplog.text


def unstarted(events: list[object]) -> Agent:
    """An agent whose transport says `events` when it is started."""

    class Scripted(Link):
        def start(self) -> None:
            for event in events:
                self.deliver(event)

    return Agent(AgentSettings("eya", 1, "mqtt://here"), Scripted, examiner=Remembered)


def test_a_final_refusal_before_the_first_connection_ends_it() -> None:
    with pytest.raises(NoBroker, match="bad password"):
        unstarted([Refused("bad password", final=True)]).run()


def test_it_waits_for_a_broker_and_says_so_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    agent = unstarted([Refused("nothing listens")] * 50)
    agent.stop()
    agent.run()
    agent = unstarted([*[Refused("nothing listens")] * 50])
    timer = threading.Timer(0.1, agent.stop)
    timer.start()
    agent.run()
    nags = [record for record in caplog.records if "trying again" in record.message]
    assert len(nags) == 1
    assert "mosquitto -c broker/mosquitto.conf" in nags[0].message


def test_a_final_refusal_after_a_connection_does_not_end_it() -> None:
    with running() as rig:
        rig.link.lose()
        rig.link.deliver(Refused("bad password", final=True))
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.infos()) == 2)


# Leaving.


@pytest.mark.parametrize("way", ["stop", "drain"])
def test_it_finishes_what_runs_hands_back_the_rest_and_says_offline(
    held_up: None, way: str
) -> None:
    with running() as rig:
        for tile in range(3):
            rig.tile(task(tile))
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 3)
        if way == "stop":
            rig.agent.stop()
        else:
            rig.link.deliver(Received(CONTROL, encode(Drain(), "base64")))
        rig.link.wait(lambda: len(rig.link.of(Rejected)) == 2)
        rig.tile(task(9))
        rig.link.wait(lambda: len(rig.link.of(Rejected)) == 3)
        assert rig.link.infos()[-1].draining
        gate.set()
        rig.join()
    assert [result.tile for result in rig.link.of(Result)] == [0]
    assert rig.link.said[-1] == (STATUS, b"offline", True)
    assert rig.link.closed
    assert rig.errors == []


def test_a_tile_that_does_not_end_in_time_is_handed_back(
    held_up: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.agent.service.LEAVE_S", 0.05)
    with running() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 1)
        rig.agent.stop()
        rig.join()
    assert [back.tile for back in rig.link.of(Rejected)] == [0]
    assert rig.link.said[-1][1] == b"offline"


# Another agent under our id.


def info(boot: str, uptime_s: float) -> bytes:
    return encode(
        DeviceInfo(boot=boot, sequence=0, uptime_s=uptime_s, workers=1, operators=[], host="attic"),
        "base64",
    )


def echo(rig: Rig) -> None:
    rig.link.deliver(Received(INFO, rig.link.said[0][1]))


def test_a_younger_agent_leaves_without_saying_offline() -> None:
    with running() as rig:
        echo(rig)
        rig.link.deliver(Received(INFO, info("other", 35.0), retained=True))
        rig.join()
    (problem,) = rig.errors
    assert isinstance(problem, DuplicateId)
    assert "host attic, up 35 s" in str(problem)
    assert "'eya'" in str(problem)
    assert (STATUS, b"offline", True) not in rig.link.said
    assert rig.link.closed


def test_the_elder_agent_stays_and_says_so_again() -> None:
    with running() as rig:
        echo(rig)
        rig.link.deliver(Received(INFO, info("other", 0.0)))
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.said] == [INFO, STATUS] * 2)
    assert rig.errors == []


def test_what_a_previous_life_left_behind_drives_nobody_out() -> None:
    with running() as rig:
        rig.link.deliver(Received(INFO, info("before", 99_999.0), retained=True))
        rig.link.deliver(Received(INFO, b""))
        echo(rig)
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert rig.errors == []
    assert rig.agent.complaints == {}


def test_an_unknown_item_in_the_inbox_is_a_bug_that_shows() -> None:
    with pytest.raises(TypeError, match="nobody knows"):
        unstarted([object()]).run()


# Two agents, one id, and a broker between them.


def in_memory(broker: MemoryBroker, up_s: float) -> Rig:
    """A running agent that believes to have been up for `up_s` seconds."""

    def connect(deliver: Deliver, will: Will) -> MemoryTransport:
        return MemoryTransport(broker, "eya", deliver, will=will)

    settings = AgentSettings("eya", 1, "memory", checkin_s=60.0)
    agent = Agent(settings, connect, examiner=Remembered)
    agent._began -= up_s
    return started(agent, Link(lambda _: None, agent._voice.will))


def test_of_two_agents_under_one_id_the_newcomer_leaves_and_the_elder_is_online() -> None:
    broker = MemoryBroker()

    def online(rig: Rig) -> bool:
        retained = broker.retained()
        boot = rig.agent._voice.boot.encode()
        return boot in retained.get(INFO, b"") and retained.get(STATUS) == b"online"

    elder = in_memory(broker, 35.0)
    wait_for(lambda: online(elder))
    newcomer = in_memory(broker, 0.0)
    wait_for(lambda: online(newcomer))
    broker.reconnect("eya")
    wait_for(lambda: online(elder))
    broker.reconnect("eya")
    newcomer.join()
    assert [type(problem) for problem in newcomer.errors] == [DuplicateId]
    broker.reconnect("eya")
    wait_for(lambda: online(elder))
    elder.agent.stop()
    elder.join()
    assert elder.errors == []
    assert broker.retained()[STATUS] == b"offline"
