"""The images of `run` and `verify`: a folder stands for the images in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fogmqtt.errors import UsageError, reason_of
from fogmqtt.images import no_image
from fogmqtt.log import shown_name

#: Files that are named one by one; the others are counted.
_MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Batch:
    """The images to process, and a line for what is left alone.

    Attributes
    ----------
    images : the paths of the images, those of a folder sorted by name
    has_folder : whether a folder was named
    lines : sentences about what is left alone
    """

    images: tuple[Path, ...]
    has_folder: bool
    lines: tuple[str, ...]


def find_images(named: Sequence[Path]) -> Batch:
    """Return the images that the user named, folders replaced by the files in them.

    Of several files, those that are clearly no images are left alone, and so are folders in a
    folder. Raises UsageError for a folder that cannot be listed or has no image.
    """
    images, left = list[Path](), list[str]()
    for path in named:
        if not path.is_dir():
            _sort_in(path, images, left, is_only=len(named) == 1)
            continue
        before = len(images)
        for file in _files_in(path, left):
            _sort_in(file, images, left)
        if len(images) == before:
            raise UsageError("\n".join((f"{shown_name(str(path))}: no image is in it", *left)))
    if not images:
        raise UsageError("\n".join(("none of the files is an image", *left)))
    if len(left) > _MAX_NAMED:
        more = len(left) - _MAX_NAMED
        left[_MAX_NAMED:] = [f"{more} more are left alone"]
    return Batch(tuple(images), any(path.is_dir() for path in named), tuple(left))


def _files_in(folder: Path, left: list[str]) -> Iterator[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError as problem:
        raise UsageError(f"{shown_name(str(folder))}: {reason_of(problem, folder)}") from None
    for path in found:
        if no_image.is_junk(path.name):
            continue
        if path.is_dir():
            left.append(f"{shown_name(str(path))} is left alone: a folder; name it, too")
        else:
            yield path


def _sort_in(path: Path, images: list[Path], left: list[str], *, is_only: bool = False) -> None:
    what = "" if is_only else _describe_no_image(path)
    if what:
        left.append(f"{shown_name(str(path))} is left alone: no image, but {what}")
    else:
        images.append(path)


def _describe_no_image(path: Path) -> str:
    if not no_image.may_be_no_image(path.name):
        return ""
    try:
        # A pipe can be read only once.
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return no_image.describe(file)
    except OSError:
        return ""  # its job says why it cannot be read
