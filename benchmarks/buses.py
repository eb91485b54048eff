"""What a bus costs: latency beside a bare client's, CPU an event, many channels, an idle process, a long past.

    python -m benchmarks.buses redis|postgresql [latency] [throughput] [channels] [idle] [past]

starts a server of its own (`fraiseql_subs.servers`) and prints one JSON object for each measurement. CPU is that of the
receiving process, or of the server, from the system's accounting; publishers run in a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio

from fraiseql_subs import Event, EventBusConfig, Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.servers import PostgreSQL, Redis, Server

TEXT = "x" * 215  # with its keys and number an event of about 250 bytes


@dataclass
class Tick:
    """An event of about 250 bytes."""

    n: int
    at: float
    text: str


@subscription(channel="c:{number}", passthrough=True)
def ticks(number: int) -> Tick:
    """The events of one channel."""
    raise NotImplementedError


def query(number: int) -> str:
    return f"subscription {{ ticks(number: {number}) {{ n at }} }}"


def manager_of(kind: str, url: str, history: int = 10_000) -> SubscriptionManager:
    bus = (
        EventBusConfig.redis(url, history=history)
        if kind == "redis"
        else EventBusConfig.postgresql(url, install=True, history=history)
    )
    limits = Limits(queue_messages=1_000_000, queue_bytes=2**30, connection_queue_bytes=2**30)
    return SubscriptionManager(Schema(subscriptions=[ticks]), bus, limits=limits)


def tick(n: int) -> dict[str, Any]:
    return {"n": n, "at": time.time(), "text": TEXT}


def cpu_of(pid: int) -> float:
    """The CPU seconds of a process and of its children that still run."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(path.parent.name) == pid or int(fields[1]) == pid:
            total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory() -> int:
    """The resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


# ---- the bare clients ----


async def bare_redis(url: str, count: int) -> list[float]:
    publisher: Any = redis.asyncio.from_url(url)
    reader: Any = redis.asyncio.from_url(url)
    latencies = []
    last = await publisher.xadd("bare", {"e": "first"})
    for n in range(count):
        reading = asyncio.create_task(reader.xread({"bare": last}, block=5000))
        await asyncio.sleep(0.002)
        start = time.perf_counter()
        await publisher.xadd("bare", {"e": json.dumps(tick(n))})
        [[_, [(last, _)]]] = await reading
        latencies.append(time.perf_counter() - start)
    await publisher.aclose()
    await reader.aclose()
    return latencies


async def bare_postgresql(url: str, count: int) -> list[float]:
    latencies = []
    connect = psycopg.AsyncConnection.connect
    async with await connect(url, autocommit=True) as publisher, await connect(url, autocommit=True) as reader:
        await publisher.execute("CREATE TABLE IF NOT EXISTS bare (id bigserial PRIMARY KEY, data jsonb)")
        await reader.execute("LISTEN bare")
        insert = (
            "WITH i AS (INSERT INTO bare (data) VALUES (%s) RETURNING id) SELECT pg_notify('bare', id::text) FROM i"
        )
        for n in range(count):

            async def receive() -> float:
                [note] = [note async for note in reader.notifies(stop_after=1)]
                await (await reader.execute("SELECT data FROM bare WHERE id = %s", (note.payload,))).fetchone()
                return time.perf_counter()

            reading = asyncio.create_task(receive())
            await asyncio.sleep(0.002)
            start = time.perf_counter()
            await publisher.execute(insert, (json.dumps(tick(n)),))
            latencies.append(await reading - start)
    return latencies


# ---- the measurements ----


async def latency(kind: str, server: Server, count: int = 500) -> dict[str, Any]:
    """Publish to receive, one subscriber, in turns with the bare client."""
    bare: Callable[[str, int], Awaitable[list[float]]] = bare_redis if kind == "redis" else bare_postgresql
    manager = manager_of(kind, server.url)
    ours: list[float] = []
    theirs: list[float] = []
    async with manager, manager.subscribe(query(1), framing="result") as stream:
        for _ in range(5):
            theirs += await bare(server.url, count // 5)
            for n in range(count // 5):
                reading = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0.002)
                start = time.perf_counter()
                publishing = asyncio.create_task(manager.publish_event("tick", "c:1", tick(n)))
                await reading
                ours.append(time.perf_counter() - start)
                await publishing
    medians = [statistics.median(latencies) * 1e3 for latencies in (ours, theirs)]
    return {"ms": round(medians[0], 3), "bare_ms": round(medians[1], 3), "ratio": round(medians[0] / medians[1], 2)}


@asynccontextmanager
async def publisher(kind: str, url: str, *arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own that publishes so many events, so many a second, in batches of 100, on so many channels."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.buses", kind, "--publish", url, *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield process
    await process.communicate()


async def publish(kind: str, url: str, count: int, rate: int, channels: int) -> None:
    async with manager_of(kind, url, history=200_000) as manager:
        start = time.perf_counter()
        for first in range(0, count, 100):
            batch = [Event("tick", f"c:{n % channels + 1}", tick(n)) for n in range(first, first + 100)]
            await manager.publish_events(batch)
            await asyncio.sleep(max(0, start + (first + 100) / rate - time.perf_counter()))


async def throughput(kind: str, server: Server) -> dict[str, Any]:
    """CPU of the receiving process an event, and how far the last events are behind the first."""
    rate = 20_000 if kind == "redis" else 5_000
    count = rate * 10
    manager = manager_of(kind, server.url)
    lags: list[float] = []
    async with manager, manager.subscribe(query(1), framing="result") as stream:
        async with publisher(kind, server.url, count, rate, 1):
            await anext(stream)
            cpu, start = time.process_time(), time.perf_counter()
            async for message in stream:
                lags.append(time.time() - json.loads(message)["data"]["ticks"]["at"])
                if len(lags) == count - 1:
                    break
            cpu, took = time.process_time() - cpu, time.perf_counter() - start
    tenth = count // 10
    return {
        "events_a_second": round(count / took),
        "cpu_us_an_event": round(cpu / count * 1e6, 1),
        "lag_ms": [round(statistics.median(lags[at * tenth : (at + 1) * tenth]) * 1e3, 1) for at in range(10)],
    }


async def channels(kind: str, server: Server) -> dict[str, Any]:
    """Server and process together, an event, with one channel watched and with ten thousand."""
    costs = {}
    for watched in (1, 10_000):
        manager = manager_of(kind, server.url)
        async with manager:
            streams = [manager.subscribe(query(n + 1), framing="result") for n in range(watched)]
            await asyncio.gather(*(stream.__aenter__() for stream in streams))
            cpu = time.process_time() + cpu_of(server.pid)
            count = 2000
            for n in range(count):
                await manager.publish_event("tick", f"c:{n % watched + 1}", tick(n))
            for n in range(count if watched > count else 1):
                for _ in range(1 if watched > count else count):
                    await anext(streams[n])
            costs[watched] = (time.process_time() + cpu_of(server.pid) - cpu) / count * 1e6
            await asyncio.gather(*(stream.aclose() for stream in streams))
    return {"us_an_event": {n: round(cost) for n, cost in costs.items()}, "ratio": round(costs[10_000] / costs[1], 2)}


async def idle(kind: str, server: Server) -> dict[str, Any]:
    """A process with a hundred subscriptions in which nothing happens."""
    manager = manager_of(kind, server.url)
    async with manager:
        streams = [manager.subscribe(query(n), framing="result") for n in range(100)]
        await asyncio.gather(*(stream.__aenter__() for stream in streams))
        before = time.process_time(), cpu_of(server.pid)
        await asyncio.sleep(20)
        spent = (time.process_time() - before[0]) / 20, (cpu_of(server.pid) - before[1]) / 20
        await asyncio.gather(*(stream.aclose() for stream in streams))
    return {"process_percent": round(spent[0] * 100, 3), "server_percent": round(spent[1] * 100, 3)}


async def past(kind: str, server: Server, events: int = 100_000) -> dict[str, Any]:
    """A reader who takes a thousand events a pause of a past of a hundred thousand."""
    manager = manager_of(kind, server.url, history=200_000)
    async with manager:
        async with manager.subscribe(query(2), resume=True) as stream:
            await manager.publish_event("tick", "c2", tick(0))
            token = json.loads(await anext(stream))["payload"]["extensions"]["eventId"]
        async with publisher(kind, server.url, events, 20_000, 1):
            pass
        before = peak = memory()
        async with manager.subscribe(query(1), framing="result", resume=token) as stream:
            for n in range(events):
                assert json.loads(await anext(stream))["data"]["ticks"]["n"] == n
                if n % 1000 == 0:
                    await asyncio.sleep(0.01)
                    peak = max(peak, memory())
    return {"events": events, "growth_mib": round((peak - before) / 2**20, 1)}


MEASUREMENTS = {each.__name__: each for each in (latency, throughput, channels, idle, past)}


def main() -> None:
    """Runs what is asked for, or everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["redis", "postgresql"])
    parser.add_argument("what", nargs="*", choices=[[], *MEASUREMENTS], default=[])
    parser.add_argument("--publish", nargs=4, metavar=("URL", "EVENTS", "RATE", "CHANNELS"))
    given = parser.parse_args()
    if given.publish:
        url, *numbers = given.publish
        return asyncio.run(publish(given.kind, url, *map(int, numbers)))
    for name in given.what or MEASUREMENTS:
        with (Redis if given.kind == "redis" else PostgreSQL)() as server:
            print(json.dumps({name: asyncio.run(MEASUREMENTS[name](given.kind, server))}), flush=True)
    return None


if __name__ == "__main__":
    main()
