"""Messages between a gateway and its clients that manage jobs: dashboards and programs.

A client publishes a `Request` on gateways/<gateway>/requests/<client> and subscribes to
gateways/<gateway>/answers/<client>. The gateway publishes one `Answer` for each request, with the
request's `id`. While somebody watches, it publishes an `Update` on gateways/<gateway>/updates at
most ten times a second. All are MessagePack. Files travel in pieces that fit into one packet.

Times are Unix times in seconds, in UTC. The HTTP API shows the same structs as JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from fogmqtt.wire.messages import Id, Index, Message, Priority
from fogmqtt.wire.service_metrics import MetricsSnapshot
from fogmqtt.wire.stream_messages import StreamState

#: The name of a client: one level of a topic.
ClientName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}\Z")]
#: A user's text, such as the name of a file or a pipeline.
Text = Annotated[str, msgspec.Meta(max_length=4000)]
#: Top, left, height and width in pixels of the image.
Area = tuple[int, int, int, int]

#: The bytes of a file in one message at most.
PIECE_BYTES = 128 * 1024
#: Seconds after which a client that watches must say so again, and when it is forgotten.
WATCH_EVERY_S = 10.0
WATCH_LASTS_S = 30.0

JobState = Literal["waiting", "running", "done", "failed", "cancelled"]
#: Why a job failed: its image is no image or cannot be read; an operator does not take it; tiles
#: failed on devices; no device was there in its time; it took longer than its time; the result
#: could not be stored or sent; all else.
FailureKind = Literal[
    "", "image", "pipeline", "devices", "no-device", "timeout", "delivery", "gateway"
]
#: What a device does, for people.
Activity = Literal[
    "working", "idle", "starting", "quarantined", "draining", "silent", "offline", "incompatible"
]
TileStatus = Literal["waiting", "cutting", "sent", "running", "done", "split"]
TILE_STATUSES: tuple[TileStatus, ...] = ("waiting", "cutting", "sent", "running", "done", "split")
#: The files of a job: the image as it came, the image file that was delivered, and so on.
JobFile = Literal["original", "result", "facts", "report", "trace", "thumbnail"]


# What is shown.


class DeviceCard(msgspec.Struct, frozen=True, kw_only=True):
    """A device, for people."""

    id: str
    activity: Activity
    #: The state as a sentence, with its reason: "Waits: no job has tiles that it can do."
    sentence: str
    #: What the user can do about it; empty if nothing needs to be done.
    advice: str = ""
    #: When a quarantine ends; None if there is none.
    quarantined_until: float | None = None
    #: The jobs of which it holds tiles.
    jobs: list[str] = []
    workers: int = 1
    tiles_held: int = 0
    tiles_done: int = 0
    #: Over the last ten seconds.
    tiles_per_s: float = 0.0
    pixels_per_s: float = 0.0
    #: Seconds from sending a tile until its result, the newest tiles' median; None if unknown.
    latency_s: float | None = None
    temperature_c: float | None = None
    load: float | None = None
    host: str = ""
    versions: dict[str, str] = {}
    #: The abilities that it lacks, with the reason.
    lacks: dict[str, str] = {}
    problems: list[str] = []


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a job, as it can be downloaded."""

    #: The name for a download.
    name: str
    media_type: str
    bytes: int
    #: XXH3-64 of the content as 16 hex digits: the entity tag.
    digest: str


#: again: it is tried again; given-up: it is kept, and sent again when somebody asks; lost: neither.
Outlook = Literal["again", "given-up", "lost"]


class Undelivered(msgspec.Struct, frozen=True, kw_only=True):
    """A place that a result did not reach."""

    #: Why, as a sentence.
    reason: str
    outlook: Outlook
    #: The server of a callback; empty for other places.
    server: str = ""


class JobCard(msgspec.Struct, frozen=True, kw_only=True):
    """A job, running or in the history."""

    id: Id
    name: str
    #: The pipeline's text, and its configured name or an empty text.
    pipeline: str
    pipeline_name: str = ""
    state: JobState
    error: str = ""
    failure: FailureKind = ""
    #: What users should know, such as that no device is online.
    notices: list[str] = []
    #: Where the image came from: inbox, mqtt, http, page, python or retry, and who asked if known.
    source: str = ""
    who: str = ""
    priority: int = 0
    accepted_at: float
    started_at: float | None = None
    ended_at: float | None = None
    #: Tiles of the present stage, and the place of this stage among all stages, from 1 on.
    tiles: int = 0
    done: int = 0
    stage: int = 0
    stages: int = 0
    #: Seconds until the end as predicted; None if unknown.
    left_s: float | None = None
    #: Of the image that enters the pipeline, and of the result; 0 if not known.
    height: int = 0
    width: int = 0
    result_height: int = 0
    result_width: int = 0
    #: Tiles by device.
    devices: dict[str, int] = {}
    retries: int = 0
    hedges: int = 0
    #: The files that can be read.
    files: dict[JobFile, FileFacts] = {}
    #: Whether the image is kept as a dead letter, so that `Retry` can do it again.
    retryable: bool = False
    #: The places that the result did not reach: names of callbacks, or as `gateway.deliver` names
    #: them.
    undelivered: dict[str, Undelivered] = {}


