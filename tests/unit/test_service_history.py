"""Ended jobs stay in the history over restarts, within its limits, with the files they have."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import pytest
import xxhash

from fogmqtt.config.schema import HistorySettings, LimitSettings
from fogmqtt.gateway.service.history import EndedJob, History
from fogmqtt.gateway.service.uploads import ABANDONED_S, Uploads
from fogmqtt.gateway.storage.api import SpoolEntry
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.wire import service_messages as msg
from tests.fog import wait_for
from tests.processes import photo
from tests.service_client import ServiceClient, submit_file
from tests.serving import PICTURE, Serving
from tests.unit.test_service import client

BROKEN = PICTURE[: len(PICTURE) // 2]


def names(page: ServiceClient, **asked: object) -> list[str]:
    return [card.name for card in page.ask(msg.ListJobs, msg.JobPage, **asked).jobs]


def done(page: ServiceClient, name: str, **fields: object) -> msg.JobCard:
    return page.ended(page.upload(PICTURE, name, **fields).job.id)


def test_the_history_outlives_the_gateway(tmp_path: Path) -> None:
    spool = str(tmp_path / "spool")
    with Serving(spool) as serving:
        page = client(serving)
        card = done(page, "a.png", pipeline="invert", who="aziz")
        failed = page.ended(page.upload(BROKEN, "broken.png").job.id)
        assert (failed.state, failed.retryable) == ("failed", False)
        assert failed.error
        result = page.file(card.id)
    with Serving(spool) as serving:
        page = client(serving)
        assert page.card(card.id) == card
        assert page.file(card.id) == result
        assert page.card(failed.id) == failed
        assert names(page) == ["broken.png", "a.png"]


def test_the_files_of_an_inbox_job_are_where_they_are(tmp_path: Path) -> None:
    inbox, outbox = tmp_path / "in", tmp_path / "out"
    with Serving(str(tmp_path / "spool"), inbox=str(inbox), outbox=str(outbox)) as serving:
        page = client(serving)
        (inbox / "shot.png").write_bytes(PICTURE)
        wait_for(lambda: names(page, state="done") == ["shot.png"], within=60, what="the job")
        (card,) = page.ask(msg.ListJobs, msg.JobPage).jobs
        assert card.source == "inbox"
        assert page.file(card.id, "original") == PICTURE
        assert page.file(card.id) == (outbox / "shot.png").read_bytes()
        kept = {path.name for path in (tmp_path / "spool/history" / card.id).iterdir()}
        assert kept == {"card.json", "report", "thumbnail", "trace"}
        # A file that somebody removed is not there any more, and all else still is.
        (outbox / "shot.png").unlink()
        assert "result" not in page.card(card.id).files
        assert page.refused(msg.ReadFile, job=card.id, file="result").kind == "not-found"
        assert page.refused(msg.GetView, job=card.id).kind == "not-found"
        assert page.file(card.id, "original") == PICTURE


def test_pages_of_jobs_follow_each_other_and_are_filtered(tmp_path: Path) -> None:
    with Serving(str(tmp_path / "spool")) as serving:
        page = client(serving)
        for number in range(3):
            done(page, f"{number}.png", pipeline="invert" if number % 2 else "gray")
        seen, cursor = [], ""
        while True:
            found = page.ask(msg.ListJobs, msg.JobPage, limit=2, after=cursor)
            seen += [card.name for card in found.jobs]
            if not (cursor := found.next):
                break
        assert seen == ["2.png", "1.png", "0.png"]
        assert names(page, text="INVERT") == ["1.png"]
        assert names(page, state="failed") == []
        assert page.refused(msg.ListJobs, after="nonsense").kind == "invalid"


def test_a_job_is_repeated_with_another_pipeline(tmp_path: Path) -> None:
    with Serving(str(tmp_path / "spool")) as serving:
        page = client(serving)
        first = done(page, "a.png", pipeline="invert")
        again = page.ask(
            msg.RepeatJob, msg.JobAnswer, job=first.id, pipeline="gray", who="aziz"
        ).job
        assert (again.name, again.pipeline, again.who) == ("a.png", "gray", "aziz")
        assert page.ended(again.id).state == "done"
        assert page.file(again.id, "original") == PICTURE
        assert page.file(first.id, "original") == PICTURE
        wrong = page.refused(msg.RepeatJob, job=first.id, pipeline="gry")
        assert wrong.kind == "invalid"
        (tmp_path / "spool/history" / first.id / "original").unlink()
        assert page.refused(msg.RepeatJob, job=first.id, pipeline="gray").kind == "not-found"


def test_a_dead_letter_is_done_again(tmp_path: Path) -> None:
    outbox = tmp_path / "out"
    outbox.write_bytes(b"a file where the folder should be")
    inbox = tmp_path / "in"
    with Serving(str(tmp_path / "spool"), inbox=str(inbox), outbox=str(outbox)) as serving:
        page = client(serving)
        (inbox / "shot.png").write_bytes(PICTURE)
        wait_for(lambda: names(page, state="failed") == ["shot.png"], within=60, what="the job")
        (card,) = page.ask(msg.ListJobs, msg.JobPage).jobs
        assert card.retryable
        outbox.unlink()
        again = page.ask(msg.RetryJob, msg.JobAnswer, job=card.id, who="aziz").job
        assert (again.source, again.who) == ("retry", "aziz")
        assert page.ended(again.id).state == "done"
        assert not page.card(card.id).retryable
        assert page.refused(msg.RetryJob, job=card.id).kind == "invalid"


def test_an_idempotency_key_makes_one_job_of_one_file_over_restarts(tmp_path: Path) -> None:
    spool, key = str(tmp_path / "spool"), "k-1"
    with Serving(spool) as serving:
        page = client(serving)
        first = page.upload(PICTURE, idempotency_key=key)
        again = page.upload(PICTURE, idempotency_key=key)
        assert (first.repeated, again.repeated) == (False, True)
        assert first.job.id == again.job.id
        page.ended(first.job.id)
    with Serving(spool) as serving:
        page = client(serving)
        again = page.upload(PICTURE, idempotency_key=key)
        assert (again.repeated, again.job.id, again.job.state) == (True, first.job.id, "done")
        other = cv2.imencode(".png", photo(8, 8))[1].tobytes()
        upload = page.ask(msg.OpenUpload, msg.Upload, name="b.png", idempotency_key=key).upload
        page.ask(msg.PutPiece, msg.Upload, upload=upload, offset=0, data=other)
        digest = xxhash.xxh3_64_hexdigest(other)
        refusal = page.refused(msg.SubmitUpload, upload=upload, digest=digest)
        assert (refusal.kind, "another file" in refusal.sentence) == ("conflict", True)


def test_an_idempotency_key_belongs_to_what_was_asked_for_too(tmp_path: Path) -> None:
    with Serving(str(tmp_path / "spool")) as serving:
        page = client(serving)
        asked = {"name": "a.png", "pipeline": "invert", "idempotency_key": "k-1"}
        first = page.submit(PICTURE, **asked)
        assert page.submit(PICTURE, **asked).job.id == first.job.id
        for other in ({"pipeline": "gray"}, {"format": "webp"}, {"verify": True}, {"priority": 1}):
            request = submit_file(PICTURE, **(asked | other))
            refusal = page.refused(msg.SubmitFile, **request)
            assert (refusal.kind, "other parameters" in refusal.sentence) == ("conflict", True)


def test_a_file_in_one_message_is_checked_and_becomes_a_job(tmp_path: Path) -> None:
    limits = LimitSettings(max_file_bytes=100_000)
    with Serving(str(tmp_path / "spool"), limits=limits) as serving:
        page = client(serving)
        job = page.submit(PICTURE, name="a.png", pipeline="invert").job.id
        assert page.ended(job).state == "done"
        assert page.file(job, "original") == PICTURE
        assert page.refused(msg.SubmitFile, **submit_file(b"", name="a")).kind == "invalid"
        assert page.refused(msg.SubmitFile, **submit_file(PICTURE, name="a") | {"digest": "0"})
        too_large = page.refused(msg.SubmitFile, **submit_file(bytes(100_001), name="a"))
        assert (too_large.kind, too_large.limit) == ("too-large", 100_000)


def test_a_card_says_what_kind_of_failure_it_was(tmp_path: Path) -> None:
    def failure(page: ServiceClient, data: bytes, **asked: Any) -> str:
        return page.ended(page.submit(data, **asked).job.id).failure

    with Serving(str(tmp_path / "spool")) as serving:
        page = client(serving)
        assert failure(page, b"no image") == "image"
        assert failure(page, PICTURE, pipeline="crop top=500 left=0 height=9 width=9") == "pipeline"
        assert failure(page, PICTURE, pipeline="invert") == ""
    with Serving(str(tmp_path / "spool"), local="never") as serving:
        assert failure(client(serving), PICTURE, timeout_s=0.2) == "no-device"


def test_an_upload_is_checked_while_it_comes(tmp_path: Path) -> None:
    limits = LimitSettings(max_file_bytes=10_000, max_uploads=2)
    with Serving(str(tmp_path / "spool"), limits=limits) as serving:
        page, other = client(serving), client(serving, "other")
        upload = page.ask(msg.OpenUpload, msg.Upload, name="a.png").upload
        put = {"upload": upload, "offset": 0, "data": b"x" * 6000}
        assert page.ask(msg.PutPiece, msg.Upload, **put).received == 6000
        assert page.ask(msg.PutPiece, msg.Upload, **put).received == 6000  # repeated
        assert other.refused(msg.PutPiece, **put).kind == "not-found"
        assert page.refused(msg.PutPiece, upload=upload, offset=7000, data=b"").kind == "conflict"
        assert other.ask(msg.OpenUpload, msg.Upload, name="b.png").received == 0
        assert other.refused(msg.OpenUpload, name="c.png").kind == "busy"
        more = {"upload": upload, "offset": 6000, "data": b"x" * 6000}
        assert page.refused(msg.PutPiece, **more).kind == "too-large"
        assert page.refused(msg.PutPiece, **more).kind == "not-found"
        again = page.ask(msg.OpenUpload, msg.Upload, name="a.png").upload
        page.ask(msg.PutPiece, msg.Upload, upload=again, offset=0, data=PICTURE[:100])
        assert page.refused(msg.SubmitUpload, upload=again, digest="0" * 16).kind == "invalid"
        assert len(list((tmp_path / "spool/uploads").iterdir())) == 1


def test_uploads_of_a_killed_gateway_and_of_silent_senders_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "uploads"
    uploads = Uploads(folder, DurableFiles(), 1000, 4)
    uploads.load()
    asked = msg.OpenUpload(id="r", name="a.png")
    uploads.open("page", "u1", asked)
    restarted = Uploads(folder, DurableFiles(), 1000, 4)
    restarted.load()
    assert list(folder.iterdir()) == []
    restarted.open("page", "u2", asked)
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + ABANDONED_S + 1)
    restarted.remove_abandoned()
    assert not restarted.any_open
    assert list(folder.iterdir()) == []


def ended(number: int, at: float) -> EndedJob:
    entry = SpoolEntry(job=f"j{number}", name="a.png", pipeline="gray")
    card = msg.JobCard(
        id=entry.job, name="a.png", pipeline="gray", state="done", accepted_at=at, ended_at=at
    )
    return EndedJob(card=card, entry=entry)


def test_the_oldest_jobs_leave_a_history_that_is_full(tmp_path: Path) -> None:
    moment = time.time()
    kept = History(tmp_path, HistorySettings(max_jobs=3), DurableFiles())
    kept.load()
    gone = [job for number in range(5) for job in kept.add(ended(number, moment + number))]
    assert gone == ["j0", "j1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j2", "j3", "j4"]


def test_old_jobs_leave_the_history(tmp_path: Path) -> None:
    moment = time.time()
    kept = History(tmp_path, HistorySettings(keep_s=1000), DurableFiles())
    kept.load()
    for number, age in enumerate((500, 5)):
        assert kept.add(ended(number, moment - age)) == []
    History(tmp_path, HistorySettings(keep_s=100), DurableFiles()).load()
    assert [path.name for path in tmp_path.iterdir()] == ["j1"]


def test_a_history_takes_no_more_bytes_than_it_may_but_keeps_the_newest(tmp_path: Path) -> None:
    kept = History(tmp_path, HistorySettings(max_bytes=5000), DurableFiles())
    kept.load()
    for number in range(3):
        kept.keep(f"j{number}", "result", bytes(4000))
        kept.add(ended(number, time.time()))
    assert [path.name for path in tmp_path.iterdir()] == ["j2"]
    kept.keep("j9", "result", bytes(90_000))
    kept.add(ended(9, time.time()))
    assert [path.name for path in tmp_path.iterdir()] == ["j9"]


def test_what_a_killed_gateway_left_incomplete_is_removed(tmp_path: Path) -> None:
    (tmp_path / "j1").mkdir()
    (tmp_path / "j1" / "result").write_bytes(b"x")
    (tmp_path / "j2").mkdir()
    (tmp_path / "j2" / "card.json").write_bytes(b"{nonsense")
    kept = History(tmp_path, HistorySettings(), DurableFiles())
    kept.load()
    assert list(tmp_path.iterdir()) == []


def test_half_a_card_that_was_to_replace_the_whole_one_is_removed(tmp_path: Path) -> None:
    kept = History(tmp_path, HistorySettings(), DurableFiles())
    kept.load()
    kept.add(ended(1, time.time()))
    (tmp_path / "j1" / ".card.json.part").write_bytes(b"{half")
    again = History(tmp_path, HistorySettings(), DurableFiles())
    again.load()
    assert again.get("j1") is not None
    assert [path.name for path in (tmp_path / "j1").iterdir()] == ["card.json"]
