"""From `publish_event` to a client at the other end of a real socket, server and client in one process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.conftest import Bench
from fraiseql_subs.asgi import SubscriptionApp


@contextlib.asynccontextmanager
async def served(bench: Bench) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            SubscriptionApp(bench.manager), ws="websockets-sansio", ws_per_message_deflate=False, log_level="warning"
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def watching(url: str) -> AsyncIterator[ClientConnection]:
    """A client whose one subscription is live."""
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as client:
        await client.send('{"type":"connection_init"}')
        await client.recv()
        query = "subscription { userUpdated { id payload } }"
        await client.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
        await client.send('{"type":"ping"}')
        assert json.loads(await client.recv())["type"] == "pong"  # so the subscribe before it is done
        yield client


@pytest.fixture
def clients(bench: Bench) -> Iterator[list[ClientConnection]]:
    stack = contextlib.AsyncExitStack()

    async def enter() -> list[ClientConnection]:
        url = await stack.enter_async_context(served(bench))
        return [await stack.enter_async_context(watching(url)) for _ in range(bench.size(100))]

    yield bench.run(enter())
    bench.run(stack.aclose())


def test_lone_event_end_to_end(bench: Bench, clients: list[ClientConnection]) -> None:
    count = bench.size(500)

    async def work() -> None:
        for _ in range(count):
            await bench.publish()
            await clients[0].recv()

    others = clients[1:]
    bench.run(close(others))
    bench.measure(work, per=count)


def test_fan_out_to_100_sockets(bench: Bench, clients: list[ClientConnection]) -> None:
    """One unit is one event, received by every client."""
    count = bench.size(100)

    async def receive(client: ClientConnection) -> None:
        for _ in range(count):
            await client.recv()

    async def work() -> None:
        receiving = asyncio.gather(*map(receive, clients))
        for _ in range(count):
            await bench.publish()
            await asyncio.sleep(0)
        await receiving

    bench.measure(work, per=count)


async def close(clients: list[ClientConnection]) -> None:
    for client in clients:
        await client.close()
