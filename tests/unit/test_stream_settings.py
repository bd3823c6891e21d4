"""What the text of a source means, and which settings of a source fit each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.streams.settings import SourceSettings, check_source, kind_of


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("rtsp://cam.local/h264", "rtsp"),
        ("rtsps://cam.local:322/h264", "rtsp"),
        ("http://cam.local/stream", "http"),
        ("HTTPS://cam.local/snapshot.jpg?size=2", "http"),
        ("v4l2:/dev/video0", "v4l2"),
        ("picamera:1", "picamera"),
        ("mqtt", "mqtt"),
        ("night.mp4", "file"),
        ("/no/such/file.mkv", "file"),
    ],
)
def test_the_form_of_a_source_says_how_it_is_read(source, kind):
    assert kind_of(source) == kind


def test_a_folder_is_a_folder_of_pictures(tmp_path: Path):
    assert kind_of(str(tmp_path)) == "folder"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "empty"),
        ("ftp://cam/x", "ftp:// is no source"),
        ("v4l2:video0", "v4l2:/dev/video0"),
        ("picamera:front", "picamera:0"),
        ("rtsp://", "no host"),
        ("rtsp://cam:port/x", "wrong"),
        ("rtsp://me:geheim@cam/h264", "source: rtsp://cam/h264"),
    ],
)
def test_a_source_of_no_known_form_is_refused_with_the_way_out(source, says):
    with pytest.raises(ConfigError, match=says) as caught:
        kind_of(source)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keep": "all"}, "cannot be slowed"),
        ({"password_file": "p"}, "without username"),
        ({"source": "night.mp4", "username": "me"}, "takes no username"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(changes, says):
    settings = replace(SourceSettings(source="rtsp://cam/h264"), **changes)
    with pytest.raises(ConfigError, match=says):
        check_source(settings)


def test_a_file_may_be_slowed():
    settings = SourceSettings(source="night.mp4", keep="all")
    assert check_source(settings) is settings
