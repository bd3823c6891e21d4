"""Why a request is not done, as the client gets it."""

from __future__ import annotations

from typing import Literal

from fogmqtt.errors import (
    FogError,
    ImageError,
    JobFailed,
    OperatorError,
    PipelineError,
    TooLarge,
    UsageError,
)
from fogmqtt.log import one_line
from fogmqtt.wire.service_messages import Refusal

Kind = Literal[
    "not-found",
    "invalid",
    "too-large",
    "unsupported",
    "conflict",
    "busy",
    "paused",
    "other-version",
    "failed",
]


class RequestRefused(FogError):
    """A request that is not done, with the kind of the reason and the limit that it exceeds."""

    def __init__(
        self,
        kind: Kind,
        sentence: str,
        *,
        limit: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.kind = kind
        self.limit = limit
        self.retry_after_s = retry_after_s


def no_job(job: str) -> RequestRefused:
    """There is no such job, or it left the history."""
    return RequestRefused("not-found", f"there is no job {job}, or it is not in the history")


def refusal(request_id: str, problem: Exception) -> Refusal:
    """Return the answer to a request that failed with a FogError or an OSError."""
    kind, limit, retry_after_s = _kind(problem), None, None
    if isinstance(problem, RequestRefused):
        limit, retry_after_s = problem.limit, problem.retry_after_s
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return Refusal(
        id=request_id,
        kind=kind,
        sentence=one_line(text),
        limit=limit,
        retry_after_s=retry_after_s,
    )


def _kind(problem: Exception) -> Kind:
    match problem:
        case RequestRefused():
            return problem.kind
        case TooLarge():
            return "too-large"
        case ImageError():
            return "unsupported"
        case PipelineError() | OperatorError() | UsageError():
            return "invalid"
        case JobFailed():
            return "failed"
        case _:
            return "failed"
