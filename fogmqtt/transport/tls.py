"""TLS to a broker: its certificate authority and the client's own certificate."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import Final

from fogmqtt.errors import ConfigError
from fogmqtt.transport.link import Link

#: Seconds for a second handshake.
_PATIENCE_S: Final = 5.0
#: The alert by which a broker says it, in OpenSSL's words.
REVOKED: Final = "CERTIFICATE_REVOKED"


class _Socket(ssl.SSLSocket):
    """Closes itself if the handshake fails. paho drops such a socket without closing it."""

    #: Seconds for the handshake; paho would wait for a whole keep-alive.
    handshake_s: float

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(self.handshake_s)
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(link: Link) -> ssl.SSLContext:
    """Return a context that verifies the broker by `link.ca` and presents `link.cert`.

    Without `link.ca` the certificate authorities of the machine apply. Raises ConfigError if a
    file is not a valid PEM file or the key does not belong to the certificate.
    """
    try:
        context = ssl.create_default_context(cafile=link.ca or None)
        if link.cert:
            context.load_cert_chain(link.cert, link.key)
    except OSError as problem:
        raise ConfigError(
            f"broker.ca, broker.cert, broker.key: {problem}; give PEM files, "
            "and the key of the certificate"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = type("_Socket", (_Socket,), {"handshake_s": link.connect_timeout_s})
    return context


def is_revoked(link: Link) -> bool:
    """Return whether the broker knows the client's certificate as revoked, from a second handshake.

    With TLS 1.3 a broker says it after the handshake, and the first read may have missed it.
    """
    address = link.address
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=_PATIENCE_S) as plain,
            tls_context(link).wrap_socket(plain, server_hostname=address.host) as wrapped,
        ):
            wrapped.settimeout(_PATIENCE_S)
            wrapped.recv(1)
    except ssl.SSLError as problem:
        return REVOKED in (problem.reason or "")
    except (OSError, ConfigError):
        return False
    return False


def certificate_names(link: Link) -> list[str]:
    """Return the names in the broker's certificate, from a second handshake.

    That handshake verifies all but the name. Returns an empty list if it fails.
    """
    address = link.address
    certificate: dict[str, object] = {}
    with contextlib.suppress(OSError, ConfigError):
        context = tls_context(link)
        context.check_hostname = False
        with (
            socket.create_connection((address.host, address.port), timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            certificate.update(wrapped.getpeercert() or {})
    names = certificate.get("subjectAltName", ())
    return [str(pair[1]) for pair in names] if isinstance(names, tuple) else []
