"""Nothing is decided by a clock that somebody may set: a list of all places that read one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "fogmqtt"

#: What tells the time of day, by its last name.
WALL = {
    *("time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime", "clock_gettime"),
    *("now", "utcnow", "today", "fromtimestamp", "clock_settime"),
    *("st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "st_atime", "st_atime_ns"),
    *("getmtime", "getctime", "getatime"),
}
#: Of these names only what stands on one of these is meant: `now()` is our own monotonic clock.
MODULES = {"time", "datetime", "date"}
AMBIGUOUS = {"time", "now", "today"}

#: File → what it reads and what for. Whatever else asks for the time of day is a mistake.
ALLOWED = {
    # Told to people.
    "gateway/storage/dead_letters.py": {"time"},  # when a job failed
    # When a callback was given up, for people, and from when on it is kept anew.
    "gateway/storage/given_up.py": {"time"},
    "cli/retry.py": {"localtime", "strftime"},  # the same, as text
    "transport/refusals.py": {"gmtime", "strftime"},  # why a certificate is not valid yet
    "gateway/app.py": {"time"},  # since when a gateway runs
    "gateway/jobs/trace.py": {"time"},  # when a job was submitted; its phases are monotonic
    "gateway/jobs/trace_file.py": {"datetime", "fromtimestamp"},  # the same, as text
    "gateway/service/device_cards.py": {"localtime", "strftime", "time"},  # end of a quarantine
    "gateway/service/jobs.py": {"time"},  # when a job began and ended
    "gateway/service/service.py": {"time"},  # since when a gateway runs
    "gateway/service/watchers.py": {"time"},  # the moment of an update
    "gateway/streams/file_outputs.py": {"gmtime", "strftime"},  # names of files
    "gateway/streams/recorder.py": {"gmtime", "strftime", "time"},  # names of recordings
    "cli/log_format.py": {"datetime", "fromtimestamp"},  # dates of log lines
    # How long the history is kept (`history.keep_s`), an idempotency key, and a login. All outlive
    # a restart: a jump ends them early or late.
    "gateway/service/history.py": {"time"},
    "gateway/service/uploads.py": {"time"},
    "dashboard/tokens.py": {"time"},
    # How long an invitation is open and a certificate counts, over days and years: the gateway's
    # clock decides, and a board with a wrong one is told. The others pass moments on.
    "cli/accept.py": {"datetime"},
    "joining/asking.py": {"datetime"},
    "joining/bundle.py": {"datetime", "now", "strftime"},
    "joining/authority.py": {"datetime"},
    "joining/board.py": {"datetime"},
    "joining/membership.py": {"datetime"},
    "joining/identity.py": {"datetime"},
    "joining/ledger.py": {"datetime"},
    "joining/site.py": {"datetime"},
    # Told to a doctor, who compares the clocks of machines.
    "agent/presence_publisher.py": {"time"},
    "gateway/devices/status_publisher.py": {"time"},
    "doctor/broker_look.py": {"time"},
    # Whether the clock is right, against the age of a file.
    "doctor/machine.py": {"gmtime", "st_mtime", "strftime", "time"},
    # When a frame was captured, as people and other machines name it; ages are monotonic.
    "streams/clocks.py": {"time"},
    "streams/readers/picamera.py": {"clock_gettime"},
    "wire/stream_messages.py": {"datetime", "fromtimestamp"},
    # A copy keeps the times of its file.
    "gateway/storage/durable_files.py": {"st_atime_ns", "st_mtime_ns"},
    # Order of notes in the spool, and names. A jump changes in which order they are taken up.
    "gateway/server/server.py": {"time"},
    "gateway/storage/job_store.py": {"time"},
    # How long finished jobs are kept (`gateway.spool_keep_s`), over days and restarts, which no
    # monotonic clock survives: a jump forgets some early or late, and never an unfinished one.
    # And the name under which a damaged ledger is put aside.
    "gateway/storage/journal_db.py": {"time", "strftime"},
    # How long a callback is tried again (`callback.keep_s`), over restarts: a jump gives one up
    # early or late, and the log and the status name it.
    "gateway/server/callbacks.py": {"time"},
    "gateway/server/deliveries.py": {"time"},
    "gateway/server/submissions.py": {"time"},
    # The age of results and finished originals (`gateway.outbox_keep_s`), over weeks and restarts.
    "gateway/server/retention.py": {"time"},
    "gateway/storage/written_files.py": {"time", "st_mtime_ns"},
    # Whether a file changed: compared for being the same, never with a clock.
    "gateway/server/inbox_folder.py": {"st_mtime_ns"},
    "gateway/storage/spool.py": {"st_mtime_ns"},
    "operators/support/models.py": {"st_mtime_ns"},
    "conformance/identity.py": {"st_mtime_ns"},
    "dashboard/static_files.py": {"st_mtime_ns"},
    # Which of too many cached reports are deleted: a file's age against another's.
    "conformance/cache.py": {"st_mtime"},
}


def readings(source: str) -> Iterator[str]:
    """The names by which a file asks for the time of day."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            yield from (alias.name for alias in node.names if alias.name in WALL | {"datetime"})
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name == "datetime")
        if isinstance(node, ast.Attribute) and node.attr in WALL:
            owner = ast.unparse(node.value).split(".")[-1]
            if node.attr not in AMBIGUOUS or owner in MODULES:
                yield node.attr


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_the_time_of_day_is_read_only_where_the_list_says(path: Path) -> None:
    read = set(readings(path.read_text("utf-8")))
    assert read == ALLOWED.get(path.relative_to(PACKAGE).as_posix(), set())


@pytest.mark.parametrize(
    "source",
    [
        "import time\ntime.time()",
        "from time import time",
        "import datetime",
        "from datetime import datetime",
        "os.stat(path).st_mtime",
        "os.path.getmtime(path)",
        "time.clock_gettime(0)",
    ],
)
def test_the_list_would_notice(source: str) -> None:
    assert set(readings(source))


def test_monotonic_seconds_are_what_everything_else_uses() -> None:
    assert not set(readings("import time\ntime.monotonic()\nnow()\nself.now()\ntime.sleep(1)"))


def test_every_file_on_the_list_exists() -> None:
    assert not [name for name in ALLOWED if not (PACKAGE / name).exists()]
