"""The HTTP API: what each request is answered with."""

import asyncio
import os
import re

import pytest
from msgspec.structs import replace

from fogmqtt import __version__
from fogmqtt.dashboard import events
from fogmqtt.dashboard.downloads import disposition
from fogmqtt.wire.service_messages import (
    PIECE_BYTES,
    CancelJob,
    DeviceCard,
    Done,
    FileFacts,
    GetView,
    ListJobs,
    OpenUpload,
    SubmitUpload,
)
from fogmqtt.wire.topics import OFFLINE
from tests.dashboard_rig import dashboard, job_card, refused, scope
from tests.gateway_rig import eventually, run

# Images in


def test_run_answers_with_the_result_when_the_job_is_done():
    async def test():
        async with dashboard() as rig:
            asking = asyncio.create_task(
                rig.send("PUT", "/api/run/gray%20|%20canny?name=a.png&priority=2", b"an image")
            )
            await eventually(lambda: "j0" in rig.gateway.jobs)
            rig.gateway.end("j0", result=b"edges")
            answer = await asking
            assert (answer.status, answer.body) == (200, b"edges")
            assert answer.headers["fogmqtt-job"] == "j0"
            (opened,) = rig.gateway.asked(OpenUpload)
            assert (opened.name, opened.priority, opened.source) == ("a.png", 2, "http")
            assert rig.gateway.uploads["u0"] == b"an image"

    run(test())


def test_run_answers_with_facts_if_the_client_asks_for_json():
    async def test():
        async with dashboard() as rig:
            asking = asyncio.create_task(
                rig.send("POST", "/api/run/stats", b"x", headers={"accept": "application/json"})
            )
            await eventually(lambda: "j0" in rig.gateway.jobs)
            rig.gateway.end("j0", result=b"image", facts=b'{"mean": 1}')
            assert (await asking).json == {"mean": 1}

    run(test())


@pytest.mark.parametrize(
    ("state", "failure", "status", "name"),
    [
        ("failed", "image", 422, "job-image"),
        ("failed", "pipeline", 422, "job-pipeline"),
        ("failed", "devices", 502, "job-devices"),
        ("failed", "no-device", 503, "no-device"),
        ("failed", "timeout", 504, "job-timeout"),
        ("failed", "delivery", 507, "job-delivery"),
        ("failed", "gateway", 500, "job-failed"),
        ("cancelled", "", 409, "job-cancelled"),
    ],
)
def test_a_job_without_a_result_is_a_problem_of_its_kind(state, failure, status, name):
    async def test():
        async with dashboard() as rig:
            asking = asyncio.create_task(rig.send("PUT", "/api/run/edges", b"no image"))
            await eventually(lambda: "j0" in rig.gateway.jobs)
            card = replace_card(rig, "j0", state=state, failure=failure, error="it did not work")
            rig.gateway.update(jobs=[card])
            answer = await asking
            assert (answer.status, answer.problem, answer.json["job"]) == (status, name, "j0")
            assert ("retry-after" in answer.headers) == (status == 503)
            if state == "failed":
                assert answer.json["detail"] == "it did not work"

    run(test())


def replace_card(rig, job, **fields):
    card = rig.gateway.jobs[job] = replace(rig.gateway.jobs[job], **fields)
    return card


def test_submit_answers_at_once_and_says_where_the_job_is():
    async def test():
        async with dashboard() as rig:
            answer = await rig.send("POST", "/api/jobs?pipeline=edges", b"an image")
            assert answer.status == 202
            assert answer.headers["location"] == "/api/jobs/j0"
            assert answer.json["id"] == "j0"

    run(test())


def test_submit_waits_for_the_result_if_it_should_and_no_longer():
    async def test():
        async with dashboard() as rig:
            late = await rig.send("POST", "/api/jobs", b"x", headers={"prefer": "wait=0"})
            assert late.status == 202
            asking = asyncio.create_task(
                rig.send("POST", "/api/jobs", b"x", headers={"prefer": "wait=20"})
            )
            await eventually(lambda: "j1" in rig.gateway.jobs)
            rig.gateway.end("j1", result=b"done")
            answer = await asking
            assert (answer.status, answer.body) == (200, b"done")
            assert answer.headers["preference-applied"] == "wait=20"

    run(test())


