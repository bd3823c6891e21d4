"""The last step of a job, in the pool: compare with one machine, draw facts, post-process."""

from __future__ import annotations

from fogmqtt.gateway.jobs.model import Job, Outcome
from fogmqtt.gateway.jobs.report import differ_line
from fogmqtt.images.compare import NO_DIFFERENCE, Difference, difference
from fogmqtt.images.picture import as_colour
from fogmqtt.images.source import as_array
from fogmqtt.images.spec import Image
from fogmqtt.operators.api.base import Facts, StageOutput
from fogmqtt.operators.api.measuring import Measuring, count_differences
from fogmqtt.operators.api.pipeline import Operators, run_whole


def finalize(job: Job, made: StageOutput) -> Outcome:
    """What the client gets of what the last stage made. Raises FogError, as operators do."""
    assert job.original is not None  # noqa: S101  # set when the image was decoded
    original = as_array(job.original)
    found = _compare(job, made, original) if job.request.verify else NO_DIFFERENCE
    if isinstance(made, dict):
        picture, facts = _drawn(job, made, original), made
    else:
        picture, facts = made, None
    done = _posted(job.post, picture, original)
    error = differ_line(job.report, found.where) if job.report.differ else None
    return Outcome(job.id, job.report, done, original, error, found.picture, facts)


def _compare(job: Job, made: StageOutput, original: Image) -> Difference:
    expected = run_whole(job.operators, original, original)
    if isinstance(made, dict) or isinstance(expected, dict):
        job.report.differ, job.report.facts = count_differences(made, expected)
        return NO_DIFFERENCE
    found = difference(made, expected)
    job.report.differ = found.pixels
    return found


def _drawn(job: Job, facts: Facts, original: Image) -> Image:
    """The facts on the original, or on what was measured where that has another size."""
    last, entering = job.operators[-1], job.entering
    on = original
    if entering is not None and entering.spec.size != original.shape[:2]:
        on = as_array(entering)
    picture = as_colour(on)
    return last.draw(picture, facts) if isinstance(last, Measuring) else picture


def _posted(post: Operators, picture: Image, original: Image) -> Image:
    if not post:
        return picture
    done = run_whole(post, picture, original)
    assert not isinstance(done, dict)  # noqa: S101  # intake refuses a post that measures
    return done
