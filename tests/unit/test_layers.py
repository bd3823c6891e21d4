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

#: What gateway and agent are made of.
SHARED = {
    "core",
    "wire",
    "images",
    "operators",
    "workers",
    "conformance",
    "transport",
    "config",
    "log",
    "streams",
}
#: Layer → what it may import besides itself and errors. A new layer is refused until it is here.
MAY_IMPORT = {
    "errors": set(),
    "log": set(),
    "process_tuning": set(),
    "parent": set(),
    "core": set(),
    "wire": set(),
    "transport": {"parent", "process_tuning"},
    "images": {"core.geometry"},
    # The law of streams runs the real decisions about homes in virtual time.
    "operators": {"images", "core.geometry", "core.tiling", "core.streaming"},
    # Sources of frames, for a gateway and for a device with a camera.
    "streams": {
        "core.streaming",
        "images",
        "process_tuning",
        # Its processes are held as those of workers are.
        "workers.channel",
        "workers.child",
        "workers.exit_status",
        "workers.process",
    },
    # Values with their checks; whoever is configured takes them, and only cli loads them.
    "config": {
        "core.geometry",
        "core.scheduling.policy",
        "core.streaming.zones",
        "images.result_format",
        "streams.settings",
        "wire.messages",
        "wire.topics",
    },
    # Only its service simulates: see GATEWAY_MAY_IMPORT. A stream starts a process for its video.
    "gateway": SHARED | {"simulate", "parent"},
    "conformance": {
        "core.geometry",
        "images",
        "operators",
        "workers.memory_limit",
        "workers.exit_status",
        "workers.resources",
        "parent",
    },
    "workers": {
        "core.geometry",
        "core.streaming",
        "wire",
        "images",
        "operators",
        "parent",
        "process_tuning",
    },
    "agent": SHARED,
    # The Python API: a one-off gateway in a thread.
    "client": {
        "config",
        "core.geometry",
        "gateway.broker_link",
        "gateway.devices.registry",
        "gateway.jobs.model",
        "gateway.jobs.report",
        "gateway.thread_door",
        "gateway.threads",
        "images",
        "log",
        "operators.api",
        "setup",
        "transport",
        "wire.topics",
        "workers.resources",
    },
    # What the command line and programs do before a gateway or device runs.
    "setup": {
        "config",
        "conformance.runner",
        "gateway.broker_link",
        "operators.api",
        "transport",
        "wire.topics",
    },
    # A client of a gateway, which may run elsewhere: it has no pixels and nothing of the gateway.
    "dashboard": {"wire", "transport", "config", "log"},
    # Invitations and certificates, of both sides. Only `cli` starts it, and the idle agent has
    # nothing of it but its saved identity.
    # One more client of the broker, and a look at this machine.
    "doctor": {"config", "core.release", "log", "transport", "wire"},
    "joining": {
        "core.release",
        "log",
        "process_tuning",
        "transport.mosquitto_password",
        "wire.topics",
    },
    "simulate": {"core", "wire", "images", "operators", "transport", "config"},
}
#: Inside the gateway: server -> jobs -> execution -> devices. `storage` is reached through the
#: protocols of storage.api. `jobs.model` and what it is made of are data, which every part may
#: have. `app` builds the parts, so nothing imports it but the server, the thread door and cli.
TOOLS = {
    "gateway.background",
    "gateway.broker_health",
    "gateway.broker_link",
    "gateway.clock",
    "gateway.events",
    "gateway.metrics",
    "gateway.threads",
}
JOB_DATA = {
    "gateway.jobs.model",
    "gateway.jobs.report",
    "gateway.jobs.memory_budget",
    "gateway.jobs.trace",
    "gateway.jobs.trace_values",
}
GATEWAY_MAY_IMPORT = {
    "gateway.background": set(),
    "gateway.broker_health": set(),
    "gateway.broker_link": {"gateway.clock"},
    "gateway.clock": set(),
    "gateway.threads": set(),
    "gateway.events": {"gateway.jobs.report", "gateway.threads"},
    "gateway.metrics": {"gateway.clock", "gateway.jobs.trace", "gateway.jobs.trace_values"},
    "gateway.storage": {"gateway.clock"},
    "gateway.devices": TOOLS | {"gateway.jobs.report"},
    "gateway.execution": TOOLS | JOB_DATA | {"gateway.devices", "gateway.storage.api"},
    "gateway.jobs": TOOLS | {"gateway.execution", "gateway.devices", "gateway.storage.api"},
    # Frames are light stages for the dispatcher; beside jobs, and without knowing of them.
    "gateway.streams": TOOLS | JOB_DATA | {"gateway.devices", "gateway.execution"},
    "gateway.app": TOOLS
    | JOB_DATA
    | {"gateway.devices", "gateway.execution", "gateway.jobs", "gateway.streams"},
    # The gateway's side of dashboards: it knows the server by a protocol of its own.
    "gateway.service": TOOLS
    | JOB_DATA
    | {
        "gateway.app",
        "gateway.devices.compatibility",
        "gateway.devices.registry",
        "gateway.execution.live_stage",
        "gateway.jobs.trace_file",
        "gateway.storage",
    },
    # It gets the cards of gateway and devices by a protocol of its own.
    "gateway.home_assistant": TOOLS | {"gateway.app", "gateway.streams"},
    "gateway.server": TOOLS
    | JOB_DATA
    | {
        "gateway.app",
        "gateway.devices.status_publisher",
        "gateway.home_assistant",
        "gateway.service",
        "gateway.storage",
        "gateway.streams",
    },
    "gateway.thread_door": TOOLS | JOB_DATA | {"gateway.app", "gateway.devices.registry"},
}

