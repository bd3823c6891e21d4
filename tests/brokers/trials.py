"""The suite: six trials, a to f, of what must work on every broker."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import cv2
import numpy as np

from fogmqtt.errors import WireError
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import Decoder, JobStatus, Result
from fogmqtt.wire.topics import OFFLINE
from tests.brokers.site import Site
from tests.fog import Probe
from tests.processes import DEVICES, Fog, Program, edges_of, photo, read, same

Kind = Literal["ok", "limit", "fault"]
#: Seconds for one job; the restart of a slow broker is part of it.
JOB_S: Final = 150.0
#: Seconds for a message that should be there.
MESSAGE_S: Final = 30.0
#: Seconds for a retained message; a broker sends it with the subscription.
RETAINED_S: Final = 5.0
_EDGES: Final = "gray | canny"
_SUBMISSIONS: Final = 12


@dataclass(frozen=True)
class Outcome:
    """What a trial found. A limit is the broker's; a fault is one that nobody explains."""

    kind: Kind
    text: str


class BrokerLimit(Exception):
    """The broker does not have what a trial needs; the text says what."""


def every_qos_and_encoding(site: Site) -> str:
    """a: `run --verify` with three devices over QoS 0, 1 and 2 and both encodings."""
    image = _save(site, photo())
    expected = edges_of(image)
    highest, fewest = site.broker.max_qos, len(DEVICES)
    with site.fog() as fog:
        site.fleet(fog)
        for qos in range(highest + 1):
            for encoding in ("binary", "base64"):
                ran = fog.run(
                    *(image, "-o", "out.png", "--verify", "--pipeline", _EDGES),
                    *("--tiles", "size 80x80"),
                    WIRE__QOS=str(qos),
                    WIRE__ENCODING=encoding,
                )
                what = f"QoS {qos}, {encoding}"
                assert same(read(site.folder / "out.png"), expected), f"{what}: wrong pixels"
                fewest = min(fewest, len(ran.report["devices"]))
    found = "exact" if highest == 2 else f"exact; no QoS {highest + 1}"
    return found if fewest > 1 else f"{found}; a short run may begin with one device"


def stock_clients(site: Site) -> str:
    """b: a serving gateway, an image by mosquitto_pub, the result by mosquitto_sub."""
    image = _save(site, photo())
    with site.fog() as fog:
        site.fleet(fog)
        site.serve(fog, "mariem")
        reply = site.topic("replies/me/image")
        listen = site.stock("mosquitto_sub", "-d", "-C", "1", "-q", "1", "-t", reply)
        listener = _start(fog, ["stdbuf", "-oL", *listen, "-F", "%t %x"], "mosquitto_sub")
        listener.says("SUBACK")
        topic = site.topic("submit/edges/me")
        submit = site.stock("mosquitto_pub", "-q", "1", "-t", topic, "-f", str(image))
        sent = subprocess.run(submit, capture_output=True, text=True, timeout=60, check=False)
        assert sent.returncode == 0, f"mosquitto_pub: {sent.stderr}"
        assert listener.ended(within=JOB_S) == 0, "mosquitto_sub heard no result"
        (line,) = (one for one in listener.said.splitlines() if one.startswith(f"{reply} "))
    result = np.frombuffer(bytes.fromhex(line.split()[1]), np.uint8)
    assert same(cv2.imdecode(result, cv2.IMREAD_UNCHANGED), edges_of(image)), "wrong pixels"
    return "exact"


def killed_device(site: Site) -> str:
    """c: a device is killed with kill -9 in the middle of a job."""

    def kill(fleet: dict[str, Program]) -> None:
        fleet[DEVICES[-1]].kill()

    return _disturbed(site, kill)


def restarted_broker(site: Site) -> str:
    """d: the broker is killed with kill -9 and started again in the middle of a job."""

    def restart(fleet: dict[str, Program]) -> None:
        del fleet
        site.broker.kill()
        site.broker.restart()

    return _disturbed(site, restart)


def last_will(site: Site) -> str:
    """e: a killed device is offline for whoever listens, and for whoever comes later."""
    name = DEVICES[0]
    status, every = f"devices/{name}/status", "devices/+/status"
    with site.fog() as fog:
        with site.probe(status) as client:
            device = fog.device(name)
            device.says(f"{name} is online")
            device.kill()
            while client.message(site.topic(status), within=MESSAGE_S).payload != OFFLINE:
                pass
        missing = []
        for node in range(len(site.broker.urls)):
            for wanted, how in ((status, "for its topic"), (every, "for wildcards")):
                with site.probe(wanted, node=node, client_id=f"late-{node}") as late:
                    if not _hears_offline(late, site.topic(status)):
                        missing.append(how if node == 0 else f"{how} at the other node")
    if missing:
        raise BrokerLimit(f"the will comes, but is not retained {' and '.join(missing)}")
    return "ok"


