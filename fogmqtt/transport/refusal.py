"""Why a broker cannot be reached, in one sentence with the way out."""

from __future__ import annotations

import socket
import ssl

from fogmqtt.transport.base import Refused
from fogmqtt.transport.link import Link


def refused_on_the_way(link: Link, problem: Exception) -> Refused:
    """The connection never stood."""
    if isinstance(problem, ssl.SSLCertVerificationError):
        return Refused(_certificate(link, problem), final=True)
    if isinstance(problem, ssl.SSLError):
        return Refused(
            f"TLS with the broker at {link.url} failed: {problem.reason or problem}; "
            "is that its TLS port, and does it want a client certificate (broker.cert, broker.key)?",
            final=True,
        )
    if isinstance(problem, FileNotFoundError | PermissionError | ValueError):
        return Refused(
            f"broker.ca, broker.cert or broker.key cannot be used: {problem}", final=True
        )
    if isinstance(problem, socket.gaierror):
        return Refused(f"no host {link.address.host!r} (broker.url {link.url}): {problem.strerror}")
    if isinstance(problem, ConnectionRefusedError):
        return Refused(
            f"no broker at {link.url}: nothing listens there; start one with "
            "`mosquitto -c broker/mosquitto.conf`, or set broker.embedded: auto at the gateway"
        )
    return Refused(f"no broker at {link.url}: {problem}")


def _certificate(link: Link, problem: ssl.SSLCertVerificationError) -> str:
    if problem.verify_code == 62:  # X509_V_ERR_HOSTNAME_MISMATCH
        return (
            f"the broker's certificate is for another name than {link.address.host!r}, which "
            f"broker.url says ({problem.verify_message}); dial the name in the certificate"
        )
    return (
        f"the certificate of the broker at {link.url} is not trusted: {problem.verify_message}; "
        "set broker.ca to the certificate of the CA that signed it"
    )


def refused_by_broker(link: Link, reason: str) -> Refused:
    """The broker answered, and said no."""
    who = f"user {link.username!r}" if link.username else "a client without a user name"
    if "protocol" in reason.lower():
        way_out = 'set broker.protocol: "3.1.1"'
    elif link.username:
        way_out = "check broker.username and broker.password, and the broker's password file"
    else:
        way_out = "set broker.username and broker.password"
    return Refused(f"the broker at {link.url} refused {who}: {reason}; {way_out}", final=True)
