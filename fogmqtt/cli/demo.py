"""`fog-gateway demo`: a broker, three devices and a gateway on this machine, for one image."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import Popen

from rich.console import Console
from rich.table import Table

from fogmqtt.cli.async_program import run_async
from fogmqtt.cli.dashboard import can_listen, dashboard_beside, missing_packages
from fogmqtt.cli.outputs import Outputs, check_folder
from fogmqtt.cli.progress import Display, open_display
from fogmqtt.cli.run import show_event, write_trace
from fogmqtt.cli.signals import noted_signals
from fogmqtt.config import BrokerSettings, GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import JobFailed, UsageError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.background import Supervisor
from fogmqtt.gateway.broker_link import Connect
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.gateway.jobs.report import Report, format_differences
from fogmqtt.gateway.jobs.trace_values import JobTraceSnapshot
from fogmqtt.gateway.server.server import Server
from fogmqtt.images import files
from fogmqtt.images.mosaic import mosaic
from fogmqtt.parent import before_exec
from fogmqtt.setup.brokers import connector
from fogmqtt.transport.embedded import EmbeddedBroker

DEVICES = ("eya", "oumayma", "manar")
#: "Coffee" of scikit-image's data: Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0.
PHOTO = Path(__file__).with_name("photo.png")
PIPELINE = "gray | canny"
#: Seconds in which three devices must be online; a slow and busy machine needs most of them.
START_S = 30.0
#: Seconds in which a device process must end.
STOP_S = 10.0


def demo(
    config: GatewayConfig,
    image: Path | None,
    out: Path,
    console: Console,
    *,
    stays: bool = False,
    trace: Path | None = None,
) -> int:
    """Process an image with three devices; write edges.png and mosaic.png into `out`.

    `trace` is the file for the course of the job. With `stays`, the devices serve a page until
    Ctrl-C. Returns the exit code. Raises JobFailed, UsageError, and NoBroker if no broker can be
    started.
    """
    check_folder(out)
    if trace is not None and not trace.absolute().parent.is_dir():
        raise UsageError(f"--trace {trace}: there is no such folder; make it first")
    with noted_signals() as noted, ExitStack() as stack:
        broker = EmbeddedBroker.start(f"mqtt://127.0.0.1:{free_port()}")
        stack.callback(broker.stop)
        noted.check()
        console.print(f"broker   {broker.program} at {broker.url}", highlight=False)
        processes = [stack.enter_context(device_process(device, broker.url)) for device in DEVICES]
        console.print(f"devices  {', '.join(DEVICES)}: one process each", highlight=False)
        console.print(f"gateway  {config.gateway.id}: {PIPELINE}", highlight=False)
        display = open_display()
        stack.callback(display.close)
        config = replace(
            config,
            broker=BrokerSettings(url=broker.url, embedded="never"),
            # The gateway alone would finish before a device has its first tile.
            gateway=replace(config.gateway, local="never"),
        )
        outputs = DemoOutputs(Outputs(out / "edges.png", None, out / "edges.differ.png"))
        connect = connector(config, config.gateway.id, broker)
        outcome, course = run_async(
            _run(config, connect, outputs, image or PHOTO, processes, display)
        )
        if trace is not None:
            write_trace(trace, config.gateway.id, [course])
        display.close()
        code = _print(outcome, out, console)
        if stays:
            console.print(
                f"\nlook inside: mosquitto_sub {broker.client_options} "
                f"-t '{config.wire.prefix}/#' -F '%t, %l bytes'",
                highlight=False,
                soft_wrap=True,
            )
            _stay(config, connect, image or PHOTO, out, console)
        elif not missing_packages():
            console.print(
                "\nmake demo STAY=1 keeps the fleet, and shows it on a page in the browser"
            )
    return code


def _stay(
    config: GatewayConfig, connect: Connect, photo: Path, out: Path, console: Console
) -> None:
    """Serve a page until Ctrl-C. Its first job is the demo's image."""
    inbox = out / "inbox"
    listen = config.dashboard.listen
    if not can_listen(listen):
        listen = "127.0.0.1:0"
    config = replace(
        config,
        gateway=replace(
            config.gateway,
            deliver="outbox",
            inbox=str(inbox),
            outbox=str(out / "outbox"),
            spool=str(out / "spool"),
        ),
        dashboard=replace(config.dashboard, enabled="always", listen=listen),
        pipeline=PIPELINE,
    )
    dashboard = dashboard_beside(config)
    inbox.mkdir(parents=True, exist_ok=True)
    shutil.copy(photo, inbox / photo.name)
    logging.getLogger().setLevel(logging.INFO)
    console.print("\nthe fleet stays, and its page comes; Ctrl-C ends both")
    with suppress(KeyboardInterrupt):  # the normal end
        run_async(Server(config, connect, dashboard=dashboard).run())


