"""Looks for gateways by mDNS and prints them as JSON: a program, so that agents stay small."""

from __future__ import annotations

import sys

import msgspec


def main() -> int:
    """Print the gateways; with an argument, those of this authority. Returns the exit code.

    With `--anybody` it prints whether any machine answers.
    """
    from fogmqtt.joining.mdns import find_gateways, hears_anybody

    pin = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        found = hears_anybody() if pin == "--anybody" else find_gateways(pin=pin)
    except OSError as problem:
        print(problem.strerror or problem, file=sys.stderr)
        return 1
    print(msgspec.json.encode(found).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
