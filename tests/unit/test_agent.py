"""The agent over a scripted link: what it takes, answers, refuses and says of itself."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fogmqtt.agent import machine
from fogmqtt.agent.answers import Answers
from fogmqtt.agent.complaints import Complaints
from fogmqtt.agent.held import Address, Held
from fogmqtt.agent.service import AHEAD, Agent, Settings
from fogmqtt.agent.voice import CODECS
from fogmqtt.agent.workers import Pool
from fogmqtt.core.geometry import Grid, cut
from fogmqtt.errors import DuplicateId, NoBroker, NotConnected, OperatorError, TooLarge
from fogmqtt.images import codec
from fogmqtt.images.cv import cv2
from fogmqtt.images.spec import Image
from fogmqtt.operators import catalog
from fogmqtt.transport.base import Connected, Deliver, Disconnected, Received, Refused, Will
from fogmqtt.wire.messages import (
    Accepted,
    Call,
    Cancel,
    Decoder,
    DeviceInfo,
    Drain,
    Encoding,
    Failure,
    FromDevice,
    Result,
    Returned,
    TileTask,
    check_digest,
    encode,
    signed,
)
from fogmqtt.wire.topics import Topics

TILES = "fog/v1/devices/eya/tiles"
CONTROL = "fog/v1/devices/eya/control"
INFO = "fog/v1/devices/eya/info"
STATUS = "fog/v1/devices/eya/status"
RESULTS = "fog/v1/gateways/mariem/results/eya"


@dataclass
class Link:
    """A transport that records what is said; the test plays the broker."""

    deliver: Deliver
    will: Will
    linked: bool = False
    limit: int = 10_000_000
    closed: bool = False
    filters: list[str] = field(default_factory=list)
    said: list[tuple[str, bytes, bool]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.linked = True
        self.deliver(Connected(self.limit))

    def lose(self) -> None:
        self.linked = False
        self.deliver(Disconnected("the cable"))

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        self.filters.append(topic_filter)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        expires_s: float | None = None,
        content_type: str | None = None,
    ) -> None:
        if not self.linked:
            raise NotConnected("no link")
        if len(payload) > self.limit:
            raise TooLarge(f"{len(payload)} bytes, the limit is {self.limit}")
        with self._changed:
            self.said.append((topic, payload, retain))
            self._changed.notify_all()

    def close(self) -> None:
        self.closed = True

    def wait(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, 10), self.answers()

    def answers(self, topic: str = RESULTS) -> list[FromDevice]:
        decoder: Decoder[FromDevice] = Decoder(Accepted, Result, Failure, Returned)
        return [decoder.decode(payload) for said, payload, _ in self.said if said == topic]

    def of(self, kind: type[Any]) -> list[Any]:
        return [answer for answer in self.answers() if isinstance(answer, kind)]

    def infos(self) -> list[DeviceInfo]:
        decoder = Decoder(DeviceInfo)
        return [decoder.decode(payload) for topic, payload, _ in self.said if topic == INFO]


@dataclass
class Rig:
    agent: Agent
    link: Link
    thread: threading.Thread
    errors: list[Exception]

    def tile(self, task: TileTask, encoding: Encoding = "binary") -> None:
        self.link.deliver(Received(TILES, encode(task, encoding)))

    def join(self) -> None:
        self.thread.join(10)
        assert not self.thread.is_alive()


@contextmanager
def running(workers: int = 1, checkin_s: float = 60.0, limit: int = 10_000_000) -> Iterator[Rig]:
    links: list[Link] = []
    errors: list[Exception] = []

    def connect(deliver: Deliver, will: Will) -> Link:
        links.append(Link(deliver, will, limit=limit))
        return links[0]

    agent = Agent(Settings("eya", workers, "mqtt://here", checkin_s=checkin_s), connect)

    def run() -> None:
        try:
            agent.run()
        except Exception as problem:  # noqa: BLE001  # the test looks at it
            errors.append(problem)

    rig = Rig(agent, links[0], threading.Thread(target=run, daemon=True), errors)
    rig.thread.start()
    rig.link.wait(lambda: bool(rig.link.said) and rig.link.said[-1][0] == STATUS)
    try:
        yield rig
    finally:
        gate.set()
        agent.stop()
        rig.join()


gate = threading.Event()


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.clear()


class Waits:
    """An operator's `process` that waits for the test."""

    def __call__(self, operators: Any, pixels: Image, core: Any, seams: Any) -> Image:
        assert gate.wait(10)
        return pixels[core.slices].copy()


