"""`fog-gateway simulate`: its table, its verdict, its files and its refusals."""

import argparse
import io
import json

import pytest
from rich.console import Console

from fogmqtt.cli.simulate import run_simulation
from fogmqtt.cli.simulate_options import add_arguments
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import ConfigError, PipelineError, UsageError

FLEET = "devices: [{id: pi, count: 3, speed: 2e6}, {id: slow, speed: 1e5, workers: 2}]"


@pytest.fixture
def simulated(tmp_path, capsys):
    def run(*arguments, fleet=FLEET):
        (tmp_path / "fleet.yaml").write_text(fleet, "utf-8")
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        options = parser.parse_args(["--fleet", f"{tmp_path}/fleet.yaml", *arguments])
        shown = io.StringIO()
        code = run_simulation(GatewayConfig(), options, Console(file=shown, width=200))
        return code, shown.getvalue(), capsys.readouterr().out

    return run


def test_the_verdict_is_the_last_line(simulated):
    code, table, out = simulated("--pixels", "12e6", "--tiles", "size 512x512")
    assert code == 0
    assert out.startswith("makespan ")
    assert ", bound " in out
    assert ", ratio " in out
    assert table.splitlines()[0].split()[:3] == ["device", "tiles", "MP"]
    assert [line.split()[0] for line in table.splitlines()[1:5]] == ["pi-1", "pi-2", "pi-3", "slow"]


def test_json_is_for_programs(simulated):
    code, table, out = simulated("--pixels", "12e6", "--json", "--seed", "5")
    figures = json.loads(out)
    assert (code, table) == (0, "")
    assert figures["ratio"] == pytest.approx(figures["makespan_s"] / figures["bound_s"])
    assert (figures["seed"], figures["done"], figures["error"]) == (5, True, None)
    assert sum(device["tiles"] for device in figures["devices"]) > 0


def test_pictures_and_traces_are_written_where_asked(simulated, tmp_path):
    for name in ("out.svg", "out.png"):
        simulated("--pixels", "1e6", "--gantt", str(tmp_path / name))
    simulated("--pixels", "1e6", "--trace", str(tmp_path / "trace.json"))
    assert (tmp_path / "out.svg").read_text("utf-8").startswith("<svg")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "trace.json").read_text("utf-8"))["traceEvents"]


def test_a_large_fleet_shows_its_extremes(simulated):
    fleet = "devices: [{id: pi, count: 100, speed: [1e6, 5e6]}]"
    _, table, _ = simulated("--pixels", "50e6", fleet=fleet)
    assert sum(line.startswith("pi-") for line in table.splitlines()) == 40
    assert "60 more" in table


def test_a_job_that_cannot_end_is_a_failure(simulated):
    fleet = "devices: [{id: pi, speed: 1e6, faults: {crashes: [{at_s: 0.1}]}}]"
    code, _, out = simulated("--pixels", "4e6", fleet=fleet)
    assert code == 1
    assert out.startswith("job: not done")


def test_what_cannot_be_simulated_is_told_before_anything_runs(simulated, tmp_path):
    with pytest.raises(PipelineError, match="column 8"):
        simulated("--pixels", "1e6", "--pipeline", "gray | cany")
    with pytest.raises(ConfigError, match="none can do"):
        simulated("--pixels", "1e6", fleet="devices: [{id: a, speed: 1, operators: [gray]}]")
    with pytest.raises(UsageError, match="No such file"):
        simulated("--pixels", "1e6", "--gantt", str(tmp_path / "none" / "out.svg"))
    for wrong in (["--pixels", "0"], ["--pixels", "many"], ["--pixels", "1", "--gantt", "a.gif"]):
        with pytest.raises(SystemExit):
            simulated(*wrong)


def test_more_devices_are_told_beside_those_there_are(simulated):
    code, _, out = simulated("--pixels", "24e6", "--add", "2x8e6", "--add", "1xslow")
    before, after = out.splitlines()
    assert code == 0
    assert before.startswith("without 2x8e6, 1xslow: makespan ")
    assert after.startswith("with 2x8e6, 1xslow: makespan ")
    seconds = [float(line.split("makespan ")[1].split()[0]) for line in (before, after)]
    assert seconds[1] < seconds[0] / 2


def test_added_devices_have_lanes_and_figures_of_their_own(simulated):
    _, _, out = simulated("--pixels", "12e6", "--json", "--add", "2x2e6")
    figures = json.loads(out)
    assert [one["id"] for one in figures["devices"]][-2:] == ["added-1", "added-2"]
    assert figures["without_added_s"] > figures["makespan_s"]


def test_an_addition_is_a_speed_or_a_device(simulated):
    with pytest.raises(ConfigError, match=r"--add 2xslwo: .* did you mean slow\?"):
        simulated("--pixels", "12e6", "--add", "2xslwo")
    for wrong in ("5e6", "0x5e6", "2x", "x5e6", "-1x5e6"):
        with pytest.raises(SystemExit):
            simulated("--pixels", "12e6", f"--add={wrong}")
