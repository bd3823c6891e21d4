"""The agent and its connection: presence, refusals, draining, and duplicate ids."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from fogmqtt.agent import host_info, service
from fogmqtt.agent.presence_publisher import CODECS
from fogmqtt.agent.result_publisher import ResultPublisher
from fogmqtt.agent.service import Agent, AgentSettings
from fogmqtt.agent.tile_lease import ReplyAddress
from fogmqtt.errors import DuplicateId, NoBroker
from fogmqtt.images import codec
from fogmqtt.transport.base import (
    Connected,
    Deliver,
    Disconnected,
    Published,
    Received,
    Refused,
    Will,
)
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
    INFO,
    REPORT,
    STATUS,
    TILES,
    KnownConformance,
    Link,
    Rig,
    block_operators,
    run_in_thread,
    running_agent,
    task,
    unblock,
)
from tests.fog import wait_for


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    block_operators(monkeypatch)


# Presence.


def test_it_subscribes_then_publishes_its_info_then_online() -> None:
    with running_agent(workers=3) as rig:
        assert rig.link.filters == [TILES, CONTROL, INFO]
        assert rig.link.will == Will(STATUS, b"offline")
        (info_topic, _, info_kept), (status_topic, status, status_kept) = rig.link.published
        assert (info_topic, status_topic, status) == (INFO, STATUS, b"online")
        assert info_kept
        assert status_kept
    info = rig.link.infos()[0]
    assert (info.workers, info.tiles_held, info.tiles_done) == (3, 0, 0)
    assert info.operators == list(REPORT.operators)
    assert info.versions["fogmqtt"]
    assert info.versions["opencv"]


def test_the_announced_codecs_are_all_codecs() -> None:
    assert codec.names() == CODECS


def test_a_broker_that_passes_nothing_on_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "ECHO_S", 0.05)
    with running_agent() as rig:
        wait_for(lambda: "does not pass on what eya publishes" in caplog.text)
        rig.link.lose()
        caplog.clear()
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.infos()) == 2)
        rig.link.deliver(Received(INFO, encode(rig.link.infos()[-1], "base64")))
        threading.Event().wait(0.1)
    assert "does not pass on" not in caplog.text


def test_each_check_in_has_a_higher_sequence_number() -> None:
    with running_agent(checkin_s=0.02) as rig:
        rig.link.wait(lambda: len(rig.link.infos()) >= 4)
    sequence = [info.sequence for info in rig.link.infos()]
    assert sequence == sorted(set(sequence))
    assert len({info.boot for info in rig.link.infos()}) == 1


def test_it_publishes_info_and_status_at_every_connection() -> None:
    with running_agent() as rig:
        rig.link.lose()
        rig.link.connect()
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.published] == [INFO, STATUS] * 2)


def test_a_check_in_that_the_transport_refuses_is_repeated() -> None:
    with running_agent() as rig:
        rig.link.linked = False
        rig.link.deliver(Connected())
        time.sleep(0.1)
        rig.link.linked = True
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.published] == [INFO, STATUS] * 2)


def test_a_temperature_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert host_info.temperature_c(tmp_path) is None
    for zone, text in (("thermal_zone0", "41500\n"), ("thermal_zone1", "garbage")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "temp").write_text(text)
    assert host_info.temperature_c(tmp_path) == 41.5


def test_the_memory_is_the_lowest_limit_of_the_groups_around_this_process(tmp_path: Path) -> None:
    own, groups = tmp_path / "own", tmp_path / "groups"
    service = groups / "system.slice" / "fog.service"
    service.mkdir(parents=True)
    own.write_text("0::/system.slice/fog.service\n")
    whole = resources.memory_mb(own, groups)
    assert whole == psutil.virtual_memory().total >> 20
    (groups / "memory.max").write_text("max\n")
    assert resources.memory_mb(own, groups) == whole
    (service / "memory.max").write_text(f"{100 << 20}\n")
    assert resources.memory_mb(own, groups) == 100
    (service.parent / "memory.max").write_text(f"{80 << 20}\n")
    assert resources.memory_mb(own, groups) == 80


def test_the_memory_is_limited_by_groups_of_version_1_too(tmp_path: Path) -> None:
    own, groups = tmp_path / "own", tmp_path / "groups"
    (groups / "memory" / "docker").mkdir(parents=True)
    own.write_text("3:cpu,cpuacct:/docker\n2:memory:/docker\n")
    (groups / "memory" / "docker" / "memory.limit_in_bytes").write_text(f"{90 << 20}\n")
    assert resources.memory_mb(own, groups) == 90


def test_the_available_memory_is_that_of_the_machine_or_of_a_group(tmp_path: Path) -> None:
    memory, own, groups = (tmp_path / name for name in ("meminfo", "own", "groups"))
    assert resources.available_mb(memory, own, groups) == 0
    memory.write_text("MemTotal: 921600 kB\nMemAvailable: 512000 kB\n")
    assert resources.available_mb(memory, own, groups) == 500
    groups.mkdir()
    (groups / "memory.max").write_text(f"{400 << 20}\n")
    (groups / "memory.current").write_text(f"{250 << 20}\n")
    assert resources.available_mb(memory, own, groups) == 150


def test_processes_without_a_use_take_at_most_a_quarter_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resources, "available_mb", lambda: 4 * resources.WORKER_MB * 3)
    assert resources.has_memory_for_workers(2)
    assert not resources.has_memory_for_workers(3)


def test_programs_on_one_machine_announce_the_same_id(tmp_path: Path) -> None:
    with running_agent() as one, running_agent() as other:
        ids = {rig.link.infos()[0].machine for rig in (one, other)}
    assert ids == {resources.machine_id()}
    assert resources.machine_id(tmp_path / "missing") == ""


def test_workers_share_half_of_the_memory_and_get_256_mb_at_least() -> None:
    half = resources.memory_mb() // 2
    assert resources.worker_memory_mb(1) == max(256, half)
    assert resources.worker_memory_mb(10_000) == 256


# The link.


def test_a_result_over_the_brokers_limit_becomes_a_failure_with_the_limit() -> None:
    with running_agent(limit=3000) as rig:
        rig.link.limit = 500
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert "the limit is 500" in rig.link.of(Failure)[0].reason


def test_a_result_without_a_connection_is_published_after_the_reconnect(blocked: None) -> None:
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 1)
        rig.link.lose()
        unblock.set()
        while rig.agent._results.kept == 0:
            threading.Event().wait(0.005)
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)


def test_a_result_that_was_on_its_way_when_the_link_broke_is_published_again() -> None:
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        rig.link.lose()
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
        first, second = rig.link.of(Result)
        assert first == second


def test_a_result_that_the_broker_has_is_not_published_again() -> None:
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        for token in rig.link.tokens:
            rig.link.deliver(Published(token))
        rig.link.lose()
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.infos()) == 2)
        rig.tile(task(tile=1))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
        assert [result.tile for result in rig.link.of(Result)] == [0, 1]


def publisher_without_link() -> tuple[ResultPublisher, Link]:
    link = Link(lambda _: None, Will("x", b""))
    return ResultPublisher(link, Topics(), "eya", 1), link


def test_a_kept_reply_whose_lease_expired_is_dropped() -> None:
    publisher, link = publisher_without_link()
    for tile, expires_at in ((0, 5.0), (1, 15.0)):
        publisher.fail(ReplyAddress("mariem", "job", tile, 1, "binary", expires_at), "because")
    link.linked = True
    publisher.connected(now=10.0)
    assert [reply.tile for reply in link.replies()] == [1]
    assert publisher.kept == 0


def test_the_number_of_kept_replies_is_bounded() -> None:
    publisher, link = publisher_without_link()
    for tile in range(1000):
        publisher.fail(ReplyAddress("mariem", "job", tile, 1, "binary", 99.0), "because")
    assert publisher.kept == 64
    publisher.connected(now=0.0)
    assert publisher.kept == 64, "the link broke again"
    link.linked = True
    publisher.connected(now=0.0)
    assert [reply.tile for reply in link.replies()] == list(range(936, 1000))


def test_a_failure_over_the_brokers_limit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    publisher, link = publisher_without_link()
    link.linked, link.limit = True, 10
    publisher.fail(ReplyAddress("mariem", "job", 7, 1, "binary", 99.0), "because")
    assert "job tile 7: no reply" in caplog.text


def unstarted(events: list[object]) -> Agent:
    """An agent whose transport says `events` when it is started."""

    class Scripted(Link):
        def start(self) -> None:
            for event in events:
                self.deliver(event)

    return Agent(
        AgentSettings("eya", 1, ("mqtt://here",)),
        Scripted,
        make_conformance_runner=KnownConformance,
    )


def test_a_final_refusal_before_the_first_connection_ends_the_agent() -> None:
    with pytest.raises(NoBroker, match="bad password"):
        unstarted([Refused("bad password", final=True)]).run()


def test_it_waits_for_a_broker_and_warns_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = unstarted([Refused("nothing listens")] * 50)
    agent.stop()
    agent.run()
    agent = unstarted([*[Refused("nothing listens")] * 50])
    timer = threading.Timer(0.1, agent.stop)
    timer.start()
    agent.run()
    warnings = [record for record in caplog.records if "trying again" in record.message]
    assert len(warnings) == 1
    assert "mosquitto -c broker/mosquitto.conf" in warnings[0].message


def test_a_final_refusal_after_a_connection_does_not_end_the_agent() -> None:
    with running_agent() as rig:
        rig.link.lose()
        rig.link.deliver(Refused("bad password", final=True))
        rig.link.connect()
        rig.link.wait(lambda: len(rig.link.infos()) == 2)


# Leaving.


@pytest.mark.parametrize("way", ["stop", "drain"])
def test_it_finishes_running_tiles_rejects_the_others_and_publishes_offline(
    blocked: None, way: str
) -> None:
    with running_agent() as rig:
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
        unblock.set()
        rig.join()
    assert [result.tile for result in rig.link.of(Result)] == [0]
    assert rig.link.published[-1] == (STATUS, b"offline", True)
    assert rig.link.closed
    assert rig.errors == []


def test_a_tile_that_does_not_end_in_time_is_rejected(
    blocked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fogmqtt.agent.service.DRAIN_TIMEOUT_S", 0.05)
    with running_agent() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 1)
        rig.agent.stop()
        rig.join()
    assert [back.tile for back in rig.link.of(Rejected)] == [0]
    assert rig.link.published[-1][1] == b"offline"


# Another agent under our id.


def info(boot: str, uptime_s: float) -> bytes:
    return encode(
        DeviceInfo(boot=boot, sequence=0, uptime_s=uptime_s, workers=1, operators=[], host="attic"),
        "base64",
    )


def echo_own_info(rig: Rig) -> None:
    rig.link.deliver(Received(INFO, rig.link.published[0][1]))


def test_a_younger_agent_exits_without_publishing_offline() -> None:
    with running_agent() as rig:
        echo_own_info(rig)
        rig.link.deliver(Disconnected("another agent came", taken_over=True))
        rig.link.deliver(Connected())
        rig.link.deliver(Received(INFO, info("other", 35.0), retained=True))
        rig.join()
    (problem,) = rig.errors
    assert isinstance(problem, DuplicateId)
    assert "host attic, up 35 s" in str(problem)
    assert "'eya'" in str(problem)
    assert (STATUS, b"offline", True) not in rig.link.published
    assert rig.link.closed


def test_a_forged_info_ends_no_agent() -> None:
    with running_agent() as rig:
        echo_own_info(rig)
        for _ in range(9):
            rig.link.deliver(Received(INFO, info("forged", 1e9)))
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert rig.errors == []
    assert rig.agent.warning_counts == {"duplicate id": 9}


def test_an_older_agent_stays_and_publishes_info_and_status_again() -> None:
    with running_agent() as rig:
        echo_own_info(rig)
        rig.link.deliver(Received(INFO, info("other", 0.0)))
        rig.link.wait(lambda: [topic for topic, *_ in rig.link.published] == [INFO, STATUS] * 2)
    assert rig.errors == []


def test_the_info_of_a_previous_run_does_not_end_the_agent() -> None:
    with running_agent() as rig:
        rig.link.deliver(Received(INFO, info("before", 99_999.0), retained=True))
        rig.link.deliver(Received(INFO, b""))
        echo_own_info(rig)
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert rig.errors == []
    assert rig.agent.warning_counts == {}


def test_an_unknown_event_in_the_inbox_raises_type_error() -> None:
    with pytest.raises(TypeError, match="has no handler"):
        unstarted([object()]).run()


# Two agents, one id, and a broker between them.


def in_memory(broker: MemoryBroker, up_s: float) -> Rig:
    """An agent in a thread that takes itself to have run for `up_s` seconds."""

    def connect(deliver: Deliver, will: Will) -> MemoryTransport:
        return MemoryTransport(broker, "eya", deliver, will=will)

    settings = AgentSettings("eya", 1, ("memory",), checkin_s=60.0)
    agent = Agent(settings, connect, make_conformance_runner=KnownConformance)
    agent._started_at -= up_s
    return run_in_thread(agent, Link(lambda _: None, agent._presence.will))


def test_of_two_agents_with_one_id_the_younger_exits_and_the_older_is_online() -> None:
    broker = MemoryBroker()

    def online(rig: Rig) -> bool:
        retained = broker.retained()
        boot = rig.agent._presence.boot.encode()
        return boot in retained.get(INFO, b"") and retained.get(STATUS) == b"online"

    older = in_memory(broker, 35.0)
    wait_for(lambda: online(older))
    younger = in_memory(broker, 0.0)
    wait_for(lambda: online(younger))
    broker.reconnect("eya")
    wait_for(lambda: online(older))
    broker.reconnect("eya")
    younger.join()
    assert [type(problem) for problem in younger.errors] == [DuplicateId]
    broker.reconnect("eya")
    wait_for(lambda: online(older))
    older.agent.stop()
    older.join()
    assert older.errors == []
    assert broker.retained()[STATUS] == b"offline"
