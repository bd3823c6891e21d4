"""Sends a job's file: with entity tag, ranges, and a name for saving it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from fogmqtt.dashboard.gateway_client import SLOW_ANSWER_S, GatewayClient, in_order
from fogmqtt.dashboard.mirror import ENDED
from fogmqtt.dashboard.problems import Problem
from fogmqtt.errors import WireError
from fogmqtt.wire.service_messages import FileFacts, JobCard, JobFile, Piece, ReadFile

#: Pieces that are asked for at once.
_WINDOW: Final = 3
#: What browsers may show. Anything else could be a page with a program in it.
_SHOWN: Final = frozenset(
    (
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/bmp",
        "image/gif",
        "image/tiff",
        "image/avif",
        "application/json",
    )
)
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


async def file_response(
    request: Request, client: GatewayClient, card: JobCard, file: JobFile
) -> Response:
    """Return a file of a job, or the part that the request asks for.

    Raises Problem, RefusalReceived and NoAnswer.
    """
    facts = card.files.get(file)
    if facts is None:
        raise Problem("not-found", 404, _no_file(card, file), job=card.id)
    tag = f'"xxh3-{facts.digest}"'
    is_read = request.method in ("GET", "HEAD")
    is_final = is_read and card.state in ENDED and file != "report"
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable" if is_final else "no-cache",
        "Content-Disposition": disposition(facts),
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Fogmqtt-Job": card.id,
    }
    if is_read and has_tag(request, tag):
        return Response(status_code=304, headers=headers)
    begin, end = 0, facts.bytes
    status = 200
    wanted = _wanted_range(request, tag, facts)
    if wanted is not None:
        begin, end = wanted
        status = 206
        headers["Content-Range"] = f"bytes {begin}-{end - 1}/{facts.bytes}"
    headers["Content-Length"] = str(end - begin)
    media_type = facts.media_type if facts.media_type in _SHOWN else "application/octet-stream"
    if request.method == "HEAD" or begin == end:
        return Response(status_code=status, headers=headers, media_type=media_type)
    pieces = _read(client, card.id, file, facts, begin, end)
    # A file that is gone is a problem, and not half an answer.
    first = await anext(pieces)
    return StreamingResponse(_after(first, pieces), status, headers, media_type)


def disposition(facts: FileFacts) -> str:
    """Return a header with the file's name, in ASCII and in UTF-8 (RFC 6266 and 8187)."""
    name = facts.name.replace("/", "_").replace("\\", "_") or "file"
    plain = re.sub(r'[^ -~]|["%\\]', "_", name)
    kind = "inline" if facts.media_type in _SHOWN else "attachment"
    header = f'{kind}; filename="{plain}"'
    if plain != name:
        encoded = name.encode("utf-8", "replace")
        header += f"; filename*=UTF-8''{quote(encoded, safe='')}"
    return header


def has_tag(request: Request, tag: str) -> bool:
    """Return whether the client has the file with this entity tag already (RFC 9110, 13.1.2)."""
    tags = request.headers.get("if-none-match", "")
    known = {one.strip().removeprefix("W/") for one in tags.split(",")}
    return "*" in known or tag in known


def _wanted_range(request: Request, tag: str, facts: FileFacts) -> tuple[int, int] | None:
    """Return begin and end of the range that is asked for; None for the whole file.

    Several ranges, other units and a range of another version are answered with the whole file.
    """
    text = request.headers.get("range", "").strip()
    found = _RANGE.fullmatch(text)
    condition = request.headers.get("if-range")
    if request.method != "GET" or found is None or condition not in (None, tag):
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        begin, end = max(0, facts.bytes - int(last)), facts.bytes
    else:
        begin = int(first)
        end = min(facts.bytes, int(last) + 1) if last else facts.bytes
        if last and int(last) < begin:
            return None
    if begin >= end:
        raise Problem(
            "range",
            416,
            f"{facts.name} has {facts.bytes} bytes; {text!r} names none of them.",
            limit=facts.bytes,
            headers={"Content-Range": f"bytes */{facts.bytes}"},
        )
    return begin, end


async def _read(
    client: GatewayClient, job: str, file: JobFile, facts: FileFacts, begin: int, end: int
) -> AsyncIterator[bytes]:
    size = client.piece_bytes

    async def read(offset: int) -> Piece:
        request = ReadFile(
            id=client.new_id(), job=job, file=file, offset=offset, length=min(size, end - offset)
        )
        return await client.ask(request, Piece, within_s=SLOW_ANSWER_S)

    offset = begin
    async for piece in in_order(map(read, range(begin, end, size)), _WINDOW):
        if piece.file.digest != facts.digest or piece.offset != offset or not piece.data:
            raise WireError(f"{facts.name} of {job} changed while it was read; read it again")
        yield piece.data
        offset += len(piece.data)


async def _after(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for data in rest:
        yield data


def _no_file(card: JobCard, file: JobFile) -> str:
    if card.state not in ENDED:
        return f"The job {card.id} is {card.state} and has no {file} yet."
    if card.error:
        return f"The job {card.id} has no {file}: {card.error}"
    kept = ", ".join(sorted(card.files)) or "no files"
    return f"The job {card.id} has no {file}; it has {kept}."
