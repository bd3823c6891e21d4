"""The gateway's own workers: what prevents a tile from starting costs no worker for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fogmqtt.gateway.execution import local_workers
from fogmqtt.gateway.execution.local_workers import LocalTileError, LocalWorkers
from fogmqtt.gateway.threads import Threads
from tests.gateway_rig import run


def test_a_tile_that_no_worker_can_start_fails_and_leaves_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_descriptor(*_: Any, **__: Any) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(local_workers, "Pool", no_descriptor)

    async def test() -> None:
        threads = Threads()
        workers = LocalWorkers(threads)
        for _ in range(workers.size + 1):
            with pytest.raises(LocalTileError, match="Too many open files"):
                async with asyncio.timeout(5):
                    await workers.do(local_workers._one_pixel, 1.0)
        threads.close()

    run(test())
