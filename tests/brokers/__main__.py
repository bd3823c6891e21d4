"""Tries gateways and devices on brokers that others wrote.

It writes docs/brokers.md as soon as each broker has a result, of this run or an earlier one.

Run: python -m tests.brokers [--only mosquitto] [--trials abc] [--keep brokers]
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

from tests.brokers.broker import Broker, BrokerProblem
from tests.brokers.kinds import KINDS
from tests.brokers.page import Row, is_complete, load, merged, page, save
from tests.brokers.site import Site
from tests.brokers.trials import TRIALS, BrokerLimit, Outcome

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/brokers.md"


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then
    keep: Path = options.keep.absolute()
    os.environ["XDG_CACHE_HOME"] = str(keep / "cache")  # nothing of the tester's own
    results = keep / "results.json"
    is_good = True
    for kind in KINDS:
        if options.only and kind.key not in options.only:
            continue
        for protocol in kind.protocols:
            row = _try(kind, protocol, keep, options.trials)
            is_good = is_good and all(one.kind != "fault" for one in row.outcomes.values())
            if options.trials != "".join(TRIALS):
                continue  # a part is no result
            rows = merged(load(results), [row])
            save(results, rows)
            if is_complete(rows, KINDS):
                PAGE.write_text(page(rows, KINDS), "utf-8")
    return 0 if is_good else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.brokers", description=__doc__)
    names = ", ".join(kind.key for kind in KINDS)
    parser.add_argument("--only", action="append", help=f"one of {names}; repeatable")
    parser.add_argument("--trials", default="".join(TRIALS), help="their letters")
    parser.add_argument("--keep", type=Path, default=ROOT / "brokers", help="a folder")
    return parser.parse_args()


def _try(kind: type[Broker], protocol: str | int, keep: Path, letters: str) -> Row:
    """All trials on one broker with one version of MQTT."""
    folder = keep / f"{kind.key}-{protocol}"
    shutil.rmtree(folder, ignore_errors=True)
    packages = keep / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    broker = kind(folder / "broker", packages, protocol)
    try:
        kind.install(packages)
        row = Row(kind.key, str(protocol), kind.version(packages))
        print(f"== {kind.title} {row.version}, MQTT {protocol}", flush=True)
        broker.start()
        for letter in letters:
            row.outcomes[letter] = _outcome(Site(broker, letter, folder / letter))
    except BrokerProblem as problem:
        print(f"== {kind.title}, MQTT {protocol}: {problem}", flush=True)
        problems = Outcome("fault", f"did not start: {str(problem)[:200]}")
        return Row(kind.key, str(protocol), "?", dict.fromkeys(letters, problems))
    finally:
        broker.stop()
    return row


def _outcome(site: Site) -> Outcome:
    began = time.monotonic()
    try:
        outcome = Outcome("ok", TRIALS[site.letter](site))
    except BrokerLimit as limit:
        outcome = Outcome("limit", str(limit))
    except Exception as problem:  # noqa: BLE001  # whatever happens to a trial is its result
        (site.folder / "trace.txt").write_text(traceback.format_exc())
        outcome = Outcome("fault", " ".join(str(problem).split())[:300] or type(problem).__name__)
    seconds = time.monotonic() - began
    print(f"   {site.letter}: {outcome.kind}: {outcome.text} ({seconds:.0f} s)", flush=True)
    return outcome


if __name__ == "__main__":
    sys.exit(main())
