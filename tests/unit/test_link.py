"""Which values `broker.url` and its neighbours accept, and what each refusal advises."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.transport.base import Refused
from fogmqtt.transport.link import Address, Link, parse_url
from fogmqtt.transport.refusals import (
    closed_without_answer,
    connack_failure,
    final_of,
    unreachable,
)

LINK = Link("mqtt://192.168.1.10", "eya")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://raspberry", Address("raspberry", 1883)),
        ("mqtts://raspberry", Address("raspberry", 8883, tls=True)),
        ("mqtt://10.0.0.1:1884/", Address("10.0.0.1", 1884)),
        ("mqtt://[::1]:1884", Address("::1", 1884)),
        ("ws://raspberry:9001", Address("raspberry", 9001, path="/mqtt")),
        ("wss://raspberry/a b/c", Address("raspberry", 443, tls=True, path="/a%20b/c")),
        ("ws://[::1]/", Address("::1", 80, path="/")),
    ],
)
def test_a_url_gives_host_port_tls_and_path(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "raspberry:1883",
        "http://raspberry",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://h:port",
        "mqtt://h:99999",
        "mqtt://h:0",
        "mqtt://h/topic",
        "mqtt://h?x=1",
        "ws://h/mqtt?x=1",
        "ws:///mqtt",
        "mqtt://[::1",
        "",
    ],
)
def test_an_invalid_url_is_refused_and_the_error_names_the_key(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^broker\.url: "):
        Link(url, "eya")


def test_a_password_is_never_shown() -> None:
    assert "secret" not in repr(Link("mqtt://h", "eya", username="eya", password="secret"))
    with pytest.raises(ConfigError, match=r"broker\.password_file") as refused:
        parse_url("mqtt://eya:secret@h")
    assert "secret" not in str(refused.value)


def test_an_empty_user_means_no_credentials() -> None:
    assert Link("mqtt://h", "x", username="c", password="d").credentials == ("c", "d")
    assert Link("mqtt://h", "x", username="", password="").credentials is None


def test_certificates_need_files_a_key_and_tls(tmp_path: Path) -> None:
    pem = tmp_path / "ca.crt"
    pem.write_text("")
    with pytest.raises(ConfigError, match=r"broker\.ca: .*not a file"):
        Link("mqtts://h", "x", ca=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"broker\.cert and broker\.key"):
        Link("mqtts://h", "x", cert=str(pem))
    for url in ("mqtt://h", "ws://h"):
        with pytest.raises(ConfigError, match="mqtts:// or wss://"):
            Link(url, "x", ca=str(pem))
    Link("wss://h", "x", ca=str(pem))


def test_a_keep_alive_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"broker\.keepalive_s"):
        Link("mqtt://h", "x", keepalive_s=70_000)


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (ConnectionRefusedError(111, "refused"), "nothing listens at 192.168.1.10:1883"),
        (ConnectionRefusedError(111, "refused"), "let it listen on more than loopback"),
        (socket.gaierror(-2, "unknown"), "no such host"),
        (TimeoutError("timed out"), "does not answer"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_a_temporary_failure_is_not_final_and_names_the_address(
    problem: OSError, expected: str
) -> None:
    refused = unreachable(LINK, problem)
    assert expected in refused.reason
    assert "192.168.1.10" in refused.reason
    assert not refused.final


@pytest.mark.parametrize("scheme", ["mqtts", "ws", "wss"])
def test_a_program_that_accepts_and_does_not_shake_hands_is_no_dead_machine(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        link = Link(f"{scheme}://127.0.0.1:{mute.getsockname()[1]}", "x")
        refused = unreachable(link, TimeoutError("the handshake operation timed out"))
    assert "accepts the connection and says nothing" in refused.reason
    assert not refused.final


def test_an_expired_certificate_is_named() -> None:
    problem = ssl.SSLCertVerificationError(1, "certificate verify failed")
    problem.verify_code = 10
    refused = unreachable(Link("mqtts://h", "x"), problem)
    assert "expired by this machine's clock" in refused.reason
    assert not refused.final, "the clock may be wrong until the network sets it"


def test_a_certificate_that_is_not_yet_valid_is_a_matter_of_the_clock() -> None:
    problem = ssl.SSLCertVerificationError(1, "certificate verify failed")
    problem.verify_code = 9
    refused = unreachable(LINK, problem)
    assert "not yet valid by this machine's clock, which says 20" in refused.reason
    assert "broker.ca" not in refused.reason
    assert not refused.final


def test_a_final_refusal_counts_beside_names_that_nobody_knows() -> None:
    unknown = unreachable(LINK, socket.gaierror(socket.EAI_NONAME, "unknown"))
    foreign, off = Refused("another authority", final=True), Refused("nothing listens")
    assert final_of([foreign, unknown]) == foreign
    assert final_of([unknown, unknown]) is None
    assert final_of([foreign, off]) is None


@pytest.mark.parametrize(
    ("code", "final", "expected"),
    [
        (0x84, True, "set broker.protocol to 3.1.1"),
        (0x85, True, "client id 'eya'"),
        (0x86, True, "broker.password"),
        (0x87, True, "without a user"),
        (0x88, False, "Server unavailable"),
        (0x95, True, "max_packet_size"),
    ],
)
def test_a_connack_failure_names_the_way_out(code: int, final: bool, expected: str) -> None:
    refused = connack_failure(LINK, code, "Server unavailable")
    assert expected in refused.reason
    assert refused.final is final


def test_the_other_protocol_version_is_proposed() -> None:
    link = Link("mqtt://h", "x", "3.1.1")
    assert "set broker.protocol to 5" in connack_failure(link, 0x84, "").reason


def test_a_refused_user_is_named_without_the_password() -> None:
    link = Link("mqtt://h", "x", username="eya", password="secret")
    for code in (0x86, 0x87):
        assert "'eya'" in connack_failure(link, code, "Not authorized").reason
        assert "secret" not in connack_failure(link, code, "Not authorized").reason


def test_a_closed_connection_suggests_tls_or_a_certificate() -> None:
    assert "mqtts://" in closed_without_answer(LINK).reason
    assert "broker.cert" in closed_without_answer(Link("mqtts://h", "x")).reason
