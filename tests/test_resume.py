"""Memory history: tokens, what is read back, the seam to live events, and tokens that cannot be honoured."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    Event,
    Forbidden,
    GraphQLRequestError,
    HistoryLost,
    Limits,
    SecurityContext,
    argument,
    data,
    requires,
    subscription,
    viewer,
)

from .buses import token
from .support import TICKS, Tick, entered, manager_of, one, rest, soon, take, ticks


@subscription(channel="c", where=data["n"] >= argument("least"))
async def shared(event: Event, least: int = 0) -> int:
    return int(event.data["n"])


SHARED = "subscription { shared }"


async def publish(manager: Any, *numbers: int, channel: str = "c", **more: Any) -> None:
    for n in numbers:
        await manager.publish_event("x", channel, {"n": n}, **more)


def numbers(payloads: list[dict[str, Any]]) -> list[int]:
    return [
        payload["data"]["ticks"]["n"] if "ticks" in payload["data"] else payload["data"]["shared"]
        for payload in payloads
    ]


async def test_without_asking_there_is_no_token():
    manager = manager_of(ticks, history=10)
    async with manager:
        for resume in (None, False):
            async with manager.subscribe(TICKS, resume=resume) as stream:
                await publish(manager, 1)
                assert await one(stream) == {"data": {"ticks": {"n": 1}}}


@pytest.mark.parametrize("query", [TICKS, SHARED])
async def test_every_next_carries_a_token_from_which_the_rest_is_given(query):
    manager = manager_of(ticks, shared, history=100)
    async with manager:
        async with manager.subscribe(query, resume=True) as stream:
            await publish(manager, *range(10))
            payloads = await take(stream, 10)
        assert numbers(payloads) == list(range(10))
        tokens = [token(payload) for payload in payloads]
        assert len(set(tokens)) == 10
        for n, after in enumerate(tokens):
            async with manager.subscribe(query, resume=after) as stream:
                again = await take(stream, 9 - n)
                assert numbers(again) == list(range(n + 1, 10))
                assert [token(payload) for payload in again] == tokens[n + 1 :]
                await manager.publish_event("x", "c", {"n": 99})
                live = await one(stream)
                assert numbers([live]) == [99]
                assert token(live) not in tokens


async def test_a_token_of_either_framing_resumes():
    manager = manager_of(ticks, history=100)
    async with manager:
        async with manager.subscribe(TICKS, framing="result", resume=True) as stream:
            await publish(manager, 1, 2)
            message = json.loads(await soon(anext(stream)))
            assert message["data"] == {"ticks": {"n": 1}}
        async with manager.subscribe(TICKS, framing="result", resume=token(message)) as stream:
            assert json.loads(await soon(anext(stream)))["data"] == {"ticks": {"n": 2}}


async def test_events_of_other_channels_neither_disturb_nor_are_given():
    manager = manager_of(ticks, history=3)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 1, 2)
            after = token(await one(stream))
        await publish(manager, *range(100), channel="busy")
        async with manager.subscribe(TICKS, resume=after) as stream:
            await publish(manager, 3)
            assert numbers(await take(stream, 2)) == [2, 3]


async def test_a_token_works_for_a_channel_that_did_not_exist():
    @subscription(channel="new:{name}", passthrough=True, name="ticks")
    def by_name(name: str) -> Tick:
        raise NotImplementedError

    manager = manager_of(shared, by_name, history=10)
    async with manager:
        async with manager.subscribe(SHARED, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        await publish(manager, 1, 2, channel="new:a")
        async with manager.subscribe('subscription { ticks(name: "a") { n } }', resume=after) as stream:
            assert numbers(await take(stream, 2)) == [1, 2]
        async with manager.subscribe('subscription { ticks(name: "b") { n } }', resume=after) as stream:
            await publish(manager, 3, channel="new:b")
            assert numbers(await take(stream, 1)) == [3]


async def test_what_is_read_back_is_judged_by_arguments_tenant_and_rows_of_today():
    @subscription(channel="c", passthrough=True, rows=data["owner"] == viewer("user_id"), event_types=["x"])
    def mine() -> Tick:
        raise NotImplementedError

    manager = manager_of(shared, mine, history=100)
    async with manager:
        async with manager.subscribe(SHARED, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        for n, (kind, owner, tenant) in enumerate(
            [("x", 1, None), ("y", 1, None), ("x", 2, None), ("x", 1, "t"), ("x", None, None), ("x", 1, None)]
        ):
            await manager.publish_event(kind, "c", {"n": n, "owner": owner}, tenant_id=tenant)
        query = "subscription { mine { n } }"
        async with manager.subscribe(query, context=SecurityContext(user_id=1), resume=after) as stream:
            assert [payload["data"]["mine"]["n"] for payload in await take(stream, 2)] == [0, 5]
        async with manager.subscribe(query, context=SecurityContext(user_id=1, tenant_id="t"), resume=after) as stream:
            assert (await one(stream))["data"] == {"mine": {"n": 3}}
        async with manager.subscribe("subscription { shared(least: 4) }", resume=after) as stream:
            assert numbers(await take(stream, 2)) == [4, 5]


async def test_rights_are_checked_when_resuming():
    @subscription(channel="c", passthrough=True, requires=requires("see"))
    def guarded() -> Tick:
        raise NotImplementedError

    manager = manager_of(guarded, history=10)
    query = "subscription { guarded { n } }"
    async with manager:
        async with manager.subscribe(query, resume=True, context=SecurityContext(permissions=["see"])) as stream:
            await publish(manager, 1, 2)
            after = token(await one(stream))
        with pytest.raises(Forbidden):
            async with manager.subscribe(query, resume=after):
                pass


# ---- the seam ----


@pytest.mark.parametrize("query", [TICKS, SHARED])
async def test_each_event_once_while_publishing_goes_on(query):
    # What comes while they read is not held back for them: the queue takes it all.
    manager = manager_of(ticks, shared, history=10_000, limits=Limits(queue_messages=10_000))
    total = 1500
    async with manager:
        async with manager.subscribe(query, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        published = asyncio.Event()

        def flood() -> None:
            for n in range(1, total):
                manager.publish_event_sync("x", "c", {"n": n})

        flooding = asyncio.create_task(asyncio.to_thread(flood))

        async def resume() -> list[int]:
            async with manager.subscribe(query, resume=after) as stream:
                return numbers(await take(stream, total - 1))

        got = await asyncio.gather(*(resume() for _ in range(3)))
        await flooding
        published.set()
    assert got == [list(range(1, total))] * 3


async def test_resuming_again_and_again_gives_each_event_once():
    manager = manager_of(ticks, history=10_000)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        publishing = asyncio.create_task(publish(manager, *range(1, 600)))
        got: list[int] = []
        while len(got) < 599:
            async with manager.subscribe(TICKS, resume=after) as stream:
                for _ in range(min(7, 599 - len(got))):
                    payload = await one(stream)
                    after = token(payload)
                    got += numbers([payload])
        await publishing
    assert got == list(range(1, 600))


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest", "latest"])
@pytest.mark.parametrize("query", ["subscription { ticks { n pad } }", SHARED])
async def test_what_is_read_back_never_overflows_a_queue(overflow, query):
    limits = Limits(overflow=overflow, queue_messages=3, queue_bytes=300, connection_queue_bytes=300)
    manager = manager_of(ticks, shared, history=1000, limits=limits)
    async with manager:
        async with manager.subscribe(SHARED, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        for n in range(1, 200):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * (0 if n % 3 else 250)})
        async with manager.subscribe(query, resume=after) as stream:
            for _ in range(50):
                await asyncio.sleep(0)  # it is not read while there is time to read ahead
            payloads = await take(stream, 199)
            assert numbers(payloads) == list(range(1, 200))
            assert all(set(payload["extensions"]) == {"eventId"} for payload in payloads)
            await publish(manager, 200)
            assert numbers([await one(stream)]) == [200]
        assert not any(manager.get_metrics()["events_dropped"].values())


async def test_functions_run_for_what_is_read_back_and_errors_are_told():
    calls: list[int] = []

    @subscription(channel="c")
    async def fragile(event: Event) -> int | None:
        calls.append(event.data["n"])
        if event.data["n"] == 2:
            raise ValueError("a secret")
        return int(event.data["n"])

    manager = manager_of(fragile, history=10)
    query = "subscription { fragile }"
    async with manager:
        async with manager.subscribe(query, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        await publish(manager, 1, 2, 3)
        async with manager.subscribe(query, resume=after) as stream:
            payloads = await take(stream, 3)
        assert [payload["data"] for payload in payloads] == [{"fragile": 1}, {"fragile": None}, {"fragile": 3}]
        assert payloads[1]["errors"][0]["message"] == "Internal server error"
        assert calls == [0, 1, 2, 3]
        assert manager.get_metrics()["resolver_errors"] == 1


async def test_leaving_in_the_middle_of_reading_back_leaves_nothing():
    manager = manager_of(ticks, shared, history=1000)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        await publish(manager, *range(1, 500))
        for query in (TICKS, SHARED):
            async with manager.subscribe(query, resume=after, subscription_id="a") as stream:
                assert numbers(await take(stream, 3)) == [1, 2, 3]
        assert manager.get_metrics()["subscriptions"] == 0
        async with manager.subscribe(TICKS, resume=after, subscription_id="a") as stream:
            assert numbers(await take(stream, 3)) == [1, 2, 3]
            assert await manager.complete_subscription("a")
            left = await rest(stream)
        assert numbers(left) == list(range(4, 4 + len(left)))


async def test_leaving_cancels_the_function_that_is_called_for_what_is_read_back():
    started, cancelled = asyncio.Event(), asyncio.Event()

    @subscription(channel="c")
    async def endless(event: Event) -> int:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0

    async with manager_of(ticks, endless, history=10) as manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 0, 1)
            after = token(await one(stream))
        async with manager.subscribe("subscription { endless }", resume=after):
            await soon(started.wait())
            assert not cancelled.is_set()
        await soon(cancelled.wait())


async def test_the_manager_stops_while_history_is_read():
    manager = manager_of(ticks, shared, history=1000, limits=Limits(drain_timeout=0.05))
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 0)
            after = token(await one(stream))
        await publish(manager, *range(1, 500))
        stream = manager.subscribe(SHARED, resume=after)
        assert numbers(await take(stream, 1)) == [1]
    assert await soon(_all(stream)) is not None


async def _all(stream: Any) -> list[bytes]:
    return [message async for message in stream]


# ---- tokens that cannot be honoured ----


async def test_a_token_whose_history_is_gone_is_lost():
    manager = manager_of(ticks, history=3)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, *range(5))
            tokens = [token(payload) for payload in await take(stream, 5)]
        # Three are kept: 2, 3 and 4.
        with pytest.raises(HistoryLost):
            async with manager.subscribe(TICKS, resume=tokens[0]) as stream:
                await one(stream)
        for n in (1, 2, 3):
            async with manager.subscribe(TICKS, resume=tokens[n]) as stream:
                assert numbers(await take(stream, 4 - n)) == list(range(n + 1, 5))
        assert manager.get_metrics()["subscriptions"] == 0


async def test_the_history_that_goes_while_it_is_read_is_told():
    manager = manager_of(ticks, history=200)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, *range(200))
            after = token(await one(stream))
        async with manager.subscribe(TICKS, resume=after) as stream:
            assert numbers(await take(stream, 1)) == [1]
            await publish(manager, *range(200, 1000))
            got: list[int] = []
            with pytest.raises(HistoryLost):  # noqa: PT012  # which message is the last is not said
                while True:
                    got += numbers(await take(stream, 1))
            assert got == list(range(2, 2 + len(got)))
            assert got[-1] < 999


@pytest.mark.parametrize(
    "garbage", ["", "x", "0", "-1", "1-1-1", "ÿ", "0" * 10_000, "\U0001f600", "null", '{"epoch":1}', " ", "1.5"]
)
async def test_a_token_that_cannot_be_read_is_lost(garbage):
    manager = manager_of(ticks, history=10)
    async with manager:
        await publish(manager, 1)
        with pytest.raises(HistoryLost):
            async with manager.subscribe(TICKS, resume=garbage):
                pass
        assert manager.get_metrics()["subscriptions"] == 0


async def test_a_token_that_was_tampered_with_is_lost():
    manager = manager_of(ticks, history=10)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 1)
            good = token(await one(stream))
        for bad in (good + "0", good + " ", " " + good, good[1:], "f" + good, good.swapcase() + "!"):
            with pytest.raises(HistoryLost):
                async with manager.subscribe(TICKS, resume=bad):
                    pass


async def test_a_token_of_another_bus_is_lost():
    tokens = []
    managers = [manager_of(ticks, history=10) for _ in range(2)]
    for manager in managers:
        async with manager, manager.subscribe(TICKS, resume=True) as stream:
            await publish(manager, 1, 2)
            tokens.append(token(await one(stream)))
    for manager, foreign in zip(managers, reversed(tokens), strict=True):
        async with manager:
            with pytest.raises(HistoryLost):
                async with manager.subscribe(TICKS, resume=foreign):
                    pass


async def test_a_token_outlives_a_stop_of_its_manager_or_is_lost_loudly():
    manager = manager_of(ticks, history=10)
    async with manager, manager.subscribe(TICKS, resume=True) as stream:
        await publish(manager, 1, 2)
        after = token(await one(stream))
    async with manager:
        try:
            async with manager.subscribe(TICKS, resume=after) as stream:
                await publish(manager, 3)
                assert numbers(await take(stream, 2)) == [2, 3]
        except HistoryLost:
            pass


async def test_without_history_asking_is_refused():
    manager = manager_of(ticks)
    async with manager:
        for resume in (True, "x"):
            with pytest.raises(GraphQLRequestError) as raised:
                async with manager.subscribe(TICKS, resume=resume):
                    pass
            assert raised.value.errors[0]["extensions"] == {"code": "RESUME_UNAVAILABLE"}


@pytest.mark.parametrize("resume", [1, 1.5, b"x", {}, []])
async def test_something_else_raises(resume):
    manager = manager_of(ticks, history=1)
    async with manager:
        with pytest.raises(TypeError):
            async with manager.subscribe(TICKS, resume=resume):
                pass


async def test_an_event_for_all_tenants_that_is_read_back_is_one_call_for_each_tenant():
    calls: list[int] = []

    @subscription(channel="c")
    async def counted(event: Event) -> int:
        calls.append(event.data["n"])
        return len(calls)

    manager = manager_of(counted, history=10)
    query = "subscription { counted }"
    async with manager:
        async with manager.subscribe(query, context=SecurityContext(tenant_id="a"), resume=True) as stream:
            await publish(manager, 0, tenant_id=ALL_TENANTS)
            after = token(await one(stream))
        await publish(manager, 1, tenant_id=ALL_TENANTS)
        calls.clear()
        tenants = ["a", "b", None, "a", "b"]
        async with contextlib.AsyncExitStack() as stack:
            streams = [
                await entered(
                    stack,
                    manager.subscribe(query, context=SecurityContext(tenant_id=tenant_id), resume=after),
                )
                for tenant_id in tenants
            ]
            got = [(await one(stream))["data"]["counted"] for stream in streams]
    assert calls == [1, 1, 1]
    results = dict(zip(tenants, got, strict=True))
    assert sorted(results.values()) == [1, 2, 3]
    assert got == [results[tenant_id] for tenant_id in tenants]
