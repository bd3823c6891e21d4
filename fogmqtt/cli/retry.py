"""`fog-gateway retry`: dead letters, and another try for them."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, UsageError
from fogmqtt.gateway.storage.dead_letters import DeadLetters
from fogmqtt.log import one_line


def retry(config: GatewayConfig, job: str | None, console: Console, *, every: bool) -> int:
    """Ask for another try of a job or of `every`; without a job list them. Raises UsageError."""
    dead = DeadLetters(_spool(config))
    if job is None and not every:
        _list(dead, console)
        return 0
    wanted = [letter.entry.job for letter in dead.all()] if job is None else [job]
    for one in wanted:
        _ask(dead, one)
        _tell(console, f"{one} is tried again by {config.gateway.id}, now or when it next starts")
    return 0


def _spool(config: GatewayConfig) -> Path:
    settings = config.gateway
    folder = settings.spool or (settings.inbox and f"{settings.inbox}/.spool")
    if not folder:
        raise ConfigError('gateway.spool: "" keeps no dead letters; name a folder')
    if not Path(folder).is_dir():
        raise ConfigError(
            f"gateway.spool: there is no folder {Path(folder).absolute()}; say retry where the "
            "gateway runs, with its configuration"
        )
    return Path(folder)


def _ask(dead: DeadLetters, job: str) -> None:
    try:
        dead.request_retry(job)
    except OSError as problem:
        raise UsageError(
            f"cannot move {job} in {dead.folder}: {problem.strerror}; be the gateway's user"
        ) from None


def _list(dead: DeadLetters, console: Console) -> None:
    letters = dead.all()
    for letter in letters:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(letter.failed_at))
        entry = letter.entry
        reason = one_line(letter.reason.split("\n")[0])
        _tell(console, f"{entry.job}  {when}  {one_line(entry.name)}  {entry.pipeline}: {reason}")
    if not letters:
        _tell(console, f"no dead letters in {dead.folder}")


def _tell(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
