"""`fog-gateway retry`: lists dead letters and requests retries."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, UsageError
from fogmqtt.gateway.storage.dead_letters import DeadLetters
from fogmqtt.log import one_line


def retry(config: GatewayConfig, job: str | None, console: Console, *, every: bool) -> int:
    """Request a retry of a job or of `every` one; without a job, list the dead letters.

    Returns the exit code. Raises UsageError and ConfigError.
    """
    dead_letters = DeadLetters(_spool(config))
    if job is None and not every:
        _print_list(dead_letters, console)
        return 0
    jobs = [letter.entry.job for letter in dead_letters.all()] if job is None else [job]
    for requested in jobs:
        _request(dead_letters, requested)
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


def _request(dead_letters: DeadLetters, job: str) -> None:
    try:
        dead_letters.request_retry(job)
    except OSError as problem:
        raise UsageError(
            f"cannot move {job} in {dead_letters.folder}: {problem.strerror}; run this as the "
            "gateway's user"
        ) from None


def _print_list(dead_letters: DeadLetters, console: Console) -> None:
    letters = dead_letters.all()
    for letter in letters:
        failed_at = time.strftime("%Y-%m-%d %H:%M", time.localtime(letter.failed_at))
        entry = letter.entry
        reason = one_line(letter.reason.split("\n")[0])
        name = one_line(entry.name)
        _print(console, f"{entry.job}  {failed_at}  {name}  {entry.pipeline}: {reason}")
    if not letters:
        _print(console, f"no dead letters in {dead_letters.folder}")


def _print(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
