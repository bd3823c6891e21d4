"""The house is in order: versions agree, and the shipped scripts and files can be used."""

import os
import re
import subprocess
from pathlib import Path

import pytest

import fogmqtt
from tests.unit.conftest import SLOW

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path
    for path in (
        *(ROOT / "devices").glob("*.sh"),
        *(ROOT / "broker").glob("*.sh"),
        ROOT / ".ci/run",
    )
    if path.is_file()
)


def test_the_slow_modules_that_are_named_exist():
    folder = Path(__file__).parent
    assert [name for name in SLOW if not (folder / f"{name}.py").exists()] == []


def test_the_changelogs_newest_version_is_the_packages():
    versions = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert versions[0] == fogmqtt.__version__


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shipped_script_is_executable_and_parses(script):
    assert os.access(script, os.X_OK)
    shell = script.read_text("utf-8").splitlines()[0].split("/")[-1].split()[-1]
    subprocess.run([shell, "-n", script], check=True)
