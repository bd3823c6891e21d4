"""Streams over HTTP and one WebSocket: who looks gets the newest frame, and delays nobody else."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

from fogmqtt.dashboard.looking import MOST_VIEWERS, fitting_width
from fogmqtt.dashboard.tokens import Tokens
from fogmqtt.wire.service_messages import (
    Answer,
    GetStreamFrame,
    ListStreams,
    Request,
    StreamCard,
    StreamFrame,
    StreamList,
)
from fogmqtt.wire.stream_messages import StreamState
from tests.dashboard_rig import Rig, dashboard, refused, scope
from tests.gateway_rig import eventually, run


class Camera:
    """Plays the streams of a gateway: each request for a frame waits until the test gives one."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.version = 0
        self.name = "yard"
        self.waiting: list[GetStreamFrame] = []
        rig.gateway.hook = self._hook
        rig.gateway.deaf = self._is_held

    def give(self) -> None:
        """A new frame is there."""
        self.version += 1
        waiting, self.waiting = self.waiting, []
        for asked in waiting:
            self.rig.gateway.answer(self._frame(asked))

    def _is_held(self, asked: Request) -> bool:
        if not isinstance(asked, GetStreamFrame) or asked.stream != self.name:
            return False
        held = str(self.version or "") == asked.after and asked.wait_s > 0
        if held and all(one.id != asked.id for one in self.waiting):
            self.waiting.append(asked)
        return held

    def _hook(self, asked: Request) -> Answer | None:
        if isinstance(asked, ListStreams):
            state = StreamState(fps_in=10.0, published=self.version)
            card = StreamCard(
                name=self.name, status="online", sentence="Runs.", tone="good", state=state
            )
            return StreamList(id=asked.id, streams=[card])
        if not isinstance(asked, GetStreamFrame):
            return None
        if asked.stream != self.name:
            return refused(asked, "not-found", f"there is no stream {asked.stream!r}")
        return self._frame(asked)

    def _frame(self, asked: GetStreamFrame) -> StreamFrame:
        version = str(self.version) if self.version else ""
        if not version or version == asked.after:
            return StreamFrame(id=asked.id, version=version)
        data = f"frame {version} of {asked.width}".encode()
        return StreamFrame(
            id=asked.id, version=version, seq=self.version, captured_at=5.0, age_s=0.1, data=data
        )


class Viewer:
    """Looks at a stream: an HTTP request or a WebSocket whose answer the test reads as it likes."""

    def __init__(self, rig: Rig, asked: dict[str, Any]) -> None:
        self.sent: asyncio.Queue[Any] = asyncio.Queue()
        self.said: asyncio.Queue[Any] = asyncio.Queue()
        #: Cleared while the viewer takes nothing.
        self.takes = asyncio.Event()
        self.takes.set()
        self.task = asyncio.create_task(rig.app(asked, self.said.get, self._take))

    async def _take(self, message: Any) -> None:
        await self.sent.put(message)
        await self.takes.wait()

    async def next(self, kind: str) -> Any:
        async with asyncio.timeout(30):
            while (message := await self.sent.get())["type"] != kind:
                continue
        return message

    async def part(self) -> bytes:
        """The next picture of an endless answer."""
        body: bytes = (await self.next("http.response.body"))["body"]
        return body.partition(b"\r\n\r\n")[2].rstrip()

    async def leave(self, kind: str = "http.disconnect") -> None:
        self.said.put_nowait({"type": kind, "code": 1001})
        self.takes.set()
        await asyncio.wait_for(self.task, 30)


@asynccontextmanager
async def looking(**options: Any):
    async with dashboard(**options) as rig:
        yield rig, Camera(rig)


def mjpeg(rig: Rig, path: str = "/api/streams/yard/stream.mjpeg") -> Viewer:
    return Viewer(rig, scope("GET", path, {}, "127.0.0.1"))


