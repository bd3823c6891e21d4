"""The folder is the architecture: who may import whom, and what a device never loads."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fogmqtt"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Layer → what it may import besides itself and errors. A new layer is refused until it is here.
MAY_IMPORT = {
    "errors": set(),
    "log": set(),
    "process_tuning": set(),
    "core": set(),
    "wire": set(),
    "transport": set(),
    "images": {"core.geometry"},
    "operators": {"images", "core.geometry", "core.tiling"},
    # Values with their checks; whoever is configured takes them, and only cli loads them.
    "config": {"core.geometry", "core.scheduling.policy", "wire.messages", "wire.topics"},
    "gateway": {
        "core",
        "wire",
        "images",
        "operators",
        "workers",
        "conformance",
        "transport",
        "config",
        "log",
    },
    "conformance": {
        "core.geometry",
        "images",
        "operators",
        "workers.memory_limit",
        "workers.exit_status",
        "workers.resources",
    },
    "workers": {"core.geometry", "wire", "images", "operators", "process_tuning"},
    "agent": {
        "core",
        "wire",
        "images",
        "operators",
        "workers",
        "conformance",
        "transport",
        "config",
        "log",
    },
    "simulate": {"core", "wire", "images", "operators", "transport", "config"},
    "dashboard": {"transport", "wire", "config"},
}
#: The command line puts everything together.
EVERYTHING = {"cli"}

#: What would make the core depend on anything but its events.
IMPURE = {"asyncio", "logging", "os", "random", "socket", "threading", "time"}

#: Package → the places that may import it.
PLACES = {
    "paho": ("transport/paho.py", "transport/connection.py"),
    "yaml": ("config/text.py",),
    "PIL": ("images/",),
    "rich": ("cli/",),
    "inotify_simple": ("gateway/server/folder_events.py",),
    "iotcore": ("transport/embedded.py",),
    "msgspec": (
        "config/",
        "wire/",
        "operators/",
        "gateway/",
        "workers/",
        "conformance/",
        "cli/",
        "simulate/fleet.py",
    ),
    "xxhash": ("wire/", "gateway/", "conformance/"),
    "cv2": ("images/", "operators/"),
    # Besides: where pixels are cut, pasted and compared.
    "numpy": ("images/", "operators/", "gateway/", "agent/", "conformance/"),
}


def name_of(path: Path) -> str:
    """`core.geometry` for fogmqtt/core/geometry.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def imports(path: Path, *, typing_too: bool = True) -> tuple[str, ...]:
    """Every module that a file imports, inside functions too."""
    return tuple(_imports(path, typing_too))


def _imports(path: Path, typing_too: bool) -> Iterator[str]:
    tree = ast.parse(path.read_text("utf-8"))
    skipped = set() if typing_too else set(_typing_only(tree))
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _typing_only(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from ast.walk(node)


def ours(path: Path) -> Iterator[str]:
    """Our own modules that a file imports, without the package's name."""
    modules = {name_of(file) for file in FILES} - {""}
    names = {name.removeprefix("fogmqtt.") for name in imports(path) if name.startswith("fogmqtt.")}
    for name in sorted(names & modules):
        # `from fogmqtt.core import geometry` names core only on its way to the module.
        if not any(other.startswith(f"{name}.") for other in names & modules):
            yield name


def under(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_its_layer_may(path):
    layer = name_of(path).split(".")[0]
    if layer in EVERYTHING or not layer:
        return
    assert layer in MAY_IMPORT, f"{layer} is no layer; give it a row in MAY_IMPORT"
    allowed = MAY_IMPORT[layer] | {layer, "errors"}
    assert [name for name in ours(path) if not under(name, allowed)] == []


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=name_of)
def test_the_core_touches_nothing_of_the_world(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots & IMPURE == set()
    assert roots - set(sys.stdlib_module_names) - {"fogmqtt", ""} == set()


@pytest.mark.parametrize("package", sorted(PLACES))
def test_a_package_is_imported_only_in_its_places(package):
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path, typing_too=False))
    }
    assert {user for user in users if not user.startswith(PLACES[package])} == set()


def test_every_package_from_elsewhere_has_its_places():
    elsewhere = {name.split(".")[0] for path in FILES for name in imports(path)}
    assert elsewhere - set(sys.stdlib_module_names) - {"fogmqtt", ""} - set(PLACES) == set()


def test_a_device_starts_without_anything_heavy():
    code = "import sys, fogmqtt.cli.device, fogmqtt.agent.service; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"cv2", "numpy", "PIL", "rich", "fogmqtt.gateway", "fogmqtt.dashboard"}
    assert heavy & set(loaded) == set()
