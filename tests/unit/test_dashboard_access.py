"""Who may do what at the dashboard, and which requests are not believed."""

import asyncio
import logging
import stat

import pytest

from fogmqtt.config.schema import DashboardSettings, ProxySettings
from fogmqtt.dashboard.tokens import SESSION_S, TRIES, TRIES_S, Tokens, Tries, load_tokens
from fogmqtt.errors import ConfigError
from tests.dashboard_rig import dashboard, job_card
from tests.gateway_rig import eventually, run

TOKENS = Tokens("operator-token-of-tests", "viewer-token-of-tests")
BEARER = {"authorization": f"Bearer {TOKENS.operator}"}
VIEWER = {"authorization": f"Bearer {TOKENS.viewer}"}
FAR = "192.0.2.7"
PROXY = DashboardSettings(
    hosts=("fog.example.org",),
    proxy=ProxySettings(("172.30.32.2/32",), user_header="X-Remote-User", role="operator"),
)


def ask(method, path, headers=None, *, peer="127.0.0.1", body=b"", **options):
    """Send one request to a dashboard of its own."""
    answered = []

    async def test():
        async with dashboard(**options) as rig:
            rig.gateway.add(job_card("j1"))
            answered.append(await rig.send(method, path, body, headers=headers or {}, peer=peer))

    run(test())
    return answered[0]


# This machine, and others


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
def test_a_program_of_this_machine_needs_no_token(peer):
    assert ask("GET", "/api/session", peer=peer).json == {"role": "operator", "user": "local"}


@pytest.mark.parametrize(
    "header",
    [
        "forwarded",
        "via",
        "x-real-ip",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-anything",
        "x-ingress-path",
    ],
)
def test_what_a_proxy_brought_is_not_of_this_machine(header):
    answer = ask("GET", "/api/jobs", {header: "127.0.0.1"})
    assert (answer.status, answer.problem) == (403, "proxy")
    assert "dashboard.proxy.trusted" in answer.json["detail"]
    answer = ask("GET", "/api/jobs", {header: "127.0.0.1"}, tokens=TOKENS)
    assert (answer.status, answer.problem) == (401, "no-token")


def test_others_need_a_token():
    answer = ask("GET", "/api/jobs", peer=FAR, tokens=TOKENS)
    assert (answer.status, answer.problem) == (401, "no-token")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert ask("GET", "/api/jobs", BEARER, peer=FAR, tokens=TOKENS).status == 200


def test_everybody_gets_the_page_and_what_supervisors_ask():
    for path in ("/healthz", "/index.html"):
        assert ask("GET", path, peer=FAR, tokens=TOKENS).status == 200


def test_a_viewer_may_look_and_change_nothing():
    assert ask("GET", "/api/jobs/j1", VIEWER, peer=FAR, tokens=TOKENS).status == 200
    for method, path in [
        ("DELETE", "/api/jobs/j1"),
        ("POST", "/api/jobs/j1/retry"),
        ("POST", "/api/jobs/j1/repeat?pipeline=edges"),
        ("POST", "/api/jobs"),
        ("PUT", "/api/run/edges"),
        ("POST", "/api/try"),
    ]:
        answer = ask(method, path, VIEWER, peer=FAR, tokens=TOKENS, body=b"x")
        assert (answer.status, answer.problem) == (403, "viewer")


# Pages of other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "https://127.0.0.1:8080.evil.example"},
        {"origin": "file://127.0.0.1:8080"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(headers):
    answer = ask("DELETE", "/api/jobs/j1", headers)
    assert (answer.status, answer.problem) == (403, "cross-site")


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://127.0.0.1:8080"}, {"sec-fetch-site": "same-origin"}],
)
def test_our_own_page_and_programs_may(headers):
    assert ask("DELETE", "/api/jobs/j1", headers).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[::1", "127.0.0.1.nip.io"],
)
def test_a_name_that_is_not_ours_is_refused_whatever_is_asked(host):
    for path in ("/", "/api/jobs"):
        answer = ask("GET", path, {"host": host})
        assert (answer.status, answer.problem) == (421, "wrong-host")


@pytest.mark.parametrize(
    "host",
    ["localhost:8080", "LOCALHOST", "127.0.0.1", "[::1]:8080", "10.1.2.3:80", "Fog.Example.org."],
)
def test_addresses_and_our_own_names_are_ours(host):
    assert ask("GET", "/api/jobs", {"host": host}, settings=PROXY).status == 200


# Tokens


