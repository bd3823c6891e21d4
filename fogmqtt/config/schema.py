"""The schema of the configuration: frozen values with defaults, types and limits.

config.yaml explains each key with its unit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.streams.settings import SourceSettings
from fogmqtt.wire.messages import Priority

Mode = Literal["auto", "never", "always"]
LogFormat = Literal["text", "json"]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The connection to the broker. `load` sets `password` from `password_file` if that is set.

    `url` may name several, as a list or with commas between them.
    """

    url: str | tuple[str, ...] = "mqtt://127.0.0.1:1883"
    embedded: Mode = "auto"
    protocol: Literal[5, "3.1.1"] = 5
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    keepalive_s: Annotated[float, msgspec.Meta(ge=1, le=65535)] = 60.0
    connect_timeout_s: Seconds = 10.0
    client: Literal["fast", "plain"] = "fast"

    @property
    def urls(self) -> tuple[str, ...]:
        """The brokers of `url`, in the order in which they are tried."""
        parts = self.url.split(",") if isinstance(self.url, str) else self.url
        return tuple(part.strip() for part in parts)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The identity, folders and local work of a gateway."""

    id: str = "mariem"
    local: Mode = "auto"
    local_after: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    inbox: str = "inbox"
    outbox: str = "outbox"
    spool: str = "spool"
    spool_keep_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    spool_max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 20_000_000_000
    #: 0 deletes nothing.
    outbox_keep_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    done_keep_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    min_free_bytes: Annotated[int, msgspec.Meta(ge=0)] = 0
    session_s: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 60
    #: Of the gateways with one group, one gets each submission. It is a secret.
    group: str = field(default="", repr=False)
    #: As `gateway.server.destinations` reads it: words.
    deliver: str = "auto"
    #: As `images.result_format` reads it: a kind with options.
    format: str = "png"
    pages: Literal["first", "all"] | Annotated[int, msgspec.Meta(ge=1)] = "all"


@dataclass(frozen=True, slots=True)
class CallbackSettings:
    """How results are POSTed to the URLs of `callbacks`."""

    secret_file: str = ""
    timeout_s: Seconds = 10.0
    keep_s: Annotated[float, msgspec.Meta(ge=0)] = 86_400.0
    ca: str = ""


@dataclass(frozen=True, slots=True)
class WireSettings:
    """Topic prefix, encoding, QoS, message size and codec."""

    prefix: str = "fog/v1"
    encoding: Literal["binary", "base64"] = "binary"
    qos: Literal[0, 1, 2] = 1
    max_message_bytes: Annotated[int, msgspec.Meta(ge=4096, le=256_000_000)] = 900_000
    codec: Literal["auto", "raw", "png"] = "auto"


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limits of submitted images and of concurrent jobs."""

    max_pixels: Count = 500_000_000
    max_file_bytes: Count = 256 * 1024 * 1024
    max_jobs: Count = 4
    max_waiting: Count = 1000
    max_uploads: Count = 16


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The limits of the history of ended jobs, which is in the spool."""

    max_jobs: Annotated[int, msgspec.Meta(ge=0)] = 1000
    keep_s: Seconds = 2_592_000.0
    max_bytes: Annotated[int, msgspec.Meta(ge=0)] = 2_000_000_000


@dataclass(frozen=True, slots=True)
class VerifySettings:
    """The share of tiles that a second device also processes, from 0 to 1."""

    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    max_window: Count = 16
    first_lease_s: Seconds = 30.0
    max_failures: Count = 4
    max_losses: Count = 3
    quarantine_s: Seconds = 10.0
    hedging: bool = True


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """A proxy before the dashboard: which addresses it has, and what it says of users."""

    trusted: tuple[str, ...] = ()
    user_header: str = ""
    role: Literal["viewer", "operator"] = "viewer"


@dataclass(frozen=True, slots=True)
class DashboardSettings:
    """The page and the HTTP API: where they listen, and who may use them."""

    enabled: Mode = "auto"
    listen: str = "127.0.0.1:8080"
    hosts: tuple[str, ...] = ()
    token_file: str = ""
    viewer_token_file: str = ""
    proxy: ProxySettings = ProxySettings()


@dataclass(frozen=True, slots=True)
class EventSettings:
    """What of that which is found in a stream becomes an event, and where in the picture."""

    #: Frames in a row.
    start: Count = 2
    end: Count = 10
    update_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    min_score: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    #: Polygons by name, as `core.streaming.zones` reads them.
    zones: dict[str, str] = field(default_factory=dict)
    exclude: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """Whether the gateway looks for motion in a stream, beside the pipeline."""

    #: 0: it does not.
    sensitivity: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    #: The smallest thing that counts, as a share of the picture.
    min_area: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.002


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """What becomes of the memory of operators such as `background` when a device is lost."""

    #: What begins anew if the memory of a tile cannot come back.
    reseed: Literal["tile", "stream"] = "tile"
    #: Devices that do the same as each tile's device, in case that it is lost.
    standby: Annotated[int, msgspec.Meta(ge=0, le=3)] = 0
    #: Seconds between two copies of a memory; 0 for none.
    snapshot_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """The small retained JPEG of a stream's newest result."""

    #: Pictures a second at most; 0 for none.
    fps: Annotated[float, msgspec.Meta(ge=0, le=30)] = 1.0
    #: Pixels at most.
    height: Annotated[int, msgspec.Meta(ge=16, le=2160)] = 360
    #: Of JPEG.
    quality: Annotated[int, msgspec.Meta(ge=1, le=100)] = 75


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """Whether a stream is recorded, so that `fog-gateway replay` can run it again."""

    #: Where each start makes a recording; empty for none.
    folder: str = ""
    #: Of all that is in the folder; a recording that reaches it ends.
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 2_000_000_000


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """A live stream: a source of frames, what is done with each, and where the results go."""

    #: As `fogmqtt.streams.settings` reads it: a URL, a file, v4l2:, picamera: or mqtt.
    source: str = ""
    #: Of the camera. The process that reads the source reads `password_file`.
    username: str = ""
    password_file: str = ""
    transport: Literal["tcp", "udp"] = "tcp"
    #: A name or operators; empty for the gateway's `pipeline`.
    pipeline: str = ""
    #: Frames a second that are begun at most; 0 for all.
    fps: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0
    keep: Literal["latest", "all", "keys"] = "latest"
    max_age_s: Seconds = 1.0
    order: Literal["strict", "any"] = "strict"
    split: Literal["auto", "tiles", "frames"] = "auto"
    #: What a frame is: blue, green and red, or gray.
    convert: Literal["bgr24", "gray"] = "bgr24"
    stall_s: Seconds = 5.0
    retry_s: Seconds = 1.0
    retry_max_s: Seconds = 30.0
    enabled: bool = True
    #: Where results go; `gateway.streams.outputs` knows the words.
    output: tuple[str, ...] = ("topic",)
    #: Of the results on the frame topic, as `images.result_format` reads it.
    format: str = "png"
    #: The share of frames that this gateway also does whole, to compare.
    verify: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    priority: Priority = 0
    motion: MotionSettings = MotionSettings()
    preview: PreviewSettings = PreviewSettings()
    events: EventSettings = EventSettings()
    state: MemorySettings = MemorySettings()
    record: RecordSettings = RecordSettings()


