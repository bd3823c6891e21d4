"""Two processes, one id: exactly one of them stays."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from fogmqtt.core.duplicate_id import DuplicateIdCheck


def announced(boot: str) -> DuplicateIdCheck:
    rivals = DuplicateIdCheck(boot)
    rivals.announced()
    return rivals


def test_an_info_left_by_a_previous_life_is_no_rival() -> None:
    rivals = DuplicateIdCheck("b")
    assert not rivals.is_rival("a")
    assert not rivals.must_leave("a", 9999.0, 1.0)


def test_our_own_info_is_no_rival() -> None:
    assert not announced("b").is_rival("b")
    assert not announced("b").must_leave("b", 9999.0, 1.0)


def test_the_younger_leaves_and_the_elder_stays() -> None:
    assert announced("b").must_leave("a", 35.0, 2.0)
    assert not announced("a").must_leave("b", 2.0, 35.0)


def test_of_two_equally_old_the_smaller_boot_id_stays() -> None:
    assert announced("b").must_leave("a", 2.0, 2.0)
    assert not announced("a").must_leave("b", 2.0, 2.0)


def test_who_stayed_once_does_not_leave_by_age_later() -> None:
    rivals = announced("a")
    assert not rivals.must_leave("b", 1.0, 2.0)
    assert not rivals.must_leave("b", 5.0, 2.0)


def test_where_age_does_not_settle_it_the_boot_ids_do() -> None:
    leaving, staying = announced("b"), announced("a")
    assert [leaving.must_leave("a", 1.0, 2.0) for _ in range(4)] == [False, False, False, True]
    assert not any(staying.must_leave("b", 1.0, 2.0) for _ in range(9))


def test_rivals_are_remembered_in_bounds() -> None:
    rivals = announced("a")
    for number in range(1000):
        rivals.must_leave(f"b{number}", 1.0, 2.0)
    assert len(rivals._meetings) <= 16


@dataclass
class Process:
    boot: str
    started: float
    back_off: float
    rivals: DuplicateIdCheck = field(init=False)
    gone: bool = False

    def __post_init__(self) -> None:
        self.rivals = DuplicateIdCheck(self.boot)


@dataclass
class Broker:
    """Retained info, and one client per id: whoever connects throws the other out."""

    info: tuple[str, float] | None = ("previous life", 86_400.0)
    status: str = "offline"

    def connect(self, who: Process, now: float) -> None:
        own_uptime = now - who.started
        self.status = "offline"  # the will of the one that is thrown out
        found, self.info = self.info, (who.boot, own_uptime)
        self.status = "online"
        for boot, uptime in filter(None, (found, self.info)):
            if boot == who.boot:
                who.rivals.announced()
            elif who.rivals.must_leave(boot, uptime, own_uptime):
                who.gone = True
                return


def fight(first: Process, second: Process) -> tuple[Broker, float]:
    """Both connect whenever they are thrown out, until one leaves; also when it was over."""
    broker = Broker()
    broker.connect(first, first.started + 0.2)
    connected, waiting, now = second, first, second.started + 0.2
    for _ in range(50):
        broker.connect(connected, now)
        connected, waiting = waiting, connected
        if waiting.gone:
            broker.connect(connected, now + connected.back_off)
            return broker, now
        now += connected.back_off
    raise AssertionError("they go on for ever")


@pytest.mark.parametrize(("boot", "other"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("ahead_s", [0.0, 0.01, 0.5, 1.0, 1.5, 2.5, 4.0, 10.0, 3600.0])
@pytest.mark.parametrize("back_off", [1.0, 2.0])
def test_whenever_they_start_exactly_one_of_two_stays_online(
    boot: str, other: str, ahead_s: float, back_off: float
) -> None:
    first = Process(boot, 0.0, 1.0)
    second = Process(other, ahead_s, back_off)
    broker, over = fight(first, second)
    assert first.gone != second.gone
    assert broker.status == "online"
    assert broker.info is not None
    assert broker.info[0] == (second if first.gone else first).boot
    assert over - ahead_s < 15


def test_an_agent_that_has_run_for_long_is_not_driven_out_by_a_newcomer() -> None:
    elder, newcomer = Process("z", 0.0, 1.0), Process("a", 35.0, 1.0)
    fight(elder, newcomer)
    assert newcomer.gone
    assert not elder.gone
