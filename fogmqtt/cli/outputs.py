"""The output files of `fog-gateway run`, checked before any tile is sent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import ImageError, UsageError
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.images import files
from fogmqtt.images.encode import encode
from fogmqtt.images.file_names import name_notes
from fogmqtt.images.result_format import ResultFormat, format_of_suffix
from fogmqtt.operators.api.measuring import as_json

FACTS = ".json"
#: Bytes of an image's own name in the name of a result: a number and ".differ.png" may follow.
LONGEST_STEM = 230
PNG = ResultFormat("png")


@dataclass(frozen=True, slots=True)
class Outputs:
    """The output files of one job; None for a file that is not written."""

    image: Path | None
    facts: Path | None
    #: The mask of the pixels that differ from one machine; written only if some do.
    differ: Path
    form: ResultFormat = PNG
    #: The image's file if there are several pages, which need a TIFF; None: the user named `image`.
    pages: Path | None = None

    def write(self, outcome: Outcome) -> Sequence[str]:
        """Write the files, and return notes. Raises ImageError if a file cannot be written."""
        self._make_folder()
        notes = list[str]()
        if outcome.images and self.image is not None:
            notes += self._write_image(self.image, outcome)
        if outcome.facts is not None and self.facts is not None:
            notes += _written(self.facts, as_json(outcome.facts))
        if outcome.difference is not None:
            files.write(self.differ, outcome.difference)
        return notes

    def _make_folder(self) -> None:
        path = self.image or self.facts
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise ImageError(f"cannot make {problem.filename}: {problem.strerror}") from None

    def _write_image(self, path: Path, outcome: Outcome) -> Sequence[str]:
        form = self.form
        if len(outcome.images) > 1 and self.pages is not None and form.kind != "tiff":
            form, path = ResultFormat("tiff"), self.pages
        try:
            encoded = encode(outcome.images, form, outcome.metadata)
        except ImageError as problem:
            raise ImageError(f"{outcome.report.name}: {path}: {problem}") from None
        return (*encoded.notes, *_written(path, encoded.data))


def _written(path: Path, data: bytes) -> Sequence[str]:
    """Write a file; return a note if it got another name. Raises ImageError."""
    return name_notes(path, files.write_bytes(path, data))


def plan_outputs(
    images: Sequence[Path],
    out: str | None,
    *,
    measures: bool,
    form: ResultFormat | None = None,
    several: bool = False,
) -> list[Outputs]:
    """Return the output files of each image's job. All names differ.

    `out` is the option of the user: a file, a folder, or None; `form` is the format with its
    options, or None: that of the file's suffix, and PNG in a folder. With `several`, a folder is
    needed for one image, too. Raises UsageError for an
    unsupported kind of file, a missing folder, and a path that is one of the images.
    """
    if out is None:
        return [Outputs(None, None, Path(f"{image.stem}.differ.png")) for image in images]
    is_folder = several or len(images) > 1 or out.endswith("/") or Path(out).is_dir()
    planned = (
        _in_folder(images, Path(out), measures, form or PNG)
        if is_folder
        else [_single(Path(out), measures, form)]
    )
    originals = {image.resolve() for image in images}
    for outputs in planned:
        for path in (outputs.image, outputs.facts):
            if path is not None and path.resolve() in originals:
                raise UsageError(f"-o {out}: {path} is one of the images; name another file")
    return planned


def _single(out: Path, measures: bool, form: ResultFormat | None) -> Outputs:
    wants_facts = out.suffix.lower() == FACTS
    if wants_facts and not measures:
        raise UsageError(f"-o {out}: this pipeline gives an image, not facts; name a .png")
    form = PNG if wants_facts else _format_of(out, form)
    if not out.absolute().parent.is_dir():
        raise UsageError(f"-o {out}: there is no folder {out.parent}; make it first")
    image = None if wants_facts else out
    facts = out.with_suffix(FACTS) if measures else None
    return Outputs(image, facts, out.with_suffix(".differ.png"), form)


def _format_of(out: Path, form: ResultFormat | None) -> ResultFormat:
    """Return the format of a file that the user named. Raises UsageError."""
    try:
        named = format_of_suffix(out.suffix)
    except ImageError as problem:
        raise UsageError(f"-o {out}: {problem}") from None
    if form is not None and form.kind != named.kind:
        raise UsageError(f"-o {out}: it is no {form.kind} file, which --format asks for")
    return form or named


def _in_folder(
    images: Sequence[Path], out: Path, measures: bool, form: ResultFormat
) -> list[Outputs]:
    check_folder(out)
    originals = {image.resolve() for image in images}
    return [
        Outputs(
            out / f"{name}{form.suffix}",
            out / f"{name}{FACTS}" if measures else None,
            out / f"{name}.differ.png",
            form,
            _pages_path(out / f"{name}.tiff", originals),
        )
        for name in _names(images)
    ]


def check_folder(out: Path) -> None:
    """Raise UsageError if this folder for results is a file, or cannot be made or written.

    It is made with the first result, so that a command without one leaves nothing behind.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: several images need a folder, and this is a file")
    nearest = out.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"-o {out}: {nearest} is a file; name another folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"-o {out}: {nearest} may not be written; name another folder")


def _names(images: Sequence[Path]) -> Iterator[str]:
    """Yield a name for the results of each image: its own, shortened and numbered if needed."""
    from fogmqtt.gateway.storage.durable_files import shortened

    used: set[str] = set()
    numbers: Counter[str] = Counter()
    for image in images:
        stem = shortened(image.stem, LONGEST_STEM)
        name = stem
        while name in used:
            numbers[stem] += 1
            name = f"{stem}-{numbers[stem] + 1}"
        used.add(name)
        yield name


def _pages_path(path: Path, originals: set[Path]) -> Path:
    """Return the path, or one beside it if it is one of the images."""
    return path.with_suffix(".pages.tiff") if path.resolve() in originals else path
