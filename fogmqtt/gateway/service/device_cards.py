"""Devices for people: what each does in words, why it has no work, and what to do about it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fogmqtt.core.scheduling.live import LiveDevice
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.clock import now
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.log import one_line
from fogmqtt.wire.messages import DeviceInfo
from fogmqtt.wire.service_messages import Activity, DeviceCard
from fogmqtt.wire.topics import LOCAL

#: The names of jobs in a sentence, at most.
_NAMES: Final = 3
#: The abilities of which a card gives the reason why a device lacks them, at most.
_LACKS: Final = 40


@dataclass(frozen=True, slots=True)
class Work:
    """A stage whose tiles are under way."""

    job: str
    name: str
    needs: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Said:
    activity: Activity
    sentence: str
    advice: str = ""


def device_cards(
    gateway: Gateway, work: Mapping[str, Work], why_left: Mapping[str, str]
) -> list[DeviceCard]:
    """Return a card for each device that is known, and one for the gateway's own cores.

    `work` are the stages under way by their keys, `why_left` why devices left, by device.
    """
    live = {one.id: one for one in gateway.live_devices()}
    cards = [
        _card(gateway, view, live.get(view.id), work, why_left.get(view.id, ""))
        for view in gateway.devices()
    ]
    if (own := live.get(LOCAL)) is not None and own.online:
        cards.append(_own_cores(gateway, own, work))
    return cards


def _card(
    gateway: Gateway,
    view: DeviceView,
    live: LiveDevice | None,
    work: Mapping[str, Work],
    why_left: str,
) -> DeviceCard:
    said = _say(view, live, work, why_left)
    info, rates = view.info, gateway.rates(view.id)
    until = live.quarantined_until if live is not None else None
    return DeviceCard(
        id=view.id,
        activity=said.activity,
        sentence=said.sentence,
        # Who is behind is seen at a glance, unless something keeps the device from working.
        advice=said.advice or _version(view),
        quarantined_until=None if until is None else _wall(until),
        jobs=_jobs(live, work) if view.online else [],
        workers=info.workers,
        tiles_held=sum(live.held.values()) if live is not None and view.online else 0,
        tiles_done=info.tiles_done,
        tiles_per_s=rates.tiles_per_s,
        pixels_per_s=rates.pixels_per_s,
        latency_s=rates.latency_s,
        temperature_c=info.temperature_c,
        load=info.load,
        host=one_line(info.host),
        versions={name: one_line(version) for name, version in info.versions.items()},
        lacks={name: one_line(view.lacks[name]) for name in _lacks(view, work)[:_LACKS]},
        problems=_problems(view),
    )


def _problems(view: DeviceView) -> list[str]:
    return [*filter(None, [_version(view)]), *map(one_line, view.info.problems)]


def _version(view: DeviceView) -> str:
    """Return what to say of a device of another version, empty if it has the gateway's."""
    return f"It {view.version_remark}." if view.version_remark else ""


def _lacks(view: DeviceView, work: Mapping[str, Work]) -> list[str]:
    """Return the abilities that a device lacks, those first that jobs need now."""
    needed: set[str] = set().union(*(one.needs for one in work.values()))
    return sorted(view.lacks, key=lambda name: (name not in needed, name))


def _own_cores(gateway: Gateway, live: LiveDevice, work: Mapping[str, Work]) -> DeviceCard:
    rates, held = gateway.rates(LOCAL), sum(live.held.values())
    sentence = "The gateway's own cores wait for tiles."
    if held:
        sentence = (
            f"The gateway's own cores work on {_count(held, 'tile')} of {_names(live, work)}."
        )
    return DeviceCard(
        id=LOCAL,
        activity="working" if held else "idle",
        sentence=sentence,
        jobs=_jobs(live, work),
        workers=live.workers,
        tiles_held=held,
        tiles_per_s=rates.tiles_per_s,
        pixels_per_s=rates.pixels_per_s,
        latency_s=rates.latency_s,
    )


