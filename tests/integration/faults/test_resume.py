"""A killed gateway continues its jobs after a restart; a full disk only pauses the intake."""

from __future__ import annotations

import json
import os
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Decoder, TileTask
from tests.fog import Probe
from tests.processes import Fog, edges_of, photo, private_fog, same, until

pytestmark = pytest.mark.broker

INFO = "fog/v1/gateways/mariem/info"
REPLIES, TILES = "fog/v1/replies/me", "fog/v1/devices/+/tiles"
#: Pixels per second of the device: a job of some seconds.
SPEED = 80_000
TASKS: Decoder[TileTask] = Decoder(TileTask)


@pytest.fixture
def fog(broker: object, tmp_path: Path) -> Iterator[Fog]:
    """A broker of its own; deliveries by reply only, tiles of a size that makes some dozens."""
    del broker
    with private_fog(tmp_path, TILES="size 100x100") as made:
        yield made


def submit(client: Probe, image: Path, pipeline: str = "edges", reply: str = "me") -> None:
    client.publish(f"fog/v1/submit/{pipeline}/{reply}", image.read_bytes())


def status(client: Probe, state: str, *, done: int = 0) -> dict[str, object]:
    """Wait for a status with this state and at least `done` finished tiles."""
    while True:
        said: dict[str, object] = json.loads(client.message(f"{REPLIES}/status", within=60).payload)
        if said["state"] == state and int(str(said.get("done", 0))) >= done:
            return said
        assert said["state"] != "failed" or state == "failed", said.get("error")


def decoded(data: bytes) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


def sent(client: Probe) -> list[TileTask]:
    """The tiles that were sent to devices, among the messages not yet taken."""
    messages = [one for one in client.inbox.all() if isinstance(one, Received)]
    return [TASKS.decode(one.payload) for one in messages if one.topic.endswith("/tiles")]


def in_the_journal(fog: Fog) -> int:
    """Finished tiles that the gateway's next life will know of."""
    path = fog.folder / "spool" / "ledger.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
        return int(database.execute("SELECT count(*) FROM tile").fetchone()[0])


def test_finished_tiles_are_not_sent_again(fog: Fog) -> None:
    image = fog.save("in.png", photo(600, 800))
    fog.fleet("eya", speed=SPEED)
    first = fog.serve(GATEWAY__DELIVER="reply")
    with fog.probe(f"{REPLIES}/#", client_id="me") as me:
        submit(me, image)
        done = int(str(status(me, "running", done=12)["done"]))
        until(lambda: in_the_journal(fog) >= done, "the finished tiles in the journal")
        first.kill()
        with fog.probe(TILES, client_id="watch") as watch:
            second = fog.serve(GATEWAY__DELIVER="reply")
            answer = me.message(f"{REPLIES}/image", within=60)
            again = {task.tile for task in sent(watch)}
        assert same(decoded(answer.payload), edges_of(image))
        end = status(me, "done")
    assert (end["done"], end["total"]) == (48, 48)
    assert len(again) <= 48 - done, (done, sorted(again))
    assert "accepted before and is not delivered" in second.said
    until(lambda: not list((fog.folder / "spool").glob("j*")), "an empty spool")


def test_a_finished_stage_is_merged_from_its_tiles(fog: Fog) -> None:
    """The second stage needs the complete result of Canny."""
    image = fog.save("in.png", photo(600, 800))
    config = fog.folder / "fog.yaml"
    config.write_text("pipelines: {two: gray | canny | dilate ksize=3}\n")
    fog.settings["GATEWAY__DELIVER"] = "reply"
    fog.fleet("eya", speed=SPEED)
    first = fog.serve_with(config)
    first.says("mariem is online")
    with fog.probe(f"{REPLIES}/#", client_id="me") as me:
        submit(me, image, "two")
        status(me, "running", done=48 + 10)
        until(lambda: in_the_journal(fog) >= 48 + 10, "the finished tiles in the journal")
        first.kill()
        with fog.probe(TILES, client_id="watch") as watch:
            fog.serve_with(config)
            answer = me.message(f"{REPLIES}/image", within=60)
            stages = [task.job.split(".")[1] for task in sent(watch)]
    expected = cv2.dilate(edges_of(image, 50, 150), np.ones((3, 3), np.uint8))
    assert same(decoded(answer.payload), expected)
    assert set(stages) == {"1"}, "the first stage was repeated"
    assert len(stages) <= 48 - 10


def test_a_job_succeeds_although_its_gateway_is_killed_three_times(fog: Fog) -> None:
    image = fog.save("in.png", photo(600, 800))
    fog.fleet("eya", speed=SPEED)
    with fog.probe(f"{REPLIES}/#", client_id="me") as me:
        gateway = fog.serve(GATEWAY__DELIVER="reply")
        submit(me, image)
        for done in (5, 15, 25):
            status(me, "running", done=done)
            gateway.kill()
            gateway = fog.serve(GATEWAY__DELIVER="reply")
        assert same(decoded(me.message(f"{REPLIES}/image", within=60).payload), edges_of(image))


def test_a_submission_that_was_not_acknowledged_is_sent_again(fog: Fog) -> None:
    """The broker keeps it because the killed gateway did not acknowledge it."""
    image = fog.save("in.png", photo(200, 300))
    first = fog.serve(GATEWAY__LOCAL="always")
    with fog.probe(f"{REPLIES}/#", client_id="me") as me:
        first.signal(signal.SIGSTOP)
        submit(me, image)
        first.kill()
        fog.serve(GATEWAY__LOCAL="always")
        assert same(decoded(me.message(f"{REPLIES}/image", within=60).payload), edges_of(image))


