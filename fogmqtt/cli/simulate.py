"""`fog-gateway simulate`: predicts the time of a job on a given fleet."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fogmqtt.cli.discovery import find_devices
from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import UsageError
from fogmqtt.gateway.service.fleet_model import ModelledFleet, model_fleet
from fogmqtt.images.drawing import png, svg
from fogmqtt.simulate.fleet import Addition, FleetSpec, extended, load_fleet
from fogmqtt.simulate.gantt import Chart, gantt
from fogmqtt.simulate.outcome import DeviceFigures, SimulationResult, simulate
from fogmqtt.simulate.trace import trace
from fogmqtt.simulate.work import JobWork, planned_job, square_spec, tiled_stages

#: The number of devices in the table; of a larger fleet only the extremes are shown.
_MAX_ROWS = 40


def run_simulation(config: GatewayConfig, options: argparse.Namespace, console: Console) -> int:
    """Simulate, print the figures, and write the drawing and the trace if requested.

    Returns the exit code: 1 if the job did not end. Raises ConfigError for an invalid fleet file,
    and UsageError for an invalid pipeline or plan.
    """
    pipeline = config.pipeline if options.pipeline is None else options.pipeline
    text = config.chosen(pipeline.strip()).text
    live = _live_fleet(config, text, options.pixels) if options.from_live else None
    fleet = load_fleet(options.fleet, options.seed) if live is None else live.fleet
    run = _run(config, text, extended(fleet, options.add), options)
    before = _run(config, text, fleet, options).outcome if options.add else None
    title = f"{text} on {options.pixels / 1e6:g} MP: {run.outcome.verdict}"
    if options.gantt is not None:
        _draw(run, title, options.gantt)
    if options.trace is not None:
        _write(options.trace, trace(run.outcome).encode())
    if options.json:
        print(json.dumps(_as_json(run.outcome, before), indent=2))
        return 0 if run.outcome.done else 1
    for remark in live.remarks if live is not None else ():
        console.print(remark, highlight=False, markup=False, soft_wrap=True)
    _show(run.outcome, run.job, console)
    if before is not None:
        print(f"without {_format_additions(options.add)}: {before.verdict}")
        print(f"with {_format_additions(options.add)}: ", end="")
    print(run.outcome.verdict)
    return 0 if run.outcome.done else 1


def _live_fleet(config: GatewayConfig, text: str, pixels: float) -> ModelledFleet:
    """Model the devices that are online. Raises NoBroker, UsageError, PipelineError and so on."""
    stages = tiled_stages(text, square_spec(pixels))
    return model_fleet(find_devices(config), stages, exact=config.exact)


@dataclass(frozen=True, slots=True)
class _Run:
    fleet: FleetSpec
    job: JobWork
    outcome: SimulationResult


def _run(config: GatewayConfig, text: str, fleet: FleetSpec, options: argparse.Namespace) -> _Run:
    limit = config.wire.max_message_bytes
    if config.wire.encoding == "base64":
        limit = limit * 3 // 4
    plan = parse_tile_plan(options.tiles or config.tiles)
    job = planned_job("job", text, options.pixels, plan, fleet, limit)
    return _Run(fleet, job, simulate(fleet, [job], options.seed, policy=config.policy()))


def _format_additions(additions: Sequence[Addition]) -> str:
    return ", ".join(map(str, additions))


def _draw(run: _Run, title: str, path: Path) -> None:
    outcome, record = run.outcome, run.outcome.record
    lanes = [(device.id, device.workers) for device in run.fleet.devices]
    chart = Chart(title, lanes, record.spans, record.marks, outcome.makespan_s, outcome.bound_s)
    drawing = gantt(chart)
    _write(path, png(drawing) if path.suffix.lower() == ".png" else svg(drawing).encode())


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from None


def _as_json(outcome: SimulationResult, before: SimulationResult | None) -> dict[str, object]:
    return {
        "seed": outcome.seed,
        "makespan_s": outcome.makespan_s,
        "bound_s": _finite(outcome.bound_s),
        "ratio": _finite(outcome.ratio),
        "done": outcome.done,
        "without_added_s": None if before is None else before.makespan_s,
        "retries": outcome.retries,
        "hedges": outcome.hedges,
        "duplicates": outcome.duplicates,
        "wasted": outcome.wasted,
        "events": outcome.events,
        "messages": outcome.counts,
        "devices": [asdict(device) for device in outcome.devices],
        "error": next((job.error for job in outcome.jobs if job.error), None),
    }


def _finite(value: float) -> float | None:
    # JSON has no infinity. A job that never ended has no bound.
    return value if value < float("inf") else None


def _show(outcome: SimulationResult, job: JobWork, console: Console) -> None:
    console.print(_devices(outcome))
    if len(outcome.devices) > _MAX_ROWS:
        left_out = len(outcome.devices) - _MAX_ROWS
        console.print(f"… and {left_out} more between these", highlight=False)
    console.print(
        f"{job.tiles} tiles, {outcome.retries} retries, {outcome.hedges} hedges, "
        f"{outcome.duplicates} duplicates, {outcome.wasted:.1%} of the work was wasted, "
        f"{outcome.events} events",
        highlight=False,
    )
    if outcome.counts:
        counts = ", ".join(f"{count} {name}" for name, count in outcome.counts.items())
        console.print(counts, highlight=False)


def _devices(outcome: SimulationResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    for heading in ("tiles", "MP", "busy", "wasted", "used", "crashes", "quarantine"):
        table.add_column(heading, justify="right")
    for device in _extremes(outcome.devices):
        table.add_row(
            device.id,
            str(device.tiles),
            f"{device.pixels / 1e6:.2f}",
            f"{device.busy_s:.2f} s",
            f"{device.wasted_s:.2f} s" if device.wasted_s else "",
            f"{device.utilisation:.0%}",
            str(device.crashes or ""),
            f"{device.quarantined_s:.1f} s" if device.quarantined_s else "",
        )
    return table


def _extremes(devices: tuple[DeviceFigures, ...]) -> tuple[DeviceFigures, ...]:
    """Return all devices of a small fleet; of a large one the most and the least used."""
    if len(devices) <= _MAX_ROWS:
        return devices
    ranked = sorted(devices, key=lambda device: device.utilisation, reverse=True)
    return (*ranked[: _MAX_ROWS // 2], *ranked[-_MAX_ROWS // 2 :])
