"""The dashboard's side of the gateway's service: requests with answers, and updates.

A request is repeated with the same id until its answer comes, so a lost message costs a moment.
While somebody wants to know, the client watches: the mirror follows the gateway's updates, and a
gap in their numbers or a broken link leads to a new snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from fogmqtt import __version__
from fogmqtt.dashboard.mirror import ENDED, Mirror
from fogmqtt.errors import FogError, NoAnswer, NotConnected, UnsupportedVersion, WireError
from fogmqtt.transport.base import (
    PACKET_OVERHEAD_BYTES,
    Connected,
    Deliver,
    Disconnected,
    Received,
    Refused,
    Transport,
)
from fogmqtt.wire.messages import Decoder, encode, head_of
from fogmqtt.wire.service_messages import (
    PIECE_BYTES,
    WATCH_EVERY_S,
    Answer,
    AnyAnswer,
    GetJob,
    GetStreamFrame,
    JobAnswer,
    JobCard,
    Refusal,
    Request,
    Snapshot,
    StreamFrame,
    Update,
    Watch,
)
from fogmqtt.wire.topics import ONLINE, Topics

log = logging.getLogger(__name__)

A = TypeVar("A", bound=Answer)

Connect = Callable[[Deliver], Transport]

#: Seconds after which a request is sent again, and in which most requests must be answered.
RETRY_S: Final = 2.0
ANSWER_S: Final = 10.0
#: The same for requests that compute something.
SLOW_ANSWER_S: Final = 30.0
#: Requests that wait for an answer at once. The gateway refuses a client's 65th, and this client
#: asks for many users.
_MOST_REQUESTS: Final = 32
#: Uploads that are open at once: fewer than `limits.max_uploads` of a gateway.
MOST_UPLOADS: Final = 12
#: Seconds that the client watches on after somebody asked once.
_LINGER_S: Final = 20.0
#: Seconds between two attempts to get a snapshot from a gateway that does not answer.
_PAUSE_S: Final = 1.0
#: Seconds after which somebody who waits for a job asks for it, whatever the updates said.
_LOOK_AGAIN_S: Final = 5.0
#: Updates that are kept until the snapshot comes that they continue.
_MOST_EARLY: Final = 50
#: Bytes of a message around the piece of a file that it carries.
_AROUND_PIECE: Final = 1024

_ANSWERS: Decoder[Any] = Decoder(*AnyAnswer.__args__)
_UPDATES: Decoder[Update] = Decoder(Update)


class RefusalReceived(FogError):
    """The gateway answered that it did not do a request."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


class Listener(Protocol):
    """What hears of the gateway. Its methods must return at once."""

    def snapshot(self) -> None:
        """The mirror was taken anew."""

    def update(self, update: Update) -> None:
        """The mirror took an update."""

    def link(self, connected: bool, sentence: str) -> None:
        """The gateway can be reached, or not any more; why, as a sentence."""


