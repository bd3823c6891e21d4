"""What `fog-gateway` says of a pipeline that is wrong, before it looks for a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from fogmqtt.cli.gateway import main
from fogmqtt.cli.run import RunOptions

CONFIGURED = """
priorities: {edges: 2}
pipelines:
  edges: gray | canny low=50 high=150
  blurred: gray | gaussian ksize=4
"""


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("edgs", "no pipeline or operator is called 'edgs'; did you mean 'edges'?"),
        ("knn", "there is no operator 'knn': OpenCV's KNN background draws random numbers"),
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
        "explain": ["explain", str(photo), "--pipeline", asked],
    }
    assert main(["--config", str(config), *arguments[command]]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "priority"),
    [
        ([], 2),
        (["--pipeline", "edges"], 2),
        (["--pipeline", "invert"], 0),
        (["--priority", "-4"], -4),
        (["--pipeline", "invert", "--priority", "4"], 4),
    ],
)
def test_a_one_off_job_has_the_priority_asked_for_or_else_its_pipelines(
    asked: list[str], priority: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = tmp_path / "config.yaml", []

    def run(config: object, options: RunOptions, decoders: object) -> list[object]:
        seen.append(options.priority)
        return []

    config.write_text(CONFIGURED, "utf-8")
    monkeypatch.setattr("fogmqtt.cli.run.run", run)
    assert main(["--config", str(config), "run", "in.png", "-o", "out.png", *asked]) == 0
    assert seen == [priority]


@pytest.mark.parametrize("wrong", ["5", "-5", "1.5", "high"])
def test_a_priority_out_of_range_is_a_usage_error(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "in.png", "-o", "out.png", "--priority", wrong])
    assert ended.value.code == 2
    assert "--priority" in capsys.readouterr().err
