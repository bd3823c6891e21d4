"""Builds and runs the container files without a container engine: folders, `chroot` and `unshare`.

The steps of `containers/Dockerfile` run in a Debian that debootstrap unpacks. What runs then has
what a container has: a root that cannot be written, processes of its own, one folder that is kept,
a user without a name, and no capabilities. It shares the network, as compose.yaml says. It needs
root.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.fog import wait_for

ROOT: Final = Path(__file__).parents[1]
#: A user that the images do not know.
USER: Final = 54_321
#: What a build needs of this machine to reach Debian's packages and those of Python.
_NETWORK: Final = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
_STEP: Final = """
mount -t proc proc "$0/proc"
exec chroot "$0" env -i "$@"
"""
_START: Final = f"""
set -e
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t tmpfs tmp "$0/tmp"
mount --bind "$1" "$0/fog"
mount -o remount,bind,ro "$0"
shift
exec chroot "$0" setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs \\
    --bounding-set=-all env -i -C /fog "$@"
"""


@dataclass
class ContainerImage:
    """A built stage: its folder, and what its instructions say of programs that run in it."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    user: str = "0"
    workdir: str = "/"

    @property
    def assignments(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.environment.items()]


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile: a word, and what follows it."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), rest.strip()


def debian(folder: Path) -> Path:
    """Return a minimal Debian 12, which is unpacked once and kept."""
    system = folder / "debian"
    if not system.exists():
        unpacked(folder / "debian.part", "bookworm").rename(system)
    return system


def unpacked(folder: Path, suite: str, packages: Sequence[str] = ()) -> Path:
    """Unpack a minimal Debian with some packages to a folder, and return it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    more = [f"--include={','.join(packages)}"] if packages else []
    command = ["debootstrap", "--variant=minbase", *more, suite, str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def build(dockerfile: Path, base: Path, place: Path) -> dict[str, ContainerImage]:
    """Run the steps of a Dockerfile; returns the stages by their names."""
    stages: dict[str, ContainerImage] = {}
    image = ContainerImage(base)
    for word, rest in instructions(dockerfile.read_text("utf-8")):
        if word == "FROM":
            origin, _, name = rest.partition(" AS ")
            image = _stage(stages.get(origin, ContainerImage(base)), place / name)
            stages[name] = image
        else:
            _do(image, stages, word, rest)
    return stages


def _stage(origin: ContainerImage, folder: Path) -> ContainerImage:
    # Links to the files of the origin: packages replace files, and write into none.
    subprocess.run(["cp", "-al", origin.folder, folder], check=True)
    return ContainerImage(
        folder,
        dict(origin.environment),
        origin.entrypoint,
        origin.health,
        origin.user,
        origin.workdir,
    )


def _do(image: ContainerImage, stages: Mapping[str, ContainerImage], word: str, rest: str) -> None:
    match word:
        case "RUN":
            run_step(image, rest)
        case "COPY":
            _copy(image, stages, shlex.split(rest))
        case "ENV":
            image.environment |= dict(one.split("=", 1) for one in shlex.split(rest))
        case "WORKDIR":
            image.workdir = rest
            (image.folder / rest[1:]).mkdir(parents=True, exist_ok=True)
        case "USER":
            image.user = rest
        case "ENTRYPOINT":
            image.entrypoint = tuple(json.loads(rest))
        case "HEALTHCHECK":
            image.health = tuple(json.loads(rest.partition("CMD ")[2]))
        case "ARG" | "VOLUME":
            pass
        case _:
            raise ValueError(f"no such instruction here: {word} {rest}")


def _bring_network(folder: Path) -> None:
    """Copy what a build needs of this machine: a package may have replaced it a step before."""
    for name in _NETWORK:
        if Path(name).exists():
            (folder / name[1:]).unlink(missing_ok=True)
            (folder / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, folder / name[1:])


def run_step(image: ContainerImage, command: str) -> None:
    """Run a command in a folder that becomes an image."""
    _bring_network(image.folder)
    network = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("PIP_")]
    words = [
        *(f"PATH={os.defpath}:/usr/sbin:/sbin", "DEBIAN_FRONTEND=noninteractive", *network),
        *image.assignments,
        *("sh", "-ec", f"cd {image.workdir} && {command}"),
    ]
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", _STEP, image.folder, *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"


def _copy(
    image: ContainerImage, stages: Mapping[str, ContainerImage], words: Sequence[str]
) -> None:
    flags = dict(one[2:].split("=", 1) for one in words if one.startswith("--"))
    *sources, target = [one for one in words if not one.startswith("--")]
    origin = stages[flags["from"]].folder if "from" in flags else ROOT
    into = image.folder / (Path(image.workdir) / target).as_posix()[1:]
    for source in sources:
        path = origin / source.removeprefix("/")
        if path.is_dir():
            shutil.copytree(path, into, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            continue
        made = into / path.name if target.endswith("/") else into
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, made)
        if "chmod" in flags:
            made.chmod(int(flags["chmod"], 8))


def start_command(
    image: ContainerImage, kept: Path, words: Sequence[str], beside: int | None = None
) -> list[str]:
    """Return the command that runs words in an image; `beside` is a process whose ones it sees."""
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if beside is not None:
        apart = ["nsenter", "--target", str(beside), "--pid", "unshare", "--mount"]
    return [
        *apart,
        *("sh", "-c", _START, str(image.folder), str(kept), *image.assignments, *words),
    ]


def first_process(of: int) -> int:
    """Return the process that is number 1 in the container that this one starts."""
    started = psutil.Process(of)
    wait_for(started.children, what="a process in a container")
    return int(started.children()[0].pid)


def health(image: ContainerImage, process: int, words: Sequence[str]) -> int:
    """Return the exit code of a health check in the container of a process."""
    command = [
        *("nsenter", "--target", str(process), "--mount", "--pid", "--root", "--wd"),
        *("--setuid", str(USER), "--setgid", str(USER), "env", "-i", *image.assignments, *words),
    ]
    return subprocess.run(command, check=False, capture_output=True).returncode
