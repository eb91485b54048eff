"""How many at once and how many a second, for each user and tenant: n are accepted, one more is not, others go on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fraiseql_subs import (
    JSON,
    Event,
    GraphQLError,
    GraphQLRequestError,
    Info,
    LimitExceeded,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)

from .sockets import Client, Server, gauges, next_frame, publish_tick, served, tick, tick_of, ticking, until
from .support import bounded, entered, one, soon, take

TICK = tick_of("a")
TOO_MANY = (4403, "Too many connections")
#: A rate that gives nothing back while a test lasts; one comes at once.
ONCE = 0.001


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(payload.get("user"), payload.get("tenant"))


def someone(user: Any = None, tenant: Any = None) -> dict[str, Any]:
    return {"user": user, "tenant": tenant}


def dropped(manager: SubscriptionManager) -> int:
    return manager.get_metrics()["events_dropped"]["rate"]


# ---- connections ----


async def refused(server: Server, payload: dict[str, Any]) -> tuple[int, str]:
    """The close of a connection that is not let in."""
    async with server.client() as client:
        await client.send({"type": "connection_init", "payload": payload})
        return await client.closed()


@pytest.mark.parametrize(
    ("limit", "same", "others"),
    [
        # Ids are the same as text, and a user of another tenant is another user.
        (
            "max_connections_per_user",
            [someone(1, "a"), someone("1", "a")],
            [someone(2, "a"), someone(1, "b"), someone(1), someone(), someone(), someone(), someone(None, "a")],
        ),
        (
            "max_connections_per_tenant",
            [someone(1, "a"), someone(2, "a"), someone(None, "a")],
            [someone(1, "b"), someone(1), someone(2), someone(3), someone(), someone()],
        ),
    ],
)
async def test_one_connection_too_many_of_an_account_is_closed_4403_and_a_place_is_free_again(limit, same, others):
    async with ticking(auth_handler=authenticate, limits=bounded(**{limit: 2})) as (manager, server):
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(server.acknowledged(payload=same[0]))
            await stack.enter_async_context(server.acknowledged(payload=same[1]))
            for payload in (*same, *same):
                assert await refused(server, payload) == TOO_MANY
            for payload in others:
                await stack.enter_async_context(server.acknowledged(payload=payload))
            assert gauges(manager)["connections"] == 2 + len(others)
            await first.close()
            await until(lambda: gauges(manager)["connections"] == 1 + len(others))
            await stack.enter_async_context(server.acknowledged(payload=same[-1]))
            assert await refused(server, same[0]) == TOO_MANY
            assert {text.rpartition(": ")[2] for text in server.log.take()} == {f"{limit} is reached"}


async def test_who_is_refused_by_one_limit_holds_no_place_of_another():
    limits = Limits(max_connections=1, max_connections_per_user=1, max_connections_per_tenant=1)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with server.acknowledged(payload=someone(1, "a")) as first:
            for _ in range(3):
                assert await refused(server, someone(2, "b")) == (1013, "Too many connections")
                # The user has no other; it is the tenant's limit that refuses.
                assert await refused(server, someone(2, "a")) == TOO_MANY
            assert ["per_tenant" in text for text in server.log.take()] == [True] * 3
            await first.close()
            await until(lambda: gauges(manager)["connections"] == 0)
        for payload in (someone(2, "b"), someone(2, "a")):
            async with server.acknowledged(payload=payload) as client:
                await client.close()
                await until(lambda: gauges(manager)["connections"] == 0)


# ---- subscriptions ----


async def limited(client: Client, operation: str, query: str = TICK) -> dict[str, Any]:
    """The error that a subscribe is refused with, the first of several."""
    await client.ask(operation, query)
    message = await client.message()
    assert (message["id"], message["type"]) == (operation, "error")
    return message["payload"][0]


def exceeded(limit: str, code: str = "LIMIT_EXCEEDED") -> dict[str, Any]:
    return {"message": f"{limit} is reached", "extensions": {"code": code}}


async def test_a_users_subscriptions_are_counted_over_all_connections_and_this_process():
    reached = exceeded("max_subscriptions_per_user")
    limits = Limits(max_subscriptions_per_user=3)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with contextlib.AsyncExitStack() as stack:
            user = someone(1, "a")
            one_client, two = [
                await stack.enter_async_context(server.acknowledged(payload=payload)) for payload in (user, user)
            ]
            context = SecurityContext("1", "a")
            await one_client.subscribe("1", TICK)
            await two.subscribe("1", TICK)
            stream = await entered(stack, manager.subscribe(TICK, context=context))
            for client in (one_client, two):
                assert await limited(client, "2") == reached
            with pytest.raises(LimitExceeded, match=r"^max_subscriptions_per_user is reached$"):
                await manager.subscribe(TICK, context=context).__aenter__()
            assert gauges(manager)["subscriptions"] == 3
            # Others: another user, the same one of another tenant, anonymous ones by connection, nobody in particular.
            for payload in (someone(2, "a"), someone(1, "b"), someone(), someone(), someone(None, "a")):
                other = await stack.enter_async_context(server.acknowledged(payload=payload))
                for operation in ("1", "2", "3"):
                    await other.subscribe(operation, TICK)
                assert await limited(other, "4") == reached
            for _ in range(5):
                await entered(stack, manager.subscribe(TICK))
            # Each of those that end makes room for exactly one.
            await stream.aclose()
            await one_client.subscribe("2", TICK)
            assert await limited(two, "2") == reached
            await two.complete("1")
            await two.subscribe("3", TICK)
            assert await limited(one_client, "3") == reached
            one_client.abort()
            await until(lambda: gauges(manager)["subscriptions"] == 1 + 5 * 3 + 5)
            for operation in ("4", "5"):
                await two.subscribe(operation, TICK)
            assert await limited(two, "6") == reached


async def test_a_tenants_subscriptions_are_counted_over_its_users():
    reached = exceeded("max_subscriptions_per_tenant")
    limits = Limits(max_subscriptions_per_tenant=2)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(server.acknowledged(payload=payload))
                for payload in (someone(1, "a"), someone(2, "a"), someone(None, "a"), someone(1, "b"), someone(1))
            ]
            first, second, third, *others = clients
            await first.subscribe("1", TICK)
            # Without a user, too: it is the tenant that is counted.
            stream = await entered(stack, manager.subscribe(TICK, context=SecurityContext(tenant_id="a")))
            for client in (first, second, third):
                assert await limited(client, "2") == reached
            with pytest.raises(LimitExceeded, match="max_subscriptions_per_tenant"):
                await manager.subscribe(TICK, context=SecurityContext(9, "a")).__aenter__()
            for operation in ("1", "2"):
                await others[0].subscribe(operation, TICK)
            for operation in ("1", "2", "3"):
                await others[1].subscribe(operation, TICK)
            await stream.aclose()
            await third.subscribe("3", TICK)
            assert await limited(second, "3") == reached


async def test_in_process_nobody_in_particular_is_neither_counted_nor_rated():
    limits = Limits(max_subscriptions_per_user=1, subscribes_per_second=ONCE, burst=1, events_per_second_per_user=ONCE)
    manager = SubscriptionManager(Schema(subscriptions=[tick]), limits=limits)
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = [await entered(stack, manager.subscribe(TICK)) for _ in range(10)]
        for n in range(10):
            await publish_tick(manager, "a", n)
        for stream in streams:
            assert await take(stream, 10) == [{"data": {"tick": {"n": n}}} for n in range(10)]
        # Somebody is.
        await entered(stack, manager.subscribe(TICK, context=SecurityContext(1)))
        with pytest.raises(LimitExceeded):
            await manager.subscribe(TICK, context=SecurityContext(1)).__aenter__()
        assert dropped(manager) == 0


@pytest.mark.parametrize("limit", ["max_subscriptions_per_user", "max_subscriptions_per_tenant"])
async def test_a_subscribe_that_fails_holds_no_place(limit):
    """Whatever it fails by, and however it is ended."""
    ending = asyncio.Event()

    def fail() -> int:
        raise GraphQLError("no")

    @subscription
    async def finite(info: Info) -> AsyncIterator[int]:
        await ending.wait()
        yield 1

    @subscription
    async def failing(info: Info) -> AsyncIterator[int]:
        await ending.wait()
        yield fail()

    manager = SubscriptionManager(Schema(subscriptions=[tick, finite, failing]), limits=bounded(**{limit: 1}))
    user = someone(1, "a")
    async with served(manager, auth_handler=authenticate) as (_, server), server.acknowledged(payload=user) as client:
        for _ in range(3):
            for query in ("subscription {", "subscription { nobody }", "{ _empty }"):
                assert (await limited(client, "1", query))["extensions"]["code"] != "LIMIT_EXCEEDED"
            await client.ask("1", "{ __typename }")
            await client.expect(next_frame("1", {"__typename": "Query"}), {"id": "1", "type": "complete"})
            ending.clear()
            await client.subscribe("1", "subscription { finite }")
            assert (await limited(client, "2"))["extensions"]["code"] == "LIMIT_EXCEEDED"
            ending.set()
            await client.expect(next_frame("1", {"finite": 1}), {"id": "1", "type": "complete"})
            ending.clear()
            await client.subscribe("1", "subscription { failing }")
            assert (await limited(client, "2"))["extensions"]["code"] == "LIMIT_EXCEEDED"
            ending.set()
            assert (await client.message())["type"] == "error"
            async with manager.subscribe(TICK, context=SecurityContext(1, "a")) as stream:
                assert (await limited(client, "2"))["extensions"]["code"] == "LIMIT_EXCEEDED"
                assert await manager.complete_subscription(stream.id)
                assert [message async for message in stream] == []
            with pytest.raises(GraphQLRequestError):
                await manager.subscribe("subscription { nobody }", context=SecurityContext(1, "a")).__aenter__()
        await client.subscribe("1", TICK)
        assert (await limited(client, "2"))["extensions"]["code"] == "LIMIT_EXCEEDED"


# ---- subscribes a second ----

RATED = exceeded("subscribes_per_second", "RATE_LIMITED")


async def test_a_burst_of_subscribes_is_accepted_and_no_more_over_all_connections_of_a_user():
    limits = Limits(subscribes_per_second=ONCE, burst=4)
    async with ticking(auth_handler=authenticate, limits=limits) as (manager, server):
        async with (
            server.acknowledged(payload=someone(1, "a")) as one_client,
            server.acknowledged(payload=someone("1", "a")) as two,
            server.acknowledged(payload=someone(1, "b")) as elsewhere,
            server.acknowledged() as anonymous,
            server.acknowledged() as other_anonymous,
        ):
            await one_client.subscribe("1", TICK)
            await two.subscribe("1", TICK)
            # One that is wrong counts, too, and what was completed is not given back.
            assert (await limited(two, "2", "subscription { nobody }"))["extensions"]["code"] != "RATE_LIMITED"
            await one_client.complete("1")
            context = SecurityContext(1, "a")
            async with manager.subscribe(TICK, context=context):
                pass
            parses = manager._core.parses()
            for n in range(20):
                for client in (one_client, two):
                    # None of these was ever seen.
                    assert await limited(client, f"x{n}", f"subscription {{ tick(of: {n}) {{ n }} }} {{") == RATED
            with pytest.raises(LimitExceeded, match="subscribes_per_second"):
                await manager.subscribe("subscription { what }", context=context).__aenter__()
            assert manager._core.parses() == parses
            for client in (elsewhere, anonymous, other_anonymous):
                for n in range(4):
                    await client.subscribe(str(n), TICK)
                assert await limited(client, "4") == RATED
            # What is live is not touched.
            await manager.publish_event("tick", "ticks:a", {"n": 1}, tenant_id="a")
            await two.expect(next_frame("1", {"tick": {"n": 1}}))


async def test_a_new_connection_does_not_bring_a_new_burst():
    limits = Limits(subscribes_per_second=ONCE, burst=2)
    async with ticking(auth_handler=authenticate, limits=limits) as (_, server):
        async with server.acknowledged(payload=someone(1)) as client:
            for n in range(2):
                await client.subscribe(str(n), TICK)
        async with server.acknowledged(payload=someone(1)) as client:
            assert await limited(client, "1") == RATED


async def test_subscribes_are_refilled_evenly():
    rate, burst = 5.0, 3
    manager = SubscriptionManager(Schema(subscriptions=[tick]), limits=Limits(subscribes_per_second=rate, burst=burst))
    accepted: list[float] = []
    async with manager:
        began = time.monotonic()
        while len(accepted) < burst + 4:
            try:
                async with manager.subscribe(TICK, context=SecurityContext(1)):
                    accepted.append(time.monotonic() - began)
            except LimitExceeded:
                assert len(accepted) >= burst
            assert time.monotonic() - began < 30
            await asyncio.sleep(0.01)
    # After the burst the nth has to wait for its own share of time.
    for extra, at in enumerate(accepted[burst:], 1):
        assert at >= (extra - 0.1) / rate


# ---- events a second ----


class Fields:
    """The same events by passthrough, by an async and by a sync function, and what the functions were called with."""

    def __init__(self, **options: Any) -> None:
        self.called: list[int] = []
        self.go = threading.Event()
        self.go.set()

        @subscription(channel="e", passthrough=True, **options)
        def passed() -> JSON:
            raise NotImplementedError

        @subscription(channel="e", **options)
        async def awaited(event: Event) -> JSON:
            self.called.append(event.data["n"])
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            return event.data

        @subscription(channel="e", **options)
        def threaded(event: Event) -> JSON:
            self.called.append(event.data["n"])
            assert self.go.wait(20)
            return event.data

        @subscription(channel="e", **options)
        async def informed(event: Event, info: Info) -> JSON:
            self.called.append(event.data["n"])
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            return event.data

        self.functions: list[Any] = [passed, awaited, threaded, informed]

    def manager(self, **limits: Any) -> SubscriptionManager:
        return SubscriptionManager(Schema(subscriptions=self.functions), limits=Limits(**limits))


KINDS = ["passed", "awaited", "threaded", "informed"]


async def publish(manager: SubscriptionManager, *numbers: int) -> None:
    """In one breath: no time for a rate to give anything back."""
    await manager.publish_events([Event("x", "e", {"n": n}) for n in numbers])


def payloads(field: str, *numbers: int) -> list[dict[str, Any]]:
    return [{"data": {field: {"n": n}}} for n in numbers]


async def told(stream: Any, count: int) -> tuple[list[int], int]:
    """The numbers of so many messages, and how many they say were lost."""
    messages = await take(stream, count)
    numbers = [value["n"] for message in messages for value in message["data"].values()]
    return numbers, sum(message.get("extensions", {}).get("dropped", 0) for message in messages)


@pytest.mark.parametrize("field", KINDS)
@pytest.mark.parametrize("by", ["subscription", "user", "field"])
async def test_n_events_come_at_once_and_the_rest_is_dropped_counted_and_told(by, field):
    fields = Fields(**({"events_per_second": 2} if by == "field" else {}))
    limits: dict[str, Any] = {"subscription": {"events_per_second_per_subscription": 2}}
    limits |= {"user": {"events_per_second_per_user": 2}, "field": {"events_per_second_per_subscription": 100}}
    manager = fields.manager(**limits[by])
    async with manager, manager.subscribe(f"subscription {{ {field} }}", context=SecurityContext(1)) as stream:
        await publish(manager, 1, 2, 3, 4, 5)
        # The next that the reader takes tells what was lost meanwhile.
        first, second = payloads(field, 1, 2)
        assert await take(stream, 2) == [{**first, "extensions": {"dropped": 3}}, second]
        assert dropped(manager) == 3
        # Two a second: one comes back after half of one.
        for n in (6, 7):
            await asyncio.sleep(0.7)
            await publish(manager, n)
            assert [await one(stream)] == payloads(field, n)
        assert fields.called == ([] if field == "passed" else [1, 2, 6, 7])
        assert dropped(manager) == 3
        assert gauges(manager)["subscriptions"] == 1


async def test_exactly_the_rate_is_no_loss():
    fields = Fields(events_per_second=5)
    manager = fields.manager()
    async with manager, manager.subscribe("subscription { passed }") as stream:
        await publish(manager, 1, 2, 3, 4, 5)
        assert await take(stream, 5) == payloads("passed", 1, 2, 3, 4, 5)
        assert dropped(manager) == 0


async def test_a_rate_below_one_lets_one_come_at_once():
    manager = Fields(events_per_second=ONCE).manager()
    async with manager, manager.subscribe("subscription { passed }") as stream:
        await publish(manager, 1, 2)
        assert await told(stream, 1) == ([1], 1)
        assert dropped(manager) == 1


async def test_events_are_refilled_evenly():
    rate = 5
    manager = Fields(events_per_second=rate).manager()
    async with manager, manager.subscribe("subscription { passed }") as stream:
        began = time.monotonic()
        lost = sent = 0
        while sent - lost < rate + 4:
            await publish(manager, sent)
            sent += 1
            lost = dropped(manager)
            elapsed = time.monotonic() - began
            assert sent - lost <= rate + elapsed * rate + 1
            assert elapsed < 30
            await asyncio.sleep(0.01)
        got = await take(stream, sent - lost)
        assert sum(payload.get("extensions", {}).get("dropped", 0) for payload in got) == lost


async def test_a_field_may_have_more_or_less_than_the_limit_and_others_have_the_limit():
    @subscription(channel="e", passthrough=True, events_per_second=3)
    def more() -> JSON:
        raise NotImplementedError

    @subscription(channel="e", passthrough=True, events_per_second=ONCE)
    def less() -> JSON:
        raise NotImplementedError

    @subscription(channel="e", passthrough=True)
    def default() -> JSON:
        raise NotImplementedError

    limits = Limits(events_per_second_per_subscription=2)
    manager = SubscriptionManager(Schema(subscriptions=[more, less, default]), limits=limits)
    async with manager, contextlib.AsyncExitStack() as stack:
        most = {"more": 3, "less": 1, "default": 2}
        streams = {
            name: await entered(stack, manager.subscribe(f"subscription {{ {name} }}", context=SecurityContext(1)))
            for name in most
        }
        await publish(manager, 1, 2, 3, 4)
        for name, count in most.items():
            assert await told(streams[name], count) == ([*range(1, count + 1)], 4 - count)
        assert dropped(manager) == 1 + 3 + 2


async def test_a_users_events_are_counted_over_subscriptions_and_connections():
    manager = SubscriptionManager(
        Schema(subscriptions=[tick, *Fields().functions]), limits=Limits(events_per_second_per_user=3)
    )
    async with served(manager, auth_handler=authenticate) as (_, server):
        async with (
            server.acknowledged(payload=someone(1, "a")) as one_client,
            server.acknowledged(payload=someone("1", "a")) as two,
            server.acknowledged(payload=someone(2, "a")) as other,
            server.acknowledged(payload=someone(None, "a")) as anonymous,
            manager.subscribe("subscription { passed }", context=SecurityContext(1, "a")) as stream,
            manager.subscribe("subscription { passed }", context=SecurityContext(tenant_id="a")) as nobody,
        ):
            for client in (one_client, two, other, anonymous):
                await client.subscribe("1", "subscription { passed }")
            await manager.publish_events([Event("x", "e", {"n": n}, tenant_id="a") for n in (1, 2)])
            # Two events for each of three subscriptions of one user: three go through, three do not.
            assert dropped(manager) == 3
            for client in (other, anonymous):
                await client.expect(*(next_frame("1", {"passed": {"n": n}}) for n in (1, 2)))
            assert await take(nobody, 2) == payloads("passed", 1, 2)
            assert manager.get_metrics()["queued_messages"] + manager.get_metrics()["events_delivered"] == 9
            # The same one of another tenant is another one.
            context = SecurityContext(1, "b")
            async with manager.subscribe("subscription { passed }", context=context) as elsewhere:
                await manager.publish_events([Event("x", "e", {"n": n}, tenant_id="b") for n in (1, 2, 3)])
                assert await take(elsewhere, 3) == payloads("passed", 1, 2, 3)
            assert dropped(manager) == 3
            await stream.aclose()


async def test_what_a_subscriptions_own_rate_refuses_does_not_count_for_the_user():
    fields = Fields()

    @subscription(channel="e", passthrough=True, events_per_second=ONCE)
    def narrow() -> JSON:
        raise NotImplementedError

    schema = Schema(subscriptions=[narrow, *fields.functions])
    manager = SubscriptionManager(schema, limits=Limits(events_per_second_per_user=4))
    context = SecurityContext(1)
    async with manager, manager.subscribe("subscription { narrow }", context=context) as stream:
        await publish(manager, 1, 2, 3, 4, 5, 6)
        async with manager.subscribe("subscription { passed }", context=context) as other:
            # One of four was used.
            await publish(manager, 7, 8, 9, 10)
            assert await told(other, 3) == ([7, 8, 9], 1)
        assert await told(stream, 1) == ([1], 9)
        assert dropped(manager) == 5 + 4 + 1


@pytest.mark.parametrize("field", ["passed", "awaited", "threaded"])
async def test_of_those_who_share_a_call_nobody_gets_what_his_own_rate_refused(field):
    """They come one after the other, so that each has another event left when all are in flight at once."""
    fields = Fields(events_per_second=2)
    manager = fields.manager()
    query = f"subscription {{ {field} }}"
    fields.go.clear()
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = [await entered(stack, manager.subscribe(query)) for _ in range(2)]
        await publish(manager, 1, 2)  # the first two have had theirs
        streams.append(await entered(stack, manager.subscribe(query)))
        await publish(manager, 3)
        streams.append(await entered(stack, manager.subscribe(query)))
        await publish(manager, 4, 5)
        # Nobody is left for these: the function is not called.
        await publish(manager, 6, 7)
        assert dropped(manager) == 2 * 5 + 3 + 2
        if field != "passed":
            await until(lambda: len(fields.called) == 5)
        fields.go.set()
        expected = [([1, 2], 5), ([1, 2], 5), ([3, 4], 3), ([4, 5], 2)]
        for stream, given in zip(streams, expected, strict=True):
            assert await told(stream, 2) == given
        await asyncio.sleep(0.7)
        await publish(manager, 8)
        for stream in streams:
            assert [await one(stream)] == payloads(field, 8)
        assert sorted(fields.called) == ([] if field == "passed" else [1, 2, 3, 4, 5, 8])


@pytest.mark.parametrize("field", ["passed", "awaited", "threaded"])
async def test_those_without_a_limit_get_everything_beside_one_who_has_one(field):
    fields = Fields()
    manager = fields.manager(events_per_second_per_user=2)
    query = f"subscription {{ {field} }}"
    fields.go.clear()
    async with (
        manager,
        manager.subscribe(query, context=SecurityContext(1)) as first,
        manager.subscribe(query) as unlimited,
        manager.subscribe(query, context=SecurityContext(2)) as second,
    ):
        await publish(manager, *range(1, 21))
        fields.go.set()
        assert await take(unlimited, 20) == payloads(field, *range(1, 21))
        for stream in (first, second):
            assert await told(stream, 2) == ([1, 2], 18)
        assert dropped(manager) == 2 * 18
        # The next that everybody hears of.
        await asyncio.sleep(0.7)
        await publish(manager, 21)
        for stream in (unlimited, first, second):
            assert [await one(stream)] == payloads(field, 21)


async def test_who_comes_while_events_are_in_flight_and_who_leaves_confuse_nobody():
    fields = Fields(events_per_second=3)
    manager = fields.manager()
    fields.go.clear()
    query = "subscription { awaited }"
    async with manager, contextlib.AsyncExitStack() as stack:
        first, leaving, last = [await entered(stack, manager.subscribe(query)) for _ in range(3)]
        await publish(manager, 1, 2, 3, 4)
        await leaving.aclose()
        late = await entered(stack, manager.subscribe(query))
        await publish(manager, 5)
        fields.go.set()
        for stream, numbers, lost in ((first, [1, 2, 3], 2), (last, [1, 2, 3], 2), (late, [5], 0)):
            assert await told(stream, len(numbers)) == (numbers, lost)
        assert dropped(manager) == 3 + 2


async def test_over_a_socket_it_is_told_alike_and_the_connection_stays():
    async with ticking(limits=Limits(events_per_second_per_subscription=2)) as (manager, server):
        async with server.acknowledged() as client:
            for operation in ("1", "2"):
                await client.subscribe(operation, TICK)
            await manager.publish_events([Event("tick", "ticks:a", {"n": n}) for n in (1, 2, 3)])
            lost = {"extensions": {"dropped": 1}}
            await client.expect(*(next_frame(operation, {"tick": {"n": 1}}, **lost) for operation in ("1", "2")))
            await client.expect(*(next_frame(operation, {"tick": {"n": 2}}) for operation in ("1", "2")))
            await client.sync()


async def test_what_is_refused_does_not_fill_the_queues_nor_close_the_reader():
    """It is refused before it is queued: `overflow` is not asked."""
    limits = Limits(queue_messages=2, events_per_second_per_subscription=2)
    async with ticking(limits=limits) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", TICK)
        await manager.publish_events([Event("tick", "ticks:a", {"n": n}) for n in range(100)])
        await client.expect(next_frame("1", {"tick": {"n": 0}}, extensions={"dropped": 98}))
        await client.expect(next_frame("1", {"tick": {"n": 1}}))
        assert manager.get_metrics()["events_dropped"] == {
            "rate": 98,
            **dict.fromkeys(("overflow", "resolver", "result", "drain"), 0),
        }
        await client.sync()


async def test_a_generator_makes_its_own_events_and_is_not_rated():
    @subscription
    async def counting(info: Info) -> AsyncIterator[int]:
        for n in range(20):
            yield n

    limits = Limits(events_per_second_per_subscription=ONCE, events_per_second_per_user=ONCE)
    manager = SubscriptionManager(Schema(subscriptions=[counting]), limits=limits)
    async with manager, manager.subscribe("subscription { counting }", context=SecurityContext(1)) as stream:
        assert await take(stream, 20) == [{"data": {"counting": n}} for n in range(20)]
        with pytest.raises(StopAsyncIteration):
            await soon(anext(stream))
        assert dropped(manager) == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), True, "1"])
def test_a_fields_rate_is_checked_where_it_is_declared(rate):
    with pytest.raises((TypeError, ValueError), match="events_per_second"):

        @subscription(channel="e", passthrough=True, events_per_second=rate)
        def field() -> JSON:
            raise NotImplementedError


def test_a_huge_rate_is_as_good_as_none():
    @subscription(channel="e", passthrough=True, events_per_second=1e300)
    def field() -> JSON:
        raise NotImplementedError

    async def use() -> None:
        limits = Limits(subscribes_per_second=1e300, burst=2**40, events_per_second_per_user=5e-324)
        manager = SubscriptionManager(Schema(subscriptions=[field]), limits=limits)
        async with manager, manager.subscribe("subscription { field }", context=SecurityContext(1)) as stream:
            await publish(manager, 1, 2)
            assert await told(stream, 1) == ([1], 1)
            assert dropped(manager) == 1

    asyncio.run(use())
