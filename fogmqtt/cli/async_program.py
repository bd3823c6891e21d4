"""Runs the coroutine of a command. Only commands of the gateway import this module."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fogmqtt.cli.common import stop_on_signals

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result.

    SIGINT and SIGTERM cancel it, and a second signal ends the process. Raises KeyboardInterrupt if
    a signal ended the coroutine.
    """

    async def with_signals() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        stop = task.cancel

        def cancel() -> None:
            loop.call_soon_threadsafe(stop)

        with stop_on_signals(cancel):
            return await main

    try:
        return asyncio.run(with_signals())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
