"""A board without an invitation asks to join, at a real join port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from fogmqtt.errors import JoinRefused
from fogmqtt.joining import board as joining_board
from fogmqtt.joining.asking import Applications, AskRequest, commitment, short_code
from fogmqtt.joining.authority import make_request, new_key
from fogmqtt.joining.board import ask
from fogmqtt.joining.bundle import utc_now
from fogmqtt.joining.identity import Identity, load_identity
from fogmqtt.joining.ledger import MOST_ASKED
from fogmqtt.joining.membership import Membership
from fogmqtt.joining.site import Site
from tests.fog import wait_for
from tests.unit.test_join_port import listens, make_site, opened, site

__all__ = ["opened", "site"]

MINUTES = timedelta(minutes=10)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_board, "_ASK_AGAIN_S", 0.05)


@dataclass
class Asking:
    """A board that asks in a thread."""

    code: str
    ended: Future[Identity]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


def begin(pool: ThreadPoolExecutor, site: Site, folder: Path) -> Asking:
    shown, codes = threading.Event(), []

    def show(url: str, code: str) -> None:
        assert url in site.join_urls
        codes.append(code)
        shown.set()

    ended = pool.submit(ask, "eya", site.join_urls, folder, show)
    assert shown.wait(30)
    return Asking(codes[0], ended)


def let_ask(site: Site) -> None:
    Membership(site).let_ask(utc_now() + MINUTES)
    wait_for(lambda: listens(site), what="the join port", within=30)


def asked_by(board: str) -> tuple[AskRequest, AskRequest]:
    """The two requests of a board."""
    request = make_request(new_key(), board)
    first = AskRequest(id=board, request=request, commitment=commitment(request, "a" * 32))
    return first, AskRequest(id=board, request=request, commitment=first.commitment, nonce="a" * 32)


def test_a_board_is_let_in_when_both_sides_show_one_code(
    opened: Site, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    let_ask(opened)
    asking = begin(pool, opened, tmp_path / "board")
    applicant = opened.ledger.read().asking("eya", utc_now())
    assert applicant.code == asking.code
    assert applicant.address == "127.0.0.1"
    Membership(opened).accept("eya", utc_now())
    identity = asking.ended.result(30)
    found = load_identity("eya", (tmp_path / "board",))
    assert found is not None
    assert found[0] == identity
    assert identity.gateway == "mariem"
    assert list(opened.ledger.read().members) == ["eya"]
    assert "user eya\n" in (opened.broker / "acl").read_text()


def test_no_board_may_ask_unless_somebody_lets_boards_ask(opened: Site) -> None:
    membership = Applications(opened, Membership(opened))
    first, _ = asked_by("eya")
    with pytest.raises(JoinRefused, match="lets boards in by invitation"):
        membership.begin(first, "127.0.0.1", utc_now())
    let_ask(opened)
    with pytest.raises(JoinRefused, match="lets boards in by invitation"):
        membership.begin(first, "127.0.0.1", utc_now() + 2 * MINUTES)


def test_two_boards_of_one_name_are_both_kept_out(
    opened: Site, pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    let_ask(opened)
    asking = begin(pool, opened, tmp_path / "one")
    with pytest.raises(JoinRefused, match="two boards ask as eya"):
        ask("eya", opened.join_urls, tmp_path / "two", lambda url, code: None)
    with pytest.raises(JoinRefused, match="eya asks no more"):
        asking.ended.result(30)
    with pytest.raises(JoinRefused, match="eya does not ask"):
        Membership(opened).accept("eya", utc_now())


def test_a_flood_of_boards_that_ask_ends_and_invited_boards_are_not_held_up(site: Site) -> None:
    Membership(site).let_ask(utc_now() + MINUTES)
    membership = Applications(site, Membership(site))
    for number in range(MOST_ASKED):
        membership.begin(asked_by(f"b{number}")[0], "127.0.0.1", utc_now())
    with pytest.raises(JoinRefused, match=f"{MOST_ASKED} boards have asked already"):
        membership.begin(asked_by("eya")[0], "127.0.0.1", utc_now())
    assert len(site.ledger.read().applicants) == MOST_ASKED
    Membership(site).let_ask(utc_now() + MINUTES)
    membership.begin(asked_by("eya")[0], "127.0.0.1", utc_now())
    assert list(site.ledger.read().applicants) == ["eya"]


def test_a_board_cannot_change_its_number_after_it_knows_that_of_the_gateway(site: Site) -> None:
    Membership(site).let_ask(utc_now() + MINUTES)
    membership = Applications(site, Membership(site))
    first, second = asked_by("eya")
    membership.begin(first, "127.0.0.1", utc_now())
    other = AskRequest(
        id="eya", request=second.request, commitment=second.commitment, nonce="b" * 32
    )
    with pytest.raises(JoinRefused, match="eya asks no more"):
        membership.answer(other, utc_now())
    assert membership.answer(second, utc_now()) is None


def test_a_board_that_nobody_lets_in_in_time_is_told(site: Site) -> None:
    Membership(site).let_ask(utc_now() + MINUTES)
    membership = Applications(site, Membership(site))
    first, second = asked_by("eya")
    membership.begin(first, "127.0.0.1", utc_now())
    assert membership.answer(second, utc_now()) is None
    with pytest.raises(JoinRefused, match="nobody let it in"):
        membership.answer(second, utc_now() + 2 * MINUTES)


def test_a_name_that_is_taken_is_refused_with_the_way_out(site: Site) -> None:
    Membership(site).make_offline("eya", utc_now(), replaces=False)
    Membership(site).let_ask(utc_now() + MINUTES)
    with pytest.raises(JoinRefused, match="to replace that board: fog-gateway invite --replace"):
        Applications(site, Membership(site)).begin(asked_by("eya")[0], "127.0.0.1", utc_now())


def test_somebody_in_between_shows_another_code(tmp_path: Path) -> None:
    ours, theirs = make_site(tmp_path / "ours"), make_site(tmp_path / "theirs")
    request, other = make_request(new_key(), "eya"), make_request(new_key(), "eya")
    code = short_code(ours.authority.pem, request, "a", "b")
    assert len(code) == 7
    assert code[:3].isdigit()
    assert code == short_code(ours.authority.pem, request, "a", "b")
    assert code != short_code(theirs.authority.pem, request, "a", "b")
    assert code != short_code(ours.authority.pem, other, "a", "b")
