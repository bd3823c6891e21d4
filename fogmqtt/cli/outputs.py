"""The output files of `fog-gateway run`, checked before any tile is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import ImageError, UsageError
from fogmqtt.gateway.jobs.model import Outcome
from fogmqtt.images import files
from fogmqtt.operators.api.measuring import as_json

FACTS = ".json"
#: Bytes of an image's own name in the name of a result: a number and ".differ.png" may follow.
LONGEST_STEM = 230


@dataclass(frozen=True, slots=True)
class Outputs:
    """The output files of one job; None for a file that is not written."""

    image: Path | None
    facts: Path | None
    #: The mask of the pixels that differ from one machine; written only if some do.
    differ: Path

    def write(self, outcome: Outcome) -> None:
        """Write the files. Raises ImageError if a file cannot be written."""
        if outcome.image is not None and self.image is not None:
            files.write(self.image, outcome.image)
        if outcome.facts is not None and self.facts is not None:
            files.write_bytes(self.facts, as_json(outcome.facts))
        if outcome.difference is not None:
            files.write(self.differ, outcome.difference)


def plan_outputs(images: Sequence[Path], out: str | None, *, measures: bool) -> list[Outputs]:
    """Return the output files of each image's job. All names differ.

    `out` is the option of the user: a file, a folder, or None. Raises UsageError for an unsupported
    kind of file, a missing folder, and a path that is one of the images.
    """
    if out is None:
        return [Outputs(None, None, Path(f"{image.stem}.differ.png")) for image in images]
    is_folder = len(images) > 1 or out.endswith("/") or Path(out).is_dir()
    planned = (
        _in_folder(images, Path(out), measures) if is_folder else [_single(Path(out), measures)]
    )
    originals = {image.resolve() for image in images}
    for outputs in planned:
        for path in (outputs.image, outputs.facts):
            if path is not None and path.resolve() in originals:
                raise UsageError(f"-o {out}: {path} is one of the images; name another file")
    return planned


def _single(out: Path, measures: bool) -> Outputs:
    wants_facts = out.suffix.lower() == FACTS
    if wants_facts and not measures:
        raise UsageError(f"-o {out}: this pipeline gives an image, not facts; name a .png")
    if not wants_facts:
        _check_suffix(out)
    if not out.absolute().parent.is_dir():
        raise UsageError(f"-o {out}: there is no folder {out.parent}; make it first")
    image = None if wants_facts else out
    facts = out.with_suffix(FACTS) if measures else None
    return Outputs(image, facts, out.with_suffix(".differ.png"))


def _check_suffix(out: Path) -> None:
    try:
        files.check_suffix(out)
    except ImageError as problem:
        raise UsageError(f"-o {out}: {problem}") from None


def _in_folder(images: Sequence[Path], out: Path, measures: bool) -> list[Outputs]:
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out}: several images need a folder, and this is a file")
    out.mkdir(parents=True, exist_ok=True)
    return [
        Outputs(
            out / f"{name}.png",
            out / f"{name}{FACTS}" if measures else None,
            out / f"{name}.differ.png",
        )
        for name in _names(images)
    ]


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
