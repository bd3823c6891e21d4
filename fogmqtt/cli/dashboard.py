"""The command `fog-dashboard`: the page and the HTTP API of one gateway.

A serving gateway starts this program, and sends its settings to the standard input, which it keeps
open. On another machine a user starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fogmqtt.cli.common import add_log_options, report_errors
from fogmqtt.cli.log_format import set_up_logging, use_log_format
from fogmqtt.cli.versions import ShowVersions
from fogmqtt.config import load_gateway
from fogmqtt.config.addresses import parse_listen
from fogmqtt.config.schema import DashboardOrders, GatewayConfig
from fogmqtt.errors import ConfigError, FogError
from fogmqtt.setup.link import make_link, with_brokers
from fogmqtt.transport.base import Deliver, Transport
from fogmqtt.transport.paho import PahoTransport
from fogmqtt.wire.topics import Topics, check_id

if TYPE_CHECKING:
    from fogmqtt.dashboard.boards import SiteBoards
    from fogmqtt.dashboard.service import Invitation
    from fogmqtt.gateway.server.dashboard_process import DashboardProcess

log = logging.getLogger(__name__)

#: What the extra `web` brings.
PACKAGES: Final = ("starlette", "uvicorn", "segno", "prometheus_client", "websockets")
_EPILOG = """\
examples:
  fog-dashboard --broker mqtt://gateway:1883 --gateway mariem

configuration:
  Every key can be set in the environment, such as FOGMQTT_DASHBOARD__LISTEN.

exit codes:
  0  done, or stopped by a signal
  2  usage or configuration, or the port is taken"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = make_parser().parse_args(arguments)
    set_up_logging(options.verbose, form=options.log_format)
    return report_errors(lambda: _run(options))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        prog="fog-dashboard",
        description="Serves the page and the HTTP API of a gateway, which may run elsewhere.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the gateway's config.yaml")
    parser.add_argument(
        "--broker", action="append", metavar="URL", help="as broker.url of the gateway"
    )
    parser.add_argument("--gateway", metavar="ID", help="the gateway's id (default: mariem)")
    parser.add_argument(
        "--listen", metavar="HOST:PORT", help="where the page is (default: 127.0.0.1:8080)"
    )
    parser.add_argument("-v", "--verbose", action="count", default=0, help="log more")
    add_log_options(parser)
    parser.add_argument("--version", action=ShowVersions)
    parser.add_argument("--from-gateway", action="store_true", help=argparse.SUPPRESS)
    return parser


def _run(options: argparse.Namespace) -> int:
    if missing := missing_packages():
        raise ConfigError(f"not installed: {', '.join(missing)}; pip install 'fogmqtt[web]'")
    from fogmqtt.cli.async_program import run_async

    orders = _orders_of_gateway() if options.from_gateway else _orders(options)
    use_log_format(orders.log_format, gateway=orders.gateway)
    # A signal is the normal end of a server.
    with suppress(KeyboardInterrupt):
        run_async(_serve(orders))
    return 0


def dashboard_beside(config: GatewayConfig) -> DashboardProcess | None:
    """Return the dashboard that runs beside a serving gateway, if there is to be one.

    Raises ConfigError if it must run, and packages are missing.
    """
    from fogmqtt.gateway.server.dashboard_process import DashboardProcess

    enabled = config.dashboard.enabled
    if enabled == "never":
        return None
    if missing := missing_packages():
        if enabled == "always":
            raise ConfigError(f"dashboard.enabled: always needs {_how_to_install(missing)}")
        log.info("there is no page: it needs %s", _how_to_install(missing))
        return None
    return DashboardProcess(
        DashboardOrders(
            broker=config.broker,
            prefix=config.wire.prefix,
            gateway=config.gateway.id,
            dashboard=config.dashboard,
            log_format=config.log_format,
            folder=config.gateway.spool or str(_home()),
            joining=config.joining.folder,
        )
    )


def _how_to_install(missing: Sequence[str]) -> str:
    return f"{', '.join(missing)}: pip install 'fogmqtt[web]', or set dashboard.enabled: never"


def _home() -> Path:
    """Return the folder of this user's tokens."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "fogmqtt"


def can_listen(listen: str) -> bool:
    """Return whether the dashboard could listen there now."""
    host, port = parse_listen(listen)
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True


def missing_packages() -> list[str]:
    """Return the packages of the extra `web` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def _orders_of_gateway() -> DashboardOrders:
    from fogmqtt.parent import end_with_parent

    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=DashboardOrders)
    end_with_parent(orders.parent)
    return orders


def _orders(options: argparse.Namespace) -> DashboardOrders:
    config: GatewayConfig = load_gateway(options.config, os.environ)
    dashboard = config.dashboard
    if options.listen is not None:
        dashboard = replace(dashboard, listen=options.listen)
        try:
            parse_listen(options.listen)
        except ConfigError as problem:
            raise ConfigError(str(problem).replace("dashboard.listen", "--listen")) from None
    gateway = config.gateway.id if options.gateway is None else options.gateway
    return DashboardOrders(
        broker=with_brokers(config.broker, options.broker),
        prefix=config.wire.prefix,
        gateway=check_id(gateway, "--gateway"),
        dashboard=dashboard,
        log_format=options.log_format or config.log_format,
        folder=str(_home() if options.config is None else options.config.parent),
        joining=config.joining.folder,
    )


async def _serve(orders: DashboardOrders) -> None:
    from fogmqtt.dashboard.service import Dashboard, client_name

    topics = Topics(orders.prefix)
    dashboard = Dashboard(orders.dashboard, orders.gateway, topics, Path(orders.folder))
    sock, tokens, invitation = dashboard.open()
    link = make_link(orders.broker, topics.client_id("dashboard", client_name(sock)))

    def connect(deliver: Deliver) -> Transport:
        return PahoTransport(link, deliver)

    _invite(invitation)
    boards = _boards(orders.joining)
    serving = asyncio.ensure_future(dashboard.serve(sock, tokens, connect, boards))
    leaving = asyncio.ensure_future(_parent_left(orders.parent))
    try:
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
    finally:
        for task in (serving, leaving):
            task.cancel()
        await asyncio.gather(serving, leaving, return_exceptions=True)


def _boards(folder: str) -> SiteBoards | None:
    """Return what invites boards on the page, where this machine has what it needs."""
    try:
        from fogmqtt.cli.site_boards import open_site_boards

        return open_site_boards(folder)
    except (ImportError, FogError) as problem:
        log.warning("boards are not invited on the page: %s", problem)
        return None


async def _parent_left(parent: int) -> None:
    """Wait until the gateway that started this program is gone: its end of the pipe closes."""
    loop = asyncio.get_running_loop()
    if not parent:
        await loop.create_future()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def _invite(invitation: Invitation) -> None:
    """Print where the page is; with a new token, how to get in, once."""
    log.info("the page is at %s", invitation.url)
    if invitation.url_with_token:
        import segno

        print(f"open it once with the token: {invitation.url_with_token}", file=sys.stderr)
        if sys.stderr.isatty():
            code = segno.make(invitation.url_with_token, error="m", micro=False)
            code.terminal(out=sys.stderr, compact=True)
    if invitation.token_file:
        log.info("the token is in %s", invitation.token_file)


if __name__ == "__main__":
    from fogmqtt.cli.leaving import leave_on_signals
    from fogmqtt.cli.program import run_program

    leave_on_signals()
    run_program(main)
