"""A stage continued after a restart: the same tiles, the same halves, nothing repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.core.geometry import Auto
from fogmqtt.gateway.execution import stage_run
from fogmqtt.gateway.execution.resume import resume_stage
from fogmqtt.gateway.execution.stage_run import MessageLimits, StageRun
from fogmqtt.gateway.storage.api import JobHistory, JobJournal, SpoolEntry
from fogmqtt.gateway.storage.job_store import DiskJobStore
from fogmqtt.images.source import ArrayImage
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api import pipeline, results
from tests.tiling import do_tile

IMAGE: Image = np.random.default_rng(3).integers(0, 256, (900, 1200), np.uint8)
LIMITS = MessageLimits(400_000, "binary")
ENTRY = SpoolEntry(job="j1", name="in.png", pipeline="edges")


class Gateway:
    """The job store of one job, which a restart opens again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = self._open()
        self._store.accept_bytes(ENTRY, b"an image").result()
        self.journal = self._store.open_journal("j1", JobHistory())

    def _open(self) -> DiskJobStore:
        return DiskJobStore(self._folder, "mariem", keep_s=100.0)

    def restart(self) -> JobJournal:
        self.close()
        self._store = self._open()
        ((_, history),) = self._store.unfinished_jobs().result()
        self.journal = self._store.open_journal("j1", history)
        return self.journal

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "spool")
    yield made
    made.close()


def begun(journal: JobJournal, text: str) -> StageRun:
    (stage,) = pipeline.split_stages(pipeline.parse(text), Spec.of(IMAGE))
    run = stage_run.plan_stage(
        "j1.0", stage, ArrayImage(IMAGE), ArrayImage(IMAGE), plan=Auto(), limits=LIMITS, workers=2
    )
    return resume_stage(run, journal, 0, limits=LIMITS, sample=0.0)


def do(run: StageRun, journal: JobJournal, *indices: int) -> None:
    """Keep the results of these tiles."""
    last = run.operators[-1]
    for index in indices:
        tile = run.tile(index)
        given = do_tile(run, tile)
        encoded = results.encode(last, given, tile.core, last.result_codec)
        journal.keep_tile(0, index, "eya", encoded.data)
        run.merger.paste(tile, given)


def split(run: StageRun, journal: JobJournal, index: int) -> tuple[int, int]:
    first = run.count
    run.split(index, first, first + 1)
    journal.split_tile(0, index, first, first + 1)
    return first, first + 1


@pytest.mark.parametrize("text", ["median ksize=5", "canny low=40 high=90", "stats"])
def test_a_restart_continues_with_the_halves_of_split_tiles(gateway: Gateway, text: str) -> None:
    run = begun(gateway.journal, text)
    count = len(run.tiles)
    assert count > 3
    do(run, gateway.journal, 1)
    first, second = split(run, gateway.journal, 0)
    do(run, gateway.journal, second)
    deeper = split(run, gateway.journal, first)

    again = begun(gateway.restart(), text)
    assert set(again.done) == {1, second}
    assert again.halved == {0, first}
    assert again.halves == run.halves
    assert len(again.tile_pixels) == count + 4 == len(again.halves_pixels)
    rest = set(range(again.count)) - set(again.done) - again.halved
    assert set(deeper) <= rest
    do(again, gateway.journal, *rest)
    made = again.merger.finish()
    expected = pipeline.run_whole(again.operators, IMAGE, IMAGE)
    assert made == expected if isinstance(made, dict) else np.array_equal(made, expected)


def test_a_recorded_half_without_its_split_is_not_merged(gateway: Gateway) -> None:
    """A journal of an older version may have one: the disk was full when the tile was split."""
    run = begun(gateway.journal, "median")
    gateway.journal.keep_tile(0, run.count, "eya", b"a half")
    assert begun(gateway.restart(), "median").done == {}


def test_splits_before_each_of_two_restarts_are_continued(gateway: Gateway) -> None:
    split(begun(gateway.journal, "median"), gateway.journal, 0)
    second = begun(gateway.restart(), "median")
    split(second, gateway.journal, 2)
    third = begun(gateway.restart(), "median")
    assert third.halved == {0, 2}
    assert third.halves == second.halves
