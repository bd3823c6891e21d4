"""Plug-ins: operators of installed packages, and of modules that a configuration names.

The names of a package's operators are known from its entry points, without an import. The
operators of a module are known only after its import, which devices leave to child processes.

Of several operators with one name, the built-in one is used, then that of the package whose name
comes first in the alphabet, then that of the module which is configured first.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from fogmqtt.errors import PipelineError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from types import ModuleType

    from fogmqtt.operators.api.base import Operator

log = logging.getLogger(__name__)

GROUP = "fogmqtt.operators"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_NAME_RULE = "a name has 1 to 64 characters of a-z, 0-9, _ and -, and begins with a letter"
_BUILT_IN = "the built-in one"
#: What the import of a plug-in may raise.
_IMPORT_ERRORS = (Exception, SystemExit)


class Origin(Struct, frozen=True):
    """What an operator comes with: a package, or a configured module or file."""

    package: str
    #: The package's version; for a module its `__version__`, or a hash of its file.
    version: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()


class PlugIns:
    """The plug-ins of installed packages and of configured modules.

    `built_in` are the names of the built-in operators. `modules` are names to import, or paths of
    .py files. `fatal` maps modules and values of entry points whose import ends a process to how
    the process ended: they are skipped.
    """

    def __init__(
        self,
        built_in: Collection[str],
        modules: Iterable[str] = (),
        fatal: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.configured = tuple(dict.fromkeys(modules))
        self.modules = tuple(one for one in self.configured if one not in fatal)
        self._built_in = built_in
        self._problems: list[str] = []
        self._fatal = fatal
        for module in (one for one in self.configured if one in fatal):
            self._skip(fatal_import_text(module, fatal[module]))
        self._classes: dict[str, type[Operator]] = {}
        self._imported = not self.modules

    def names(self) -> Iterator[str]:
        """Yield the names of packages' operators, and of modules' if they are imported."""
        yield from self.entries
        yield from self._classes

    def problems(self) -> tuple[str, ...]:
        """Return a sentence for each plug-in that is skipped. Imports the modules."""
        self.import_modules()
        return (*self._entries[1], *self._problems)

    @property
    def entries(self) -> Mapping[str, EntryPoint]:
        """The entry points in use, by the names of their operators."""
        return self._entries[0]

    @cached_property
    def _entries(self) -> tuple[Mapping[str, EntryPoint], list[str]]:
        from importlib import metadata  # slow to import, and worker processes seldom need it

        in_use: dict[str, EntryPoint] = {}
        problems = []
        for entry in sorted(metadata.entry_points(group=GROUP), key=_precedence):
            name = entry.name
            if not _NAME.fullmatch(name):
                problems.append(f"{_entry_text(entry)}: {name!r} is skipped: {_NAME_RULE}")
            elif name in self._built_in:
                problems.append(_duplicate_text(name, _BUILT_IN, _entry_text(entry)))
            elif name in in_use:
                problems.append(
                    _duplicate_text(name, _entry_text(in_use[name]), _entry_text(entry))
                )
            elif entry.value in self._fatal:
                problems.append(fatal_import_text(_entry_text(entry), self._fatal[entry.value]))
            else:
                in_use[name] = entry
        for problem in problems:
            log.warning("%s", problem)
        return in_use, problems

    def find(self, name: str) -> type[Operator] | None:
        """Return the operator's class, or None if no plug-in has the name.

        Imports the package or the modules. Raises PipelineError if the package cannot be imported,
        or its entry point is not an operator.
        """
        entry = self.entries.get(name)
        if entry is not None:
            return _load_entry(entry)
        self.import_modules()
        return self._classes.get(name)

    def origin(self, operator: type[Operator]) -> Origin:
        """Return the package or module that a plugged-in operator comes with."""
        entry = self.entries.get(operator.name)
        return _entry_origin(entry) if entry else _module_origin(sys.modules[operator.__module__])

    def import_modules(self, before: Callable[[str], object] = str) -> None:
        """Import the modules, once, and call `before` with each before its import.

        A module that cannot be imported becomes a problem and raises no exception.
        """
        if self._imported:
            return
        self._imported = True
        for module in self.modules:
            before(module)
            try:
                self._register(module, _import_module(module))
            except _IMPORT_ERRORS as problem:
                log.debug("plug-in %s", module, exc_info=True)
                self._skip(f"plug-in {module} cannot be imported: {_error_text(problem)}")

    def _register(self, location: str, module: ModuleType) -> None:
        classes = list(_operators_of(module))
        if not classes:
            self._skip(f"plug-in {location} defines no operator: none of its classes has a name")
        for operator in classes:
            here = f"{operator.__qualname__} of {location}"
            reason, in_use = _unusable_reason(operator), self._user_of(operator.name)
            if reason:
                self._skip(f"{here} is skipped: {reason}")
            elif in_use and not self._is_entry(operator):
                self._skip(_duplicate_text(operator.name, in_use, here))
            elif not in_use:
                self._classes[operator.name] = operator

    def _is_entry(self, operator: type[Operator]) -> bool:
        """Return whether an installed package registers the same class."""
        entry = self.entries.get(operator.name)
        here = f"{operator.__module__}:{operator.__qualname__}"
        return entry is not None and entry.value == here

    def _user_of(self, name: str) -> str:
        """Return the operator that already has this name, for a sentence; empty if none has."""
        if name in self._built_in:
            return _BUILT_IN
        if name in self.entries:
            return _entry_text(self.entries[name])
        first = self._classes.get(name)
        return f"{first.__qualname__} of {first.__module__}" if first else ""

    def _skip(self, problem: str) -> None:
        log.warning("%s", problem)
        self._problems.append(problem)


def fatal_import_text(module: str, how: str) -> str:
    """Return the sentence about a plug-in whose import ends or hangs the process."""
    return f"plug-in {module} is skipped: its import {how}"


def is_file(module: str) -> bool:
    """Return whether a configured plug-in is a path, and not the name of a module."""
    return module.endswith(".py")


def _import_module(module: str) -> ModuleType:
    if not is_file(module):
        return importlib.import_module(module)
    # The path is the module's name: it is unique, and tracebacks show it.
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


def _operators_of(module: ModuleType) -> Iterator[type[Operator]]:
    """Yield the operators that a module defines, without those that it imports."""
    from fogmqtt.operators.api.base import Operator

    for one in list(vars(module).values()):
        defined = isinstance(one, type) and one.__module__ == module.__name__
        if defined and issubclass(one, Operator) and one.name:
            yield one


def _unusable_reason(operator: type[Operator]) -> str:
    """Return why a class cannot be used as an operator; empty if it can."""
    if "__dataclass_params__" not in vars(operator):
        return "it is not a dataclass; write @dataclass(frozen=True) above it"
    if not _NAME.fullmatch(operator.name):
        return f"its name is {operator.name!r}: {_NAME_RULE}"
    method = operator.missing_method()
    return f"it has no method {method!r}, which computes its result" if method else ""


def _load_entry(entry: EntryPoint) -> type[Operator]:
    from fogmqtt.operators.api.base import Operator

    location = _entry_text(entry)
    try:
        loaded = entry.load()
    except _IMPORT_ERRORS as problem:
        log.debug("operator %r", entry.name, exc_info=True)
        raise PipelineError(
            f"operator {entry.name!r} cannot be imported from {location}: {_error_text(problem)}"
        ) from problem
    if not (isinstance(loaded, type) and issubclass(loaded, Operator)):
        raise PipelineError(
            f"operator {entry.name!r}: {location} is not a class derived from "
            "fogmqtt.operators.api.base.Operator"
        )
    if loaded.name != entry.name:
        raise PipelineError(
            f"operator {entry.name!r}: the class {location} has the name {loaded.name!r}; "
            "the entry point and the class must have the same name"
        )
    reason = _unusable_reason(loaded)
    if reason:
        raise PipelineError(f"operator {entry.name!r}: {location}: {reason}")
    return loaded


def _duplicate_text(name: str, in_use: str, skipped: str) -> str:
    return f"two operators are called {name!r}: {in_use} is used, {skipped} is skipped; rename it"


def _entry_text(entry: EntryPoint) -> str:
    return f"{entry.value} ({_entry_origin(entry)})"


def _error_text(problem: BaseException) -> str:
    """Return the error, with file and line if it was raised by the plug-in's own code."""
    text = f"{type(problem).__name__}: {problem}"
    frame = traceback.extract_tb(problem.__traceback__)[-1]
    if "importlib" in frame.filename or frame.filename == __file__:
        return text
    return f"{text} ({Path(frame.filename).name}, line {frame.lineno})"


def _precedence(entry: EntryPoint) -> tuple[str, str]:
    return _entry_origin(entry).package, entry.value


def _entry_origin(entry: EntryPoint) -> Origin:
    if entry.dist is None:
        return Origin(entry.module.partition(".")[0], "")
    return Origin(entry.dist.name, entry.dist.version)


def _module_origin(module: ModuleType) -> Origin:
    import hashlib
    from importlib import metadata

    top = module.__name__.partition(".")[0]
    if not is_file(module.__name__):
        for package in metadata.packages_distributions().get(top, ()):
            return Origin(package, metadata.version(package))
    # Without the folder, which differs between machines.
    name = Path(module.__name__).name
    version = getattr(module, "__version__", None)
    file = getattr(module, "__file__", None)
    if isinstance(version, str) or file is None:
        return Origin(name, version or "")
    return Origin(name, hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8])
