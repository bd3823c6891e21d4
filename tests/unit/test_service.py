"""Clients of a serving gateway submit files, watch jobs, read results and end jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from fogmqtt.gateway.service.service import MAX_WAITING
from fogmqtt.operators.api.pipeline import parse, run_whole
from fogmqtt.transport.memory import MemoryTransport
from fogmqtt.wire import service_messages as msg
from fogmqtt.wire.messages import encode
from tests.fog import Inbox, wait_for
from tests.processes import PATIENCE_S, photo
from tests.service_client import ServiceClient
from tests.serving import PICTURE, Serving

IMAGE = photo(60, 80)


def client(serving: Serving, name: str = "page") -> ServiceClient:
    heard = Inbox()
    transport = MemoryTransport(serving.broker, name, heard.put)
    made = ServiceClient(transport, heard, name)
    transport.start()
    return made


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(str(tmp_path / "spool")) as made:
        yield made


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Serving]:
    """A gateway whose jobs with tiles wait for a device."""
    with Serving(str(tmp_path / "spool"), "never") as made:
        yield made


def test_an_uploaded_file_becomes_a_job_whose_result_can_be_read(serving: Serving) -> None:
    page = client(serving)
    accepted = page.upload(PICTURE, pipeline="invert", source="page", who="aziz")
    assert not accepted.repeated
    card = page.ended(accepted.job.id)
    assert (card.state, card.name, card.pipeline) == ("done", "photo.png", "invert")
    assert (card.source, card.who, card.height, card.width) == ("page", "aziz", 60, 80)
    result = cv2.imdecode(np.frombuffer(page.file(card.id), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(result, run_whole(parse("invert"), IMAGE, IMAGE))
    assert page.file(card.id, "original") == PICTURE
    assert msgspec.json.decode(page.file(card.id, "report"))["job"] == card.id
    assert msgspec.json.decode(page.file(card.id, "trace"))["traceEvents"]
    thumbnail = cv2.imdecode(np.frombuffer(page.file(card.id, "thumbnail"), np.uint8), 1)
    assert thumbnail.shape[:2] == (60, 80)
    assert card.files["result"].media_type == "image/png"


def test_who_watches_sees_a_job_from_its_begin_to_its_end(serving: Serving) -> None:
    page = client(serving)
    snapshot = page.ask(msg.Watch, msg.Snapshot)
    assert (snapshot.gateway.id, snapshot.jobs) == ("mariem", [])
    job = client(serving, "other").upload(PICTURE).job.id
    states, sequence = [], snapshot.sequence
    while "done" not in states:
        update = page.update()
        assert update.sequence == sequence + 1
        sequence = update.sequence
        states += [card.state for card in update.jobs if card.id == job]
    again = page.ask(msg.Watch, msg.Snapshot)
    assert [(card.id, card.state) for card in again.jobs] == [(job, "done")]


def test_a_waiting_job_can_be_cancelled_and_is_in_the_history(waiting: Serving) -> None:
    page = client(waiting)
    job = page.upload(PICTURE, pipeline="median ksize=5").job.id
    wait_for(lambda: page.card(job).state == "running", within=PATIENCE_S, what="its turn")
    card = page.ask(msg.CancelJob, msg.JobAnswer, job=job, reason="too slow", who="aziz").job
    assert (card.state, card.error) == ("cancelled", "too slow")
    assert page.ask(msg.CancelJob, msg.JobAnswer, job=job).job == card
    assert page.file(job, "original") == PICTURE


def test_the_tiles_of_a_running_job_are_shown_with_their_cores(waiting: Serving) -> None:
    page = client(waiting)
    job = page.upload(PICTURE, pipeline="median ksize=5").job.id

    def tiles() -> list[msg.TilesUpdate]:
        return page.ask(msg.Watch, msg.Snapshot).tiles

    wait_for(tiles, within=PATIENCE_S, what="tiles")
    (shown,) = tiles()
    assert (shown.job, shown.height, shown.width, shown.stage) == (job, 60, 80, 1)
    assert sum(height * width for _, _, height, width in shown.cores.values()) == 60 * 80
    assert {msg.TILE_STATUSES[row.status] for row in shown.rows} == {"waiting"}


def test_a_repeated_request_gets_the_same_answer_and_is_done_once(serving: Serving) -> None:
    page = client(serving)
    first = page.ask(msg.OpenUpload, msg.Upload, id="once", name="a.png")
    assert page.ask(msg.OpenUpload, msg.Upload, id="once", name="a.png") == first
    # Another client has ids of its own.
    other = client(serving, "other").ask(msg.OpenUpload, msg.Upload, id="once", name="a.png")
    assert other.upload != first.upload


def test_without_a_spool_all_works_until_the_gateway_ends() -> None:
    with Serving("") as serving:
        page = client(serving)
        job = page.upload(PICTURE, pipeline="invert").job.id
        assert page.ended(job).state == "done"
        assert page.file(job)


def test_what_is_no_request_is_refused_in_words(serving: Serving) -> None:
    page = client(serving)
    page.send_bytes(b"nonsense")  # without an id there is no answer, and no harm
    page.send_bytes(msgspec.msgpack.encode({"type": "get-job", "id": "a", "job": "../x"}))
    refusal = page.any_answer("a")
    assert isinstance(refusal, msg.Refusal)
    assert refusal.kind == "invalid"
    page.send_bytes(msgspec.msgpack.encode({"type": "dance", "id": "b"}))
    refusal = page.any_answer("b")
    assert isinstance(refusal, msg.Refusal)
    assert (refusal.kind, "'dance'" in refusal.sentence) == ("other-version", True)
    page.send_bytes(encode(msg.PutPiece(id="c", upload="u1", offset=0, data=bytes(300_000))))
    refusal = page.any_answer("c")
    assert isinstance(refusal, msg.Refusal)
    assert refusal.kind == "too-large"
    assert page.refused(msg.GetJob, job="j0").kind == "not-found"
    assert page.refused(msg.ReadFile, job="j0", file="result").kind == "not-found"


def test_a_client_that_floods_is_told_to_wait_and_others_are_served(serving: Serving) -> None:
    flood, page = client(serving, "flood"), client(serving)
    for number in range(400):
        flood.send(msg.ListJobs(id=f"f{number}"))
    assert page.ask(msg.ListJobs, msg.JobPage).jobs == []
    wait_for(
        lambda: len(flood.all_answers()) == 400, within=PATIENCE_S, what="an answer to each request"
    )
    answers = flood.all_answers()
    assert {one.id for one in answers} == {f"f{number}" for number in range(400)}
    assert {one.kind for one in answers if isinstance(one, msg.Refusal)} == {"busy"}
    assert sum(isinstance(one, msg.JobPage) for one in answers) >= MAX_WAITING


@pytest.mark.parametrize(
    ("fields", "kind", "word"),
    [
        (
            {"pipeline": "edgs"},
            "invalid",
            "no pipeline or operator is called 'edgs'; did you mean 'edges'?",
        ),
        ({"pipeline": "knn"}, "invalid", "draws random numbers for each image"),
        ({"pipeline": "zzz"}, "invalid", "'zzz'; configured: edges; GET /api/operators lists"),
        ({"pipeline": "canny low=x"}, "invalid", "low"),
        ({"bytes": 10**12}, "too-large", "max_file_bytes"),
        ({"format": "gif"}, "invalid", "gif"),
        ({"pages": "-1"}, "invalid", "pages"),
    ],
)
def test_an_upload_that_cannot_become_a_job_is_refused_before_its_bytes(
    serving: Serving, fields: dict[str, object], kind: str, word: str
) -> None:
    refusal = client(serving).refused(msg.OpenUpload, name="a.png", **fields)
    assert refusal.kind == kind
    assert word in refusal.sentence


def test_a_name_never_becomes_a_path(serving: Serving, tmp_path: Path) -> None:
    page = client(serving)
    job = page.upload(PICTURE, name="../../../etc/passwd\n", pipeline="invert").job
    assert job.name == "passwd\\n"
    assert page.ended(job.id).state == "done"
    names = {path.name for path in (tmp_path / "spool" / "history" / job.id).iterdir()}
    assert names == {"card.json", "original", "report", "result", "thumbnail", "trace"}


def test_the_end_of_a_job_is_told_at_once(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVERY_S", "LONGEST_S"):
        monkeypatch.setattr(f"fogmqtt.gateway.service.watchers.{name}", 600.0)
    page = client(serving)
    page.ask(msg.Watch, msg.Snapshot)
    for name in ("a.png", "b.png"):
        job = page.submit(PICTURE, name, pipeline="invert").job.id
        while "done" not in {card.state for card in page.update().jobs if card.id == job}:
            pass
