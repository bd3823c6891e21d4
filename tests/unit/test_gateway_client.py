"""The dashboard's client of a gateway: requests, uploads and updates, whatever gets lost."""

import asyncio
import os

import pytest

from fogmqtt.dashboard import gateway_client
from fogmqtt.dashboard.gateway_client import RefusalReceived
from fogmqtt.dashboard.uploads import WINDOW, upload
from fogmqtt.errors import NoAnswer, UnsupportedVersion
from fogmqtt.transport.memory import MemoryBroker
from fogmqtt.wire.service_messages import (
    PIECE_BYTES,
    Answer,
    GetJob,
    JobAnswer,
    OpenUpload,
    PutPiece,
    SubmitFile,
    Watch,
)
from fogmqtt.wire.topics import OFFLINE
from tests.dashboard_rig import dashboard, job_card, refused
from tests.gateway_rig import eventually, run


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(gateway_client, "RETRY_S", 0.05)


def test_a_request_is_repeated_with_the_same_id_until_it_is_answered():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card())
            rig.gateway.deaf = lambda request: len(rig.gateway.requests) < 3
            answer = await rig.client.ask(GetJob(id="a", job="j0"), JobAnswer)
            assert answer.job.id == "j0"
            assert [one.id for one in rig.gateway.asked(GetJob)] == ["a", "a", "a"]

    run(test())


def test_a_refusal_is_raised_with_its_sentence():
    async def test():
        async with dashboard() as rig:
            with pytest.raises(RefusalReceived, match="there is no such thing"):
                await rig.client.ask(GetJob(id="a", job="j9"), JobAnswer)

    run(test())


def test_many_users_ask_no_more_at_once_than_the_gateway_takes_of_one_client():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card())
            rig.gateway.deaf = lambda request: isinstance(request, GetJob)
            asking = [
                asyncio.create_task(rig.client.ask(GetJob(id=f"{n}", job="j0"), JobAnswer))
                for n in range(100)
            ]
            await eventually(lambda: len(rig.gateway.asked(GetJob)) >= 32)
            assert len({one.id for one in rig.gateway.asked(GetJob)}) == 32
            await rig.client.current()  # what all wait for is not kept back
            rig.gateway.deaf = lambda request: False
            assert len(await asyncio.gather(*asking)) == 100

    run(test())


def test_the_error_of_a_gateway_that_is_offline_says_so():
    async def test():
        async with dashboard() as rig:
            rig.gateway.deaf = lambda request: True
            rig.gateway.say(OFFLINE)
            with pytest.raises(NoAnswer, match="The gateway mariem is offline"):
                await rig.client.ask(GetJob(id="a", job="j0"), JobAnswer, within_s=0.1)

    run(test())


def test_the_error_of_a_gateway_that_nobody_knows_says_so():
    async def test():
        async with dashboard(starts=False) as rig:
            with pytest.raises(NoAnswer, match="The broker knows of no gateway mariem"):
                await rig.client.current(within_s=0.1)

    run(test())


def test_a_request_waits_for_a_broker_that_comes_back():
    async def test():
        broker = MemoryBroker()
        async with dashboard(broker=broker) as rig:
            rig.gateway.add(job_card())
            await rig.client.current()
            broker.cut("dashboard")
            await eventually(lambda: not rig.client.is_online)
            asking = asyncio.create_task(rig.client.ask(GetJob(id="a", job="j0"), JobAnswer))
            await asyncio.sleep(0)
            broker.reconnect("dashboard")
            assert (await asking).job.id == "j0"

    run(test())


def test_nobody_watches_a_gateway_in_which_nobody_is_interested(monkeypatch):
    monkeypatch.setattr(gateway_client, "WATCH_EVERY_S", 0.01)
    monkeypatch.setattr(gateway_client, "_LINGER_S", 0.05)

    async def test():
        async with dashboard() as rig:
            await rig.client.current()
            await eventually(lambda: not rig.client.is_current)
            asked = len(rig.gateway.asked(Watch))
            await asyncio.sleep(0.05)
            assert len(rig.gateway.asked(Watch)) == asked

    run(test())


