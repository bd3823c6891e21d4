"""The last step of a job: compare with one machine, draw facts, and post-process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

from fogmqtt.gateway.jobs.model import Job, Outcome
from fogmqtt.gateway.jobs.report import format_differences
from fogmqtt.images.compare import NO_DIFFERENCE, Difference, difference
from fogmqtt.images.metadata import Metadata
from fogmqtt.images.picture import as_colour
from fogmqtt.images.source import as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts, StageOutput
from fogmqtt.operators.api.measuring import Measuring, count_differences
from fogmqtt.operators.api.pipeline import Operators, run_whole


def finalize(job: Job, output: StageOutput) -> Outcome:
    """Make the outcome of a job from the output of its last stage.

    Blocking: call from a worker thread. Raises FogError, as operators do.
    """
    assert job.original is not None  # noqa: S101  # set when the image was decoded
    original = as_array(job.original)
    verified = NO_DIFFERENCE
    if job.request.verify:
        with job.trace.span("verify"):
            verified = _compare(job, output, original)
    if isinstance(output, dict):
        with job.trace.span("draw"):
            image, facts = _draw_facts(job, output, original), output
    else:
        image, facts = output, None
    with job.trace.span("post") if job.post else nullcontext():
        image = _post_process(job.post, image, original)
    error = format_differences(job.report, verified.where) if job.report.differ else None
    return Outcome(job.id, job.report, image, original, error, verified.picture, facts)


def join_pages(outcomes: Sequence[Outcome], metadata: Sequence[Metadata]) -> Outcome:
    """Return the outcome of a job whose file has these pages, in their order."""
    images = tuple(outcome.image for outcome in outcomes if outcome.image is not None)
    # The report adds the differences up, so the last page knows of all.
    whole = replace(outcomes[0], images=images, metadata=tuple(metadata), error=outcomes[-1].error)
    if len(outcomes) == 1:
        return whole
    different = [outcome.difference for outcome in outcomes if outcome.difference is not None]
    facts: Facts | None = None
    if outcomes[0].facts is not None:
        facts = {"pages": [outcome.facts for outcome in outcomes]}
    return replace(whole, difference=different[0] if different else None, facts=facts)


def _compare(job: Job, output: StageOutput, original: Image) -> Difference:
    """Compare with the output of one machine, and count the differences in the report."""
    expected = run_whole(job.operators, original, original)
    if isinstance(output, dict) or isinstance(expected, dict):
        differ, facts = count_differences(output, expected)
        job.report.differ = (job.report.differ or 0) + differ
        job.report.facts = (job.report.facts or 0) + facts
        return NO_DIFFERENCE
    compared = difference(output, expected)
    job.report.differ = (job.report.differ or 0) + compared.pixels
    return compared


def _draw_facts(job: Job, facts: Facts, original: Image) -> Image:
    """Draw facts on the original, or on the measured image if that has another size."""
    last, entering = job.operators[-1], job.entering
    background = original
    if entering is not None and entering.spec.size != original.shape[:2]:
        background = as_array(entering)
    picture = as_colour(background)
    return last.draw(picture, facts) if isinstance(last, Measuring) else picture


def _post_process(post: Operators, image: Image, original: Image) -> Image:
    if not post:
        return image
    output = run_whole(post, image, original)
    assert not isinstance(output, dict)  # noqa: S101  # `ingest` refuses a post that measures
    return output
