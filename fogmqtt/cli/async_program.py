"""Runs the coroutine of a command. Only commands of the gateway import this module."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fogmqtt.cli.signals import stop_on_signals

T = TypeVar("T")


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine and return its result.

    SIGINT and SIGTERM cancel it, and a second signal ends the process. Raises KeyboardInterrupt if
    a signal ended the coroutine.
    """
    is_stopping, cancel = False, list[Callable[[], None]]()

    def stop() -> None:
        nonlocal is_stopping
        is_stopping = True
        for each in cancel:
            each()

    async def until_stopped() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine runs in a task
        end = task.cancel

        def cancel_task() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(end)

        cancel.append(cancel_task)
        if is_stopping:  # the signal came before there was a task
            main.close()
            raise asyncio.CancelledError
        return await main

    # The block is around the event loop, which takes a while to start and to close.
    with stop_on_signals(stop):
        try:
            return asyncio.run(until_stopped())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
