"""Runs a command and ends the process."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code.

    Python cannot end threads whose work is no longer wanted, so the process ends without them.
    """
    code = main()
    # A command that has not loaded these modules has no such threads.
    threads, files = map(sys.modules.get, ("fogmqtt.gateway.threads", "fogmqtt.images.files"))
    if threads is not None and threads.abandoned():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        if files is not None:
            files.remove_parts()
        os._exit(code)
    sys.exit(code)
