"""Async generators: one a subscription, pulled at the reader's pace, closed with it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from fraiseql_subs import (
    Forbidden,
    GraphQLError,
    GraphQLRequestError,
    Info,
    Limits,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    data,
    requires,
    subscription,
)

from .support import manager_of, one, rest, soon, take


@dataclass
class Item:
    n: int
    name: str | None = None


@subscription
async def numbers(info: Info, to: int = 3) -> AsyncIterator[int]:
    for n in range(to):
        yield n


async def test_it_yields_and_completes():
    manager = manager_of(numbers)
    async with manager, manager.subscribe("subscription { numbers(to: 4) }", subscription_id="a") as stream:
        assert [json.loads(message) async for message in stream] == [
            {"id": "a", "type": "next", "payload": {"data": {"numbers": n}}} for n in range(4)
        ]
        assert manager.get_metrics()["subscriptions"] == 0
        assert await manager.complete_subscription("a") is False


async def test_it_knows_its_own_subscription():
    seen: list[dict[str, Any]] = []

    @subscription
    async def watch(info: Info, a: int, b: int = 2) -> AsyncGenerator[Item, None]:
        seen.append(
            {
                name: getattr(info, name)
                for name in ("field_name", "selected_fields", "operation_name", "variables", "connection_id")
            }
        )
        seen.append({"user": info.viewer.user_id, "expires_at": info.viewer.expires_at, "a": a, "b": b})
        yield Item(a)

    manager = manager_of(watch)
    query = "subscription Mine($a: Int!, $c: Int = 5) { watch(a: $a, b: $c) { n } }"
    async with (
        manager,
        manager.subscribe(
            query, variables={"a": 1}, context=SecurityContext(user_id=9), connection_id="label"
        ) as stream,
        manager.subscribe(query, variables={"a": 1, "c": 6}, operation_name="Mine") as other,
    ):
        assert await rest(stream) == [{"data": {"watch": {"n": 1}}}]
        assert await rest(other) == [{"data": {"watch": {"n": 1}}}]
    assert seen[0] == {
        "field_name": "watch",
        "selected_fields": ("n",),
        "operation_name": "Mine",
        "variables": {"a": 1, "c": 5},
        "connection_id": "label",
    }
    assert seen[1] == {"user": 9, "expires_at": None, "a": 1, "b": 5}
    assert (seen[2]["operation_name"], seen[2]["variables"], seen[2]["connection_id"]) == (
        "Mine",
        {"a": 1, "c": 6},
        None,
    )


async def test_there_is_one_for_each_subscription():
    started: list[int] = []

    @subscription
    async def mine() -> AsyncIterator[int]:
        started.append(1)
        yield len(started)

    manager = manager_of(mine)
    async with (
        manager,
        manager.subscribe("subscription { mine }") as first,
        manager.subscribe("subscription { mine }") as second,
    ):
        got = [await rest(first), await rest(second)]
    assert sorted(payload["data"]["mine"] for [payload] in got) == [1, 2]


async def test_raising_ends_it_with_its_error(caplog):
    @subscription
    async def fails(info: Info, how: str) -> AsyncIterator[int]:
        yield 1
        if how == "told":
            raise GraphQLError("told", extensions={"code": "MINE"})
        raise ZeroDivisionError("a secret")

    manager = manager_of(fails)
    for how, expected in (
        ("told", {"message": "told", "extensions": {"code": "MINE"}}),
        ("masked", {"message": "Internal server error", "extensions": {"code": "INTERNAL_SERVER_ERROR"}}),
    ):
        async with manager, manager.subscribe(f'subscription {{ fails(how: "{how}") }}') as stream:
            assert await one(stream) == {"data": {"fails": 1}}
            with caplog.at_level(logging.ERROR), pytest.raises(GraphQLRequestError) as raised:
                await soon(anext(stream))
            [error] = raised.value.errors
            assert error.items() >= expected.items()
            assert await rest(stream) == []
            assert manager.get_metrics()["subscriptions"] == 0
    assert manager.get_metrics()["resolver_errors"] == 2
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_a_generator_that_is_cancelled_from_inside_ends_too():
    @subscription
    async def cancels() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    manager = manager_of(cancels)
    async with manager, manager.subscribe("subscription { cancels }") as stream:
        assert await one(stream) == {"data": {"cancels": 1}}
        with pytest.raises(GraphQLRequestError):
            await soon(anext(stream))
        assert manager.get_metrics()["subscriptions"] == 0


async def test_it_is_pulled_only_while_its_queue_has_room():
    pulled = 0
    stalled = asyncio.Event()

    @subscription
    async def endless() -> AsyncIterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    manager = manager_of(endless, limits=Limits(queue_messages=5))
    async with manager, manager.subscribe("subscription { endless }") as stream:
        for _ in range(200):
            await asyncio.sleep(0)
        before = pulled
        assert 1 <= before <= 6
        for _ in range(200):
            await asyncio.sleep(0)
        assert pulled == before
        assert await take(stream, 50) == [{"data": {"endless": n}} for n in range(1, 51)]
        assert not any(manager.get_metrics()["events_dropped"].values())
    stalled.set()


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest", "latest"])
async def test_a_fast_one_loses_nothing_to_a_slow_reader(overflow):
    @subscription(overflow=overflow)
    async def many() -> AsyncIterator[str]:
        for n in range(300):
            yield str(n) * (400 if n % 2 else 10)  # some do not fit beside what waits, nor alone

    manager = manager_of(many, limits=Limits(queue_messages=10, queue_bytes=1000, connection_queue_bytes=900))
    async with manager, manager.subscribe("subscription { many }") as stream:
        got = []
        async for message in stream:
            got.append(json.loads(message)["payload"])
            await asyncio.sleep(0)
    assert got == [{"data": {"many": str(n) * (400 if n % 2 else 10)}} for n in range(300)]


@pytest.mark.parametrize("how", ["aclose", "complete", "break", "drop", "expire"])
async def test_it_is_closed_with_its_subscription(how):
    closed = asyncio.Event()

    @subscription
    async def watched() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            closed.set()

    manager = manager_of(watched)
    async with manager:
        if how == "break":
            async with manager.subscribe("subscription { watched }") as stream:
                async for _ in stream:
                    break
        elif how == "drop":
            stream = manager.subscribe("subscription { watched }")
            assert await one(stream) == {"data": {"watched": 1}}
            del stream
        elif how == "expire":
            from datetime import datetime, timedelta, timezone

            soon_over = SecurityContext(expires_at=datetime.now(timezone.utc) + timedelta(milliseconds=100))
            async with manager.subscribe("subscription { watched }", context=soon_over) as stream:
                assert await one(stream) == {"data": {"watched": 1}}
                with pytest.raises(Forbidden):
                    await soon(anext(stream))
        else:
            stream = manager.subscribe("subscription { watched }", subscription_id="a")
            assert await one(stream) == {"data": {"watched": 1}}
            if how == "aclose":
                await stream.aclose()
            else:
                assert await manager.complete_subscription("a")
            assert await rest(stream) == []
        await soon(closed.wait())
        assert manager.get_metrics()["subscriptions"] == 0


async def test_the_stop_of_the_manager_closes_it():
    closed: list[int] = []

    @subscription
    async def watched() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.Event().wait()
        finally:
            closed.append(1)

    manager = manager_of(watched)
    streams = []
    async with manager:
        for _ in range(3):
            stream = manager.subscribe("subscription { watched }")
            assert await one(stream) == {"data": {"watched": 1}}
            streams.append(stream)
    assert closed == [1, 1, 1]
    for stream in streams:
        assert await rest(stream) == []


async def test_one_whose_subscription_ends_before_it_started_is_never_run_or_closed():
    ran: list[str] = []

    @subscription
    async def watched() -> AsyncIterator[int]:
        ran.append("start")
        try:
            yield 1
        finally:
            ran.append("end")

    manager = manager_of(watched)
    async with manager:
        for _ in range(5):
            async with manager.subscribe("subscription { watched }"):
                pass
        async with manager.subscribe("subscription { watched }") as stream:
            assert await rest(stream) == [{"data": {"watched": 1}}]
    assert ran.count("start") == ran.count("end") >= 1


async def test_errors_in_what_it_yields_are_field_errors():
    class Bad:
        n = 1

        @property
        def name(self) -> str:
            raise GraphQLError("told")

    async def later() -> str:
        return "later"

    @subscription
    async def items() -> AsyncIterator[Item]:
        yield Bad()  # type: ignore[misc]  # as good as an item
        yield {"n": 2, "name": later()}  # type: ignore[misc]  # a mapping is fine
        yield {"n": None}  # type: ignore[misc]  # null where it must not be
        yield Item(4)

    manager = manager_of(items)
    async with manager, manager.subscribe("subscription { items { n name } }") as stream:
        got = await rest(stream)
    assert [payload.get("data") for payload in got] == [
        {"items": {"n": 1, "name": None}},
        {"items": {"n": 2, "name": "later"}},
        None,
        {"items": {"n": 4, "name": None}},
    ]
    assert [[error["path"] for error in payload.get("errors", [])] for payload in got] == [
        [["items", "name"]],
        [],
        [["items", "n"]],
        [],
    ]


async def test_it_has_no_time_out():
    @subscription
    async def slow() -> AsyncIterator[int]:
        await asyncio.sleep(0.15)
        yield 1

    manager = manager_of(slow, limits=Limits(resolver_timeout=0.02))
    async with manager, manager.subscribe("subscription { slow }") as stream:
        assert await rest(stream) == [{"data": {"slow": 1}}]


@pytest.mark.parametrize(
    "options",
    [
        {"channel": "c"},
        {"event_types": ["x"]},
        {"where": data["a"] == 1},
        {"rows": data["a"] == 1},
        {"timeout": 1},
        {"passthrough": True},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_what_cannot_be_asked_of_a_generator_raises_when_declared(options):
    with pytest.raises(SchemaError, match="generator"):

        @subscription(**options)
        async def declared() -> AsyncIterator[int]:
            yield 1


async def test_sources_and_rates_raise_too():
    filters: list[dict[str, Any]] = [{"sources": ["x"]}, {"events_per_second": 1.0}]
    for options in filters:
        with pytest.raises(SchemaError, match="generator"):

            @subscription(**options)
            async def declared() -> AsyncIterator[int]:
                yield 1


async def test_requires_applies():
    @subscription(requires=requires("see"))
    async def guarded() -> AsyncIterator[int]:
        yield 1

    manager = manager_of(guarded)
    async with manager:
        with pytest.raises(Forbidden):
            async with manager.subscribe("subscription { guarded }"):
                pass
        async with manager.subscribe(
            "subscription { guarded }", context=SecurityContext(permissions=["see"])
        ) as stream:
            assert await rest(stream) == [{"data": {"guarded": 1}}]


async def test_one_may_read_another_subscription():
    manager: SubscriptionManager

    @subscription
    async def outer() -> AsyncIterator[int]:
        async with manager.subscribe("subscription { numbers(to: 3) }", framing="result") as inner:
            async for message in inner:
                yield json.loads(message)["data"]["numbers"] * 10

    manager = manager_of(numbers, outer)
    async with manager, manager.subscribe("subscription { outer }") as stream:
        assert await rest(stream) == [{"data": {"outer": n}} for n in (0, 10, 20)]


async def test_it_completes_while_the_queue_is_full():
    manager = manager_of(numbers, limits=Limits(queue_messages=2))
    async with manager, manager.subscribe("subscription { numbers(to: 2) }") as stream:
        for _ in range(100):
            await asyncio.sleep(0)
        assert await rest(stream) == [{"data": {"numbers": n}} for n in range(2)]


async def test_cancelling_the_reader_loses_nothing_that_was_yielded():
    gate = asyncio.Semaphore(0)

    @subscription
    async def gated() -> AsyncIterator[int]:
        for n in range(10):
            await gate.acquire()
            yield n

    manager = manager_of(gated)
    async with manager, manager.subscribe("subscription { gated }") as stream:
        got = []
        for _ in range(10):
            with contextlib.suppress(asyncio.TimeoutError):
                got.append(json.loads(await asyncio.wait_for(anext(stream), 0.001))["payload"])
            gate.release()
        assert got + await rest(stream) == [{"data": {"gated": n}} for n in range(10)]


async def test_resume_asks_nothing_of_a_generator():
    manager = manager_of(numbers, history=10)
    async with manager, manager.subscribe("subscription { numbers }", resume=True) as stream:
        assert await rest(stream) == [{"data": {"numbers": n}} for n in range(3)]
