"""Work reaches event loops that watch no descriptors, too: from other threads, over sockets, and past a loop's end.

`LOOP=without-readers pytest` runs any test on such a loop.
"""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from fraiseql_subs import Event, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .loops import WithoutReaders
from .sockets import next_frame, publish_tick, serving, tick_of, tick_schema, until
from .support import TICKS, audited, manager_of, one, soon, take, ticks

LOOPS = [asyncio.new_event_loop, WithoutReaders]


@subscription(channel="c")
def squared(event: Event) -> int:
    """In a thread, whose outcome has to reach the loop."""
    return int(event.data["n"] ** 2)


SQUARES = "subscription { squared }"


@pytest.fixture(params=LOOPS, ids=["readers", "none"])
def run(request) -> Any:
    """Runs a coroutine on a loop of that kind."""

    def run(coroutine: Any) -> Any:
        loop = request.param()
        try:
            return loop.run_until_complete(asyncio.wait_for(coroutine, 20))
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    return run


def in_thread(function: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def published(manager: SubscriptionManager, *numbers: int) -> threading.Thread:
    """A thread that publishes these."""

    def publish() -> None:
        for n in numbers:
            manager.publish_event_sync("x", "c", {"n": n})

    return in_thread(publish)


def test_events_of_other_threads_arrive(run):
    async def main() -> None:
        async with manager_of(ticks, squared) as manager:
            async with manager.subscribe(TICKS) as plain, manager.subscribe(SQUARES) as called:
                for n in range(20):
                    thread = published(manager, n)
                    assert await one(plain) == {"data": {"ticks": {"n": n}}}
                    assert await one(called) == {"data": {"squared": n * n}}
                    thread.join()
                thread = published(manager, *range(200))
                assert await take(plain, 200) == [{"data": {"ticks": {"n": n}}} for n in range(200)]
                await asyncio.to_thread(thread.join)

    run(main())


def test_sockets_work(run):
    async def main() -> None:
        manager = SubscriptionManager(tick_schema())
        with audited() as trail:
            async with serving(SubscriptionApp(manager), lifespan="on") as server:
                async with server.acknowledged() as client:
                    await client.subscribe("1", tick_of("a"))
                    await trail.has("connection_accepted")
                    for n in range(10):
                        await publish_tick(manager, "a", n)
                        await client.expect(next_frame("1", {"tick": {"n": n}}))

    run(main())


def test_readers_on_several_loops(run):
    async def main() -> None:
        async with manager_of(ticks) as manager:
            others = [Other(kind) for kind in LOOPS]
            streams = [manager.subscribe(TICKS) for _ in others]
            pairs = list(zip(others, streams, strict=True))
            for other, stream in pairs:
                await asyncio.to_thread(other.call, stream.__aenter__())
            reading = [asyncio.create_task(asyncio.to_thread(other.call, one(stream))) for other, stream in pairs]
            await manager.publish_event("x", "c", {"n": 1})
            assert await soon(asyncio.gather(*reading)) == [{"data": {"ticks": {"n": 1}}}] * 2
            for other, stream in pairs:
                await asyncio.to_thread(other.call, stream.aclose())
                await asyncio.to_thread(other.end)

    run(main())


class Other:
    """A loop in a thread of its own."""

    def __init__(self, kind: Any) -> None:
        self.loop = kind()
        self.thread = in_thread(self.loop.run_forever)

    def call(self, awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(20)

    def end(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.mark.parametrize("kind", LOOPS, ids=["readers", "none"])
async def test_a_loop_that_is_closed_without_leaving_is_heard_of(kind, caplog):
    manager = manager_of(squared)
    loop = kind()
    await asyncio.to_thread(loop.run_until_complete, manager.__aenter__())
    assert manager.health()["ok"] is True
    loop.close()
    assert manager.health()["ok"] is False
    async with manager.subscribe(SQUARES) as stream:
        await manager.publish_event("x", "c", {"n": 2})
        assert (await one(stream))["errors"][0]["message"] == "Internal server error"
    await until(lambda: "is closed" in caplog.text)


@pytest.mark.parametrize("kind", LOOPS, ids=["readers", "none"])
def test_nothing_is_left_of_a_manager_that_was_left(kind):
    def use() -> weakref.ref[Any]:
        loop = kind()

        async def main() -> weakref.ref[Any]:
            manager = manager_of(ticks)
            async with manager, manager.subscribe(TICKS) as stream:
                await manager.publish_event("x", "c", {"n": 1})
                await one(stream)
            return weakref.ref(manager)

        gone = loop.run_until_complete(main())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return gone

    use()
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd"))
    left = [use() for _ in range(5)]
    gc.collect()
    assert [reference() for reference in left] == [None] * 5
    assert len(os.listdir("/proc/self/fd")) <= descriptors
