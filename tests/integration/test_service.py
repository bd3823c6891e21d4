"""A client of the service with a real broker, a gateway's process and devices' processes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fogmqtt.transport.base import Received
from fogmqtt.wire import service_messages as msg
from tests.fog import probe, wait_for
from tests.processes import PATIENCE_S, Fog, edges_of, photo
from tests.service_client import ServiceClient

pytestmark = pytest.mark.timeout(240)


def test_a_job_is_followed_tile_by_tile_and_outlives_a_restart(lone_fog: Fog) -> None:
    picture = lone_fog.save("in.png", photo(1500, 2000))
    data = picture.read_bytes()
    assert len(data) > 2 * msg.PIECE_BYTES
    settings = {"GATEWAY__LOCAL": "never", "TILES": "grid 6x6"}
    gateway = lone_fog.serve(**settings)
    # So slow that the page is told of some tiles before the end.
    eya, _ = lone_fog.fleet("eya", "manar", speed=2e6)
    with probe(lone_fog.broker.url, client_id="page") as connected:
        page = ServiceClient(connected.transport, connected.inbox)
        wait_for(
            lambda: len(page.ask(msg.Watch, msg.Snapshot).devices) == 2,
            within=PATIENCE_S,
            what="both devices",
        )
        job = page.upload(data, "in.png", source="page", who="aziz").job.id
        done: set[int] = set()
        cores: dict[int, msg.Area] = {}
        card = page.card(job)
        while card.state not in ("done", "failed"):
            update = page.update(within=PATIENCE_S)
            for tiles in update.tiles:
                cores.update(tiles.cores)
                done |= {row.tile for row in tiles.rows if msg.TILE_STATUSES[row.status] == "done"}
            card = next((one for one in update.jobs if one.id == job), card)
        assert (card.state, card.error) == ("done", "")
        assert len(done) > 2
        assert done <= cores.keys()
        assert set(card.devices) <= {"eya", "manar"}
        got = cv2.imdecode(np.frombuffer(page.file(job), np.uint8), cv2.IMREAD_UNCHANGED)
        assert got is not None
        assert np.array_equal(got, edges_of(picture))
        # A device that is killed has a card that says so.
        eya.kill()

        def eya_is_gone() -> bool:
            cards = page.ask(msg.Watch, msg.Snapshot).devices
            return any(one.id == "eya" and one.activity == "offline" for one in cards)

        wait_for(eya_is_gone, within=PATIENCE_S, what="eya to be offline")
        upload = page.ask(msg.OpenUpload, msg.Upload, name="b.png").upload
        gateway.kill()
        lone_fog.serve(**settings)
        assert page.card(job) == card
        assert page.file(job, "original") == data
        put = {"upload": upload, "offset": 0, "data": b"x"}
        assert page.refused(msg.PutPiece, **put).kind == "not-found"
        again = page.ask(msg.RepeatJob, msg.JobAnswer, job=job, pipeline="gray").job
        assert page.ended(again.id, within=PATIENCE_S).state == "done"


def test_without_a_watcher_nothing_is_published(lone_fog: Fog) -> None:
    picture = lone_fog.save("in.png", photo(600, 800))
    lone_fog.serve(GATEWAY__LOCAL="never")
    lone_fog.fleet("eya")
    with probe(lone_fog.broker.url, client_id="page") as connected:
        page = ServiceClient(connected.transport, connected.inbox)
        page.ended(page.upload(picture.read_bytes()).job.id)
        topics = [one.topic for one in connected.inbox.all() if isinstance(one, Received)]
        assert not [topic for topic in topics if topic.endswith("/updates")]
        page.ask(msg.Watch, msg.Snapshot)
        assert page.update().sequence == 1  # the first that was ever published