def test_a_refused_upload_is_a_problem_with_the_limit():
    async def test():
        async with dashboard() as rig:
            rig.gateway.max_file_bytes = 10
            answer = await rig.send("PUT", "/api/run/edges", [b"12345678", b"12345678"])
            assert (answer.status, answer.problem) == (413, "too-large")
            assert answer.json["limit"] == 10
            await eventually(lambda: rig.gateway.dropped == ["u0"])

    run(test())


def test_the_gateway_hears_how_long_a_file_is_before_it_comes():
    async def test():
        async with dashboard() as rig:
            headers = {"content-length": "800000"}
            await rig.send("POST", "/api/jobs", b"an image" * 100_000, headers=headers)
            assert rig.gateway.asked(OpenUpload)[0].bytes == 800_000

    run(test())


def test_an_upload_that_stops_is_ended():
    async def test():
        async with dashboard(body_s=0.05) as rig:
            stopped = asyncio.get_running_loop().create_future()
            pieces = [b"half"]

            async def receive():
                if pieces:
                    return {"type": "http.request", "body": pieces.pop(), "more_body": True}
                return await stopped

            sent = []

            async def send(message):
                sent.append(message)

            await rig.app(scope("PUT", "/api/run/edges", {}, "127.0.0.1"), receive, send)
            assert sent[0]["status"] == 408
            assert b"No byte of the body came for 0.05 s" in sent[1]["body"]
            await eventually(lambda: rig.gateway.dropped == ["u0"])

    run(test())


def test_an_upload_whose_sender_leaves_becomes_no_job():
    async def test():
        async with dashboard() as rig:
            await rig.send("PUT", "/api/run/edges", [b"half"], leaves=True)
            await eventually(lambda: rig.gateway.dropped == ["u0"])
            assert rig.gateway.jobs == {}

    run(test())


def test_an_empty_body_is_no_image():
    async def test():
        async with dashboard() as rig:
            answer = await rig.send("POST", "/api/jobs", b"")
            assert (answer.status, answer.problem) == (400, "no-image")

    run(test())


def test_an_idempotency_key_goes_to_the_gateway_and_another_body_is_refused():
    async def test():
        async with dashboard() as rig:
            headers = {"idempotency-key": "k1"}
            await rig.send("POST", "/api/jobs", b"x", headers=headers)
            assert rig.gateway.asked(OpenUpload)[0].idempotency_key == "k1"
            rig.gateway.hook = lambda request: (
                refused(request, "conflict", "the key belongs to another file")
                if isinstance(request, SubmitUpload)
                else None
            )
            answer = await rig.send("POST", "/api/jobs", b"y", headers=headers)
            assert (answer.status, answer.problem) == (422, "idempotency-key")

    run(test())


def test_an_idempotency_key_is_refused_while_its_first_request_comes_in():
    async def test():
        async with dashboard() as rig:
            rig.gateway.deaf = lambda request: isinstance(request, SubmitUpload)
            headers = {"idempotency-key": "k1"}
            first = asyncio.create_task(rig.send("POST", "/api/jobs", b"x", headers=headers))
            await eventually(lambda: rig.gateway.asked(SubmitUpload))
            second = await rig.send("POST", "/api/jobs", b"x", headers=headers)
            assert (second.status, second.problem) == (409, "conflict")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            rig.gateway.deaf = lambda request: False
            assert (await rig.send("POST", "/api/jobs", b"x", headers=headers)).status == 202

    run(test())


# Jobs that are there


def test_jobs_are_listed_as_the_gateway_lists_them():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1"))
            answer = await rig.get("/api/jobs?limit=7&state=done&after=c&text=a")
            assert [job["id"] for job in answer.json["jobs"]] == ["j1"]
            (asked,) = rig.gateway.asked(ListJobs)
            assert (asked.limit, asked.state, asked.after, asked.text) == (7, "done", "c", "a")

    run(test())


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/api/jobs?limit=0", "limit"),
        ("/api/jobs?limit=x", "limit"),
        ("/api/jobs?state=asleep", "state"),
        ("/api/jobs?pipline=edges", "pipline"),
        ("/api/jobs/j1/preview?area=1,2,3", "area"),
        ("/api/jobs/j1/preview?max_side=1", "max_side"),
        ("/api/forecast?height=10", "width"),
    ],
)
def test_a_wrong_parameter_is_named(path, word):
    async def test():
        async with dashboard() as rig:
            answer = await rig.get(path)
            assert (answer.status, answer.problem) == (400, "invalid")
            assert word in answer.json["detail"]

    run(test())


