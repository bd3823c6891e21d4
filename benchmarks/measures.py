"""The figures by which fogmqtt is judged, each with the value that it must reach."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import ExitStack

import bench_fleets
import bench_idle
import bench_memory
import bench_start
from bench_systems import Rounds, measure, print_rows, started
from compare import compare
from cpu_time import CpuTime
from emulated import CASES, Case
from judge import Goal, Measured
from photo import HALO
from revision import NoRevision
from system import PEERS, missing

#: The revision whose CPU time for 100 MP ours is compared with.
OLD = "4af56b5"


GOALS = {
    "invert ÷ bare": Goal("24 MP invert, wall ÷ bare paho with the same tiles", 1.3),
    "invert ÷ dask": Goal("24 MP invert, wall ÷ Dask", 0.9),
    "canny ÷ dask": Goal("24 MP canny, wall ÷ Dask, whose result is wrong", 1.0),
    "invert cpu ÷ bare": Goal("24 MP invert, CPU-seconds ÷ bare paho with the same tiles", None),
    "canny cpu ÷ bare": Goal("24 MP canny, CPU-seconds ÷ bare paho and cv2.Canny", None),
    "invert cpu ÷ old": Goal(f"100 MP invert, CPU-seconds ÷ {OLD}", 0.55),
    "canny cpu ÷ old": Goal(f"100 MP canny, CPU-seconds ÷ {OLD}", 0.7),
    "eight, fast": Goal("eight devices of up to 20 MP/s, makespan ÷ ideal", 1.25),
    "eight": Goal("eight devices of up to 5 MP/s, makespan ÷ ideal", 1.05),
    "eight, one killed": Goal("eight devices of up to 5 MP/s, one killed, makespan ÷ ideal", 1.08),
    "met eight, fast": Goal("eight of up to 20 MP/s, first job of a gateway, warm ÷ ideal", 1.6),
    "met eight": Goal("eight of up to 5 MP/s, first job of a gateway, warm ÷ ideal", 1.15),
    "cold eight, fast": Goal(
        "eight of up to 20 MP/s, first job of a fleet up for 5 s ÷ ideal", 2.75
    ),
    "cold eight": Goal("eight of up to 5 MP/s, first job of a fleet up for 5 s ÷ ideal", 1.44),
    "64 random": Goal("64 devices, 400 MP, makespan ÷ ideal", 1.25),
    "idle MB": Goal("idle agent, MB resident", 32),
    "online s": Goal("agent, seconds from start to online", 0.3),
    "start s": Goal("`fog-gateway run`, seconds from start to first tile sent", 0.5),
    "gateway MB": Goal("gateway, MB at peak beyond input and output, 100 MP, worst mode", 64),
}


def systems(rounds: int = 7) -> Measured:
    """Measure 24 MP on three devices beside bare paho and the peers that are installed."""
    names = ["fog", "bare", "bare+work", *PEERS]
    measured = Measured(remarks=[remark for name in names if (remark := missing(name))])
    with ExitStack() as stack:
        systems = [started(stack, name) for name in names if not missing(name)]
        for pipeline in HALO:
            rows = measure(systems, pipeline, 24, rounds)
            print_rows(rows, pipeline, 24)
            _add_systems(measured, pipeline, rows)
    return measured


def _add_systems(measured: Measured, pipeline: str, rows: dict[str, Rounds]) -> None:
    ours = rows["fog"]
    for other in ("bare", "dask"):
        key = f"{pipeline} ÷ {other}"
        if key in GOALS and other in rows:
            measured.figures[key] = ours.wall_over(rows[other])
            theirs = [rows[name] for name in PEERS if name in rows and name != other]
            measured.beside[key] = {row.name: row.wall_over(rows[other]) for row in theirs}
    bare = rows["bare" if pipeline == "invert" else "bare+work"]
    measured.figures[f"{pipeline} cpu ÷ bare"] = ours.cpu_over(bare)
    measured.others = max(measured.others, ours.others)
    measured.systems[pipeline] = {
        row.name: {"wall_s": row.wall_s, "cpu_s": row.cpu_s, "wrong": row.wrong}
        for row in rows.values()
    }


def old(rounds: int = 3) -> Measured:
    """Measure the CPU time of 100 MP beside that of the code of OLD."""
    measured = Measured()
    with ExitStack() as stack:
        try:
            both = [started(stack, "fog"), started(stack, "fog", against=OLD)]
        except NoRevision as problem:
            measured.remarks.append(str(problem))
            return measured
        for pipeline in HALO:
            rows = measure(both, pipeline, 100, rounds)
            print_rows(rows, pipeline, 100)
            measured.figures[f"{pipeline} cpu ÷ old"] = rows["fog"].cpu_over(rows[OLD])
            measured.others = max(measured.others, rows["fog"].others)
    return measured


def fleet(key: str, rounds: int = 5) -> Measured:
    """Measure the makespan of an emulated fleet."""
    case = _case(key)
    _, counted = bench_fleets.run(case, rounds)
    seconds = statistics.median(job.seconds for job in counted)
    others = statistics.median(job.usage.others for job in counted)
    return Measured({key: seconds / case.ideal_s}, others=others)


def first(*keys: str, rounds: int = 3) -> Measured:
    """Measure the first jobs of fleets and of gateways. A cold one may take .3 s more than one
    that a new gateway gives to a warm fleet.
    """
    measured = Measured()
    for key in keys:
        case, cold, met = _case(key), [], []
        for _ in range(rounds):
            first_of_fleet, first_of_gateways = bench_fleets.first_jobs(case, gateways=2)
            cold.append(first_of_fleet)
            met += first_of_gateways
        for name, jobs in (("cold", cold), ("met", met)):
            seconds = statistics.median(job.seconds for job in jobs)
            measured.figures[f"{name} {key}"] = seconds / case.ideal_s
        others = statistics.median(job.usage.others for job in cold + met)
        measured.others = max(measured.others, others)
    return measured


def peers(*keys: str) -> Measured:
    """Measure the makespans of the peers on the same fleets."""
    measured = Measured(remarks=[remark for name in PEERS if (remark := missing(name))])
    for key in keys:
        columns = compare(_case(key), rounds=3)
        measured.beside[key] = {name: column.ratio for name, column in columns.items()}
    return measured


def _case(key: str) -> Case:
    return next(case for case in CASES if case.name == key)


def idle(rounds: int = 5) -> Measured:
    """Measure the memory and the start of an idle agent."""
    cpu = CpuTime()
    starts = bench_idle.measure(rounds)
    online_s = statistics.median(start.online_s for start in starts)
    mb = statistics.median(start.mb for start in starts)
    return Measured({"idle MB": mb, "online s": online_s}, others=cpu.usage().others)


def start(rounds: int = 5) -> Measured:
    """Measure how soon `fog-gateway run` sends its first tile of a small image."""
    cpu = CpuTime()
    runs = bench_start.measure(rounds)[bench_start.SMALL, bench_start.ROOT.name]
    first_tile_s = statistics.median(run.first_tile_s for run in runs)
    return Measured({"start s": first_tile_s}, others=cpu.usage().others)


def memory() -> Measured:
    """Measure the gateway's peak memory in its worst mode."""
    cpu = CpuTime()
    worst = max(bench_memory.measure(100).values())
    return Measured({"gateway MB": worst}, others=cpu.usage().others)


#: Each measures a group of figures. Those of the fleets that `make proof` judges have no peers.
GROUPS: dict[str, Callable[[], Measured]] = {
    "systems": systems,
    "old": old,
    "eight-fast": lambda: fleet("eight, fast"),
    "eight": lambda: fleet("eight"),
    "first": lambda: first("eight, fast", "eight"),
    "peers": lambda: peers("eight, fast", "eight", "eight, one killed"),
    "killed": lambda: fleet("eight, one killed"),
    "64": lambda: fleet("64 random", rounds=3),
    "idle": idle,
    "start": start,
    "memory": memory,
}
#: What `make bench-quick` measures.
QUICK = ("systems", "old", "eight-fast", "eight")
#: What `make proof` judges: ratios that need no history, in two minutes.
JUDGED = ("systems", "eight-fast", "eight")
