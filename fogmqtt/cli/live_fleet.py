"""Models the fleet that is online, for a simulation."""

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
    """A fleet, and sentences for users about how it was modelled."""

    fleet: FleetSpec
    remarks: tuple[str, ...]


def live_fleet(config: GatewayConfig, text: str, pixels: float) -> LiveFleet:
    """Model the devices that are online and can do a pipeline, at their announced speeds.

    Raises NoBroker, UsageError if there is no such device, PipelineError and OperatorError.
    """
    stages = tiled_stages(text, pixels)
    devices, remarks = [], []
    for view in find_devices(config):
        if not view.online:
            continue
        model = _model(view, stages, exact=config.exact)
        if isinstance(model, DeviceSpec):
            devices.append(model)
            remarks.append(f"{view.id}: {model.workers} worker(s) of {model.speed / 1e6:.3g} MP/s")
        else:
            remarks.append(f"{view.id} is left out: {one_line(model)}")
    if not devices:
        raise UsageError("\n".join(["no device to model is online", *remarks, _ADVICE]))
    link = LinkSpec()
    remarks.append(
        "each device measured its own speed with one worker; links are assumed: "
        f"{link.rate_mbps:g} Mbit/s and {link.latency_ms:g} ms each way"
    )
    return LiveFleet(FleetSpec(tuple(devices), origin="the fleet that is online"), tuple(remarks))


_ADVICE = "start one: fog-device --id eya; or describe a fleet: --fleet FILE"


def _model(view: DeviceView, stages: Sequence[Stage], *, exact: bool) -> DeviceSpec | str:
    """Return the model of a device, or the reason why there is none."""
    info = view.info
    missing = sorted(_needs(stages, exact=exact) - view.abilities)
    if missing:
        return f"{missing[0]} {view.lacks.get(missing[0], 'is not installed')}"
    unknown = sorted(set(_names(stages)) - info.rates.keys())
    if unknown:
        return f"it does not announce its speed for {', '.join(unknown)}"
    max_pixels = info.max_tile_pixels or UNLIMITED
    return DeviceSpec(
        view.id, _speed(info, stages), workers=info.workers, max_tile_pixels=max_pixels
    )


def _needs(stages: Sequence[Stage], *, exact: bool) -> frozenset[str]:
    if not exact:
        return frozenset(_names(stages))
    return frozenset().union(*(required_abilities(stage.operators, stage.sent) for stage in stages))


def _names(stages: Sequence[Stage]) -> list[str]:
    """Return the operators that devices run, with repetitions."""
    return [operator.name for stage in stages for operator in stage.operators]


def _speed(info: DeviceInfo, stages: Sequence[Stage]) -> float:
    """Return the mean speed of one worker over all stages, in pixels per second.

    With the mean, the simulated time of all stages together is right.
    """
    ns = sum(info.rates[name] for name in _names(stages))
    # The announced time of a cheap operator may be 0.
    return _NS * len(stages) / max(ns, 1e-3)
