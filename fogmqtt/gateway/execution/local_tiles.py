"""Does tiles on this machine, as a device would, and says what took how long."""

from __future__ import annotations

from msgspec import Struct

from fogmqtt.gateway.clock import now
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.checked_result import CheckedResult, check_output
from fogmqtt.gateway.execution.local_workers import LocalWorkers
from fogmqtt.gateway.execution.stage_run import StageRun
from fogmqtt.gateway.jobs.trace import DeviceTimes
from fogmqtt.gateway.threads import Threads
from fogmqtt.wire.messages import TileTask


class DoneHere(Struct, frozen=True):
    """A tile that this machine did: its result, and what took how long."""

    checked: CheckedResult
    #: When its cutting began, when it was cut, encoded and done.
    moments: tuple[float, float, float, float]
    times: DeviceTimes


class LocalTiles:
    """Cuts tiles, has this machine's workers do them, and checks the results."""

    def __init__(self, workers: LocalWorkers, threads: Threads, gateway_id: str) -> None:
        self._workers = workers
        self._threads = threads
        self._gateway_id = gateway_id

    async def do(self, run: StageRun, index: int, lease_s: float) -> DoneHere:
        """Do a tile within `lease_s` seconds. Raises LocalTileError and WireError."""
        tile, asked_at = run.tile(index), now()
        moments: list[float] = []

        def cut() -> TileTask:
            moments.append(now())
            pixels = stage_run.cut_tile(run, tile)
            moments.append(now())
            task = stage_run.make_task(
                run,
                tile,
                pixels=pixels,
                attempt=1,
                gateway=self._gateway_id,
                lease_s=lease_s,
                wire_codec="raw",
            )
            moments.append(now())
            return task

        output, finished = await self._workers.do(cut, lease_s)
        done_at = now()
        began_at, cut_at, encoded_at = moments
        times = DeviceTimes(
            max(0.0, asked_at + finished.queue_s - encoded_at),
            finished.start_s,
            finished.compute_s,
            output.decode_s,
            output.encode_s,
            finished.worker,
        )
        checked = await self._threads.tile(lambda: check_output(run, tile, output))
        return DoneHere(checked, (began_at, cut_at, encoded_at, done_at), times)