#: Short modules with one importer that the plan of their folder names nevertheless: what they do
#: is looked for by its own name.
PLANNED = {
    "agent.host_info",
    "agent.memory_workers",
    "cli.adopt",
    "conformance.test_images",
    "core.scheduling.broker_outage",
    "doctor.network",
    "doctor.running_agent",
    "gateway.jobs.finalize",
    "gateway.server.config_checks",
    "gateway.service.files",
    "gateway.streams.retained",
    "gateway.streams.turns",
    "images.formats.heic",
    "images.formats.jpeg",
    "images.formats.webp",
    "operators.support.union_find",
    "simulate.link_model",
    "simulate.trace",
    "wire.states",
}
#: A module with one importer and fewer lines than this belongs to its importer.
SHORT = 60

#: The command line puts everything together.
EVERYTHING = {"cli"}

#: What would make the core depend on anything but its events.
IMPURE = {"asyncio", "logging", "os", "random", "socket", "threading", "time"}

#: Package → the places that may import it.
PLACES = {
    "paho": (
        "transport/paho.py",
        "transport/connection.py",
        "transport/fast_client.py",
        "transport/websocket_client.py",
    ),
    "yaml": ("config/text.py",),
    "PIL": ("images/",),
    "simplejpeg": ("images/formats/jpeg_check.py",),
    "tifffile": ("images/formats/", "images/encode.py"),
    "rich": ("cli/", "client/progress.py"),
    "tqdm": ("client/progress.py",),
    "dask": ("client/blocks.py",),
    "onnxruntime": ("operators/support/onnx_runtime.py",),
    "zxingcpp": ("operators/detection/code_readers.py",),
    "inotify_simple": ("gateway/server/folder_events.py",),
    "iotcore": ("transport/embedded.py",),
    # Classes of values, which are quick to define and to make; besides: what is encoded.
    "msgspec": (
        "core/",
        "transport/",
        "images/",
        "config/",
        "wire/",
        "operators/",
        "gateway/",
        "workers/",
        "conformance/",
        "cli/",
        "dashboard/",
        "joining/",
        "simulate/",
        "streams/",
    ),
    "starlette": ("dashboard/",),
    "uvicorn": ("dashboard/listener.py",),
    "h11": ("dashboard/listener.py",),
    "segno": ("cli/site_boards.py", "cli/dashboard.py", "cli/invite.py"),
    "shtab": ("cli/shell_files.py",),
    "cryptography": ("joining/authority.py",),
    "zeroconf": ("joining/mdns.py",),
    "ifaddr": ("joining/names.py",),
    "prometheus_client": ("dashboard/metrics.py",),
    "xxhash": ("wire/", "gateway/", "conformance/", "dashboard/uploads.py"),
    "cv2": ("images/", "operators/"),
    # Besides: where pixels are cut, pasted and compared.
    # FFmpeg: only in the processes of streams, since OpenCV has another one.
    "av": ("streams/",),
    "picamera2": ("streams/readers/picamera.py",),
    "numpy": ("images/", "operators/", "gateway/", "agent/", "conformance/", "streams/"),
}


