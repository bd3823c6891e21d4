"""What broker.url and its neighbours may say, and what a refusal tells the user to do."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from fogmqtt.errors import ConfigError
from fogmqtt.transport.link import Address, Link, parse_url
from fogmqtt.transport.refusals import hung_up, rejected, unreachable

LINK = Link("mqtt://192.168.1.10", "eya")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://raspberry", Address("raspberry", 1883)),
        ("mqtts://raspberry", Address("raspberry", 8883, tls=True)),
        ("mqtt://10.0.0.1:1884/", Address("10.0.0.1", 1884)),
        ("mqtt://[::1]:1884", Address("::1", 1884)),
    ],
)
def test_a_url_names_host_port_and_whether_tls(url: str, address: Address) -> None:
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
        "mqtt://[::1",
        "",
    ],
)
def test_anything_else_is_refused_and_names_the_key(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^broker\.url: "):
        Link(url, "eya")


def test_a_password_never_shows() -> None:
    assert "secret" not in repr(Link("mqtt://h", "eya", username="eya", password="secret"))
    with pytest.raises(ConfigError, match=r"broker\.password_file") as refused:
        parse_url("mqtt://eya:secret@h")
    assert "secret" not in str(refused.value)


def test_an_empty_user_is_nobody() -> None:
    assert Link("mqtt://h", "x", username="c", password="d").credentials == ("c", "d")
    assert Link("mqtt://h", "x", username="", password="").credentials is None


def test_certificates_must_be_files_belong_together_and_need_tls(tmp_path: Path) -> None:
    pem = tmp_path / "ca.crt"
    pem.write_text("")
    with pytest.raises(ConfigError, match=r"broker\.ca: .*not a file"):
        Link("mqtts://h", "x", ca=str(tmp_path / "absent"))
    with pytest.raises(ConfigError, match=r"broker\.cert and broker\.key"):
        Link("mqtts://h", "x", cert=str(pem))
    with pytest.raises(ConfigError, match="mqtts://"):
        Link("mqtt://h", "x", ca=str(pem))


def test_a_keep_alive_that_mqtt_cannot_say_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"broker\.keepalive_s"):
        Link("mqtt://h", "x", keepalive_s=70_000)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (ConnectionRefusedError(111, "refused"), "nothing listens at 192.168.1.10:1883"),
        (socket.gaierror(-2, "unknown"), "no such host"),
        (TimeoutError("timed out"), "does not answer"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_what_may_pass_is_not_final_and_names_the_address(problem: OSError, says: str) -> None:
    refused = unreachable(LINK, problem)
    assert says in refused.reason
    assert "192.168.1.10" in refused.reason
    assert not refused.final


def test_an_expired_certificate_says_so() -> None:
    problem = ssl.SSLCertVerificationError(1, "certificate verify failed")
    problem.verify_code = 10
    refused = unreachable(Link("mqtts://h", "x"), problem)
    assert "expired" in refused.reason
    assert refused.final


@pytest.mark.parametrize(
    ("code", "final", "says"),
    [
        (0x84, True, "set broker.protocol to 3.1.1"),
        (0x85, True, "client id 'eya'"),
        (0x86, True, "broker.password"),
        (0x87, True, "without a user"),
        (0x88, False, "Server unavailable"),
        (0x95, True, "max_packet_size"),
    ],
)
def test_a_refusal_of_the_broker_names_the_way_out(code: int, final: bool, says: str) -> None:
    refused = rejected(LINK, code, "Server unavailable")
    assert says in refused.reason
    assert refused.final is final


def test_the_other_protocol_is_proposed() -> None:
    link = Link("mqtt://h", "x", "3.1.1")
    assert "set broker.protocol to 5" in rejected(link, 0x84, "").reason


def test_a_refused_user_is_named_but_not_the_password() -> None:
    link = Link("mqtt://h", "x", username="eya", password="secret")
    for code in (0x86, 0x87):
        assert "'eya'" in rejected(link, code, "Not authorized").reason
        assert "secret" not in rejected(link, code, "Not authorized").reason


def test_a_broker_that_hangs_up_is_suspected_of_tls_or_of_wanting_a_certificate() -> None:
    assert "mqtts://" in hung_up(LINK).reason
    assert "broker.cert" in hung_up(Link("mqtts://h", "x")).reason
