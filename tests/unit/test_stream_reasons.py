"""Why a source is away, in words that name no address."""

import email.message
import errno
import os
import socket
import ssl
import urllib.error

import av.error
import pytest

from fogmqtt.streams.reasons import SourceFailed, in_words

ADDRESS = "rtsp://eya:geheim@cam/h264"


def ffmpeg(name: str) -> Exception:
    """An error as PyAV raises it, with the address that it was given."""
    return getattr(av.error, name)(1, "text of FFmpeg", ADDRESS)


def http_error(code: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError(ADDRESS, code, "no", email.message.Message(), None)


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (ffmpeg("HTTPUnauthorizedError"), "wrong user or password (401)"),
        (ffmpeg("HTTPNotFoundError"), "there is nothing of this path (404)"),
        (ffmpeg("InvalidDataError"), "it sends no video that FFmpeg can read"),
        (ffmpeg("EOFError"), "it closes the connection"),
        (ffmpeg("DecoderNotFoundError"), "no decoder for its codec is installed"),
        (
            av.error.ConnectionRefusedError(errno.ECONNREFUSED, "refused", ADDRESS),
            "connection refused: nothing listens there",
        ),
        (urllib.error.URLError(TimeoutError()), "it does not answer"),
        (urllib.error.URLError(socket.gaierror()), "there is no host of this name"),
        (urllib.error.URLError("strange"), "it cannot be opened"),
        (ssl.SSLError("x"), "it does not speak TLS"),
        (ConnectionResetError(errno.ECONNRESET, "x"), "it cut the connection"),
        (PermissionError(errno.EACCES, "x", ADDRESS), "this user may not read it"),
        (OSError(errno.EBUSY, "x", "/dev/video0"), "another program uses it"),
        (OSError(errno.EXDEV, "x", ADDRESS), os.strerror(errno.EXDEV).lower()),
        (MemoryError(), "this machine has no memory left for its pictures"),
        (SourceFailed("it was unplugged"), "it was unplugged"),
        (RuntimeError(ADDRESS), "its reader failed with RuntimeError"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, Exception) else "",
)
def test_an_error_of_a_source_is_said_in_words(problem: Exception, words: str) -> None:
    assert in_words(problem) == words
    assert "geheim" not in in_words(problem)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (401, "wrong user or password (401)"),
        (403, "this user may not see it (403)"),
        (404, "there is nothing of this path (404)"),
        (503, "it answers with the error 503"),
    ],
)
def test_an_http_status_is_said_in_words(code: int, words: str) -> None:
    with http_error(code) as problem:
        assert in_words(problem) == words


def test_a_certificate_that_is_not_trusted_is_said() -> None:
    problem = ssl.SSLCertVerificationError("x")
    problem.verify_message = "self-signed certificate"
    assert in_words(problem) == "its certificate is not trusted: self-signed certificate"