def test_a_token_becomes_a_cookie_that_no_script_can_read():
    async def test():
        async with dashboard(tokens=TOKENS) as rig:
            answer = await rig.send(
                "POST", "/api/login", b'{"token": "operator-token-of-tests"}', peer=FAR
            )
            assert answer.json == {"role": "operator", "user": "browser"}
            cookie = answer.headers["set-cookie"]
            name, _, rest = cookie.partition("=")
            value, *attributes = rest.split("; ")
            assert name == "fogmqtt_mariem"
            assert TOKENS.operator not in cookie
            assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(attributes)
            headers = {"cookie": f"{name}={value}"}
            session = await rig.send("GET", "/api/session", headers=headers, peer=FAR)
            assert session.json["role"] == "operator"
            out = await rig.send("POST", "/api/logout", headers=headers, peer=FAR)
            assert out.status == 204
            assert "Max-Age=0" in out.headers["set-cookie"]

    run(test())


def test_a_cookie_is_of_its_role_and_ends_with_its_time_and_its_token():
    made = TOKENS.cookie("viewer", now=1000.0)
    assert TOKENS.role_of_cookie(made, now=1001.0) == "viewer"
    assert TOKENS.role_of_cookie(made, now=1001.0 + SESSION_S) is None
    assert TOKENS.role_of_cookie(made.replace("viewer", "operator"), now=1001.0) is None
    assert Tokens("another", "others").role_of_cookie(made, now=1001.0) is None
    for wrong in (
        "",
        "viewer",
        "viewer.5.x",
        "viewer.²." + "0" * 64,
        "admin.9999999999.x",
        "é.é.é",
    ):
        assert TOKENS.role_of_cookie(wrong, now=1.0) is None


def test_after_five_wrong_tokens_an_address_has_to_wait():
    async def test():
        async with dashboard(tokens=TOKENS) as rig:
            for number in range(TRIES):
                wrong = {"authorization": f"Bearer wrong{number}"}
                answer = await rig.send("GET", "/api/jobs", headers=wrong, peer=FAR)
                assert (answer.status, answer.problem) == (401, "wrong-token")
            for headers in ({"authorization": "Bearer wrong"}, BEARER):
                answer = await rig.send("GET", "/api/jobs", headers=headers, peer=FAR)
                assert (answer.status, answer.problem) == (429, "too-many-tries")
                assert 0 < int(answer.headers["retry-after"]) <= TRIES_S
            body = b'{"token": "operator-token-of-tests"}'
            assert (await rig.send("POST", "/api/login", body, peer=FAR)).status == 429
            other = await rig.send("GET", "/api/jobs", headers=BEARER, peer="192.0.2.8")
            assert other.status == 200

    run(test())


def test_wrong_tries_are_forgotten_after_a_minute_and_networks_count_as_one():
    tries = Tries()
    for number in range(TRIES):
        tries.wrong(f"2001:db8::{number}", float(number))
    assert tries.wait_s("2001:db8::ffff", 10.0) == TRIES_S - 10.0
    assert tries.wait_s("2001:db8:1::1", 10.0) == 0.0
    assert tries.wait_s("2001:db8::1", TRIES_S + 0.5) == 0.0


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"token": 5}', b"x" * 5000])
def test_a_login_without_a_token_is_refused(body):
    assert ask("POST", "/api/login", body=body, peer=FAR, tokens=TOKENS).status in (400, 413)


def test_tokens_are_made_once_and_only_their_owner_can_read_them(tmp_path):
    files = tmp_path / "spool" / "operator", tmp_path / "spool" / "viewer"
    made = load_tokens(*files)
    assert made.is_new
    assert made.operator != made.viewer
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    again = load_tokens(*files)
    assert not again.is_new
    assert (again.operator, again.viewer) == (made.operator, made.viewer)


@pytest.mark.parametrize("text", ["", "short", "has some blanks in it", "ümläute-sind-keine-asc"])
def test_a_token_file_that_is_too_easy_is_refused(tmp_path, text):
    (tmp_path / "a").write_text(text)
    with pytest.raises(ConfigError, match="a token has 16 or more"):
        load_tokens(tmp_path / "a", tmp_path / "b")


# Proxies


def test_a_trusted_proxy_says_who_the_user_is():
    headers = {"x-remote-user": "ana", "x-forwarded-for": "203.0.113.9", "host": "anything"}
    answer = ask("GET", "/api/session", headers, peer="172.30.32.2", settings=PROXY, tokens=TOKENS)
    assert answer.json == {"role": "operator", "user": "ana"}


def test_nobody_else_is_believed_to_know_users():
    for peer in (FAR, "172.30.32.3"):
        headers = {"x-remote-user": "ana"}
        answer = ask("GET", "/api/session", headers, peer=peer, settings=PROXY, tokens=TOKENS)
        assert (answer.status, answer.problem) == (401, "no-token")


