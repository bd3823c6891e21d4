"""The chaos suite's own judgement: a schedule is its seed, and nothing bad goes unnoticed."""

from dataclasses import replace

import pytest

from tests.chaos.schedule import FULL, PARTIES, POWER, Fault, Job, drawn
from tests.chaos.verdict import EXACT, PLANTED, REFUSED, WRONG, Evidence, is_over, judge
from tests.weather import WEATHERS

SCHEDULE = replace(drawn(1), faults=())
FULL_DISK = replace(SCHEDULE, faults=(Fault(1.0, FULL, "disk", 1.0),))
JOB = Job(0.0, "me", "edges", 100, 100, 1)
BAD = replace(JOB, pipeline="raises", planted="raises")
DONE = Evidence(
    JOB, 1, [("j1", "accepted", ""), ("j1", "done", "")], {"j1": (True, "")}, [True], {"j1": True}
)
WHY = "tile 1 failed 4 times: ValueError: planted"
FAILED = Evidence(
    BAD, 1, [("j1", "accepted", ""), ("j1", "failed", WHY)], {"j1": (True, WHY)}, (), {}
)


def test_a_schedule_is_a_function_of_its_seed():
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_ten_seeds_have_two_hundred_faults_of_every_kind_for_everybody():
    faults = [fault for seed in range(1, 11) for fault in drawn(seed).faults]
    assert len(faults) >= 200
    kinds = {fault.kind for fault in faults}
    assert kinds >= {*WEATHERS, "kill", "freeze", "cut", POWER, "oom", FULL, "echo"}
    for party in PARTIES:
        assert any(fault.party == party and fault.kind == "kill" for fault in faults)
        assert any(fault.party == party and fault.kind == "freeze" for fault in faults)


def test_a_schedule_is_in_order_of_time():
    times = [fault.at for fault in drawn(3).faults]
    assert times == sorted(times)


def test_what_went_well_is_said_to_be_so():
    assert judge(DONE, SCHEDULE).outcome == EXACT
    assert judge(FAILED, SCHEDULE).outcome == PLANTED


def test_a_full_disk_may_refuse_where_it_was_planted():
    said = [("j1", "failed", "the gateway's disk is full; submit it again")]
    refused = replace(DONE, said=said, booked={}, images=(), files={})
    assert judge(refused, FULL_DISK).outcome == REFUSED
    assert judge(refused, SCHEDULE).outcome == WRONG
    accepted = replace(refused, said=[("j1", "accepted", ""), *said])
    assert judge(accepted, FULL_DISK).outcome == WRONG


@pytest.mark.parametrize(
    ("evidence", "problem"),
    [
        (replace(DONE, said=(), booked={}), "never ended"),
        (replace(DONE, booked={"j1": (False, ""), "j2": (True, "")}), "1 submissions became 2"),
        (replace(DONE, booked={"j1": (False, "")}, said=DONE.said[:1]), "never ended"),
        (replace(DONE, booked={}, said=DONE.said[:1]), "in no book"),
        (replace(DONE, booked={"j1": (True, "no")}), "ended in two ways"),
        (replace(DONE, images=[True, False]), "not OpenCV's"),
        (replace(DONE, files={"j1": False}), "not OpenCV's"),
        (replace(DONE, files={}), "no file is in the outbox"),
        (replace(FAILED, job=JOB), "failed with: tile 1"),
        (replace(DONE, job=BAD), "was to fail: raises"),
        (replace(FAILED, job=replace(BAD, planted="crash")), "failed with: tile 1"),
    ],
)
def test_nothing_bad_goes_unnoticed(evidence: Evidence, problem: str):
    verdict = judge(evidence, SCHEDULE)
    assert verdict.outcome == WRONG
    assert any(problem in one for one in verdict.problems), verdict.problems


def test_a_job_that_runs_is_not_over():
    assert is_over(DONE)
    assert not is_over(replace(DONE, booked={"j1": (False, "")}, said=DONE.said[:1]))
    assert not is_over(replace(DONE, said=(), booked={}))
