"""The fleet that is online, as a fleet to be simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fogmqtt.cli.discovery import find_devices
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import UsageError
from fogmqtt.gateway.devices.registry import DeviceView
from fogmqtt.log import one_line
from fogmqtt.operators.api.pipeline import Stage, required_abilities
from fogmqtt.simulate.fleet import UNLIMITED, DeviceSpec, FleetSpec, LinkSpec
from fogmqtt.simulate.work import tiled_stages
from fogmqtt.wire.messages import DeviceInfo

_NS = 1e9


@dataclass(frozen=True, slots=True)
class LiveFleet:
    """A fleet, and what people must know of how it was found, a sentence each."""

    fleet: FleetSpec
    remarks: tuple[str, ...]


def live_fleet(config: GatewayConfig, text: str, pixels: float) -> LiveFleet:
    """The devices that are online and can do a pipeline, at the speeds that they announce.

    Raises NoBroker; UsageError where no such device is there; PipelineError and OperatorError.
    """
    stages = tiled_stages(text, pixels)
    devices, remarks = [], []
    for view in find_devices(config):
        if not view.online:
            continue
        found = _device(view, stages, exact=config.exact)
        if isinstance(found, DeviceSpec):
            devices.append(found)
            remarks.append(f"{view.id}: {found.workers} worker(s) of {found.speed / 1e6:.3g} MP/s")
        else:
            remarks.append(f"{view.id} is left out: {one_line(found)}")
    if not devices:
        raise UsageError("\n".join(["no device to model is online", *remarks, _ADVICE]))
    link = LinkSpec()
    remarks.append(
        "speeds as the devices measured themselves, one worker at a time; links are assumed: "
        f"{link.rate_mbps:g} Mbit/s and {link.latency_ms:g} ms each way"
    )
    return LiveFleet(FleetSpec(tuple(devices), origin="the fleet that is online"), tuple(remarks))


_ADVICE = "start one: fog-device --id eya; or describe a fleet: --fleet FILE"


def _device(view: DeviceView, stages: Sequence[Stage], *, exact: bool) -> DeviceSpec | str:
    """The model of a device, or why there is none."""
    info = view.info
    missing = sorted(_needs(stages, exact=exact) - view.abilities)
    if missing:
        return f"{missing[0]} {view.lacks.get(missing[0], 'is not installed')}"
    unknown = sorted(set(_names(stages)) - info.rates.keys())
    if unknown:
        return f"it does not announce how fast it is at {', '.join(unknown)}"
    most = info.max_tile_pixels or UNLIMITED
    return DeviceSpec(view.id, _speed(info, stages), workers=info.workers, max_tile_pixels=most)


def _needs(stages: Sequence[Stage], *, exact: bool) -> frozenset[str]:
    if not exact:
        return frozenset(_names(stages))
    return frozenset().union(*(required_abilities(one.operators, one.sent) for one in stages))


def _names(stages: Sequence[Stage]) -> list[str]:
    """Operators that devices run, each as often as it comes."""
    return [operator.name for stage in stages for operator in stage.operators]


def _speed(info: DeviceInfo, stages: Sequence[Stage]) -> float:
    """Pixels per second of one worker in the mean of all stages: their sum is right."""
    ns = sum(info.rates[name] for name in _names(stages))
    # An operator that only looks may take no time at all.
    return _NS * len(stages) / max(ns, 1e-3)