def _say(
    view: DeviceView, live: LiveDevice | None, work: Mapping[str, Work], why_left: str
) -> _Said:
    """Return what a device does, by the first reason that applies."""
    info = view.info
    if not view.online:
        return _absent(view.id, why_left)
    if info.draining or (live is not None and live.draining):
        return _Said(
            "draining",
            "Finishes its tiles and takes no more, then it leaves.",
            f"Start it again when its work is done: fog-device --id {view.id}",
        )
    if live is not None and live.quarantined_until is not None:
        return _quarantined(live)
    if live is not None and live.silences and not live.held:
        return _Said(
            "silent",
            f"Is online, and did not accept {_count(live.silences, 'tile')} that it was sent.",
            "If it stays so, look at its log, and whether the broker lets it read its tiles.",
        )
    if live is not None and live.held:
        return _working(live, work)
    if not view.abilities:
        return _unable(view)
    return _idle(view, live, work)


def _absent(device: str, why: str) -> _Said:
    advice = f"Start it, or look at its power and network: fog-device --id {device}"
    if why.startswith("no message"):
        return _Said("silent", f"Was lost: {why}.", advice)
    return _Said("offline", "Is offline: it was stopped, or its connection broke.", advice)


def _quarantined(live: LiveDevice) -> _Said:
    until = live.quarantined_until or 0.0
    clock = time.strftime("%H:%M:%S", time.localtime(_wall(until)))
    left_s = max(0.0, until - now())
    return _Said(
        "quarantined",
        f"Gets no tiles until {clock}, in {left_s:.0f} s: several in a row failed or were not "
        "answered.",
        "It is tried again by itself. If that happens often, look at its log and its problems.",
    )


def _working(live: LiveDevice, work: Mapping[str, Work]) -> _Said:
    held = sum(live.held.values())
    others = f"; {live.held_for_others} more are another gateway's" if live.held_for_others else ""
    trial = " After its quarantine it gets one at a time." if live.on_probation else ""
    return _Said(
        "working", f"Works on {_count(held, 'tile')} of {_names(live, work)}{others}.{trial}"
    )


def _unable(view: DeviceView) -> _Said:
    info = view.info
    if info.conformance_running:
        return _Said("starting", "Examines how its operators round; then it gets tiles.")
    if not view.lacks:
        return _Said("starting", "Is not compared yet: this gateway still examines itself.")
    ability, reason = next(iter(view.lacks.items()))
    return _Said(
        "incompatible",
        f"Can do nothing of what this gateway can: {ability} {one_line(reason)}.",
        _advice(info, reason),
    )


def _idle(view: DeviceView, live: LiveDevice | None, work: Mapping[str, Work]) -> _Said:
    if not work:
        if view.info.conformance_running:
            return _Said("starting", "Waits for tiles, and still examines some operators.")
        return _Said("idle", "Waits: there is no job with tiles.")
    missing = {key: sorted(one.needs - view.abilities) for key, one in work.items()}
    if all(missing.values()):
        return _cannot_help(view, work, missing)
    if live is not None and live.paused:
        return _Said("idle", "Waits a moment: its queue was full.")
    if live is not None and live.held_for_others:
        return _Said("idle", f"Has {_count(live.held_for_others, 'tile')} of another gateway.")
    return _Said(
        "idle", "Waits: others have the tiles that are left, or they are too large for it."
    )


def _cannot_help(
    view: DeviceView, work: Mapping[str, Work], missing: Mapping[str, Sequence[str]]
) -> _Said:
    key, abilities = next(iter(missing.items()))
    reason = one_line(view.lacks.get(abilities[0], "is not installed"))
    return _Said(
        "incompatible",
        f"Cannot help with {one_line(work[key].name)}: {abilities[0]} {reason}.",
        _advice(view.info, reason),
    )


def _advice(info: DeviceInfo, reason: str) -> str:
    if reason.startswith("rounds differently"):
        return (
            "Install the same release of OpenCV on it, or set exact: false where small "
            "differences do not matter."
        )
    if "examined" in reason or "compared" in reason:
        return ""
    if info.problems:
        return f"It reports: {one_line(info.problems[0])}"
    return "Install the same release of fogmqtt and its extras on it."


def _jobs(live: LiveDevice | None, work: Mapping[str, Work]) -> list[str]:
    return sorted({work[key].job for key in (live.held if live else ()) if key in work})


def _names(live: LiveDevice, work: Mapping[str, Work]) -> str:
    names = list(dict.fromkeys(one_line(work[key].name) for key in live.held if key in work))
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return (", ".join(names[:_NAMES]) or "a job that has ended") + more


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _wall(at: float) -> float:
    """Return a time of the gateway's clock as Unix time."""
    return round(time.time() + at - now(), 1)
