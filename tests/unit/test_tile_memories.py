"""A worker's memories of tiles: which tasks apply to them, and what the others are told."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from fogmqtt.images import codec
from fogmqtt.images.spec import Image, Spec
from fogmqtt.operators.api.memory import FrameMemory
from fogmqtt.operators.api.pipeline import parse, to_calls
from fogmqtt.transport.base import Received
from fogmqtt.wire.messages import (
    MEMORY_CODEC,
    NO_PIXELS,
    Call,
    Failure,
    Result,
    TileMemory,
    TileTask,
    encode,
    with_digest,
)
from fogmqtt.workers import memories as tile_memories
from fogmqtt.workers.memories import TileMemories
from fogmqtt.workers.memory_limit import MemoryLimit
from fogmqtt.workers.process import WorkerDone, WorkerFailed, run_task
from tests.agent_rig import TILES, running_agent

RNG = np.random.default_rng(5)
FRAMES = [RNG.integers(0, 256, (12, 18), dtype=np.uint8) for _ in range(8)]


def task(
    after: int,
    deed: str = "apply",
    text: str = "diff",
    *,
    frame: Image | None = None,
    epoch: int = 1,
    silent: bool = False,
    **changes: Any,
) -> TileTask:
    pixels = FRAMES[after] if frame is None else frame
    spec = Spec.of(pixels)
    memory = TileMemory("yard", deed, epoch, after, silent)  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "job": f"yard.{epoch}.{after}",
        "tile": 0,
        "attempt": 1,
        "gateway": "mariem",
        "stage": [Call(name, params) for name, params in to_calls(parse(text))],
        "shape": (*spec.size, spec.channels),
        "dtype": "uint8",
        "core": (0, 0, *spec.size),
        "lease_s": 10.0,
        "memory": memory,
        "pixels": memoryview(pixels.tobytes()),
        **changes,
    }
    return with_digest(TileTask(**fields))


def done(memories: TileMemories, work: TileTask) -> tuple[WorkerDone, bytes]:
    reply, data = run_task(work, MemoryLimit(0), memories)
    assert isinstance(reply, WorkerDone), reply
    return reply, bytes(data)


def image(memories: TileMemories, work: TileTask) -> Image:
    reply, data = done(memories, work)
    return codec.decode(data, reply.codec, reply.shape, reply.dtype)


def failure(memories: TileMemories, work: TileTask) -> WorkerFailed:
    reply, _ = run_task(work, MemoryLimit(0), memories)
    assert isinstance(reply, WorkerFailed), reply
    return reply


def whole(text: str, count: int) -> list[Image]:
    memory = FrameMemory()
    done = [memory.run_whole(parse(text), one, one, at) for at, one in enumerate(FRAMES[:count])]
    return [one for one in done if isinstance(one, np.ndarray)]


@pytest.mark.parametrize("text", ["diff", "median_of", "average", "background", "mog2"])
def test_frames_one_after_the_other_give_what_one_machine_gives(text: str) -> None:
    memories = TileMemories(0)
    for count, expected in enumerate(whole(text, 8)):
        deed = "apply" if count else "begin"
        assert np.array_equal(image(memories, task(count, deed, text)), expected)


def test_a_task_for_another_version_is_told_which_one_there_is() -> None:
    memories = TileMemories(0)
    assert failure(memories, task(0)).have == -1
    done(memories, task(0, "begin"))
    done(memories, task(1))
    for after in (3, 5):
        told = failure(memories, task(after))
        assert (told.have, told.needs_replacement) == (2, False)
        assert f"needs the version {after} of the tile's memory, not the version 2" in told.reason
    assert failure(memories, task(2, epoch=2)).have == -1
    assert np.array_equal(image(memories, task(2)), whole("diff", 3)[2])


def test_a_frame_that_was_done_before_gets_the_remembered_answer() -> None:
    memories = TileMemories(0)
    first = [image(memories, task(at, "apply" if at else "begin")) for at in range(6)]
    for at in (3, 5):
        assert np.array_equal(image(memories, task(at, frame=FRAMES[0])), first[at])
    assert failure(memories, task(0)).have == 6


def test_a_late_duplicate_of_the_first_message_does_not_empty_the_memory() -> None:
    memories = TileMemories(0)
    for at in range(6):
        done(memories, task(at, "apply" if at else "begin"))
    assert failure(memories, task(0, "begin")).have == 6
    assert np.array_equal(image(memories, task(6)), whole("diff", 7)[6])
    done(memories, task(0, "begin", attempt=2))
    assert failure(memories, task(7)).have == 1


def test_a_silent_task_has_no_pixels_and_its_answer_can_be_asked_for() -> None:
    memories = TileMemories(0)
    done(memories, task(0, "begin", silent=True))
    reply, data = done(memories, task(1, silent=True))
    assert (reply.codec, data) == (NO_PIXELS, b"")
    assert np.array_equal(image(memories, task(1)), whole("diff", 2)[1])


def test_a_memory_moves_to_another_worker_as_a_copy() -> None:
    text, one, other = "background rate=2", TileMemories(0), TileMemories(0)
    for at in range(5):
        done(one, task(at, "apply" if at else "begin", text))
    reply, copy = done(one, task(5, "save", text, pixels=memoryview(b""), codec=NO_PIXELS))
    assert reply.codec == MEMORY_CODEC
    load = task(5, "load", text, pixels=memoryview(copy), codec=MEMORY_CODEC)
    assert done(other, load)[0].codec == NO_PIXELS
    assert np.array_equal(image(other, task(5, "apply", text)), whole(text, 6)[5])


def test_a_copy_that_is_none_fails_and_leaves_no_memory() -> None:
    memories = TileMemories(0)
    for changes in (
        {"pixels": memoryview(b"nonsense"), "codec": MEMORY_CODEC},
        {"pixels": memoryview(b"\x90"), "codec": "raw"},
    ):
        told = failure(memories, task(5, "load", "average", **changes))
        assert (told.have, told.needs_replacement) == (None, False)
        assert failure(memories, task(5, "apply", "average")).have == -1


def test_a_frame_that_fails_leaves_no_memory() -> None:
    memories = TileMemories(0)
    done(memories, task(0, "begin"))
    assert "diff" in failure(memories, task(1, shape=(12, 18, 3))).reason or True
    assert failure(memories, task(1)).have == -1


def test_the_memories_of_a_worker_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_memories, "_UNLIMITED_BYTES", 3 * 12 * 18)
    memories = TileMemories(0)
    for tile in range(4):
        done(memories, task(0, "begin", tile=tile))
    assert failure(memories, task(1, tile=0)).have == -1
    assert done(memories, task(1, tile=3))
    told = failure(memories, task(0, "begin", "average"))
    assert "use more devices or smaller frames" in told.reason


def test_a_memory_that_no_task_comes_for_is_forgotten() -> None:
    memories = TileMemories(0)
    done(memories, task(0, "begin"))
    assert memories.expire(0.0)
    assert not memories.expire(float("inf"))
    assert failure(memories, task(1)).have == -1


def test_an_agent_answers_a_wrong_version_with_the_one_that_it_has() -> None:
    with running_agent() as rig:
        rig.tile(task(0, "begin"))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)
        rig.tile(task(4))
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
        (told,) = rig.link.of(Failure)
        assert (told.job, told.have) == ("yard.1.4", 1)
        rig.tile(task(1), "base64")
        rig.link.wait(lambda: len(rig.link.of(Result)) == 2)


@pytest.mark.parametrize(
    "memory",
    [
        {"stream": "Not An Id", "deed": "apply", "epoch": 1, "after": 0},
        {"stream": "yard", "deed": "burn", "epoch": 1, "after": 0},
        {"stream": "yard", "deed": "apply", "epoch": 0, "after": 0},
        {"stream": "yard", "deed": "apply", "epoch": 1, "after": -1},
        {"stream": "yard", "deed": "apply", "epoch": 1, "after": 2**60},
        {"stream": "yard", "deed": "apply", "epoch": "first", "after": 0},
        {"stream": "yard"},
        [1, 2, 3],
        "yard",
    ],
)
def test_malformed_words_about_a_memory_end_no_agent(memory: object) -> None:
    with running_agent() as rig:
        fields = msgspec.to_builtins(task(0, "begin"), builtin_types=(memoryview,))
        fields["memory"] = memory
        rig.link.deliver(Received(TILES, msgspec.msgpack.encode(fields)))
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
        rig.link.deliver(Received(TILES, encode(task(0, "begin"))))
        rig.link.wait(lambda: len(rig.link.of(Result)) == 1)


def test_the_digest_covers_what_is_said_of_the_memory() -> None:
    with running_agent() as rig:
        changed = msgspec.structs.replace(
            task(0, "begin"), memory=TileMemory("yard", "begin", 1, 7, silent=False)
        )
        rig.tile(changed)
        rig.link.wait(lambda: len(rig.link.of(Failure)) == 1)
        assert "the digest does not match" in rig.link.of(Failure)[0].reason
