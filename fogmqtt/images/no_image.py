"""Tells files that are clearly no images, such as a note among photographs.

Nobody wants to hear that such a file failed. A file that is named like an image, or may be one, is
not told here: its job says what is wrong with it.
"""

from __future__ import annotations

from typing import BinaryIO, Final

from fogmqtt.images.formats.kinds import describe_no_image, has_image_suffix
from fogmqtt.images.text_form import from_text, may_be_text

#: How programs end the name of a file that they have not finished.
_UNFINISHED = (
    ".part",
    ".partial",
    ".tmp",
    ".temp",
    ".crdownload",
    ".download",
    ".filepart",
    ".swp",
    "~",
)
#: Files that operating systems leave in folders; hidden ones need no entry.
_JUNK = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
#: Bytes that tell what a file is.
_HEAD_BYTES: Final = 4096


def is_junk(name: str) -> bool:
    """Return whether a file is hidden, unfinished or junk of an operating system."""
    lower = name.lower()
    return name.startswith((".", "~$")) or lower.endswith(_UNFINISHED) or lower in _JUNK


def may_be_no_image(name: str) -> bool:
    """Return whether a file of this name has to be opened to know; a cheap test."""
    return not has_image_suffix(name)


def describe(file: BinaryIO) -> str:
    """Return what a file is that is clearly no image; empty if it may be one. Raises OSError."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    if not head:
        return "empty"
    found = describe_no_image(head)
    return "" if found and _is_image_as_text(head) else found


def _is_image_as_text(head: bytes) -> bool:
    """Return whether a file that begins with these bytes may be an image as base64 or data URI."""
    if not may_be_text(head):
        return False
    # The end of the beginning may cut a group of four digits.
    decoded = (from_text(head[: len(head) - cut]) for cut in range(4))
    return any(data is not None and not describe_no_image(data) for data in decoded)
