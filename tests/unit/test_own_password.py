"""The password of an own broker is in a private file as long as the broker runs."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path

import pytest

from fogmqtt.errors import NoBroker
from fogmqtt.transport import own_password
from fogmqtt.transport.own_password import forget_password, make_password, password_at


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
    assert password_at(11883) == password
    forget_password(11883, password)
    assert password_at(11883) == ""
    assert not list(folder.iterdir())


def test_the_file_of_another_broker_stays() -> None:
    first, other = make_password(11883), make_password(11884)
    later = make_password(11883)
    forget_password(11883, first)
    assert password_at(11883) == later
    forget_password(11883, later)
    assert password_at(11884) == other


def test_a_folder_that_others_may_read_is_not_used(folder: Path) -> None:
    make_password(11883)
    (made,) = folder.iterdir()
    made.chmod(0o755)
    assert password_at(11883) == ""
    with pytest.raises(NoBroker, match="belongs to somebody else"):
        make_password(11883)


def test_where_no_folder_can_be_written_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    assert password_at(11883) == ""
    with pytest.raises(NoBroker, match="temporary files"):
        make_password(11883)