@pytest.mark.parametrize(
    "path",
    [
        "/api/jobs/j9",
        "/api/jobs/J9",
        "/api/jobs/..",
        "/api/jobs/%2e%2e/image",
        "/api/jobs/../../etc/passwd",
        "/api/jobs/j9/image",
        "/api/jobs/j9/secrets",
        "/api/nothing",
        "/../pyproject.toml",
        "/static/../../errors.py",
        "/.hidden",
        "//etc/passwd",
    ],
)
def test_what_is_not_there_is_a_problem_and_no_file(path):
    async def test():
        async with dashboard() as rig:
            answer = await rig.get(path)
            assert (answer.status, answer.problem) == (404, "not-found")

    run(test())


def test_another_method_is_told_which_ones_there_are():
    async def test():
        async with dashboard() as rig:
            answer = await rig.send("PATCH", "/api/jobs/j1")
            assert (answer.status, answer.problem) == (405, "method")
            assert answer.headers["allow"] == "DELETE, GET, HEAD"

    run(test())


def test_a_job_is_cancelled_in_the_name_of_who_asked():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1"))
            assert (await rig.send("DELETE", "/api/jobs/j1")).json["id"] == "j1"
            (asked,) = rig.gateway.asked(CancelJob)
            assert asked.reason == "cancelled by this machine"

    run(test())


def test_a_file_has_a_tag_and_is_not_sent_twice():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1", state="done"), result=b"image")
            first = await rig.get("/api/jobs/j1/image")
            assert (first.status, first.body) == (200, b"image")
            assert first.headers["content-length"] == "5"
            assert "immutable" in first.headers["cache-control"]
            again = await rig.get("/api/jobs/j1/image", if_none_match=first.headers["etag"])
            assert (again.status, again.body) == (304, b"")

    run(test())


@pytest.mark.parametrize(
    ("wanted", "part", "content_range"),
    [
        ("bytes=0-3", slice(0, 4), "bytes 0-3/{}"),
        ("bytes=200000-", slice(200_000, None), "bytes 200000-{last}/{}"),
        ("bytes=-5", slice(-5, None), "bytes {begin5}-{last}/{}"),
        ("bytes=299999-999999999", slice(299_999, None), "bytes 299999-{last}/{}"),
    ],
)
def test_a_range_is_that_part_of_the_file(wanted, part, content_range):
    data = os.urandom(300_001)
    size = len(data)

    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1", state="done"), result=data)
            answer = await rig.get("/api/jobs/j1/image", range=wanted)
            assert (answer.status, answer.body) == (206, data[part])
            expected = content_range.format(size, last=size - 1, begin5=size - 5)
            assert answer.headers["content-range"] == expected

    run(test())


@pytest.mark.parametrize("wanted", ["bytes=0-1,3-4", "lines=1-2", "bytes=5-2", "bytes=-", "5"])
def test_a_range_of_another_kind_is_answered_with_the_whole_file(wanted):
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1", state="done"), result=b"image")
            answer = await rig.get("/api/jobs/j1/image", range=wanted)
            assert (answer.status, answer.body) == (200, b"image")

    run(test())


def test_a_range_behind_the_end_is_refused_with_the_size():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1", state="done"), result=b"image")
            answer = await rig.get("/api/jobs/j1/image", range="bytes=5-")
            assert (answer.status, answer.problem) == (416, "range")
            assert answer.headers["content-range"] == "bytes */5"
            old = await rig.get("/api/jobs/j1/image", range="bytes=0-1", if_range='"xxh3-0"')
            assert (old.status, old.body) == (200, b"image")

    run(test())


def test_a_large_file_is_read_in_pieces_and_arrives_whole():
    data = os.urandom(5 * PIECE_BYTES + 1)

    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1", state="done"), original=data)
            assert (await rig.get("/api/jobs/j1/original")).body == data

    run(test())


def test_a_file_that_is_not_there_yet_says_so():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1"))
            answer = await rig.get("/api/jobs/j1/image")
            assert answer.status == 404
            assert answer.json["detail"] == "The job j1 is running and has no result yet."

    run(test())


@pytest.mark.parametrize(
    ("name", "kind", "header"),
    [
        ("a.png", "image/png", 'inline; filename="a.png"'),
        ("a.html", "text/html", 'attachment; filename="a.html"'),
        (
            'ü/"\\\r\n.png',
            "image/png",
            "inline; filename=\"________.png\"; filename*=UTF-8''%C3%BC_%22_%0D%0A.png",
        ),
    ],
)
def test_the_name_for_saving_is_safe(name, kind, header):
    facts = FileFacts(name=name, media_type=kind, bytes=1, digest="0")
    made = disposition(facts)
    assert made.partition(";")[0] == header.partition(";")[0]
    assert "\r" not in made
    assert "\n" not in made
    if "*" in header:
        assert made.endswith(header.partition("filename*=")[2])
    else:
        assert made == header


