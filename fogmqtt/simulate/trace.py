"""A run in Chrome's JSON trace format, for chrome://tracing and ui.perfetto.dev."""

from __future__ import annotations

from fogmqtt.core.chrome_trace import ChromeTrace, Track
from fogmqtt.simulate.outcome import SimulationResult


def trace(outcome: SimulationResult) -> str:
    """JSON text: a process per device and a track per worker."""
    numbers = {device.id: number for number, device in enumerate(outcome.devices, 1)}
    made = ChromeTrace()
    for name, number in {"broker": 0, **numbers}.items():
        made.name_process(number, name)
    for span in outcome.record.spans:
        made.add_slice(
            Track(numbers[span.device], span.worker),
            f"{span.job} tile {span.tile}",
            span.begin_s,
            span.seconds,
            category=f"{span.state.value},hedge" if span.hedge else span.state.value,
            args={"attempt": span.attempt, "pixels": span.pixels, "state": span.state.value},
        )
    for mark in outcome.record.marks:
        process = numbers.get(mark.device, 0)
        made.add_instant(Track(process, 0), mark.what, mark.at_s, of_all=process == 0)
    return made.as_json({"verdict": outcome.verdict, "seed": outcome.seed})
