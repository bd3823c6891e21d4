"""CONTRIBUTING.md: the operator and the image source that it shows work."""

from __future__ import annotations

import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fogmqtt.core.geometry import Rect
from fogmqtt.errors import ImageError
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.testing import check_tiled_equals_whole

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text("utf-8")
BLOCKS = [textwrap.dedent(one) for one in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)]
NOISE = np.random.default_rng(3).integers(0, 256, (101, 137, 3), np.uint8)


def block_with(text: str) -> str:
    (found,) = (block for block in BLOCKS if text in block)
    return found


@pytest.fixture
def operator_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "despeckle.py"
    path.write_text(block_with("class Despeckle"))
    registry.plug_in([str(path)])
    yield path
    registry.plug_in(())


@pytest.fixture
def mapped(tmp_path: Path) -> ModuleType:
    path = tmp_path / "mapped.py"
    path.write_text(block_with("class MappedImage"))
    spec = importlib.util.spec_from_file_location("mapped_of_the_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tiles_of_the_operator_equal_the_whole(operator_file: Path) -> None:
    for params in ({}, {"ksize": 9, "limit": 8}):
        check_tiled_equals_whole(registry.build("despeckle", params), NOISE)


def test_the_operator_passes_the_test_of_the_page(operator_file: Path) -> None:
    image = np.full((9, 9), 100, np.uint8)
    image[4, 4], image[1, 1] = 255, 130
    expected = image.copy()
    expected[4, 4] = 100
    assert np.array_equal(registry.build("despeckle", {"limit": 40}).process(image), expected)


def test_the_image_source_reads_rectangles(mapped: ModuleType, tmp_path: Path) -> None:
    np.save(tmp_path / "noise.npy", NOISE)
    image = mapped.MappedImage(tmp_path / "noise.npy")
    assert image.spec == Spec.of(NOISE)
    assert np.array_equal(image.read(Rect(10, 20, 30, 40)), NOISE[10:40, 20:60])
    with pytest.raises(ImageError, match="not within the image"):
        image.read(Rect(90, 0, 20, 10))


@pytest.mark.parametrize("content", [b"no image", b"", b"PK\x03\x04"])
def test_the_image_source_refuses_another_file(
    content: bytes, mapped: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "photo.npy").write_bytes(content)
    with pytest.raises(ImageError, match=r"photo\.npy: not a \.npy file"):
        mapped.MappedImage(tmp_path / "photo.npy")


@pytest.mark.parametrize("shape", [(9,), (0, 9), (9, 9, 1), (9, 9, 2), (9, 9, 3, 3)])
def test_the_image_source_refuses_what_is_no_image(
    shape: tuple[int, ...], mapped: ModuleType, tmp_path: Path
) -> None:
    np.save(tmp_path / "photo.npy", np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="expected a uint8 image"):
        mapped.MappedImage(tmp_path / "photo.npy")
