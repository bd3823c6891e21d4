"""Renews the certificate of a board that has joined, at two thirds of its life.

The agent only looks at dates. What renewing needs is large, so it is a program of its own:
`python -m fogmqtt.cli.renewal eya`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from fogmqtt.errors import FogError
from fogmqtt.joining.identity import folders, load_identity
from fogmqtt.log import one_line

log = logging.getLogger(__name__)

#: Seconds between two looks at the dates, and for the program.
_EVERY_S: Final = 6 * 3600.0
_PATIENCE_S: Final = 120.0


def keep_renewed(device: str, certificate: str) -> str:
    """Renew the certificate of a board while this process lives, if it is that of its identity.

    Return the gateway that it has joined then.
    """
    places = folders(os.environ)
    found = load_identity(device, places)
    if found is None or str(found[0].pem(found[1])) != certificate:
        return ""

    def watch() -> None:
        waiting = threading.Event()
        while True:
            renew_if_old(device, places)
            waiting.wait(_EVERY_S)

    threading.Thread(target=watch, name="renewal", daemon=True).start()
    return found[0].gateway


def renew_if_old(device: str, places: tuple[Path, ...]) -> bool:
    """Renew a certificate if two thirds of its life are over. Return whether there is a new one.

    The next connection uses it.
    """
    from fogmqtt.joining.bundle import utc_now

    try:
        found = load_identity(device, places)
        if found is None or not found[0].is_old(utc_now()):
            return False
        done = subprocess.run(
            [sys.executable, "-m", "fogmqtt.cli.renewal", device, str(found[1])],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (FogError, OSError, subprocess.TimeoutExpired) as problem:
        reason = one_line(str(problem))
    else:
        if done.returncode == 0:
            log.info("%s has a new certificate", device)
            return True
        reason = one_line(done.stderr.strip())[-500:]
    log.warning("the certificate of %s is not renewed: %s; trying again later", device, reason)
    return False


def main() -> int:
    """Renew the certificate of a board in a folder. Returns the exit code."""
    from fogmqtt.joining.board import renew

    device, folder = sys.argv[1], Path(sys.argv[2])
    try:
        found = load_identity(device, (folder,))
        if found is not None:
            renew(*found)
    except FogError as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