@cache
def name_of(path: Path) -> str:
    """`core.geometry` for fogmqtt/core/geometry.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports(path: Path, *, typing_too: bool = True) -> tuple[str, ...]:
    """Every module that a file imports, inside functions too."""
    return tuple(_imports(path, typing_too))


def _imports(path: Path, typing_too: bool) -> Iterator[str]:
    tree = parsed(path)
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
        if (
            isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
        ):
            yield from ast.walk(node)


@cache
def modules() -> frozenset[str]:
    return frozenset(name_of(file) for file in FILES) - {""}


@cache
def ours(path: Path, *, typing_too: bool = True) -> tuple[str, ...]:
    """Our own modules that a file imports, without the package's name."""
    found = imports(path, typing_too=typing_too)
    names = {name.removeprefix("fogmqtt.") for name in found if name.startswith("fogmqtt.")}
    named = sorted(names & modules())
    # `from fogmqtt.core import geometry` names core only on its way to the module.
    return tuple(name for name in named if not any(other.startswith(f"{name}.") for other in named))


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


@pytest.mark.parametrize("path", sorted((PACKAGE / "gateway").rglob("*.py")), ids=name_of)
def test_a_part_of_the_gateway_imports_only_what_stands_below_it(path):
    name = name_of(path)
    if path.name == "__init__.py":
        return
    part = next((one for one in GATEWAY_MAY_IMPORT if under(name, {one})), None)
    assert part is not None, f"{name} is no part of the gateway; give it a row"
    allowed = GATEWAY_MAY_IMPORT[part] | {part}
    inside = [one for one in ours(path) if one.startswith("gateway.")]
    assert [one for one in inside if not under(one, allowed)] == []
    simulates = any(under(one, {"simulate"}) for one in ours(path))
    assert not simulates or part == "gateway.service"


def test_no_modules_import_each_other_in_a_circle():
    graph = {name_of(path): set(ours(path, typing_too=False)) for path in FILES}
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    # What is left imports something that is left: circles, and what depends on them.
    assert sorted(graph) == []


def test_a_short_module_with_one_importer_belongs_to_its_importer():
    importers: dict[str, set[str]] = {}
    for path in FILES:
        for name in ours(path):
            importers.setdefault(name, set()).add(name_of(path))
    alone = {
        name_of(path)
        for path in FILES
        if path.name != "__init__.py"
        and len(importers.get(name_of(path), ())) == 1
        and len(path.read_text("utf-8").splitlines()) < SHORT
    }
    assert alone - PLANNED == set(), "move it into its importer, or list it in PLANNED"


def test_no_public_class_has_the_name_of_another():
    classes: dict[str, list[str]] = {}
    for path in FILES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(name_of(path))
    assert {name: where for name, where in classes.items() if len(where) > 1} == {}


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=name_of)
def test_the_core_touches_nothing_of_the_world(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert roots & IMPURE == set()
    # Of msgspec, the core uses the class of values, which is quick to define and to make.
    assert roots - set(sys.stdlib_module_names) - {"fogmqtt", "msgspec", ""} == set()


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


def test_a_dashboard_starts_without_pixels_and_without_the_gateway():
    code = "import sys, fogmqtt.cli.dashboard, fogmqtt.dashboard.service; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"cv2", "numpy", "PIL", "rich", "fogmqtt.gateway", "fogmqtt.operators", "fogmqtt.agent"}
    assert heavy & set(loaded) == set()


def test_the_process_of_a_stream_starts_without_opencv():
    code = "import sys, fogmqtt.streams.process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"cv2", "asyncio", "PIL", "fogmqtt.gateway", "fogmqtt.agent"} & set(loaded) == set()


def test_a_stream_is_watched_without_pixels_and_without_ffmpeg():
    code = "import sys, fogmqtt.streams.supervisor; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"av", "cv2", "numpy", "asyncio"} & set(loaded) == set()


def test_a_device_starts_without_anything_heavy():
    code = "import sys, fogmqtt.cli.agent, fogmqtt.cli.device; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"asyncio", "cv2", "numpy", "PIL", "rich", "fogmqtt.gateway"}
    joining = {"cryptography", "zeroconf", "ifaddr", "fogmqtt.joining.bundle"}
    assert (heavy | joining) & set(loaded) == set()