class GatewayClient:
    """The client of one gateway's service. Only `_deliver` may be called on another thread."""

    def __init__(self, gateway: str, name: str, topics: Topics, connect: Connect) -> None:
        """`name` is this client's: its level of the topics, the same after a restart."""
        self.gateway = gateway
        self.mirror = Mirror()
        self._requests = topics.requests(gateway, name)
        self._answers = topics.answers(gateway, name)
        self._updates = topics.gateway(gateway, "updates")
        self._status = topics.gateway(gateway, "status")
        #: So that no answer of an earlier run has the id of a request.
        self._run = secrets.token_hex(4)
        self._count = 0
        self._pending: dict[str, asyncio.Future[Answer]] = {}
        self._slots = asyncio.Semaphore(_MOST_REQUESTS)
        #: The places of uploads. Whoever has one may have a file open at the gateway.
        self.uploads = asyncio.Semaphore(MOST_UPLOADS)
        self._up = asyncio.Event()
        self._reason = "the broker has not answered yet"
        self._max_packet_bytes: int | None = None
        #: What the gateway's retained status says.
        self._online: bool | None = None
        #: Why its snapshots are not understood; empty if they are.
        self._foreign = ""
        self._watchers = 0
        self._watch_until = 0.0
        self._watching: asyncio.Task[None] | None = None
        #: Set while the mirror follows the gateway.
        self._current = asyncio.Event()
        self._resync = asyncio.Event()
        #: Updates that came while the mirror did not follow.
        self._early: deque[Update] = deque(maxlen=_MOST_EARLY)
        self._changed: dict[str, set[asyncio.Event]] = {}
        self._listeners: list[Listener] = []
        self._told: tuple[bool, str] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._transport = connect(self._deliver)
        for topic in (self._answers, self._updates, self._status):
            self._transport.subscribe(topic)

    def start(self) -> None:
        """Connect in the background, and again whenever the link breaks."""
        self._loop = asyncio.get_running_loop()
        self._transport.start()

    async def close(self) -> None:
        """End the link."""
        self._loop = None
        if self._watching is not None:
            self._watching.cancel()
        await asyncio.to_thread(self._transport.close)

    def listen(self, listener: Listener) -> None:
        """Tell a listener of snapshots, updates and the link from now on."""
        self._listeners.append(listener)

    # The link.

    @property
    def is_online(self) -> bool:
        """Whether the broker says that the gateway is online."""
        return self._up.is_set() and self._online is True

    @property
    def link_state(self) -> tuple[bool, str]:
        """Whether the gateway can be reached and understood, and a sentence that says so."""
        return self.is_online and not self._foreign, self.state

    @property
    def state(self) -> str:
        """Whether the gateway can be reached and understood, and why not, as a sentence."""
        if not self._up.is_set():
            return f"The dashboard cannot reach the broker: {self._reason}."
        if self._online is False:
            return f"The gateway {self.gateway} is offline."
        if self._online is None:
            return f"The broker knows of no gateway {self.gateway}."
        if self._foreign:
            return self._foreign
        return f"The gateway {self.gateway} is online."

    @property
    def piece_bytes(self) -> int:
        """The bytes of a file in one message: fewer where the broker takes only small packets."""
        if self._max_packet_bytes is None:
            return PIECE_BYTES
        around = _AROUND_PIECE + PACKET_OVERHEAD_BYTES + len(self._requests)
        return max(256, min(PIECE_BYTES, self._max_packet_bytes - around))

    def _deliver(self, item: object) -> None:
        """Take an item from the transport's thread."""
        if self._loop is None:
            return
        try:
            self._loop.call_soon_threadsafe(self._take, item)
        except RuntimeError:
            return  # the loop is closed

    def _take(self, item: object) -> None:
        match item:
            case Received(topic, payload, _, _, _):
                self._take_message(topic, payload)
            case Connected(max_packet_bytes):
                self._max_packet_bytes = max_packet_bytes
                self._up.set()
                self._resync.set()
                self._tell_link()
            case Disconnected(reason) | Refused(reason):
                self._up.clear()
                self._current.clear()
                self._online = None
                self._reason = reason
                self._tell_link()
            case _:
                pass

    def _take_message(self, topic: str, payload: bytes | memoryview) -> None:
        if topic == self._status:
            self._online = payload == ONLINE
            if not self._online:
                self._current.clear()
            self._resync.set()
            self._tell_link()
            return
        try:
            if topic == self._updates:
                self._take_update(_UPDATES.decode(payload))
            else:
                self._take_answer(_ANSWERS.decode(payload))
        except WireError as problem:
            log.warning("a message of %s on %s is not understood: %s", self.gateway, topic, problem)
            self._fail(head_of(payload).id)

    def _fail(self, request_id: str) -> None:
        """End a request whose answer is not understood."""
        future = self._pending.get(request_id)
        if future is not None and not future.done():
            future.set_exception(
                UnsupportedVersion(
                    f"The gateway {self.gateway} is of another version than this dashboard, "
                    f"{__version__}, which does not understand its answer; update the older one."
                )
            )

    def _take_answer(self, answer: Answer) -> None:
        future = self._pending.get(answer.id)
        if future is None or future.done():
            return
        if isinstance(answer, Snapshot):  # before the next message, which may be an update to it
            self._take_snapshot(answer)
        future.set_result(answer)

    def _tell_link(self) -> None:
        told = self.link_state
        if told == self._told:
            return
        self._told = told
        for listener in self._listeners:
            listener.link(*told)

    # Requests.

    def new_id(self) -> str:
        """Return the id of a new request."""
        self._count += 1
        return f"{self._run}-{self._count}"

    async def ask(self, request: Request, expected: type[A], *, within_s: float = ANSWER_S) -> A:
        """Send a request, and return its answer.

        Raises RefusalReceived, and NoAnswer if none comes in time.
        """
        if isinstance(request, Watch | GetStreamFrame):  # all pages wait for one, and one for long
            answer = await self._ask(request, within_s)
        else:
            try:
                async with asyncio.timeout(within_s):
                    await self._slots.acquire()
            except TimeoutError:
                raise self._no_answer() from None
            try:
                answer = await self._ask(request, within_s)
            finally:
                self._slots.release()
        if isinstance(answer, Refusal):
            raise RefusalReceived(answer)
        if not isinstance(answer, expected):
            raise WireError(f"{self.gateway} gave {type(answer).__name__} as an answer")
        return answer

    async def ask_for_frame(self, request: GetStreamFrame) -> StreamFrame:
        """Ask for the next frame of a stream, which may be long in coming.

        Raises RefusalReceived and NoAnswer.
        """
        return await self.ask(request, StreamFrame, within_s=request.wait_s + ANSWER_S)

    async def _ask(self, request: Request, within_s: float) -> Answer:
        future = asyncio.get_running_loop().create_future()
        self._pending[request.id] = future
        try:
            async with asyncio.timeout(within_s):
                return await self._answered(request, future)
        except TimeoutError:
            raise self._no_answer() from None
        finally:
            del self._pending[request.id]

    async def _answered(self, request: Request, future: asyncio.Future[Answer]) -> Answer:
        payload = encode(request)
        while True:
            await self._up.wait()
            try:
                self._transport.publish(self._requests, payload)
            except NotConnected as problem:
                self._reason = str(problem)
                await asyncio.sleep(0.05)  # the loss is on its way to us
                continue
            done, _ = await asyncio.wait({future}, timeout=RETRY_S)
            if done:
                return future.result()

    def _no_answer(self) -> NoAnswer:
        if not self.is_online:
            return NoAnswer(self.state)
        return NoAnswer(
            f"The gateway {self.gateway} is online but does not answer; it may be busy, or of "
            "another version."
        )

    # Watching.

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow the gateway's updates during the block."""
        self._watchers += 1
        self._watch()
        try:
            yield
        finally:
            self._watchers -= 1

    @property
    def is_current(self) -> bool:
        """Whether the mirror follows the gateway."""
        return self._current.is_set()

    async def current(self, within_s: float = ANSWER_S) -> Mirror:
        """Return the mirror as soon as it follows the gateway. Raises NoAnswer."""
        with self.watching():
            try:
                async with asyncio.timeout(within_s):
                    await self._current.wait()
            except TimeoutError:
                raise self._no_answer() from None
        self._watch_until = time.monotonic() + _LINGER_S
        return self.mirror

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._follow(), name="watch")

    async def _follow(self) -> None:
        """Watch as long as anybody wants it."""
        try:
            while self._watchers or time.monotonic() < self._watch_until:
                self._resync.clear()
                try:
                    await self.ask(Watch(id=self.new_id()), Snapshot)
                except FogError as problem:
                    self._current.clear()
                    log.debug("no snapshot: %s", problem)
                    self._set_foreign(problem)
                    await asyncio.sleep(_PAUSE_S)
                    continue
                try:
                    async with asyncio.timeout(WATCH_EVERY_S):
                        await self._resync.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(0.1)  # what ends one gap after another must not ask in a circle
        finally:
            self._current.clear()

    def _set_foreign(self, problem: FogError | None) -> None:
        self._foreign = str(problem) if isinstance(problem, UnsupportedVersion) else ""
        self._tell_link()

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        is_known = self.mirror.fit(snapshot.boot, snapshot.sequence) == "old"
        if self._current.is_set() and is_known:
            return
        self._set_foreign(None)
        self.mirror.take(snapshot)
        self._current.set()
        for listener in self._listeners:
            listener.snapshot()
        # Updates may be faster than the snapshot that they continue.
        early, self._early = tuple(self._early), deque(maxlen=_MOST_EARLY)
        for update in early:
            if update.boot == snapshot.boot:
                self._take_update(update)
        for events in self._changed.values():
            for event in events:
                event.set()

    def _take_update(self, update: Update) -> None:
        if not self._current.is_set():
            self._early.append(update)
            return
        fit = self.mirror.fit(update.boot, update.sequence)
        if fit == "old":
            return
        if fit == "gap":
            self._current.clear()
            self._resync.set()
            return
        self.mirror.apply(update)
        for listener in self._listeners:
            listener.update(update)
        for job in (*update.gone_jobs, *(card.id for card in update.jobs)):
            for event in self._changed.get(job, ()):
                event.set()

    # Jobs.

    async def ended(self, card: JobCard) -> JobCard:
        """Wait until a job has ended, and return it.

        A gateway that is away for a while delays this. Raises RefusalReceived for an unknown job.
        """
        job, changed = card.id, asyncio.Event()
        self._changed.setdefault(job, set()).add(changed)
        try:
            with self.watching():
                card = self.mirror.jobs.get(job, card)
                while card.state not in ENDED:
                    # A watcher hears of each end; asking is for what got lost.
                    try:
                        async with asyncio.timeout(_LOOK_AGAIN_S):
                            await changed.wait()
                        changed.clear()
                        card = self.mirror.jobs.get(job, card)
                    except TimeoutError:
                        card = await self._asked(card)
                return card
        finally:
            self._changed[job].discard(changed)
            if not self._changed[job]:
                del self._changed[job]

    async def _asked(self, card: JobCard) -> JobCard:
        """Return a job as the gateway knows it now, or as it was if nobody answers."""
        try:
            return (await self.ask(GetJob(id=self.new_id(), job=card.id), JobAnswer)).job
        except NoAnswer:
            return card


async def in_order(pieces: Iterator[Coroutine[Any, Any, A]], window: int) -> AsyncIterator[A]:
    """Run coroutines, at most `window` at a time, and yield their results in order."""
    running: list[asyncio.Task[A]] = []
    try:
        for coroutine in pieces:
            running.append(asyncio.get_running_loop().create_task(coroutine))
            if len(running) >= window:
                yield await running.pop(0)
        while running:
            yield await running.pop(0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
