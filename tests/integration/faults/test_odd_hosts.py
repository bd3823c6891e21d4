"""Containers and odd hosts: an agent and a gateway start and do a job where much is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fog import need, wait_for
from tests.processes import PATIENCE_S, Fog, edges_of, photo, private_fog, read, same

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[3]
#: A user that /etc/passwd does not know, as containers run under.
ANY_USER = ("unshare", "--user", "--map-user=12345", "--map-group=12345")
#: Only the folder `$1` can be written; there is no /proc, no /dev/shm and no control group.
BARE = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
for folder in /sys/fs/cgroup /dev/shm; do
  mount --bind "$2" "$folder"
  mount -o remount,ro,bind "$folder"
done
mount -o remount,ro,bind /
umount -l /proc
for folder in /tmp /dev/shm; do
  if touch "$folder/probe" 2>/dev/null; then echo "$folder can be written" >&2; exit 9; fi
done
test ! -e /proc/self
cd /
shift 2
exec "$@"
"""
#: What macOS lacks: memory files, an affinity, the file systems of Linux and its packages.
MACOS = """
import os, sys
sys.platform = "darwin"
for name in ("memfd_create", "sched_getaffinity", "posix_fallocate"):
    delattr(os, name)
sys.modules["inotify_simple"] = None
sys.modules["_scproxy"] = scproxy = type(sys)("_scproxy")  # a module of Python for macOS
scproxy._get_proxy_settings = scproxy._get_proxies = dict
from pathlib import Path
from fogmqtt.conformance import identity
from fogmqtt.workers import memory_limit, resources
for module, name in (
    (identity, "_CPUINFO"), (memory_limit, "_STATM"), (resources, "_BOOT_ID"),
    (resources, "_OWN_GROUPS"), (resources, "_GROUPS"),
):
    assert hasattr(module, name)
    setattr(module, name, Path("/nothing/here"))
"""


@pytest.fixture(scope="module")
def site(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker
    with private_fog(tmp_path_factory.mktemp("site")) as made:
        yield made


def environment(fog: Fog) -> dict[str, str]:
    """No HOME, no TMPDIR, no user: only what the programs must have."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": fog.path,
        "PYTHONDONTWRITEBYTECODE": "1",
        "FOGMQTT_BROKER__URL": fog.broker.url,
        "FOGMQTT_BROKER__EMBEDDED": "never",
        "FOGMQTT_GATEWAY__LOCAL": "never",
        "FOGMQTT_DEVICE__WORKERS": "1",
        "FOGMQTT_DEVICE__ISOLATE": "always",
        "FOGMQTT_LIMITS__MAX_PIXELS": "10000000",
    }


def does_a_job(fog: Fog, folder: Path, *wrapper: str, python: str = "") -> str:
    """Run an agent and `fog-gateway run` behind this command; returns what both said."""
    image, out, log = fog.save("in.jpg", photo()), folder / "out.png", fog.folder / "device.log"
    image = Path(shutil.copy(image, folder))

    def command(module: str, *arguments: str) -> list[str]:
        code = f"{python}\nimport sys; from {module} import main; sys.exit(main())"
        return [*wrapper, sys.executable, "-c", code, *arguments]

    with log.open("wb") as said:
        device = subprocess.Popen(
            command("fogmqtt.cli.device", "--id", "eya"),
            env=environment(fog),
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(
            lambda: b"eya is online" in log.read_bytes() or device.poll() is not None,
            within=PATIENCE_S,
            what="the agent",
        )
        assert device.poll() is None, log.read_text()
        run = ("run", str(image), "-o", str(out), "--tiles", "grid 2x2", "--verify")
        ran = subprocess.run(
            command("fogmqtt.cli.gateway", *run),
            env=environment(fog),
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
    finally:
        device.terminate()
        device.wait(PATIENCE_S)
    told = log.read_text() + ran.stderr
    assert ran.returncode == 0, told
    assert "Traceback" not in told, told
    assert same(read(out), edges_of(image))
    return told


def test_under_any_uid_without_a_home(site: Fog, tmp_path: Path) -> None:
    need(shutil.which("unshare") and os.geteuid() == 0, "unshare, and root", "run it as root")
    does_a_job(site, tmp_path, *ANY_USER)


def test_on_a_read_only_root_without_procfs_and_shared_memory(site: Fog, tmp_path: Path) -> None:
    need(shutil.which("unshare") and os.geteuid() == 0, "unshare, and root", "run it as root")
    work, empty = tmp_path / "work", tmp_path / "empty"
    work.mkdir()
    empty.mkdir()
    wrapper = ("unshare", "--mount", "sh", "-c", BARE, "sh", str(work), str(empty))
    told = does_a_job(site, work, *wrapper)
    # The report of the operators is made again at every start, which the log says once.
    assert told.count("operators will be checked at every start") <= 2


def test_with_what_macos_has(site: Fog, tmp_path: Path) -> None:
    does_a_job(site, tmp_path, python=MACOS)