def two_gateways(site: Site) -> str:
    """f: two gateways with one `gateway.group` share submissions: each is done once."""
    image = _save(site, photo(120, 160))
    expected, payload = edges_of(image), image.read_bytes()
    names = [f"r{at}" for at in range(_SUBMISSIONS)]
    gateways = "mariem", "salma"
    with site.fog() as fog:
        site.fleet(fog)
        last = len(site.broker.urls) - 1
        for gateway, node in zip(gateways, (0, last), strict=True):
            site.serve(fog, gateway, node)
        filters = "replies/+/image", "replies/+/status", "jobs/+/status"
        with site.probe(*filters) as client:
            for name in names:
                client.publish(site.topic(f"submit/edges/{name}"), payload)
            heard = _Heard(client, site)
            heard.until(lambda: set(heard.images) == set(names))
            heard.until(lambda: heard.answered == heard.ended == heard.accepted)
    for data in heard.results:
        result = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert same(result, expected), "wrong pixels"
    most = max(heard.images.values())
    if most == 1:
        share = ", ".join(f"{heard.gateways[name]} by {name}" for name in gateways)
        return f"each once ({share})"
    assert most == len(gateways), f"an image was done {most} times"
    raise BrokerLimit(f"every image twice: {_why_twice(site)}")


Trial = Callable[[Site], str]
TRIALS: Final[dict[str, Trial]] = {
    "a": every_qos_and_encoding,
    "b": stock_clients,
    "c": killed_device,
    "d": restarted_broker,
    "e": last_will,
    "f": two_gateways,
}


class _Heard:
    """What comes on the topics of replies and jobs."""

    def __init__(self, client: Probe, site: Site) -> None:
        self._client, self._site = client, site
        self._decoder = Decoder(JobStatus)
        #: How often each submission was answered, and the jobs of each gateway.
        self.images: Counter[str] = Counter()
        self.gateways: Counter[str] = Counter()
        self.results: list[bytes] = []
        self.accepted: set[str] = set()
        #: Jobs whose last reply came, and jobs whose own topic says that they are done.
        self.answered: set[str] = set()
        self.ended: set[str] = set()

    def until(self, found: Callable[[], bool]) -> None:
        while not found():
            self._take(self._client.inbox.take(Received, within=JOB_S))

    def _take(self, message: Received) -> None:
        levels = self._site.topics.levels(message.topic)
        if levels[-1] == "image":
            self.images[levels[1]] += 1
            self.results.append(bytes(message.payload))
            return
        if not message.payload:
            return
        status = self._decoder.decode(message.payload)
        assert status.state != "failed", status.error
        self.accepted.add(status.job)
        if status.state != "done":
            return
        if levels[0] == "replies":
            self.answered.add(status.job)
        elif status.job not in self.ended:
            self.ended.add(status.job)
            self.gateways[status.gateway] += 1


def _disturbed(site: Site, disturb: Callable[[dict[str, Program]], None]) -> str:
    """Disturb a job when the device that is last in the fleet has done its second tile."""
    image = _save(site, photo(960, 1280))
    report = site.folder / "report.json"
    with site.fog() as fog:
        fleet = site.fleet(fog, slow=True)
        with site.probe(f"gateways/+/results/{DEVICES[-1]}") as client:
            run = fog.start_run(
                *(image, "-o", "out.png", "--pipeline", _EDGES, "--tiles", "size 128x128"),
                *("--report", report, "--timeout", str(JOB_S)),
            )
            for _ in range(2):
                _next_result(client)
        assert run.running, "the job was over before it was disturbed"
        disturb(fleet)
        assert run.ended(within=JOB_S) == 0, f"the job failed: {run.said[-800:]}"
    assert same(read(site.folder / "out.png"), edges_of(image)), "wrong pixels"
    return f"exact, {json.loads(report.read_text())['seconds']:.0f} s"


def _next_result(client: Probe) -> None:
    decoder = Decoder(Result)
    while True:
        message = client.inbox.take(Received, within=MESSAGE_S)
        try:
            decoder.decode(message.payload)
        except WireError:
            continue  # an `accepted`
        return


def _hears_offline(client: Probe, topic: str) -> bool:
    try:
        return client.message(topic, within=RETAINED_S).payload == OFFLINE
    except AssertionError:
        return False


def _why_twice(site: Site) -> str:
    if site.broker.protocol != 5:
        return "MQTT 3.1.1 has no shared subscriptions"
    return "this broker has no shared subscriptions"


def _save(site: Site, image: np.ndarray) -> Path:
    path = site.folder / "in.png"
    assert cv2.imwrite(str(path), image)
    return path


def _start(fog: Fog, command: list[str], name: str) -> Program:
    log = fog.folder / f"{name}.log"
    with log.open("ab") as out:
        program = Program(subprocess.Popen(command, stdout=out, stderr=out), log)
    fog.programs.append(program)
    return program
