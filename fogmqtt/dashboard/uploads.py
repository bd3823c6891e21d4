"""Sends the body of a request to the gateway, piece by piece, while it comes.

A few pieces are on their way at once. So a slow gateway slows the sender, and no file is ever whole
in the memory of this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final, TypeVar

import xxhash
from msgspec.structs import asdict, replace

from fogmqtt.dashboard.gateway_client import ANSWER_S, MOST_UPLOADS, GatewayClient, RefusalReceived
from fogmqtt.errors import NoAnswer
from fogmqtt.wire.messages import encode
from fogmqtt.wire.service_messages import (
    Answer,
    Done,
    DropUpload,
    ImageSubmission,
    JobAnswer,
    OpenUpload,
    PutPiece,
    Refusal,
    SubmitFile,
    SubmitUpload,
    Upload,
)

A = TypeVar("A", bound=Answer)

#: Pieces that are on their way to the gateway at once.
WINDOW: Final = 4
#: How often a piece is sent that the gateway does not take because one before it was lost.
_TRIES: Final = 4
#: Seconds in which a piece must be answered, and in which the whole file must be on disk.
_PIECE_S: Final = 30.0
_SUBMIT_S: Final = 60.0
#: Seconds for which an upload waits until others have ended.
_BUSY_S: Final = 30.0


async def upload(
    client: GatewayClient, opening: OpenUpload, chunks: AsyncIterator[bytes]
) -> JobAnswer:
    """Send a file, and return the job that it became.

    Raises RefusalReceived and NoAnswer, and what `chunks` raises; then the file is dropped.
    """
    size = opening.bytes
    if size is not None and size + len(encode(opening)) <= client.piece_bytes:
        return await _submit_file(client, opening, chunks)
    try:
        async with asyncio.timeout(_BUSY_S):
            await client.uploads.acquire()
    except TimeoutError:
        raise RefusalReceived(_too_many(opening)) from None
    try:
        return await _upload(client, opening, chunks)
    finally:
        client.uploads.release()


async def _submit_file(
    client: GatewayClient, opening: OpenUpload, chunks: AsyncIterator[bytes]
) -> JobAnswer:
    """Send a file that fits into one message, when all of it is there."""
    data = b"".join([chunk async for chunk in chunks])
    asked = {name: value for name, value in asdict(opening).items() if name != "bytes"}
    request = SubmitFile(**asked, data=data, digest=xxhash.xxh3_64_hexdigest(data))
    return await _patiently(client, request, JobAnswer, _SUBMIT_S)


async def _upload(
    client: GatewayClient, opening: OpenUpload, chunks: AsyncIterator[bytes]
) -> JobAnswer:
    opened = await _patiently(client, opening, Upload, ANSWER_S)
    pieces = _Pieces(client, opened.upload, opening.who)
    try:
        digest = xxhash.xxh3_64()
        async for chunk in chunks:
            digest.update(chunk)
            await pieces.add(chunk)
        await pieces.finish()
        request = SubmitUpload(
            id=client.new_id(), who=opening.who, upload=opened.upload, digest=digest.hexdigest()
        )
        return await client.ask(request, JobAnswer, within_s=_SUBMIT_S)
    except BaseException:
        await pieces.cancel()
        _forget(client, opened.upload)
        raise


def _too_many(opening: OpenUpload) -> Refusal:
    return Refusal(
        id=opening.id,
        kind="busy",
        sentence=f"{MOST_UPLOADS} uploads come in already; try again later",
        limit=MOST_UPLOADS,
        retry_after_s=5.0,
    )


async def _patiently(
    client: GatewayClient, asked: ImageSubmission, expected: type[A], within_s: float
) -> A:
    """Submit; waits a while, and the sender with it, for a gateway that has too much to do."""
    until, pause_s = time.monotonic() + _BUSY_S, 0.05
    while True:
        request = replace(asked, id=client.new_id())
        try:
            return await client.ask(request, expected, within_s=within_s)
        except RefusalReceived as refused:
            if refused.refusal.kind != "busy" or time.monotonic() + pause_s > until:
                raise
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)


class _Pieces:
    """The pieces of one upload, in order."""

    def __init__(self, client: GatewayClient, upload: str, who: str) -> None:
        self._client = client
        self._upload = upload
        self._who = who
        self._size = client.piece_bytes
        self._buffer = bytearray()
        self._offset = 0
        self._running: list[asyncio.Task[None]] = []

    async def add(self, chunk: bytes) -> None:
        """Send bytes; waits while as many pieces are on their way as may be."""
        self._buffer += chunk
        while len(self._buffer) >= self._size:
            data = bytes(memoryview(self._buffer)[: self._size])
            del self._buffer[: self._size]
            await self._send(data)

    async def finish(self) -> None:
        """Send what is left, and wait until the gateway has everything."""
        if self._buffer:
            await self._send(bytes(self._buffer))
        for task in self._running:
            await task

    async def cancel(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _send(self, data: bytes) -> None:
        while self._running and (len(self._running) >= WINDOW or self._running[0].done()):
            await self._running.pop(0)
        before = self._running[-1] if self._running else None
        put = self._put(self._offset, data, before)
        self._running.append(asyncio.get_running_loop().create_task(put))
        self._offset += len(data)

    async def _put(self, offset: int, data: bytes, before: asyncio.Task[None] | None) -> None:
        for _ in range(_TRIES):
            if await self._put_once(offset, data):
                return
            if before is not None:
                await asyncio.wait({before})
                before.result()
        raise NoAnswer(f"the gateway does not take the bytes from {offset} on; send the file again")

    async def _put_once(self, offset: int, data: bytes) -> bool:
        """Send a piece. Returns False if the one before it is not there yet."""
        request = PutPiece(
            id=self._client.new_id(), who=self._who, upload=self._upload, offset=offset, data=data
        )
        try:
            answer = await self._client.ask(request, Upload, within_s=_PIECE_S)
        except RefusalReceived as refused:
            if refused.refusal.kind == "conflict" and offset:
                return False
            raise
        return answer.received >= offset + len(data)


#: Messages about uploads that nobody waits for.
_forgetting: set[asyncio.Task[None]] = set()


def _forget(client: GatewayClient, upload: str) -> None:
    """Tell the gateway that the file does not come; if it does not hear it, it finds out itself."""

    async def tell() -> None:
        try:
            await client.ask(DropUpload(id=client.new_id(), upload=upload), Done)
        except (RefusalReceived, NoAnswer):
            return

    task = asyncio.get_running_loop().create_task(tell())
    _forgetting.add(task)
    task.add_done_callback(_forgetting.discard)
