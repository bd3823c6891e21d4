"""TLS towards a broker: whom we trust, whom we show ourselves as."""

from __future__ import annotations

import contextlib
import socket
import ssl

from fogmqtt.errors import ConfigError
from fogmqtt.transport.link import Link


class _Socket(ssl.SSLSocket):
    """Closes itself when the handshake fails: paho forgets it then, unclosed."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def tls_context(link: Link) -> ssl.SSLContext:
    """Checks the broker by `link.ca` (or the machine's authorities); shows `link.cert`.

    Raises ConfigError where a file is not what it should be.
    """
    try:
        context = ssl.create_default_context(cafile=link.ca or None)
        if link.cert:
            context.load_cert_chain(link.cert, link.key)
    except OSError as problem:
        raise ConfigError(
            f"broker.ca, broker.cert, broker.key: {problem}; PEM files are needed, "
            "and the key must belong to the certificate"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslsocket_class = _Socket
    return context


def certificate_names(link: Link) -> list[str]:
    """Whom the broker's certificate is for, by a second look with only the name unchecked.

    Empty where that look fails.
    """
    address = link.address
    certificate: dict[str, object] = {}
    with contextlib.suppress(OSError, ConfigError):
        context = tls_context(link)
        context.check_hostname = False
        with (
            socket.create_connection((address.host, address.port), timeout=5) as plain,
            context.wrap_socket(plain) as wrapped,
        ):
            certificate.update(wrapped.getpeercert() or {})
    found = certificate.get("subjectAltName", ())
    return [str(pair[1]) for pair in found] if isinstance(found, tuple) else []
