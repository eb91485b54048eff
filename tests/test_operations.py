"""Operations over sockets: whose ids they are, in which order they answer, and from where their events may come."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    data,
    subscription,
    viewer,
)
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import (
    PATIENCE,
    Client,
    Server,
    gauges,
    next_frame,
    publish_tick,
    served,
    serving,
    tick,
    tick_of,
    ticking,
    until,
)


async def test_an_id_belongs_to_its_connection():
    async with ticking() as (manager, server), server.acknowledged() as one, server.acknowledged() as two:
        await one.subscribe("1", tick_of("a"))
        await two.subscribe("1", tick_of("b"))
        await publish_tick(manager, "b", 2)
        await two.expect(next_frame("1", {"tick": {"n": 2}}))
        await one.complete("1")
        await one.sync()
        await publish_tick(manager, "a", 1)
        await publish_tick(manager, "b", 3)
        await two.expect(next_frame("1", {"tick": {"n": 3}}))
        await one.sync()
        await one.close()
        await until(lambda: gauges(manager)["connections"] == 1)
        await publish_tick(manager, "b", 4)
        await two.expect(next_frame("1", {"tick": {"n": 4}}))


async def test_after_the_clients_complete_not_one_message_more_of_that_id():
    """Events come before, while and after the complete is on its way; those before the pong may still be of the id."""
    async with ticking() as (manager, server), server.acknowledged() as client:
        await client.subscribe("control", tick_of("a"))
        published = received = 0

        async def publish() -> None:
            nonlocal published
            for _ in range(5):
                published += 1
                await publish_tick(manager, "a", published)

        for turn in range(100):
            operation = str(turn % 2)
            await client.ask(operation, tick_of("a"))
            await client.send({"type": "ping"})
            await publish()
            await client.complete(operation)
            await publish()
            await client.send({"type": "ping", "payload": {"turn": turn}})
            pongs = 0
            while pongs < 2:
                message = await client.message()
                pongs += message["type"] == "pong"
                received += message.get("id") == "control"
            await publish()
            while received < published:
                message = await client.message()
                received += 1
                assert message == json.loads(next_frame("control", {"tick": {"n": received}}))
        assert gauges(manager)["subscriptions"] == 1


async def test_a_message_of_a_connection_is_handled_after_those_before_it():
    """A pong says of every subscribe before it that it is live or refused, also where functions are at work."""

    @subscription(channel="ticks:{of}")
    async def slowly(event: Event, of: ID) -> JSON:
        await asyncio.sleep(0)
        return event.data["n"]

    manager = SubscriptionManager(Schema(subscriptions=[tick, slowly]))
    async with served(manager) as (_, server), server.acknowledged() as client:
        for turn in range(20):
            for operation in range(10):
                query = tick_of("a") if operation % 2 else 'subscription { slowly(of: "a") }'
                await client.ask(f"{turn}:{operation}", query)
            await client.ask(f"{turn}:refused", "subscription { nobody }")
            await client.send({"type": "ping"})
            assert (await client.message())["id"] == f"{turn}:refused"
            await client.expect({"type": "pong"})
            await publish_tick(manager, "a", turn)
            ids = {(await client.message())["id"] for _ in range(10)}
            assert ids == {f"{turn}:{operation}" for operation in range(10)}
            for operation in range(10):
                await client.complete(f"{turn}:{operation}")


async def test_messages_of_each_subscription_are_in_order_and_none_is_missing():
    async with ticking() as (manager, server), server.acknowledged() as client:
        for channel in range(20):
            await client.ask(str(channel), tick_of(channel))
        await client.sync()
        for n in range(100):
            for channel in range(20):
                await publish_tick(manager, channel, n)
        got: dict[str, list[int]] = {str(channel): [] for channel in range(20)}
        for _ in range(2_000):
            message = await client.message()
            got[message["id"]].append(message["payload"]["data"]["tick"]["n"])
        assert got == {str(channel): list(range(100)) for channel in range(20)}


async def test_the_bytes_are_the_same_for_all_but_for_the_id():
    calls = 0

    @subscription(channel="go")
    async def shared(event: Event) -> JSON:
        nonlocal calls
        calls += 1
        return event.data

    manager = SubscriptionManager(Schema(subscriptions=[shared]))
    async with served(manager) as (_, server):
        clients = [await (await server.connect()).init() for _ in range(20)]
        for n, client in enumerate(clients):
            await client.subscribe(f"id-{n}", "subscription { shared }")
        for n in range(5):
            await manager.publish_event("x", "go", {"n": n, "é": "\u2028"})
            for at, client in enumerate(clients):
                await client.expect(next_frame(f"id-{at}", {"shared": {"n": n, "é": "\u2028"}}))
        assert calls == 5
        for client in clients:
            await client.close()


async def test_a_generator_and_the_servers_complete():
    @subscription
    async def countdown(info: Info, start: int) -> AsyncIterator[int]:
        for n in range(start, 0, -1):
            yield n

    @subscription
    async def breaks(info: Info) -> AsyncIterator[int]:
        yield 1
        raise ValueError("a secret")

    manager = SubscriptionManager(Schema(subscriptions=[countdown, breaks]))
    async with served(manager) as (_, server), server.acknowledged() as client:
        await client.ask("1", "subscription { countdown(start: 3) }")
        await client.expect(*(next_frame("1", {"countdown": n}) for n in (3, 2, 1)), {"id": "1", "type": "complete"})
        await client.ask("1", "subscription { breaks }")
        await client.expect(next_frame("1", {"breaks": 1}))
        message = await client.message()
        assert (message["id"], message["type"]) == ("1", "error")
        assert "secret" not in str(message)
        assert "a secret" in server.log.take()[0]
        await client.sync()


# ---- from where events come ----


async def test_events_come_from_other_threads():
    async with ticking() as (manager, server), server.acknowledged() as client:
        for channel in range(4):
            await client.ask(str(channel), tick_of(channel))
        await client.sync()

        def publish(channel: int) -> None:
            for n in range(200):
                manager.publish_event_sync("tick", f"ticks:{channel}", {"n": n})

        threads = [threading.Thread(target=publish, args=(channel,)) for channel in range(4)]
        for thread in threads:
            thread.start()
        got: dict[str, list[int]] = {str(channel): [] for channel in range(4)}
        for _ in range(800):
            message = await client.message()
            got[message["id"]].append(message["payload"]["data"]["tick"]["n"])
        assert got == {str(channel): list(range(200)) for channel in range(4)}
        for thread in threads:
            thread.join()


async def test_events_come_from_other_loops():
    async with ticking() as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", tick_of("a"))

        async def publish() -> list[str]:
            return [await manager.publish_event("tick", "ticks:a", {"n": n}) for n in range(200)]

        published = asyncio.create_task(asyncio.to_thread(asyncio.run, publish()))
        await client.expect(*(next_frame("1", {"tick": {"n": n}}) for n in range(200)))
        assert len(set(await published)) == 200


async def test_an_application_runs_on_another_loop_than_its_manager():
    """As where a server runs in a thread of its own; functions run on the manager's loop."""
    loops = []

    @subscription(channel="ticks:{of}")
    async def where(event: Event, of: ID) -> int:
        loops.append(asyncio.get_running_loop())
        return int(event.data["n"])

    manager = SubscriptionManager(Schema(subscriptions=[tick, where]))
    ready: asyncio.Future[tuple[Server, asyncio.Event]] = asyncio.get_running_loop().create_future()
    here = asyncio.get_running_loop()

    async def serve() -> None:
        over = asyncio.Event()
        async with serving(SubscriptionApp(manager), lifespan="off") as server:
            here.call_soon_threadsafe(ready.set_result, (server, over))
            await over.wait()

    async with manager:
        serving_there = asyncio.create_task(asyncio.to_thread(asyncio.run, serve()))
        server, over = await asyncio.wait_for(ready, PATIENCE)
        async with server.acknowledged() as client:
            await client.subscribe("1", tick_of("a"))
            await client.subscribe("2", 'subscription { where(of: "a") }')
            for n in range(100):
                await publish_tick(manager, "a", n)
            got: dict[str, list[Any]] = {"1": [], "2": []}
            for _ in range(200):
                message = await client.message()
                got[message["id"]].append(message["payload"]["data"])
            assert got == {"1": [{"tick": {"n": n}} for n in range(100)], "2": [{"where": n} for n in range(100)]}
            assert set(loops) == {here}
            await client.ask("1", tick_of("a"))
            assert (await client.closed())[0] == 4409
        # That loop ends while the manager goes on.
        server.loop.call_soon_threadsafe(over.set)
        await serving_there
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}
        async with manager.subscribe(tick_of("a")) as stream:
            await publish_tick(manager, "a", 1)
            assert b'"n":1' in await anext(stream)