def test_updates_continue_the_snapshot():
    async def test():
        async with dashboard() as rig:
            mirror = await rig.client.current()
            rig.gateway.update(jobs=[job_card("j7")])
            await eventually(lambda: "j7" in mirror.jobs)
            rig.gateway.update(gone_jobs=["j7"])
            await eventually(lambda: "j7" not in mirror.jobs)
            assert len(rig.gateway.asked(Watch)) == 1

    run(test())


def test_a_lost_update_leads_to_a_new_snapshot():
    async def test():
        async with dashboard() as rig:
            mirror = await rig.client.current()
            rig.gateway.add(job_card("j7"))
            rig.gateway.sequence += 1  # an update that never came
            rig.gateway.update()
            await eventually(lambda: "j7" in mirror.jobs)
            assert len(rig.gateway.asked(Watch)) == 2

    run(test())


def test_an_update_right_behind_a_snapshot_counts():
    async def test():
        async with dashboard() as rig:
            await eventually(lambda: rig.client.is_online)
            asking = asyncio.create_task(rig.client.current())
            # Both messages wait for the client before it handles the first.
            await eventually(lambda: rig.gateway.asked(Watch))
            rig.gateway.update(jobs=[job_card("j7")])
            await eventually(lambda: "j7" in rig.client.mirror.jobs)
            await asking
            assert len(rig.gateway.asked(Watch)) == 1

    run(test())


def test_an_update_that_is_faster_than_its_snapshot_counts():
    async def test():
        async with dashboard() as rig:
            await eventually(lambda: rig.client.is_online)

            def late(request):
                if not isinstance(request, Watch):
                    return None
                old = rig.gateway._answer(request)
                rig.gateway.update(jobs=[job_card("j7")])
                return old

            rig.gateway.hook = late
            mirror = await rig.client.current()
            assert (mirror.sequence, list(mirror.jobs)) == (1, ["j7"])
            assert len(rig.gateway.asked(Watch)) == 1

    run(test())


class Foreign(Answer, frozen=True, kw_only=True, tag="of-the-future"):
    """An answer of a later version."""


def test_whoever_waits_for_a_job_asks_for_it_if_no_update_tells_of_its_end(monkeypatch):
    monkeypatch.setattr(gateway_client, "_LOOK_AGAIN_S", 0.05)

    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1"))
            await rig.client.current()
            waiting = asyncio.create_task(rig.client.ended(rig.gateway.jobs["j1"]))
            await eventually(lambda: rig.gateway.asked(GetJob))
            rig.gateway.add(job_card("j1", state="done"))  # and no update says so
            assert (await waiting).state == "done"

    run(test())


def test_a_gateway_that_began_anew_leads_to_a_new_snapshot():
    async def test():
        async with dashboard() as rig:
            mirror = await rig.client.current()
            rig.gateway.boot, rig.gateway.sequence = "boot-2", 0
            rig.gateway.update()
            await eventually(lambda: mirror.boot == "boot-2" and rig.client.is_current)

    run(test())


def test_whoever_waits_for_a_job_hears_of_its_end_by_an_update():
    async def test():
        async with dashboard() as rig:
            rig.gateway.add(job_card("j1"))
            waiting = asyncio.create_task(rig.client.ended(rig.gateway.jobs["j1"]))
            await eventually(lambda: rig.client.is_current)
            rig.gateway.end("j1", result=b"x")
            assert (await waiting).state == "done"

    run(test())


async def pieces_of(data, size=50_000):
    for begin in range(0, len(data), size):
        yield data[begin : begin + size]


def opening(**more):
    return OpenUpload(id="open", name="photo.png", **more)


