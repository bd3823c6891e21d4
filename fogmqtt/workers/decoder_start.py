"""Starts a decoder process, or one that says of every file which package is missing here."""

from __future__ import annotations

import importlib
import os

import msgspec

from fogmqtt.errors import missing_package
from fogmqtt.workers.decoder_messages import DecodeRefused, DecodeRequest
from fogmqtt.workers.process import connect_to_parent


def main(program: str) -> None:
    """Run the `main` of a module. The arguments come from `ChildProcess`."""
    try:
        decoder = importlib.import_module(program)
    except ImportError as problem:
        reason = missing_package(problem)
        if not reason:
            raise
    else:
        decoder.main()
        return
    _refuse_all(reason)


def _refuse_all(reason: str) -> None:
    """Answer each request until the parent is gone. It starts a new process for the next file."""
    channel, _ = connect_to_parent()
    while (received := channel.receive_message(descriptor_count=2)) is not None:
        message, descriptors = received
        for descriptor in descriptors:
            os.close(descriptor)
        name = msgspec.msgpack.decode(message, type=DecodeRequest).name
        text = f"{name}: image files cannot be read here: {reason}"
        channel.send_message(msgspec.msgpack.encode(DecodeRefused(text, needs_replacement=True)))