def socket(rig: Rig, peer: str = "127.0.0.1", **headers: str) -> Viewer:
    asked = {**scope("GET", "/api/live", headers, peer), "type": "websocket", "subprotocols": []}
    asked["extensions"] = {"websocket.http.response": {}}
    viewer = Viewer(rig, asked)
    viewer.said.put_nowait({"type": "websocket.connect"})
    return viewer


def say(viewer: Viewer, **told: Any) -> None:
    viewer.said.put_nowait({"type": "websocket.receive", "text": json.dumps(told)})


def shown(message: Any) -> tuple[dict[str, Any], bytes]:
    data = message["bytes"]
    length = int.from_bytes(data[:2], "big")
    return json.loads(data[2 : 2 + length]), data[2 + length :]


async def picture(viewer: Viewer) -> tuple[dict[str, Any], bytes]:
    while True:
        message = await viewer.next("websocket.send")
        if message.get("bytes"):
            return shown(message)


def test_the_list_has_the_figures_of_each_stream() -> None:
    async def test() -> None:
        async with looking() as (rig, _):
            answer = await rig.get("/api/streams")
            (card,) = answer.json["streams"]
            assert (card["name"], card["sentence"], card["state"]["fps_in"]) == (
                "yard",
                "Runs.",
                10,
            )

    run(test())


def test_one_frame_has_a_tag_and_is_not_sent_twice() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            camera.give()
            answer = await rig.get("/api/streams/yard/frame.jpg?w=300")
            assert (answer.status, answer.body) == (200, b"frame 1 of 320")
            assert answer.headers["content-type"] == "image/jpeg"
            assert answer.headers["fogmqtt-age"] == "0.100"
            tag = answer.headers["etag"]
            again = await rig.get("/api/streams/yard/frame.jpg?w=300", if_none_match=tag)
            assert (again.status, again.body) == (304, b"")
            camera.give()
            again = await rig.get("/api/streams/yard/frame.jpg?w=300", if_none_match=tag)
            assert (again.status, again.body) == (200, b"frame 2 of 320")

    run(test())


def test_a_stream_without_a_frame_is_a_problem_in_words_and_never_an_old_picture() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            asking = asyncio.create_task(rig.get("/api/streams/yard/frame.jpg"))
            await eventually(lambda: camera.waiting)
            rig.gateway.answer(StreamFrame(id=camera.waiting[0].id))
            answer = await asking
            assert (answer.status, answer.problem) == (404, "no-frame")
            gone = await rig.get("/api/streams/yard/frame.jpg", if_none_match='"7.1"')
            assert gone.status == 404

    run(test())


def test_names_of_no_stream_are_not_found() -> None:
    async def test() -> None:
        async with looking() as (rig, _):
            for path in ("gate/frame.jpg", "gate/stream.mjpeg", "NO/frame.jpg", "a%0Ab/frame.jpg"):
                answer = await rig.get(f"/api/streams/{path}")
                assert (answer.status, answer.problem) == (404, "not-found")
            assert (await rig.get("/api/streams/yard/frame.jpg?w=-1")).status == 400

    run(test())


def test_a_slow_viewer_gets_the_newest_frame_and_delays_no_other() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            camera.give()
            slow, quick = mjpeg(rig), mjpeg(rig)
            assert await slow.part() == b"frame 1 of 0"
            assert await quick.part() == b"frame 1 of 0"
            slow.takes.clear()
            for version in range(2, 7):
                await eventually(lambda: camera.waiting)
                camera.give()
                assert await quick.part() == f"frame {version} of 0".encode()
            first = await slow.part()  # what it was about to be sent when it stopped to take
            assert first == b"frame 2 of 0"
            slow.takes.set()
            assert await slow.part() == b"frame 6 of 0"
            await slow.leave()
            await quick.leave()

    run(test())


