"""The streams of a gateway: opens them, switches them on and off, and publishes their state."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

import msgspec

from fogmqtt.config import GatewayConfig, StreamSettings
from fogmqtt.core.streaming.events import Grouping
from fogmqtt.errors import ConfigError, FogError, UsageError, WireError
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.broker_link import BrokerLink
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import DeviceRegistry
from fogmqtt.gateway.execution.dispatcher import Dispatcher
from fogmqtt.gateway.metrics import Metrics
from fogmqtt.gateway.streams.frame_events import EventsHead
from fogmqtt.gateway.streams.frame_work import FrameWork
from fogmqtt.gateway.streams.motion import Motion
from fogmqtt.gateway.streams.newest_frame import NewestFrame
from fogmqtt.gateway.streams.output_kinds import OutputParts, check_output, open_output
from fogmqtt.gateway.streams.outputs import FrameObserver, StreamOutput
from fogmqtt.gateway.streams.preview import PreviewOutput
from fogmqtt.gateway.streams.pushed import PushedFrames
from fogmqtt.gateway.streams.recorder import StreamRecorder
from fogmqtt.gateway.streams.sightings import grouping
from fogmqtt.gateway.streams.stream import LiveStream, StreamView
from fogmqtt.gateway.streams.stream_cards import rival_text, stream_card
from fogmqtt.gateway.streams.stream_events import StreamEvents
from fogmqtt.gateway.streams.stream_topics import DISABLED, OFF, ON, StreamTopics
from fogmqtt.gateway.threads import Threads
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import parse
from fogmqtt.streams.frame import FrameSource
from fogmqtt.streams.settings import SourceSettings, check_source
from fogmqtt.transport.base import Received
from fogmqtt.wire.service_messages import StreamCard
from fogmqtt.wire.service_metrics import StreamMetrics
from fogmqtt.wire.stream_messages import StreamState
from fogmqtt.wire.topics import OFFLINE, ONLINE, Topics

log = logging.getLogger(__name__)

#: Seconds between two messages about the figures of a stream.
STATE_S: Final = 5.0
#: Seconds between two looks at the source.
_LOOK_S: Final = 0.25
#: Seconds until a stream whose source cannot be opened is tried again.
_AGAIN_S: Final = 5.0
#: The tiles of jobs take at most this part of the least `max_age_s`, so that a frame waits for one
#: of them at most.
_TILE_SHARE: Final = 0.125

OpenSource = Callable[[str, StreamSettings], FrameSource]


@dataclass(slots=True)
class _Running:
    """A configured stream: what it is doing now."""

    name: str
    settings: StreamSettings
    topics: StreamTopics
    enabled: bool
    stream: LiveStream | None = None
    #: What is seen in it, if its pipeline finds things.
    events: StreamEvents | None = None
    task: asyncio.Task[None] | None = None
    #: Its newest result, for those who look.
    newest: NewestFrame | None = None
    #: Why it could not run the last time; empty if it could.
    problem: str = ""
    #: It was switched on again before it had ended.
    again: bool = False
    said_at: float = float("-inf")
    #: Another gateway that says figures of a stream of this name, how often, and when last.
    rival: str = ""
    rival_count: int = 0
    rival_at: float = float("-inf")

    @property
    def rival_now(self) -> str:
        """The gateway that has such a stream, too; empty if there is none."""
        # One that just ended said its last figures.
        is_there = self.rival_count > 1 and now() < self.rival_at + 3 * STATE_S
        return self.rival if is_there else ""


class Streams:
    """The streams of one gateway. It belongs to the event loop."""

    def __init__(
        self,
        config: GatewayConfig,
        gateway_id: str,
        registry: DeviceRegistry,
        dispatcher: Dispatcher,
        threads: Threads,
        metrics: Metrics,
        link: BrokerLink,
        topics: Topics,
        warnings: CountedWarnings,
    ) -> None:
        self._config = config
        self._gateway_id = gateway_id
        self._registry = registry
        self._dispatcher = dispatcher
        self._threads = threads
        self._metrics = metrics
        self._link = link
        self._topics = topics
        self._warnings = warnings
        self._pushed = PushedFrames(link, topics)
        self._open_source: OpenSource | None = None
        self._running: dict[str, _Running] = {}
        self._tasks = BackgroundTasks()
        #: The greatest age that each stream under way allows.
        self._max_ages: dict[LiveStream, float] = {}

    @property
    def views(self) -> tuple[StreamView, ...]:
        """The streams that are under way."""
        running = (one.stream for one in self._running.values())
        return tuple(stream.view() for stream in running if stream is not None)

    def cards(self) -> list[StreamCard]:
        """The configured streams, for people."""
        return [self._card(one) for one in self._running.values()]

    def metrics(self) -> list[StreamMetrics]:
        """What is counted of the configured streams, for monitoring."""
        return [_metrics(one) for one in self._running.values()]

    def newest(self, name: str) -> NewestFrame | None:
        """Return what keeps the newest result of a configured stream; None: there is no such."""
        one = self._running.get(name)
        return None if one is None else one.newest

    def _card(self, one: _Running) -> StreamCard:
        view = None if one.stream is None else one.stream.view()
        motion = None if one.events is None else one.events.active
        return stream_card(
            one.name,
            view,
            self._gateway_id,
            enabled=one.enabled,
            problem=one.problem,
            rival=one.rival_now,
            motion=motion,
        )

    def open(
        self,
        name: str,
        settings: StreamSettings,
        source: FrameSource,
        outputs: Sequence[tuple[str, StreamOutput]],
        observers: Sequence[FrameObserver] = (),
        events: StreamEvents | None = None,
    ) -> LiveStream:
        """Return a stream that `run` runs. Raises PipelineError.

        `events` are made by one of the observers; a recording has them, too.
        """
        pipeline = stream_pipeline(self._config, settings)
        work = FrameWork(
            name,
            pipeline,
            settings,
            self._config,
            self._registry,
            self._dispatcher,
            self._threads,
            self._metrics,
        )
        recorder = self._recorder(name, settings, pipeline, has_events=events is not None)
        if recorder is not None and events is not None:
            events.record_to(recorder)
        return LiveStream(
            name, settings, source, work, outputs, self._warnings, observers, recorder
        )

    def _recorder(
        self, name: str, settings: StreamSettings, pipeline: str, *, has_events: bool
    ) -> StreamRecorder | None:
        if not settings.record.folder:
            return None

        def warn(text: str) -> None:
            self._warnings.add("recording", f"stream {name}: {text}", now())

        head = None
        if has_events and (kind := event_grouping(self._config, settings)) is not None:
            head = EventsHead(kind, settings.events, settings.motion)
        return StreamRecorder(settings, name, pipeline, head, warn)

    async def run(self, stream: LiveStream) -> None:
        """Run a stream until its source ends.

        Meanwhile the tiles of jobs are so small that no frame waits long for one.
        """
        self._max_ages[stream] = stream.settings.max_age_s
        self._limit_tiles()
        try:
            await stream.run()
        finally:
            del self._max_ages[stream]
            self._limit_tiles()

    def outputs(self, name: str, settings: StreamSettings) -> list[tuple[str, StreamOutput]]:
        """Return the outputs of a stream, each with its word."""
        parts = OutputParts(name, settings, self._link, self._topics, self._threads)
        return [(word, open_output(word, parts)) for word in settings.output]

    # The configured streams.

    async def serve(self, open_source: OpenSource) -> None:
        """Run the configured streams until cancelled."""
        self._open_source = open_source
        for name, settings in self._config.streams.items():
            topics = StreamTopics(name, self._link, self._topics, self._gateway_id)
            one = self._running[name] = _Running(name, settings, topics, settings.enabled)
            if one.enabled:
                self._start(one)
        while True:
            for one in self._running.values():
                self._say(one)
            self._pushed.say(now())
            await asyncio.sleep(_LOOK_S)

    def connected(self) -> None:
        """The link is up: say again what the broker may have lost."""
        for one in self._running.values():
            one.topics.forget()
            one.said_at = float("-inf")
            self._say(one)

    async def close(self) -> None:
        """End all streams, and say so."""
        await self._tasks.close()
        for one in self._running.values():
            one.topics.say_status(OFFLINE, enabled=one.enabled)

    def pushed(self, name: str, message: Received) -> None:
        """Take a frame that somebody pushed. Raises WireError."""
        self._pushed.received(name, message)

    def switch(self, name: str, payload: bytes | memoryview) -> None:
        """Take a message that switches a stream on or off. Raises WireError."""
        one, word = self._running.get(name), bytes(payload)
        if one is None:
            raise WireError(f"no stream is called {name[:32]!r}")
        if word not in (ON, OFF):
            raise WireError(f"{word[:16]!r} switches no stream; send ON or OFF")
        one.enabled = word == ON
        if one.task is None:
            if one.enabled:
                self._start(one)
        elif one.enabled:
            one.again = True
        else:
            one.again = False
            one.task.cancel()
        self._say(one)

    def heard(self, name: str, payload: bytes | memoryview) -> None:
        """Take the figures that a gateway says of a stream. Raises WireError."""
        try:
            gateway = msgspec.json.decode(payload, type=StreamState).gateway
        except msgspec.MsgspecError as problem:
            raise WireError(f"no figures of a stream: {problem}") from None
        one = self._running.get(name)
        if one is None or one.task is None or gateway in ("", self._gateway_id):
            return
        if gateway != one.rival or now() > one.rival_at + 3 * STATE_S:
            one.rival, one.rival_count = gateway, 0
        one.rival_count, one.rival_at = one.rival_count + 1, now()
        if one.rival_now:
            self._warnings.add("stream", f"{name}: {rival_text(gateway)}", now())

    def _start(self, one: _Running) -> None:
        one.task = self._tasks.start(self._keep_running(one), f"stream {one.name}")

    async def _keep_running(self, one: _Running) -> None:
        """Run a configured stream until it is switched off or its source ends."""
        try:
            while True:
                try:
                    await self._run_once(one)
                except FogError as problem:
                    one.problem = one_line(str(problem))
                    self._warnings.add("stream", f"{one.name}: {one.problem}", now())
                    await asyncio.sleep(_AGAIN_S)
                else:
                    log.info("stream %s: its source has ended", one.name)
                    return
        except asyncio.CancelledError:
            if one.again:
                self._start(one)
            raise
        finally:
            if not one.again:
                one.task = None
            one.again = False
            self._say(one)

    async def _run_once(self, one: _Running) -> None:
        settings = one.settings
        assert self._open_source is not None  # noqa: S101  # set by `serve`
        if settings.source == "mqtt":
            records = bool(settings.record.folder)
            source = self._pushed.open(one.name, source_settings(settings), records=records)
        else:
            source = self._open_source(one.name, settings)
        try:
            measures = parse(stream_pipeline(self._config, settings))[-1].measures
            outputs = self.outputs(one.name, settings)
            if settings.preview.fps:
                outputs.append(("preview", self._preview(one, measures=measures)))
            one.events = self._events(one)
            one.newest = self._newest(one, measures=measures)
            observers: list[FrameObserver] = [one.newest]
            if one.events is not None:
                observers.append(self._observer(one, one.events))
            one.problem = ""
            one.stream = self.open(one.name, settings, source, outputs, observers, one.events)
            await self.run(one.stream)
        finally:
            self._pushed.close(one.name)
            await source.close()
            self._say_end(one)

    def _observer(self, one: _Running, events: StreamEvents) -> FrameObserver:
        """Return what finds the things of the events: the stream's pipeline, or motion."""
        if not one.settings.motion.sensitivity:
            return events

        def warn(text: str) -> None:
            self._warnings.add("motion", f"stream {one.name}: {text}", now())

        return Motion(one.settings.motion, events, self._threads, warn)

    def _preview(self, one: _Running, *, measures: bool) -> PreviewOutput:
        settings, topics = one.settings.preview, self._topics
        return PreviewOutput(
            one.name, settings, self._link, topics, self._threads, measures=measures
        )

    def _newest(self, one: _Running, *, measures: bool) -> NewestFrame:
        """Return what keeps the newest result; it stays the same while the stream is off."""
        if one.newest is None:
            return NewestFrame(
                self._threads, lambda: self._link.max_picture_bytes, measures=measures
            )
        return one.newest

    def _events(self, one: _Running) -> StreamEvents | None:
        """Return what makes events of a stream, if things are found in it."""
        settings = one.settings
        kind = event_grouping(self._config, settings)
        if kind is None:
            return None
        return StreamEvents(
            one.name,
            settings.events,
            kind,
            self._link,
            self._topics,
            self._threads,
            one.topics.say_motion,
            settings.stall_s,
        )

    def _say(self, one: _Running) -> None:
        """Publish what changed, and the figures now and then."""
        if one.events is not None:
            one.topics.say_motion(one.events.active)
        runs = one.stream is not None
        status = ONLINE if runs else OFFLINE if one.enabled else DISABLED
        one.topics.say_status(status, enabled=one.enabled)
        if one.stream is None:
            return
        view = one.stream.view()
        one.topics.say_source(view.source.state)
        if now() - one.said_at >= STATE_S:
            one.said_at = now()
            one.topics.say(view)

    def _say_end(self, one: _Running) -> None:
        """Publish the last figures of a stream."""
        if one.stream is not None:
            one.topics.say(one.stream.view())
            one.stream = one.events = None

    def _limit_tiles(self) -> None:
        least = min(self._max_ages.values(), default=float("inf"))
        self._dispatcher.limit_tiles(_TILE_SHARE * least)


