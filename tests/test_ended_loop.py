"""The loop that entered the manager has ended: whoever needs a function is told so, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from fraiseql_subs import Event, GraphQLRequestError, SubscriptionManager, subscription

from .sockets import until
from .support import TICKS, entered, manager_of, one, soon, take, ticks
from .test_functions import failed


@subscription(channel="c")
async def asynchronous(event: Event) -> int | None:
    if event.data.get("stuck"):
        await asyncio.Event().wait()
    return int(event.data["n"])


@subscription(channel="c")
def synchronous(event: Event) -> int | None:
    return int(event.data["n"])


@subscription
async def generated() -> AsyncIterator[int]:
    yield 1
    await asyncio.Event().wait()


def new_manager() -> SubscriptionManager:
    return manager_of(asynchronous, synchronous, generated, ticks)


def in_thread(function: Callable[[], Any]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def entered_by(how: str, manager: SubscriptionManager) -> None:
    """Enters it on a loop that is closed when this returns."""

    async def enter() -> None:
        await manager.__aenter__()

    def run() -> None:
        if how == "asyncio.run":
            return asyncio.run(enter())
        loop = uvloop.new_event_loop() if how == "uvloop" else asyncio.new_event_loop()
        loop.run_until_complete(enter())
        return loop.close()

    in_thread(run)


async def the_line(caplog: pytest.LogCaptureFixture) -> None:
    """There is one, and it says what to do. It comes from a thread of its own."""
    await until(lambda: any(record.name == "fraiseql_subs" for record in caplog.records))
    [record] = [record for record in caplog.records if record.name == "fraiseql_subs"]
    assert record.levelno == logging.ERROR
    assert "is closed" in record.getMessage()
    assert "lifespan" in record.getMessage()


@pytest.mark.parametrize("how", ["asyncio.run", "close", "uvloop"])
async def test_whoever_needs_a_function_is_told_and_nobody_else_notices(how, caplog):
    manager = new_manager()
    entered_by(how, manager)
    assert manager.health()["ok"] is False
    assert manager.health()["bus"]["connected"] is True
    async with (
        manager.subscribe("subscription { asynchronous }") as first,
        manager.subscribe("subscription { synchronous }") as second,
        manager.subscribe(TICKS) as third,
    ):
        assert caplog.records == []
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n})
        assert await take(third, 3) == [{"data": {"ticks": {"n": n}}} for n in range(3)]
        assert await take(first, 3) == [failed("asynchronous", "Internal server error")] * 3
        assert await take(second, 3) == [failed("synchronous", "Internal server error")] * 3
        assert manager.get_metrics()["resolver_errors"] == 6
        with pytest.raises(GraphQLRequestError, match="Internal server error"):
            async with manager.subscribe("subscription { generated }") as stream:
                await soon(anext(stream))
        assert manager.get_metrics()["resolver_errors"] == 7
    await the_line(caplog)


async def test_an_event_from_another_thread_is_told_too(caplog):
    manager = new_manager()
    entered_by("asyncio.run", manager)
    async with manager.subscribe("subscription { asynchronous }") as stream:
        for n in range(100):
            await asyncio.to_thread(manager.publish_event_sync, "x", "c", {"n": n})
        assert await take(stream, 100) == [failed("asynchronous", "Internal server error")] * 100
    await the_line(caplog)


@pytest.mark.parametrize("policy", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
async def test_what_was_under_way_is_told(policy, caplog):
    manager = new_manager()
    loop = policy()

    def call_soon(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    await asyncio.to_thread(call_soon, manager.__aenter__())
    async with contextlib.AsyncExitStack() as stack:
        first = await entered(stack, manager.subscribe("subscription { asynchronous }"))
        second = await entered(stack, manager.subscribe("subscription { generated }"))
        await manager.publish_event("x", "c", {"n": 0, "stuck": True})
        assert await one(second) == {"data": {"generated": 1}}
        assert manager.health()["ok"] is True
        loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join)
        await manager.publish_event("x", "c", {"n": 1})
        loop.close()
        assert await take(first, 2) == [failed("asynchronous", "Internal server error")] * 2
        with pytest.raises(GraphQLRequestError, match="Internal server error"):
            await soon(anext(second))
    await the_line(caplog)


def test_a_loop_that_stands_still_for_a_while_has_not_ended(caplog):
    manager = new_manager()
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    run(manager.__aenter__())
    stream = manager.subscribe("subscription { asynchronous }")
    run(stream.__aenter__())
    assert manager.health()["ok"] is True
    in_thread(lambda: manager.publish_event_sync("x", "c", {"n": 1}))
    assert manager.health()["ok"] is True
    assert run(one(stream)) == {"data": {"asynchronous": 1}}
    run(manager.publish_event("x", "c", {"n": 2}))
    assert run(one(stream)) == {"data": {"asynchronous": 2}}
    run(stream.aclose())
    run(manager.__aexit__(None, None, None))
    loop.close()
    assert caplog.records == []


def test_a_manager_that_was_left_has_nothing_to_say(caplog):
    manager = new_manager()

    async def use() -> None:
        async with manager, manager.subscribe("subscription { asynchronous }") as stream:
            await manager.publish_event("x", "c", {"n": 1})
            assert await one(stream) == {"data": {"asynchronous": 1}}

    for _ in range(3):
        asyncio.run(use())
    assert caplog.records == []