def test_the_gateway_is_asked_once_for_all_and_only_while_somebody_looks() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            camera.give()
            viewers = [mjpeg(rig) for _ in range(4)]
            for viewer in viewers:
                assert await viewer.part() == b"frame 1 of 0"
            await eventually(lambda: camera.waiting)
            assert len(camera.waiting) == 1
            assert rig.looking.viewers == 4
            for viewer in viewers:
                await viewer.leave()
            assert rig.looking.viewers == 0
            before = len(rig.gateway.asked(GetStreamFrame))
            camera.give()
            await asyncio.sleep(0.1)
            assert len(rig.gateway.asked(GetStreamFrame)) == before

    run(test())


def test_too_many_viewers_are_told_so() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            camera.give()
            viewers = [mjpeg(rig) for _ in range(MOST_VIEWERS)]
            for viewer in viewers:
                await viewer.part()
            answer = await rig.get("/api/streams/yard/stream.mjpeg")
            assert (answer.status, answer.problem) == (503, "too-many-streams")
            for viewer in viewers:
                await viewer.leave()

    run(test())


def test_a_page_gets_a_frame_when_it_is_ready_and_then_the_newest() -> None:
    async def test() -> None:
        async with looking() as (rig, camera):
            camera.give()
            page = socket(rig)
            await page.next("websocket.accept")
            say(page, show={"yard": 640})
            head, data = await picture(page)
            assert (head["stream"], head["seq"], data) == ("yard", 1, b"frame 1 of 640")
            for _ in range(4):
                await eventually(lambda: camera.waiting)
                camera.give()
            await eventually(lambda: camera.waiting)
            say(page, ready="yard")
            head, _ = await picture(page)
            assert head["seq"] == 5
            say(page, show={})
            await eventually(lambda: rig.looking.viewers == 0)
            await page.leave("websocket.disconnect")

    run(test())


def test_a_page_hears_how_the_streams_do() -> None:
    async def test() -> None:
        async with looking() as (rig, _):
            page = socket(rig)
            message = await page.next("websocket.send")
            assert json.loads(message["text"])["streams"][0]["sentence"] == "Runs."
            await page.leave("websocket.disconnect")

    run(test())


def test_what_no_page_says_ends_the_socket() -> None:
    async def test() -> None:
        async with looking() as (rig, _):
            for told in ({"show": {"YARD": 1}}, {"more": 1}, {"show": {"a": -1}}):
                page = socket(rig)
                say(page, **told)
                assert (await page.next("websocket.close"))["code"] == 1008
                await page.task
            page = socket(rig)
            page.said.put_nowait({"type": "websocket.receive", "bytes": b"\xff"})
            assert (await page.next("websocket.close"))["code"] == 1008

    run(test())


def test_a_socket_of_a_page_of_another_site_is_refused() -> None:
    async def test() -> None:
        async with looking() as (rig, _):
            page = socket(rig, origin="http://evil.example")
            assert (await page.next("websocket.http.response.start"))["status"] == 403
            page = socket(rig, origin="http://127.0.0.1:8080")
            await page.next("websocket.accept")
            await page.leave("websocket.disconnect")

    run(test())


def test_who_has_no_token_sees_no_stream_and_a_viewer_does() -> None:
    async def test() -> None:
        tokens = Tokens("the-operator", "the-viewer", False)
        async with looking(tokens=tokens) as (rig, camera):
            camera.give()
            page = socket(rig, "192.0.2.7")
            assert (await page.next("websocket.http.response.start"))["status"] == 401
            answer = await rig.send("GET", "/api/streams/yard/frame.jpg", peer="192.0.2.7")
            assert answer.status == 401
            viewer = {"authorization": "Bearer the-viewer"}
            page = socket(rig, "192.0.2.7", **viewer)
            await page.next("websocket.accept")
            await page.leave("websocket.disconnect")
            path = "/api/streams/yard/frame.jpg"
            answer = await rig.send("GET", path, peer="192.0.2.7", headers=viewer)
            assert answer.status == 200

    run(test())


def test_widths_become_few_so_that_viewers_share_pictures() -> None:
    assert [fitting_width(width) for width in (0, 1, 160, 161, 640, 3000, 4096)] == [
        *(0, 160, 160, 320, 640, 3840, 0)
    ]
