"""`run` with many images: each is finished when it is written, and every line names its image."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import pytest

from fogmqtt.cli.batch import find_images
from fogmqtt.cli.outputs import LONGEST_STEM, Outputs, plan_outputs
from fogmqtt.cli.progress import ENDED_BARS, BarDisplay, PlainDisplay
from fogmqtt.cli.run import MAX_NAMED, RunOptions, Summary, run_jobs, show_event
from fogmqtt.core.geometry import Grid
from fogmqtt.errors import UsageError
from fogmqtt.gateway.events import JobEnded, JobNoticed, JobProgressed
from fogmqtt.gateway.jobs.decode import Decoders
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.gateway.jobs.report import Report
from fogmqtt.images.spec import Image
from tests.gateway_rig import Rig, config, run
from tests.processes import photo


@dataclass(frozen=True, slots=True)
class Counting(Outputs):
    """Output files that note how many results were in memory when each was written."""

    pixels: list[weakref.ref[Image]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def write(self, outcome: Outcome) -> None:
        assert outcome.image is not None
        self.pixels.append(weakref.ref(outcome.image))
        self.counts.append(sum(one() is not None for one in self.pixels))


def pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"p{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        cv2.imwrite(str(path), photo(40, 60, number))
    return paths


def batch(images: Sequence[Path], outputs: Sequence[Outputs]) -> tuple[Summary, list[str]]:
    """Run a batch with one played device; return its summary and its errors."""
    display = PlainDisplay()
    options = RunOptions(tuple(images), "out", "invert", Grid(1, 1))
    summary = Summary(display, several=len(images) > 1, keeps=True)

    async def test(decoders: Decoders) -> None:
        rig = Rig()
        rig.device()
        made = config(), "mariem", rig.connect, decoders
        await run_jobs(*made, options, outputs, display, summary)

    with Decoders() as decoders:
        run(test(decoders))
    return summary, summary.close()


def test_the_pixels_of_an_image_are_released_when_it_is_written(tmp_path: Path) -> None:
    images = pictures(tmp_path, 30)
    first = Counting(None, None, Path("x"))
    batch(images, [first] * len(images))
    assert len(first.counts) == 30
    assert max(first.counts) <= 2 * config().limits.max_jobs


def test_a_batch_ends_with_a_summary_and_one_error_that_names_the_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = pictures(tmp_path, 3)
    images[1].write_bytes(b"nothing to see")
    summary, (error,) = batch(images, plan_outputs(images, f"{tmp_path}/out/", measures=False))
    lines = capsys.readouterr().err.splitlines()
    assert [report["name"] for report in summary.reports] == ["p0.png", "p1.png", "p2.png"]
    assert any(line.startswith("failed: p1.png: not an image") for line in lines)
    assert lines[-1].startswith("3 images: 2 done, 1 failed, in ")
    assert error.startswith("1 of 3 images failed: p1.png: not an image")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0.png", "p2.png"]


def test_one_image_has_no_summary_and_its_own_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing to see")
    _, (error,) = batch([bad], plan_outputs([bad], f"{tmp_path}/out/", measures=False))
    assert error.startswith("bad.png: not an image")
    assert "1 images" not in capsys.readouterr().err


def test_images_that_share_a_name_are_called_by_their_paths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [*pictures(tmp_path / "a", 1), *pictures(tmp_path / "b", 1)]
    batch(images, plan_outputs(images, f"{tmp_path}/out/", measures=False))
    said = capsys.readouterr().err
    assert all(f"{image}: " in said for image in images)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["p0-2.png", "p0.png"]


def test_thousands_of_failures_are_not_all_repeated() -> None:
    summary = Summary(PlainDisplay(), several=True, keeps=False)
    for number in range(1000):
        summary.add(Report(f"j{number}", f"p{number}.png", "invert"), "too dark", "")
    (error,) = summary.close()
    assert error.startswith("1000 of 1000 images failed: p0.png: too dark; p1.png: too dark")
    assert error.endswith(f" and {1000 - MAX_NAMED} more")
    assert summary.reports == []


def test_a_reason_that_holds_for_many_images_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = Summary(PlainDisplay(), several=True, keeps=False)
    for number in range(100):
        report = Report(f"j{number}", f"p{number}.png", "invert")
        report.sentence = f"no device can help: this gateway took {number} s alone"
        summary.add(report, None, "")
    assert capsys.readouterr().err.count("no device can help") == 1


@pytest.mark.parametrize(
    ("several", "line"), [(True, "in.png: alpha channel dropped"), (False, "alpha channel dropped")]
)
def test_a_note_says_which_of_several_images_it_is_about(
    several: bool, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    notice = JobNoticed(Report("j1", "in.png", "invert"), "alpha channel dropped")
    show_event(PlainDisplay(), notice, names_images=several)
    assert capsys.readouterr().err == f"{line}\n"


def test_a_terminal_keeps_the_bars_of_few_images() -> None:
    display = BarDisplay()
    for number in range(100):
        report = Report(f"j{number}", f"p{number}.png", "invert", tiles=1, done=1)
        show_event(display, JobProgressed(report))
        show_event(display, JobEnded(report, None))
    assert len(display._progress.tasks) == ENDED_BARS
    display.close()


def test_ten_thousand_images_of_one_name_get_names_of_their_own() -> None:
    images = [Path(f"{number}/写真.jpg") for number in range(10_000)]
    planned = plan_outputs(images, ".", measures=True)
    assert len({outputs.image for outputs in planned}) == 10_000
    assert planned[9_999].image == Path("写真-10000.png")


def test_a_long_name_leaves_room_for_what_is_added() -> None:
    images = [Path("x" * 251 + ".jpg"), Path("x" * 252 + ".png")]
    planned = plan_outputs(images, ".", measures=True)
    for outputs in planned:
        assert len(outputs.differ.name) <= 255
        assert outputs.image is not None
        assert outputs.image.name.startswith("x" * LONGEST_STEM)
    assert planned[0].image != planned[1].image


@pytest.mark.parametrize(
    ("sentence", "seconds", "is_said"),
    [
        ("the fleet cannot help here: by tiles it takes 0.07 s", 0.4, False),
        ("the fleet cannot help here: by tiles it takes 7.00 s", 4.0, True),
        ("no device can help with this now: this gateway took 0.04 s alone", 0.1, True),
    ],
)
def test_that_the_fleet_cannot_help_is_said_where_somebody_waited(
    sentence: str, seconds: float, is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = Summary(PlainDisplay(), several=False, keeps=False)
    report = Report("j1", "p1.png", "invert", seconds=seconds)
    report.sentence = sentence
    summary.add(report, None, "")
    assert (sentence in capsys.readouterr().err) == is_said


# Folders, and files that are no images.


def test_a_folder_stands_for_its_images_and_says_what_it_leaves_alone(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    images = pictures(folder, 3)
    (folder / "notes.txt").write_text("two of these are blurred")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "2024").mkdir()
    found = find_images([folder])
    assert found.images == tuple(images)
    assert found.has_folder
    assert found.lines == (
        f"{folder / '2024'} is left alone: a folder; name it, too",
        f"{folder / 'notes.txt'} is left alone: no image, but a text file",
    )


def test_of_several_files_what_is_clearly_no_image_is_left_alone(tmp_path: Path) -> None:
    (image,) = pictures(tmp_path, 1)
    notes, broken = tmp_path / "notes.txt", tmp_path / "broken.png"
    notes.write_text("hello")
    broken.write_text("hello")
    missing = tmp_path / "missing.dat"
    found = find_images([image, notes, broken, missing])
    assert found.images == (image, broken, missing)
    assert len(found.lines) == 1


def test_the_only_file_is_taken_at_its_word(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    assert find_images([notes]).images == (notes,)


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("hello")
    with pytest.raises(UsageError, match=r"no image is in it\n.*notes.txt is left alone"):
        find_images([tmp_path])
    with pytest.raises(UsageError, match="none of the files is an image"):
        find_images([notes, notes])


def test_of_many_files_that_are_no_images_a_few_are_named(tmp_path: Path) -> None:
    pictures(tmp_path, 1)
    for number in range(40):
        (tmp_path / f"{number}.txt").write_text("hello")
    *named, last = find_images([tmp_path]).lines
    assert len(named) == 5
    assert last == "35 more are left alone"


def test_the_result_of_a_folder_with_one_image_goes_to_a_folder(tmp_path: Path) -> None:
    (image,) = pictures(tmp_path / "photos", 1)
    (outputs,) = plan_outputs([image], str(tmp_path / "out"), measures=False, several=True)
    assert outputs.image == tmp_path / "out" / "p0.png"
    assert not (tmp_path / "out").exists()  # a command that ends early leaves nothing


def test_a_folder_for_results_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    (image,) = pictures(tmp_path / "photos", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file is a file; name another folder"):
        plan_outputs([image], f"{tmp_path}/file/out/", measures=False)
