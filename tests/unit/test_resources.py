"""The cores that a process may use, in containers and on odd systems. The trees are made up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fogmqtt.workers import memory_limit, resources


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "cgroup"


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("300000 50000", 6),
        ("garbage", 8),
        ("100000 0", 8),
    ],
)
def test_a_quota_of_version_2_is_rounded_down(
    tmp_path: Path, own: Path, quota: str, cores: int
) -> None:
    own.write_text("0::/pod\n")
    write(tmp_path / "pod", cpu__max=quota)
    assert resources.cores(own, tmp_path) == cores


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 2), ("20000", 1)])
def test_a_quota_of_version_1_counts_wherever_it_is_mounted(
    tmp_path: Path, own: Path, folder: str, quota: str, cores: int
) -> None:
    own.write_text("4:memory:/docker/a1\n3:cpu,cpuacct:/docker/a1\n")
    group = tmp_path / folder / "docker" / "a1"
    write(group, cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert resources.cores(own, tmp_path) == cores


def test_the_lowest_quota_of_all_groups_around_us_counts(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/slice/service\n")
    write(tmp_path / "slice" / "service", cpu__max="600000 100000")
    write(tmp_path / "slice", cpu__max="300000 100000")
    assert resources.cores(own, tmp_path) == 3


def test_a_container_that_sees_itself_as_the_root_has_its_quota(tmp_path: Path, own: Path) -> None:
    own.write_text("0::/\n")
    write(tmp_path, cpu__max="200000 100000")
    assert resources.cores(own, tmp_path) == 2
    own.write_text("3:cpu,cpuacct:/docker/that/is/not/visible/here\n")
    (tmp_path / "cpu.max").unlink()
    write(tmp_path / "cpu,cpuacct", cpu__cfs_quota_us="300000", cpu__cfs_period_us="100000")
    assert resources.cores(own, tmp_path) == 3


def test_both_versions_may_be_mounted(tmp_path: Path, own: Path) -> None:
    own.write_text("1:cpu:/\n0::/pod\n")
    write(tmp_path / "unified" / "pod", cpu__max="500000 100000")
    assert resources.cores(own, tmp_path) == 5


def test_without_procfs_the_quota_of_the_root_counts(tmp_path: Path, own: Path) -> None:
    write(tmp_path, cpu__max="200000 100000", memory__max=str(300 << 20))
    assert resources.cores(own, tmp_path) == 2
    assert resources.memory_mb(own, tmp_path) == 300


def test_without_any_file_the_affinity_counts_and_elsewhere_all_cores(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resources.cores(own, tmp_path) == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert resources.cores(own, tmp_path) == 6


def test_a_system_that_does_not_tell_its_memory_has_2_gb(
    tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PAGESIZE": 4096, "SC_PHYS_PAGES": -1}.get)
    assert resources.memory_mb(own, tmp_path) == 2048


def test_without_procfs_the_memory_of_operators_is_not_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_limit, "_STATM", tmp_path / "missing")
    limit = memory_limit.MemoryLimit(256)
    assert memory_limit.data_bytes() == 0
    assert not limit.is_nearly_used_up()
    with limit.lifted():
        pass