def test_a_file_arrives_whole_in_pieces_of_which_few_are_on_their_way_at_once():
    data = os.urandom(7 * PIECE_BYTES + 123)
    on_their_way, most = 0, 0

    async def test():
        nonlocal most
        async with dashboard() as rig:
            rig.gateway.max_file_bytes = len(data)
            ask = rig.client.ask

            async def counted(request, *arguments, **options):
                nonlocal on_their_way, most
                is_piece = isinstance(request, PutPiece)
                on_their_way += is_piece
                most = max(most, on_their_way)
                try:
                    return await ask(request, *arguments, **options)
                finally:
                    on_their_way -= is_piece

            rig.client.ask = counted
            answer = await upload(rig.client, opening(), pieces_of(data))
            assert rig.gateway.files[answer.job.id, "original"] == data
            assert 1 < most <= WINDOW

    run(test())


def test_a_piece_that_was_lost_is_sent_again_and_those_after_it_too():
    data = os.urandom(6 * PIECE_BYTES)

    async def test():
        async with dashboard() as rig:
            rig.gateway.max_file_bytes = len(data)
            lost = []

            def loses(request):
                if isinstance(request, PutPiece) and request.offset == PIECE_BYTES and not lost:
                    lost.append(request)
                    return True
                return False

            rig.gateway.deaf = loses
            answer = await upload(rig.client, opening(), pieces_of(data))
            assert lost
            assert rig.gateway.files[answer.job.id, "original"] == data

    run(test())


def test_a_file_that_fits_into_one_message_is_one_request():
    data = os.urandom(1000)

    async def test():
        async with dashboard() as rig:
            await rig.client.current()
            answer = await upload(rig.client, opening(bytes=len(data)), pieces_of(data))
            assert rig.gateway.files[answer.job.id, "original"] == data
            asked = [type(one) for one in rig.gateway.requests if not isinstance(one, Watch)]
            assert asked == [SubmitFile]

    run(test())


def test_a_busy_gateway_is_asked_again_for_a_while():
    data = os.urandom(1000)
    busy = iter((True, True, False))

    async def test():
        async with dashboard() as rig:
            rig.gateway.hook = lambda request: (
                refused(request, "busy", "too much to do")
                if isinstance(request, SubmitFile) and next(busy)
                else None
            )
            await upload(rig.client, opening(bytes=len(data)), pieces_of(data))
            assert len(rig.gateway.asked(SubmitFile)) == 3

    run(test())


def test_a_gateway_whose_answers_are_not_understood_is_of_another_version():
    async def test():
        async with dashboard() as rig:
            rig.gateway.hook = lambda request: Foreign(id=request.id)
            with pytest.raises(UnsupportedVersion, match="another version than this dashboard"):
                await rig.client.ask(GetJob(id="a", job="j1"), JobAnswer)
            waiting = asyncio.create_task(rig.client.current())
            await eventually(lambda: not rig.client.link_state[0])
            assert "update the older one" in rig.client.link_state[1]
            rig.gateway.hook = lambda request: None
            await waiting
            assert rig.client.link_state[0]

    run(test())


def test_a_file_that_the_sender_does_not_finish_is_dropped():
    async def stops():
        yield b"half"
        raise ConnectionError("gone")

    async def test():
        async with dashboard() as rig:
            with pytest.raises(ConnectionError):
                await upload(rig.client, opening(), stops())
            await eventually(lambda: rig.gateway.dropped == ["u0"])
            assert rig.gateway.jobs == {}

    run(test())


def test_pieces_fit_into_the_packets_of_a_broker_that_takes_small_ones():
    data = os.urandom(100_000)

    async def test():
        broker = MemoryBroker(max_packet_bytes=20_000)
        async with dashboard(broker=broker) as rig:
            await rig.client.current()
            answer = await upload(rig.client, opening(), pieces_of(data))
            assert rig.gateway.files[answer.job.id, "original"] == data

    run(test())
