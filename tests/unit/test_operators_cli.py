"""`fog-gateway operators`: descriptions of operators for people and programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.cli.gateway import main
from fogmqtt.cli.operators import as_markdown
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.describe import describe

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/operators/fog_examples"


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("COLUMNS", "80")
    yield
    registry.plug_in(())


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["operators", *arguments]) == 0
    return capsys.readouterr().out


def test_the_list_has_every_operator_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output_of(capsys).splitlines()
    assert max(map(len, lines)) <= 80
    assert set(registry.names()) <= {line.partition(" ")[0] for line in lines}


def test_the_list_shows_images_and_exactness(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {line.split(" ")[0]: line.split() for line in output_of(capsys).splitlines() if line}
    assert rows["median"] == ["median", "ksize=5", "8", "16", "f32", "exact"]
    assert rows["otsu"][-4:] == ["gray", "8", "16", "exact"]
    assert rows["flip"][-1] == "gateway"
    assert rows["histogram"][-1] == "facts"
    assert rows["bilateral"][-2:] == ["exact", "*"]


def test_the_list_explains_float_arithmetic(capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(output_of(capsys).split())
    assert "* bilateral: float arithmetic, as this OpenCV build and processor round" in out
    for name in ("gaussian", "hsv", "sobel", "adaptive", "codes", "dnn"):
        assert describe(name).exact != "exact"


def test_the_help_of_one_operator_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    out = output_of(capsys, "canny")
    for line in (
        "canny low=50 high=150 aperture=3 l2=false",
        "low, high : float; default 50, 150",
        "Takes: gray uint8; colour uint8",
        "Exactness: exact",
        "Halo: 2 pixels with these defaults",
        f"From: fogmqtt {registry.origin('canny').version}",
    ):
        assert line in out.splitlines()
    assert max(map(len, out.splitlines())) <= 80


def test_the_help_of_an_operator_with_memory_names_the_command_for_streams(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = output_of(capsys, "median_of")
    assert "Memory: 4 frames with these defaults; runs on streams only" in out
    assert "Example: fog-gateway stream rtsp://camera/live --pipeline" in out
    assert "Memory: 8 bytes for each gray pixel" in output_of(capsys, "background")


def test_every_operator_has_a_summary_and_an_example() -> None:
    for name in registry.names():
        described = describe(name)
        assert described.summary
        assert "…" in described.example or name in described.example


def test_an_unknown_operator_gives_the_most_similar_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["operators", "cany"]) == 2
    assert "did you mean 'canny'" in capsys.readouterr().err


def test_json_has_the_same_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(output_of(capsys, "--json"))
    canny = next(one for one in found["operators"] if one["name"] == "canny")
    assert canny["parameters"]["aperture"] == {"type": "int", "default": "3"}
    assert canny["takes"] == {"gray": ["uint8"], "colour": ["uint8"]}
    assert (canny["exact"], canny["tiled"], canny["halo"]) == ("exact", True, 2)
    assert found["problems"] == []
    assert json.loads(output_of(capsys, "canny", "--json")) == canny


def test_plug_ins_are_listed_with_their_file_and_their_problems(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    monkeypatch.setenv("FOGMQTT_PLUGINS", f"{EXAMPLES / 'emboss.py'}, {broken}")
    monkeypatch.setenv("COLUMNS", "500")  # no path is broken over two lines
    out = output_of(capsys)
    assert "from emboss.py" in out
    assert f"skipped: plug-in {broken} cannot be imported: ZeroDivisionError" in out


def test_the_documentation_lists_the_operators_as_they_are() -> None:
    text = (ROOT / "docs/operators.md").read_text("utf-8")
    assert text == as_markdown(), "run: fog-gateway operators --markdown > docs/operators.md"