@pytest.fixture
def held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile takes until `gate` is set."""
    monkeypatch.setattr("fogmqtt.operators.pipeline.run_tile", Waits())


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    def install(problem: BaseException) -> None:
        def run_tile(*_: Any) -> Image:
            raise problem

        monkeypatch.setattr("fogmqtt.operators.pipeline.run_tile", run_tile)

    return install


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


def task(tile: int = 0, attempt: int = 1, **changes: Any) -> TileTask:
    fields: dict[str, Any] = {
        "job": "job",
        "tile": tile,
        "attempt": attempt,
        "gateway": "mariem",
        "stage": [Call("invert")],
        "shape": (20, 30, 1),
        "dtype": "uint8",
        "core": (0, 0, 20, 30),
        "lease_s": 30.0,
        "pixels": memoryview(PIXELS.tobytes()),
    }
    return signed(TileTask(**fields | changes))


def pixels_of(result: Result) -> Image:
    check_digest(result)
    return codec.decode(result.pixels, result.codec, result.shape, result.dtype)


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
    assert (info.workers, info.held, info.done) == (3, 0, 0)
    assert tuple(info.operators) == catalog.names()
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
    assert machine.temperature_c(tmp_path) is None
    for zone, text in (("thermal_zone0", "41500\n"), ("thermal_zone1", "garbage")):
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "temp").write_text(text)
    assert machine.temperature_c(tmp_path) == 41.5


# Work.


@pytest.mark.parametrize("encoding", ["binary", "base64"])
def test_a_tile_is_accepted_then_answered_in_the_encoding_it_came_in(encoding: Encoding) -> None:
    with running() as rig:
        rig.tile(task(), encoding)
        rig.link.wait(lambda: len(rig.link.answers()) == 2)
    accepted, result = rig.link.answers()
    assert accepted == Accepted(job="job", tile=0, attempt=1)
    assert isinstance(result, Result)
    assert np.array_equal(pixels_of(result), 255 - PIXELS)
    assert result.compute_s is not None
    assert result.compute_s >= 0
    written = [said[1][:1] == b"{" for said in rig.link.said if said[0] == RESULTS]
    assert written == [encoding == "base64"] * 2


def test_tiles_of_a_colour_pipeline_equal_opencv_on_the_whole_image() -> None:
    image = np.random.default_rng(1).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    whole = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (5, 5), 0)
    merged = np.zeros_like(whole)
    tiles = cut((61, 83), Grid(3, 2), halo=2)
    with running(workers=2) as rig:
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


def test_the_same_tile_delivered_twice_is_worked_once(held_up: None) -> None:
    with running() as rig:
        rig.tile(task())
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 2)
        gate.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        rig.tile(task())
        rig.tile(task(1))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
    assert [result.tile for result in rig.link.of(Result)] == [0, 1]


def test_the_answer_is_for_the_newest_attempt(held_up: None) -> None:
    with running() as rig:
        rig.tile(task(attempt=1))
        rig.tile(task(attempt=2), "base64")
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 2)
        gate.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    (result,) = rig.link.of(Result)
    assert result.attempt == 2
    check_digest(result)


def test_a_cancelled_tile_is_not_answered(held_up: None) -> None:
    with running() as rig:
        for tile in range(3):
            rig.tile(task(tile))
        for tile in (0, 1):
            cancel = Cancel(job="job", tile=tile, attempt=1, gateway="mariem")
            rig.link.deliver(Received(CONTROL, encode(cancel, "base64")))
        rig.tile(task(3))
        rig.link.wait(lambda: len(rig.link.of(Accepted)) == 4)
        gate.set()
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)
    assert [result.tile for result in rig.link.of(Result)] == [2, 3]


def test_a_full_device_hands_tiles_back(held_up: None) -> None:
    with running() as rig:
        for tile in range(AHEAD + 3):
            rig.tile(task(tile))
        rig.link.wait(lambda: len(rig.link.answers()) == AHEAD + 3)
        assert [back.tile for back in rig.link.of(Returned)] == [AHEAD + 1, AHEAD + 2]
        assert "full" in rig.link.of(Returned)[0].reason


def test_a_slower_device_can_be_emulated() -> None:
    done: list[Any] = []
    finished = threading.Event()

    def collect(item: object) -> None:
        done.append(item)
        finished.set()

    pool = Pool(1, collect, speed=20 * 30 / 0.1)
    address = Address("mariem", "job", 0, 1, "binary", time.monotonic() + 9)
    pool.give(Held(task(), address, time.monotonic()))
    assert finished.wait(10)
    pool.close()
    assert done[0].compute_s >= 0.1


# Failures.


@pytest.mark.parametrize(
    "problem", [ValueError("boom \ud800"), SystemExit(3), KeyboardInterrupt(), MemoryError()]
)
def test_whatever_an_operator_raises_becomes_a_failure_with_its_traceback(
    raising: Callable[[BaseException], None], problem: BaseException
) -> None:
    raising(problem)
    with running() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
        assert rig.thread.is_alive()
    (failure,) = rig.link.of(Failure)
    assert failure.reason.startswith(type(problem).__name__)
    assert "run_tile" in failure.traceback


def test_our_own_errors_keep_their_sentence(raising: Callable[[BaseException], None]) -> None:
    raising(OperatorError("canny takes uint8"))
    with running() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert rig.link.of(Failure)[0].reason == "canny takes uint8"


def test_a_traceback_is_bounded(raising: Callable[[BaseException], None]) -> None:
    raising(ValueError("x" * 100_000))
    with running() as rig:
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    (failure,) = rig.link.of(Failure)
    assert len(failure.reason) <= 2_000
    assert len(failure.traceback) <= 20_000


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stage": [Call("cany")]}, "cany"),
        ({"stage": [Call("gaussian", {"ksize": 4})]}, "ksize"),
        ({"stage": [Call("gaussian", {"sice": 4})]}, "sice"),
        ({"stage": []}, "without operators"),
        ({"codec": "gif"}, "gif"),
        ({"result_codec": "gif"}, "gif"),
        ({"core": (0, 0, 21, 30)}, "core"),
        ({"core": (1, 0, 20, 30)}, "core"),
        ({"shape": (20, 31, 1)}, "620"),
        ({"codec": "png"}, "PNG"),
    ],
)
def test_a_task_that_cannot_be_done_is_answered_with_why(
    changes: dict[str, Any], says: str
) -> None:
    with running() as rig:
        rig.tile(task(**changes))
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
    assert says in rig.link.of(Failure)[0].reason


def test_pixels_that_changed_on_the_way_are_refused() -> None:
    broken = msgspec.structs.replace(task(), digest="0" * 16)
    with running() as rig:
        rig.tile(broken)
        rig.link.wait(lambda: len(rig.link.answers()) == 1)
    assert "digest" in rig.link.of(Failure)[0].reason
    assert rig.agent.complaints == {"wrong digest": 1}


def test_a_task_without_sense_is_answered_where_it_names_itself() -> None:
    told = {"type": "tile", "job": "job", "tile": 3, "attempt": 1, "gateway": "mariem"}
    with running() as rig:
        rig.link.deliver(Received(TILES, msgspec.json.encode(told)))
        rig.link.wait(lambda: len(rig.link.answers()) == 1)
    (failure,) = rig.link.of(Failure)
    assert (failure.job, failure.tile) == ("job", 3)


def test_a_gateway_that_is_no_id_is_never_answered() -> None:
    with running() as rig:
        rig.tile(task(gateway="a.b"))
        rig.tile(task())
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert {topic for topic, *_ in rig.link.said} == {INFO, STATUS, RESULTS}


def test_a_retained_task_is_refused() -> None:
    with running() as rig:
        rig.link.deliver(Received(TILES, encode(task()), retained=True))
        rig.link.deliver(Received(CONTROL, encode(Drain(), "base64"), retained=True))
        rig.tile(task(1))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
    assert rig.agent.complaints == {"retained": 2}
    assert [answer.tile for answer in rig.link.answers()] == [1, 1]


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


def test_thousands_of_malformed_messages_leave_it_alive_and_quiet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = random.Random(7)
    tiles = [encode(task(shape=(2, 2, 1), core=(0, 0, 2, 2), pixels=memoryview(b"1234")))]
    tiles.append(encode(msgspec.structs.replace(task(), lease_s=float("nan"))))
    controls = [encode(Cancel(job="j", tile=0, attempt=1, gateway="mariem"), "base64")]
    with running() as rig, caplog.at_level(logging.WARNING):
        for _ in range(2000):
            rig.link.deliver(Received(TILES, garbage(rng, tiles)))
            rig.link.deliver(Received(CONTROL, garbage(rng, controls)))
            rig.link.deliver(Received(INFO, garbage(rng, controls)))
        rig.link.deliver(Received("some/other/topic", b""))
        rig.tile(task(77))
        rig.link.wait(lambda: any(one.tile == 77 for one in rig.link.of(Result)))
        assert rig.thread.is_alive()
    assert sum(rig.agent.complaints.values()) > 4000
    assert len(caplog.records) < 50


def test_complaints_are_counted_all_and_logged_once_a_second(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints()
    for step in range(100):
        complaints.add("retained", "on tiles", step / 50)
    assert complaints.counts["retained"] == 100
    assert [record.message for record in caplog.records] == [
        "retained: on tiles",
        "retained: on tiles (and 49 more)",
    ]


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


def answers_without_link() -> tuple[Answers, Link]:
    link = Link(lambda _: None, Will("x", b""))
    return Answers(link, Topics(), "eya", 1), link


def test_an_answer_whose_lease_ran_out_without_a_link_is_dropped() -> None:
    answers, link = answers_without_link()
    for tile, until in ((0, 5.0), (1, 15.0)):
        answers.fail(Address("mariem", "job", tile, 1, "binary", until), "because")
    link.linked = True
    answers.connected(now=10.0)
    assert [answer.tile for answer in link.answers()] == [1]
    assert answers.kept == 0


def test_what_is_kept_without_a_link_is_bounded() -> None:
    answers, link = answers_without_link()
    for tile in range(1000):
        answers.fail(Address("mariem", "job", tile, 1, "binary", 99.0), "because")
    assert answers.kept == 64
    answers.connected(now=0.0)
    assert answers.kept == 64, "the link broke again"
    link.linked = True
    answers.connected(now=0.0)
    assert [answer.tile for answer in link.answers()] == list(range(936, 1000))


def test_an_answer_that_nothing_can_carry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    answers, link = answers_without_link()
    link.linked, link.limit = True, 10
    answers.fail(Address("mariem", "job", 7, 1, "binary", 99.0), "because")
    assert "job tile 7: no answer" in caplog.text


def unstarted(events: list[object]) -> Agent:
    """An agent whose transport says `events` when it is started."""

    class Scripted(Link):
        def start(self) -> None:
            for event in events:
                self.deliver(event)

    return Agent(Settings("eya", 1, "mqtt://here"), Scripted)


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
        rig.link.wait(lambda: len(rig.link.of(Returned)) == 2)
        rig.tile(task(9))
        rig.link.wait(lambda: len(rig.link.of(Returned)) == 3)
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
    assert [back.tile for back in rig.link.of(Returned)] == [0]
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


def test_several_gateways_are_served_in_turn(held_up: None) -> None:
    with running() as rig:
        for gateway, tile in itertools.product(("mariem", "other"), range(3)):
            rig.tile(task(tile, gateway=gateway))
        gate.set()
        rig.link.wait(lambda: sum(topic != INFO for topic, *_ in rig.link.said) >= 13)
    decoder: Decoder[FromDevice] = Decoder(Accepted, Result)
    order = [
        topic.split("/")[3]
        for topic, payload, _ in rig.link.said
        if topic not in (INFO, STATUS) and isinstance(decoder.decode(payload), Result)
    ]
    assert order[1:5] in (["mariem", "other"] * 2, ["other", "mariem"] * 2)
