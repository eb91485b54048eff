"""Applications of several processes on one bus: every worker's sockets get each event once, whoever publishes it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from fraiseql_subs import Event, EventBusConfig, Schema, SubscriptionManager, subscription
from fraiseql_subs.servers import PostgreSQL, Redis, Server, Valkey

from .conftest import ENVIRONMENT, WORKERS
from .sockets import FORBIDDEN, Client, open_client

APPLICATION = Path(__file__).parent / "apps"
COUNT = 4
#: Numbers that only tell that a socket is live, and that it has had everything.
PROBE, LAST = -1, 1_000_000
#: A class of server by kind of bus.
BUSES: dict[str, type[Server]] = {"redis": Redis if sys.version_info < (3, 13) else Valkey, "postgresql": PostgreSQL}

buses = pytest.mark.parametrize("bus", BUSES)


def options(kind: str, server: Server) -> dict[str, Any]:
    """A bus as the application takes it from its environment."""
    return {"url": server.url} if kind == "redis" else {"dsn": server.url, "install": True}


@subscription(passthrough=True, name="tick")
async def any_tick() -> int:
    raise NotImplementedError


@asynccontextmanager
async def outside(kind: str, server: Server) -> AsyncIterator[SubscriptionManager]:
    """A manager in this process."""
    bus = getattr(EventBusConfig, kind)(**options(kind, server))
    async with SubscriptionManager(Schema(subscriptions=[any_tick]), bus) as manager:
        yield manager


async def connected(stack: AsyncExitStack, address: str) -> tuple[int, Client]:
    """A socket that has asked for ticks, and the process that it has come to."""
    client = await open_client(address, "/graphql/subscriptions")
    stack.push_async_callback(client.close)
    await client.send({"type": "connection_init", "payload": {"user": "ada"}})
    assert (await client.message())["type"] == "connection_ack"
    await client.ask("worker", "subscription { worker }")
    answer = await client.message()
    await client.expect({"id": "worker", "type": "complete"})
    await client.ask("tick", "subscription { tick { n } }")
    return answer["payload"]["data"]["worker"], client


async def at_every_worker(stack: AsyncExitStack, address: str) -> dict[int, list[Client]]:
    """Sockets by process; the kernel says which process takes a connection."""
    clients: dict[int, list[Client]] = {}
    while len(clients) < COUNT:
        assert sum(map(len, clients.values())) < 500, f"only these took connections: {[*clients]}"
        for pid, client in await asyncio.gather(*(connected(stack, address) for _ in range(8))):
            clients.setdefault(pid, []).append(client)
    return clients


async def next_number(client: Client) -> int:
    message = await client.message()
    assert (message["id"], message["type"]) == ("tick", "next"), message
    assert "extensions" not in message["payload"], message
    return int(message["payload"]["data"]["tick"]["n"])


async def numbers(client: Client) -> list[int]:
    """All numbers up to the last, but for probes."""
    received = []
    while (number := await next_number(client)) != LAST:
        received.append(number)
    return [number for number in received if number != PROBE]


async def probe(manager: SubscriptionManager, clients: list[Client]) -> None:
    """Returns when every socket is live: each has received a probe."""
    live = asyncio.gather(*(next_number(client) for client in clients))
    while not live.done():
        await manager.publish_event("tick", "tick", {"n": PROBE})
        await asyncio.sleep(0.01)
    assert {*live.result()} == {PROBE}


def threads(pid: int) -> list[str]:
    """The names of a process's threads."""
    return [task.joinpath("comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()]


@pytest.mark.timeout(180)
@buses
@pytest.mark.parametrize("name", WORKERS)
async def test_every_workers_sockets_get_each_event_once(serve, start_server, name, bus):
    broker = start_server(BUSES[bus])
    environment = json.dumps({"kind": bus, **options(bus, broker)})
    server = await serve(name, "workers:app", APPLICATION, workers=COUNT, BUS=environment)
    async with (
        AsyncExitStack() as stack,
        outside(bus, broker) as manager,
        httpx2.AsyncClient(base_url=f"http://{server}", trust_env=False) as http,
    ):
        clients = await at_every_worker(stack, str(server))
        sockets = [client for some in clients.values() for client in some]
        await probe(manager, sockets)

        async def publish() -> None:
            for n in range(50):
                await manager.publish_event("tick", "tick", {"n": n})
            await manager.publish_events([Event("tick", "tick", {"n": n}) for n in range(50, 100)])

        answer, _ = await asyncio.gather(http.post("/publish", json=[*range(100, 200)]), publish())
        assert answer.json() in clients
        await manager.publish_event("tick", "tick", {"n": LAST})
        received = await asyncio.gather(*(numbers(client) for client in sockets))
        assert sorted(received[0]) == [*range(200)]
        assert [number for number in received[0] if number < 100] == [*range(100)]
        assert [number for number in received[0] if number >= 100] == [*range(100, 200)]
        assert received == [received[0]] * len(sockets)

        # Whom one of them revokes is gone from all.
        answer = await http.post("/revoke", params={"user": "ada"})
        assert answer.json()["ended"] == len(clients[answer.json()["worker"]])
        closed = await asyncio.gather(*(client.closed() for client in sockets))
        assert closed == [FORBIDDEN] * len(sockets)

        # Nothing of ours was started by whoever forked the workers.
        assert all("fraiseql-subs" in threads(pid) for pid in clients)
        assert "fraiseql-subs" not in threads(server.pid)
        assert os.getpid() not in clients


FORKS = """
import asyncio, os
from tests.test_workers import any_tick
from fraiseql_subs import EventBusConfig, Schema, SubscriptionManager

manager = SubscriptionManager(Schema(subscriptions=[any_tick]), EventBusConfig.memory(history=1))

async def publish():
    async with manager, manager.subscribe("subscription { tick }", resume=True):
        for n in range(5):
            event = await manager.publish_event("tick", "tick", {"n": n})
            os.write(1, event.encode() + b"\\n")

asyncio.run(publish())
first = os.fork()
second = first and os.fork()
asyncio.run(publish())
if first and second:
    os.waitpid(first, 0)
    os.waitpid(second, 0)
"""


async def test_processes_with_one_parent_give_events_different_ids():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    ids = output.decode().split()
    assert len(ids) == 5 + 3 * 5  # the parent, then it and two children
    # What is random in an id; the rest is time and a counter.
    assert len({event[-8:] for event in ids}) == len(ids)
    assert process.returncode == 0
