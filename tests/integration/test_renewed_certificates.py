"""Certificates that are renewed on disk are read at the next connection."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from fogmqtt.transport.base import Connected, Disconnected
from fogmqtt.transport.link import Link
from fogmqtt.transport.paho import PahoTransport
from tests.fog import Inbox, RealBroker
from tests.processes import Fog, Program, edges_of, fog_at, photo, read, same, until

SCRIPT = Path(__file__).parents[2] / "broker" / "make-certs.sh"


def make_certificates(folder: Path) -> None:
    """Make a new authority with certificates of a broker and a client, in place of others."""
    shutil.rmtree(folder, ignore_errors=True)
    for arguments in (("broker", "localhost"), ("client", "eya")):
        environ = os.environ | {"FOGMQTT_CERTS": str(folder)}
        subprocess.run([SCRIPT, *arguments], check=True, env=environ)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    if os.geteuid() == 0:
        for part in (tmp_path, *tmp_path.parents[:2]):  # mosquitto gives up root's rights
            part.chmod(0o755)
    folder = tmp_path / "certs"
    make_certificates(folder)
    return folder


@pytest.fixture
def secure(broker: object, certs: Path, tmp_path: Path) -> Iterator[RealBroker]:
    """A broker that admits clients with a certificate of its authority."""
    del broker
    files = f"cafile {certs}/ca.crt\ncertfile {certs}/broker.crt\nkeyfile {certs}/broker.key\n"
    (tmp_path / "broker").mkdir()
    made = RealBroker(tmp_path / "broker", more=f"{files}require_certificate true\n")
    made.start()
    yield made
    made.kill()


def url_of(secure: RealBroker) -> str:
    return f"mqtts://localhost:{secure.port}"


def client_files(certs: Path) -> dict[str, str]:
    names = {"ca": "ca.crt", "cert": "eya.crt", "key": "eya.key"}
    return {key: str(certs / name) for key, name in names.items()}


@pytest.fixture
def fog(secure: RealBroker, certs: Path, tmp_path: Path) -> Iterator[Fog]:
    files = {f"BROKER__{key.upper()}": path for key, path in client_files(certs).items()}
    with fog_at(tmp_path, secure, BROKER__URL=url_of(secure), **files) as made:
        yield made


def renew(secure: RealBroker, certs: Path) -> None:
    """Replace all certificates while the broker is down."""
    secure.kill()
    make_certificates(certs)
    secure.start()


def said_twice(program: Program) -> bool:
    return program.said.count("is online at") == 2


def test_gateway_and_device_connect_with_renewed_certificates(
    fog: Fog, secure: RealBroker, certs: Path
) -> None:
    programs = fog.serve(GATEWAY__DELIVER="outbox"), *fog.fleet("eya")
    renew(secure, certs)
    for program in programs:
        until(partial(said_twice, program), "the second connection")
    image = fog.save("in.png", photo(200, 300))
    fog.run(image, "-o", "out.png")
    assert same(read(fog.folder / "out.png"), edges_of(image))


def test_files_that_cannot_be_read_are_named_and_tried_again(
    secure: RealBroker, certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = Inbox()
    transport = PahoTransport(Link(url_of(secure), "x", **client_files(certs)), inbox.put)
    transport.start()
    inbox.take(Connected)
    whole = (certs / "eya.crt").read_bytes()
    (certs / "eya.crt").write_bytes(whole[:100])
    secure.kill()
    secure.start()
    inbox.take(Disconnected)
    inbox.take(Connected, within=20)
    assert "the earlier files are used until these can be read" in caplog.text
    transport.close()
