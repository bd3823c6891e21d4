"""A stage taken up by a later life: the same tiles, the same halves, nothing done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.core.geometry import Auto
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.storage import job_journal
from fogmqtt.gateway.storage.job_journal import JobJournal
from fogmqtt.gateway.storage.job_store import JobStore
from fogmqtt.gateway.storage.journal_db import PastJob
from fogmqtt.gateway.storage.spool import Entry
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, results

IMAGE: Image = np.random.default_rng(3).integers(0, 256, (900, 1200), np.uint8)
LIMITS = MessageLimits(400_000, "binary")
ENTRY = Entry(job="j1", name="in.png", pipeline="edges")


class Lives:
    """An archive that one life after the other opens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = self._open()
        self._archive.accept_bytes(ENTRY, b"an image").result()
        self.journal = self._archive.journal("j1", PastJob())

    def _open(self) -> JobStore:
        return JobStore(self._folder, "mariem", keep_s=100.0)

    def next(self) -> JobJournal:
        self.close()
        self._archive = self._open()
        ((_, past),) = self._archive.unfinished()
        self.journal = self._archive.journal("j1", past)
        return self.journal

    def close(self) -> None:
        self._archive.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path / "spool")
    yield made
    made.close()


def begun(journal: JobJournal, text: str) -> StageRun:
    (stage,) = pipeline.split_stages(pipeline.parse(text), Spec.of(IMAGE))
    run = stage_run.begin("j1.0", stage, IMAGE, IMAGE, plan=Auto(), limits=LIMITS, workers=2)
    return job_journal.take_up(run, journal, 0, limits=LIMITS, sample=0.0)


def do(run: StageRun, journal: JobJournal, *indices: int) -> None:
    """What happens when a result is kept."""
    last = run.operators[-1]
    for index in indices:
        tile = run.tile(index)
        given = stage_run.do_tile(run, tile)
        encoded = results.encode(last, given, tile.core, last.result_codec)
        journal.keep(0, index, "eya", encoded.data)
        run.merger.paste(tile, given)


def split(run: StageRun, journal: JobJournal, index: int) -> tuple[int, int]:
    first = run.count
    run.split(index, first, first + 1)
    journal.split(0, index, first, first + 1)
    return first, first + 1


@pytest.mark.parametrize("text", ["median ksize=5", "canny low=40 high=90", "stats"])
def test_halves_are_taken_up_where_they_were_done(lives: Lives, text: str) -> None:
    run = begun(lives.journal, text)
    count = len(run.tiles)
    assert count > 3
    do(run, lives.journal, 1)
    first, second = split(run, lives.journal, 0)
    do(run, lives.journal, second)
    deeper = split(run, lives.journal, first)

    again = begun(lives.next(), text)
    assert set(again.done) == {1, second}
    assert again.halved == {0, first}
    assert again.halves == run.halves
    assert len(again.work) == count + 4 == len(again.halves_pixels)
    rest = set(range(again.count)) - set(again.done) - again.halved
    assert set(deeper) <= rest
    do(again, lives.journal, *rest)
    made = again.merger.finish()
    expected = pipeline.run_whole(again.operators, IMAGE, IMAGE)
    assert made == expected if isinstance(made, dict) else np.array_equal(made, expected)


def test_a_third_life_halves_on_where_the_second_ended(lives: Lives) -> None:
    split(begun(lives.journal, "median"), lives.journal, 0)
    second = begun(lives.next(), "median")
    split(second, lives.journal, 2)
    third = begun(lives.next(), "median")
    assert third.halved == {0, 2}
    assert third.halves == second.halves
