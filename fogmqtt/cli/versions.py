"""`--version`: of fogmqtt, of Python and OpenCV, and of the broker that a gateway would start."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib import metadata

from fogmqtt import __version__


class ShowVersions(argparse.Action):
    """Prints the versions and ends the program. Nothing is looked up before it is asked for."""

    def __init__(
        self, option_strings: Sequence[str], dest: str, *, with_broker: bool = False
    ) -> None:
        super().__init__(
            option_strings,
            dest=dest,
            default=argparse.SUPPRESS,
            nargs=0,
            help="print the versions of fogmqtt and of what it uses",
        )
        self._with_broker = with_broker

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        del namespace, values, option_string
        print(f"{parser.prog} {__version__}")
        print(f"Python {platform.python_version()} ({platform.machine()})")
        print(f"OpenCV {_opencv()}")
        if self._with_broker:
            print(f"broker: {_broker()}")
        parser.exit()


def _opencv() -> str:
    from fogmqtt.images.cv import cv2

    try:
        return cv2.__version__
    except ImportError as problem:
        return f"cannot be loaded: {problem}"


def _broker() -> str:
    """Return the broker that is installed here. Which one answers at broker.url, doctor tells."""
    from fogmqtt.errors import ConfigError
    from fogmqtt.joining.broker_files import find_mosquitto, mosquitto_version

    try:
        program = find_mosquitto()
        return f"Mosquitto {mosquitto_version(program)} ({program})"
    except ConfigError as problem:
        try:
            return f"iotcore {metadata.version('iotcore')} (extra embedded)"
        except metadata.PackageNotFoundError:
            return f"none is installed here: {problem}"
