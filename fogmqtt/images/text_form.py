"""Images as text: base64 and data URIs.

Programs whose messages are text (Node-RED, ioBroker, Home Assistant) publish images this way.
"""

from __future__ import annotations

import binascii
import json
import re
from typing import Final
from urllib.parse import unquote_to_bytes

#: Bytes of a file that tell whether it may be text.
HEAD_BYTES: Final = 256
#: The longest beginning of a data URI up to its comma.
_LONGEST_DECLARATION = 200

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n\f\v"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
#: What may be in base64 or in a JSON string of it, beside a data URI.
_TEXT = _ALPHABET + b'-_=\\"' + _SPACE
#: Portable anymaps in text form begin like this, and may look like base64.
_ANYMAP = re.compile(rb"P[1-7]\s")


def may_be_text(head: bytes) -> bool:
    """Return whether a file that begins with these bytes may be an image as text; a cheap test."""
    head = head.removeprefix(_BOM).lstrip(_SPACE + b'"')
    if head[:5].lower() == b"data:":
        return True
    is_text = bool(head) and not head[:HEAD_BYTES].translate(None, _TEXT)
    return is_text and not _ANYMAP.match(head)


def from_text(data: bytes) -> bytes | None:
    """Return the bytes that a base64 text or a data URI stands for; None if it is neither.

    Line breaks, missing padding, the URL-safe alphabet, and quotes around the text are accepted.
    """
    text = _unquoted(data.removeprefix(_BOM).strip(_SPACE))
    if text[:5].lower() != b"data:":
        return _from_base64(text)
    declaration, comma, body = text[:_LONGEST_DECLARATION].partition(b",")
    if not comma:
        return None
    body = text[len(declaration) + 1 :]
    body = unquote_to_bytes(body) if b"%" in body else body
    return _from_base64(body) if declaration.lower().endswith(b";base64") else body


def _unquoted(text: bytes) -> bytes:
    """Return the content of a JSON string, or the text itself."""
    if not text.startswith(b'"'):
        return text
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return content.encode("utf-8", "replace").strip(_SPACE) if isinstance(content, str) else text


def _from_base64(text: bytes) -> bytes | None:
    digits = text.translate(_URL_SAFE, _SPACE).rstrip(b"=")
    if not digits or digits.translate(None, _ALPHABET) or len(digits) % 4 == 1:
        return None
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))
