"""How subscriptions end, each counted once under its reason, with nothing left of what waited for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from fraiseql_subs import (
    Forbidden,
    GraphQLError,
    GraphQLRequestError,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SlowConsumer,
    SubscriptionManager,
    subscription,
)
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import NARROW, Client, Direct, gauges, publish_tick, served, tick, until
from .support import nonzero, soon, within

QUERY = "subscription { tick(of: 1) { n text } }"


@subscription
async def finite(info: Info) -> AsyncIterator[int]:
    for n in range(3):
        yield n


@subscription
async def failing(info: Info) -> AsyncIterator[int]:
    for n in range(3):
        yield n
    raise GraphQLError("no")


def manager_of(**limits: Any) -> SubscriptionManager:
    return SubscriptionManager(Schema(subscriptions=[tick, finite, failing]), limits=Limits(**limits))


async def publish(manager: SubscriptionManager, count: int) -> None:
    for n in range(count):
        await publish_tick(manager, 1, n, text="x" * 1_000)


def is_settled(manager: SubscriptionManager, reason: str, count: int = 1) -> bool:
    """Whether so many have ended for this reason, none for another, and nothing waits."""
    metrics = manager.get_metrics()
    waiting = (metrics["subscriptions"], metrics["queued_messages"], metrics["queued_bytes"])
    return (nonzero(manager, "subscriptions_ended"), waiting) == ({reason: count}, (0, 0, 0))


def in_prometheus(manager: SubscriptionManager) -> dict[str, int]:
    lines = [line for line in manager.prometheus().splitlines() if not line.startswith("#")]
    samples = dict(line.rsplit(" ", 1) for line in lines)
    start, names = "fraiseql_subs_subscriptions_ended_total", ("queued_messages", "queued_bytes", "subscriptions")
    found = {name: int(value) for name, value in samples.items() if name.startswith(start) and value != "0"}
    return found | {name: int(samples[f"fraiseql_subs_{name}"]) for name in names}


# ---- in this process ----


async def read(stream: Any) -> int:
    return len([message async for message in stream])


async def by_complete(manager: SubscriptionManager, stream: Any) -> None:
    assert await manager.complete_subscription(stream.id)
    assert await read(stream) == 3


async def by_generator(manager: SubscriptionManager, stream: Any) -> None:
    assert await read(stream) == 3


async def by_leaving(manager: SubscriptionManager, stream: Any) -> None:
    await stream.aclose()


async def by_expiry(manager: SubscriptionManager, stream: Any) -> None:
    await until(lambda: manager.get_metrics()["subscriptions"] == 0)
    with pytest.raises(Forbidden):
        await soon(anext(stream))


async def by_revoke(manager: SubscriptionManager, stream: Any) -> None:
    assert await manager.revoke(user_id=1) == 1
    with pytest.raises(Forbidden):
        await soon(anext(stream))


async def by_overflow(manager: SubscriptionManager, stream: Any) -> None:
    await publish(manager, 100)
    with pytest.raises(SlowConsumer):
        await soon(anext(stream))


async def by_error(manager: SubscriptionManager, stream: Any) -> None:
    for _ in range(3):
        await soon(anext(stream))
    with pytest.raises(GraphQLRequestError):
        await soon(anext(stream))


async def by_stop(manager: SubscriptionManager, stream: Any) -> None:
    await manager.__aexit__(None, None, None)
    assert await read(stream) == 0


End = Callable[[SubscriptionManager, Any], Awaitable[None]]


@pytest.mark.parametrize(
    ("reason", "end", "query"),
    [
        ("complete", by_complete, QUERY),
        ("complete", by_generator, "subscription { finite }"),
        ("client", by_leaving, QUERY),
        ("expired", by_expiry, QUERY),
        ("revoked", by_revoke, QUERY),
        ("slow", by_overflow, QUERY),
        ("error", by_error, "subscription { failing }"),
        ("drained", by_stop, QUERY),
    ],
)
async def test_in_process_each_end_is_counted_once_and_nothing_waits(reason: str, end: End, query: str) -> None:
    manager = manager_of(queue_messages=50, drain_timeout=0)
    context = SecurityContext(1, expires_at=within(1) if end is by_expiry else None)
    async with contextlib.AsyncExitStack() as stack:
        await manager.__aenter__()
        if end is not by_stop:
            stack.push_async_callback(manager.__aexit__, None, None, None)
        stream = manager.subscribe(query, context=context)
        await stream.__aenter__()
        if query == QUERY:
            await publish(manager, 3)
            metrics = manager.get_metrics()
            assert (metrics["subscriptions"], metrics["queued_messages"]) == (1, 3)
            assert metrics["queued_bytes"] > 3_000
        await end(manager, stream)
        assert is_settled(manager, reason), manager.get_metrics()
        await stream.aclose()
        del stream
        assert is_settled(manager, reason)
        assert in_prometheus(manager) == {
            f'fraiseql_subs_subscriptions_ended_total{{reason="{reason}"}}': 1,
            "queued_messages": 0,
            "queued_bytes": 0,
            "subscriptions": 0,
        }
    assert is_settled(manager, reason)


async def test_one_that_is_forgotten_is_as_good_as_left():
    manager = manager_of()
    async with manager:
        stream = manager.subscribe(QUERY)
        await stream.__aenter__()
        await publish(manager, 3)
        assert manager.get_metrics()["queued_messages"] == 3
        del stream
        assert is_settled(manager, "client")


async def test_one_that_never_began_has_not_ended():
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError):
            await manager.subscribe("subscription { nobody }").__aenter__()
        manager.subscribe(QUERY)
        assert set(manager.get_metrics()["subscriptions_ended"].values()) == {0}


# ---- over a socket ----


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(1, expires_at=within(payload["expires"]) if "expires" in payload else None)


async def socket_by_complete(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    assert await manager.complete_subscription("1", ids[0])
    await client.expect({"id": "1", "type": "complete"})


async def socket_by_generator(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    for _ in range(4):
        message = await client.message()
    assert message["type"] == "complete"


async def socket_by_error(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    for _ in range(4):
        message = await client.message()
    assert message["type"] == "error"


async def socket_by_client(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    await client.complete("1")
    await client.sync()


async def socket_by_close(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    await client.close()


async def socket_by_abort(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    client.abort()


async def socket_by_misuse(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    await client.send("{")
    assert (await client.closed())[0] == 4400


async def socket_by_expiry(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    assert (await client.closed())[0] == 4403


async def socket_by_revoke(manager: SubscriptionManager, client: Client, ids: list[str]) -> None:
    await publish(manager, 3)  # they may be sent or not
    assert await manager.revoke(user_id=1) == 1
    assert manager.get_metrics()["queued_messages"] == 0


SocketEnd = Callable[[SubscriptionManager, Client, list[str]], Awaitable[None]]


@pytest.mark.parametrize(
    ("reason", "end", "query"),
    [
        ("complete", socket_by_complete, QUERY),
        ("complete", socket_by_generator, "subscription { finite }"),
        ("error", socket_by_error, "subscription { failing }"),
        ("client", socket_by_client, QUERY),
        ("disconnect", socket_by_close, QUERY),
        ("disconnect", socket_by_abort, QUERY),
        ("disconnect", socket_by_misuse, QUERY),
        ("expired", socket_by_expiry, QUERY),
        ("revoked", socket_by_revoke, QUERY),
    ],
)
async def test_over_a_socket_each_end_is_counted_once_and_nothing_waits(
    reason: str, end: SocketEnd, query: str
) -> None:
    ids: list[str] = []

    async def handler(payload: dict[str, Any], connection: Any) -> SecurityContext:
        ids.append(connection.id)
        return await authenticate(payload)

    manager = manager_of()
    payload = {"expires": 1} if end is socket_by_expiry else {}
    async with served(manager, auth_handler=handler) as (_, server):
        async with server.acknowledged(payload=payload) as client:
            await client.ask("1", query)
            if query == QUERY:
                await client.sync()
            assert gauges(manager) == {"connections": 1, "subscriptions": 1} or query != QUERY
            await end(manager, client, ids)
            await until(lambda: is_settled(manager, reason))
        assert is_settled(manager, reason)
    assert is_settled(manager, reason)


async def test_over_a_socket_a_slow_reader_takes_all_its_subscriptions_along():
    manager = manager_of(queue_messages=50)
    async with served(manager, server=NARROW) as (_, server), server.acknowledged(narrow=True) as client:
        for operation in ("1", "2", "3"):
            await client.subscribe(operation, QUERY)
        client.stop_reading()
        for _ in range(10):
            await publish(manager, 50)
        await until(lambda: is_settled(manager, "slow", 3))
        client.abort()
    assert is_settled(manager, "slow", 3)


@pytest.mark.parametrize("drain_timeout", [0, 5])
async def test_over_a_socket_the_stop_ends_all_of_them_as_drained(drain_timeout):
    manager = manager_of(drain_timeout=drain_timeout)
    subscribes = ({"id": n, "type": "subscribe", "payload": {"query": QUERY}} for n in ("1", "2"))
    async with manager:
        server = Direct(SubscriptionApp(manager), {"type": "connection_init"}, *subscribes)
        await until(lambda: gauges(manager)["subscriptions"] == 2)
        await publish(manager, 3)
        assert manager.get_metrics()["queued_messages"] == 6
    await soon(server.task)
    assert is_settled(manager, "drained", 2)
    assert server.sent[-1]["code"] in (1001, 1012)
    metrics = manager.get_metrics()
    assert metrics["events_delivered"] + metrics["events_dropped"]["drain"] == 6


async def test_a_reader_that_is_stuck_is_closed_for_its_missing_pong_though_events_come():
    """What comes meanwhile wakes nobody who is in a send; the close must."""
    manager = manager_of(overflow="latest", ping_interval=0.5, pong_timeout=0.5)
    async with served(manager, server=NARROW) as (_, server), server.acknowledged(narrow=True) as client:
        await client.subscribe("1", QUERY)
        client.stop_reading()
        stuck = 0
        while stuck < 20:  # one waits, and is not taken for so many turns
            await publish_tick(manager, 1, 1, text="x" * 20_000)
            await asyncio.sleep(0)
            stuck = stuck + 1 if manager.get_metrics()["queued_messages"] else 0
        assert server.tasks == 1
        await until(lambda: is_settled(manager, "disconnect"))
        await until(lambda: server.tasks == 0)
        client.abort()
