"""Why a broker refused a connection, as one sentence that names the address and the way out."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Sequence

from fogmqtt.errors import TooLarge
from fogmqtt.transport.base import Refused
from fogmqtt.transport.link import Address, Link
from fogmqtt.transport.probe import is_listening, is_local
from fogmqtt.transport.tls import REVOKED, certificate_names, is_revoked
from fogmqtt.transport.websocket import HandshakeRefused

# OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH.
_WRONG_NAME = (62, 64)
# X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_YET_VALID, _EXPIRED = 9, 10

#: What OpenSSL reports if the other side answers with something else, or closes the connection.
_EOF = "UNEXPECTED_EOF_WHILE_READING"
_NOT_TLS = ("WRONG_VERSION_NUMBER", _EOF)

#: HTTP answers that stay the same: bad request, no such path, not allowed there, no upgrade there.
_WRONG_REQUEST = (200, 400, 404, 405, 426)

#: The level of a topic that names a device or a gateway.
_NAMED_LEVEL = re.compile(r"(?:devices|gateways)/([^/+#]+)/")

# CONNACK reason codes of MQTT 5. paho translates those of 3.1.1 to them.
_BAD_IDENTIFIER = 0x85
_BAD_CREDENTIALS = (0x86, 0x8C)
_NOT_AUTHORISED = (0x87, 0x8A)
_BAD_VERSION = (0x84, 0x01)
_PACKET_TOO_LARGE = 0x95


def unreachable(link: Link, problem: OSError) -> Refused:
    """Return the refusal for an exception of the attempt to connect."""
    match problem:
        case HandshakeRefused():
            return _no_websocket(link.address, problem)
        case ssl.SSLCertVerificationError():
            return _bad_certificate(link, problem)
        case ssl.SSLError():
            is_known = REVOKED in (problem.reason or "")
            return _revoked(link) if is_known else _no_tls(link.address, problem)
        case socket.gaierror():
            return Refused(
                f"no such host: {link.address.host!r}; check broker.url, or use its IP address",
                unknown=True,
            )
        case ConnectionRefusedError():
            more = "" if is_local(link.url) else ", let it listen on more than loopback"
            return Refused(
                f"nothing listens at {link.address}; start the broker there{more}, or check "
                "broker.url"
            )
        case TimeoutError() if _has_handshake(link.address) and is_listening(link.url):
            return mute(link)
        case TimeoutError():
            return Refused(
                f"{link.address} does not answer; check that the machine is on and that its "
                "firewall is open"
            )
        case _:
            return Refused(f"cannot reach {link.address}: {problem}; check broker.url")


def final_of(refusals: Sequence[Refused]) -> Refused | None:
    """Return the refusal that only a human can remove, if no broker can be reached before that.

    `refusals` are those of all brokers. An unknown name is no broker that may come later.
    """
    finals = [one for one in refusals if one.final]
    if not finals or not all(one.final or one.unknown for one in refusals):
        return None
    return finals[-1]


def _has_handshake(address: Address) -> bool:
    """Return whether the attempt to connect waits for more than the connection: TLS, WebSocket."""
    return address.tls or bool(address.path)


def _bad_certificate(link: Link, problem: ssl.SSLCertVerificationError) -> Refused:
    address = link.address
    if problem.verify_code in _WRONG_NAME:
        names = ", ".join(certificate_names(link)) or "another name"
        return Refused(
            f"the certificate of {address} is for {names}, but broker.url names {address.host}; "
            "put one of those names into broker.url, "
            "or make a certificate for this one (broker/make-certs.sh)",
            final=True,
        )
    # A board without a battery for its clock starts in the past, and one with a bad clock in the
    # future, until the network has set it. So these two refusals are not final.
    if problem.verify_code == _NOT_YET_VALID:
        return Refused(
            f"the certificate of {address} is not yet valid by this machine's clock, which says "
            f"{_clock()}; set the clock (timedatectl), or wait until the network sets it"
        )
    if problem.verify_code == _EXPIRED:
        return Refused(
            f"the certificate of {address} has expired by this machine's clock, which says "
            f"{_clock()}; renew it (broker/make-certs.sh), or set the clock"
        )
    return Refused(
        f"{link.ca or 'no certificate authority of this machine'} does not confirm the "
        f"certificate of {address}: {problem.verify_message}; "
        "set broker.ca to the ca.crt of that broker",
        final=True,
    )


def _no_tls(address: Address, problem: ssl.SSLError) -> Refused:
    if problem.reason in _NOT_TLS:
        plain = "ws" if address.path else "mqtt"
        return Refused(
            f"{address} does not speak TLS; use {plain}:// or the broker's TLS port",
            # A broker that stops just now ends the handshake, too.
            final=problem.reason != _EOF,
        )
    if "CERTIFICATE_EXPIRED" in (problem.reason or ""):
        return Refused(
            f"{address} takes this machine's certificate for expired; renew broker.cert, or set "
            f"the broker's clock (this machine's says {_clock()})"
        )
    return Refused(
        f"TLS with {address} failed: {problem.reason or problem}; check broker.ca, "
        "broker.cert and broker.key",
        final=True,
    )


def _no_websocket(address: Address, problem: HandshakeRefused) -> Refused:
    if not problem.status:
        plain = "mqtts" if address.tls else "mqtt"
        return Refused(
            f"{address} does not speak WebSocket; use {plain}:// in broker.url if that is a port "
            "for MQTT over TCP, or name the broker's WebSocket port"
        )
    return Refused(
        f"{address} opened no WebSocket at {address.path}: {problem.answer}; put the broker's path "
        "behind the port in broker.url (most brokers use /mqtt), and check the port",
        final=problem.status in _WRONG_REQUEST,
    )


def _clock() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def connack_failure(link: Link, code: int, text: str) -> Refused:
    """Return the refusal for a CONNACK with a failure code. `text` is the code's name."""
    address = link.address
    user = link.credentials[0] if link.credentials else None
    if code in _BAD_CREDENTIALS or (code in _NOT_AUTHORISED and user is None):
        what = "connection without a user"
        if user is not None:
            what = f"password of user {user!r}, which may be another user's"
        return Refused(
            f"{address} refused the {what}; set broker.username and broker.password "
            "to what broker/add-user.sh set",
            final=True,
        )
    if code in _NOT_AUTHORISED:
        # Mosquitto 2.0 sends this code for an unknown user, a wrong password and a ban.
        return Refused(
            f"{address} refused user {user!r}: {text}; the password is another user's, or the "
            "broker does not know this user: set broker.username and broker.password to what "
            "broker/add-user.sh printed",
            final=True,
        )
    if code in _BAD_VERSION:
        other = "5" if link.protocol == "3.1.1" else "3.1.1"
        return Refused(
            f"{address} does not speak MQTT {link.protocol}; set broker.protocol to {other}",
            final=True,
        )
    if code == _BAD_IDENTIFIER:
        return Refused(
            f"{address} refused the client id {link.client_id!r}; choose another id", final=True
        )
    if code == _PACKET_TOO_LARGE:
        return Refused(
            f"{address} refused the last will as too large; raise max_packet_size", final=True
        )
    return Refused(f"{address} refused the connection: {text}")