def test_a_trusted_proxy_without_a_user_needs_a_token_even_on_this_machine():
    settings = DashboardSettings(proxy=ProxySettings(("127.0.0.1",), "X-Remote-User"))
    answer = ask("GET", "/api/jobs", settings=settings, tokens=TOKENS)
    assert (answer.status, answer.problem) == (401, "no-token")


def test_the_address_behind_a_proxy_is_the_last_that_we_do_not_trust():
    async def test():
        async with dashboard(settings=PROXY, tokens=TOKENS) as rig:
            for number in range(TRIES):
                forged = f"198.51.100.{number}, 203.0.113.9, 172.30.32.2"
                headers = {"authorization": "Bearer wrong", "x-forwarded-for": forged}
                await rig.send("GET", "/api/jobs", headers=headers, peer="172.30.32.2")
            assert rig.door.tries.wait_s("203.0.113.9", asyncio.get_running_loop().time()) > 0

    run(test())


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({"x-forwarded-prefix": "/fog"}, "/fog"),
        ({"x-forwarded-prefix": "/a/b-c/"}, "/a/b-c"),
        ({"x-ingress-path": "/api/hassio_ingress/Ab_9-x"}, "/api/hassio_ingress/Ab_9-x"),
        ({}, ""),
    ],
)
def test_a_trusted_proxy_says_under_which_path_we_are(headers, base):
    headers = {**headers, "x-remote-user": "ana", "x-forwarded-proto": "https"}
    options = {"peer": "172.30.32.2", "settings": PROXY, "tokens": TOKENS}
    for sent in ("/api/jobs", f"{base}/api/jobs"):  # a proxy removes its own part, or does not
        answer = ask("POST", sent, headers, body=b"x", **options)
        assert answer.headers["location"] == f"{base}/api/jobs/j1"
    body = b'{"token": "operator-token-of-tests"}'
    cookie = ask("POST", "/api/login", headers, body=body, **options).headers["set-cookie"]
    assert f"Path={base}/" in cookie
    assert "Secure" in cookie


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-prefix": "//evil.example"},
        {"x-forwarded-prefix": "/a/../b"},
        {"x-forwarded-prefix": "fog"},
        {"x-forwarded-prefix": '/"><script>'},
        {"x-ingress-path": "/api/hassio_ingress/a/b"},
        {"x-ingress-path": "/elsewhere"},
        {"x-ingress-path": ""},
    ],
)
def test_a_path_that_is_none_is_refused(headers):
    answer = ask("GET", "/", headers, peer="172.30.32.2", settings=PROXY, tokens=TOKENS)
    assert (answer.status, answer.problem) == (400, "bad-header")


def test_the_path_of_somebody_else_is_not_believed():
    answer = ask(
        "POST",
        "/api/jobs",
        {**BEARER, "x-forwarded-prefix": "/evil"},
        peer=FAR,
        tokens=TOKENS,
        body=b"x",
    )
    assert answer.headers["location"] == "/api/jobs/j1"


def test_only_home_assistant_may_show_the_page_in_a_frame():
    headers = {"x-ingress-path": "/api/hassio_ingress/x", "x-remote-user": "ana"}
    inside = ask("GET", "/", headers, peer="172.30.32.2", settings=PROXY, tokens=TOKENS)
    assert "frame-ancestors 'self'" in inside.headers["content-security-policy"]
    outside = ask("GET", "/")
    assert "frame-ancestors 'none'" in outside.headers["content-security-policy"]


# The log of acts


def test_each_act_is_one_line_of_the_log(caplog):
    caplog.set_level(logging.INFO, "fogmqtt.audit")
    headers = {"x-remote-user": "ana\nroot", "x-forwarded-for": "203.0.113.9"}
    options = {"settings": PROXY, "tokens": TOKENS}
    ask("DELETE", "/api/jobs/j1", headers, peer="172.30.32.2", **options)
    ask("DELETE", "/api/jobs/j1", {"origin": "http://evil.example"}, **options)
    ask("GET", "/api/jobs/j1", BEARER, **options)
    told = [record.getMessage() for record in caplog.records]
    deleted, refused = told
    assert "\n" not in deleted
    assert deleted.startswith("ana")
    assert deleted.endswith("(operator) at 203.0.113.9: DELETE /api/jobs/j1 job j1: 200")
    assert refused == "this machine: DELETE /api/jobs/j1: 403"


def test_the_gateway_hears_who_asked():
    async def test():
        async with dashboard(settings=PROXY, tokens=TOKENS) as rig:
            headers = {"x-remote-user": "ana", "x-forwarded-for": "203.0.113.9"}
            await rig.send("POST", "/api/jobs", b"x", headers=headers, peer="172.30.32.2")
            await eventually(lambda: rig.gateway.requests)
            whos = {one.who for one in rig.gateway.requests}
            assert whos == {"ana (operator) at 203.0.113.9"}

    run(test())
