"""What connections leave behind when they end, however they end: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fraiseql_subs import (
    JSON,
    Event,
    GraphQLRequestError,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import (
    NARROW,
    Client,
    Direct,
    Server,
    gauges,
    next_frame,
    publish_tick,
    served,
    tick,
    tick_of,
    ticking,
    until,
)

#: How many end at once; 1,000 where there is time for it.
CONNECTIONS = int(os.environ.get("LEAK_CONNECTIONS", "200"))


class Watched:
    """A schema whose functions say who is in them."""

    def __init__(self) -> None:
        self.inside = 0
        self.release = threading.Event()

        @subscription(channel="go")
        async def slow(event: Event, info: Info) -> JSON:
            return await self._stay()

        @subscription(channel="go")
        async def shared(event: Event) -> JSON:
            return await self._stay()

        @subscription(channel="go")
        def blocking(event: Event) -> JSON:
            self.inside += 1
            try:
                assert self.release.wait(20)
            finally:
                self.inside -= 1
            return {}

        @subscription
        async def endless(info: Info) -> AsyncIterator[JSON]:
            self.inside += 1
            try:
                yield {"n": 0}
                await asyncio.Event().wait()
            finally:
                self.inside -= 1

        @subscription
        async def flood(info: Info) -> AsyncIterator[JSON]:
            self.inside += 1
            try:
                while True:
                    yield {"text": "x" * 1_000}
            finally:
                self.inside -= 1

        self.schema = Schema(subscriptions=[tick, slow, shared, blocking, endless, flood])

    async def _stay(self) -> Any:
        self.inside += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.inside -= 1


class Gated:
    """A function whose calls wait until its gate is open."""

    def __init__(self) -> None:
        self.calls = 0
        self.open = asyncio.Event()

        @subscription(channel="go")
        async def gated(event: Event) -> JSON:
            self.calls += 1
            await self.open.wait()
            return event.data

        self.schema = Schema(subscriptions=[gated])


class Footprint:
    """What a process holds, as far as a connection could leave something in it."""

    def __init__(self) -> None:
        self.tasks = asyncio.all_tasks()
        self.threads = set(threading.enumerate())
        self.files = self._files()

    def is_the_same(self) -> bool:
        return (
            asyncio.all_tasks() <= self.tasks
            and set(threading.enumerate()) <= self.threads
            and self._files() <= self.files
        )

    @staticmethod
    def _files() -> int:
        return len(os.listdir("/proc/self/fd"))


async def connected(server: Server, count: int, query: str | None, payload: Any = None) -> list[Client]:
    async def one() -> Client:
        client = await (await server.connect()).init(payload)
        if query:
            await client.ask("1", query)
        return client

    clients = []
    for start in range(0, count, 50):
        clients += await asyncio.gather(*(one() for _ in range(start, min(start + 50, count))))
    return clients


def rss() -> int:
    """Resident memory in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@pytest.mark.parametrize("query", ["tick", "slow", "shared", "blocking", "endless", "flood"])
async def test_an_abrupt_end_of_many_connections_leaves_nothing(query):
    watched = Watched()
    # Clients that do not read answer no ping, and a thousand of them take longer to connect than a silent one is kept.
    limits = Limits(resolver_threads=2, queue_messages=20, ping_interval=600)
    manager = SubscriptionManager(watched.schema, limits=limits)
    documents = {"tick": tick_of("go")}
    document = documents.get(query, f"subscription {{ {query} }}")
    async with served(manager) as (_, server):
        # Once through everything that is started on first use.
        for client in await connected(server, 2, document):
            client.abort()
        await until(lambda: gauges(manager) == {"connections": 0, "subscriptions": 0} and server.tasks == 0)
        before = Footprint()

        clients = await connected(server, CONNECTIONS, document)
        await until(lambda: gauges(manager) == {"connections": CONNECTIONS, "subscriptions": CONNECTIONS})
        await manager.publish_event("x", "go", {"n": 1})
        expected = {"tick": 0, "slow": 1, "shared": 1, "blocking": 1}.get(query, CONNECTIONS)
        await until(lambda: watched.inside == expected)
        for client in clients:
            client.abort()
        await until(lambda: gauges(manager) == {"connections": 0, "subscriptions": 0} and server.tasks == 0)
        watched.release.set()
        await until(lambda: watched.inside == 0)
        await until(lambda: before.is_the_same() or query == "blocking")
        assert asyncio.all_tasks() <= before.tasks
        # asyncio says so of writes to a peer whose end it has not told yet.
        assert {text.split(": ", 1)[1] for text in server.log.take()} <= {"socket.send() raised exception."}
        # It goes on as before.
        (client,) = await connected(server, 1, tick_of("x"))
        await client.sync()
        await publish_tick(manager, "x", 1)
        await client.expect(next_frame("1", {"tick": {"n": 1}}))
        await client.close()
        assert manager.get_metrics()["resolver_errors"] == 0


async def test_so_do_many_contexts_with_calls_of_their_own():
    watched = Watched()
    number = 0

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        nonlocal number
        number += 1
        return SecurityContext(user_id=number)

    manager = SubscriptionManager(watched.schema)
    async with served(manager, auth_handler=authenticate) as (_, server):
        before = Footprint()
        clients = await connected(server, CONNECTIONS, "subscription { slow }")
        await until(lambda: gauges(manager)["subscriptions"] == CONNECTIONS)
        for _ in range(3):
            await manager.publish_event("x", "go", {"n": 1})
        await until(lambda: watched.inside == 3 * CONNECTIONS)
        for client in clients:
            client.abort()
        await until(lambda: watched.inside == 0 and server.tasks == 0 and before.is_the_same())
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}