class StreamCard(msgspec.Struct, frozen=True, kw_only=True):
    """A configured stream, for people."""

    name: str
    #: disabled: switched off; offline: its source has ended, or cannot be opened.
    status: Literal["online", "offline", "disabled"]
    #: How it does, as a sentence with its reason.
    sentence: str
    #: good, warn, bad or quiet: how much the sentence asks for attention.
    tone: Literal["good", "warn", "bad", "quiet"]
    #: Whether something is seen in it; None if its pipeline finds nothing in places.
    motion: bool | None = None
    #: The figures; None while it does not run.
    state: StreamState | None = None


class TileRow(msgspec.Struct, frozen=True, array_like=True):
    """The state of one tile: an index into `TILE_STATUSES` and into `TilesUpdate.devices`."""

    tile: Index
    status: int
    #: -1 if no device has it.
    device: int
    attempt: int


class TilesUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What changed among the tiles of a running job since the last update."""

    job: Id
    #: A number that grows with each change.
    version: int
    #: The number of the stage and the size of the image that it makes.
    stage: int
    height: int
    width: int
    devices: list[str]
    #: The cores of tiles that are new since the last update, by index: a plan, or halves of a tile.
    cores: dict[Index, Area] = {}
    rows: list[TileRow] = []


class GatewayCard(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway itself."""

    id: str
    boot: str
    version: str
    host: str
    started_at: float
    broker: str
    connected: bool
    #: Why no image is accepted now; empty if images are accepted.
    paused: str = ""
    #: Text by name, and the pipeline of an image that asked for nothing.
    pipelines: dict[str, str] = {}
    default_pipeline: str = ""
    formats: dict[str, str] = {}
    max_file_bytes: int = 0
    max_pixels: int = 0
    waiting: int = 0
    running: int = 0


class Update(Message, frozen=True, kw_only=True, tag="update"):
    """What changed since the last update. A gap in `sequence` means that updates were lost."""

    boot: str
    sequence: int
    at: float
    gateway: GatewayCard | None = None
    devices: list[DeviceCard] = msgspec.field(default_factory=list)
    gone_devices: list[str] = msgspec.field(default_factory=list)
    jobs: list[JobCard] = msgspec.field(default_factory=list)
    #: Jobs that are not in the history any more.
    gone_jobs: list[str] = msgspec.field(default_factory=list)
    tiles: list[TilesUpdate] = msgspec.field(default_factory=list)


# Requests.


class Request(Message, frozen=True, kw_only=True):
    """The base of all requests. The client chooses `id`; a repeated id gets the same answer."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    #: Who asks, for the log of acts.
    who: Text = ""


class Watch(Request, frozen=True, kw_only=True, tag="watch"):
    """Publish updates for the next `WATCH_LASTS_S` seconds. Answered with a `Snapshot`."""


class ListJobs(Request, frozen=True, kw_only=True, tag="list-jobs"):
    """The newest jobs first, from the one after the cursor on. Answered with a `JobPage`."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    after: str = ""
    state: JobState | None = None
    #: Only jobs whose name or pipeline contains this text.
    text: Text = ""


class GetJob(Request, frozen=True, kw_only=True, tag="get-job"):
    """Answered with a `JobCard`."""

    job: Id


class CancelJob(Request, frozen=True, kw_only=True, tag="cancel-job"):
    """End a job. Answered with its `JobCard`; a job that has ended stays as it is."""

    job: Id
    reason: Text = ""


class RetryJob(Request, frozen=True, kw_only=True, tag="retry-job"):
    """Do a dead letter again. Answered with the `JobCard` of the new job."""

    job: Id


class RetryCallback(Request, frozen=True, kw_only=True, tag="retry-callback"):
    """Send a callback again that was given up. Answered with the `JobCard` of its job."""

    job: Id
    callback: Text


class RepeatJob(Request, frozen=True, kw_only=True, tag="repeat-job"):
    """Do the original image of a job again with another pipeline. Answered with a `JobCard`."""

    job: Id
    pipeline: Text
    priority: Priority = 0


