"""A line of Mosquitto's password file, as mosquitto_passwd writes it."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Final

#: A random password of 128 bits needs no slow hash.
_ROUNDS: Final = 101


def password_line(user: str, password: str) -> str:
    """Return the line of a user in Mosquitto's password file."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _ROUNDS, 64)
    shown = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{user}:$7${_ROUNDS}${'$'.join(shown)}\n"
