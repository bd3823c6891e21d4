"""All modules of the page as one, so that a browser asks once and not forty times.

Each module becomes a function with its text as it is, except for its imports and exports, of which
the page uses few forms. A form that is not known here is an error, and never a guess.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Final

from fogmqtt.errors import FogError

_NAME: Final = r"[A-Za-z_$][\w$]*"
_COMMENTS = re.compile(r"(?:\s+|//[^\n]*\n|/\*.*?\*/)*", re.DOTALL)
_IMPORT = re.compile(
    rf"import\s*(?:\*\s*as\s+(?P<all>{_NAME})|\{{(?P<some>[^}}]*)\}}|(?P<default>{_NAME}))\s*"
    r'from\s*"(?P<path>[^"]+)"[ ]*;?'
)
#: Where a statement begins: in compressed libraries, not only at the begin of a line.
_BEGIN: Final = r"(?:^|(?<=[;}]))"
_DECLARED = re.compile(
    rf"{_BEGIN}export\s+(?P<what>(?:async\s+)?function|class|const)\s+(?P<name>{_NAME})",
    re.MULTILINE,
)
_DEFAULT = re.compile(rf"{_BEGIN}export\s+default\s+(?=function\b)", re.MULTILINE)
_LIST = re.compile(
    rf'{_BEGIN}export\s*\{{(?P<some>[^}}]*)\}}(?:\s*from\s*"(?P<path>[^"]+)")?\s*;?', re.MULTILINE
)
_UNKNOWN = re.compile(rf"{_BEGIN}\s*(?:import|export)\b.*|\bimport\s*[(.].*", re.MULTILINE)
_SOURCE_MAP = re.compile(r"//# sourceMappingURL=\S*\s*$")
_PAIR = re.compile(rf"({_NAME})(?:\s+as\s+({_NAME}))?")


class ModuleError(FogError):
    """A module of the page has a form that cannot be joined."""


def join_modules(entry: str, read: Callable[[str], str]) -> str:
    """Return one module that does what `entry` does. Raises ModuleError.

    `read` returns the text of a module by its path.
    """
    done: dict[str, str] = {}
    _add(entry, read, done, ())
    return "const $modules = {};\n" + "".join(done.values())


def _add(path: str, read: Callable[[str], str], done: dict[str, str], by: tuple[str, ...]) -> None:
    if path in by:
        raise ModuleError(f"{path} imports itself by way of {', '.join(by)}; take one import away")
    if path in done:
        return
    module = _Module(path, read(path))
    for other in module.imported:
        _add(other, read, done, (*by, path))
    done[path] = module.joined


class _Module:
    """A module on its way into a function. Lines keep their numbers within it."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        #: The modules that this one needs.
        self.imported: list[str] = []
        self._exports: list[str] = []
        head, body = self._without_imports(_SOURCE_MAP.sub("", text))
        body = _LIST.sub(self._listed, body)
        body = _DECLARED.sub(self._declared, body)
        body = _DEFAULT.sub(self._defaulted, body)
        if unknown := _UNKNOWN.search(body):
            raise ModuleError(
                f"{path}: {unknown[0].strip()[:60]!r} cannot be joined; import and export as the "
                "other modules of the page do"
            )
        self.joined = (
            f"// {path}\n$modules[{path!r}] = (() => {{\n{head}{body}\n"
            f"return {{ {', '.join(self._exports)} }};\n}})();\n"
        )

    def _without_imports(self, text: str) -> tuple[str, str]:
        made, at = "", 0
        while True:
            begin = at
            at = _end(_COMMENTS, text, at)
            made += text[begin:at]
            found = _IMPORT.match(text, at)
            if found is None:
                return made, text[at:]
            made += self._import(found)
            at = found.end()

    def _import(self, found: re.Match[str]) -> str:
        lines = "\n" * found[0].count("\n")
        module = self._module(found["path"])
        if found["all"]:
            return f"const {found['all']} = {module};{lines}"
        if found["default"]:
            return f"const {found['default']} = {module}.default;{lines}"
        names = ", ".join(f"{theirs}: {ours}" for theirs, ours in self._pairs(found["some"]))
        return f"const {{ {names} }} = {module};{lines}"

    def _module(self, path: str) -> str:
        other = posixpath.normpath(posixpath.join(posixpath.dirname(self._path), path))
        if not path.startswith(("./", "../")) or other.startswith(".."):
            raise ModuleError(f"{self._path}: {path!r} is not a module of the page")
        self.imported.append(other)
        return f"$modules[{other!r}]"

    def _pairs(self, names: str) -> Iterator[tuple[str, str]]:
        for part in filter(None, map(str.strip, names.split(","))):
            pair = _PAIR.fullmatch(part)
            if pair is None:
                raise ModuleError(f"{self._path}: {part!r} is not a name, or one as another")
            yield pair[1], pair[2] or pair[1]

    def _listed(self, found: re.Match[str]) -> str:
        source = f"{self._module(found['path'])}." if found["path"] else ""
        self._exports += [
            f"{theirs}: {source}{ours}" for ours, theirs in self._pairs(found["some"])
        ]
        return "\n" * found[0].count("\n")

    def _declared(self, found: re.Match[str]) -> str:
        self._exports.append(found["name"])
        return f"{found['what']} {found['name']}"

    def _defaulted(self, found: re.Match[str]) -> str:
        del found
        self._exports.append("default: $default")
        return "const $default = "


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