def closed_without_answer(link: Link) -> Refused:
    """Return the refusal for a broker that closed the connection instead of sending a CONNACK."""
    if link.address.tls and link.cert and is_revoked(link):
        return _revoked(link)
    if link.address.tls:
        client = f"the certificate {link.cert}" if link.cert else "a client without certificate"
        return Refused(
            f"{link.address} closed the connection before it answered; it may refuse {client}: "
            "check broker.cert and broker.key"
        )
    return Refused(
        f"{link.address} closed the connection before it answered; "
        "if that is a TLS port, use mqtts://; if it is a WebSocket port, use ws://; "
        "if it is an older broker, set broker.protocol to 3.1.1"
    )


def _revoked(link: Link) -> Refused:
    return Refused(
        f"{link.address} knows the certificate {link.cert} as revoked, and lets this client in no "
        "more",
        final=True,
        revoked=True,
    )


def mute(link: Link) -> Refused:
    """Return the refusal for a program that accepts the connection and does not answer."""
    kind = "" if link.address.tls else "; if that is a TLS port, use mqtts://"
    return Refused(
        f"{link.address} accepts the connection and says nothing for {link.connect_timeout_s:g} s: "
        f"no broker, or one that hangs; check the port in broker.url{kind}"
    )


def filter_refused(link: Link, topic_filter: str, text: str) -> Refused:
    """Return the refusal for a subscription that the broker does not allow."""
    advice = "allow it in the broker's acl"
    user = link.credentials[0] if link.credentials else None
    named = _NAMED_LEVEL.search(topic_filter)
    if user is not None and named is not None and named[1] != user:
        advice = (
            f"{named[1]!r} connected as user {user!r}, and the access list gives each user the "
            "topics of its own name: set broker.username and broker.password to those of "
            f"{named[1]!r}, "
            "or allow it in the broker's acl"
        )
    return Refused(
        f"{link.address} refused the subscription to {topic_filter!r}: {text}; {advice}",
        final=True,
    )


def no_suback(link: Link, topic_filters: Sequence[str]) -> Refused:
    """Return the refusal for a broker that accepts a client and confirms no subscription."""
    return Refused(
        f"{link.address} accepted the connection and does not confirm the subscription to "
        f"{topic_filters[0]!r} (and {len(topic_filters) - 1} more): it hangs or is overloaded, or "
        "its acl drops subscriptions; look at the broker's log"
    )


def no_wildcards(link: Link, topic_filter: str) -> Refused:
    """Return the refusal for a broker that has no subscriptions with wildcards."""
    return Refused(
        f"{link.address} has no subscriptions with wildcards, such as {topic_filter!r}, and a "
        "gateway finds its devices by them; use another broker, or allow them there",
        final=True,
    )


def too_large(link: Link, topic: str, size: int, limit: int, *, is_announced: bool) -> TooLarge:
    """Return the error for a packet over the broker's limit, announced or learned."""
    takes = f"accepts {limit}" if is_announced else f"seems to accept at most {limit}"
    return TooLarge(
        f"{topic}: {size} bytes, but {link.address} {takes}; make tiles and results smaller "
        "(wire.max_message_bytes, gateway.format) or raise the broker's max_packet_size"
    )
