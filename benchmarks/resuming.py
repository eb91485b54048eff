"""Many clients who come back at once: how fast they are served, what that costs, and what others notice of it.

    python -m benchmarks.resuming [URL or DSN] --subscriptions 10000 --events 1000

Without a URL it runs on the memory bus. It prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import EventBusConfig, Limits, Schema, SubscriptionManager, subscription

from .buses import memory


@dataclass
class Missed:
    """What was missed."""

    n: int
    text: str


@dataclass
class Tick:
    """When it was published."""

    at: float


@subscription(channel="missed", passthrough=True)
def missed() -> Missed:
    """What those who come back have missed."""
    raise NotImplementedError


@subscription(channel="live", passthrough=True)
def live() -> Tick:
    """What others hear meanwhile."""
    raise NotImplementedError


def bus_of(url: str | None, history: int) -> EventBusConfig:
    """The bus behind an address."""
    if url is None:
        return EventBusConfig.memory(history=history)
    if url.startswith("postgres"):
        return EventBusConfig.postgresql(url, install=True, history=history)
    return EventBusConfig.redis(url, history=history)


async def watch_live(manager: SubscriptionManager, latencies: list[float]) -> None:
    async with manager.subscribe("subscription { live { at } }", framing="result") as stream:
        async for message in stream:
            late = time.perf_counter() - json.loads(message)["data"]["live"]["at"]
            latencies.append(late)


async def publish_live(manager: SubscriptionManager, rate: float) -> None:
    while True:
        await manager.publish_event("live", "live", {"at": time.perf_counter()})
        await asyncio.sleep(1 / rate)


async def catch_up(manager: SubscriptionManager, token: str, events: int) -> int:
    query, received = "subscription { missed { n text } }", 0
    async with manager.subscribe(query, framing="result", resume=token) as stream:
        async for _ in stream:
            received += 1
            if received == events:
                break
    return received


async def run(url: str | None, subscriptions: int, events: int) -> dict[str, Any]:
    limits = Limits(max_subscriptions_per_user=None, subscribes_per_second=None)
    manager = SubscriptionManager(Schema(subscriptions=[missed, live]), bus_of(url, events * 2), limits=limits)
    async with manager:
        async with manager.subscribe("subscription { live { at } }", resume=True) as stream:
            await manager.publish_event("live", "live", {"at": 0.0})
            token = json.loads(await anext(stream))["payload"]["extensions"]["eventId"]
        for n in range(events):
            await manager.publish_event("missed", "missed", {"n": n, "text": "x" * 200})
        quiet: list[float] = []
        loaded: list[float] = []
        for latencies, count in ((quiet, 0), (loaded, subscriptions)):
            watching = [asyncio.create_task(watch_live(manager, latencies)) for _ in range(10)]
            publishing = asyncio.create_task(publish_live(manager, 100))
            await asyncio.sleep(0.5)
            gc.collect()
            before, cpu, start = memory(), time.process_time(), time.perf_counter()
            peak = before
            readers = [asyncio.create_task(catch_up(manager, token, events)) for _ in range(count)]
            while not all(reader.done() for reader in readers) or (count == 0 and len(latencies) < 2000):
                await asyncio.sleep(0.05)
                peak = max(peak, memory())
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            for task in (*watching, publishing):
                task.cancel()
            await asyncio.wait([*watching, publishing])
        received = sum([await reader for reader in readers])
    return {
        "subscriptions": subscriptions,
        "events": events,
        "received": received,
        "seconds": round(took, 1),
        "cpu_us_a_message": round(cpu / max(received, 1) * 1e6, 2),
        "growth_mib": round((peak - before) / 2**20, 1),
        "live_ms": {
            name: {
                "median": round(statistics.median(latencies) * 1e3, 2),
                "p99": round(statistics.quantiles(latencies, n=100)[98] * 1e3, 2),
            }
            for name, latencies in (("quiet", quiet), ("loaded", loaded))
        },
    }


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="?")
    parser.add_argument("--subscriptions", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=1000)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(run(given.url, given.subscriptions, given.events))))


if __name__ == "__main__":
    main()
