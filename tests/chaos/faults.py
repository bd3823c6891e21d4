"""How each kind of fault begins and ends in a world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.customer import Customer
from tests.chaos.schedule import (
    BROKER,
    CUT,
    ECHO,
    FREEZE,
    FULL,
    KILL,
    OOM,
    PARTIES,
    POWER,
    Fault,
)
from tests.chaos.world import World
from tests.weather import FAIR


@dataclass(frozen=True)
class Harm:
    """A fault's two ends; the second one undoes the first where that is needed."""

    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None


def harm(fault: Fault, world: World, customer: Customer) -> Harm:
    """What a fault does to a world."""
    party = fault.party
    match fault.kind:
        case k if k == KILL:
            return Harm(lambda: world.kill(party), lambda: world.start(party))
        case k if k == FREEZE:
            return Harm(lambda: world.freeze(party), lambda: world.thaw(party))
        case k if k == CUT:
            return Harm(world.links[party].cut)
        case k if k == POWER:
            return Harm(lambda: _power_off(world), lambda: _power_on(world))
        case k if k == OOM:
            return Harm(lambda: world.kill_worker(party))
        case k if k == FULL:
            return Harm(world.fill_disk, world.empty_disk)
        case k if k == ECHO:
            return Harm(customer.echo)
    link = world.links[party]
    return Harm(lambda: link.become(fault.kind), lambda: link.become(FAIR))


def _power_off(world: World) -> None:
    for party in PARTIES:
        world.kill(party)


def _power_on(world: World) -> None:
    for party in (BROKER, *PARTIES):
        world.start(party)
