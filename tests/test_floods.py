"""What clients do in masses: it costs them, and is bounded, and whoever comes rightfully is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import Forbidden, Limits, Schema, SecurityContext, SubscriptionManager

from .sockets import FORBIDDEN, Client, Server, gauges, next_frame, publish_tick, tick, tick_of, ticking, until
from .support import audited
from .test_leaks import rss

#: How many come at once; `FLOOD=10000` where there is time for it.
FLOOD = int(os.environ.get("FLOOD", "500"))
#: How many of them are under way together.
TOGETHER = 50
#: Resident memory that the allocator and the test's own clients may take.
ROOM = 48_000_000
TICK = tick_of("a")
pytestmark = pytest.mark.timeout(60 + FLOOD / 20)


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    user = {"right": 1, "other": 2}.get(payload["token"])
    if user is None:
        raise Forbidden
    return SecurityContext(user)


RIGHT = {"token": "right"}


class Rightful:
    """A client that is served throughout: it counts what it has been given, in order and without loss."""

    def __init__(self, manager: SubscriptionManager, client: Client) -> None:
        self._manager, self._client, self.received = manager, client, 0

    async def is_served(self) -> None:
        n = self.received = self.received + 1
        await publish_tick(self._manager, "rightful", n)
        await self._client.expect(next_frame("1", {"tick": {"n": n}}))

    async def is_served_on(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.is_served()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def rightful(manager: SubscriptionManager, server: Server) -> AsyncIterator[Rightful]:
    """While this lasts, somebody is served all the time; at the end, somebody new gets in as well."""
    async with server.acknowledged(payload=RIGHT) as client:
        await client.subscribe("1", tick_of("rightful"))
        one, stop = Rightful(manager, client), asyncio.Event()
        serving = asyncio.create_task(one.is_served_on(stop))
        try:
            yield one
        finally:
            stop.set()
            await serving
        await one.is_served()
        async with server.acknowledged(payload=RIGHT) as late:
            await late.subscribe("1", TICK)
            await publish_tick(manager, "a", 1)
            await late.expect(next_frame("1", {"tick": {"n": 1}}))


async def masses(server: Server, count: int, each: Any) -> None:
    """Does the same with so many connections, some at a time."""

    async def one() -> None:
        async with server.client() as client:
            await each(client)

    for _ in range(0, count, TOGETHER):
        await asyncio.gather(*(one() for _ in range(TOGETHER)))


async def wrong_login(client: Client) -> None:
    await client.send({"type": "connection_init", "payload": {"token": "wrong"}})
    assert await client.closed() == FORBIDDEN


async def test_a_flood_of_wrong_logins_leaves_nothing_and_a_rightful_client_is_served_meanwhile():
    with audited() as trail:
        async with ticking(auth_handler=authenticate) as (manager, server):
            await masses(server, TOGETHER, wrong_login)  # what is made once
            async with rightful(manager, server) as served:
                gc.collect()
                tasks, memory, before = len(asyncio.all_tasks()), rss(), served.received
                began = time.monotonic()
                await masses(server, FLOOD, wrong_login)
                assert gauges(manager) == {"connections": 1, "subscriptions": 1}
                await until(lambda: len(asyncio.all_tasks()) <= tasks)
                gc.collect()
                assert rss() - memory < ROOM
                assert served.received > before
            refused = [entry for entry in trail.entries if entry.event == "connection_refused"]
            assert len(refused) <= 1_000 + 100 * (time.monotonic() - began) + TOGETHER
            assert len(refused) + sum(entry.suppressed for entry in refused) <= FLOOD + TOGETHER
            assert [entry.user_id for entry in trail.entries if entry.event == "connection_accepted"] == ["1", "1"]
            assert server.log.take() == []


async def test_a_flood_of_connections_that_say_nothing_pushes_out_the_oldest_of_them_alone():
    limits = Limits(max_pending_connections=TOGETHER, connection_init_timeout=600)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with rightful(manager, server) as served, contextlib.AsyncExitStack() as stack:
            silent: list[Client] = []
            for _ in range(TOGETHER * 4):
                silent.append(await stack.enter_async_context(server.client()))
                if len(silent) > TOGETHER:
                    assert await silent[-TOGETHER - 1].closed() == (4408, "Connection initialisation timeout")
            assert not any(client.is_closed() for client in silent[-TOGETHER:])
            before = served.received
            # Somebody who speaks at once gets in among them.
            async with server.acknowledged(payload=RIGHT) as late:
                await late.sync()
            await until(lambda: served.received > before)
            assert gauges(manager)["connections"] == 1


async def test_a_flood_of_connections_beyond_the_limit_leaves_those_who_are_in():
    async with ticking(limits=Limits(max_connections=2), auth_handler=authenticate) as (manager, server):
        async with rightful(manager, server) as served:

            async def come(client: Client) -> None:
                await client.send({"type": "connection_init", "payload": {"token": "other"}})
                assert await client.closed() == (1013, "Too many connections")

            async with server.acknowledged(payload={"token": "other"}):
                before = served.received
                await masses(server, TOGETHER * 4, come)
                assert served.received > before
                assert gauges(manager)["connections"] == 2
            await until(lambda: gauges(manager)["connections"] == 1)


class Asked:
    """What one client says again and again, and what it is answered each time."""

    def __init__(self, *messages: Any, answers: int) -> None:
        self.messages, self.answers = messages, answers


def subscribe(operation: str, query: str) -> dict[str, Any]:
    return {"id": operation, "type": "subscribe", "payload": {"query": query}}


COMPLETE = {"id": "1", "type": "complete"}
FLOODS = {
    "pings": Asked({"type": "ping", "payload": {"a": "x" * 100}}, answers=1),
    "pongs": Asked({"type": "pong"}, answers=0),
    "completes of what is not": Asked(COMPLETE, answers=0),
    "refreshes": Asked({"type": "ping", "payload": {"refresh": {"token": "other"}}}, answers=1),
    "subscribes and completes": Asked(subscribe("1", TICK), COMPLETE, answers=0),
    "subscribes that are refused": Asked(subscribe("1", "subscription { nobody }"), answers=1),
    "introspection": Asked(subscribe("1", "{ __schema { queryType { name } } }"), answers=2),
}


async def flood(client: Client, asked: Asked, count: int) -> None:
    """Says it so often, reading what comes."""

    async def say() -> None:
        for _ in range(count):
            await client.send(*asked.messages)
            await asyncio.sleep(0)  # the server lives on this loop, too

    saying = asyncio.create_task(say())
    for _ in range(count * asked.answers):
        await client.receive()
    await saying


@pytest.mark.parametrize("what", FLOODS)
async def test_a_client_that_asks_without_end_is_answered_and_others_are_served(what):
    limits = Limits(subscribes_per_second=None)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with server.acknowledged(payload={"token": "other"}) as client:
            await flood(client, FLOODS[what], 100)
            await client.sync()
            async with rightful(manager, server) as served:
                memory, before = rss(), served.received
                await flood(client, FLOODS[what], FLOOD * 2)
                await client.sync()
                assert served.received > before
                assert gauges(manager) == {"connections": 2, "subscriptions": 1}
                gc.collect()
                assert rss() - memory < ROOM


async def test_a_flood_of_subscribes_is_refused_beyond_the_rate_without_being_looked_at():
    limits = Limits(subscribes_per_second=1, burst=10)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with rightful(manager, server) as served, server.acknowledged(payload={"token": "other"}) as client:
            began, parses, before = time.monotonic(), manager._core.parses(), served.received
            refused = 0
            for n in range(0, FLOOD * 2, 50):
                for m in range(50):
                    await client.ask(f"{n}.{m}", f"subscription {{ nobody{n}x{m} }}")
                for _ in range(50):
                    message = await client.message()
                    refused += message["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
            lasted = time.monotonic() - began
            assert FLOOD * 2 - refused <= 10 + lasted + 1
            # What was looked at is what was not refused by the rate.
            assert manager._core.parses() - parses == FLOOD * 2 - refused
            await until(lambda: served.received > before)


@pytest.mark.parametrize("payload", [{"token": "other"}, {"token": "wrong"}])
async def test_a_flood_of_inits_asks_the_handler_once_and_ends_the_connection(payload):
    asked: list[Any] = []

    async def handler(payload: dict[str, Any]) -> SecurityContext:
        asked.append(payload)
        return await authenticate(payload)

    async with ticking(auth_handler=handler) as (manager, server), rightful(manager, server):
        asked.clear()
        async with server.client() as client:
            with contextlib.suppress(ConnectionClosed):
                for _ in range(FLOOD):
                    await client.send({"type": "connection_init", "payload": payload})
            came = await client.frame_or_close()
            if came == '{"type":"connection_ack"}':
                came = await client.frame_or_close()
            assert came in ((4429, "Too many initialisation requests"), FORBIDDEN)
        assert asked in ([payload], [])  # the close may come before it is asked
        await until(lambda: gauges(manager)["connections"] == 1)


async def test_many_users_leave_nothing_when_they_have_gone():
    """Each has an account of its own for connections, subscriptions and rates."""
    limits = Limits(
        max_subscriptions_per_tenant=10,
        subscribes_per_second=1e6,
        events_per_second_per_user=1e6,
        events_per_second_per_subscription=1e6,
    )
    manager = SubscriptionManager(Schema(subscriptions=[tick]), limits=limits)

    async def come(first: int, count: int) -> None:
        for user in range(first, first + count):
            context = SecurityContext(user, f"tenant {user}")
            async with manager.subscribe(TICK, context=context) as stream:
                await manager.publish_event("tick", "ticks:a", {"n": user}, tenant_id=f"tenant {user}")
                await anext(stream)

    async with manager:
        await come(0, 1_000)
        gc.collect()
        memory = rss()
        await come(1_000, FLOOD * 4)
        gc.collect()
        assert gauges(manager)["subscriptions"] == 0
        assert manager.get_metrics()["queued_messages"] == 0
        assert rss() - memory < ROOM / 3
