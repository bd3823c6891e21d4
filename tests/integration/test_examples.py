"""The example operators, as an installed package and as files that the configurations name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from fogmqtt.images.spec import Image
from tests.processes import Fog, Program, photo, private_fog, read, same

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/operators"
NAMES = ("brightest", "emboss", "solarize")


def install(site: Path) -> None:
    """What pip makes of the package."""
    shutil.copytree(EXAMPLES / "fog_examples", site / "fog_examples")
    project = tomllib.loads((EXAMPLES / "pyproject.toml").read_text("utf-8"))["project"]
    info = site / f"fog_examples-{project['version']}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    for group, entries in project["entry-points"].items():
        lines = (f"{name} = {value}" for name, value in entries.items())
        info.joinpath("entry_points.txt").write_text("\n".join((f"[{group}]", *lines)))


def with_files(fog: Fog) -> Program:
    """A device whose configuration names files beside it, and the same for gateways."""
    ops = fog.folder / "board" / "ops"
    shutil.copytree(EXAMPLES / "fog_examples", ops)
    files = [f"ops/{name}.py" for name in NAMES]
    config = ops.parent / "eya.yaml"
    config.write_text(f"plugins: {json.dumps(files)}")
    fog.settings["PLUGINS"] = ", ".join(f"board/{file}" for file in files)
    return fog.device("eya", "--config", str(config))


@pytest.fixture(scope="module", params=["installed", "files"])
def fog(
    broker: object, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fog]:
    del broker
    with private_fog(tmp_path_factory.mktemp("fog")) as made:
        if request.param == "installed":
            install(made.folder / "site")
            made.path = str(made.folder / "site")
            device = made.device("eya")
        else:
            device = with_files(made)
        device.says("eya is online")
        made.save("photo.png", photo())
        yield made


def run(fog: Fog, pipeline: str) -> Image:
    photo = fog.folder / "photo.png"
    ran = fog.run(photo, "-o", "out.png", "--tiles", "grid 4x3", "--pipeline", pipeline)
    assert ran.report["devices"]["eya"]["tiles"] == 12
    return read(fog.folder / "out.png")


def test_a_local_operator_is_exact_on_devices(fog: Fog) -> None:
    slope = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)
    assert same(run(fog, "emboss"), cv2.filter2D(photo(), -1, slope, delta=128))


def test_a_global_operator_knows_the_whole_image_on_devices(fog: Fog) -> None:
    image = photo()
    expected = np.where(image > int(image.mean()), 255 - image, image)
    assert same(run(fog, "solarize"), expected)


def test_a_measuring_operator_gives_facts_of_the_whole_image(fog: Fog) -> None:
    gray = cv2.cvtColor(photo(), cv2.COLOR_BGR2GRAY)
    row, column = np.unravel_index(np.argmax(gray), gray.shape)
    image = fog.folder / "photo.png"
    ran = fog.run(image, "--tiles", "grid 4x3", "--pipeline", "gray | brightest")
    assert json.loads(ran.out) == {"value": gray.max(), "row": row, "column": column}


def test_a_device_announces_where_they_come_from(fog: Fog) -> None:
    listed = json.loads(fog.command("devices", "--json").stdout)["eya"]
    assert set(NAMES) <= set(listed["operators"])
    assert "problems" not in listed
    assert {"fog-examples", "emboss.py"} & listed["versions"].keys()


def test_a_device_lives_with_plug_ins_that_are_missing_or_broken_and_says_so(
    lone_fog: Fog,
) -> None:
    emboss = str(EXAMPLES / "fog_examples/emboss.py")
    (lone_fog.folder / "broken.py").write_text("1 / 0")
    lone_fog.device("oumayma", PLUGINS=emboss).says("oumayma is online")
    lone_fog.device("eya", PLUGINS="no_such_ops, ghost.py, broken.py").says("eya is online")
    lone_fog.examined()
    image = lone_fog.save("photo.png", photo(120, 160))
    plain = lone_fog.run(
        image, "-o", "out.png", "--pipeline", "gray | canny", "--tiles", "grid 4x4"
    )
    assert set(plain.report["devices"]) == {"eya", "oumayma"}
    ran = lone_fog.run(
        image, "-o", "out.png", "--pipeline", "emboss", "--tiles", "grid 4x4", PLUGINS=emboss
    )
    assert ran.report["devices"].keys() == {"oumayma"}, "tiles for a device without the operator"
    said = lone_fog.command("devices").stdout
    assert "eya: plug-in no_such_ops cannot be imported: ModuleNotFoundError" in said
    assert "ghost.py cannot be imported: FileNotFoundError" in said
    assert "broken.py cannot be imported: ZeroDivisionError: division by zero" in said


def test_a_gateway_does_not_start_without_a_plug_in_that_it_was_told_of(lone_fog: Fog) -> None:
    config = lone_fog.folder / "fog.yaml"
    config.write_text("plugins: [ops/ghost.py]")
    refused = lone_fog.command("--config", str(config), "operators")
    assert refused.returncode == 2
    assert f"fog.yaml: plugins: there is no file {config.parent / 'ops/ghost.py'}" in refused.stderr


def test_the_examples_own_tests_pass() -> None:
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "pyproject.toml"],
        cwd=EXAMPLES,
        check=True,
        timeout=100,
    )
