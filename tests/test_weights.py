"""What clients make us keep: weighed as memory has it, charged to connection, user and process, and given back."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import (
    JSON,
    Event,
    Info,
    LimitExceeded,
    Limits,
    Schema,
    SecurityContext,
    SlowConsumer,
    SubscriptionManager,
    argument,
    data,
    subscription,
)

from .sockets import Client, next_frame, publish_tick, served, text_of, tick_of, ticking, until
from .support import TICKS, Tick, bounded, entered, manager_of, nonzero, one, rest, soon, take, ticks
from .test_leaks import rss


@subscription(channel="numbers", where=data["n"].is_in(argument("numbers")), passthrough=True)
def numbered(numbers: list[int]) -> Tick:
    raise NotImplementedError


@subscription(channel="c")
async def noted(event: Event, note: JSON | None = None, other: JSON | None = None) -> Tick:
    return Tick(**event.data)


NUMBERED = "subscription ($numbers: [Int!]!) { numbered(numbers: $numbers) { n } }"
NOTED = "subscription ($note: JSON) { noted(note: $note) { n } }"
PADDED = "subscription { ticks { n pad } }"


def user(name: str) -> SecurityContext:
    return SecurityContext(name)


def memory(manager: SubscriptionManager) -> dict[str, int]:
    return manager.get_metrics()["memory_bytes"]


def nothing(manager: SubscriptionManager) -> bool:
    return set(memory(manager).values()) == {0}


def told(refused: pytest.ExceptionInfo[LimitExceeded]) -> str:
    return str(refused.value)


# ---- arguments ----


async def test_arguments_may_have_so_many_bytes_as_json_and_no_more():
    manager = manager_of(noted, limits=Limits(max_argument_bytes=1_000))
    least = len('{"note":""}')
    async with manager:
        for text in ("x" * (1_000 - least), '"' * ((1_000 - least) // 2)):
            async with manager.subscribe(NOTED, variables={"note": text}) as stream:
                await manager.publish_event("x", "c", {"n": 1})
                assert await one(stream) == {"data": {"noted": {"n": 1}}}
            with pytest.raises(LimitExceeded) as refused:
                await manager.subscribe(NOTED, variables={"note": text + '"'}).__aenter__()
            assert told(refused) == "max_argument_bytes is reached"
        assert nothing(manager)


async def test_a_variable_that_is_used_many_times_is_refused_before_it_is_copied():
    manager = manager_of(noted)
    async with manager:
        spread = "subscription ($v: JSON) { noted(note: {" + " ".join(f"k{n}: $v" for n in range(400)) + "}) { n } }"
        async with manager.subscribe(spread, variables={"v": "x" * 300}):
            pass
        gc.collect()
        before = rss()
        with pytest.raises(LimitExceeded, match="max_argument_bytes"):
            await manager.subscribe(spread, variables={"v": "x" * 200_000}).__aenter__()
        assert rss() - before < 16_000_000


async def test_over_a_socket_it_is_an_error_and_the_socket_stays():
    manager = manager_of(noted, limits=Limits(max_argument_bytes=100))
    async with served(manager) as (manager, server), server.acknowledged() as client:
        await client.ask("1", NOTED, variables={"note": "x" * 100})
        await client.expect(limit_error("1", "max_argument_bytes is reached"))
        await client.subscribe("1", NOTED, variables={"note": "x"})


def limit_error(operation: str, message: str) -> str:
    return text_of(
        {"id": operation, "type": "error", "payload": [{"message": message, "extensions": {"code": "LIMIT_EXCEEDED"}}]}
    )


# ---- what a subscription keeps ----


async def test_a_long_list_of_short_numbers_weighs_what_it_takes():
    manager = manager_of(numbered, noted)
    async with manager:
        async with manager.subscribe(NUMBERED, variables={"numbers": [1] * 10_000}) as stream:
            assert 500 < memory(manager)["state"] < 5_000  # of the list, each number counts once
            async with manager.subscribe(NOTED, variables={"note": [1] * 10_000}):
                assert memory(manager)["state"] > 10_000 * 32  # a function has the list
            await manager.publish_event("x", "numbers", {"n": 1})
            assert await one(stream) == {"data": {"numbered": {"n": 1}}}
        with pytest.raises(LimitExceeded) as refused:
            await manager.subscribe(NOTED, variables={"note": [1] * 130_000}).__aenter__()
        assert told(refused) == "max_subscription_bytes is reached"
        assert nothing(manager)


TYPES = 20
FIELDS = f"id: ID! {' '.join(f'f{n}: String' for n in range(10))} next: Node"
SDL = f"""
type Subscription {{ node: Node }}
interface Node {{ {FIELDS} }}
{"".join(f"type T{n} implements Node {{ {FIELDS} }} " for n in range(TYPES))}
type Query {{ a: Int }}
"""
DEPTH = 10


@subscription(name="node", channel="nodes", passthrough=True)
def node():
    raise NotImplementedError


def deep() -> str:
    """A selection of 120 places, each of which is planned for twenty types."""
    names = " ".join(f"f{n}" for n in range(10))
    return "subscription { node { " + f"id {names} next {{ " * DEPTH + "id" + " }" * DEPTH + " } }"


async def test_a_selection_weighs_at_most_256_bytes_a_planned_field():
    manager = SubscriptionManager(Schema.from_sdl(SDL, subscriptions=[node]))
    planned = TYPES * (DEPTH * 12 + 1)
    async with manager, manager.subscribe(deep()) as stream:
        assert planned * 32 < memory(manager)["state"] < planned * 256
        await manager.publish_event("x", "nodes", {"__typename": "T3", "id": 1, "next": {"__typename": "T1", "id": 2}})
        payload = await one(stream)
        assert payload["data"]["node"]["next"]["id"] == "2"


async def test_a_selection_that_is_too_much_is_refused():
    limits = Limits(max_subscription_bytes=100_000)
    manager = SubscriptionManager(Schema.from_sdl(SDL, subscriptions=[node]), limits=limits)
    async with manager, manager.subscribe("subscription { node { id next { id } } }"):
        with pytest.raises(LimitExceeded, match="max_subscription_bytes"):
            await manager.subscribe(deep()).__aenter__()


async def test_equal_selections_count_once_for_each_connection():
    manager = SubscriptionManager(Schema.from_sdl(SDL, subscriptions=[node]))
    async with served(manager) as (manager, server):
        async with server.acknowledged() as one, server.acknowledged() as other:
            await one.subscribe("1", deep())
            once = memory(manager)["state"]
            await one.subscribe("2", deep())
            assert memory(manager)["state"] - once < once / 10
            await other.subscribe("1", deep())
            assert once * 1.9 < memory(manager)["state"] < once * 2.2
            await one.complete("1")
            await one.complete("2")
            await one.sync()
            assert memory(manager)["state"] == once
        await until(lambda: nothing(manager))


async def test_what_the_subscriptions_of_a_connection_keep_is_bounded():
    limits = Limits(max_connection_state_bytes=100_000)
    async with served(manager_of(noted, limits=limits)) as (manager, server):
        async with server.acknowledged() as client, server.acknowledged() as other:
            await client.subscribe("1", NOTED, variables={"note": "x" * 30_000})
            await client.ask("2", NOTED, variables={"note": "y" * 30_000})
            await client.expect(limit_error("2", "max_connection_state_bytes is reached"))
            await other.subscribe("2", NOTED, variables={"note": "y" * 30_000})
            await client.complete("1")
            await client.subscribe("3", NOTED, variables={"note": "y" * 30_000})
        await until(lambda: nothing(manager))


async def test_plans_that_nobody_uses_any_more_leave_nothing_of_their_variables():
    sdl = "type Subscription { nested: Nested } type Nested { noted(note: JSON): String } "
    sdl += "scalar JSON type Query { a: Int }"

    @subscription(channel="c")
    async def nested():
        raise NotImplementedError

    manager = SubscriptionManager(Schema.from_sdl(sdl, subscriptions=[nested]))
    query = "subscription S{n} ($note: JSON) { nested { noted(note: $note) } }"

    async def many(count: int) -> None:
        for n in range(count):
            async with manager.subscribe(query.replace("{n}", str(n)), variables={"note": f"{n}" + "x" * 250_000}):
                pass

    async with manager:
        await many(10)
        gc.collect()
        before = rss()
        await many(80)
        assert rss() - before < 8_000_000


# ---- users ----


async def test_a_users_further_subscribe_is_refused_over_all_connections():
    manager = manager_of(noted, limits=Limits(max_user_bytes=100_000))
    async with manager, contextlib.AsyncExitStack() as stack:
        note = {"note": "x" * 30_000}
        await entered(stack, manager.subscribe(NOTED, variables=note, context=user("a")))
        with pytest.raises(LimitExceeded) as refused:
            await manager.subscribe(NOTED, variables=note, context=user("a")).__aenter__()
        assert told(refused) == "max_user_bytes is reached"
        await entered(stack, manager.subscribe(NOTED, variables=note, context=user("b")))
        # In this process nobody is limited who is not named.
        for _ in range(5):
            await entered(stack, manager.subscribe(NOTED, variables=note))
    assert nothing(manager)


async def test_a_users_further_message_is_that_subscriptions_overflow():
    limits = Limits(max_user_bytes=200_000, overflow="drop_newest")
    manager = manager_of(ticks, limits=limits)
    async with manager, contextlib.AsyncExitStack() as stack:
        mine = [await entered(stack, manager.subscribe(PADDED, context=user("a"))) for _ in range(4)]
        other = await entered(stack, manager.subscribe(PADDED, context=user("b")))
        for n in range(10):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * 10_000})
        assert [tick["data"]["ticks"]["n"] for tick in await take(other, 10)] == list(range(10))
        assert memory(manager)["queues"] < 250_000
        lost = nonzero(manager, "events_dropped")["overflow"]
        received = 0
        for stream in mine:
            await manager.complete_subscription(stream.id)
            received += len(await rest(stream))
        assert received + lost == 40
        assert 10 <= received <= 19
    assert nothing(manager)


async def test_one_message_enters_whatever_its_size_where_nothing_else_waits_for_its_user():
    manager = manager_of(ticks, limits=Limits(max_user_bytes=5_000))
    async with manager, manager.subscribe(PADDED, context=user("a")) as stream:
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * 10_000})
            assert (await one(stream))["data"]["ticks"]["n"] == n


async def test_generators_of_one_user_wait_for_room_and_go_on():
    @subscription
    async def counting(info: Info) -> AsyncIterator[Tick]:
        for n in range(6):
            yield Tick(n, "x" * 20_000)

    manager = manager_of(counting, limits=Limits(max_user_bytes=100_000))
    query = "subscription { counting { n pad } }"
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = [await entered(stack, manager.subscribe(query, context=user("a"))) for _ in range(4)]
        await until(lambda: memory(manager)["queues"] > 40_000)
        for received in await asyncio.gather(*(take(stream, 6) for stream in streams)):
            assert [tick["data"]["counting"]["n"] for tick in received] == list(range(6))
        assert nonzero(manager, "events_dropped") == {}
    assert nothing(manager)


async def test_who_asks_without_reading_the_answers_is_closed_when_his_user_holds_too_much():
    limits = Limits(max_user_bytes=1_000_000, messages_per_second=None, bytes_per_second=None)
    async with ticking(limits=limits, server={"narrow": True}) as (manager, server):
        async with server.client(narrow=True) as client, server.acknowledged() as other:
            await client.init()
            client.stop_reading()
            with contextlib.suppress(ConnectionClosed):
                for _ in range(40):
                    await client.send({"type": "ping", "payload": {"pad": "x" * 100_000}})
            await until(lambda: manager.get_metrics()["connections"] == 1)
            client.read_on()
            await closed_as_slow(client)
            await other.sync()


# ---- the process ----


async def test_the_user_who_holds_most_loses_what_is_fullest():
    manager = manager_of(ticks, noted, limits=Limits(max_process_bytes=300_000))
    alias = "subscription {{ {name}: ticks {{ n pad }} }}"
    async with manager, contextlib.AsyncExitStack() as stack:

        async def stream(name: str, who: str, query: str = alias) -> Any:
            return await entered(stack, manager.subscribe(query.format(name=name), context=user(who)))

        fuller, full, little = await stream("a", "greedy"), await stream("b", "greedy"), await stream("c", "modest")
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * 10_000})
        await take(full, 3)
        await take(little, 3)
        for n in range(3, 20):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * 10_000})
            if n % 2:
                await take(little, 2 if n > 3 else 1)
            await until(lambda: sum(memory(manager).values()) <= 300_000)
        with pytest.raises(SlowConsumer):
            await soon(anext(fuller))
        assert [tick["data"]["b"]["n"] for tick in await take(full, 3)] == [3, 4, 5]
        await until(lambda: manager.get_metrics()["subscriptions"] == 2)
    await until(lambda: nothing(manager))


async def test_over_a_socket_it_closes_1013_and_other_users_go_on():
    limits = Limits(max_process_bytes=400_000)
    async with ticking(limits=limits, server={"narrow": True}) as (manager, server):
        async with server.client(narrow=True) as stopped, server.acknowledged() as other:
            await stopped.init()
            await stopped.subscribe("1", "subscription { tick(of: 1) { n text } }")
            await other.subscribe("1", tick_of(2))
            stopped.stop_reading()
            n = 0
            while manager.get_metrics()["connections"] == 2:
                n += 1
                await publish_tick(manager, 1, n, text="x" * 20_000)
                await publish_tick(manager, 2, n)
                await other.expect(next_frame("1", {"tick": {"n": n}}))
                assert n < 1_000
            assert nonzero(manager, "subscriptions_ended") == {"slow": 1}
            stopped.read_on()
            await closed_as_slow(stopped)
        await until(lambda: nothing(manager))


async def closed_as_slow(client: Client) -> None:
    while isinstance(came := await client.frame_or_close(), str):
        pass
    assert came == (1013, "Slow consumer")


async def test_what_many_wait_for_is_one_weight_of_the_process():
    manager = manager_of(ticks)
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = [await entered(stack, manager.subscribe(PADDED)) for _ in range(100)]
        await manager.publish_event("x", "c", {"n": 1, "pad": "x" * 100_000})
        assert 100_000 < memory(manager)["queues"] < 300_000
        for stream in streams:
            assert (await one(stream))["data"]["ticks"]["n"] == 1
    assert nothing(manager)


# ---- nothing stays ----


async def test_a_reader_that_leaves_with_messages_waiting_leaves_no_memory():
    manager = manager_of(ticks)

    async def many(count: int) -> None:
        for n in range(count):
            async with manager.subscribe(TICKS, subscription_id=f"{n}".zfill(20_000)):
                await manager.publish_event("x", "c", {"n": 1})

    async with manager:
        await many(50)
        gc.collect()
        before = rss()
        await many(500)
        gc.collect()
        assert rss() - before < 4_000_000
        assert nothing(manager)


def test_gauges_stand_in_prometheus_text():
    manager = manager_of(ticks)
    text = manager.prometheus()
    for kind in ("queues", "state", "inbound", "past"):
        assert f'fraiseql_subs_memory_bytes{{kind="{kind}"}} 0' in text


@pytest.mark.parametrize(
    "name",
    [
        "max_argument_bytes",
        "max_subscription_bytes",
        "max_connection_state_bytes",
        "max_user_bytes",
        "max_process_bytes",
        "message_burst",
    ],
)
def test_they_are_validated_when_built(name):
    with pytest.raises(ValueError, match=name):
        bounded(**{name: 0})
    with pytest.raises(TypeError, match=name):
        bounded(**{name: 1.5})
