"""The clients that the documents show resume: nothing lost, nothing twice, whatever ends the connection."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from .conftest import EXAMPLES, Server
from .proxy import Proxy
from .test_clients import CLIENTS, Client, connected, node, until
from .test_workers import APPLICATION, BUSES, buses, options, outside

__all__ = ["node"]

MEMORY = json.dumps({"kind": "memory", "history": 10_000})

clients = pytest.mark.parametrize("name", ["graphql-ws", "apollo"])


@pytest.fixture
def watch(node, tmp_path) -> Callable[[str, Proxy], Any]:
    """`watch(name, proxy)`: the page with this client, which prints a number for each tick, and "lost"."""
    (tmp_path / "node_modules").symlink_to(CLIENTS / "node_modules")
    for file in [*EXAMPLES.glob("resume_*.mjs"), CLIENTS / "resuming.mjs"]:
        shutil.copy(file, tmp_path)
    return lambda name, proxy: connected(
        [node, str(tmp_path / "resuming.mjs"), name, f"ws://127.0.0.1:{proxy.port}/graphql/subscriptions"]
    )


class Publisher:
    """Publishes numbers from 0 on at the server, past the proxy; what was not accepted is tried again."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http
        self.next = 0

    async def publish(self, count: int) -> None:
        numbers = [*range(self.next, self.next + count)]
        assert (await self._http.post("/publish", json=numbers)).status_code == 200
        self.next += count


@asynccontextmanager
async def publisher(server: Server) -> AsyncIterator[tuple[httpx2.AsyncClient, Publisher]]:
    async with httpx2.AsyncClient(base_url=f"http://{server}", trust_env=False) as http:
        yield http, Publisher(http)


async def shown(client: Client, publisher: Publisher, first: int = 0) -> None:
    """The page has shown everything that was published since `first`, each once, in order."""
    count = publisher.next - first
    assert [await client.line() for _ in range(count)] == [*range(first, publisher.next)]


@pytest.mark.timeout(180)  # the first one installs the packages
@clients
async def test_a_connection_that_is_cut_loses_nothing(serve, watch, name):
    server = await serve("uvicorn-websockets-sansio", "workers:app", APPLICATION, BUS=MEMORY)
    async with publisher(server) as (http, events), Proxy(server.port) as proxy, watch(name, proxy) as client:
        await until(http, subscriptions=1)
        proxy.cut()  # before the first event
        await events.publish(3)
        for _ in range(5):
            await events.publish(50)
            proxy.cut()
            await events.publish(50)
        await proxy.refuse()
        await events.publish(100)
        await proxy.accept()
        proxy.cut_in_reply(2_000)
        await events.publish(100)
        await shown(client, events)
        await until(http, subscriptions=1)
        await events.publish(1)  # and nothing else came
        await shown(client, events, events.next - 1)
        assert await client.end() == 0


@pytest.mark.timeout(180)
@clients
async def test_where_the_past_is_gone_the_page_is_told_and_goes_on(serve, watch, name):
    server = await serve("uvicorn-websockets-sansio", "workers:app", APPLICATION, BUS=MEMORY)
    async with publisher(server) as (http, events), Proxy(server.port) as proxy, watch(name, proxy) as client:
        await until(http, subscriptions=1)
        await events.publish(10)
        await shown(client, events)
        for _ in range(2):
            first = events.next
            await server.stop()
            await server.start()  # a memory bus begins anew
            await until(http, subscriptions=1)
            assert await client.line() == "lost"
            await events.publish(10)
            await shown(client, events, first)
        assert await client.end() == 0


@pytest.mark.timeout(240)
@clients
@buses
async def test_workers_that_are_killed_lose_nothing(serve, start_server, watch, name, bus):
    """On a bus that outlives them: over several processes, killed and started again while others publish."""
    broker = start_server(BUSES[bus])
    environment = json.dumps({"kind": bus, **options(bus, broker)})
    server = await serve("uvicorn", "workers:app", APPLICATION, workers=2, BUS=environment)
    async with outside(bus, broker) as manager, Proxy(server.port) as proxy, watch(name, proxy) as client:
        first, live = 0, asyncio.create_task(client.line())
        while not live.done():
            await manager.publish_event("tick", "tick", {"n": first})
            first += 1
            await asyncio.wait([live], timeout=0.02)
        seen = await live  # everything from here on

        async def publish() -> int:
            for n in range(first, first + 600):
                await manager.publish_event("tick", "tick", {"n": n})
                await asyncio.sleep(0.005)
            return first + 600

        publishing = asyncio.create_task(publish())
        for end in (server.kill, server.stop, server.kill):
            await asyncio.sleep(0.3)
            await end()
            await server.start()
            proxy.cut()
        last = await publishing
        assert [await client.line() for _ in range(seen + 1, last)] == [*range(seen + 1, last)]
        await manager.publish_event("tick", "tick", {"n": -1})
        assert await client.line() == -1  # nothing came twice
        assert await client.end() == 0
