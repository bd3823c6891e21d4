"""What `fog-gateway` says of a pipeline that is wrong, before it looks for a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from fogmqtt.cli.gateway import main

CONFIGURED = """
pipelines:
  edges: gray | canny low=50 high=150
  blurred: gray | gaussian ksize=4
"""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("edgs", "no pipeline or operator is called 'edgs'; did you mean 'edges'?"),
        ("cany", "no pipeline or operator is called 'cany'; did you mean 'canny'?"),
        ("blurred", "pipelines.blurred: column 17: gaussian: ksize=4: expected an odd number"),
        ("gray | cany", "column 8: no operator is called 'cany'; did you mean 'canny'?"),
        ("gray | canny high=x", "column 14: canny: high=x: expected `float`, got `str`"),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify", "explain"])
def test_a_wrong_name_or_word_is_told_with_its_place_and_the_nearest(
    command: str, asked: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, photo = tmp_path / "config.yaml", tmp_path / "photo.png"
    config.write_text(CONFIGURED, "utf-8")
    arguments = {
        "run": ["run", str(photo), "-o", str(tmp_path / "out.png"), "--pipeline", asked],
        "verify": ["verify", str(photo), "--pipeline", asked],
        "explain": ["explain", asked, str(photo)],
    }
    assert main(["--config", str(config), *arguments[command]]) == 2
    assert message in capsys.readouterr().err