@dataclass(frozen=True, slots=True)
class DemoOutputs:
    """Writes the result and a mosaic of the tiles."""

    outputs: Outputs

    def write(self, outcome: Outcome) -> Sequence[str]:
        """Write the files. Raises ImageError if a file cannot be written."""
        notes = self.outputs.write(outcome)  # it makes the folder
        if outcome.image is None or outcome.original is None or self.outputs.image is None:
            return notes
        picture = mosaic(outcome.original, outcome.image, outcome.report.mosaic)
        files.write(self.outputs.image.with_name("mosaic.png"), picture)
        return notes


async def _run(
    config: GatewayConfig,
    connect: Connect,
    outputs: DemoOutputs,
    photo: Path,
    processes: Sequence[Popen[bytes]],
    display: Display,
) -> tuple[Outcome, JobTraceSnapshot]:
    request = JobRequest(
        name=photo.name,
        path=photo,
        pages="first",
        pipeline=PIPELINE,
        tiles=parse_tile_plan(config.tiles),
        verify=True,
        deliver=outputs.write,
    )
    async with Supervisor() as supervisor, Gateway(config, config.gateway.id, connect) as gateway:
        supervisor.start(_watch(processes), "device processes")
        gateway.listen("terminal", partial(show_event, display))
        await _wait_for_devices(gateway)
        handle = gateway.submit(request)
        outcome = await handle.outcome()
        return outcome, handle.trace.snapshot()


async def _wait_for_devices(gateway: Gateway) -> None:
    """Wait until every device is online, for a bounded time."""
    with suppress(TimeoutError), gateway.events("demo") as events:
        async with asyncio.timeout(START_S):
            while len(gateway.online()) < len(DEVICES):
                await anext(events)


async def _watch(processes: Sequence[Popen[bytes]]) -> None:
    """Raise JobFailed as soon as a device's process has ended by itself."""
    while True:
        for process in processes:
            _check_alive(process)
        await asyncio.sleep(0.2)


def _print(outcome: Outcome, out: Path, console: Console) -> int:
    if outcome.image is None:
        raise JobFailed(outcome.error or "the demo has no result")
    report = outcome.report
    console.print()
    console.print(_device_table(report))
    console.print()
    console.print(f"{out / 'edges.png'}   the edges", highlight=False)
    console.print(f"{out / 'mosaic.png'}  the device of each tile", highlight=False)
    console.print(f"{report.name}: {report.tiles} tiles in {report.seconds:.2f} s", highlight=False)
    console.print(format_differences(report), highlight=False)
    return 1 if report.differ else 0


@contextmanager
def device_process(device: str, url: str, *arguments: str) -> Iterator[Popen[bytes]]:
    """Run a device process during the block. SIGTERM ends it, and SIGKILL if it does not stop."""
    command = [
        sys.executable,
        "-m",
        "fogmqtt.cli.device",
        "--id",
        device,
        "--broker",
        url,
        *arguments,
    ]
    # In a session of its own: Ctrl-C reaches only this program, which then ends the device.
    process = Popen(
        command,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=before_exec(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()


def _check_alive(process: Popen[bytes]) -> None:
    """Raise JobFailed with the last line of a device process if it has ended by itself."""
    if process.poll() is None or process.stderr is None:
        return
    lines = process.stderr.read().decode(errors="replace").strip().splitlines()
    raise JobFailed(f"a device ended by itself: {lines[-1] if lines else process.returncode}")


def free_port() -> int:
    """Return a loopback port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _device_table(report: Report) -> Table:
    """Return a table of the devices and their shares of a job."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("device")
    for heading in ("tiles", "pixels", "share"):
        table.add_column(heading, justify="right")
    pixels = sum(share.pixels for share in report.devices.values()) or 1
    for device, share in sorted(report.devices.items()):
        table.add_row(
            device, str(share.tiles), f"{share.pixels:,}", f"{100 * share.pixels / pixels:.0f} %"
        )
    return table
