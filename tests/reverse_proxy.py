"""nginx before a dashboard, under /fog/, with the lines that docs/http.md shows."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fog import free_port, need, wait_for

_PAGE = Path(__file__).parents[1] / "docs" / "http.md"
_CONFIG = """\
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{shown}
}}
"""


def shown_lines() -> str:
    """The configuration of nginx in the documentation."""
    found = re.search(r"```nginx\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@contextmanager
def reverse_proxy(folder: Path, target: int) -> Iterator[str]:
    """Run nginx before the dashboard at a port of loopback; yields the address of the page."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    need(program, "nginx", "make proxy")
    folder.mkdir()
    port = free_port()
    shown = shown_lines().replace("listen 80;", f"listen 127.0.0.1:{port};")
    shown = shown.replace("127.0.0.1:8080", f"127.0.0.1:{target}")
    (folder / "nginx.conf").write_text(_CONFIG.format(folder=folder, shown=shown))
    command = [str(program), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    process = subprocess.Popen([*command, "-p", str(folder)])
    try:
        wait_for(lambda: (folder / "pid").exists() or process.poll(), within=30, what="nginx")
        assert process.poll() is None, (folder / "error.log").read_text()
        yield f"http://127.0.0.1:{port}/fog/"
    finally:
        process.terminate()  # SIGQUIT would wait for the end of streams
        process.wait(10)
