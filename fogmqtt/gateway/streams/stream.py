"""One live stream: frames come from its source, go through the fleet, and out.

`LiveStream.run` is the whole way of all frames, and `LiveStream._do` that of one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Final

import numpy as np
from msgspec import Struct

from fogmqtt.config import StreamSettings
from fogmqtt.core.streaming.books import Books
from fogmqtt.core.streaming.cadence import EndedFrame
from fogmqtt.core.streaming.decisions import (
    Arrival,
    Decisions,
    SourceTotals,
    Verdict,
    WorkEnd,
)
from fogmqtt.core.streaming.split import Way
from fogmqtt.errors import BudgetExceeded, FogError, SourceEnded
from fogmqtt.gateway.background import BackgroundTasks
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.streams.figures import Ages, Figures
from fogmqtt.gateway.streams.frame_work import FrameHold, FrameWork
from fogmqtt.gateway.streams.outputs import (
    FrameObserver,
    OutputLane,
    PublishedFrame,
    StreamOutput,
)
from fogmqtt.gateway.streams.recorder import StreamRecorder, rules_of
from fogmqtt.images.spec import Spec
from fogmqtt.log import CountedWarnings, one_line
from fogmqtt.operators.api.base import StageOutput
from fogmqtt.streams.frame import Clock, Frame, FrameSource, SourceCounts, SourceStatus
from fogmqtt.wire.service_metrics import HistogramCounts

log = logging.getLogger(__name__)

#: Devices must not predict which frames are compared.
_CHANCE: Final = SystemRandom()
#: Seconds between two looks at what happened in a source that gives no frame to record.
_RECORD_S: Final = 1.0
#: Seconds until a stream that must not drop frames looks again for a device.
_LOOK_S: Final = 0.1


class StreamView(Struct, frozen=True):
    """A stream at one moment."""

    name: str
    pipeline: str
    source: SourceStatus
    #: How the last frame was done; empty before the first one.
    way: str
    seq: int
    epoch: int
    clock: str
    fps_in: float
    fps_out: float
    age_s: Ages
    #: Of all results since the stream began.
    all_ages: HistogramCounts
    #: The seconds of decoding for each frame that the source gave.
    decodes: HistogramCounts
    books: Books
    #: Frames that were compared with one machine, and those that differed.
    verified: int
    wrong: int
    #: How often a memory was lost, and the tiles whose memory is too young to mean much.
    reseeds: int
    warming: int
    #: Why the last frame that failed did so; empty if the last frame did not.
    error: str


class LiveStream:
    """A source, a pipeline and outputs. It belongs to the event loop.

    The outputs are closed with the stream, the source is the caller's.
    """

    def __init__(
        self,
        name: str,
        settings: StreamSettings,
        source: FrameSource,
        work: FrameWork,
        outputs: Sequence[tuple[str, StreamOutput]],
        warnings: CountedWarnings,
        observers: Sequence[FrameObserver] = (),
        recorder: StreamRecorder | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self._source = source
        self._work = work
        self._warnings = warnings
        self._drops = settings.keep != "all"
        self._decisions = Decisions(rules_of(settings))
        self._figures = Figures()
        self._lanes = [
            OutputLane(f"stream {name} {kind}", output, warnings, drops=self._drops)
            for kind, output in outputs
        ]
        self._observers = observers
        self._recorder = recorder
        readers: list[FrameObserver | StreamOutput] = [*observers]
        self._readers = [*readers, *(output for _, output in outputs)]
        self._under_way = BackgroundTasks()
        self._comparing = BackgroundTasks()
        self._way: Way = "tiles"
        self._began_any = False
        self._spec: Spec | None = None
        self._reconnects = 0
        self._clock: Clock | None = None
        self._verified = self._wrong = 0
        self._error = ""
        #: Results that wait for those of the frames before them.
        self._waiting: dict[int, PublishedFrame] = {}
        #: An output that must not drop results may let one wait; those after it wait, too.
        self._putting = asyncio.Lock()

    @property
    def recording(self) -> Path | None:
        """The folder of the stream's recording; None if there is none."""
        return None if self._recorder is None else self._recorder.folder

    def view(self) -> StreamView:
        """Return the stream as it is now."""
        moment, counts = now(), self._source.counts
        books = self._decisions.books
        books.take(counts)
        self._figures.receive(counts.received, moment)
        return StreamView(
            self.name,
            self._work.pipeline,
            self._source.status,
            self._way if self._began_any else "",
            books.begun,
            self._decisions.epoch + self._work.reseeds,
            self._clock or "",
            self._figures.fps_in(moment),
            self._figures.fps_out(moment),
            self._figures.ages(moment),
            self._figures.all_ages.counts(),
            self._figures.decodes.counts(),
            books,
            self._verified,
            self._wrong,
            self._work.reseeds,
            self._work.warming,
            self._error,
        )

    async def run(self) -> None:
        """Do frames until the source ends, or until cancelled."""
        recording = None if self._recorder is None else asyncio.create_task(self._keep_recording())
        try:
            while True:
                await self._wait_for_room()
                frame = await self._source.next_frame()
                hold = FrameHold(frame)
                verdict = await self._decide(hold)
                if verdict.way is None:
                    hold.drop()
                    continue
                self._way, self._began_any = verdict.way, True
                self._under_way.start(self._do(hold, verdict), f"frame of {self.name}")
        except SourceEnded:
            await self._under_way.finish()
            await self._comparing.finish()
        finally:
            await self._under_way.close()
            await self._work.close()
            await self._comparing.close()
            # The end of all events is part of the recording.
            await asyncio.gather(*(one.close() for one in self._observers))
            if recording is not None:
                recording.cancel()
            await self._end_recording()
            await asyncio.gather(*(lane.close() for lane in self._lanes))

    async def _keep_recording(self) -> None:
        """Record what happens in a source, also while it gives no frame."""
        while True:
            self._account()
            await asyncio.sleep(_RECORD_S)

    def _account(self) -> SourceCounts:
        """Return the source's counts, and record what led to them."""
        account = self._source.account()
        if account.steps and self._recorder is not None:
            self._recorder.stepped(account.steps)
        return account.counts

    async def _end_recording(self) -> None:
        counts = self._account()
        self._decisions.abandon()
        if self._recorder is not None:
            self._decisions.books.take(counts)
            await self._recorder.close(_totals(counts), self._decisions.books)

    async def _wait_for_room(self) -> None:
        """Wait until another frame may be under way."""
        if self._recorder is not None:
            await self._recorder.room()
        while self._decisions.in_flight >= self._work.at_once(self._way) or not self._work.has_room:
            self._work.freed.clear()
            await self._work.freed.wait()

    async def _decide(self, hold: FrameHold) -> Verdict:
        """Decide whether a frame is done, and how; without a way, it is not."""
        frame = hold.frame
        await self._note(frame)
        problem: FogError | None = None
        ways: tuple[Way, ...] | None = None
        try:
            ways = self._work.ways(frame.image)
            while not ways and not self._drops:
                await asyncio.sleep(_LOOK_S)
                ways = self._work.ways(frame.image)
        except FogError as found:
            problem = found
        arrival = Arrival(
            now(),
            frame.number,
            frame.captured_at,
            frame.image.shape,
            self._reconnects,
            self._work.switches,
            ways,
            _totals(self._account()),
        )
        verdict = self._decisions.arrive(arrival)
        if self._recorder is not None:
            self._recorder.arrived(hold, arrival, verdict)
        if problem is not None:
            await self._fail(verdict.seq, problem)
        return verdict

    async def _note(self, frame: Frame) -> None:
        """Take notice of what is new about a frame."""
        if self._spec is None:
            self._figures.receive(frame.number + 1, now())
        spec, reconnects = Spec.of(frame.image), self._source.status.reconnects
        self._clock = frame.clock
        self._figures.decodes.add(frame.decode_s)
        if spec != self._spec or reconnects != self._reconnects:
            self._spec, self._reconnects = spec, reconnects
            await self._end_epoch()
            self._work.begin_epoch()

    async def _end_epoch(self) -> None:
        """Wait for the frames that need the memories of this epoch, but not for lost devices."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.stall_s):
                while self._decisions.in_flight and self._work.remembers:
                    self._work.freed.clear()
                    await self._work.freed.wait()

    async def _do(self, hold: FrameHold, verdict: Verdict) -> None:
        """Do one frame: cut, send, results, merge, publish."""
        frame, seq, way = hold.frame, verdict.seq, verdict.way
        assert way is not None  # noqa: S101  # it is begun
        deadline = self._decisions.deadline(frame.captured_at)
        is_whole = False
        try:
            async with asyncio.timeout_at(deadline):
                output = await self._work.process(hold, seq, way, deadline)
            is_whole = True
            self._verify(hold, seq, output)
            await self._publish(frame, verdict, output)
        except (TimeoutError, BudgetExceeded):
            await self._end(WorkEnd(now(), seq, late=True))
        except Exception as problem:  # noqa: BLE001  # one frame must not end the stream
            await self._fail(seq, problem)
        finally:
            if is_whole:
                hold.drop()
            else:
                hold.drop_later()
            self._work.freed.set()

    def _result(self, frame: Frame, seq: int, epoch: int, output: StageOutput) -> PublishedFrame:
        facts = output if isinstance(output, dict) else None
        return PublishedFrame(
            self.name,
            seq,
            frame.number,
            frame.captured_at,
            frame.captured_utc,
            frame.clock,
            epoch,
            None if isinstance(output, dict) else output,
            facts,
            self._work.result_size(frame.image),
            frame.image.copy() if any(one.needs_original for one in self._readers) else None,
        )

    async def _publish(self, frame: Frame, verdict: Verdict, output: StageOutput) -> None:
        """A result is there: publish what may be published now."""
        seq, reseeds = verdict.seq, self._work.reseeds_of(verdict.seq)
        self._waiting[seq] = self._result(frame, seq, verdict.epoch + reseeds, output)
        self._error = ""
        await self._end(WorkEnd(now(), seq, is_done=True), output, reseeds)

    async def _fail(self, seq: int, problem: Exception) -> None:
        """A frame has no result."""
        text = str(problem) if isinstance(problem, FogError) else repr(problem)
        self._error = one_line(text)
        if not isinstance(problem, FogError):
            log.error("stream %s: a frame failed unexpectedly", self.name, exc_info=problem)
        self._warnings.add("frame", f"stream {self.name}: {text}", now())
        await self._end(WorkEnd(now(), seq))

    async def _end(
        self, ending: WorkEnd, output: StageOutput | None = None, reseeds: int | None = None
    ) -> None:
        """The work on a frame ended: publish what may be published now."""
        ended = self._decisions.end(ending)
        if self._recorder is not None:
            self._recorder.ended(
                ending,
                ended,
                output,
                self._work.remembered(ending.seq),
                self._work.reseeds if reseeds is None else reseeds,
            )
        await self._put(ended)

    async def _put(self, ended: Sequence[EndedFrame]) -> None:
        """Bring the results of frames that ended to the outputs, after all that ended before."""
        async with self._putting:
            for one in ended:
                result = self._waiting.pop(one.seq, None)
                if one.how == "published" and result is not None:
                    self._figures.publish(result.age_s, now())
                    self._observe(result)
                    for lane in self._lanes:
                        await lane.put(result)

    def _observe(self, result: PublishedFrame) -> None:
        for observer in self._observers:
            try:
                observer.take(result)
            except Exception as problem:  # noqa: BLE001  # one frame must not end the stream
                text = f"stream {self.name}: frame {result.seq}: {problem!r}"
                self._warnings.add("observer", text, now())

    def _verify(self, hold: FrameHold, seq: int, output: StageOutput) -> None:
        """Compare some results with those of one machine, beside the stream."""
        if self.settings.verify > _CHANCE.random():
            hold.keep()
            self._comparing.start(self._compare(hold, seq, output), f"check of {self.name}")

    async def _compare(self, hold: FrameHold, seq: int, output: StageOutput) -> None:
        try:
            whole = await self._work.whole(hold)
        finally:
            hold.drop()
        self._verified += 1
        if isinstance(output, dict) or isinstance(whole, dict):
            is_same = output == whole
        else:
            is_same = np.array_equal(output, whole)
        if not is_same:
            self._wrong += 1
            text = f"stream {self.name}: frame {seq} differs from this machine's result"
            self._warnings.add("disagreement", text, now())


def _totals(counts: SourceCounts) -> SourceTotals:
    return SourceTotals(
        counts.received, counts.given, counts.decimated, counts.superseded, counts.gap
    )