async def test_a_function_may_publish_and_be_heard_on_another_socket():
    @subscription(channel="first")
    async def first(event: Event) -> JSON:
        await manager.publish_event("x", "second", {"from": "first"})
        return event.data

    @subscription(channel="second", passthrough=True)
    def second() -> JSON:
        raise NotImplementedError

    manager = SubscriptionManager(Schema(subscriptions=[first, second]))
    async with served(manager) as (_, server), server.acknowledged() as one, server.acknowledged() as two:
        await one.subscribe("1", "subscription { first }")
        await two.subscribe("1", "subscription { second }")
        await manager.publish_event("x", "first", {"n": 1})
        await one.expect(next_frame("1", {"first": {"n": 1}}))
        await two.expect(next_frame("1", {"second": {"from": "first"}}))


REQUEST: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


async def test_no_requests_and_no_publishers_context_is_seen_by_a_function():
    @subscription(channel="go")
    async def seen(event: Event) -> str:
        return REQUEST.get()

    @subscription
    async def seen_by_generator(info: Info) -> AsyncIterator[str]:
        yield REQUEST.get()

    manager = SubscriptionManager(Schema(subscriptions=[seen, seen_by_generator]))
    app = SubscriptionApp(manager)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            REQUEST.set("a request's")
        await app(scope, receive, send)

    async with serving(middleware) as server, server.acknowledged() as client:
        await client.subscribe("1", "subscription { seen }")
        token = REQUEST.set("a publisher's")
        await manager.publish_event("x", "go", {})
        REQUEST.reset(token)
        await client.expect(next_frame("1", {"seen": "none"}))
        await client.ask("2", "subscription { seenByGenerator }")
        await client.expect(next_frame("2", {"seenByGenerator": "none"}), {"id": "2", "type": "complete"})


