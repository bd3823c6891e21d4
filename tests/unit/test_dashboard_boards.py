"""Boards are invited and let in by the HTTP API, on a gateway's own machine, by operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fogmqtt.cli.site_boards import FileSiteBoards, open_site_boards
from fogmqtt.joining.asking import Applications
from fogmqtt.joining.bundle import JoinCode, read_invitation, utc_now
from fogmqtt.joining.membership import Membership
from fogmqtt.joining.site import Site
from tests.unit.test_asking import asked_by
from tests.unit.test_dashboard_access import FAR, TOKENS, VIEWER, ask
from tests.unit.test_join_port import make_site

INVITATIONS = "/api/boards/invitations"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "fog")


def sent(site: Site, path: str, **body: str) -> Any:
    return ask("POST", path, body=json.dumps(body).encode(), boards=FileSiteBoards(site))


def state_of(site: Site) -> Any:
    return ask("GET", "/api/boards", boards=FileSiteBoards(site)).json


def test_an_invitation_has_the_lines_and_a_qr_code(site: Site) -> None:
    answer = sent(site, INVITATIONS, board="eya")
    assert answer.status == 201
    invited = answer.json
    code = read_invitation(invited["code"], "code")
    assert isinstance(code, JoinCode)
    assert code.id == "eya"
    assert invited["install"].endswith(f"&& sudo sh join.sh {code}")
    assert invited["join"] == f"fog-device --id eya --join {code}"
    assert {len(row) for row in invited["qr"]} == {len(invited["qr"])}
    assert set(invited["qr"][0]) == {"0"}  # the margin
    state = state_of(site)
    assert state["invited"] == ["eya"]
    assert code.token not in str(state)


def test_a_board_that_asks_is_let_in_by_its_code(site: Site) -> None:
    assert sent(site, "/api/boards/asking").json["asking_until"] > utc_now().isoformat()
    membership = Applications(site, Membership(site))
    first, second = asked_by("eya")
    membership.begin(first, "192.0.2.7", utc_now())
    membership.answer(second, utc_now())
    (applicant,) = state_of(site)["applicants"]
    assert (applicant["board"], applicant["address"]) == ("eya", "192.0.2.7")
    wrong = "000-000" if applicant["code"] != "000-000" else "111-111"
    assert sent(site, "/api/boards/accepted", board="eya", code=wrong).status == 409
    state = sent(site, "/api/boards/accepted", board="eya", code=applicant["code"]).json
    assert state["joined"] == ["eya"]
    assert "applicants" not in state or not state["applicants"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/boards"),
        ("POST", INVITATIONS),
        ("POST", "/api/boards/asking"),
        ("POST", "/api/boards/accepted"),
    ],
)
def test_a_viewer_sees_nothing_of_invitations(site: Site, method: str, path: str) -> None:
    body = b'{"board": "eya"}'
    answer = ask(
        method, path, VIEWER, peer=FAR, tokens=TOKENS, body=body, boards=FileSiteBoards(site)
    )
    assert (answer.status, answer.problem) == (403, "viewer")
    assert not site.ledger.read().invitations


def test_a_taken_name_is_told_and_a_bad_one_refused(site: Site) -> None:
    Membership(site).make_offline("eya", utc_now(), replaces=False)
    refused = sent(site, INVITATIONS, board="eya")
    assert refused.status == 409
    assert "eya is joined since" in refused.json["detail"]
    assert sent(site, INVITATIONS, board="../eya").status == 400


def test_a_page_elsewhere_invites_nobody() -> None:
    assert open_site_boards("") is None
    answer = ask("GET", "/api/boards")
    assert (answer.status, answer.problem) == (404, "not-found")
