"""The files of the page: small, in memory, compressed once, and never by a path of a stranger.

Only names that are in the folder can be asked for, so a path has nothing to trick.

The page itself asks for one module that all modules are joined to, and names the tags of what it
asks for, so a browser that has them asks again for nothing. `index.html`, asked for by its name, is
the same page by its modules as they are written, for whoever works on it.
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
from fogmqtt.dashboard.joined_modules import ModuleError, join_modules
from fogmqtt.dashboard.problems import Problem
from fogmqtt.log import one_line

FOLDER: Final = Path(__file__).with_name("static")
_INDEX: Final = "index.html"
_ENTRY: Final = "app.js"
_JOINED: Final = "page.js"
#: What `index.html` names, and what the page asks for instead, with its tag.
_TAGGED: Final = {f'src="{_ENTRY}"': (_JOINED, "src"), 'href="page.css"': ("page.css", "href")}
_FOR_EVER: Final = "max-age=31536000, immutable"
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
    stamp: object


class StaticFiles:
    """The files of a folder. A file that changes is read again."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}
        #: The modules that were joined, with the stamps that their files had.
        self._modules: dict[str, tuple[int, int]] = {}

    def prepare(self) -> None:
        """Make the page before somebody asks for it. Raises ModuleError."""
        self._find("")

    def response(self, request: Request, path: str) -> Response:
        """Return a file; the page for the path "". Raises Problem for a name that is not there."""
        try:
            found = self._find(path)
        except ModuleError as problem:
            raise Problem("failed", 500, str(problem)) from None
        if found is None:
            raise Problem("not-found", 404, f"There is no page {one_line(path)[:80]!r} here.")
        accepts = request.headers.get("accept-encoding", "")
        data, tag = found.plain, f'"{found.tag}"'
        is_tagged = request.url.query == found.tag
        headers = {"Cache-Control": _FOR_EVER if is_tagged else "no-cache"}
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
        try:
            if not name:
                return self._page()
            if name == _JOINED:
                return self._joined()
            return self._file(name) if _NAME.fullmatch(name) else None
        except OSError:
            return None

    def _file(self, name: str) -> _File | None:
        path = self._folder / name
        if path.is_dir():
            return None
        stamp = _stamp(path)
        known = self._files.get(name)
        if known is None or known.stamp != stamp:
            known = self._files[name] = _made(path.read_bytes(), name, stamp)
        return known

    def _page(self) -> _File:
        """Return `index.html` with the tags of what it asks for."""
        path = self._folder / _INDEX
        text = path.read_text("utf-8")
        for named, (name, attribute) in _TAGGED.items():
            if named in text and (found := self._find(name)) is not None:
                text = text.replace(named, f'{attribute}="{name}?{found.tag}"')
        known = self._files.get("")
        if known is None or known.stamp != text:
            known = self._files[""] = _made(text.encode(), _INDEX, text)
        return known

    def _joined(self) -> _File:
        """Return all modules as one. Raises OSError and ModuleError."""
        known = self._files.get(_JOINED)
        if known is None or known.stamp != {one: self._stamp_of(one) for one in self._modules}:
            modules: dict[str, tuple[int, int]] = {}

            def read(name: str) -> str:
                modules[name] = self._stamp_of(name)
                return (self._folder / name).read_text("utf-8")

            text = join_modules(_ENTRY, read)
            self._modules = modules
            known = self._files[_JOINED] = _made(text.encode(), _JOINED, modules)
        return known

    def _stamp_of(self, name: str) -> tuple[int, int]:
        return _stamp(self._folder / name)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _made(data: bytes, name: str, stamp: object) -> _File:
    suffix = Path(name).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0]
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
