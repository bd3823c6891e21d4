"""`fog-gateway retry`: lists dead letters and callbacks that were given up; requests retries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from rich.console import Console

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, UsageError
from fogmqtt.gateway.storage.dead_letters import DeadLetters
from fogmqtt.gateway.storage.durable_files import DurableFiles
from fogmqtt.gateway.storage.given_up import GivenUpCallbacks
from fogmqtt.log import one_line

#: What the name of a callback has, and no id of a job.
_CALLBACK: Final = "."


def retry(config: GatewayConfig, job: str | None, console: Console, *, every: bool) -> int:
    """Request a retry of a job or callback, or of `every` one; without a job, list them.

    Returns the exit code. Raises UsageError and ConfigError.
    """
    spool = _spool(config)
    dead_letters = DeadLetters(spool)
    callbacks = GivenUpCallbacks(spool / "callbacks", DurableFiles())
    if job is None and not every:
        _print_list(dead_letters, callbacks, console)
        return 0
    jobs = [job] if job is not None else [letter.entry.job for letter in dead_letters.all()]
    if job is None:
        jobs += [note.name for note in callbacks.all()]
    for requested in jobs:
        _request(callbacks if _CALLBACK in requested else dead_letters, requested)
        _print(
            console,
            f"{requested} will be retried by {config.gateway.id}, now or when it starts again",
        )
    return 0


def _spool(config: GatewayConfig) -> Path:
    settings = config.gateway
    folder = settings.spool or (settings.inbox and f"{settings.inbox}/.spool")
    if not folder:
        raise ConfigError('gateway.spool: "" keeps no dead letters; name a folder')
    if not Path(folder).is_dir():
        raise ConfigError(
            f"gateway.spool: there is no folder {Path(folder).absolute()}; run retry where the "
            "gateway runs, with its configuration"
        )
    return Path(folder)


def _request(kept: DeadLetters | GivenUpCallbacks, name: str) -> None:
    try:
        kept.request_retry(name)
    except OSError as problem:
        raise UsageError(
            f"cannot move {name} in {problem.filename}: {problem.strerror}; run this as the "
            "gateway's user"
        ) from None


def _print_list(dead_letters: DeadLetters, callbacks: GivenUpCallbacks, console: Console) -> None:
    letters = dead_letters.all()
    for letter in letters:
        entry = letter.entry
        reason = one_line(letter.reason.split("\n")[0])
        name = one_line(entry.name)
        _print(
            console, f"{entry.job}  {_shown(letter.failed_at)}  {name}  {entry.pipeline}: {reason}"
        )
    notes = callbacks.all()
    for note in notes:
        name, at = one_line(note.entry.name), _shown(note.given_up_at)
        _print(console, f"{note.name}  {at}  {name}  callback {note.callback}: {note.reason}")
    if not letters and not notes:
        _print(console, f"no dead letters in {dead_letters.folder}")


def _shown(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
