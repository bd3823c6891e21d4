"""`fog-gateway adopt`: finishes the jobs of a gateway that does not come back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fogmqtt.cli.async_program import run_async
from fogmqtt.config import GatewayConfig
from fogmqtt.errors import JobFailed, SpoolInUse, UsageError
from fogmqtt.gateway.server.server import Server
from fogmqtt.gateway.storage.spool import is_spool
from fogmqtt.setup.brokers import connector, embedded_broker, one_off_id


def adopt(config: GatewayConfig, folder: Path) -> int:
    """Finish the jobs in the spool folder of another gateway, and return the exit code.

    The results go where they were to go, by this configuration. Raises UsageError if the folder is
    no spool or its gateway lives, NoBroker, and JobFailed if a job failed.
    """
    if not is_spool(folder):
        raise UsageError(
            f"{folder.absolute()} is not the spool of a gateway; name the folder that its "
            "configuration has as gateway.spool"
        )
    gateway_id = one_off_id(config, "adopt")
    settings = replace(config.gateway, id=gateway_id, spool=str(folder), inbox="")
    config = replace(config, gateway=settings)
    with embedded_broker(config) as broker:
        try:
            server = Server(config, connector(config, gateway_id, broker), adopts=True)
        except SpoolInUse as problem:
            raise UsageError(
                f"the gateway of {folder} lives and does its jobs itself: {problem.who}; "
                "nothing is taken over. Stop it first if it hangs"
            ) from None
        run_async(server.adopt())
    print(f"{folder}: {server.done} job(s) done, {server.failed} failed")
    if server.failed:
        raise JobFailed(f"{server.failed} job(s) failed; their images are kept in {folder}/dead")
    return 0
