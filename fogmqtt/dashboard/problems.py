"""Errors as HTTP answers: `application/problem+json` (RFC 9457), each with one sentence."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.responses import Response

from fogmqtt.dashboard.gateway_client import RefusalReceived
from fogmqtt.errors import FogError, NoAnswer, TooLarge, UnsupportedVersion
from fogmqtt.wire.service_messages import FailureKind, JobCard, Refusal

#: The type of a problem is this and its name; docs/http.md lists the names.
TYPE_PREFIX: Final = "urn:problem-type:fogmqtt:"
#: Seconds after which a program should try again while the gateway is away.
_AWAY_S: Final = 5.0

#: The kind of a gateway's refusal: the name of the problem, and the status.
_REFUSALS: dict[str, tuple[str, int]] = {
    "not-found": ("not-found", 404),
    "invalid": ("invalid", 422),
    "too-large": ("too-large", 413),
    "unsupported": ("unsupported-image", 415),
    "conflict": ("conflict", 409),
    "busy": ("busy", 503),
    "paused": ("paused", 503),
    "other-version": ("other-version", 501),
    "failed": ("failed", 500),
}


#: The failure of a job: the name of the problem, and the status.
_FAILURES: dict[FailureKind, tuple[str, int]] = {
    "": ("job-failed", 500),
    "gateway": ("job-failed", 500),
    "image": ("job-image", 422),
    "pipeline": ("job-pipeline", 422),
    "devices": ("job-devices", 502),
    "no-device": ("no-device", 503),
    "timeout": ("job-timeout", 504),
    "delivery": ("job-delivery", 507),
}


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a request was not done."""

    type: str
    title: str
    status: int
    #: One sentence: what is wrong, and the way out.
    detail: str
    #: The job that it is about.
    job: str = ""
    #: The number that was exceeded.
    limit: int | None = None
    #: Seconds after which another try makes sense.
    retry_after_s: float | None = None


class Problem(FogError):
    """An error of a request, with its status."""

    def __init__(
        self,
        name: str,
        status: int,
        detail: str,
        *,
        job: str = "",
        limit: int | None = None,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.body = ProblemBody(
            type=TYPE_PREFIX + name,
            title=HTTPStatus(status).phrase,
            status=status,
            detail=detail,
            job=job,
            limit=limit,
            retry_after_s=retry_after_s,
        )
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer to the request."""
        headers = {"Cache-Control": "no-store", **self.headers}
        if self.body.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.body.retry_after_s)))
        return Response(
            msgspec.json.encode(self.body),
            self.body.status,
            headers,
            media_type="application/problem+json",
        )


def job_problem(card: JobCard) -> Problem:
    """Return why a job that has ended has no result."""
    if card.state == "cancelled":
        return Problem("job-cancelled", 409, f"The job {card.id} was cancelled.", job=card.id)
    name, status = _FAILURES[card.failure]
    is_away = card.failure == "no-device"
    return Problem(
        name,
        status,
        card.error or "The job failed.",
        job=card.id,
        retry_after_s=_AWAY_S if is_away else None,
    )


def problem_of(error: FogError) -> Problem:
    """Return an error of the gateway or of the link to it as a problem."""
    match error:
        case Problem():
            return error
        case RefusalReceived(refusal=refusal):
            return _refused(refusal)
        case UnsupportedVersion():
            return Problem("other-version", 501, str(error))
        case NoAnswer():
            return Problem("no-answer", 503, str(error), retry_after_s=_AWAY_S)
        case TooLarge():
            return Problem("broker-limit", 502, str(error))
        case _:
            return Problem("gateway-error", 502, str(error))


def _refused(refusal: Refusal) -> Problem:
    name, status = _REFUSALS[refusal.kind]
    return Problem(
        name,
        status,
        refusal.sentence,
        job=refusal.job,
        limit=refusal.limit,
        retry_after_s=refusal.retry_after_s,
    )
