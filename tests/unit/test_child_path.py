"""A child process imports from the folders of its parent."""

import sys
from pathlib import Path

import pytest

from fogmqtt.parent import child_path


def test_a_child_imports_from_the_folders_of_its_parent() -> None:
    assert child_path() == sys.path


def test_the_folder_that_opencv_adds_while_it_is_imported_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cv2"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr("sys.path", ["", str(package), str(tmp_path)])
    assert child_path() == ["", str(tmp_path)]


def test_the_folder_of_a_program_inside_a_package_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path), "/usr/lib/python3"])
    assert child_path() == [str(tmp_path), "/usr/lib/python3"]