class ImageSubmission(Request, frozen=True, kw_only=True):
    """The base of requests that submit an image file.

    With `idempotency_key`, a second one with the same key and bytes that asks for the same is
    answered with the first one's job, for 24 hours.
    """

    name: Text
    #: A configured name or the text of a pipeline; empty for the default.
    pipeline: Text = ""
    source: Text = ""
    format: Text = ""
    priority: Priority = 0
    verify: bool = False
    pages: Text = ""
    #: Seconds until the job fails if it has no result by then; None for no limit.
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    idempotency_key: Annotated[str, msgspec.Meta(max_length=255)] = ""
    #: W3C trace context.
    traceparent: Annotated[str, msgspec.Meta(max_length=128)] = ""
    tracestate: Annotated[str, msgspec.Meta(max_length=512)] = ""


class SubmitFile(ImageSubmission, frozen=True, kw_only=True, tag="submit-file"):
    """A file that fits into one message. Answered with its `JobCard` when it is on disk."""

    data: bytes
    #: XXH3-64 of the file, 16 hex digits.
    digest: str


class OpenUpload(ImageSubmission, frozen=True, kw_only=True, tag="open-upload"):
    """Begin to submit a file in pieces. Answered with an `Upload`."""

    #: The bytes of the file; None if they are not known in advance.
    bytes: int | None = None


class PutPiece(Request, frozen=True, kw_only=True, tag="put-piece"):
    """The next bytes of an upload. Answered with an `Upload`."""

    upload: Id
    offset: int
    data: bytes


class SubmitUpload(Request, frozen=True, kw_only=True, tag="submit-upload"):
    """The file is complete: accept it as a job. Answered with its `JobCard` when it is on disk."""

    upload: Id
    #: XXH3-64 of the whole file, 16 hex digits.
    digest: str


class DropUpload(Request, frozen=True, kw_only=True, tag="drop-upload"):
    """The sender gave up. Answered with `Done`."""

    upload: Id


class ReadFile(Request, frozen=True, kw_only=True, tag="read-file"):
    """Bytes of a job's file from an offset on. Answered with a `Piece`."""

    job: Id
    file: JobFile
    offset: int = 0
    length: int = PIECE_BYTES


class GetView(Request, frozen=True, kw_only=True, tag="get-view"):
    """A part of a picture, for a screen. Answered with a `View`.

    Of a running job, `result` is what is merged so far. `area` is in pixels of the picture; None
    for all of it. The view is at most `max_side` pixels wide and high, and never enlarged.
    """

    job: Id
    file: Literal["original", "result"] = "result"
    area: Area | None = None
    max_side: Annotated[int, msgspec.Meta(ge=16, le=4096)] = 1600
    #: The version that the client has; the same version is answered without bytes.
    version: int = -1
    #: jpeg for pictures, png for single pixels.
    format: Literal["jpeg", "png"] = "jpeg"


class ListOperators(Request, frozen=True, kw_only=True, tag="list-operators"):
    """Answered with an `OperatorTable`."""


class TryPipeline(Request, frozen=True, kw_only=True, tag="try-pipeline"):
    """Run a pipeline on a small copy of an image, without a job in the list.

    Answered with a `View`. The image is a file of at most `PIECE_BYTES` bytes.
    """

    pipeline: Text
    data: bytes


class SimulateFleet(Request, frozen=True, kw_only=True, tag="simulate-fleet"):
    """Predict a job on the fleet as it is, and with more devices.

    Answered with a `FleetForecast`.
    """

    pipeline: Text = ""
    height: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    width: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    channels: Annotated[int, msgspec.Meta(ge=1, le=4)] = 3
    #: How many boards to add, each as fast as the device `like`, or as the median device if empty.
    more: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    like: str = ""


class ListStreams(Request, frozen=True, kw_only=True, tag="list-streams"):
    """Answered with a `StreamList`."""


class GetStreamFrame(Request, frozen=True, kw_only=True, tag="get-stream-frame"):
    """The newest result of a stream, for a screen. Answered with a `StreamFrame`.

    If it is the version `after`, or there is none yet, the answer waits for the next one for
    `wait_s`. A picture is never enlarged.
    """

    stream: Annotated[str, msgspec.Meta(max_length=64)]
    #: 0: as wide as it is.
    width: Annotated[int, msgspec.Meta(ge=0, le=16_384)] = 0
    after: Annotated[str, msgspec.Meta(max_length=64)] = ""
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0


class GetMetrics(Request, frozen=True, kw_only=True, tag="get-metrics"):
    """Answered with a `MetricsAnswer`."""


AnyRequest = (
    Watch
    | ListJobs
    | GetJob
    | CancelJob
    | RetryJob
    | RetryCallback
    | RepeatJob
    | SubmitFile
    | OpenUpload
    | PutPiece
    | SubmitUpload
    | DropUpload
    | ReadFile
    | GetView
    | ListOperators
    | TryPipeline
    | SimulateFleet
    | ListStreams
    | GetStreamFrame
    | GetMetrics
)


