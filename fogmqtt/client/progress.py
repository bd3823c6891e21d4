"""Progress bars: of rich in a terminal, of tqdm in a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from fogmqtt.errors import UsageError


class Bar(Protocol):
    """A bar that is shown until its block ends."""

    def update(self, done: float, text: str) -> None:
        """Show how much is done, and a text beside it."""

    def advance(self) -> None:
        """Show that one more is done."""


@contextmanager
def open_bar(name: str, total: int | None, *, is_shown: bool = True) -> Iterator[Bar]:
    """Show a bar during the block. `total` is the number at its end, if that is known.

    Raises UsageError in a notebook without tqdm.
    """
    if not is_shown:
        yield _NoBar()
    elif _in_notebook():
        yield from _tqdm_bar(name, total)
    else:
        yield from _rich_bar(name, total)


class _NoBar:
    def update(self, done: float, text: str) -> None:
        """Show nothing."""

    def advance(self) -> None:
        """Show nothing."""


class _RichBar:
    def __init__(self, progress: Any, task: Any) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: float, text: str) -> None:
        self._progress.update(self._task, completed=done, text=text)

    def advance(self) -> None:
        self._progress.advance(self._task)


class _TqdmBar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def update(self, done: float, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(round(done) - self._bar.n)

    def advance(self) -> None:
        self._bar.update(1)


def _rich_bar(name: str, total: int | None) -> Iterator[Bar]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    is_percent = total == 100
    count = TextColumn("{task.percentage:>3.0f} %") if is_percent else MofNCompleteColumn()
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        count,
        TextColumn("{task.fields[text]}", markup=False),
        console=Console(stderr=True),
        redirect_stdout=False,
    ) as progress:
        yield _RichBar(progress, progress.add_task(escape(name), total=total, text=""))


def _tqdm_bar(name: str, total: int | None) -> Iterator[Bar]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # without ipywidgets, its bars are text
            from tqdm.auto import tqdm
    except ImportError:
        raise UsageError(
            "progress=True in a notebook needs tqdm; install it, or the extra fogmqtt[notebook]"
        ) from None
    with tqdm(total=total, desc=name) as bar:
        yield _TqdmBar(bar)


def _in_notebook() -> bool:
    """Whether the program runs in a kernel of Jupyter, which has no terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
