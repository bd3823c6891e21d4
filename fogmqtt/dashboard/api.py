"""The HTTP API: each operation asks the gateway, and shows its answer. docs/http.md lists them."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from fogmqtt.dashboard import metrics
from fogmqtt.dashboard.access import Door, Visitor
from fogmqtt.dashboard.boards import BoardsApi, SiteBoards
from fogmqtt.dashboard.downloads import file_response, has_tag
from fogmqtt.dashboard.events import EventHub, EventStream
from fogmqtt.dashboard.gateway_client import (
    SLOW_ANSWER_S,
    GatewayClient,
    RefusalReceived,
)
from fogmqtt.dashboard.looking import Looking
from fogmqtt.dashboard.mjpeg import MjpegStream
from fogmqtt.dashboard.openapi import (
    EVENTS,
    FILE,
    IMAGE,
    JPEG,
    JSON,
    MJPEG,
    NOTHING,
    TEXT,
    Operation,
    document,
)
from fogmqtt.dashboard.problems import Problem, job_problem
from fogmqtt.dashboard.tokens import SESSION_S, Role
from fogmqtt.dashboard.uploads import upload
from fogmqtt.errors import NoAnswer
from fogmqtt.wire.messages import Priority
from fogmqtt.wire.service_messages import (
    Area,
    CancelJob,
    DeviceCard,
    FleetForecast,
    GatewayCard,
    GetJob,
    GetMetrics,
    GetView,
    JobAnswer,
    JobCard,
    JobFile,
    JobPage,
    JobState,
    ListJobs,
    ListOperators,
    ListStreams,
    MetricsAnswer,
    OpenUpload,
    OperatorTable,
    RepeatJob,
    RetryCallback,
    RetryJob,
    SimulateFleet,
    StreamList,
    Text,
    TryPipeline,
    View,
)

log = logging.getLogger(__name__)

Q = TypeVar("Q", bound=msgspec.Struct)

#: Seconds without a byte of a body after which it counts as lost.
BODY_S: Final = 30.0
#: Seconds that `Prefer: wait` may ask for.
_MOST_WAIT_S: Final = 300.0
#: Seconds for the gateway's figures: Prometheus gives up after ten.
_METRICS_S: Final = 5.0
#: The bytes of a JSON body.
_MOST_JSON: Final = 65_536
_JOB = re.compile(r"[a-z0-9][a-z0-9_.-]{0,47}")
_JOB_PATTERN: Final = r"^[a-z0-9][a-z0-9_.-]{0,47}$"
_STREAM = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_STREAM_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
#: Seconds in which a stream must have a frame for who asks for one.
_FRAME_S: Final = 3.0
_WAIT = re.compile(r"(?:^|[,;\s])wait=([0-9]{1,9})(?:$|[,;\s])")
_KEY = re.compile(r"[!-~]{1,255}")
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
#: The last level of a path, and the file of the job that it means.
_FILES: Final[dict[str, JobFile]] = {
    "image": "result",
    "original": "original",
    "facts": "facts",
    "report": "report",
    "trace": "trace",
    "thumbnail": "thumbnail",
}


class _Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of what a request may say behind its `?`."""


class Nothing(_Query, frozen=True):
    """No parameters."""


class RunQuery(_Query, frozen=True):
    """How an image is done."""

    name: Annotated[str, msgspec.Meta(max_length=255)] = ""
    format: Annotated[str, msgspec.Meta(max_length=100)] = ""
    priority: Priority = 0
    verify: bool = False
    pages: Annotated[str, msgspec.Meta(max_length=20)] = ""
    #: Seconds until the job fails if it has no result by then.
    timeout: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | UnsetType = UNSET


class SubmitQuery(RunQuery, frozen=True):
    """How an image is done, and by what pipeline."""

    pipeline: Text = ""


