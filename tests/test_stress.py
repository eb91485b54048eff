"""Everything at once for a while: each subscription has exact accounts, and at the end nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import (
    Event,
    EventBusConfig,
    GraphQLError,
    HistoryLost,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)

from .sockets import gauges, served, until

SECONDS = 1.0
FIELDS = ("passed", "shared", "threaded", "counting")


@dataclass
class Number:
    n: int


@subscription(channel="c", passthrough=True)
def passed() -> Number:
    raise NotImplementedError


@subscription(channel="c", name="shared", timeout=0.02)
async def shared(event: Event) -> Number:
    """Fails, is late or is slow by what the event says."""
    which = event.data["n"] % 11
    if which == 3:
        raise GraphQLError("three")
    await asyncio.sleep({5: 1.0, 7: 0.003}.get(which, 0))
    return Number(event.data["n"])


@subscription(channel="c", name="threaded")
def threaded(event: Event, info: Info) -> Number:
    time.sleep(0.0005)
    return Number(event.data["n"])


@subscription
async def counting() -> AsyncIterator[Number]:
    number = 0
    while True:
        number += 1
        yield Number(number)
        await asyncio.sleep(0.001)


class Stress:
    """Publishers in threads count what they publish under a lock, which is also the order of the events."""

    def __init__(self, seed: int) -> None:
        limits = Limits(queue_messages=32, overflow="drop_oldest", max_subscriptions_per_connection=10)
        schema = Schema(subscriptions=[passed, shared, threaded, counting])
        self.manager = SubscriptionManager(schema, EventBusConfig.memory(history=500), limits=limits)
        self.random = random.Random(seed)
        self.seeds = itertools.count(seed)
        self.published = 0
        self.lock = threading.Lock()
        self.over = threading.Event()
        self.silent = threading.Event()
        self.seen: Counter[str] = Counter()
        self.tokens: list[str] = []

    def publish(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.silent.is_set():
            with self.lock:
                self.published += 1
                self.manager.publish_event_sync("x", "c", {"n": self.published})
            time.sleep(chance.random() * 0.002)

    async def read(self, seed: int) -> None:
        """One subscription: what it is given goes up by one, but for what it is told of."""
        chance = random.Random(seed)
        field = FIELDS[seed % 4]
        token = chance.choice(self.tokens) if self.tokens and chance.random() < 0.3 else None
        resume: Any = None if field == "counting" else token or True
        viewer = SecurityContext(user_id=chance.randrange(3))
        query = f"subscription {{ {field} {{ n }} }}"
        stream = self.manager.subscribe(query, context=viewer, resume=resume, framing="result")
        given = told = highest = 0
        before = self.published
        try:
            async with stream:
                live = self.published
                for _ in range(chance.randrange(1, 80)):
                    message = json.loads(await asyncio.wait_for(anext(stream), 5))
                    extensions = message.get("extensions", {})
                    if resume and not token and chance.random() < 0.02:
                        self.tokens = [*self.tokens[-5:], extensions["eventId"]]
                    given, told = given + 1, told + extensions.get("dropped", 0)
                    value = message["data"] and message["data"][field] and message["data"][field]["n"]
                    if value is None:
                        assert field == "shared", message
                        continue
                    assert value > highest, (field, resume, message, highest)
                    highest = value
                    if token is None and field == "passed":
                        # All since it was live; of those that were published while it became so, some.
                        assert before - 1 <= value - given - told <= live, message
                        live = value - given - told
                        before = live + 1
                    if chance.random() < 0.01:
                        await asyncio.sleep(0.05)
        except HistoryLost:
            assert token is not None
        finally:
            self.seen[field] += given

    async def read_some(self, until: float) -> None:
        """Readers that come, are cancelled in the middle, and go."""
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        while loop.time() < until:
            tasks |= {loop.create_task(self.read(next(self.seeds))) for _ in range(8 - len(tasks))}
            done, tasks = await asyncio.wait(tasks, timeout=0.03, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            victim = self.random.choice([*tasks, None])
            if victim is not None:
                tasks.discard(victim)
                victim.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await victim
        await asyncio.gather(*tasks)

    def on_other_loops(self) -> None:
        """Loops that come and go, the last of their readers cancelled by their end."""
        while not self.over.is_set():

            async def main() -> None:
                left = asyncio.create_task(self.read(1))
                await self.read_some(asyncio.get_running_loop().time() + 0.3)
                if left.done():
                    left.result()

            asyncio.run(main())

    async def on_sockets(self, server: Any, until: float) -> None:
        """Sockets that subscribe, complete, reuse ids, and end as they may."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            client = await server.connect(close_timeout=0.5)
            await client.send({"type": "connection_init"})
            assert (await client.message())["type"] == "connection_ack"
            await client.ask("always", "subscription { passed { n } }")
            for number in range(self.random.randrange(6)):
                field = self.random.choice(FIELDS)
                await client.ask(str(number), f"subscription {{ {field} {{ n }} }}")
                if self.random.random() < 0.3:
                    await client.complete(str(number))
                    await client.ask(str(number), "subscription { passed { n } }")
            for _ in range(self.random.randrange(60)):
                assert (await client.message())["type"] in {"next", "ping"}
                self.seen["frames"] += 1
            if self.random.random() < 0.5:
                client.abort()
            else:
                await client.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_under_everything_at_once_accounts_are_exact_and_nothing_is_left():
    stress = Stress(seed=1)
    manager = stress.manager
    threads, descriptors = threading.active_count(), open_files()
    async with served(manager) as (_, server):
        until_then = asyncio.get_running_loop().time() + SECONDS
        publishing = [asyncio.create_task(asyncio.to_thread(stress.publish, seed)) for seed in range(2)]
        elsewhere = asyncio.create_task(asyncio.to_thread(stress.on_other_loops))
        try:
            reading = stress.read_some(until_then)
            await asyncio.gather(reading, *(stress.on_sockets(server, until_then) for _ in range(3)))
        finally:
            stress.over.set()
            await asyncio.wait([elsewhere])
            stress.silent.set()
            await asyncio.gather(elsewhere, *publishing)
        await until(lambda: gauges(manager) == {"connections": 0, "subscriptions": 0})
        assert manager.get_metrics()["events_published"] == stress.published
        # asyncio says of its own that sockets were aborted.
        ours = [text for text in server.log.take() if text.startswith("fraiseql_subs")]
        assert [text for text in ours if "timed out" not in text] == []
    assert all(stress.seen[name] for name in (*FIELDS, "frames"))
    gc.collect()
    await asyncio.get_running_loop().shutdown_default_executor()
    await until(lambda: threading.active_count() <= threads + 1)  # the process keeps its one runtime
    assert open_files() <= descriptors + 6
