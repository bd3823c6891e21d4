"""The dashboard's process beside a serving gateway: started, and started again when it ends.

It is a client like any other. Its death, a port that is taken or a package that is missing change
nothing for jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

import msgspec

from fogmqtt.config.schema import DashboardOrders
from fogmqtt.gateway.clock import now

log = logging.getLogger(__name__)

#: The program that serves the dashboard; it reads its orders from the standard input.
PROGRAM: Final = ("-m", "fogmqtt.cli.dashboard", "--from-gateway")
#: Seconds until the next start: the first time, and at most.
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
#: Seconds that it must have run, so that its end counts as the first.
_STABLE_S: Final = 60.0
#: Seconds in which it must end when the gateway ends.
_STOP_S: Final = 5.0
#: The exit code of a wrong configuration, such as a port that is taken. That takes time to change.
_USAGE: Final = 2


class DashboardProcess:
    """Keeps one dashboard running. `program` is for tests."""

    def __init__(self, orders: DashboardOrders, program: Sequence[str] = PROGRAM) -> None:
        self._orders = replace(orders, parent=os.getpid())
        self._program = program

    async def run(self) -> None:
        """Run it, and again when it ends, until cancelled."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = now()
            code = await self._run_once()
            if now() - began >= _STABLE_S:
                pause_s = FIRST_PAUSE_S
            if code == _USAGE:
                pause_s = LONGEST_PAUSE_S
            log.warning(
                "the dashboard ended with exit code %d; jobs go on, and it starts again in %g s",
                code,
                pause_s,
            )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run_once(self) -> int:
        try:
            # In a session of its own: Ctrl-C reaches only the gateway, which then ends it.
            process = await asyncio.create_subprocess_exec(
                sys.executable, *self._program, stdin=PIPE, start_new_session=True
            )
        except OSError as problem:
            log.warning("the dashboard cannot be started: %s", problem.strerror)
            return 1
        try:
            await self._give_orders(process)
            return await process.wait()
        finally:
            await _end(process)

    async def _give_orders(self, process: Process) -> None:
        """Send the orders, and keep the pipe open: the process ends when it closes."""
        assert process.stdin is not None  # noqa: S101  # it is a pipe
        process.stdin.write(msgspec.json.encode(self._orders) + b"\n")
        with suppress(ConnectionError):  # it ended already
            await process.stdin.drain()


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
