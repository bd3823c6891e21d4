"""Keeps a source open: one thread starts its process, watches it, and replaces it when it is lost.

The thread is the parent of the process, which ends with it. The module loads neither asyncio nor
numpy, since a device with a camera uses it, too.
"""

from __future__ import annotations

import logging
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Literal

import msgspec

from fogmqtt.core.streaming.source_steps import SourceStep
from fogmqtt.streams.clocks import MAX_SKEW_S, arrival
from fogmqtt.streams.frame import Clock, SourceAccount, SourceCounts, SourceStatus
from fogmqtt.streams.memory import map_for_reading
from fogmqtt.streams.messages import (
    REPORT_S,
    Answer,
    AtEnd,
    Command,
    Failed,
    Form,
    Given,
    OpenSource,
    Push,
    Release,
    SourceReport,
    Started,
    Taken,
    Tally,
    Want,
)
from fogmqtt.streams.settings import SourceSettings, kind_of, shown
from fogmqtt.workers.channel import open_memory
from fogmqtt.workers.child import ChildProcess
from fogmqtt.workers.exit_status import ExitStatus

log = logging.getLogger(__name__)

_CODE: Final = "from fogmqtt.streams.process import main; main()"
#: Seconds in which a process must be there. A slow board needs several to load FFmpeg, and all
#: streams start at once.
_START_S: Final = 120.0
#: Seconds beyond `stall_s` for opening a source: its reader has that limit itself, and says more.
_OPENING_S: Final = 1.0
_LONGEST_POLL_S: Final = 3600.0

#: Why a process is no longer watched.
_Outcome = Literal["closed", "ended", "gone", "silent"]


@dataclass(frozen=True, slots=True)
class GivenPicture:
    """A picture in memory that its process shares. `release` gives the memory back, once."""

    number: int
    captured_at: float
    captured_utc: float
    clock: Clock
    #: Height, width and channels of the pixels at the beginning of the memory; 0 for a JPEG alone.
    shape: tuple[int, int, int]
    memory: mmap.mmap
    #: The JPEG file that the camera sent, or that its process made.
    jpeg: bytes | None
    #: Seconds of decoding and converting since the picture before.
    decode_s: float
    release: Callable[[], None]


class PushFeed:
    """Takes the pictures that somebody pushes. Only the newest waits. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: tuple[Push, bytes | memoryview] | None = None
        self._superseded = 0
        self._last_at = 0.0
        #: Called after each picture; set by the supervisor.
        self.wake: Callable[[], None] = lambda: None

    def offer(
        self,
        jpeg: bytes | memoryview,
        captured_utc: float | None = None,
        clock: Clock = "arrival",
    ) -> None:
        """Take a picture. A time that differs too much from this machine's clock is not used."""
        now = arrival()
        at, utc = now.at, now.utc
        if captured_utc is not None and abs(captured_utc - utc) <= MAX_SKEW_S:
            at, utc = at - max(0.0, utc - captured_utc), min(utc, captured_utc)
        else:
            clock = "arrival"
        with self._lock:
            if self._waiting is not None:
                self._superseded += 1
            self._last_at = max(self._last_at, at)
            self._waiting = Push(self._last_at, utc, clock), jpeg
        self.wake()

    def take(self) -> tuple[Push, bytes | memoryview] | None:
        """Return the picture that waits."""
        with self._lock:
            taken, self._waiting = self._waiting, None
            return taken

    @property
    def superseded(self) -> int:
        """How many were replaced by newer ones before they were taken."""
        with self._lock:
            return self._superseded


