"""The gateway's own version as a wheel, made from the files that run: boards get exactly these.

It works from an installed package and from a working copy alike, and needs no build tool.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

import fogmqtt
from fogmqtt.errors import ConfigError

_FOLDER: Final = Path(fogmqtt.__file__).parent
#: What Python and tools leave beside the sources.
_LEFT_OUT: Final = ("__pycache__", ".mypy_cache", ".ruff_cache")
#: The same files give the same bytes.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_TAG: Final = "py3-none-any"


def wheel_name(version: str = fogmqtt.__version__) -> str:
    """Return the name of the wheel's file."""
    return f"fogmqtt-{version}-{_TAG}.whl"


def build_wheel() -> bytes:
    """Return the wheel of the version that runs. Raises ConfigError where its facts are missing."""
    info = f"fogmqtt-{fogmqtt.__version__}.dist-info"
    files = {
        f"fogmqtt/{path.relative_to(_FOLDER).as_posix()}": path.read_bytes()
        for path in sorted(_FOLDER.rglob("*"))
        if path.is_file() and not set(path.parts) & set(_LEFT_OUT)
    }
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: fogmqtt\nRoot-Is-Purelib: true\nTag: {_TAG}\n".encode()
    )
    files[f"{info}/entry_points.txt"] = _entry_points().encode()
    record = "".join(f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _metadata() -> str:
    text = _distribution().read_text("METADATA") or ""
    # A working copy keeps the facts of the day when it was installed.
    return re.sub(r"(?m)^Version: .*$", f"Version: {fogmqtt.__version__}", text, count=1)


def _entry_points() -> str:
    points = _distribution().entry_points.select(group="console_scripts")
    lines = "".join(f"{point.name} = {point.value}\n" for point in points)
    return f"[console_scripts]\n{lines}"


def _distribution() -> metadata.Distribution:
    try:
        return metadata.distribution("fogmqtt")
    except metadata.PackageNotFoundError:
        raise ConfigError(
            "the package fogmqtt is not installed here, so boards cannot get it from this gateway; "
            "install it with pip"
        ) from None


def _digest(data: bytes) -> str:
    found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
    return f"sha256={found}"