def test_a_preview_is_asked_for_as_the_page_wants_it_and_not_sent_twice():
    async def test():
        async with dashboard() as rig:
            path = "/api/jobs/j1/preview?of=original&area=1,2,3,4&max_side=64&format=png&since=2"
            answer = await rig.get(path)
            assert (answer.status, answer.body) == (200, b"a picture")
            assert answer.headers["fogmqtt-view"] == "3"
            assert answer.headers["fogmqtt-size"] == "9,9"
            (asked,) = rig.gateway.asked(GetView)
            assert (asked.file, asked.area, asked.max_side) == ("original", (1, 2, 3, 4), 64)
            assert (asked.format, asked.version) == ("png", 2)
            again = await rig.get(path, if_none_match=answer.headers["etag"])
            assert (again.status, again.body) == (304, b"")
            assert (await rig.get("/api/jobs/j1/preview?since=3")).status == 304

    run(test())


# The fleet, and what supervisors ask


def test_devices_and_gateway_are_as_the_gateway_says_now():
    async def test():
        async with dashboard() as rig:
            rig.gateway.devices = [DeviceCard(id="eya", activity="idle", sentence="Waits.")]
            assert [one["id"] for one in (await rig.get("/api/devices")).json["devices"]] == ["eya"]
            assert (await rig.get("/api/gateway")).json["id"] == "mariem"

    run(test())


def test_a_gateway_that_is_away_is_a_problem_and_not_ready():
    async def test():
        async with dashboard() as rig:
            await eventually(lambda: rig.client.is_online)
            assert (await rig.get("/readyz")).status == 200
            rig.gateway.say(OFFLINE)
            await eventually(lambda: not rig.client.is_online)
            answer = await rig.get("/readyz")
            assert (answer.status, answer.problem) == (503, "no-answer")
            assert answer.json["detail"] == "The gateway mariem is offline."
            assert answer.headers["retry-after"] == "5"
            assert (await rig.get("/healthz")).status == 200

    run(test())


def test_prometheus_reads_the_figures_of_the_gateway_and_whether_it_is_there():
    async def test():
        async with dashboard() as rig:
            await eventually(lambda: rig.client.is_online)
            answer = await rig.get("/metrics")
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert b"\nfogmqtt_hedges_total 3.0\n" in answer.body
            rig.gateway.say(OFFLINE)
            await eventually(lambda: not rig.client.is_online)
            answer = await rig.get("/metrics")
            assert answer.status == 200
            assert b"\nfogmqtt_up 0.0\n" in answer.body
            assert b"hedges" not in answer.body

    run(test())


def test_a_gateway_that_does_not_know_a_request_is_named_as_of_another_version():
    async def test():
        async with dashboard() as rig:
            rig.gateway.hook = lambda request: refused(
                request, "other-version", "this gateway does not know ListOperators"
            )
            answer = await rig.get("/api/operators")
            assert (answer.status, answer.problem) == (501, "other-version")
            assert "does not know ListOperators" in answer.json["detail"]
            rig.gateway.hook = lambda request: Done(id=request.id, v=2)
            answer = await rig.get("/api/operators")
            assert (answer.status, answer.problem) == (501, "other-version")
            assert "of another version than this dashboard" in answer.json["detail"]

    run(test())


def test_a_fault_of_the_dashboard_is_a_problem_too():
    async def test():
        async with dashboard() as rig:
            rig.client.ask = lambda *arguments, **options: 1 / 0
            sent = []

            async def send(message):
                sent.append(message)

            async def receive():
                return {"type": "http.request", "body": b"", "more_body": False}

            with pytest.raises(ZeroDivisionError):  # uvicorn logs it
                await rig.app(scope("GET", "/api/jobs", {}, "127.0.0.1"), receive, send)
            assert sent[0]["status"] == 500
            assert b"The dashboard met a fault of its own" in sent[1]["body"]

    run(test())