class SourceSupervisor:
    """One source. `deliver` gets a picture for each `want`, on the supervisor's thread.

    `ended` is called after the last picture of a file. Any thread may call the methods.
    """

    def __init__(
        self,
        name: str,
        settings: SourceSettings,
        deliver: Callable[[GivenPicture], None],
        ended: Callable[[], None],
        feed: PushFeed | None = None,
        *,
        records: bool = False,
    ) -> None:
        self._name = name
        self._settings = settings
        self._deliver = deliver
        self._ended = ended
        self._feed = feed
        self._is_pushed = kind_of(settings.source) == "mqtt"
        self._shown = shown(settings.source)
        self._lock = threading.Lock()
        self._wakes, self._wake = socket.socketpair()
        self._wake.setblocking(False)
        self._is_closing = False
        self._wanted: Form | None = None
        #: What earlier processes counted.
        self._base = Tally()
        self._tally = Tally()
        self._records = records
        #: Since the last account.
        self._steps: list[SourceStep] = []
        self._told_replaced = 0
        self._status = SourceStatus("connecting")
        self._connections = 0
        self._link: _Link | None = None
        self._pause_s = settings.retry_s
        if feed is not None:
            feed.wake = self._wake_up
        self._thread = threading.Thread(target=self._run, name=f"source-{name}", daemon=True)

    def start(self) -> None:
        """Open the source in the background."""
        self._thread.start()

    def close(self) -> None:
        """End the process. Blocks for some milliseconds; idempotent."""
        self._is_closing = True
        self._wake_up()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._wakes.close()
            self._wake.close()

    def want(self, form: Form) -> None:
        """Ask for the newest picture that was not given yet."""
        with self._lock:
            self._wanted = form
            if self._link is not None and self._link.is_started:
                self._link.send(Want(form))

    @property
    def counts(self) -> SourceCounts:
        """What became of the frames."""
        pushed = 0 if self._feed is None else self._feed.superseded
        with self._lock:
            return self._counts(pushed)

    def account(self) -> SourceAccount:
        """Return the counts, with the steps since the last call if they are recorded."""
        pushed = 0 if self._feed is None else self._feed.superseded
        with self._lock:
            counts, steps = self._counts(pushed), tuple(self._steps)
            self._steps.clear()
            replaced, self._told_replaced = pushed - self._told_replaced, pushed
        return SourceAccount(counts, steps + (SourceStep("replaced"),) * replaced)

    def _counts(self, pushed: int) -> SourceCounts:
        total = _sum(self._base, self._tally)
        return SourceCounts(
            received=total.received + pushed,
            given=total.given,
            decimated=total.decimated,
            superseded=total.superseded + pushed,
            gap=total.gap,
        )

    @property
    def status(self) -> SourceStatus:
        """What the source is doing."""
        with self._lock:
            return self._status

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_closing:
            try:
                link = _Link(ChildProcess(_CODE))
            except OSError as problem:
                self._lost(f"no process can be started: {problem.strerror}")
                self._sleep()
                continue
            with self._lock:
                self._link = link
            try:
                outcome = self._watch(link)
            finally:
                exit_status = self._end(link)
            if outcome == "ended":
                return
            if outcome == "gone":
                self._lost(f"the process that reads it {exit_status}")
            self._sleep()

    def _watch(self, link: _Link) -> _Outcome:
        """Serve a process until it must be replaced, or the source is at its end."""
        poll = select.poll()
        poll.register(link.process, select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        while not self._is_closing:
            timeout_s = min(max(0.0, link.due_at - time.monotonic()), _LONGEST_POLL_S)
            ready = [number for number, _ in poll.poll(timeout_s * 1000 + 1)]
            if self._wakes.fileno() in ready:
                self._wakes.recv(4096)
            self._push(link)
            if link.process.fileno() in ready:
                if not link.receive(self._handle):
                    return "gone"
                if self._status.state == "ended":
                    return "ended"
            if time.monotonic() >= link.due_at and not self._act(link):
                return "silent"
        return "closed"

    def _act(self, link: _Link) -> bool:
        """Do what is due; False if the process must be replaced."""
        if link.phase == "waiting":
            self._open(link)
            return True
        if self._is_pushed and link.phase == "reading":
            self._lost(f"no picture was pushed for {self._settings.stall_s:g} s")
            link.due_at = float("inf")
            return True
        is_damaged = self._tally.gap > link.at_opening.gap
        self._lost(link.silence(self._settings.stall_s, is_damaged=is_damaged))
        return False

    def _handle(self, link: _Link, answer: Answer, file: int | None) -> None:
        match answer:
            case Given():
                self._given(link, answer, file)
            case SourceReport(tally):
                self._count(link, tally, answer.codec, answer.width, answer.height)
                self._is_alive(link, answer.alive_at)
            case Started():
                self._open(link)
            case Taken():
                link.is_pushing = False
                self._push(link)
            case Failed(reason, tally):
                self._count(link, tally)
                self._lost(reason)
                link.phase, link.due_at = "waiting", time.monotonic() + self._next_pause()
            case AtEnd(tally):
                self._count(link, tally)
                with self._lock:
                    self._status = replace(self._status, state="ended", reason="")
                self._ended()

    def _open(self, link: _Link) -> None:
        now = time.monotonic()
        link.phase, link.opened_at, link.alive_at = "opening", now, 0.0
        link.due_at = now + self._settings.stall_s + _OPENING_S
        with self._lock:
            link.at_opening = self._tally
            link.send(OpenSource(self._settings, self._records))
            if not link.is_started and self._wanted is not None:
                link.send(Want(self._wanted))
            link.is_started = True
            if self._status.state != "lost":
                self._status = replace(self._status, state="connecting")
        self._push(link)

    def _is_alive(self, link: _Link, alive_at: float) -> None:
        if link.phase in ("starting", "waiting") or alive_at < link.opened_at:
            return
        link.phase = "reading"
        link.alive_at = max(link.alive_at, alive_at)
        if self._status.state == "lost" and self._is_pushed and link.due_at == float("inf"):
            return
        link.due_at = link.alive_at + self._settings.stall_s + REPORT_S

    def _count(
        self, link: _Link, tally: Tally, codec: str = "", width: int = 0, height: int = 0
    ) -> None:
        """Take the counts of the process. The first picture since it was opened connects."""
        came = tally.received - tally.gap > self._tally.received - self._tally.gap
        with self._lock:
            self._tally = tally
            self._steps.extend(tally.steps)
            status = replace(
                self._status,
                codec=codec or self._status.codec,
                width=width or self._status.width,
                height=height or self._status.height,
            )
            connects = came and status.state != "connected" and link.phase != "waiting"
            if connects:
                self._connections += 1
                status = replace(
                    status, state="connected", reason="", reconnects=self._connections - 1
                )
            self._status = status
        if came and self._is_pushed:
            link.due_at = time.monotonic() + self._settings.stall_s + REPORT_S
        if connects:
            self._pause_s = self._settings.retry_s
            log.info("%s: connected to %s", self._name, self._shown)

    def _given(self, link: _Link, given: Given, file: int | None) -> None:
        if file is not None:
            link.maps[given.slot] = map_for_reading(file)
        memory = link.maps[given.slot]
        pushed = 0 if self._feed is None else self._feed.superseded
        number = self._base.received + pushed + given.number
        self._count(link, given.tally, given.codec, given.width, given.height)
        link.phase = "reading"
        self._is_alive(link, time.monotonic())
        end = given.pixel_bytes + given.original_bytes
        if end > len(memory) or given.pixel_bytes != given.width * given.height * given.channels:
            raise ValueError("a picture does not fit its memory")
        with self._lock:
            self._wanted = None
        self._deliver(
            GivenPicture(
                number=number,
                captured_at=given.captured_at,
                captured_utc=given.captured_utc,
                clock=given.clock,
                shape=(given.height, given.width, given.channels),
                memory=memory,
                jpeg=memory[given.pixel_bytes : end] or None,
                decode_s=given.decode_s,
                release=link.releaser(given.slot),
            )
        )

    def _push(self, link: _Link) -> None:
        """Hand the newest pushed picture to the process, if it has read the last one."""
        if self._feed is None or not link.is_started or link.is_pushing:
            return
        taken = self._feed.take()
        if taken is None:
            return
        push, jpeg = taken
        file = open_memory()
        try:
            with open(file, "wb", closefd=False) as opened:
                opened.write(jpeg)
            os.lseek(file, 0, os.SEEK_SET)
            link.is_pushing = True
            link.send(push, file)
        finally:
            os.close(file)

    def _lost(self, reason: str) -> None:
        with self._lock:
            known = self._status.state == "lost" and self._status.reason == reason
            self._status = replace(self._status, state="lost", reason=reason)
        if not known and not self._is_closing:
            log.warning("%s: no frames of %s: %s", self._name, self._shown, reason)

    def _end(self, link: _Link) -> ExitStatus:
        exit_status = link.end()
        with self._lock:
            self._link = None
            tally, self._tally = self._tally, Tally()
            known = tally.given + tally.decimated + tally.superseded + tally.gap
            lost = msgspec.structs.replace(tally, gap=tally.gap + tally.received - known)
            self._base = _sum(self._base, lost)
            if self._records:
                self._steps.append(SourceStep("gone"))
        return exit_status

    def _next_pause(self) -> float:
        pause_s, longest = self._pause_s, self._settings.retry_max_s
        self._pause_s = min(2 * pause_s, longest)
        return min(pause_s, longest)

    def _sleep(self) -> None:
        """Wait until the source is tried again, or `close` is called."""
        due = time.monotonic() + self._next_pause()
        poll = select.poll()
        poll.register(self._wakes, select.POLLIN)
        while not self._is_closing and (left := due - time.monotonic()) > 0:
            if poll.poll(left * 1000 + 1):
                self._wakes.recv(4096)

    def _wake_up(self) -> None:
        with suppress(OSError):  # enough wakes wait, or it is closed
            self._wake.send(b"w")


class _Link:
    """The connection to one process of a source."""

    def __init__(self, process: ChildProcess) -> None:
        self.process = process
        self.phase = "starting"
        #: When the supervisor must do something unless it hears of the process.
        self.due_at = time.monotonic() + _START_S
        self.opened_at = self.alive_at = 0.0
        #: What was counted when the source was opened.
        self.at_opening = Tally()
        self.is_started = self.is_pushing = False
        self.maps: dict[int, mmap.mmap] = {}
        self._sending = threading.Lock()
        self._is_over = False
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)

    def send(self, command: Command, file: int | None = None) -> None:
        """Send a command; does nothing if the process is gone."""
        with self._sending, suppress(OSError):
            if not self._is_over:
                data = self._encoder.encode(command)
                self.process.send_message(data, () if file is None else (file,))

    def receive(self, handle: Callable[[_Link, Answer, int | None], None]) -> bool:
        """Handle one answer; False if the process ended, or sent what it must not."""
        received = self.process.receive_message_and_file()
        if received is None:
            return False
        message, file = received
        try:
            handle(self, self._decoder.decode(message), file)
        except (msgspec.MsgspecError, ValueError, KeyError, OSError) as problem:
            log.warning("the process of a source sent what it must not: %r", problem)
            return False
        return True

    def releaser(self, slot: int) -> Callable[[], None]:
        """Return what gives the memory of a slot back, once."""
        left = [slot]

        def release() -> None:
            if left:
                self.send(Release(left.pop()))

        return release

    def silence(self, stall_s: float, *, is_damaged: bool) -> str:
        """Return what a source does that gives no picture, in words."""
        if self.phase == "starting":
            return "the process that reads it does not start"
        if self.phase == "opening":
            return f"it accepts the connection and sends nothing for {stall_s:g} s"
        if is_damaged:
            return f"what it sends is damaged; there is no picture for {stall_s:g} s"
        return f"it sends no picture for {stall_s:g} s"

    def end(self) -> ExitStatus:
        """Kill the process and give back what belongs to it."""
        with self._sending:
            self._is_over = True
        self.maps.clear()
        return self.process.end()


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(
        one.received + other.received,
        one.given + other.given,
        one.decimated + other.decimated,
        one.superseded + other.superseded,
        one.gap + other.gap,
    )