def _metrics(one: _Running) -> StreamMetrics:
    if one.stream is None:
        return StreamMetrics(name=one.name, up=False)
    view = one.stream.view()
    books = view.books
    ends = {"published": books.published, "late": books.late, "failed": books.failed}
    return StreamMetrics(
        name=one.name,
        up=view.source.state == "connected",
        reconnects=view.source.reconnects,
        reseeds=view.reseeds,
        frames={**books.drops(), **ends},
        ages=view.all_ages,
        decodes=view.decodes,
    )


def stream_pipeline(config: GatewayConfig, settings: StreamSettings) -> str:
    """Return the operators of a stream."""
    return config.chosen(settings.pipeline or config.pipeline).text


def event_grouping(config: GatewayConfig, settings: StreamSettings) -> Grouping | None:
    """Return how what is found in a stream becomes events; None if nothing is."""
    if settings.motion.sensitivity:
        return "all"
    return grouping(parse(stream_pipeline(config, settings))[-1])


def source_settings(settings: StreamSettings) -> SourceSettings:
    """Return what a source is told of a stream."""
    return SourceSettings(
        **{each.name: getattr(settings, each.name) for each in fields(SourceSettings)}
    )


def check_streams(config: GatewayConfig) -> None:
    """Raise ConfigError for a configured stream whose source, pipeline or outputs cannot be."""
    for name, settings in config.streams.items():
        try:
            check_stream(config, settings)
        except UsageError as problem:
            raise ConfigError(f"streams.{name}: {problem}") from None


def _check_memory(operators: Sequence[Operator], settings: StreamSettings) -> None:
    """Raise UsageError for what cannot be with operators that remember earlier frames."""
    name = next((one.name for one in operators if one.has_memory), None)
    if name is None:
        return
    if settings.split == "frames":
        raise UsageError(f"split: frames: {name} needs all frames in one place; use tiles or auto")
    if settings.verify > 0:
        raise UsageError(
            f"verify: {settings.verify:g}: {name} depends on all earlier frames, so some frames "
            "cannot be compared by themselves; leave out verify"
        )


def check_stream(config: GatewayConfig, settings: StreamSettings) -> None:
    """Raise UsageError for a stream whose source, pipeline or outputs cannot be."""
    check_source(source_settings(settings))
    operators = parse(stream_pipeline(config, settings))
    _check_memory(operators, settings)
    last = operators[-1]
    measures = last.measures
    if settings.motion.sensitivity and grouping(last) is not None:
        raise UsageError(
            f"motion.sensitivity: the pipeline ends with {last.name}, which has events of its own; "
            "set it to 0, or look for motion in a second stream of the same source"
        )
    for word in settings.output:
        check_output(word, measures=measures)