@dataclass(frozen=True, slots=True)
class HomeAssistantSettings:
    """Whether Home Assistant shows this gateway by itself, and Home Assistant's own topics."""

    #: Empty: off.
    discovery: Literal["", "auto"] = ""
    prefix: str = "homeassistant"
    status: str = "homeassistant/status"


@dataclass(frozen=True, slots=True)
class JoiningSettings:
    """How boards join: the folder that `fog-gateway init` made, and where they are let in."""

    folder: str = ""
    listen: str = "0.0.0.0:8884"
    announce: Mode = "auto"


def default_pipelines() -> dict[str, str]:
    """Return the pipelines of a gateway without configuration."""
    return {"edges": "gray | canny low=50 high=150"}


@dataclass(frozen=True, slots=True)
class ChosenPipeline:
    """A pipeline that somebody asked for, with what is configured for it."""

    #: Its operators.
    text: str
    #: Its configured name; empty for operators that somebody wrote.
    name: str
    priority: Priority
    format: str
    deliver: str


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The configuration of `fog-gateway`."""

    broker: BrokerSettings = BrokerSettings()
    gateway: GatewaySettings = GatewaySettings()
    wire: WireSettings = WireSettings()
    pipelines: dict[str, str] = field(default_factory=default_pipelines)
    priorities: dict[str, Priority] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    deliveries: dict[str, str] = field(default_factory=dict)
    callbacks: dict[str, str] = field(default_factory=dict)
    callback: CallbackSettings = CallbackSettings()
    pipeline: str = "edges"
    tiles: str = "auto"
    post: str = ""
    models: str = "models"
    plugins: tuple[str, ...] = ()
    exact: bool = True
    verify: VerifySettings = VerifySettings()
    limits: LimitSettings = LimitSettings()
    history: HistorySettings = HistorySettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    dashboard: DashboardSettings = DashboardSettings()
    streams: dict[str, StreamSettings] = field(default_factory=dict)
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()
    joining: JoiningSettings = JoiningSettings()
    log_format: LogFormat = "text"

    def chosen(self, pipeline: str) -> ChosenPipeline:
        """Return the pipeline of a configured name, or of operators as text."""
        return ChosenPipeline(
            text=self.pipelines.get(pipeline, pipeline),
            name=pipeline if pipeline in self.pipelines else "",
            priority=self.priorities.get(pipeline, 0),
            format=self.formats.get(pipeline, self.gateway.format),
            deliver=self.deliveries.get(pipeline, self.gateway.deliver),
        )

    def policy(self) -> Policy:
        """The scheduler's numbers; limits that belong to a configured number keep their ratio."""
        chosen = self.scheduler
        return Policy(
            max_window=chosen.max_window,
            first_lease_s=chosen.first_lease_s,
            max_lease_s=20 * chosen.first_lease_s,
            max_failures=chosen.max_failures,
            max_expiries=2 * chosen.max_failures,
            max_losses=chosen.max_losses,
            quarantine_s=chosen.quarantine_s,
            quarantine_max_s=30 * chosen.quarantine_s,
            hedging=chosen.hedging,
            starve_s=self.gateway.local_after,
        )


