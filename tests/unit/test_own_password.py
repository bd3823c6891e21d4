"""The password of an own broker is in a private file as long as the broker runs."""

from __future__ import annotations

import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fogmqtt.errors import NoBroker
from fogmqtt.transport import own_password
from fogmqtt.transport.own_password import make_password, password_at


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the passwords are: no folder of the system."""
    monkeypatch.setattr(own_password.os, "access", lambda *_: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_file_is_for_its_user_only_and_goes_with_its_broker(folder: Path) -> None:
    password = make_password(11883)
    (made,) = folder.iterdir()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert stat.S_IMODE((made / "11883").stat().st_mode) == 0o600
    assert password_at(11883) == password.text
    assert password.text not in repr(password)
    password.forget()
    assert password_at(11883) == ""
    assert not list(folder.iterdir())
    password.forget()


def test_the_file_of_another_broker_stays() -> None:
    first, other = make_password(11883), make_password(11884)
    later = make_password(11883)
    first.forget()
    assert password_at(11883) == later.text
    later.forget()
    assert password_at(11884) == other.text
    other.forget()


KILLED = """
import os, signal, sys, tempfile
from fogmqtt.transport import own_password
own_password.os.access = lambda *_: False
tempfile.tempdir = sys.argv[1]
with own_password.make_password(11883).folder() as place:
    (place / "passwords").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_gateway_left_goes_with_the_next_start_and_what_lives_stays(
    folder: Path,
) -> None:
    living = make_password(11884)
    subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    (made,) = folder.iterdir()
    assert {path.name for path in made.iterdir()} == {"11883", "11883.start", "11884"}
    (made / "notes").touch()  # not ours
    next_one = make_password(11885)
    assert {path.name for path in made.iterdir()} == {"11884", "11885", "notes"}
    assert password_at(11884) == living.text
    living.forget()
    next_one.forget()


def test_a_folder_that_others_may_read_is_not_used(folder: Path) -> None:
    password = make_password(11883)
    (made,) = folder.iterdir()
    made.chmod(0o755)
    assert password_at(11883) == ""
    with pytest.raises(NoBroker, match="belongs to somebody else"):
        make_password(11883)
    made.chmod(0o700)
    password.forget()


def test_where_no_folder_can_be_written_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert password_at(11883) == ""
    with pytest.raises(NoBroker, match="temporary files"):
        make_password(11883)
