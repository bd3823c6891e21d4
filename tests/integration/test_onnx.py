"""Devices run a model by ONNX Runtime, and one without the package gets none of its tiles."""

from __future__ import annotations

import json

import pytest

from tests.networks import SIDE, WINDOW, squares
from tests.processes import Fog, photo

pytestmark = [pytest.mark.timeout(240), pytest.mark.proof]


def test_a_device_with_the_extra_does_all_tiles_beside_one_without(
    lone_fog: Fog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # Here, nothing but a module that cannot be imported has the package's name.
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "onnxruntime.py").write_text("raise ImportError('not here')")
    with_it = lone_fog.device("eya")
    path = lone_fog.path
    lone_fog.path = f"{elsewhere}:{path}"
    without = lone_fog.device("manar")
    lone_fog.path = path
    for name, device in (("eya", with_it), ("manar", without)):
        device.says(f"{name} is online")
    lone_fog.examined()

    (lone_fog.folder / "models").mkdir()
    sha256 = squares(lone_fog.folder / "models/split.onnx", weights="split.onnx.data")
    image = photo(400, 500) // 4 + 64
    image[201 : 201 + SIDE, 249 : 249 + SIDE] = 255
    picture = lone_fog.save("in.png", image)
    pipeline = f"dnn model=split.onnx sha256={sha256} engine=onnx window={WINDOW} score=0.4"
    ran = lone_fog.run(
        picture, "--pipeline", pipeline, "--tiles", "grid 2x2", "--verify", "-o", "out.json"
    )
    assert ran.report["devices"].keys() == {"eya"}
    facts = json.loads((lone_fog.folder / "out.json").read_text())
    assert [249.0, 201.0, 8.0, 8.0] in [one["box"] for one in facts["objects"]]
