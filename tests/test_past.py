"""Those who read the past at their own pace, or not at all: what they hold, what others notice, and when they stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any

import pytest
import redis

from fraiseql_subs import (
    JSON,
    Event,
    Limits,
    SecurityContext,
    SubscriptionManager,
    data,
    subscription,
    viewer,
)

from .buses import SCHEMA, config, heard, tell, token, token_now, watch
from .servers import SERVERS, unheard
from .sockets import until
from .support import TICKS, entered, manager_of, one, take, ticks
from .test_leaks import rss

MIB = 2**20


async def tokens_of(manager: SubscriptionManager, channel: str, count: int, pad: str = "") -> list[str]:
    """Tokens of so many events, which are published."""
    async with watch(manager, channel, resume=True) as stream:
        tokens = []
        for n in range(count):
            await manager.publish_event("told", channel, {"n": n, "pad": pad})
            tokens.append(token(await one(stream)))
    return tokens


# ---- who waits for room keeps a position ----


@pytest.mark.parametrize("kind", [name for name in SERVERS if name != "postgresql"])
async def test_readers_that_do_not_read_take_no_memory_and_leave_the_past_to_others(kind, start_server):
    server = start_server(SERVERS[kind])
    bus = config("redis", server.url, unheard())
    manager = SubscriptionManager(SCHEMA, bus, limits=Limits(subscribes_per_second=None))

    def pages() -> int:
        with redis.Redis.from_url(server.url) as admin:
            return int(admin.info("commandstats").get("cmdstat_xrange", {}).get("calls", 0))

    async def come_back(after: str) -> int:
        """Fifty who read what they have missed; how many questions that took."""
        before = pages()
        async with contextlib.AsyncExitStack() as stack:
            streams = [await entered(stack, watch(manager, "good", resume=after)) for _ in range(50)]
            read = await asyncio.gather(*(heard(stream, 70) for stream in streams))
        assert read == [list(range(70))] * 50
        return pages() - before

    async with manager, contextlib.AsyncExitStack() as stack:
        good = await token_now(manager, "good")
        await tell(manager, "good", *range(70))
        bad = await tokens_of(manager, "bad", 300, "x" * 20_000)
        alone = await come_back(good)
        gc.collect()
        before = rss()
        context = SecurityContext(user_id="bad")
        stopped = [await entered(stack, watch(manager, "bad", context=context, resume=after)) for after in bad[:200:2]]
        await until(lambda: manager.get_metrics()["queued_messages"] == 100 * 16)
        assert rss() - before < 48 * MIB
        assert await come_back(good) <= 2 * alone + 5
        # What they asked for is there for them, to the last event.
        for at in (0, 50, 99):
            assert await heard(stopped[at], 299 - 2 * at) == list(range(2 * at + 1, 300))


async def test_what_readers_hold_while_functions_run_is_bounded_by_account():
    running: list[tuple[str, int]] = []
    gate = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event, who: str) -> int:
        running.append((who, event.data["n"]))
        await gate.wait()
        return int(event.data["n"])

    manager = manager_of(ticks, slow, history=1_000, limits=Limits(subscribes_per_second=None))
    async with manager, contextlib.AsyncExitStack() as stack:
        async with manager.subscribe(TICKS, resume=True) as stream:
            tokens = []
            for n in range(41):
                await manager.publish_event("x", "c", {"n": n, "pad": "x" * 200_000})
                tokens.append(token(await one(stream)))

        async def resumed(who: str, after: str) -> Any:
            query, context = f'subscription {{ slow(who: "{who}") }}', SecurityContext(user_id=who)
            return await entered(stack, manager.subscribe(query, context=context, resume=after))

        streams = [await resumed("bad", after) for after in tokens[:40]]
        await until(lambda: running)
        other = await resumed("other", tokens[39])
        await until(lambda: ("other", 40) in running)
        # Each is 200 kB of text, of which a parsed value may take a multiple.
        assert 2 <= len([who for who, _ in running if who == "bad"]) <= 16
        gate.set()
        assert (await one(other))["data"] == {"slow": 40}
        for at, stream in enumerate(streams):
            assert [each["data"]["slow"] for each in await take(stream, 40 - at)] == list(range(at + 1, 41))


async def test_what_is_withheld_is_counted_once_for_a_reader_that_stops_and_goes_on():
    @subscription(channel="c", passthrough=True, rows=(data["owner"] == viewer("user_id")) | (data["owner"] == "all"))
    def mine() -> JSON:
        raise NotImplementedError

    manager = manager_of(ticks, mine, history=1_000)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await manager.publish_event("x", "c", {"n": -1, "owner": "all"})
            after = token(await one(stream))
        for n in range(300):
            await manager.publish_event("x", "c", {"n": n, "owner": "me" if n % 3 else "you"})
        before = manager.get_metrics()["events_filtered"]["rows"]
        context = SecurityContext(user_id="me")
        async with manager.subscribe("subscription { mine }", context=context, resume=after) as stream:
            for n in (n for n in range(300) if n % 3):
                assert (await one(stream))["data"]["mine"]["n"] == n
                await asyncio.sleep(0)
            await manager.publish_event("x", "c", {"n": 300, "owner": "me"})
            assert (await one(stream))["data"]["mine"]["n"] == 300
        assert manager.get_metrics()["events_filtered"]["rows"] - before == 100


# ---- who has ended stops ----


@pytest.mark.parametrize("how", ["completed", "left", "revoked"])
async def test_one_that_ends_while_it_catches_up_calls_no_more_functions(how):
    calls: list[int] = []

    @subscription(channel="c")
    async def called(event: Event) -> int:
        calls.append(event.data["n"])
        return int(event.data["n"])

    @subscription(channel="c")
    async def beside(event: Event) -> int:
        return int(event.data["n"])

    manager = manager_of(ticks, called, beside, history=10_000)
    async with manager:
        async with manager.subscribe(TICKS, resume=True) as stream:
            await manager.publish_event("x", "c", {"n": -1})
            after = token(await one(stream))
        for n in range(1_000):
            await manager.publish_event("x", "c", {"n": n})
        context = SecurityContext(user_id="u")
        stream = manager.subscribe("subscription { called }", context=context, subscription_id="s", resume=after)
        async with stream:
            await take(stream, 3)
            if how == "completed":
                assert await manager.complete_subscription("s")
            elif how == "revoked":
                assert await manager.revoke(user_id="u") == 1
            else:
                await stream.aclose()
            # Somebody else reads all of it, which takes as long as it would take the one that has ended.
            async with manager.subscribe("subscription { beside }", resume=after) as other:
                assert [each["data"]["beside"] for each in await take(other, 1_000)] == list(range(1_000))
        assert calls == list(range(len(calls)))
        assert 3 <= len(calls) < 100
