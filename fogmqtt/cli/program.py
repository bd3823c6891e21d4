"""Runs a command and ends the process."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Callable
from typing import Final, NoReturn

#: The exit code of programs that SIGPIPE ends.
_NOT_READ: Final = 141


def run_program(main: Callable[[], int]) -> NoReturn:
    """Run a command and end the process with its exit code.

    Python cannot end threads whose work is no longer wanted, so the process ends without them.
    """
    code = _run(main)
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


def _run(main: Callable[[], int]) -> int:
    """Run a command. Who reads its output may end first, such as `head`, and that is no error."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        if _is_read():
            raise
        # Python writes at the end what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_READ
    return code


def _is_read() -> bool:
    """Whether somebody reads the standard output: the kernel says so of a pipe."""
    pipe = select.poll()
    pipe.register(sys.stdout, 0)
    return not pipe.poll(0)
