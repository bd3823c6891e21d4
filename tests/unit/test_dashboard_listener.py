"""The HTTP server's patience: with slow headers, with slow bodies, with slow readers."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress

import pytest
from websockets.asyncio.client import connect

from fogmqtt.dashboard.listener import PatientProtocol, listen, serve_http
from fogmqtt.errors import UsageError
from tests.gateway_rig import run

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(PatientProtocol, "headers_s", 0.1)
    monkeypatch.setattr(PatientProtocol, "reader_s", 0.1)


async def hello(scope, receive, send):
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def server(app=hello):
    sock = listen("127.0.0.1", 0)
    task = asyncio.create_task(serve_http(app, sock))
    try:
        yield sock.getsockname()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def ended(reader):
    """Read what comes until the server closes the connection."""
    async with asyncio.timeout(10):
        return await reader.read()


def test_headers_that_do_not_come_are_not_waited_for():
    async def test():
        async with server() as address:
            for begin in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
                reader, writer = await asyncio.open_connection(*address)
                writer.write(begin)
                answer = await ended(reader)
                assert b"408" in answer
                assert b"did not come in time" in answer
                writer.close()

    run(test())


def test_headers_that_come_one_by_one_are_not_waited_for_either():
    async def test():
        async with server() as address:
            reader, writer = await asyncio.open_connection(*address)

            async def drip():
                writer.write(b"GET / HTTP/1.1\r\n")
                for number in range(1000):
                    writer.write(f"X-{number}: 1\r\n".encode())
                    await asyncio.sleep(0.02)

            dripping = asyncio.create_task(drip())
            assert b"408" in await ended(reader)
            dripping.cancel()
            writer.close()

    run(test())


def test_a_request_that_takes_long_to_answer_has_its_time():
    async def slow(scope, receive, send):
        await asyncio.sleep(0.3)
        await hello(scope, receive, send)

    async def test():
        async with server(slow) as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUEST)
            async with asyncio.timeout(10):
                assert b"200" in await reader.readline()
            writer.close()

    run(test())


def test_a_connection_is_kept_for_the_next_request():
    async def test():
        async with server() as address:
            reader, writer = await asyncio.open_connection(*address)
            for _ in range(3):
                writer.write(REQUEST)
                async with asyncio.timeout(10):
                    await reader.readuntil(b"hello")
                await asyncio.sleep(0.15)  # longer than headers may take
            writer.close()

    run(test())


def test_a_reader_that_takes_nothing_is_cut_off():
    gone = asyncio.Event()

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.is_set():
            await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
            if asyncio.get_running_loop().is_closed():
                return

    async def watched(scope, receive, send):
        writing = asyncio.create_task(endless(scope, receive, send))
        while (await receive())["type"] != "http.disconnect":
            continue
        gone.set()
        await writing

    async def test():
        async with server(watched) as address:
            reads = socket.create_connection(address)
            reads.sendall(REQUEST)
            async with asyncio.timeout(10):
                await gone.wait()
            reads.close()

    run(test())


def test_a_websocket_is_not_taken_for_headers_that_do_not_come():
    async def echo(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    async def test():
        async with server(echo) as (host, port), connect(f"ws://{host}:{port}/") as client:
            for _ in range(3):
                await client.send("hello")
                assert await client.recv() == "hello"
                await asyncio.sleep(0.15)  # longer than headers may take

    run(test())


def test_what_is_no_http_is_refused():
    async def test():
        async with server() as address:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            assert b"400" in await ended(reader)
            writer.close()

    run(test())


def test_the_error_of_a_port_that_is_taken_says_so():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}: another program listens there"):
            listen("127.0.0.1", port)


def test_the_error_of_an_address_of_another_machine_says_so():
    with pytest.raises(UsageError, match=r"dashboard.listen: 192\.0\.2\.1:0: .*assign"):
        listen("192.0.2.1", 0)


def test_connections_beyond_the_most_get_a_sentence_and_leave(monkeypatch):
    monkeypatch.setattr(PatientProtocol, "most_connections", 1)

    async def test():
        async with server() as address:
            _, first = await asyncio.open_connection(*address)
            reader, writer = await asyncio.open_connection(*address)
            writer.write(REQUEST)
            answer = await ended(reader)
            assert b"503" in answer
            assert b"connections are open already; close some, or try again later." in answer
            first.close()
            writer.close()

    run(test())