@dataclass(frozen=True, slots=True)
class DashboardOrders:
    """All that the dashboard's process needs to know; a gateway sends it as JSON."""

    broker: BrokerSettings
    prefix: str
    gateway: str
    dashboard: DashboardSettings
    #: Where tokens are kept that have no file set.
    folder: str
    #: The process id of the gateway that started the process; 0 if a user did.
    parent: int = 0
    log_format: LogFormat = "text"
    #: joining.folder: operators invite boards on the page; empty where no board can join.
    joining: str = ""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """The identity and the resources of a device."""

    id: str = ""
    workers: Literal["auto"] | Annotated[int, msgspec.Meta(ge=1, le=1024)] = "auto"
    checkin_s: Seconds = 5.0
    worker_memory_mb: Literal["auto"] | Annotated[int, msgspec.Meta(ge=64)] = "auto"
    max_tile_pixels: Literal["any"] | Annotated[int, msgspec.Meta(ge=1)] = "any"
    isolate: Literal["auto", "always"] = "auto"


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """The configuration of `fog-device`. It uses only `prefix` and `qos` of `wire`.

    `camera` is a source for the whole fleet; without a `source` there is none.
    """

    broker: BrokerSettings = BrokerSettings()
    wire: WireSettings = WireSettings()
    device: DeviceSettings = DeviceSettings()
    camera: SourceSettings = field(default_factory=SourceSettings)
    models: str = "models"
    plugins: tuple[str, ...] = ()
    #: An invitation to join a gateway: a file, or the line.
    join: str = ""
    log_format: LogFormat = "text"
