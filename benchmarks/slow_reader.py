"""One client stops reading while 100,000 events of 1 kB are published; others read on.

    python -m benchmarks.slow_reader [EVENTS]

The server is a process of its own (uvicorn, websockets-sansio) and measures itself. It publishes as fast as the readers
that go on can read, since it would not wait for them. This fails where its memory grows
by more than 32 MiB, the client that stopped is not closed 1013, or another has not received every event.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .buses import memory

READERS = 3
MOST = 32 * 2**20
BURST = 500


@dataclass
class Tick:
    n: int
    text: str


@subscription(passthrough=True)
async def ticks() -> Tick:
    raise NotImplementedError


def serve(events: int, control: Connection) -> None:
    """Serves; publishes when it is told to, and sends how much the memory has grown at most."""
    asyncio.run(_serve(events, control))


async def _serve(events: int, control: Connection) -> None:
    manager = SubscriptionManager(Schema(subscriptions=[ticks]))
    config = uvicorn.Config(SubscriptionApp(manager), port=0, ws="websockets-sansio", log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    control.send(server.servers[0].sockets[0].getsockname()[1])
    await asyncio.to_thread(control.recv)
    before = most = memory()
    for n in range(events):
        await manager.publish_event("tick", "ticks", {"n": n, "text": "x" * 1_000})
        if n % BURST == BURST - 1:
            most = max(most, memory())
            await asyncio.to_thread(control.recv)
    control.send((most - before, manager.get_metrics()["events_dropped"]["overflow"]))
    await asyncio.to_thread(control.recv)
    server.should_exit = True
    await serving


async def watch(port: int) -> ClientConnection:
    client = await connect(f"ws://127.0.0.1:{port}/", subprotocols=["graphql-transport-ws"], compression=None)  # type: ignore[list-item]
    query = "subscription { ticks { n text } }"
    await client.send('{"type":"connection_init"}')
    await client.send(json.dumps({"id": "1", "type": "subscribe", "payload": {"query": query}}))
    await client.send('{"type":"ping"}')
    assert [json.loads(await client.recv())["type"] for _ in range(2)] == ["connection_ack", "pong"]
    return client


async def read(client: ClientConnection, n: int, end: int) -> None:
    while n < end:
        message = str(await client.recv())
        if message == '{"type":"ping"}':
            await client.send('{"type":"pong"}')
            continue
        assert f'"n":{n},' in message, f"expected {n}, got {message[:100]}"
        n += 1


async def main(events: int) -> None:
    context = get_context("spawn")
    control, theirs = context.Pipe()
    process = context.Process(target=serve, args=(events, theirs), daemon=True)
    process.start()
    port = await asyncio.to_thread(control.recv)
    stopped, *readers = [await watch(port) for _ in range(1 + READERS)]
    stopped.transport.pause_reading()
    control.send("publish")
    for n in range(0, events, BURST):
        await asyncio.gather(*(read(reader, n, n + BURST) for reader in readers))
        control.send("go on")
    grown, dropped = await asyncio.to_thread(control.recv)
    stopped.transport.resume_reading()
    received = 0
    try:
        while True:
            await stopped.recv()
            received += 1
    except ConnectionClosed as closed:
        code = closed.rcvd.code if closed.rcvd else None
    for reader in readers:
        await reader.close()
    control.send("stop")
    process.join()
    print(f"{events} events: {grown / 2**20:.1f} MiB more; who stopped got {received}, closed {code}")
    assert grown < MOST
    assert code == 1013
    assert dropped > 0


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
