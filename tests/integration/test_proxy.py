"""The dashboard behind a real reverse proxy, under a path of it, with the lines of docs/http.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.test_dashboard import WITH_PAGE, Page, page_of
from tests.processes import Fog, photo, private_fog
from tests.reverse_proxy import reverse_proxy

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def fog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    with private_fog(tmp_path_factory.mktemp("proxied"), **WITH_PAGE) as made:
        yield made


@pytest.fixture(scope="module")
def proxied(fog: Fog) -> Iterator[Page]:
    """A client of a dashboard that trusts its proxy, through the proxy."""
    settings = {
        "DASHBOARD__PROXY__TRUSTED": '["127.0.0.1/32"]',
        "DASHBOARD__TOKEN_FILE": str(fog.folder / "operator"),
    }
    direct = page_of(fog.serve(**settings))
    with reverse_proxy(fog.folder / "nginx", direct.port) as url:
        yield Page(url.removesuffix("fog/"))


@pytest.fixture(scope="module")
def token(fog: Fog, proxied: Page) -> dict[str, str]:
    del proxied  # its start made the token
    return {"authorization": f"Bearer {(fog.folder / 'operator').read_text().strip()}"}


def test_an_image_comes_back_and_addresses_are_those_of_the_proxy(
    fog: Fog, proxied: Page, token: dict[str, str]
) -> None:
    picture = fog.save("photo.png", photo(240, 320)).read_bytes()
    status, headers, _ = proxied.ask("PUT", "/fog/api/run/edges", picture, **token)
    assert status == 200
    assert headers["location"].startswith("/fog/api/jobs/j")
    status, _, original = proxied.ask("GET", f"{headers['location']}/original", **token)
    assert (status, original) == (200, picture)
    # The page names everything relative to where it is.
    status, _, page = proxied.ask("GET", "/fog/", **token)
    assert status == 200
    assert b'="/' not in page
    assert b'="http' not in page


def test_a_large_body_and_events_pass_without_being_kept_back(
    fog: Fog, proxied: Page, token: dict[str, str]
) -> None:
    picture = fog.save("large.bmp", photo(1500, 2000)).read_bytes()
    with proxied.socket() as events:
        head = f"GET /fog/api/events HTTP/1.1\r\nHost: {proxied.host}:{proxied.port}\r\n"
        events.sendall(f"{head}Authorization: {token['authorization']}\r\n\r\n".encode())
        heard = b""
        while b"event: snapshot" not in heard:
            heard += events.recv(65_536)
        status, headers, _ = proxied.ask("PUT", "/fog/api/run/edges", picture, **token)
        assert status == 200
        while headers["fogmqtt-job"].encode() not in heard:
            heard = heard[-1000:] + events.recv(65_536)


def test_a_token_is_exchanged_for_a_cookie_of_the_path(fog: Fog, proxied: Page) -> None:
    assert proxied.problem("GET", "/fog/api/devices")["type"].endswith(":no-token")
    login = json.dumps({"token": (fog.folder / "operator").read_text().strip()})
    origin = f"http://{proxied.host}:{proxied.port}"
    status, headers, _ = proxied.ask("POST", "/fog/api/login", login, origin=origin)
    assert status == 200
    assert "Path=/fog/" in headers["set-cookie"]
    cookie = headers["set-cookie"].partition(";")[0]
    assert proxied.ask("GET", "/fog/api/devices", cookie=cookie)[0] == 200


def test_a_page_of_another_site_is_refused_and_ours_opens_a_websocket(
    proxied: Page, token: dict[str, str]
) -> None:
    other = proxied.problem("DELETE", "/fog/api/jobs/j0", origin="http://evil.example", **token)
    assert other["type"].endswith(":cross-site")
    handshake = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
    handshake["sec_websocket_key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
    for origin, status in ((f"http://{proxied.host}:{proxied.port}", 101), ("http://a.b", 403)):
        with proxied.socket() as link:
            lines = {**handshake, **token, "origin": origin, "host": origin.partition("//")[2]}
            lines["host"] = f"{proxied.host}:{proxied.port}"
            head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in lines.items())
            link.sendall(f"GET /fog/api/live HTTP/1.1\r\n{head}\r\n".encode())
            assert link.recv(1000).startswith(f"HTTP/1.1 {status}".encode())


def test_a_proxy_that_is_not_trusted_ends_the_trust_in_this_machine(
    fog: Fog, tmp_path: Path
) -> None:
    settings = {"GATEWAY__ID": "other", "GATEWAY__INBOX": "", "GATEWAY__SPOOL": str(tmp_path / "s")}
    program = fog.start_serving(**settings)
    direct = page_of(program)
    with reverse_proxy(tmp_path / "nginx", direct.port) as url:
        through = Page(url.removesuffix("fog/"))
        assert direct.ask("GET", "/api/devices")[0] == 200
        assert through.problem("GET", "/fog/api/devices")["type"].endswith(":proxy")
