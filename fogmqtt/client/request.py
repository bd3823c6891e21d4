"""What a program asks for, as the request of a job."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypedDict, cast

from fogmqtt.config import GatewayConfig
from fogmqtt.core.geometry import parse_tile_plan
from fogmqtt.errors import UsageError
from fogmqtt.gateway.jobs.model import JobRequest, Outcome
from fogmqtt.images.arrays import Colour, check_colour, for_program, from_program
from fogmqtt.images.metadata import Pages
from fogmqtt.operators.api.base import Operator
from fogmqtt.operators.api.pipeline import parse, parse_post
from fogmqtt.setup.pipelines import find_pipeline, find_priority

#: What a job is to give: an image, facts, or whatever its pipeline gives.
Wanted = Literal["image", "facts", "either"]

_numbers = itertools.count(1)


class JobOptions(TypedDict, total=False):
    """The options of every job.

    Attributes
    ----------
    colour : the order of colours in the program's arrays, "bgr" or "rgb"; the fog's by default
    tiles : "auto", "size 512x512" (width x height) or "grid 3x1"; the configured by default
    post : a pipeline for the merged image, on the gateway; the configured by default
    verify : compare with one machine, and fail if pixels differ
    priority : -4 to 4, each step doubles the share of the fleet's time; the pipeline's by default
    timeout : seconds after which the job ends and raises JobTimedOut
    pages : of a file with several, "first" (the default), a number from 1 on, or "all"
    name : what the image is called in messages and reports
    """

    colour: Colour
    tiles: str
    post: str
    verify: bool
    priority: int
    timeout: float
    pages: Pages
    name: str


_OPTIONS: Final = frozenset(JobOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked pipeline with its options, for any number of images."""

    request: JobRequest
    colour: Colour
    #: Whether the result's order of colours can be changed to the program's.
    gives_bgr: bool
    measures: bool
    name: str

    def request_for(self, image: object, *, is_kept: bool) -> JobRequest:
        """Return the request for one image. Raises ImageError.

        `is_kept`: the program may change its array before the job is done.
        """
        request = replace(self.request, job=JobRequest("", "").job)
        if isinstance(image, str | os.PathLike):
            path = Path(os.fsdecode(image))
            return replace(request, name=self.name or path.name, path=path)
        name = self.name or f"image {next(_numbers)}"
        if isinstance(image, bytes | bytearray | memoryview):
            return replace(request, name=name, data=bytes(image))
        return replace(
            request, name=name, image=from_program(image, name, self.colour, is_kept=is_kept)
        )

    def result_of(self, outcome: Outcome) -> Any:
        """Return what the program gets of a job that has a result."""
        if self.measures:
            facts = outcome.facts or {}
            return facts["pages"] if self.request.pages == "all" and "pages" in facts else facts
        colour = self.colour if self.gives_bgr else "bgr"
        if self.request.pages == "all":
            return [for_program(image, colour) for image in outcome.images]
        return None if outcome.image is None else for_program(outcome.image, colour)


def make_plan(
    config: GatewayConfig,
    pipeline: str | None,
    options: Mapping[str, Any],
    *,
    colour: Colour,
    wanted: Wanted = "either",
) -> Plan:
    """Check a pipeline and its options. Raises UsageError, PipelineError and PlanError."""
    _check_names(options)
    chosen = cast("JobOptions", options)
    text = find_pipeline(config, pipeline)
    operators = parse(text)
    measures = operators[-1].measures
    _check_wanted(operators[-1], wanted)
    post = chosen.get("post", "" if measures else config.post)
    pages = _checked_pages(chosen.get("pages", "first"), wanted)
    request = JobRequest(
        name="",
        pipeline=text,
        pages=pages,
        tiles=parse_tile_plan(chosen.get("tiles", config.tiles)),
        post=post,
        verify=chosen.get("verify", False),
        priority=_checked_priority(find_priority(config, pipeline, chosen.get("priority"))),
        timeout_s=_checked_timeout(chosen.get("timeout")),
    )
    return Plan(
        request,
        check_colour(chosen.get("colour", colour)),
        _gives_bgr((*operators, *parse_post(post))),
        measures,
        chosen.get("name", ""),
    )


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS:
            close = difflib.get_close_matches(name, _OPTIONS, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(_OPTIONS)}"
            raise TypeError(f"there is no option {name!r}; {hint}")


def _check_wanted(last: Operator, wanted: Wanted) -> None:
    if wanted == "image" and last.measures:
        raise UsageError(f"{last.name} gives facts, not an image; use fog.measure")
    if wanted == "facts" and not last.measures:
        raise UsageError(f"{last.name} gives an image, not facts; use fog.run")


def _checked_pages(pages: object, wanted: Wanted) -> Pages:
    if pages == "all" and wanted == "image":
        raise UsageError("fog.run gives one image; fog.submit(…, pages='all').result() gives all")
    if pages == "all" or pages == "first":
        return pages
    if isinstance(pages, int) and not isinstance(pages, bool) and pages > 0:
        return pages
    raise UsageError(f"pages={pages!r}: expected 'first', 'all', or a number from 1 on")


def _checked_priority(priority: int) -> int:
    if priority not in range(-4, 5):
        raise UsageError(f"priority={priority!r}: expected -4 to 4")
    return priority


def _checked_timeout(timeout: float | None) -> float | None:
    if timeout is not None and not 0 < timeout < float("inf"):
        raise UsageError(f"timeout={timeout!r}: expected a number of seconds above 0")
    return timeout


def _gives_bgr(operators: tuple[Operator, ...]) -> bool:
    is_bgr = True
    for operator in operators:
        is_bgr = operator.gives_bgr(before=is_bgr)
    return is_bgr