# Answers.


class Answer(Message, frozen=True, kw_only=True):
    """The base of all answers. `id` is the request's."""

    id: str


class Done(Answer, frozen=True, kw_only=True, tag="done"):
    """There is nothing to say."""


class Refusal(Answer, frozen=True, kw_only=True, tag="refusal"):
    """Why a request was not done: one sentence, and what kind of reason it is."""

    kind: Literal[
        "not-found",
        "invalid",
        "too-large",
        "unsupported",
        "conflict",
        "busy",
        "paused",
        "other-version",
        "failed",
    ]
    sentence: str
    #: The number that was exceeded; None if it is no question of a limit.
    limit: int | None = None
    job: str = ""
    #: Seconds after which another try makes sense; None if it makes none.
    retry_after_s: float | None = None


class Snapshot(Answer, frozen=True, kw_only=True, tag="snapshot"):
    """All that is shown now; updates with a greater sequence continue it."""

    boot: str
    sequence: int
    at: float
    gateway: GatewayCard
    devices: list[DeviceCard]
    #: The jobs that have not ended and the newest of the history, the newest first.
    jobs: list[JobCard]
    #: All tiles of the running jobs.
    tiles: list[TilesUpdate]


class JobPage(Answer, frozen=True, kw_only=True, tag="job-page"):
    """Jobs, the newest first. `next` is the cursor of the next page; empty at the end."""

    jobs: list[JobCard]
    next: str = ""


class JobAnswer(Answer, frozen=True, kw_only=True, tag="job"):
    """One job. `repeated` says that an earlier upload with the same key made it."""

    job: JobCard
    repeated: bool = False


class Upload(Answer, frozen=True, kw_only=True, tag="upload"):
    """An upload: its id, and how many bytes of it are safe."""

    upload: Id
    received: int


class Piece(Answer, frozen=True, kw_only=True, tag="piece"):
    """Bytes of a file."""

    file: FileFacts
    offset: int
    data: bytes


class View(Answer, frozen=True, kw_only=True, tag="view"):
    """A picture as an image file; no bytes if the client has this version."""

    version: int
    media_type: str
    #: What the picture shows, in pixels of the whole picture, and the size of that.
    area: Area
    height: int
    width: int
    data: bytes = b""


class OperatorParameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operator, for a form."""

    name: str
    type: Literal["int", "float", "bool", "text", "choice"]
    required: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: list[str] = []
    unit: str = ""
    summary: str = ""


class OperatorCard(msgspec.Struct, frozen=True, kw_only=True):
    """An operator, for a menu."""

    name: str
    summary: str
    #: The folder of the operator: colour, edges, filters …; "plug-ins" for others.
    group: str
    text: str
    example: str
    tiled: bool
    measures: bool
    parameters: list[OperatorParameter] = []


class OperatorTable(Answer, frozen=True, kw_only=True, tag="operators"):
    """All operators."""

    operators: list[OperatorCard]


class ForecastBar(msgspec.Struct, frozen=True, array_like=True):
    """One tile in a forecast: the row, begin and end in seconds, and the tile."""

    row: int
    begin_s: float
    end_s: float
    tile: int


class FleetForecast(Answer, frozen=True, kw_only=True, tag="forecast"):
    """The predicted makespan, and what more boards bring."""

    #: Of the fleet as it is, and with the boards that were added.
    seconds: float
    seconds_with_more: float
    sentence: str
    #: The name of each row, device and worker, and the bars of the fleet with more boards.
    rows: list[str]
    bars: list[ForecastBar]


class StreamList(Answer, frozen=True, kw_only=True, tag="streams"):
    """The configured streams, by name."""

    streams: list[StreamCard]


class StreamFrame(Answer, frozen=True, kw_only=True, tag="stream-frame"):
    """A result of a stream as a JPEG; no bytes if there is none after the one that was named."""

    #: Of the newest frame; no two of a stream have the same. Empty if there is none.
    version: str = ""
    #: The number of the frame among those that were begun, and when it was captured.
    seq: int = 0
    captured_at: float = 0.0
    #: Seconds from its capture until now.
    age_s: float = 0.0
    data: bytes = b""


class MetricsAnswer(Answer, frozen=True, kw_only=True, tag="metrics"):
    """What the gateway counts."""

    metrics: MetricsSnapshot


AnyAnswer = (
    Done
    | Refusal
    | Snapshot
    | JobPage
    | JobAnswer
    | Upload
    | Piece
    | View
    | OperatorTable
    | FleetForecast
    | StreamList
    | StreamFrame
    | MetricsAnswer
)