class JobsQuery(_Query, frozen=True):
    """Which jobs."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    after: Annotated[str, msgspec.Meta(max_length=200)] = ""
    state: JobState | UnsetType = UNSET
    text: Annotated[str, msgspec.Meta(max_length=200)] = ""


class PreviewQuery(_Query, frozen=True):
    """Which part of a picture, and how large."""

    of: Literal["result", "original"] = "result"
    #: top,left,height,width in pixels; empty for all.
    area: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,7}(,[0-9]{1,7}){3})?$")] = ""
    max_side: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 1600
    #: The version that the client has.
    since: Annotated[int, msgspec.Meta(ge=-1, le=2**53)] = -1
    format: Literal["jpeg", "png"] = "jpeg"


class RepeatQuery(_Query, frozen=True):
    """The other pipeline."""

    pipeline: Annotated[Text, msgspec.Meta(min_length=1)]
    priority: Priority = 0


class TryQuery(_Query, frozen=True):
    """The pipeline to try."""

    pipeline: Text = ""


class ForecastQuery(_Query, frozen=True):
    """An image that nobody has, and boards that are not there."""

    height: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    width: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    pipeline: Text = ""
    channels: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3
    more: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    like: Annotated[str, msgspec.Meta(max_length=64)] = ""


class LookQuery(_Query, frozen=True):
    """How large a frame of a stream is."""

    #: Pixels of width at most; 0: as wide as it is.
    w: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0


class DeviceList(msgspec.Struct, frozen=True):
    """All devices that the gateway knows."""

    devices: list[DeviceCard]


class Login(msgspec.Struct, frozen=True):
    """The token of a role."""

    token: Annotated[str, msgspec.Meta(max_length=1000)]


class Session(msgspec.Struct, frozen=True):
    """Who you are for the dashboard."""

    role: Role
    user: str


class Health(msgspec.Struct, frozen=True):
    """Whether a part works, as a sentence."""

    status: Literal["ok"]
    sentence: str


class Api:
    """Answers the requests under /api, and those of supervisors."""

    def __init__(
        self,
        client: GatewayClient,
        hub: EventHub,
        looking: Looking,
        door: Door,
        *,
        boards: SiteBoards | None = None,
        body_s: float = BODY_S,
    ) -> None:
        self._client = client
        self._hub = hub
        self._door = door
        self._looking = looking
        self._body_s = body_s
        #: The idempotency keys of uploads that are coming in.
        self._keys_in_use: set[str] = set()
        boards_api = BoardsApi(boards, self._json_body, _json, lambda asked: _visitor(asked).who)
        self.operations = (*self._operations(), *boards_api.operations())
        self._document = msgspec.json.encode(document(self.operations))

    def _operations(self) -> tuple[Operation, ...]:
        submitting = {
            "Idempotency-Key": "A repeated request with it gets the first one's job.",
            "Prefer": "wait=30 waits so many seconds for the result.",
            "traceparent": "W3C trace context.",
            "tracestate": "What vendors add to it.",
        }
        job = {"job": _JOB_PATTERN}
        stream = {"stream": _STREAM_PATTERN}

        def get(path: str, handler: Any, summary: str, answer: Any, **more: Any) -> Operation:
            answers = {200: answer}
            return Operation(
                method="GET", path=path, handler=handler, summary=summary, answers=answers, **more
            )

        def act(path: str, handler: Any, summary: str, **more: Any) -> Operation:
            return Operation(path=path, handler=handler, summary=summary, role="operator", **more)

        run: dict[str, Any] = {
            "path": "/api/run/{pipeline:path}",
            "handler": self._run,
            "query": RunQuery,
            "body": IMAGE,
            "answers": {200: FILE},
            "headers": {key: submitting[key] for key in submitting if key != "Prefer"},
        }
        return (
            act(method="PUT", summary="Process an image, and wait for the result.", **run),
            act(method="POST", summary="Process an image, and wait for the result.", **run),
            act(
                "/api/jobs",
                self._submit,
                "Submit an image.",
                method="POST",
                query=SubmitQuery,
                body=IMAGE,
                answers={200: FILE, 202: JobCard},
                headers=submitting,
            ),
            get("/api/jobs", self._jobs, "List jobs.", JobPage, query=JobsQuery),
            get("/api/jobs/{job}", self._job, "Show a job.", JobCard, patterns=job),
            act(
                "/api/jobs/{job}",
                self._cancel,
                "Cancel a job.",
                method="DELETE",
                answers={200: JobCard},
                patterns=job,
            ),
            get(
                "/api/jobs/{job}/preview",
                self._preview,
                "Show a part of a picture as far as it is done.",
                FILE,
                query=PreviewQuery,
                patterns=job,
            ),
            *(
                get(
                    f"/api/jobs/{{job}}/{name}",
                    self._file,
                    f"Read a job's {file}.",
                    FILE,
                    patterns=job,
                )
                for name, file in _FILES.items()
            ),
            act(
                "/api/jobs/{job}/retry",
                self._retry,
                "Do a dead letter again.",
                method="POST",
                answers={202: JobCard},
                patterns=job,
            ),
            act(
                "/api/jobs/{job}/callbacks/{callback}/retry",
                self._retry_callback,
                "Send a callback again that was given up.",
                method="POST",
                answers={200: JobCard},
                patterns=job,
            ),
            act(
                "/api/jobs/{job}/repeat",
                self._repeat,
                "Do the same image with another pipeline.",
                method="POST",
                query=RepeatQuery,
                answers={202: JobCard},
                patterns=job,
            ),
            get("/api/devices", self._devices, "List devices.", DeviceList),
            get("/api/gateway", self._gateway, "Show the gateway.", GatewayCard),
            get("/api/operators", self._operators, "List operators.", OperatorTable),
            act(
                "/api/try",
                self._try,
                "Run a pipeline on a small image file.",
                method="POST",
                query=TryQuery,
                body=IMAGE,
                answers={200: FILE},
            ),
            get(
                "/api/forecast",
                self._forecast,
                "Predict a job on the fleet as it is, and with more boards.",
                FleetForecast,
                query=ForecastQuery,
            ),
            get("/api/streams", self._streams, "List streams.", StreamList),
            get(
                "/api/streams/{stream}/frame.jpg",
                self._frame,
                "Show the newest frame of a stream.",
                JPEG,
                query=LookQuery,
                patterns=stream,
            ),
            get(
                "/api/streams/{stream}/stream.mjpeg",
                self._mjpeg,
                "Look at a stream.",
                MJPEG,
                query=LookQuery,
                patterns=stream,
            ),
            get("/api/events", self._events, "Follow all that happens.", EVENTS),
            get("/api/session", self._session, "Show who you are.", Session),
            Operation(
                method="POST",
                path="/api/login",
                handler=self._log_in,
                summary="Exchange a token for a cookie.",
                role=None,
                body=Login,
                answers={200: Session},
            ),
            Operation(
                method="POST",
                path="/api/logout",
                handler=self._log_out,
                summary="Forget the cookie.",
                role=None,
                answers={204: NOTHING},
            ),
            get("/metrics", self._metrics, "What the gateway counts, for Prometheus.", TEXT),
            get("/api/openapi.json", self._openapi, "Describe all this.", JSON),
            get("/healthz", self._health, "Whether the dashboard runs.", Health, role=None),
            get(
                "/readyz",
                self._ready,
                "Whether the dashboard reaches its gateway.",
                Health,
                role=None,
            ),
        )

    # Jobs that come in.

    async def _run(self, request: Request) -> Response:
        query = _query(request, RunQuery)
        card = await self._take(request, query, request.path_params["pipeline"])
        ended = await self._wait(request, card, None)
        if ended is None:
            return Response(status_code=408)  # nobody reads it
        return await self._result(request, ended)

    async def _submit(self, request: Request) -> Response:
        query = _query(request, SubmitQuery)
        card = await self._take(request, query, query.pipeline)
        found = _WAIT.search(request.headers.get("prefer", ""))
        if found is not None:
            wait_s = min(float(found[1]), _MOST_WAIT_S)
            ended = await self._wait(request, card, wait_s)
            if ended is not None:
                response = await self._result(request, ended)
                response.headers["Preference-Applied"] = f"wait={wait_s:.0f}"
                return response
            card = await self._get(card.id)
        return self._accepted(request, card)

    async def _take(self, request: Request, query: RunQuery, pipeline: str) -> JobCard:
        """Send the body to the gateway, and return the job that it became."""
        visitor, headers = _visitor(request), request.headers
        key, trace = headers.get("idempotency-key", ""), headers.get("traceparent", "")
        is_traced = _TRACE.fullmatch(trace) is not None
        if key and _KEY.fullmatch(key) is None:
            raise Problem(
                "invalid", 400, "Idempotency-Key: write 1 to 255 letters, digits and signs."
            )
        if key in self._keys_in_use:
            raise Problem(
                "conflict",
                409,
                "A request with this Idempotency-Key is being taken; try again in a moment.",
                retry_after_s=1.0,
            )
        opening = OpenUpload(
            id=self._client.new_id(),
            who=visitor.who,
            name=query.name or "image",
            pipeline=pipeline,
            bytes=_content_length(request),
            source="page" if headers.get("sec-fetch-site") == "same-origin" else "http",
            format=query.format,
            priority=query.priority,
            verify=query.verify,
            pages=query.pages,
            timeout_s=None if query.timeout is UNSET else query.timeout,
            idempotency_key=key,
            traceparent=trace if is_traced else "",
            tracestate=headers.get("tracestate", "")[:512] if is_traced else "",
        )
        if key:
            self._keys_in_use.add(key)
        try:
            answer = await upload(self._client, opening, self._body(request))
        except RefusalReceived as refused:
            if key and refused.refusal.kind == "conflict":
                raise Problem("idempotency-key", 422, refused.refusal.sentence) from None
            raise
        finally:
            self._keys_in_use.discard(key)
        request.state.job = answer.job.id
        return answer.job

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a body as it comes. Raises Problem for one that stops or is empty."""
        stream, is_empty = request.stream(), True
        while True:
            try:
                async with asyncio.timeout(self._body_s):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                break
            except TimeoutError:
                raise Problem(
                    "too-slow",
                    408,
                    f"No byte of the body came for {self._body_s:g} s; send the file again.",
                    headers={"Connection": "close"},
                ) from None
            except ClientDisconnect:
                raise Problem("aborted", 400, "The sender gave up half-way.") from None
            if chunk:
                is_empty = False
                yield chunk
        if is_empty:
            raise Problem("no-image", 400, "The body is empty; send the bytes of an image file.")

    async def _wait(self, request: Request, card: JobCard, wait_s: float | None) -> JobCard | None:
        """Wait for the end of a job; None if it takes longer, or the client is gone."""
        ended = asyncio.create_task(self._client.ended(card), name=f"end of {card.id}")
        left = asyncio.create_task(_left(request), name=f"client of {card.id}")
        try:
            await asyncio.wait({ended, left}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else None
        finally:
            for task in (ended, left):
                task.cancel()
            await asyncio.gather(ended, left, return_exceptions=True)

    async def _result(self, request: Request, card: JobCard) -> Response:
        if card.state != "done":
            raise job_problem(card)
        wants_facts = "application/json" in request.headers.get("accept", "")
        has_facts = "facts" in card.files
        file: JobFile = "facts" if has_facts and wants_facts else "result"
        if file == "result" and "result" not in card.files and has_facts:
            file = "facts"
        response = await file_response(request, self._client, card, file)
        response.headers["Location"] = self._location(request, card)
        return response

    def _accepted(self, request: Request, card: JobCard) -> Response:
        request.state.job = card.id
        headers = {"Location": self._location(request, card), "Retry-After": "1"}
        return _json(card, 202, headers)

    def _location(self, request: Request, card: JobCard) -> str:
        return f"{_visitor(request).base}/api/jobs/{card.id}"

    # Jobs that are there.

    async def _jobs(self, request: Request) -> Response:
        query = _query(request, JobsQuery)
        asked = ListJobs(
            id=self._client.new_id(),
            limit=query.limit,
            after=query.after,
            state=None if query.state is UNSET else query.state,
            text=query.text,
        )
        return _json(await self._client.ask(asked, JobPage))

    async def _job(self, request: Request) -> Response:
        _query(request, Nothing)
        return _json(await self._get(_job_id(request)))

    async def _get(self, job: str) -> JobCard:
        answer = await self._client.ask(GetJob(id=self._client.new_id(), job=job), JobAnswer)
        return answer.job

    async def _cancel(self, request: Request) -> Response:
        job = _job_id(request)
        who = _visitor(request).who
        asked = CancelJob(id=self._client.new_id(), who=who, job=job, reason=f"cancelled by {who}")
        return _json((await self._client.ask(asked, JobAnswer)).job)

    async def _retry(self, request: Request) -> Response:
        asked = RetryJob(id=self._client.new_id(), who=_visitor(request).who, job=_job_id(request))
        answer = await self._client.ask(asked, JobAnswer, within_s=SLOW_ANSWER_S)
        return self._accepted(request, answer.job)

    async def _retry_callback(self, request: Request) -> Response:
        asked = RetryCallback(
            id=self._client.new_id(),
            who=_visitor(request).who,
            job=_job_id(request),
            callback=request.path_params["callback"][:200],
        )
        answer = await self._client.ask(asked, JobAnswer, within_s=SLOW_ANSWER_S)
        return _json(answer.job)

    async def _repeat(self, request: Request) -> Response:
        query = _query(request, RepeatQuery)
        asked = RepeatJob(
            id=self._client.new_id(),
            who=_visitor(request).who,
            job=_job_id(request),
            pipeline=query.pipeline,
            priority=query.priority,
        )
        answer = await self._client.ask(asked, JobAnswer, within_s=SLOW_ANSWER_S)
        return self._accepted(request, answer.job)

    async def _file(self, request: Request) -> Response:
        _query(request, Nothing)
        card = await self._get(_job_id(request))
        file = _FILES[request.url.path.rpartition("/")[2]]
        return await file_response(request, self._client, card, file)

    async def _preview(self, request: Request) -> Response:
        query = _query(request, PreviewQuery)
        known = re.fullmatch(r'(?:W/)?"v([0-9]{1,15})"', request.headers.get("if-none-match", ""))
        asked = GetView(
            id=self._client.new_id(),
            job=_job_id(request),
            file=query.of,
            area=_area(query.area),
            max_side=query.max_side,
            version=query.since if known is None else int(known[1]),
            format=query.format,
        )
        view = await self._client.ask(asked, View, within_s=SLOW_ANSWER_S)
        tag = f'"v{view.version}"'
        headers = {
            "ETag": tag,
            "Cache-Control": "no-cache",
            "Fogmqtt-View": str(view.version),
            "Fogmqtt-Area": ",".join(map(str, view.area)),
            "Fogmqtt-Size": f"{view.height},{view.width}",
        }
        if not view.data or has_tag(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(view.data, headers=headers, media_type=view.media_type)

    # The fleet.

    async def _devices(self, request: Request) -> Response:
        _query(request, Nothing)
        mirror = await self._client.current()
        return _json(DeviceList(sorted(mirror.devices.values(), key=lambda card: card.id)))

    async def _gateway(self, request: Request) -> Response:
        _query(request, Nothing)
        return _json((await self._client.current()).gateway)

    async def _operators(self, request: Request) -> Response:
        _query(request, Nothing)
        asked = ListOperators(id=self._client.new_id())
        return _json(await self._client.ask(asked, OperatorTable, within_s=SLOW_ANSWER_S))

    async def _try(self, request: Request) -> Response:
        query = _query(request, TryQuery)
        data = await self._small_body(request, self._client.piece_bytes, "a smaller copy of it")
        asked = TryPipeline(
            id=self._client.new_id(), who=_visitor(request).who, pipeline=query.pipeline, data=data
        )
        view = await self._client.ask(asked, View, within_s=SLOW_ANSWER_S)
        return Response(
            view.data, headers={"Cache-Control": "no-store"}, media_type=view.media_type
        )

    async def _forecast(self, request: Request) -> Response:
        query = _query(request, ForecastQuery)
        asked = SimulateFleet(id=self._client.new_id(), **msgspec.structs.asdict(query))
        return _json(await self._client.ask(asked, FleetForecast, within_s=SLOW_ANSWER_S))

    async def _events(self, request: Request) -> EventStream:
        return EventStream(self._hub, request.headers.get("last-event-id", ""))

    # Streams.

    async def _streams(self, request: Request) -> Response:
        _query(request, Nothing)
        return _json(await self._client.ask(ListStreams(id=self._client.new_id()), StreamList))

    async def _frame(self, request: Request) -> Response:
        query, stream = _query(request, LookQuery), _stream(request)
        known = re.fullmatch(
            r'(?:W/)?"([0-9a-f.]{1,64})"', request.headers.get("if-none-match", "")
        )
        after, wait_s = ("", _FRAME_S) if known is None else (known[1], 0.0)
        frame = await self._looking.once(stream, query.w, after, wait_s)
        if not frame.data and frame.version and frame.version == after:
            headers = {"ETag": f'"{after}"', "Cache-Control": "no-cache"}
            return Response(status_code=304, headers=headers)
        if not frame.data:
            raise _no_frame(stream)
        headers = {
            "ETag": f'"{frame.version}"',
            "Cache-Control": "no-cache",
            "Fogmqtt-Captured": f"{frame.captured_at:.3f}",
            "Fogmqtt-Age": f"{frame.age_s:.3f}",
        }
        return Response(frame.data, headers=headers, media_type="image/jpeg")

    async def _mjpeg(self, request: Request) -> MjpegStream:
        query, stream = _query(request, LookQuery), _stream(request)
        frame = await self._looking.once(stream, query.w, "", _FRAME_S)
        if not frame.data:
            raise _no_frame(stream)
        has_body = request.method != "HEAD"
        return MjpegStream(self._looking, stream, query.w, has_body=has_body)

    # Who may.

    async def _session(self, request: Request) -> Response:
        visitor = _visitor(request)
        assert visitor.role is not None  # noqa: S101  # the role of the operation says so
        return _json(Session(visitor.role, visitor.user))

    async def _log_in(self, request: Request) -> Response:
        visitor = _visitor(request)
        login = await self._json_body(request, Login, 'as {"token": "…"}')
        role = self._door.log_in(login.token.strip(), visitor.address)
        response = _json(Session(role, "browser"))
        assert self._door.tokens is not None  # noqa: S101  # somebody logged in
        response.set_cookie(
            self._door.cookie_name,
            self._door.tokens.cookie(role),
            max_age=SESSION_S,
            path=f"{visitor.base}/",
            secure=visitor.scheme == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    async def _json_body(self, request: Request, kind: type[Q], example: str) -> Q:
        """Return what a JSON body says. Raises Problem."""
        data = await self._small_body(request, _MOST_JSON, example)
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.MsgspecError:
            raise Problem("invalid", 400, f"Send {kind.__name__} {example}.") from None

    async def _log_out(self, request: Request) -> Response:
        response = Response(status_code=204)
        response.delete_cookie(self._door.cookie_name, path=f"{_visitor(request).base}/")
        return response

    async def _small_body(self, request: Request, most: int, way_out: str) -> bytes:
        data = bytearray()
        async for chunk in self._body(request):
            data += chunk
            if len(data) > most:
                raise Problem(
                    "too-large",
                    413,
                    f"The body has more than {most} bytes; send it {way_out}.",
                    limit=most,
                )
        return bytes(data)

    # Supervisors.

    async def _openapi(self, request: Request) -> Response:
        del request
        return Response(self._document, media_type="application/json")

    async def _metrics(self, request: Request) -> Response:
        _query(request, Nothing)
        found = None
        if self._client.is_online:
            asked = GetMetrics(id=self._client.new_id())
            with suppress(NoAnswer):  # a monitoring system wants to see that, too
                answer = await self._client.ask(asked, MetricsAnswer, within_s=_METRICS_S)
                found = answer.metrics
        return Response(metrics.render(found), media_type=metrics.CONTENT_TYPE)

    async def _health(self, request: Request) -> Response:
        del request
        return _json(Health("ok", f"The dashboard of {self._client.gateway} runs."))

    async def _ready(self, request: Request) -> Response:
        del request
        if not self._client.is_online:
            raise NoAnswer(self._client.state)
        return _json(Health("ok", self._client.state))


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def _query(request: Request, kind: type[Q]) -> Q:
    try:
        return msgspec.convert(dict(request.query_params), kind, strict=False)
    except msgspec.ValidationError as problem:
        raise Problem("invalid", 400, f"The address is wrong behind its '?': {problem}.") from None


def _job_id(request: Request) -> str:
    job: str = request.path_params["job"]
    if _JOB.fullmatch(job) is None:
        raise Problem("not-found", 404, "There is no such job: this is not the id of a job.")
    request.state.job = job
    return job


def _stream(request: Request) -> str:
    stream: str = request.path_params["stream"]
    if _STREAM.fullmatch(stream) is None:
        raise Problem("not-found", 404, "There is no such stream: this is not the name of one.")
    return stream


def _no_frame(stream: str) -> Problem:
    return Problem(
        "no-frame",
        404,
        f"The stream {stream} has no frame now; /api/streams says how it does.",
        retry_after_s=5.0,
    )


def _area(text: str) -> Area | None:
    if not text:
        return None
    top, left, height, width = map(int, text.split(","))
    return top, left, height, width


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


async def _left(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        continue
