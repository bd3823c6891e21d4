"""When a tile's faults fail its job, and what the user is told. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.event_log import short
from fogmqtt.core.scheduling.fleet import Fleet
from fogmqtt.core.scheduling.policy import Policy
from fogmqtt.core.scheduling.state import ActiveJob, TileState

#: A message names at most this many devices.
_NAMED = 6
#: A failed job quotes this many lines of its event log, the newest.
_QUOTED = 12


def is_suspect(tile: TileState, policy: Policy) -> bool:
    """Whether so many devices died of the tile that it must not endanger another tile."""
    return tile.losses >= max(1, policy.alone_after * policy.max_losses)


def on_failures(tile: TileState, fleet: Fleet, policy: Policy) -> str | None:
    """Why the job fails, or None while the tile may be tried again.

    The failures of a single device do not count while another could try, up to a limit.
    """
    if tile.failures < policy.max_failures:
        return None
    others = (one for one in fleet.present(tile.job) if one.id not in tile.failed_on)
    if len(tile.failed_on) < 2 and tile.failures < 2 * policy.max_failures and any(others):
        return None
    return f"{tile} failed {_times(tile.failures)}: {_faults(tile)}"


def on_losses(tile: TileState, fleet: Fleet, policy: Policy) -> str | None:
    """Why the job fails, or None while the losses may be a coincidence.

    The losses of a single device do not count while another could try, up to a limit.
    """
    if tile.losses < policy.max_losses:
        return None
    others = (one for one in fleet.present(tile.job) if one.id not in tile.lost_on)
    few = len(tile.lost_on) < 2 <= policy.max_losses and tile.losses < 2 * policy.max_losses
    if few and any(others):
        return None
    died = "1 device" if tile.losses == 1 else f"{tile.losses} devices"
    return f"{tile} was with {died} that died: {_faults(tile)}"


def on_expiries(tile: TileState, policy: Policy) -> str | None:
    """Why the job fails, or None while the devices may just have been slow."""
    if tile.expiries < policy.max_expiries:
        return None
    return f"{tile} was accepted {_times(tile.expiries)} and never answered: {_faults(tile)}"


def on_starvation(job: ActiveJob, fleet: Fleet) -> str:
    """Why no device can take a job's tiles."""
    online = [device for device in fleet.devices.values() if device.online]
    if not online:
        return "no device is online"
    able = [device for device in online if job.operators <= device.operators]
    if not able:
        lacks = (_lack(one, job.operators) for one in online)
        return f"no device has every operator: {_some(lacks, len(online), '; ')}"
    if all(job.required_pixels > one.max_tile_pixels for one in able):
        return f"no device has room for its smallest tiles: {_no_room(job.required_pixels, able)}"
    states: dict[str, list[str]] = {}
    for one in able:
        states.setdefault(_state(one, job), []).append(one.id)
    parts = (f"{word} ({_some(ids, len(ids), ', ')})" for word, ids in states.items())
    return f"every able device is {' or '.join(parts)}"


def _state(device: DeviceState, job: ActiveJob) -> str:
    """Why a device that is online and has the operators cannot take the job's tiles."""
    if job.required_pixels > device.max_tile_pixels:
        return "too small"
    if device.mute:
        return "mute"
    return "quarantined" if device.quarantined else "draining" if device.draining else "refuted"


def _lack(device: DeviceState, operators: frozenset[str]) -> str:
    lacks = (
        f"{name}: {short(why)}" if (why := device.lacks.get(name)) else name
        for name in sorted(operators - device.operators)
    )
    return f"{device.id} lacks {', '.join(lacks)}"


def _no_room(pixels: int, able: Sequence[DeviceState]) -> str:
    rooms = (f"{one.id} takes {one.max_tile_pixels:,.0f} (max_tile_pixels)" for one in able)
    return f"{pixels:,} pixels with halo, and {_some(rooms, len(able), ', ')}; cut smaller tiles"


def with_event_log(failure: str, event_log: tuple[str, ...]) -> str:
    """The reason of the failure, followed by the newest lines of the event log."""
    return "\n  ".join([failure, *event_log[-_QUOTED:]])


def _some(words: Iterable[str], count: int, separator: str) -> str:
    few = separator.join(word for word, _ in zip(words, range(_NAMED), strict=False))
    return few if count <= _NAMED else f"{few} and {count - _NAMED} more"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _faults(tile: TileState) -> str:
    return "; ".join(tile.faults)
