"""How many tiles a device may hold: what its workers have in hand, and what hides the way.

While a worker has one tile, the next must be there before it is done. So what waits at a device,
or is on its way, is the bandwidth-delay product in tiles: the time of the way, there and back,
over the time between two tiles.
"""

from __future__ import annotations

import math

from fogmqtt.core.scheduling.device import DeviceState
from fogmqtt.core.scheduling.policy import Policy

#: Ways and tiles vary: the window holds for so many times the usual way.
_MARGIN = 2.0


def window(device: DeviceState, policy: Policy) -> int:
    """Tiles that a healthy device may hold now."""
    return min(device.workers + max(policy.ahead, _product(device)), policy.max_window)


def _product(device: DeviceState) -> int:
    if device.way_s == math.inf or device.tile_s == 0:
        return 0
    tiles = _MARGIN * device.way_s * device.workers / device.tile_s
    return math.ceil(tiles) if tiles < math.inf else 0