async def test_rows_and_tenants_hold_on_every_socket():
    @subscription(channel="c", rows=data["owner"] == viewer("user_id"), passthrough=True)
    def mine() -> JSON:
        raise NotImplementedError

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=payload["user"], tenant_id=payload["tenant"])

    manager = SubscriptionManager(Schema(subscriptions=[mine]), multi_tenant=True)
    async with served(manager, auth_handler=authenticate) as (_, server):
        people = [(tenant, user) for tenant in ("a", "b") for user in (1, 2)]
        clients: list[Client] = []
        for tenant, user in people:
            client = await (await server.connect()).init({"user": user, "tenant": tenant})
            await client.subscribe("1", "subscription { mine }")
            clients.append(client)
        for tenant, owner in [*people, ("a", 3), ("c", 1)]:
            await manager.publish_event("x", "c", {"owner": owner, "of": tenant}, tenant_id=tenant)
        for (tenant, user), client in zip(people, clients, strict=True):
            await client.expect(next_frame("1", {"mine": {"owner": user, "of": tenant}}))
            await client.sync()
            await client.close()


@pytest.mark.parametrize("subscribers", [1, 50])
async def test_a_connection_that_joins_in_a_storm_misses_nothing_after_its_pong(subscribers):
    limits = Limits(queue_messages=100_000, queue_bytes=2**30, connection_queue_bytes=2**30)
    async with ticking(limits=limits) as (manager, server):
        published = 0
        stopped = False

        async def storm() -> None:
            nonlocal published
            while not stopped:
                published += 1
                await publish_tick(manager, "a", published)
                if published % 2 == 0:
                    await asyncio.sleep(0)

        storming = asyncio.create_task(storm())

        async def join() -> None:
            async with server.acknowledged() as client:
                await client.ask("1", tick_of("a"))
                first = (await client.message())["payload"]["data"]["tick"]["n"]
                for n in range(first + 1, first + 50):
                    assert (await client.message())["payload"]["data"]["tick"]["n"] == n

        for _ in range(2):
            await asyncio.gather(*(join() for _ in range(subscribers // 2 or 1)))
        stopped = True
        await storming
