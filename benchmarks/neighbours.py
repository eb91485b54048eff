"""One account does the worst that its limits allow, all kinds at once; what does another one notice?

    python -m benchmarks.neighbours [memory|redis] [--seconds 30] [--size 1.0] [--kinds pings,resumes]

The server is a process of its own: uvicorn, and readers of both accounts in the same process. The neighbour's sockets
are in a second one, and the measured account's in a third. `--size` is the part of what the limits allow, so that a
test can run it small. It prints one JSON object: latencies from publish to receive and losses of the measured account
without and with the neighbour, and by how much the server's memory grew beside him.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import Event, EventBusConfig, Schema, SecurityContext, SubscriptionManager, data, subscription
from fraiseql_subs import argument as of_argument
from fraiseql_subs.asgi import SubscriptionApp
from fraiseql_subs.servers import Redis

from .buses import memory

#: Events a second that the measured account hears, and that the neighbour's subscriptions are about.
LIVE, BUSY = 100, 2
#: What was missed by who resumes: so many events of so many bytes.
MISSED, MISSED_BYTES = 1_000, 5_000
#: Connections and subscriptions of each that one account may have.
CONNECTIONS, SUBSCRIPTIONS = 100, 100


@dataclass
class Tick:
    """When it was published."""

    n: int
    at: float


@dataclass
class Item:
    """Some text."""

    n: int
    text: str


@subscription(channel="live", passthrough=True)
def live() -> Tick:
    """What the measured account hears."""
    raise NotImplementedError


@subscription(channel="past", passthrough=True)
def missed() -> Item:
    """What was missed."""
    raise NotImplementedError


@subscription(channel="past")
async def worked(event: Event, of: int) -> Item:
    """The same by a function, with a call of its own for each argument."""
    await asyncio.sleep(0.05)
    return Item(event.data["n"], event.data["text"])


@subscription(channel="busy")
async def called(event: Event, of: int) -> Item:
    """A call of its own for each argument."""
    await asyncio.sleep(0.05)
    return Item(event.data["n"], "")


@subscription(channel="busy")
async def wide(event: Event) -> list[Item]:
    """More than a message may have."""
    return [Item(n, "x") for n in range(60_000)]


@subscription(channel="busy", passthrough=True)
def large() -> Item:
    """A text that fills a queue soon."""
    raise NotImplementedError


@subscription(channel="busy", where=of_argument("ids").contains(data["n"]), passthrough=True)
def listed(ids: list[int]) -> Item:
    """One of many numbers."""
    raise NotImplementedError


SCHEMA = Schema(subscriptions=[live, missed, worked, called, wide, large, listed])
LIVE_QUERY = "subscription { live { n at } }"
LIST = [n % 10 for n in range(100_000)]


@dataclass
class Heard:
    """What the measured account has heard in one phase."""

    latencies: list[float] = field(default_factory=list)
    numbers: list[list[int]] = field(default_factory=list)

    def note(self, numbers: list[int], message: str | bytes) -> None:
        """One message of a reader."""
        received = time.perf_counter()
        payload = json.loads(message)
        tick = payload.get("payload", payload)["data"]["live"]
        numbers.append(tick["n"])
        self.latencies.append(received - tick["at"])


# ---- the server ----


def serve(kind: str, control: Connection) -> None:
    """Serves until it is told to end."""
    asyncio.run(_serve(kind, control))


async def _serve(kind: str, control: Connection) -> None:
    server = Redis().start() if kind == "redis" else None
    bus = EventBusConfig.redis(server.url) if server else EventBusConfig.memory(history=2 * MISSED)
    manager = SubscriptionManager(SCHEMA, bus)

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=payload["user"])

    app = SubscriptionApp(manager, auth_handler=authenticate)
    options: dict[str, Any] = {"port": 0, "ws": "websockets-sansio", "log_level": "critical"}
    config = uvicorn.Config(app, timeout_graceful_shutdown=1, **options)
    asgi = uvicorn.Server(config)
    serving = asyncio.create_task(asgi.serve())
    while not asgi.started:
        await asyncio.sleep(0.01)
    tokens = await _fill(manager)
    control.send((asgi.servers[0].sockets[0].getsockname()[1], tokens))
    async with contextlib.AsyncExitStack() as stack:
        while (command := await asyncio.to_thread(control.recv)) is not None:
            what, argument = command
            if what == "measure":
                control.send(await _measure(manager, argument))
            else:
                await _neighbour_here(manager, stack, tokens, argument)
                control.send(None)
    asgi.should_exit = True
    await serving
    if server:
        server.close()


async def _fill(manager: SubscriptionManager) -> list[str]:
    """Publishes what is missed; gives positions before and in it."""
    tokens = []
    async with manager.subscribe("subscription { missed { n } }", resume=True) as stream:
        for n in range(MISSED):
            await manager.publish_event("missed", "past", {"n": n, "text": "x" * MISSED_BYTES})
            tokens.append(json.loads(await anext(stream))["payload"]["extensions"]["eventId"])
    return tokens


async def _measure(manager: SubscriptionManager, seconds: float) -> tuple[Heard, int, int]:
    """Publishes for so long: what readers in this process heard, how many events, and by how much the memory grew."""
    heard, context = Heard(), SecurityContext(user_id="measured")

    async def read(stream: AsyncIterator[bytes], numbers: list[int]) -> None:
        async for message in stream:
            heard.note(numbers, message)

    before = most = memory()
    async with contextlib.AsyncExitStack() as stack:
        reading = []
        for _ in range(3):
            stream = manager.subscribe(LIVE_QUERY, context=context, framing="result")
            await stream.__aenter__()
            stack.push_async_callback(stream.aclose)
            heard.numbers.append([])
            reading.append(asyncio.create_task(read(stream, heard.numbers[-1])))
        start, published = time.perf_counter(), 0
        while (now := time.perf_counter()) < start + seconds:
            if published % (LIVE // BUSY) == 0:
                await manager.publish_event("busy", "busy", {"n": published, "text": "x" * 100_000})
            await manager.publish_event("live", "live", {"n": published, "at": time.perf_counter()})
            published += 1
            most = max(most, memory())
            await asyncio.sleep(max(0.0, start + published / LIVE - now))
        while any(len(numbers) < published for numbers in heard.numbers) and time.perf_counter() < start + seconds + 10:
            await asyncio.sleep(0.01)
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    return heard, published, max(most, memory()) - before


async def _neighbour_here(
    manager: SubscriptionManager, stack: contextlib.AsyncExitStack, tokens: list[str], size: float
) -> None:
    """What the neighbour has in this process: subscriptions that nobody reads."""
    context = SecurityContext(user_id="neighbour")
    for n in range(int(SUBSCRIPTIONS * size)):
        after = tokens[n * 7 % MISSED]
        for query, variables, resume in (
            ("subscription { missed { n text } }", None, after),
            ("subscription ($of: Int!) { worked(of: $of) { n text } }", {"of": n}, after),
            ("subscription ($of: Int!) { called(of: $of) { n } }", {"of": n}, None),
            ("subscription ($ids: [Int!]!) { listed(ids: $ids) { n } }", {"ids": [*LIST, n]}, None),
        ):
            stream = manager.subscribe(query, variables=variables, context=context, resume=resume)
            with contextlib.suppress(Exception):  # a limit of his
                await stream.__aenter__()
                stack.push_async_callback(stream.aclose)


# ---- the neighbour's sockets ----


async def opened(port: int, user: str) -> ClientConnection:
    """A socket of a user, acknowledged."""
    subprotocols: Any = ["graphql-transport-ws"]
    client = await connect(
        f"ws://127.0.0.1:{port}/", subprotocols=subprotocols, compression=None, max_size=None, ping_interval=None,
        open_timeout=30, close_timeout=1,
    )  # fmt: skip
    await client.send(json.dumps({"type": "connection_init", "payload": {"user": user}}))
    await client.recv()
    return client


def asked(id: str, query: str, variables: Any = None, after: str | None = None) -> str:
    """A subscribe message."""
    payload = {"query": query, "variables": variables, "extensions": {"resume": {"after": after}} if after else {}}
    return json.dumps({"id": id, "type": "subscribe", "payload": payload})


class Neighbour:
    """All that one account does, until it is cancelled.

    Args:
        port: The server's.
        tokens: From where it resumes.
        size: The part of what limits allow: connections, subscriptions, and how often it asks.
        kinds: What it does, by name; without names, all of it.
    """

    def __init__(self, port: int, tokens: list[str], size: float, kinds: list[str]) -> None:
        self._port, self._tokens, self._size = port, tokens, size
        self._numbers = itertools.count()
        every: dict[str, Callable[[ClientConnection], Awaitable[None]]] = {
            "pings": self._pings,
            "resumes": self._resumes,
            "functions": self._functions,
            "lists": self._lists,
            "introspection": self._introspection,
            "documents": self._documents,
            "results": self._results,
            "stopped": self._stopped,
        }
        self._kinds = [every[name] for name in kinds or every]

    async def run(self) -> None:
        """As many connections as the account may have, of each kind in turn."""
        connections = max(len(self._kinds), int(CONNECTIONS * self._size))
        kinds = itertools.islice(itertools.cycle(self._kinds), connections)
        await asyncio.gather(*(self._again(kind) for kind in kinds))

    async def _again(self, kind: Callable[[ClientConnection], Awaitable[None]]) -> None:
        while True:
            with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
                client = await opened(self._port, "neighbour")
                try:
                    await kind(client)
                finally:
                    client.transport.abort()
            await asyncio.sleep(0.5)

    async def _reading(self, client: ClientConnection, asking: Awaitable[None]) -> None:
        """Asks and reads all that comes, answering pings, until the socket is closed."""
        task = asyncio.ensure_future(asking)
        try:
            async for message in client:
                if '"type":"ping"' in message[:100]:
                    await client.send('{"type":"pong"}')
        finally:
            task.cancel()

    async def _pings(self, client: ClientConnection) -> None:
        ping = json.dumps({"type": "ping", "payload": {"x": "x" * 120_000}})

        async def ask() -> None:
            while True:
                await client.send(ping)

        await self._reading(client, ask())

    async def _not_reading(self, client: ClientConnection) -> None:
        client.transport.pause_reading()
        await client.wait_closed()

    async def _resumes(self, client: ClientConnection) -> None:
        for n in range(int(SUBSCRIPTIONS * self._size)):
            await client.send(asked(str(n), "subscription { missed { n text } }", after=self._tokens[n * 7 % MISSED]))
        await self._not_reading(client)

    async def _functions(self, client: ClientConnection) -> None:
        async def ask() -> None:
            for n in range(int(SUBSCRIPTIONS * self._size)):
                of, after = next(self._numbers), self._tokens[n * 7 % MISSED]
                await client.send(asked(f"a{n}", f"subscription {{ called(of: {of}) {{ n }} }}"))
                await client.send(asked(f"b{n}", f"subscription {{ worked(of: {of}) {{ n }} }}", after=after))
                await asyncio.sleep(0.02 / self._size)

        await self._reading(client, ask())

    async def _lists(self, client: ClientConnection) -> None:
        query = "subscription ($ids: [Int!]!) { listed(ids: $ids) { n } }"

        async def ask() -> None:
            for n in itertools.count():
                await client.send(asked(str(n), query, {"ids": [*LIST, next(self._numbers)]}))
                await asyncio.sleep(0.1 / self._size)

        await self._reading(client, ask())

    async def _introspection(self, client: ClientConnection) -> None:
        nested = "types { name fields { name type { name kind ofType { name fields { name } } } } }"

        async def ask() -> None:
            for n in itertools.count():
                aliases = " ".join(f"a{alias}x{next(self._numbers)}: __schema {{ {nested} }}" for alias in range(20))
                await client.send(asked(str(n), f"{{ {aliases} }}"))
                await asyncio.sleep(0.05 / self._size)

        await self._reading(client, ask())

    async def _documents(self, client: ClientConnection) -> None:
        async def ask() -> None:
            for n in itertools.count():
                fields = " ".join(f"f{next(self._numbers)}: n" for _ in range(29))
                await client.send(asked(str(n), f"subscription {{ large {{ {fields} }} }}"))
                await client.send(json.dumps({"id": str(n), "type": "complete"}))
                await asyncio.sleep(0.02 / self._size)

        await self._reading(client, ask())

    async def _results(self, client: ClientConnection) -> None:
        async def ask() -> None:
            for n in range(int(SUBSCRIPTIONS * self._size)):
                fields = " ".join(f"f{next(self._numbers)}: text" for _ in range(20))
                await client.send(asked(str(n), f"subscription {{ wide {{ {fields} }} }}"))
                await asyncio.sleep(0.02 / self._size)

        await self._reading(client, ask())

    async def _stopped(self, client: ClientConnection) -> None:
        for n in range(int(SUBSCRIPTIONS * self._size)):
            await client.send(asked(str(n), "subscription { large { n text } }"))
        await self._not_reading(client)


def neighbour(port: int, tokens: list[str], size: float, kinds: list[str]) -> None:
    """A process that does it until it is ended."""
    asyncio.run(Neighbour(port, tokens, size, kinds).run())


# ---- the measured account ----


async def _hear(port: int, heard: Heard, stop: asyncio.Event) -> None:
    client = await opened(port, "measured")
    numbers: list[int] = []
    heard.numbers.append(numbers)
    await client.send(asked("1", LIVE_QUERY))
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        coming = asyncio.create_task(client.recv())
        await asyncio.wait([coming, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            break
        message = coming.result()
        if '"type":"ping"' in message[:100]:
            await client.send('{"type":"pong"}')
        elif '"live"' in message:
            heard.note(numbers, message)
    stopping.cancel()
    await client.close()


async def phase(control: Connection, port: int, seconds: float) -> dict[str, Any]:
    """One phase: latencies in milliseconds, what was lost, and by how much the server grew."""
    heard, stop = Heard(), asyncio.Event()
    hearing = [asyncio.create_task(_hear(port, heard, stop)) for _ in range(10)]
    while len(heard.numbers) < 10:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)  # they are live
    control.send(("measure", seconds))
    here, published, growth = await asyncio.to_thread(control.recv)
    await asyncio.sleep(0.5)
    stop.set()
    await asyncio.gather(*hearing)
    every = {"in process": here, "sockets": heard}
    lost = sum(published - len(set(numbers)) for each in every.values() for numbers in each.numbers)
    figures: dict[str, Any] = {"events": published, "lost": lost, "growth_mib": round(growth / 2**20, 1)}
    for name, each in every.items():
        latencies = each.latencies or [float("inf")]
        figures[name] = {
            "median_ms": round(statistics.median(latencies) * 1e3, 2),
            "worst_ms": round(max(latencies) * 1e3, 1),
        }
    return figures


async def run(kind: str, seconds: float, size: float, kinds: list[str] | None = None) -> dict[str, Any]:
    """Both phases on one server."""
    context = get_context("spawn")
    control, theirs = context.Pipe()
    server = context.Process(target=serve, args=(kind, theirs), daemon=True)
    server.start()
    port, tokens = await asyncio.to_thread(control.recv)
    figures: dict[str, Any] = {"bus": kind, "size": size, "alone": await phase(control, port, seconds)}
    bad = context.Process(target=neighbour, args=(port, tokens, size, kinds or []), daemon=True)
    bad.start()
    try:
        control.send(("neighbour", size))
        await asyncio.to_thread(control.recv)
        figures["beside"] = await phase(control, port, seconds)
    finally:
        bad.terminate()
        bad.join()
        control.send(None)
        await asyncio.to_thread(server.join, 20)
        if server.is_alive():
            server.kill()
    return figures


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bus", nargs="?", choices=["memory", "redis"], default="memory")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=None)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(given.bus, given.seconds, given.size, given.kinds))))


if __name__ == "__main__":
    main()
