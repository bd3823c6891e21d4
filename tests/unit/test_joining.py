"""Invitations and certificates: who gets in once, and what everybody else is told."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from fogmqtt.errors import BadInvitation, ConfigError, JoinRefused, UsageError
from fogmqtt.joining import authority as certificates
from fogmqtt.joining.authority import Authority, make_request, new_key
from fogmqtt.joining.bundle import (
    JoinBundle,
    JoinCode,
    new_token,
    pin_of,
    read_invitation,
    signature,
)
from fogmqtt.joining.ledger import Ledger, LedgerFile, Member
from fogmqtt.joining.private_file import write_private

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.make("mariem", NOW)[0]


@pytest.fixture(scope="module")
def key() -> str:
    return new_key()


@pytest.fixture
def bundle(authority: Authority) -> JoinBundle:
    return JoinBundle(
        fogmqtt=1,
        id="eya",
        gateway="mariem",
        prefix="fog/v1",
        brokers=("mqtts://mariem.local:8883",),
        join=("https://192.168.1.10:8884",),
        ca=authority.pem,
        token=new_token(),
        expires=NOW + DAY,
    )


# The file and the line.


def test_a_file_is_read_as_it_was_written_and_has_about_a_kilobyte(bundle: JoinBundle) -> None:
    data = bundle.encode()
    assert read_invitation(data.decode(), "eya.fog") == bundle
    assert len(data) < 1_200


def test_a_line_is_62_characters_of_the_small_alphabet_of_qr_codes(bundle: JoinBundle) -> None:
    line = str(bundle.code)
    assert len(line) == 62
    assert set(line) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
    assert read_invitation(line, "--join") == bundle.code


def test_a_line_may_be_typed_in_small_letters_and_with_blanks_around(bundle: JoinBundle) -> None:
    assert read_invitation(f" {str(bundle.code).lower()}\n", "--join") == bundle.code


@pytest.mark.parametrize("length", [1, 60, 300, 700])
def test_a_file_that_is_cut_off_is_named(bundle: JoinBundle, length: int) -> None:
    text = bundle.encode()[:length].decode()
    with pytest.raises(BadInvitation, match=r"eya\.fog: the file is cut off or damaged"):
        read_invitation(text, "eya.fog")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("FOG1:EYA", "cut off: 2 parts"),
        ("FOG1:EYA:AAAAAAAAAAAAAAAAAAAAAAAAAA:BBB", "the fourth part of the code has 3 char"),
        ("FOG1:EYA:AAAAAAAAAAAAAAAAAAAAAAAAA1:" + 26 * "B", "the third part"),
        ("FOG1:E YA:" + 26 * "A" + ":" + 26 * "B", "is not the name of a board"),
        ("https://example.org/", "is no file and no code"),
        ("", "is no file and no code"),
    ],
)
def test_a_line_that_is_none_says_what_is_wrong(line: str, said: str) -> None:
    with pytest.raises(BadInvitation, match=said):
        read_invitation(line, "--join")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("fogmqtt", 2, "an invitation of version 2, and this program knows 1"),
        ("ca", "-----BEGIN CERTIFICATE-----\nMIIB", "the certificate in it is cut off"),
        ("id", "../../etc", "is not the name of a board"),
        ("gateway", "\x1b[2J", "is not the name of a board"),
        ("token", "", "no token or no address"),
        ("join", (), "no token or no address"),
    ],
)
def test_a_file_of_another_kind_says_what_is_wrong(
    bundle: JoinBundle, field: str, value: object, said: str
) -> None:
    changed = JoinBundle(
        **{name: getattr(bundle, name) for name in bundle.__struct_fields__} | {field: value}
    )
    with pytest.raises(BadInvitation, match=said):
        read_invitation(changed.encode().decode(), "eya.fog")


def test_a_file_that_is_json_of_somebody_else_is_refused() -> None:
    with pytest.raises(BadInvitation, match="not an invitation of fogmqtt"):
        read_invitation('{"name": "package"}', "package.json")


def test_two_authorities_have_two_pins(authority: Authority) -> None:
    other = Authority.make("mariem", NOW)[0]
    assert pin_of(other.pem) != pin_of(authority.pem)


# Who was invited.


def asked(ledger: Ledger, code: JoinCode, key: str, now: datetime) -> str:
    """Let a board use its invitation; returns its request."""
    request = make_request(key, code.id)
    signed = signature(code.token, code.id, request)
    invitation = ledger.check(code.id, request, signed, now)
    ledger.join(invitation, 17, now + 825 * DAY, now, "192.168.1.23")
    return request


def code_of(ledger: Ledger, device: str = "eya") -> JoinCode:
    return JoinCode(device, "A" * 26, ledger.invitations[-1].token)


def test_an_invitation_is_open_for_a_day_and_is_used_once(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    asked(ledger, code_of(ledger), key, NOW + DAY / 2)
    assert ledger.members["eya"].serial == 17


def test_a_second_use_is_refused_and_the_first_one_is_named(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    code = code_of(ledger)
    asked(ledger, code, key, NOW)
    local = NOW.astimezone().strftime("%Y-%m-%d %H:%M")
    with pytest.raises(JoinRefused, match=f"was used {local} from 192.168.1.23"):
        asked(ledger, code, new_key(), NOW + DAY / 4)


def test_a_request_that_somebody_repeats_is_a_second_use(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    code = code_of(ledger)
    request = asked(ledger, code, key, NOW)
    with pytest.raises(JoinRefused, match="was used"):
        ledger.check("eya", request, signature(code.token, "eya", request), NOW)


def test_an_invitation_ends_by_the_gateways_clock(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    with pytest.raises(JoinRefused, match=r"ended .* by the gateway's clock, which says"):
        asked(ledger, code_of(ledger), key, NOW + DAY)


def test_a_token_of_another_gateway_is_unknown(key: str) -> None:
    ledger, other = Ledger(), Ledger()
    ledger.invite("eya", NOW, DAY)
    other.invite("eya", NOW, DAY)
    with pytest.raises(JoinRefused, match="no such invitation for eya; make one: fog-gateway inv"):
        asked(ledger, code_of(other), key, NOW)
    assert ledger.invitations[0].state(NOW) == "open"


def test_a_board_that_says_another_name_is_told_its_own(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    token = ledger.invitations[0].token
    with pytest.raises(JoinRefused, match="is for eya, not for manar"):
        asked(ledger, JoinCode("manar", "A" * 26, token), key, NOW)


def test_a_token_signs_one_request_only(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    signed = signature(ledger.invitations[0].token, "eya", make_request(key, "eya"))
    with pytest.raises(JoinRefused, match="no such invitation"):
        ledger.check("eya", make_request(new_key(), "eya"), signed, NOW)


def test_a_withdrawn_invitation_says_so(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    ledger.revoke("eya", NOW)
    with pytest.raises(JoinRefused, match="was withdrawn"):
        asked(ledger, code_of(ledger), key, NOW)


def test_a_new_invitation_ends_the_older_one(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    older = code_of(ledger)
    ledger.invite("eya", NOW, DAY)
    with pytest.raises(JoinRefused, match="was withdrawn"):
        asked(ledger, older, key, NOW)
    asked(ledger, code_of(ledger), key, NOW)


def test_a_name_that_is_taken_says_since_when_and_how_to_replace_it(key: str) -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    asked(ledger, code_of(ledger), key, NOW)
    with pytest.raises(UsageError, match=r"eya is joined since 2026.*invite --replace eya"):
        ledger.invite("eya", NOW, DAY)


def test_a_board_that_replaces_another_revokes_it_when_it_joins(key: str) -> None:
    ledger = Ledger()
    ledger.add(Member(id="eya", serial=5, joined=NOW, expires=NOW + DAY))
    ledger.invite("eya", NOW, DAY, replaces=True)
    assert not ledger.revocations
    asked(ledger, code_of(ledger), key, NOW)
    assert [one.serial for one in ledger.revocations] == [5]
    assert ledger.members["eya"].serial == 17


def test_boards_are_awaited_until_the_time_of_an_invitation_is_over(key: str) -> None:
    ledger = Ledger()
    assert not ledger.is_awaited(NOW)
    ledger.invite("eya", NOW, DAY)
    asked(ledger, code_of(ledger), key, NOW)
    assert ledger.is_awaited(NOW + DAY / 2)
    assert not ledger.is_awaited(NOW + DAY)
    ledger.invite("manar", NOW, DAY)
    ledger.withdraw("manar", NOW)
    assert not ledger.is_awaited(NOW + DAY)


@pytest.mark.parametrize("time", [timedelta(0), 8 * DAY, -DAY])
def test_an_invitation_is_open_for_a_week_at_most(time: timedelta) -> None:
    with pytest.raises(UsageError, match="up to 7 days"):
        Ledger().invite("eya", NOW, time)


def test_ended_invitations_are_forgotten_after_a_month() -> None:
    ledger = Ledger()
    ledger.invite("eya", NOW, DAY)
    ledger.invite("manar", NOW + 60 * DAY, DAY)
    assert [one.id for one in ledger.invitations] == ["manar"]


def test_only_the_newest_certificate_of_a_member_is_renewed() -> None:
    ledger = Ledger()
    ledger.add(Member(id="eya", serial=5, joined=NOW, expires=NOW + DAY))
    ledger.renew("eya", 5, 6, NOW + 2 * DAY)
    assert ledger.members["eya"].serial == 6
    with pytest.raises(JoinRefused, match="eya has no certificate of this gateway that counts"):
        ledger.renew("eya", 5, 7, NOW + 2 * DAY)


# The ledger on disk.


def test_the_ledger_survives_and_is_private(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json")
    with file.changing() as ledger:
        ledger.invite("eya", NOW, DAY)
    assert LedgerFile(file.path).read() == ledger
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_request_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json")
    with file.changing():
        pass
    before = file.path.stat().st_ino
    with file.changing() as ledger:
        ledger.revoke("eya", NOW)
    assert file.path.stat().st_ino == before


def test_a_change_that_fails_leaves_the_ledger_as_it_was(tmp_path: Path) -> None:
    file = LedgerFile(tmp_path / "ledger.json")
    with file.changing() as ledger:
        ledger.invite("eya", NOW, DAY)

    def fail() -> None:
        with file.changing() as ledger:
            ledger.invitations.clear()
            raise UsageError("no")

    with pytest.raises(UsageError):
        fail()
    assert len(file.read().invitations) == 1


def test_a_damaged_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("{")
    with pytest.raises(ConfigError, match=r"ledger\.json is damaged"):
        LedgerFile(tmp_path / "ledger.json").read()


# Certificates.


def test_a_boards_certificate_has_its_name_and_begins_years_ago(
    authority: Authority, key: str
) -> None:
    signed = authority.sign_board(make_request(key, "eya"), "eya", NOW)
    found = x509.load_pem_x509_certificate(signed.pem.encode())
    assert found.subject.rfc4514_string() == "CN=eya"
    assert found.not_valid_before_utc < NOW - 4 * 365 * DAY
    assert signed.expires == found.not_valid_after_utc == NOW + 825 * DAY
    assert signed.serial == found.serial_number


def test_a_request_for_another_name_is_refused(authority: Authority, key: str) -> None:
    with pytest.raises(JoinRefused, match="does not name eya"):
        authority.sign_board(make_request(key, "mariem"), "eya", NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:100],
        lambda _: "",
        lambda _: "x" * 10_000,
        lambda text: text[:80] + ("A" if text[80] != "A" else "B") + text[81:],
    ],
    ids=["cut off", "empty", "too large", "changed"],
)
def test_a_request_that_is_damaged_is_refused(authority: Authority, key: str, change) -> None:
    with pytest.raises(JoinRefused, match=r"damaged|too large|not signed|does not name"):
        authority.sign_board(change(make_request(key, "eya")), "eya", NOW)


def test_a_brokers_certificate_has_all_its_names(authority: Authority, key: str) -> None:
    names = ("mariem", "mariem.local", "192.168.1.10", "::1", "localhost")
    signed = authority.sign_server(make_request(key, "mariem"), names, NOW)
    assert certificates.names_of(signed.pem) == set(names)


def test_the_list_of_revoked_certificates_never_gets_too_old(authority: Authority) -> None:
    found = x509.load_pem_x509_crl(authority.revocations([5, 6]).encode())
    assert [one.serial_number for one in found] == [5, 6]
    assert found.next_update_utc is not None
    assert found.next_update_utc >= NOW + 3650 * DAY


def test_no_certificate_outlives_the_authority(authority: Authority, key: str) -> None:
    late = NOW + 3600 * DAY
    signed = authority.sign_board(make_request(key, "eya"), "eya", late)
    assert signed.expires == certificates.end_of(authority.pem)


def test_a_file_that_replaces_another_is_never_readable_by_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        write_private(tmp_path / "key", b"one")
        write_private(tmp_path / "key", b"two")
    finally:
        os.umask(old)
    assert (tmp_path / "key").read_bytes() == b"two"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