def test_all_answers_have_the_version_and_the_headers_that_protect_a_browser():
    async def test():
        async with dashboard() as rig:
            for path in ("/api/devices", "/api/nothing", "/healthz"):
                headers = (await rig.get(path)).headers
                assert headers["fogmqtt-version"] == __version__
                assert headers["x-content-type-options"] == "nosniff"
                assert "frame-ancestors 'none'" in headers["content-security-policy"]
                assert "unsafe" not in headers["content-security-policy"]
                assert "access-control-allow-origin" not in headers

    run(test())


# Events


class Reader:
    """A client of the event stream."""

    def __init__(self, rig, last_id=""):
        self.said = b""
        self.status = 0
        self.left = asyncio.Event()
        self.ended = False
        self._rig, self._last_id = rig, last_id

    async def read(self):
        async def receive():
            await self.left.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            self.status = message.get("status", self.status)
            self.said += message.get("body", b"")
            self.ended = message["type"].endswith("body") and not message.get("more_body")

        headers = {"last-event-id": self._last_id} if self._last_id else {}
        await self._rig.app(scope("GET", "/api/events", headers, "127.0.0.1"), receive, send)

    def count(self, kind):
        return self.said.count(b"event: " + kind)


def start_reader(rig, last_id=""):
    reader = Reader(rig, last_id)
    task = asyncio.create_task(reader.read())
    return reader, task


def test_events_begin_with_the_link_and_a_snapshot_and_go_on_with_updates():
    async def test():
        async with dashboard() as rig:
            reader, task = start_reader(rig)
            await eventually(lambda: reader.count(b"snapshot"))
            assert reader.said.index(b"event: link") < reader.said.index(b"event: snapshot")
            rig.gateway.update(jobs=[job_card("j5")])
            await eventually(lambda: b"id: boot-1.1\n" in reader.said)
            assert b'"j5"' in reader.said
            reader.left.set()
            await task
            assert rig.hub.streams == 0

    run(test())


def test_many_updates_in_a_moment_become_one():
    async def test():
        async with dashboard() as rig:
            reader, task = start_reader(rig)
            await eventually(lambda: reader.count(b"snapshot"))
            for number in range(50):
                rig.gateway.update(jobs=[job_card(f"j{number}")])
            await eventually(lambda: b"id: boot-1.50\n" in reader.said)
            assert reader.count(b"update") < 10
            assert all(f'"j{number}"'.encode() in reader.said for number in range(50))
            reader.left.set()
            await task

    run(test())


def test_a_reader_that_comes_back_gets_what_it_missed():
    async def test():
        async with dashboard() as rig:
            stays, staying = start_reader(rig)
            await eventually(lambda: stays.count(b"snapshot"))
            rig.gateway.update(jobs=[job_card("j1")])
            await eventually(lambda: b"boot-1.1\n" in stays.said)
            rig.gateway.update(jobs=[job_card("j2")])
            await eventually(lambda: b"boot-1.2\n" in stays.said)
            back, task = start_reader(rig, "boot-1.1")
            await eventually(lambda: back.count(b"update"))
            assert back.count(b"snapshot") == 0
            assert b'"j2"' in back.said
            assert b'"j1"' not in back.said
            other, another = start_reader(rig, "boot-0.7")
            await eventually(lambda: other.count(b"snapshot"))
            for reader in (stays, back, other):
                reader.left.set()
            await asyncio.gather(staying, task, another)

    run(test())


def test_a_gateway_that_goes_away_is_told_to_all_readers_at_once():
    async def test():
        async with dashboard() as rig:
            reader, task = start_reader(rig)
            await eventually(lambda: reader.count(b"snapshot"))
            rig.gateway.say(OFFLINE)
            await eventually(lambda: b"The gateway mariem is offline" in reader.said)
            reader.left.set()
            await task

    run(test())


def test_a_quiet_stream_says_that_it_lives(monkeypatch):
    monkeypatch.setattr(events, "COMMENT_S", 0.02)

    async def test():
        async with dashboard() as rig:
            reader, task = start_reader(rig)
            await eventually(lambda: b": still here" in reader.said)
            reader.left.set()
            await task

    run(test())


def test_one_stream_too_many_is_refused_and_a_place_becomes_free(monkeypatch):
    monkeypatch.setattr(events, "MOST_STREAMS", 2)

    async def test():
        async with dashboard() as rig:
            readers = [start_reader(rig) for _ in range(2)]
            await eventually(lambda: rig.hub.streams == 2)
            answer = await rig.get("/api/events")
            assert (answer.status, answer.problem) == (503, "too-many-streams")
            assert answer.headers["retry-after"] == "15"
            readers[0][0].left.set()
            await readers[0][1]
            third, task = start_reader(rig)
            await eventually(lambda: third.count(b"snapshot"))
            for reader in (readers[1][0], third):
                reader.left.set()
            await asyncio.gather(readers[1][1], task)

    run(test())


