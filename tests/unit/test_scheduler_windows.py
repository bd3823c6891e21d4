"""How much a device may hold, and how large, from what its first tiles told."""

from __future__ import annotations

from fogmqtt.core.scheduling.actions import SendTile
from tests.scheduling import PIXELS, Bench, only, sent, sizes


def met(bench: Bench, device: str, *, way_s: float, seconds: float) -> None:
    """Let it join, accept its first tile of PIXELS after `way_s`, and do it in `seconds`."""
    bench.join(device, device)
    order = only(bench.submit(1, device, job=f"measures-{device}"))
    bench.accept(order, at=bench.now + way_s)
    bench.answer(order, at=bench.now + seconds, compute_s=seconds)


def held(bench: Bench, tiles: tuple[int, ...]) -> list[SendTile]:
    return sent(bench.submit(tiles))


def test_what_waits_at_a_device_hides_the_way():
    bench = Bench(ahead=1)
    met(bench, "eya", way_s=0.5, seconds=0.25)
    # Twice the way lasts for as long as two tiles of 0.75 s, the way included.
    assert len(held(bench, (PIXELS,) * 30)) == 1 + 2


def test_what_small_tiles_took_is_believed_of_tiles_eight_times_as_large():
    bench = Bench(ahead=0)
    bench.measured("eya", seconds=0.01)
    tiles = (1024 * PIXELS,) * 8
    actions = bench.submit(tiles, halvings=(10,) * 8)
    assert sizes(tiles, actions)[only(actions).tile] == 8 * PIXELS


def test_the_start_of_a_worker_is_not_taken_for_slowness():
    leases = []
    for start_s in (None, 9.0):
        bench = Bench(ahead=0)
        bench.join("eya")
        order = only(bench.submit(2))
        bench.accept(order)
        following = only(bench.answer(order, at=10, compute_s=1, start_s=start_s))
        leases.append(following.lease_s)
    assert leases == [2 + 4 * 10, 2 + 4 * 1]


def test_a_device_can_start_no_more_often_than_it_has_workers():
    bench = Bench(ahead=0)
    bench.join("eya")
    order = only(bench.submit(4))
    leases = []
    for _ in range(3):
        bench.accept(order)
        order = only(bench.answer(order, at=bench.now + 10, compute_s=1, start_s=9))
        leases.append(order.lease_s)
    assert leases[0] == 2 + 4 * 1
    assert leases[2] == 2 + 4 * 10


def test_an_impossible_start_is_told_and_not_believed():
    for start_s in (-1.0, 11.0, float("nan")):
        bench = Bench(ahead=0)
        bench.join("eya")
        order = only(bench.submit(2))
        bench.accept(order)
        actions = bench.answer(order, at=10, compute_s=1, start_s=start_s)
        assert any("of starting" in str(one) for one in actions)
        assert only(actions).lease_s == 2 + 4 * 10
