"""Why a source is away, in words. No reason has the address as it was used: it has the password."""

from __future__ import annotations

import errno
import os
import ssl
import urllib.error
from typing import Final

from fogmqtt.errors import FogError


class SourceFailed(FogError):
    """A source cannot be opened or read. The text says why."""


#: What FFmpeg's own errors mean, by the name of PyAV's class.
_BY_NAME: Final = {
    "HTTPUnauthorizedError": "wrong user or password (401)",
    "HTTPForbiddenError": "this user may not see it (403)",
    "HTTPNotFoundError": "there is nothing of this path (404)",
    "HTTPTooManyRequestsError": "it has too many viewers (429)",
    "HTTPBadRequestError": "it does not understand the request (400)",
    "HTTPOtherClientError": "it refuses the request; is the path right, and the transport?",
    "HTTPServerError": "it has an error of its own (5xx)",
    "InvalidDataError": "it sends no video that FFmpeg can read",
    "EOFError": "it closes the connection",
    "DecoderNotFoundError": "no decoder for its codec is installed",
    "DemuxerNotFoundError": "no reader for its format is installed",
    "ProtocolNotFoundError": "this FFmpeg has no such protocol",
    "ExitError": "it sends nothing",
    "PatchWelcomeError": "it uses what FFmpeg cannot read",
}
_BY_STATUS: Final = {
    400: _BY_NAME["HTTPBadRequestError"],
    401: _BY_NAME["HTTPUnauthorizedError"],
    403: _BY_NAME["HTTPForbiddenError"],
    404: _BY_NAME["HTTPNotFoundError"],
    429: _BY_NAME["HTTPTooManyRequestsError"],
}
_BY_ERRNO: Final = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.ECONNRESET: "it cut the connection",
    errno.EPIPE: "it cut the connection",
    errno.EHOSTUNREACH: "no way to this host",
    errno.ENETUNREACH: "no way to this network",
    errno.ENOENT: "there is no such file or device",
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
    errno.EPROTONOSUPPORT: "it refuses this transport; try the other one, tcp or udp",
    errno.EISDIR: "it is a folder",
    errno.EBUSY: "another program uses it",
    errno.ENODEV: "it is no camera",
    errno.ENOTTY: "it is no camera",
    errno.ETIMEDOUT: "it does not answer",
    errno.ENOMEM: "this machine has no memory left for its pictures",
    errno.EMFILE: "this machine has no descriptors left",
}


def in_words(problem: BaseException) -> str:
    """Return why a source failed, as part of a sentence and without its address."""
    if isinstance(problem, SourceFailed):
        return str(problem)
    if isinstance(problem, urllib.error.HTTPError):
        return _BY_STATUS.get(problem.code) or f"it answers with the error {problem.code}"
    if isinstance(problem, urllib.error.URLError):
        cause = problem.reason
        return in_words(cause) if isinstance(cause, BaseException) else "it cannot be opened"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {problem.verify_message}"
    if isinstance(problem, ssl.SSLError):
        return "it does not speak TLS"
    name = type(problem).__name__
    if name in _BY_NAME:
        return _BY_NAME[name]
    if isinstance(problem, TimeoutError):
        return "it does not answer"
    if name == "gaierror":
        return "there is no host of this name"
    if isinstance(problem, MemoryError):
        return _BY_ERRNO[errno.ENOMEM]
    if isinstance(problem, OSError) and problem.errno is not None:
        known = _BY_ERRNO.get(problem.errno)
        return known or os.strerror(problem.errno).lower()
    return f"its reader failed with {name}"
