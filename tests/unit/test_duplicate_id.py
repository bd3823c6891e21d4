"""Of two processes with one id, exactly one stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fogmqtt.core.duplicate_id import DuplicateIdCheck


class Check(DuplicateIdCheck):
    """A check whose process lost its link before each info."""

    def must_exit(self, boot: str, uptime_s: float, own_uptime_s: float) -> bool:
        self.link_lost()
        return super().must_exit(boot, uptime_s, own_uptime_s)


def check_of(boot: str) -> DuplicateIdCheck:
    check = Check(boot)
    check.own_info_seen()
    return check


def test_an_info_alone_ends_nobody_since_anybody_can_forge_it() -> None:
    check = DuplicateIdCheck("b")
    check.own_info_seen()
    assert not any(check.must_exit("a", 1e9, 2.0) for _ in range(100))
    assert check.is_duplicate("a"), "so the own info is published again"


def test_each_loss_of_the_link_lets_one_info_be_judged() -> None:
    check = DuplicateIdCheck("b")
    check.own_info_seen()
    for _ in range(3):
        check.link_lost()
        assert not check.must_exit("a", 1.0, 2.0)
        assert not any(check.must_exit("a", 1.0, 2.0) for _ in range(100))
    check.link_lost()
    assert check.must_exit("a", 1.0, 2.0), "the boot ids decide at the fourth encounter"


def test_a_loss_before_the_first_info_proves_nothing() -> None:
    check = DuplicateIdCheck("b")
    check.link_lost()
    check.own_info_seen()
    assert not check.must_exit("a", 1e9, 2.0)


def test_an_info_left_by_a_previous_run_is_no_duplicate() -> None:
    check = DuplicateIdCheck("b")
    assert not check.is_duplicate("a")
    assert not check.must_exit("a", 9999.0, 1.0)


def test_the_own_info_is_no_duplicate() -> None:
    assert not check_of("b").is_duplicate("b")
    assert not check_of("b").must_exit("b", 9999.0, 1.0)


def test_the_younger_process_exits_and_the_older_one_stays() -> None:
    assert check_of("b").must_exit("a", 35.0, 2.0)
    assert not check_of("a").must_exit("b", 2.0, 35.0)


def test_of_two_processes_with_equal_uptime_the_smaller_boot_id_stays() -> None:
    assert check_of("b").must_exit("a", 2.0, 2.0)
    assert not check_of("a").must_exit("b", 2.0, 2.0)


def test_a_process_that_stayed_once_does_not_exit_by_uptime_later() -> None:
    check = check_of("a")
    assert not check.must_exit("b", 1.0, 2.0)
    assert not check.must_exit("b", 5.0, 2.0)


def test_boot_ids_decide_if_uptime_does_not() -> None:
    exiting, staying = check_of("b"), check_of("a")
    assert [exiting.must_exit("a", 1.0, 2.0) for _ in range(4)] == [False, False, False, True]
    assert not any(staying.must_exit("b", 1.0, 2.0) for _ in range(9))


def test_the_memory_of_other_processes_is_bounded() -> None:
    check = check_of("a")
    for number in range(1000):
        check.must_exit(f"b{number}", 1.0, 2.0)
    assert len(check._encounters) <= 16


@dataclass
class Process:
    boot: str
    started: float
    back_off: float
    check: DuplicateIdCheck = field(init=False)
    exited: bool = False

    def __post_init__(self) -> None:
        self.check = DuplicateIdCheck(self.boot)


@dataclass
class Broker:
    """Keeps the retained info and admits one client per id: a new client replaces the old one."""

    info: tuple[str, float] | None = ("previous run", 86_400.0)
    status: str = "offline"
    client: Process | None = None

    def connect(self, process: Process, now: float) -> None:
        if self.client is not None:
            self.client.check.link_lost()
        self.client = process
        own_uptime = now - process.started
        self.status = "offline"  # the will of the replaced client
        found, self.info = self.info, (process.boot, own_uptime)
        self.status = "online"
        for boot, uptime in filter(None, (found, self.info)):
            if boot == process.boot:
                process.check.own_info_seen()
            elif process.check.must_exit(boot, uptime, own_uptime):
                process.exited = True
                return


def run_until_one_exits(first: Process, second: Process) -> tuple[Broker, float]:
    """Let both connect again after each replacement until one exits; return also when it exits."""
    broker = Broker()
    broker.connect(first, first.started + 0.2)
    connected, waiting, now = second, first, second.started + 0.2
    for _ in range(50):
        broker.connect(connected, now)
        connected, waiting = waiting, connected
        if waiting.exited:
            broker.connect(connected, now + connected.back_off)
            return broker, now
        now += connected.back_off
    raise AssertionError("neither process exits")


@pytest.mark.parametrize(("boot", "other"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("ahead_s", [0.0, 0.01, 0.5, 1.0, 1.5, 2.5, 4.0, 10.0, 3600.0])
@pytest.mark.parametrize("back_off", [1.0, 2.0])
def test_exactly_one_of_two_processes_stays_online_for_any_start_times(
    boot: str, other: str, ahead_s: float, back_off: float
) -> None:
    first = Process(boot, 0.0, 1.0)
    second = Process(other, ahead_s, back_off)
    broker, ended_at = run_until_one_exits(first, second)
    assert first.exited != second.exited
    assert broker.status == "online"
    assert broker.info is not None
    assert broker.info[0] == (second if first.exited else first).boot
    assert ended_at - ahead_s < 15


def test_a_long_running_agent_stays_when_a_new_one_starts() -> None:
    older, younger = Process("z", 0.0, 1.0), Process("a", 35.0, 1.0)
    run_until_one_exits(older, younger)
    assert younger.exited
    assert not older.exited
