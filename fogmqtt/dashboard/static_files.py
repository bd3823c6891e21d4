"""The files of the page: small, in memory, compressed once, and never by a path of a stranger.

Only names that are in the folder can be asked for, so a path has nothing to trick.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from fogmqtt.dashboard.downloads import has_tag
from fogmqtt.dashboard.problems import Problem
from fogmqtt.log import one_line

FOLDER: Final = Path(__file__).with_name("static")
_INDEX: Final = "index.html"
_NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*")
#: What the system's table may lack.
_TYPES: Final = {
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".html": "text/html",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
    ".png": "image/png",
    ".ico": "image/x-icon",
}
_TEXT: Final = ("text/", "application/json", "application/manifest+json", "image/svg+xml")
#: Files of fewer bytes are sent as they are.
_SMALL: Final = 500


@dataclass(frozen=True, slots=True)
class _File:
    media_type: str
    plain: bytes
    compressed: bytes | None
    tag: str
    stamp: tuple[int, int]


class StaticFiles:
    """The files of a folder. A file that changes is read again."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    def response(self, request: Request, path: str) -> Response:
        """Return a file; the page for the path "". Raises Problem for a name that is not there."""
        found = self._find(path or _INDEX)
        if found is None:
            raise Problem("not-found", 404, f"There is no page {one_line(path)[:80]!r} here.")
        accepts = request.headers.get("accept-encoding", "")
        data, tag = found.plain, f'"{found.tag}"'
        headers = {"Cache-Control": "no-cache"}
        if found.compressed is not None:
            headers["Vary"] = "Accept-Encoding"
            if _accepts_gzip(accepts):
                data, tag = found.compressed, f'"{found.tag}-gz"'
                headers["Content-Encoding"] = "gzip"
        headers["ETag"] = tag
        if has_tag(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(data, headers=headers, media_type=found.media_type)

    def _find(self, name: str) -> _File | None:
        if _NAME.fullmatch(name) is None:
            return None
        path = self._folder / name
        try:
            if path.is_dir():
                return None
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            known = self._files.get(name)
            if known is None or known.stamp != stamp:
                known = self._files[name] = _read(path, stamp)
        except OSError:
            return None
        return known


def _read(path: Path, stamp: tuple[int, int]) -> _File:
    data = path.read_bytes()
    media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    media_type = media_type or "application/octet-stream"
    compressed = None
    if len(data) >= _SMALL and media_type.startswith(_TEXT):
        compressed = gzip.compress(data, 9, mtime=0)
    tag = hashlib.blake2b(data, digest_size=8).hexdigest()
    return _File(media_type, data, compressed, tag, stamp)


def _accepts_gzip(header: str) -> bool:
    for part in header.split(","):
        name, _, weight = part.strip().partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