# Jobs that cannot be continued.


def test_a_job_whose_operator_or_image_is_missing_fails_and_the_others_do_not(fog: Fog) -> None:
    image = fog.save("in.png", photo(200, 300))
    first = fog.serve(GATEWAY__LOCAL="never")
    names = ("no-operator", "no-image", "fine")
    with fog.probe("fog/v1/replies/+/status", client_id="me") as me:
        for name in names:
            submit(me, image, reply=name)
        for name in names:
            me.message(f"fog/v1/replies/{name}/status")
        first.says("accepted as", within=60)
        until(lambda: first.said.count("accepted as") == 3, "three jobs")
        first.kill()
        _harm(fog.folder / "spool")
        fog.serve(GATEWAY__LOCAL="always")
        ends = dict(_end(me) for _ in names)
    assert ends["fine"]["state"] == "done"
    assert "vanished" in str(ends["no-operator"]["error"])
    assert "its image is gone from the spool" in str(ends["no-image"]["error"])
    until(lambda: not list((fog.folder / "spool").glob("j*")), "an empty spool")
    # Once the operator is installed again, the job can be retried.
    (note,) = (fog.folder / "spool").glob("dead/*/note.json")
    assert "vanished" in json.loads(note.read_bytes())["reason"]
    assert (note.parent / "image").read_bytes() == image.read_bytes()


def _harm(spool: Path) -> None:
    for path in spool.glob("j*.json"):
        note = json.loads(path.read_bytes())
        if note["reply"] == "no-operator":
            path.write_text(json.dumps(note | {"pipeline": "gray | vanished strength=3"}))
        if note["reply"] == "no-image":
            path.with_suffix(".image").unlink()


def _end(client: Probe) -> tuple[str, dict[str, object]]:
    while True:
        message = client.inbox.take(Received, within=60)
        said = json.loads(message.payload)
        if said["state"] in ("done", "failed"):
            return message.topic.split("/")[3], said


def test_without_its_journal_database_a_gateway_starts_the_jobs_again(fog: Fog) -> None:
    image = fog.save("in.png", photo(200, 300))
    first = fog.serve(GATEWAY__LOCAL="never")
    with fog.probe(f"{REPLIES}/#", client_id="me") as me:
        submit(me, image)
        status(me, "accepted")
        first.kill()
        for path in (fog.folder / "spool").glob("ledger.sqlite3*"):
            path.write_bytes(b"\xa5" * path.stat().st_size)
        second = fog.serve(GATEWAY__LOCAL="always")
        assert "cannot be used" in second.said
        assert same(decoded(me.message(f"{REPLIES}/image", within=60).payload), edges_of(image))


# A full disk.


class Tmpfs:
    """A separate file system of 2 MB."""

    def __init__(self, folder: Path) -> None:
        self.ballast = folder / "ballast"

    def fill(self, pid: int) -> None:
        del pid
        descriptor = os.open(self.ballast, os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)

    def empty(self, pid: int) -> None:
        del pid
        self.ballast.unlink()


class Limit:
    """A limit on the size of the gateway's files."""

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

    def empty(self, pid: int) -> None:
        resource.prlimit(
            pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )


@contextmanager
def tmpfs(folder: Path) -> Iterator[Tmpfs]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)], check=True)
    try:
        yield Tmpfs(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def limit(folder: Path) -> Iterator[Limit]:
    del folder
    yield Limit()


def _kinds() -> list[Callable[[Path], object]]:
    """The kinds of full disks that this user can make: only root may mount."""
    return [limit, tmpfs] if os.geteuid() == 0 and _may_mount() else [limit]


def _may_mount() -> bool:
    return (
        subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0
    )


def _paused(client: Probe, reason: str) -> None:
    """Wait until the gateway's info has this reason for a pause."""
    while json.loads(client.message(INFO, within=60).payload).get("paused", "") != reason:
        pass


@pytest.mark.parametrize("kind", _kinds())
def test_a_full_disk_pauses_the_intake_with_a_reason_until_there_is_room(
    fog: Fog, kind: Callable[[Path], object]
) -> None:
    image = fog.save("in.png", photo(200, 300))
    spool = fog.folder / "spool"
    spool.mkdir()
    topics = (f"{REPLIES}/#", INFO)
    with kind(spool) as disk, fog.probe(*topics, client_id="me") as me:  # type: ignore[attr-defined]
        gateway = fog.serve(GATEWAY__LOCAL="always")
        pid = gateway.process.pid
        disk.fill(pid)
        submit(me, image)
        reason = "the gateway's disk is full; submit it again when there is room"
        _paused(me, reason)
        assert status(me, "failed")["error"] == reason
        (fog.folder / "inbox" / "waits.png").write_bytes(image.read_bytes())
        time.sleep(3)
        assert (fog.folder / "inbox" / "waits.png").exists()
        disk.empty(pid)
        submit(me, image)
        _paused(me, "")
        assert same(decoded(me.message(f"{REPLIES}/image", within=60).payload), edges_of(image))
        until(
            lambda: (fog.folder / "inbox" / "done" / "waits.png").exists(),
            "the image from the inbox",
        )
        assert "has room again" in gateway.said
        gateway.stop()