def test_the_ring_forgets_the_oldest_events_and_a_reader_that_lags_is_ended(monkeypatch):
    monkeypatch.setattr(events, "RING", 3)

    async def test():
        async with dashboard() as rig:
            for _ in range(5):
                rig.hub.link(True, "again")
            assert await rig.hub.next(rig.hub.end - 3) is not None
            assert await rig.hub.next(rig.hub.end - 4) is None

    run(test())


# The page


@pytest.fixture
def page(tmp_path):
    (tmp_path / "views").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>" + "<p>words</p>" * 200)
    (tmp_path / "views/fleet.js").write_text("export const a = 1\n")
    return tmp_path


def test_the_page_is_compressed_and_not_sent_twice(page):
    async def test():
        async with dashboard(static=page) as rig:
            plain = await rig.get("/")
            small = await rig.get("/", accept_encoding="br, gzip")
            assert plain.headers["content-type"] == "text/html; charset=utf-8"
            assert small.headers["content-encoding"] == "gzip"
            assert len(small.body) < len(plain.body) / 5
            assert plain.headers["cache-control"] == "no-cache"
            again = await rig.get("/", accept_encoding="gzip", if_none_match=small.headers["etag"])
            assert again.status == 304
            script = await rig.get("/views/fleet.js")
            assert script.headers["content-type"] == "text/javascript; charset=utf-8"

    run(test())


def test_a_changed_file_of_the_page_is_sent_anew(page):
    async def test():
        async with dashboard(static=page) as rig:
            before = await rig.get("/views/fleet.js")
            (page / "views/fleet.js").write_text("export const a = 22\n")
            after = await rig.get("/views/fleet.js", if_none_match=before.headers["etag"])
            assert (after.status, after.body) == (200, b"export const a = 22\n")

    run(test())


@pytest.fixture
def modules(page):
    (page / "index.html").write_text(
        '<link rel="stylesheet" href="page.css"><script type="module" src="app.js"></script>'
    )
    (page / "page.css").write_text("p { color: red; }\n")
    (page / "app.js").write_text('import { a } from "./views/fleet.js";\nconsole.log(a);\n')
    return page


async def asked_for(rig):
    """Return what the page of the dashboard asks for."""
    return re.findall(r'(?:src|href)="([^"]+)"', (await rig.get("/")).body.decode())


def test_the_page_asks_once_for_all_modules_and_may_keep_what_it_got(modules):
    async def test():
        async with dashboard(static=modules) as rig:
            style, script = await asked_for(rig)
            assert (style.partition("?")[0], script.partition("?")[0]) == ("page.css", "page.js")
            for name in (style, script):
                answer = await rig.get(f"/{name}")
                assert answer.headers["cache-control"] == "max-age=31536000, immutable"
            assert b"export" not in answer.body
            assert b"console.log(a);" in answer.body
            # Another name than that of what is there now, such as the one of an older page.
            for name in ("/page.js", "/page.js?0123456789abcdef"):
                assert (await rig.get(name)).headers["cache-control"] == "no-cache"

    run(test())


def test_a_changed_module_gives_the_page_another_address(modules):
    async def test():
        async with dashboard(static=modules) as rig:
            style, script = await asked_for(rig)
            (modules / "views/fleet.js").write_text("export const a = 22\n")
            style_after, script_after = await asked_for(rig)
            assert style_after == style
            assert script_after != script
            assert b"const a = 22" in (await rig.get(f"/{script_after}")).body

    run(test())


def test_by_its_name_the_page_is_that_of_the_modules_as_they_are_written(modules):
    async def test():
        async with dashboard(static=modules) as rig:
            plain = await rig.get("/index.html")
            assert plain.body == (modules / "index.html").read_bytes()
            script = await rig.get("/app.js")
            assert script.body == (modules / "app.js").read_bytes()

    run(test())


def test_a_module_that_cannot_be_joined_is_named(modules):
    async def test():
        async with dashboard(static=modules) as rig:
            (modules / "views/fleet.js").write_text("export let a = 1\n")
            answer = await rig.get("/")
            assert answer.status == 500
            assert "views/fleet.js: 'export let a = 1' cannot be joined" in answer.json["detail"]

    run(test())
