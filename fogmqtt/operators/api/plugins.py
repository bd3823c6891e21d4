"""Operators of others: of installed packages, and of modules that a configuration names.

An agent knows the names of packages' operators from their entry points and imports nothing. What
a module has is known only once it was imported, which agents leave to their child processes.

Where two have one name, the built-in one is used, then that of the package whose name comes
first, then that of the module which is named first.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fogmqtt.errors import PipelineError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType

    from fogmqtt.operators.api.base import Operator

log = logging.getLogger(__name__)

GROUP = "fogmqtt.operators"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NAME_RULE = "a name is a-z, 0-9, _ and -, begins with a letter and has 64 letters at most"
_BUILT_IN = "the built-in one"
#: What a module of others may raise while it is imported.
_ANYTHING = (Exception, SystemExit)


@dataclass(frozen=True, slots=True)
class Origin:
    """What an operator came with: a package, or a module or file of the configuration's."""

    package: str
    #: Of the package; of a module its `__version__`, or digits that change with the file.
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()


class PlugIns:
    """What is plugged in besides the operators whose names are `taken`.

    `modules` are names to import, or paths of .py files; `fatal` are those that end a process
    which imports them, and entry points' values that do, with how: they are skipped.
    """

    def __init__(
        self,
        taken: Collection[str],
        modules: Iterable[str] = (),
        fatal: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.given = tuple(dict.fromkeys(modules))
        self.modules = tuple(one for one in self.given if one not in fatal)
        self._taken = taken
        self._refused: list[str] = []
        self._fatal = fatal
        for module in (one for one in self.given if one in fatal):
            self._refuse(fatality(module, fatal[module]))
        self._classes: dict[str, type[Operator]] = {}
        self._imported = not self.modules

    def names(self) -> Iterator[str]:
        """Of packages, and of modules if they were imported."""
        yield from self.entries
        yield from self._classes

    def problems(self) -> tuple[str, ...]:
        """What is skipped, and why; imports the modules."""
        self.import_modules()
        return (*self._entries[1], *self._refused)

    @property
    def entries(self) -> Mapping[str, EntryPoint]:
        """The entry points in use, by the names of their operators."""
        return self._entries[0]

    @cached_property
    def _entries(self) -> tuple[Mapping[str, EntryPoint], list[str]]:
        used: dict[str, EntryPoint] = {}
        problems = []
        for entry in sorted(metadata.entry_points(group=GROUP), key=_rank):
            name = entry.name
            if not _NAME.fullmatch(name):
                problems.append(f"{_place(entry)}: {name!r} is skipped: {_NAME_RULE}")
            elif name in self._taken:
                problems.append(_twice(name, _BUILT_IN, _place(entry)))
            elif name in used:
                problems.append(_twice(name, _place(used[name]), _place(entry)))
            elif entry.value in self._fatal:
                problems.append(fatality(_place(entry), self._fatal[entry.value]))
            else:
                used[name] = entry
        for problem in problems:
            log.warning("%s", problem)
        return used, problems

    def find(self, name: str) -> type[Operator] | None:
        """The operator's class; imports what it must.

        Raises PipelineError for one that cannot be imported or is none.
        """
        entry = self.entries.get(name)
        if entry is not None:
            return _load(entry)
        self.import_modules()
        return self._classes.get(name)

    def origin(self, operator: type[Operator]) -> Origin:
        """What a plugged-in operator came with."""
        entry = self.entries.get(operator.name)
        return _of_entry(entry) if entry else _of_module(sys.modules[operator.__module__])

    def import_modules(self, before: Callable[[str], object] = str) -> None:
        """Import them, once, and call `before` with each.

        What is wrong with one is a problem of its own and no exception.
        """
        if self._imported:
            return
        self._imported = True
        for module in self.modules:
            before(module)
            try:
                self._register(module, _import(module))
            except _ANYTHING as problem:
                log.debug("plug-in %s", module, exc_info=True)
                self._refuse(f"plug-in {module} cannot be imported: {_said(problem)}")

    def _register(self, place: str, module: ModuleType) -> None:
        classes = list(_operators(module))
        if not classes:
            self._refuse(f"plug-in {place} defines no operator: no class of it has a name")
        for operator in classes:
            here = f"{operator.__qualname__} of {place}"
            fault, used = _fault(operator), self._used(operator.name)
            if fault:
                self._refuse(f"{here} is skipped: {fault}")
            elif used and not self._is_entry(operator):
                self._refuse(_twice(operator.name, used, here))
            elif not used:
                self._classes[operator.name] = operator

    def _is_entry(self, operator: type[Operator]) -> bool:
        """Whether an installed package registers the very same class."""
        entry = self.entries.get(operator.name)
        here = f"{operator.__module__}:{operator.__qualname__}"
        return entry is not None and entry.value == here

    def _used(self, name: str) -> str:
        """What has this name already, for a sentence; nothing if it is free."""
        if name in self._taken:
            return _BUILT_IN
        if name in self.entries:
            return _place(self.entries[name])
        first = self._classes.get(name)
        return f"{first.__qualname__} of {first.__module__}" if first else ""

    def _refuse(self, problem: str) -> None:
        log.warning("%s", problem)
        self._refused.append(problem)


def fatality(module: str, how: str) -> str:
    """The sentence about a plug-in that ends whoever imports it."""
    return f"plug-in {module} is skipped: its import {how}"


def is_file(module: str) -> bool:
    """Whether a configured plug-in is a path, not the name of a module."""
    return module.endswith(".py")


def _import(module: str) -> ModuleType:
    if not is_file(module):
        return importlib.import_module(module)
    # Its path is its name: no other module has it, and every traceback says it.
    spec = importlib.util.spec_from_file_location(module, module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module} cannot be read as Python")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
    return loaded


def _operators(module: ModuleType) -> Iterator[type[Operator]]:
    """The operators that a module defines, not those that it imports."""
    from fogmqtt.operators.api.base import Operator

    for one in list(vars(module).values()):
        ours = isinstance(one, type) and one.__module__ == module.__name__
        if ours and issubclass(one, Operator) and one.name:
            yield one


def _fault(operator: type[Operator]) -> str:
    """Why a class cannot be used as an operator; nothing if it can."""
    if "__dataclass_params__" not in vars(operator):
        return "it is no dataclass; write @dataclass(frozen=True) above it"
    if not _NAME.fullmatch(operator.name):
        return f"it calls itself {operator.name!r}: {_NAME_RULE}"
    return ""


def _load(entry: EntryPoint) -> type[Operator]:
    from fogmqtt.operators.api.base import Operator

    place = _place(entry)
    try:
        loaded = entry.load()
    except _ANYTHING as problem:
        log.debug("operator %r", entry.name, exc_info=True)
        raise PipelineError(
            f"operator {entry.name!r} cannot be imported from {place}: {_said(problem)}"
        ) from problem
    if not (isinstance(loaded, type) and issubclass(loaded, Operator)):
        raise PipelineError(
            f"operator {entry.name!r}: {place} is no class derived from "
            "fogmqtt.operators.api.base.Operator"
        )
    if loaded.name != entry.name:
        raise PipelineError(
            f"operator {entry.name!r}: {place} calls itself {loaded.name!r}; "
            "the entry point and the class must agree"
        )
    fault = _fault(loaded)
    if fault:
        raise PipelineError(f"operator {entry.name!r}: {place}: {fault}")
    return loaded


def _twice(name: str, used: str, skipped: str) -> str:
    return f"two operators are called {name!r}: {used} is used, {skipped} is skipped; rename it"


def _place(entry: EntryPoint) -> str:
    return f"{entry.value} ({_of_entry(entry)})"


def _said(problem: BaseException) -> str:
    """What it is, and where it was raised if that is outside of Python's importing and of us."""
    said = f"{type(problem).__name__}: {problem}"
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    if "importlib" in frame.filename or frame.filename == __file__:
        return said
    return f"{said} ({Path(frame.filename).name}, line {frame.lineno})"


def _rank(entry: EntryPoint) -> tuple[str, str]:
    return _of_entry(entry).package, entry.value


def _of_entry(entry: EntryPoint) -> Origin:
    if entry.dist is None:
        return Origin(entry.module.partition(".")[0], "")
    return Origin(entry.dist.name, entry.dist.version)


def _of_module(module: ModuleType) -> Origin:
    top = module.__name__.partition(".")[0]
    if not is_file(module.__name__):
        for package in metadata.packages_distributions().get(top, ()):
            return Origin(package, metadata.version(package))
    # Without its folder, which is another on every machine.
    name = Path(module.__name__).name
    said = getattr(module, "__version__", None)
    file = getattr(module, "__file__", None)
    if isinstance(said, str) or file is None:
        return Origin(name, said or "")
    return Origin(name, hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8])
