"""What a memory bus keeps of channels, and what it says of those that it has forgotten."""

from __future__ import annotations

import gc
import itertools

import pytest

from fraiseql_subs import Event, EventBusConfig, HistoryLost, Limits, SubscriptionManager

from .buses import SCHEMA, heard, tell, token, token_now, watch
from .support import TICKS, manager_of, one, soon, take, ticks
from .test_leaks import rss

MIB = 2**20


async def test_a_memory_bus_forgets_channels_that_nobody_watches_and_says_so():
    manager = SubscriptionManager(SCHEMA, EventBusConfig.memory(history=10), limits=Limits(subscribes_per_second=None))
    async with manager:
        first = await token_now(manager, "first")
        await tell(manager, "first", 1)
        async with watch(manager, "watched", resume=True) as watching:
            await tell(manager, "watched", 1, 2)
            watched = token(await one(watching))
            await fill(manager, "a", 4_000)
            recent = await token_now(manager, "recent")
            await tell(manager, "recent", 5)
            # As long as there are few, all is there.
            async with watch(manager, "first", resume=first) as stream:
                assert await heard(stream, 1) == [1]
            await fill(manager, "b", 7_000)
            with pytest.raises(HistoryLost):
                async with watch(manager, "first", resume=first) as stream:
                    await one(stream)
            # A channel of the same name that begins anew does not know what it was either.
            await tell(manager, "first", 2)
            with pytest.raises(HistoryLost):
                async with watch(manager, "first", resume=first) as stream:
                    await one(stream)
            # What was not forgotten, and what is watched, is there.
            async with watch(manager, "recent", resume=recent) as stream:
                assert await heard(stream, 1) == [5]
            async with watch(manager, "watched", resume=watched) as stream:
                assert await heard(stream, 1) == [2]
        after = await token_now(manager, "first")
        await tell(manager, "first", 3)
        async with watch(manager, "first", resume=after) as stream:
            assert await heard(stream, 1) == [3]


async def fill(manager: SubscriptionManager, name: str, count: int) -> None:
    """Publishes one event on each of so many channels."""
    for first in range(0, count, 1_000):
        events = [Event("told", f"{name}{n}", {"n": n}) for n in range(first, min(first + 1_000, count))]
        await manager.publish_events(events)


async def test_channels_of_a_memory_bus_that_are_never_seen_again_take_no_memory():
    manager = SubscriptionManager(SCHEMA, EventBusConfig.memory(history=10))
    async with manager:
        await fill(manager, "a", 12_000)
        gc.collect()
        before = rss()
        await fill(manager, "b", 60_000)
        assert rss() - before < 12 * MIB
        async with watch(manager, "b59999", resume=True) as stream:
            await tell(manager, "b59999", 1)
            assert await soon(heard(stream, 1)) == [1]


async def test_a_page_of_large_events_is_a_part_of_what_is_read():
    """More than one page of a memory bus holds: no event is missed between them."""
    manager = manager_of(ticks, history=100)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await manager.publish_event("x", "c", {"n": -1})
            after = token(await one(stream))
        sizes = itertools.cycle([700_000, 10, 400_000, 900_000, 1])
        for n, size in zip(range(40), sizes, strict=False):
            await manager.publish_event("x", "c", {"n": n, "pad": "x" * size})
        async with manager.subscribe(TICKS, resume=after) as stream:
            assert [each["data"]["ticks"]["n"] for each in await take(stream, 40)] == list(range(40))
