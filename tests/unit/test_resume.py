"""A stage taken up by a later life: the same tiles, the same halves, nothing done twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.core.geometry import Auto
from fogmqtt.gateway import resume, stages
from fogmqtt.gateway.archive import Archive
from fogmqtt.gateway.diary import Diary
from fogmqtt.gateway.past import Past
from fogmqtt.gateway.spool import Entry
from fogmqtt.gateway.stages import Limits, StageRun
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators import pipeline, results

IMAGE: Image = np.random.default_rng(3).integers(0, 256, (900, 1200), np.uint8)
LIMITS = Limits(400_000, "binary")
ENTRY = Entry(job="j1", name="in.png", pipeline="edges")


class Lives:
    """An archive that one life after the other opens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._archive = self._open()
        self._archive.accept_bytes(ENTRY, b"an image").result()
        self.diary = self._archive.diary("j1", Past())

    def _open(self) -> Archive:
        return Archive(self._folder, "mariem", keep_s=100.0)

    def next(self) -> Diary:
        self.close()
        self._archive = self._open()
        ((_, past),) = self._archive.unfinished()
        self.diary = self._archive.diary("j1", past)
        return self.diary

    def close(self) -> None:
        self._archive.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path / "spool")
    yield made
    made.close()


def begun(diary: Diary, text: str) -> StageRun:
    (stage,) = pipeline.stages(pipeline.parse(text), Spec.of(IMAGE))
    run = stages.begin("j1.0", stage, IMAGE, IMAGE, plan=Auto(), limits=LIMITS, workers=2)
    return resume.take_up(run, diary, 0, limits=LIMITS, sample=0.0)


def do(run: StageRun, diary: Diary, *indices: int) -> None:
    """What happens when a result is kept."""
    last = run.operators[-1]
    for index in indices:
        tile = run.tile(index)
        given = stages.do_tile(run, tile)
        encoded = results.encode(last, given, tile.core, last.result_codec)
        diary.keep(0, index, "eya", encoded.data)
        run.merger.paste(tile, given)


def split(run: StageRun, diary: Diary, index: int) -> tuple[int, int]:
    first = run.count
    run.split(index, first, first + 1)
    diary.split(0, index, first, first + 1)
    return first, first + 1


@pytest.mark.parametrize("text", ["median ksize=5", "canny low=40 high=90", "stats"])
def test_halves_are_taken_up_where_they_were_done(lives: Lives, text: str) -> None:
    run = begun(lives.diary, text)
    count = len(run.tiles)
    assert count > 3
    do(run, lives.diary, 1)
    first, second = split(run, lives.diary, 0)
    do(run, lives.diary, second)
    deeper = split(run, lives.diary, first)

    again = begun(lives.next(), text)
    assert set(again.done) == {1, second}
    assert again.halved == {0, first}
    assert again.halves == run.halves
    assert len(again.work) == count + 4 == len(again.halves_pixels)
    rest = set(range(again.count)) - set(again.done) - again.halved
    assert set(deeper) <= rest
    do(again, lives.diary, *rest)
    made = again.merger.finish()
    expected = pipeline.whole(again.operators, IMAGE, IMAGE)
    assert made == expected if isinstance(made, dict) else np.array_equal(made, expected)


def test_a_third_life_halves_on_where_the_second_ended(lives: Lives) -> None:
    split(begun(lives.diary, "median"), lives.diary, 0)
    second = begun(lives.next(), "median")
    split(second, lives.diary, 2)
    third = begun(lives.next(), "median")
    assert third.halved == {0, 2}
    assert third.halves == second.halves
