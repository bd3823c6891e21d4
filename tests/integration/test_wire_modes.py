"""Every protocol version, QoS, encoding and codec gives the same pixels, also in mixed fleets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fogmqtt.images.spec import Image
from tests.processes import Fog, edges_of, fog_at, photo, private_fog, read, same

pytestmark = [pytest.mark.broker, pytest.mark.proof]

#: One device for each protocol and quality of service, all in one fleet.
MIXED = {
    f"{name}{qos}": (protocol, qos)
    for name, protocol in (("new", "5"), ("old", "3.1.1"))
    for qos in ("0", "1", "2")
}


@pytest.fixture(scope="module")
def mixed(broker: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fog]:
    del broker  # skips or fails where Mosquitto is missing
    with private_fog(tmp_path_factory.mktemp("mixed")) as fog:
        started = [
            fog.device(name, BROKER__PROTOCOL=protocol, WIRE__QOS=qos)
            for name, (protocol, qos) in MIXED.items()
        ]
        for name, device in zip(MIXED, started, strict=True):
            device.says(f"{name} is online")
        yield fog


@pytest.fixture(scope="module")
def picture(mixed: Fog) -> tuple[Path, Image]:
    path = mixed.save("in.jpg", photo())
    return path, edges_of(path)


@pytest.mark.parametrize("encoding", ["binary", "base64"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_every_protocol_qos_and_encoding_is_exact(
    mixed: Fog, picture: tuple[Path, Image], protocol: str, qos: str, encoding: str
) -> None:
    path, expected = picture
    ran = mixed.run(
        *(path, "-o", "out.png", "--tiles", "size 80x80"),
        BROKER__PROTOCOL=protocol,
        WIRE__QOS=qos,
        WIRE__ENCODING=encoding,
    )
    assert same(read(mixed.folder / "out.png"), expected)
    assert len(ran.report["devices"]) > 1


@pytest.mark.parametrize("codec", ["auto", "raw", "png"])
def test_every_codec_is_exact(mixed: Fog, picture: tuple[Path, Image], codec: str) -> None:
    path, expected = picture
    mixed.run(path, "-o", "out.png", "--tiles", "grid 3x3", WIRE__CODEC=codec)
    assert same(read(mixed.folder / "out.png"), expected)


def test_fleets_with_different_prefixes_are_separate(
    mixed: Fog, picture: tuple[Path, Image], tmp_path: Path
) -> None:
    path, expected = picture
    with fog_at(tmp_path, mixed.broker, WIRE__PREFIX="attic/fog") as attic:
        apart = attic.device("apart")
        apart.says("apart is online")
        ran = attic.run(path, "-o", "out.png", "--tiles", "grid 2x2")
        assert set(ran.report["devices"]) == {"apart"}
        assert same(read(tmp_path / "out.png"), expected)


def test_tiles_respect_the_brokers_packet_limit(broker: object, tmp_path: Path) -> None:
    del broker
    with private_fog(tmp_path, "max_packet_size 60000") as fog:
        fog.fleet("eya")
        path = fog.save("in.png", photo())
        ran = fog.run(path, "-o", "out.png", "--timeout", "30")
        assert ran.report["tiles"] > 5
        assert same(read(tmp_path / "out.png"), edges_of(path))