async def test_a_call_goes_on_while_one_who_waits_for_it_is_left():
    gated = Gated()
    manager = SubscriptionManager(gated.schema)
    async with served(manager) as (_, server), server.acknowledged() as stays:
        await stays.subscribe("1", "subscription { gated }")
        others = await connected(server, 5, "subscription { gated }")
        await until(lambda: gauges(manager)["subscriptions"] == 6)
        await manager.publish_event("x", "go", {"n": 1})
        await until(lambda: gated.calls == 1)
        for other in others:
            other.abort()
        await until(lambda: gauges(manager)["subscriptions"] == 1)
        gated.open.set()
        await stays.expect(next_frame("1", {"gated": {"n": 1}}))
        assert gated.calls == 1


async def test_events_that_waited_for_a_function_are_not_worked_on_when_everybody_has_left():
    gated = Gated()
    manager = SubscriptionManager(gated.schema, limits=Limits(resolver_concurrency=2))
    async with served(manager) as (_, server):
        async with server.acknowledged() as client:
            await client.subscribe("1", "subscription { gated }")
            for n in range(100):
                await manager.publish_event("x", "go", {"n": n})
            await until(lambda: gated.calls == 2)
            await client.complete("1")
            await client.sync()
            gated.open.set()
            await client.subscribe("1", "subscription { gated }")
            await manager.publish_event("x", "go", {"n": 100})
            await client.expect(next_frame("1", {"gated": {"n": 100}}))
        assert gated.calls == 3
        assert manager.get_metrics()["resolver_errors"] == 0


@pytest.mark.parametrize("how", ["close", "abort", "4400", "4409", "complete", "handshake", "refused", "silent"])
async def test_every_other_way_to_end(how):
    async def authenticate(payload: dict[str, Any]) -> SecurityContext | None:
        return None if payload else SecurityContext()

    limits = Limits(connection_init_timeout=0.05 if how == "silent" else 20)
    manager = SubscriptionManager(Schema(subscriptions=[tick]), limits=limits)
    async with served(manager, auth_handler=authenticate) as (_, server):
        await (await server.connect()).close()
        await until(lambda: server.tasks == 0)
        before = Footprint()
        for _ in range(20):
            client = await server.connect()
            if how not in ("handshake", "refused", "silent"):
                await client.init()
                await client.subscribe("1", tick_of("a"))
            if how == "4400":
                await client.send("x")
                assert (await client.closed())[0] == 4400
            elif how == "4409":
                await client.ask("1", tick_of("a"))
                assert (await client.closed())[0] == 4409
            elif how == "complete":
                await client.complete("1")
            elif how == "refused":
                await client.send({"type": "connection_init", "payload": {"no": 1}})
                assert (await client.closed())[0] == 4403
            elif how == "silent":
                assert (await client.closed())[0] == 4408
            if how in ("abort", "handshake"):
                client.abort()
            else:
                await client.close()
        await until(lambda: server.tasks == 0 and before.is_the_same())
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}


async def test_a_reader_that_never_reads_again_is_given_up():
    """Its close cannot be sent; the application waits for it no longer than for a pong."""
    limits = Limits(queue_messages=10, ping_interval=0.2, pong_timeout=0.2)
    async with ticking(server=NARROW, limits=limits) as (manager, server), server.client(narrow=True) as client:
        await client.init()
        await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
        client.stop_reading()
        for n in range(400):
            await publish_tick(manager, 1, n, text="x" * 1_000)
        await until(lambda: gauges(manager) == {"connections": 0, "subscriptions": 0})
        await until(lambda: server.tasks == 0)
        client.abort()


async def test_the_objects_of_a_connection_go_with_it():
    """Also where the application raises, which keeps its frames alive for a while."""
    seen: list[weakref.ref[Any]] = []

    class Context(SecurityContext):
        pass

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        context = Context(user_id=len(seen))
        object.__setattr__(context, "__dict__", context.__dict__)
        seen.append(weakref.ref(context))
        return context

    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with served(manager, auth_handler=authenticate) as (_, server):
        for _ in range(5):
            client = await (await server.connect()).init()
            await client.subscribe("1", tick_of("a"))
            client.abort()
            client = await (await server.connect()).init()
            await client.send("x")
            await client.closed()
        await until(lambda: server.tasks == 0)
    gc.collect()
    assert [ref() for ref in seen] == [None] * 10


async def test_memory_stays_where_it_was():
    """Connections that come and go, subscriptions that come and go, documents that are never seen again."""
    async with ticking() as (manager, server):

        async def rounds(count: int) -> None:
            for n in range(count):
                async with server.acknowledged() as client:
                    for m in range(20):
                        await client.ask(str(m), f"subscription {{ tick(of: {n * 20 + m}) {{ n text a{n}: n }} }}")
                    await client.sync()
                    await publish_tick(manager, n * 20, n, text="x" * 10_000)
                    await client.receive()

        await rounds(25)
        gc.collect()
        before = rss()
        await rounds(50)
        gc.collect()
        # Documents are kept up to a bound, which these have not reached.
        assert rss() - before < 6 * 2**20


async def test_a_manager_that_is_entered_again_starts_from_nothing():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    before = Footprint()
    for _ in range(3):
        async with served(manager) as (_, server), server.acknowledged() as client:
            await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}))
    await until(before.is_the_same)
    with pytest.raises(GraphQLRequestError):
        async with manager, manager.subscribe("{ __typename }"):
            pass


async def test_an_application_that_is_cancelled_leaves_nothing():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        server = Direct(SubscriptionApp(manager), {"type": "connection_init"})
        await until(lambda: gauges(manager)["connections"] == 1)
        server.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await server.task
        assert server.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "Service restart"}
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}
