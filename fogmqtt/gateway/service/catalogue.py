"""The operators for a menu, and pipelines that are tried on a small image."""

from __future__ import annotations

import asyncio
from typing import Final

from fogmqtt.config import GatewayConfig
from fogmqtt.errors import FogError
from fogmqtt.gateway.app import Gateway
from fogmqtt.gateway.jobs.model import JobRequest
from fogmqtt.gateway.service.refusals import RequestRefused
from fogmqtt.images.pictures import MEDIA_TYPES, picture
from fogmqtt.images.spec import Spec
from fogmqtt.operators.api import registry
from fogmqtt.operators.api.describe import OperatorDescription, describe_all
from fogmqtt.operators.api.forms import form
from fogmqtt.operators.api.pipeline import output_spec, parse
from fogmqtt.wire.service_messages import (
    PIECE_BYTES,
    OperatorCard,
    OperatorParameter,
    OperatorTable,
    TryPipeline,
    View,
)

#: A trial goes before all jobs, so its image is small and it must not take long.
MAX_TRIAL_PIXELS: Final = 4_000_000
_TRIAL_S: Final = 20.0
_HIGHEST_PRIORITY: Final = 4
#: The longest side of a trial's picture, in pixels.
_TRIAL_SIDE: Final = 1600


class Catalogue:
    """Describes operators and tries pipelines. It belongs to the event loop."""

    def __init__(self, config: GatewayConfig, gateway: Gateway) -> None:
        self._config = config
        self._gateway = gateway
        self._cards: list[OperatorCard] | None = None
        #: One trial runs at a time, and one waits: the newest is what the user wants to see.
        self._turn = asyncio.Semaphore(2)

    async def table(self, request_id: str) -> OperatorTable:
        """Return all operators with their parameters."""
        if self._cards is None:
            self._cards = await self._gateway.threads.apart(_cards, "operators")
        return OperatorTable(id=request_id, operators=self._cards)

    async def trial(self, asked: TryPipeline) -> View:
        """Return what a pipeline makes of a small image. Raises RequestRefused and FogError."""
        if len(asked.data) > PIECE_BYTES:
            raise RequestRefused(
                "too-large", f"a trial takes {PIECE_BYTES} bytes at most", limit=PIECE_BYTES
            )
        if self._turn.locked():
            raise RequestRefused("busy", "two trials run; ask again", retry_after_s=0.5)
        async with self._turn:
            return await self._try(asked)

    async def _try(self, asked: TryPipeline) -> View:
        most = min(MAX_TRIAL_PIXELS, self._config.limits.max_pixels)
        image = await self._gateway.decode(asked.data, "the image", max_pixels=most)
        asked_text = asked.pipeline or self._config.pipeline
        text = self._config.chosen(asked_text).text
        check = lambda: output_spec(parse(text), Spec.of(image))  # noqa: E731
        await self._gateway.threads.apart(check, "trial")
        handle = self._gateway.submit(
            JobRequest(
                "a trial",
                text,
                image=image,
                priority=_HIGHEST_PRIORITY,
                timeout_s=_TRIAL_S,
                listed=False,
            )
        )
        try:
            outcome = await handle.outcome()
        except asyncio.CancelledError:
            handle.cancel("nobody waits for it")
            raise
        result = outcome.image
        if outcome.error is not None or result is None:
            raise FogError(outcome.error or "there is no result")
        height, width = result.shape[:2]
        data = await self._gateway.threads.apart(lambda: picture(result, _TRIAL_SIDE), "trial")
        return View(
            id=asked.id,
            version=1,
            media_type=MEDIA_TYPES["jpeg"],
            area=(0, 0, height, width),
            height=height,
            width=width,
            data=data,
        )


def _cards() -> list[OperatorCard]:
    return [_card(one) for one in describe_all().operators]


def _card(one: OperatorDescription) -> OperatorCard:
    return OperatorCard(
        name=one.name,
        summary=one.summary,
        group=_group(one.name),
        text=one.text,
        example=one.example,
        tiled=one.tiled,
        measures=one.measures,
        parameters=[
            OperatorParameter(
                name=field.name,
                type=field.type,
                required=field.required,
                default=field.default,
                minimum=field.minimum,
                maximum=field.maximum,
                step=field.step,
                choices=list(field.choices),
                unit=field.unit,
                summary=field.summary,
            )
            for field in form(one.name)
        ],
    )


def _group(name: str) -> str:
    """Return the folder of an operator, or its module where it is in none."""
    if not registry.is_built_in(name):
        return "plug-ins"
    return registry.load(name).__module__.split(".")[2]
