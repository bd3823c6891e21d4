"""Measures how soon the page is usable in Chromium on this machine.

A broker, three devices, a gateway and its dashboard, each a process, and a Chromium. A visit is
that of a new context, which has nothing in its cache. Kinds of visits take turns, and a ratio is
the median of the rounds' ratios:

- `page`: the page as it is served, all modules as one.
- `again`: the same page, loaded again in its context.
- `modules`: `index.html`, by the modules as they are written.
- `REVISION`: the page of another revision's dashboard, for the same gateway.

`usable` is from the start of the navigation to the first card of a device, by the page's own clock.
`CPU s` is of all processes, those of Chromium, Playwright and the fleet included.

Run: .venv/bin/python benchmarks/bench_page.py [--rounds 10] [--against REVISION]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench_service import Site, site, wait_for
from cpu_time import CpuTime, Usage
from playwright.sync_api import Browser, Page, sync_playwright
from revision import checkout

from fogmqtt.cli.demo import free_port

FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
#: Notes when the first card is there.
WATCH = """new MutationObserver((changes, watcher) => {
    if (!document.querySelector(".device")) return;
    window.usable = performance.now();
    watcher.disconnect();
}).observe(document, { childList: true, subtree: true })"""
TELL = """() => {
    const [page] = performance.getEntriesByType("navigation");
    const all = [page, ...performance.getEntriesByType("resource")];
    const over = all.filter((one) => one.transferSize > 0);
    const bytes = over.reduce((sum, one) => sum + one.transferSize, 0);
    return [window.usable / 1000, over.length, bytes];
}"""


@dataclass
class Visits:
    """The visits of one kind."""

    name: str
    url: str
    usable_s: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)

    def visit(self, tab: Page, *, counts: bool) -> None:
        cpu = CpuTime()
        tab.goto(self.url)
        tab.wait_for_selector(".device")
        usable_s, requests, size = tab.evaluate(TELL)
        usage = cpu.usage()
        if counts:
            self.usable_s.append(usable_s)
            self.requests.append(requests)
            self.bytes.append(size)
            self.usage.append(usage)

    def show(self, beside: Visits) -> None:
        usable, cpu = self.usable_s, statistics.median(one.cpu_s for one in self.usage)
        others = statistics.median(one.others for one in self.usage)
        ratios = [mine / theirs for mine, theirs in zip(usable, beside.usable_s, strict=True)]
        print(
            f"  {self.name:<9}{statistics.median(usable):6.3f} s ({min(usable):.2f} to "
            f"{max(usable):.2f}), {statistics.median(ratios):5.2f} of {beside.name}, "
            f"{cpu:.2f} CPU s, {others:.0%} others, {statistics.median(self.requests):.0f} "
            f"requests, {statistics.median(self.bytes):.0f} bytes"
        )


def measure(browser: Browser, kinds: list[Visits], again: Visits, rounds: int) -> None:
    """Visit all kinds in turns. The first round warms up browser and dashboards."""
    for number in range(rounds + 1):
        for kind in kinds if number % 2 else reversed(kinds):
            context = browser.new_context()
            tab = context.new_page()
            tab.add_init_script(WATCH)
            kind.visit(tab, counts=number > 0)
            if kind is kinds[0]:
                again.visit(tab, counts=number > 0)
            context.close()


@contextmanager
def dashboard(made: Site, code: Path) -> Iterator[str]:
    """Start the dashboard of other code for the same gateway, and yield its address."""
    listen = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [sys.executable, "-m", "fogmqtt.cli.dashboard", "--listen", listen],
        cwd=code,
        env=os.environ | {"PYTHONPATH": str(code), "FOGMQTT_BROKER__URL": made.broker.url},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: urllib.request.urlopen(f"http://{listen}/"))
        yield f"http://{listen}/"
    finally:
        process.terminate()
        process.wait(30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--against", default="", metavar="REVISION")
    asked = parser.parse_args()
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with ExitStack() as stack:
        made = stack.enter_context(site())
        url = f"http://{made.host}:{made.port}/"
        again = Visits("again", url)
        kinds = [Visits("page", url), Visits("modules", f"{url}index.html")]
        if asked.against:
            code = stack.enter_context(checkout(asked.against))
            other = stack.enter_context(dashboard(made, code))
            kinds.append(Visits(asked.against[-9:], other))
        playwright = stack.enter_context(sync_playwright())
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        stack.callback(browser.close)
        measure(browser, kinds, again, asked.rounds)
    print(f"{asked.rounds} visits of each kind; load {os.getloadavg()[0]:.1f}")
    for each in (*kinds, again):
        each.show(kinds[0])


if __name__ == "__main__":
    main()
