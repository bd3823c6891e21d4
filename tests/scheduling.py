"""A scheduler on a bench: events in, exact actions out, and every invariant checked each time."""

from __future__ import annotations

from collections.abc import Mapping

from fogmqtt.core.scheduling.actions import Action, SendTile, SplitTile
from fogmqtt.core.scheduling.events import (
    BrokerLost,
    DeviceDraining,
    DeviceJoined,
    DeviceLost,
    DeviceReported,
    Event,
    JobSubmitted,
    LinkConfirmed,
    ResultArrived,
    Tick,
    TileAccepted,
    TileArbitrated,
    TileFailed,
    TileRejected,
    TileSent,
)
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.scheduler import Scheduler
from fogmqtt.simulate.work import halved

#: A tile's size where the size does not matter.
PIXELS = 1000


class Bench:
    """Speaks for the devices; `now` is kept between calls."""

    def __init__(
        self, *, sends_reported: bool = False, confirms_link: bool = False, **policy: float
    ) -> None:
        # Whatever the default is: a window of three shows more than one of two.
        numbers = Policy(**{"ahead": 2, "lease_factor": 4} | policy)  # type: ignore[arg-type]
        self.scheduler = Scheduler(
            numbers, sends_reported=sends_reported, confirms_link=confirms_link
        )
        self.now = 0.0

    def feed(self, event: Event, at: float | None = None) -> list[Action]:
        self.now = self.now if at is None else at
        actions = self.scheduler.handle(event, self.now)
        self.scheduler.check()
        return actions

    def join(
        self,
        device: str,
        *operators: str,
        workers: int = 1,
        boot: str = "1",
        lacks: Mapping[str, str] | None = None,
        is_local: bool = False,
        at: float | None = None,
    ) -> list[Action]:
        event = DeviceJoined(
            device, boot, workers, frozenset(operators), lacks or {}, is_local=is_local
        )
        return self.feed(event, at)

    def submit(
        self,
        tiles: int | tuple[int, ...] = 1,
        *operators: str,
        job: str = "job",
        kind: str = "blur",
        check_tiles: tuple[int, ...] = (),
        done: frozenset[int] = frozenset(),
        halvings: tuple[int, ...] = (),
        at: float | None = None,
    ) -> list[Action]:
        pixels = (PIXELS,) * tiles if isinstance(tiles, int) else tiles
        parts = tuple(map(halved, pixels, halvings)) if halvings else ()
        event = JobSubmitted(job, kind, pixels, frozenset(operators), check_tiles, done, parts)
        return self.feed(event, at)

    def send(self, order: SendTile, at: float | None = None) -> list[Action]:
        return self.feed(TileSent(order.job, order.tile, order.attempt, order.device), at)

    def accept(
        self, order: SendTile, at: float | None = None, arrived: float | None = None
    ) -> list[Action]:
        what = (order.job, order.tile, order.attempt, order.device)
        return self.feed(TileAccepted(*what, arrived), at)

    def answer(
        self,
        order: SendTile,
        at: float | None = None,
        compute_s: float | None = None,
        digest: int | None = None,
        start_s: float | None = None,
        arrived: float | None = None,
    ) -> list[Action]:
        what = (order.job, order.tile, order.attempt, order.device)
        return self.feed(ResultArrived(*what, compute_s, digest, start_s, arrived), at)

    def arbitrate(self, tile: int, digest: int | None, at: float | None = None) -> list[Action]:
        return self.feed(TileArbitrated("job", tile, digest), at)

    def fail(
        self, order: SendTile, at: float | None = None, reason: str = "ValueError: no"
    ) -> list[Action]:
        event = TileFailed(order.job, order.tile, order.attempt, order.device, reason)
        return self.feed(event, at)

    def hand_back(self, order: SendTile, at: float | None = None) -> list[Action]:
        return self.feed(TileRejected(order.job, order.tile, order.attempt, order.device), at)

    def lose(self, device: str, at: float | None = None, reason: str = "last will") -> list[Action]:
        return self.feed(DeviceLost(device, reason), at)

    def check_in(self, device: str, at: float | None = None) -> list[Action]:
        return self.feed(DeviceReported(device, 0), at)

    def drain(self, device: str, at: float | None = None) -> list[Action]:
        return self.feed(DeviceDraining(device), at)

    def lose_the_broker(self, at: float | None = None) -> list[Action]:
        return self.feed(BrokerLost(), at)

    def confirm(self, at: float, until: float | None = None) -> list[Action]:
        """The link works, and all that arrived before `until` is handled."""
        return self.feed(LinkConfirmed(at if until is None else until), at)

    def tick(self, at: float) -> list[Action]:
        return self.feed(Tick(), at)

    def measured(self, device: str, *operators: str, seconds: float, workers: int = 1) -> None:
        """Let a device join that is known to take `seconds` for a tile of PIXELS."""
        # An operator of its own, so that no other device gets the tile that measures it.
        self.join(device, *operators, device, workers=workers)
        order = only(self.submit(1, device, job=f"measures-{device}"))
        self.accept(order)
        self.answer(order, at=self.now + seconds)


def sizes(pixels: tuple[int, ...], actions: list[Action]) -> dict[int, int]:
    """Pixels of each tile of a job without check tiles, after these splits."""
    found = dict(enumerate(pixels))
    for split in actions:
        if isinstance(split, SplitTile):
            whole = found.pop(split.tile)
            found[split.first] = found[split.second] = halved(whole, 1)[0]
    return found


def sent(actions: list[Action]) -> list[SendTile]:
    return [action for action in actions if isinstance(action, SendTile)]


def only(actions: list[Action]) -> SendTile:
    """The one tile that was sent."""
    (order,) = sent(actions)
    return order


def devices(actions: list[Action]) -> list[str]:
    """To whom tiles were sent, in order."""
    return [order.device for order in sent(actions)]
