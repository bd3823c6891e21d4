"""Names for results on file systems that do not take every name.

FAT, exFAT, NTFS and many file servers take none of `:?*<>|"\\`, and eCryptfs no name of over 143
bytes.
"""

from __future__ import annotations

import errno
import zlib
from pathlib import Path
from typing import Final

_REFUSED: Final = (errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG)
_FORBIDDEN: Final = frozenset('\\/:*?"<>|')
#: Letters of a name's own beginning that are kept: four bytes each still fit into 143 bytes.
_KEPT_LETTERS: Final = 25
#: The longest suffix that is kept, in characters.
_LONGEST_SUFFIX: Final = 12


def is_refused(problem: OSError) -> bool:
    """Return whether a file system may have refused the name of a file, and not the file."""
    return problem.errno in _REFUSED


def plain_path(path: Path) -> Path:
    """Return a path in the same folder with a name that every file system takes.

    The name begins like the refused one, as far as that is legal, and ends with a checksum of it,
    so that two names do not become one.
    """
    stem, suffix = path.stem, path.suffix
    if len(suffix) > _LONGEST_SUFFIX or _plain(suffix) != suffix:
        stem, suffix = path.name, ""
    checksum = zlib.crc32(path.name.encode("utf-8", "surrogateescape"))
    begin = _plain(stem)[:_KEPT_LETTERS].strip(" .") or "image"
    return path.with_name(f"{begin}-{checksum:08x}{suffix}")


def name_notes(wanted: Path, written: Path) -> tuple[str, ...]:
    """Return a note for the user if a file got another name than the wanted one."""
    if written.name == wanted.name:
        return ()
    return (f"written as {written.name}, since its folder takes no file of its own name",)


def _plain(text: str) -> str:
    return "".join("_" if _is_forbidden(letter) else letter for letter in text)


def _is_forbidden(letter: str) -> bool:
    # Python stands in for a byte that is no UTF-8 with a surrogate.
    return letter in _FORBIDDEN or letter < " " or "\ud800" <= letter <= "\udfff"
