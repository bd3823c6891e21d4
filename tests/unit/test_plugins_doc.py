"""docs/plugins.md: its operator works, and fails as documented without its halo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fogmqtt.errors import OperatorError
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.testing import check_tiled_equals_whole

DOC = (Path(__file__).parents[2] / "docs/plugins.md").read_text("utf-8")
OPERATOR = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)[0]
NOISE = np.random.default_rng(3).integers(0, 256, (101, 137), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    registry.plug_in(())


def plug_in(folder: Path, text: str) -> None:
    (folder / "soften.py").write_text(text)
    registry.plug_in([str(folder / "soften.py")])


def test_the_documented_operator_gives_the_same_result_in_tiles(folder: Path) -> None:
    plug_in(folder, OPERATOR)
    check_tiled_equals_whole(registry.build("soften", {}), NOISE)
    check_tiled_equals_whole((registry.build("soften", {}), registry.build("canny", {})), NOISE)


def test_without_its_halo_the_check_fails_with_the_documented_text(folder: Path) -> None:
    plug_in(folder, OPERATOR.replace("= 1", "= 0"))
    with pytest.raises(OperatorError) as broken:
        check_tiled_equals_whole(registry.build("soften", {}), NOISE)
    text = re.sub(r"cut by [^:]*:", "cut by …:", str(broken.value))
    text = re.sub(r"in \d+ pixels within [^;]*; ", "in … pixels within …;\n", text)
    assert text in DOC


def test_an_operator_that_changes_its_tile_fails_the_check(folder: Path) -> None:
    plug_in(folder, OPERATOR.replace("return ", "image[0] = 0; return "))
    with pytest.raises(ValueError, match="read-only"):
        check_tiled_equals_whole(registry.build("soften", {}), NOISE)


def test_an_operator_with_state_outside_its_fields_fails_the_check(folder: Path) -> None:
    hidden = "calls: int = field(default=0, init=False)\n"
    text = OPERATOR.replace("import dataclass", "import dataclass, field").replace(
        "    halo:", f"    begins_stage = True\n    {hidden}    halo:"
    )
    text += """
    def prepare(self, image, original):
        object.__setattr__(self, "calls", 1)
        return self
"""
    plug_in(folder, text)
    with pytest.raises(OperatorError, match="all of an operator's state must be in its fields"):
        check_tiled_equals_whole(registry.build("soften", {}), NOISE)
