"""The last step of a job: compare with one machine, draw facts, and post-process."""

from __future__ import annotations

from fogmqtt.gateway.jobs.model import Job, Outcome
from fogmqtt.gateway.jobs.report import format_differences
from fogmqtt.images.compare import NO_DIFFERENCE, Difference, difference
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
    verified = _compare(job, output, original) if job.request.verify else NO_DIFFERENCE
    if isinstance(output, dict):
        image, facts = _draw_facts(job, output, original), output
    else:
        image, facts = output, None
    image = _post_process(job.post, image, original)
    error = format_differences(job.report, verified.where) if job.report.differ else None
    return Outcome(job.id, job.report, image, original, error, verified.picture, facts)


def _compare(job: Job, output: StageOutput, original: Image) -> Difference:
    """Compare with the output of one machine, and count the differences in the report."""
    expected = run_whole(job.operators, original, original)
    if isinstance(output, dict) or isinstance(expected, dict):
        job.report.differ, job.report.facts = count_differences(output, expected)
        return NO_DIFFERENCE
    compared = difference(output, expected)
    job.report.differ = compared.pixels
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
