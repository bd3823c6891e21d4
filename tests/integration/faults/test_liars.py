"""A device that lies: the job is exact through the honest ones, and the liar is found out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from fogmqtt.core.geometry import Rect, Seams
from fogmqtt.images import codec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.pipeline import run_tile
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import (
    Accepted,
    Decoder,
    DeviceInfo,
    Failure,
    Message,
    Result,
    TileTask,
    encode,
    with_digest,
)
from tests.conformance import local_report
from tests.fog import Probe
from tests.processes import Fog, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

#: Answers to a task, in order; an empty list is silence.
Answer = Callable[[TileTask], list[Message | bytes]]


@pytest.fixture(scope="module")
def fog(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    """Two honest devices, slow enough that every other device gets its share."""
    del broker  # skips or fails where Mosquitto is missing
    # Shorter than usual, since liars are waited for, and long enough for honest devices of a
    # machine that is busy with something else.
    patience = {"SCHEDULER__FIRST_LEASE_S": "3"}
    with private_fog(tmp_path_factory.mktemp("liars"), **patience) as made:
        made.fleet("eya", "manar", speed=250_000)
        made.save("in.png", photo(320, 400))
        yield made


@dataclass
class Impostor:
    """An MQTT client that joins the fleet as a device and answers as it likes."""

    client: Probe
    answer: Answer
    name: str = "liar"
    tasks: list[TileTask] = field(default_factory=list)

    def join(self) -> None:
        info = DeviceInfo(
            boot=f"boot-{id(self)}",
            sequence=1,
            uptime_s=1.0,
            workers=1,
            operators=list(registry.names()),
            fingerprints=local_report().fingerprints,
        )
        self.client.publish(f"fog/v1/devices/{self.name}/info", encode(info), retain=True)
        self.say("online")

    def say(self, status: str) -> None:
        self.client.publish(f"fog/v1/devices/{self.name}/status", status.encode(), retain=True)

    def serve(self, leave: threading.Event) -> None:
        """Answer until told to leave."""
        decoder, seen = Decoder(TileTask), 0
        while not leave.wait(0.01):
            heard = self.client.inbox.all()[seen:]
            seen += len(heard)
            for event in heard:
                if isinstance(event, Received):
                    self._give(decoder.decode(event.payload))

    def _give(self, task: TileTask) -> None:
        self.tasks.append(task)
        topic = f"fog/v1/gateways/{task.gateway}/results/{self.name}"
        for message in self.answer(task):
            self.client.publish(topic, message if isinstance(message, bytes) else encode(message))


@contextmanager
def impostor(fog: Fog, answer: Answer, *listens: str, joins: bool = True) -> Iterator[Impostor]:
    filters = listens or ("fog/v1/devices/liar/tiles",)
    with fog.probe(*filters, client_id="liar") as client:
        liar, leave = Impostor(client, answer), threading.Event()
        thread = threading.Thread(target=liar.serve, args=(leave,))
        if joins:
            liar.join()
        thread.start()
        try:
            yield liar
        finally:
            leave.set()
            thread.join(10)
            liar.say("offline")


def accepted(task: TileTask) -> Accepted:
    return Accepted(job=task.job, tile=task.tile, attempt=task.attempt)


def honest(task: TileTask) -> Result:
    """What a device should answer."""
    pixels = codec.decode(task.pixels, task.codec, task.shape, task.dtype)
    operators = [registry.build(call.name, call.params) for call in task.stage]
    seams = Seams(*(letter in task.seams for letter in "tlbr"))
    done = run_tile(operators, pixels, Rect(*task.core), seams)
    packed = memoryview(codec.encode(done, task.result_codec))
    height, width = done.shape[:2]
    return with_digest(
        Result(
            job=task.job,
            tile=task.tile,
            attempt=task.attempt,
            shape=(height, width, 1),
            dtype="uint8",
            codec=task.result_codec,
            pixels=packed,
        )
    )


def changed(task: TileTask, **fields: object) -> Result:
    """An honest result with something replaced with a valid digest."""
    return msgspec.structs.replace(honest(task), **fields)


def with_new_digest(task: TileTask, **fields: object) -> Result:
    return with_digest(changed(task, **fields))


LIES: dict[str, Answer] = {
    "a wrong digest": lambda task: [accepted(task), changed(task, digest="0123456789abcdef")],
    "changed pixels": lambda task: [accepted(task), changed(task, pixels=memoryview(b"x" * 99))],
    "another shape": lambda task: [accepted(task), with_new_digest(task, shape=(3, 3, 1))],
    "another dtype": lambda task: [accepted(task), with_new_digest(task, dtype="float64")],
    "a codec of facts": lambda task: [accepted(task), with_new_digest(task, codec="facts")],
    "other bytes": lambda task: [accepted(task), with_new_digest(task, codec="bitplanes")],
    "too few pixels": lambda task: [accepted(task), with_new_digest(task, pixels=memoryview(b""))],
    "always a failure": lambda task: [
        accepted(task),
        Failure(job=task.job, tile=task.tile, attempt=task.attempt, reason="I\nwill\x1b[31m not"),
    ],
}


def blank(task: TileTask) -> list[Message | bytes]:
    """Nothing on it, and everything about it right: only the pixels tell."""
    nothing = np.zeros(task.core[2:], np.uint8)
    packed = memoryview(codec.encode(nothing, task.result_codec))
    return [accepted(task), with_new_digest(task, pixels=packed)]


def run(fog: Fog, **settings: str) -> tuple[str, dict[str, dict[str, int]]]:
    """A job with the fleet as it is: exact. Returns what was said, and who did what."""
    arguments = ("in.png", "-o", "out.png", "--tiles", "size 40x40", "--timeout", "50")
    ran = fog.run(*arguments, **settings)
    assert same(read(fog.folder / "out.png"), edges_of(fog.folder / "in.png"))
    return ran.err, ran.report["devices"]


@pytest.mark.parametrize("lie", LIES)
def test_the_job_is_exact_and_the_liar_is_quarantined(fog: Fog, lie: str) -> None:
    with impostor(fog, LIES[lie]) as liar:
        said, devices = run(fog)
    assert liar.tasks, "the liar was never asked"
    assert "liar" not in devices
    assert "liar is in quarantine" in said
    assert "\x1b" not in said
    assert "eya is in quarantine" not in said
    assert "manar is in quarantine" not in said


def test_a_spot_check_finds_who_gives_wrong_pixels_and_all_it_did_is_done_again(fog: Fog) -> None:
    with impostor(fog, blank) as liar:
        said, devices = run(fog, VERIFY__SAMPLE="0.3")
    assert liar.tasks, "the liar was never asked"
    assert "liar" not in devices
    assert sum(share["tiles"] for share in devices.values()) == 80
    assert "liar is in quarantine for 3600 s: a wrong result" in said
    assert "eya is in quarantine" not in said
    assert "manar is in quarantine" not in said


def test_spot_checks_of_an_honest_fleet_are_counted_and_change_nothing(fog: Fog) -> None:
    arguments = ("in.png", "-o", "out.png", "--tiles", "size 40x40")
    ran = fog.run(*arguments, VERIFY__SAMPLE="0.1")
    assert same(read(fog.folder / "out.png"), edges_of(fog.folder / "in.png"))
    assert ran.report["checked"] == 8
    assert sum(share["tiles"] for share in ran.report["devices"].values()) == 80


@pytest.mark.parametrize(
    "answer",
    [
        lambda task: [],
        lambda task: [accepted(task)],
        lambda task: [accepted(task), b"garbage"],
        lambda task: [b"", b"\x00" * 1000, b"{}"],
    ],
    ids=["is silent", "accepts and is silent", "accepts and sends garbage", "sends garbage"],
)
def test_who_never_answers_holds_nothing_up(fog: Fog, answer: Answer) -> None:
    with impostor(fog, answer) as liar:
        said, devices = run(fog)
    assert liar.tasks, "the liar was never asked"
    assert set(devices) == {"eya", "manar"}
    assert "eya is in quarantine" not in said


def test_a_device_that_says_everything_five_times_is_only_believed_once(fog: Fog) -> None:
    with impostor(fog, lambda task: [accepted(task), *[honest(task)] * 5]):
        said, devices = run(fog)
    assert devices["liar"]["tiles"] > 0
    assert sum(one["tiles"] for one in devices.values()) == 80
    assert "in quarantine" not in said


def test_a_result_without_an_acknowledgement_is_a_result(fog: Fog) -> None:
    with impostor(fog, lambda task: [honest(task)]):
        said, devices = run(fog)
    assert devices["liar"]["tiles"] > 0
    assert "in quarantine" not in said


def test_a_result_for_anothers_lease_is_not_taken(fog: Fog) -> None:
    """Black pixels for what others were asked for: identity comes from the topic."""

    def black(task: TileTask) -> list[Message | bytes]:
        shape = task.core[2:]
        dark = memoryview(codec.encode(np.zeros(shape, np.uint8), "bitplanes"))
        forged = with_new_digest(task, pixels=dark)
        return [accepted(task), forged, msgspec.structs.replace(forged, attempt=2)]

    asked = ("fog/v1/devices/eya/tiles", "fog/v1/devices/manar/tiles")
    with impostor(fog, black, *asked, joins=False) as stranger:
        said, devices = run(fog)
    assert len(stranger.tasks) >= 80
    assert set(devices) == {"eya", "manar"}
    assert "in quarantine" not in said


def test_answers_of_a_job_that_is_over_disturb_no_later_one(fog: Fog) -> None:
    late: list[Result] = []

    def answer(task: TileTask) -> list[Message | bytes]:
        late.append(honest(task))
        return [*late]

    with impostor(fog, answer):
        for _ in range(2):
            _, devices = run(fog)
            assert devices["liar"]["tiles"] > 0
