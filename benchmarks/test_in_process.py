"""The public face, measured in one process. A case's name says what one unit of `microseconds_each` is."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.conftest import PAYLOAD, SUBSCRIPTIONS, Bench
from fraiseql_subs import Event, Schema

PASSTHROUGH = "subscription ($id: ID) { userUpdated(id: $id) { id payload } }"
SHARED = "subscription ($id: ID) { userShared(id: $id) { id payload } }"
VIEWER = "subscription { userForViewer { id payload } }"
THREAD = "subscription { userInThread { id payload } }"
OWN = "subscription { userOwn { id payload } }"


async def take(streams: list[Any], count: int) -> None:
    """Reads `count` messages of each stream."""
    for stream in streams:
        for _ in range(count):
            await anext(stream)


def fan_out(bench: Bench, query: str, subscribers: int, events: int) -> None:
    """One unit is one event, read by every subscriber."""
    streams = bench.subscribe(query, range(bench.size(subscribers)))
    events = bench.size(events)

    async def work() -> None:
        for _ in range(events):
            await bench.publish()
        await take(streams, events)

    bench.measure(work, per=events)


# ---- publish ----


def test_publish_that_nobody_hears(bench: Bench) -> None:
    count = bench.size(1_000)

    async def work() -> None:
        for _ in range(count):
            await bench.publish()

    bench.measure(work, per=count)


def test_publish_to_one(bench: Bench) -> None:
    count = bench.size(1_000)
    [stream] = bench.subscribe(PASSTHROUGH, [1])

    def drain() -> None:
        bench.run(take([stream], count))

    async def work() -> None:
        for _ in range(count):
            await bench.publish()

    bench.measure(work, per=count, after=drain)


def test_publish_of_a_hundred_at_once(bench: Bench) -> None:
    [stream] = bench.subscribe(PASSTHROUGH, [1])
    events = [Event("updated", "users", {"id": n, "payload": PAYLOAD}) for n in range(bench.size(100))]

    async def work() -> None:
        await bench.manager.publish_events(events)
        await take([stream], len(events))

    bench.measure(work, per=len(events))


def test_publish_from_a_thread(bench: Bench) -> None:
    [stream] = bench.subscribe(PASSTHROUGH, [1])
    count = bench.size(1_000)

    def publish() -> None:
        for _ in range(count):
            bench.manager.publish_event_sync("updated", "users", {"id": 1, "payload": PAYLOAD})

    async def work() -> None:
        await asyncio.gather(asyncio.to_thread(publish), take([stream], count))

    bench.measure(work, per=count)


def test_publish_of_100_kilobytes(bench: Bench) -> None:
    [stream] = bench.subscribe(PASSTHROUGH, [1])

    async def work() -> None:
        await bench.manager.publish_event("updated", "users", {"id": 1, "payload": "x" * 100_000})
        await take([stream], 1)

    bench.measure(work, rounds=100)


# ---- delivery ----


def test_publish_and_delivery_one_by_one(bench: Bench) -> None:
    count = bench.size(1_000)
    [stream] = bench.subscribe(PASSTHROUGH, [1])

    async def work() -> None:
        for _ in range(count):
            await bench.publish()
            await anext(stream)

    bench.measure(work, per=count)


def test_wake_up_of_a_waiting_reader(bench: Bench) -> None:
    count = bench.size(1_000)
    [stream] = bench.subscribe(PASSTHROUGH, [1])

    async def work() -> None:
        for _ in range(count):
            waiting = asyncio.ensure_future(stream.__anext__())
            await asyncio.sleep(0)
            await bench.publish()
            await waiting

    bench.measure(work, per=count)


def test_async_for_over_a_full_queue(bench: Bench) -> None:
    count = bench.size(10_000)
    [stream] = bench.subscribe(PASSTHROUGH, [1])

    async def fill() -> None:
        for _ in range(count):
            await bench.publish()

    async def work() -> None:
        left = count
        async for _ in stream:
            left -= 1
            if not left:
                break

    bench.measure(work, per=count, before=lambda: bench.run(fill()))


def test_stream_of_a_generator(bench: Bench) -> None:
    count = bench.size(1_000)

    async def work() -> None:
        async with bench.manager.subscribe(
            "subscription ($to: Int!) { counted(to: $to) }", variables={"to": count}
        ) as stream:
            assert sum([1 async for _ in stream]) == count

    bench.measure(work, per=count)


# ---- fan-out: what is done once for all ----


@pytest.mark.parametrize("subscribers", [100, 1_000])
def test_fan_out_as_it_is(bench: Bench, subscribers: int) -> None:
    fan_out(bench, PASSTHROUGH, subscribers, events=100)


def test_fan_out_through_one_function_call(bench: Bench) -> None:
    fan_out(bench, SHARED, 100, events=100)


def test_fan_out_through_a_call_per_viewer(bench: Bench) -> None:
    fan_out(bench, VIEWER, 100, events=20)


def test_fan_out_through_a_thread(bench: Bench) -> None:
    fan_out(bench, THREAD, 100, events=100)


@pytest.mark.timeout(300)
def test_100_subscriptions_of_10_000_events(bench: Bench) -> None:
    """One unit is one event; under 1,000 is the goal."""
    streams = bench.subscribe(PASSTHROUGH, range(bench.size(100)))
    events = bench.size(10_000)

    async def count(stream: Any) -> int:
        read = 0
        async for _ in stream:
            read += 1
            if read == events:
                break
        return read

    async def work() -> None:
        readers = [asyncio.ensure_future(count(stream)) for stream in streams]
        for n in range(events):
            await bench.publish()
            if n % 100 == 99:
                await asyncio.sleep(0)
        assert await asyncio.gather(*readers) == [events] * len(streams)

    bench.measure(work, per=events, rounds=1)


# ---- matching: an event costs what it matches ----


@pytest.mark.timeout(300)
def test_one_match_among_10_000(bench: Bench) -> None:
    streams = [bench.subscribe(PASSTHROUGH, [1], id=str(n))[0] for n in range(bench.size(10_000))]
    count = bench.size(1_000)

    async def work() -> None:
        for n in range(count):
            await bench.publish(n)
            await anext(streams[n])

    bench.measure(work, per=count)


@pytest.mark.timeout(300)
def test_no_match_among_10_000(bench: Bench) -> None:
    for n in range(bench.size(10_000)):
        bench.subscribe(PASSTHROUGH, [1], id=str(n))
    count = bench.size(1_000)

    async def work() -> None:
        for _ in range(count):
            await bench.publish("nobody's")

    bench.measure(work, per=count)


def test_one_viewers_row_among_1_000(bench: Bench) -> None:
    streams = bench.subscribe(OWN, range(bench.size(1_000)))

    async def work() -> None:
        for n, stream in enumerate(streams):
            await bench.publish(n)
            await anext(stream)

    bench.measure(work, per=len(streams))


@pytest.mark.parametrize("subscribers", [100, 10_000])
def test_no_viewers_row(bench: Bench, subscribers: int) -> None:
    """One unit is one event whose owner is not among the viewers."""
    bench.subscribe(OWN, range(bench.size(subscribers)))
    count = bench.size(1_000)

    async def work() -> None:
        for _ in range(count):
            await bench.publish("nobody")

    bench.measure(work, per=count)


@pytest.mark.parametrize("tenants", [1, 100])
def test_one_tenant_among(bench: Bench, tenants: int) -> None:
    """One unit is one event of one tenant, read by its ten subscribers."""
    streams = [bench.subscribe(PASSTHROUGH, range(10), tenant=f"t{n}") for n in range(bench.size(tenants))]
    count = bench.size(1_000)

    async def work() -> None:
        for _ in range(count):
            await bench.publish(tenant="t0")
        await take(streams[0], count)

    bench.measure(work, per=count)


def test_1_000_ranges_that_no_index_finds(bench: Bench) -> None:
    query = "subscription ($above: Int!) { measured(above: $above) { id } }"
    streams = [bench.subscribe(query, [1], above=n)[0] for n in range(bench.size(1_000))]
    count = bench.size(100)

    async def work() -> None:
        for _ in range(count):
            await bench.publish(channel="measurements", value=0.5)
        await take(streams[:1], count)

    bench.measure(work, per=count)


# ---- subscribing ----


def subscribing(bench: Bench, query: Callable[[], str], count: int) -> None:
    async def work() -> None:
        for _ in range(count):
            async with bench.manager.subscribe(query()):
                pass

    bench.measure(work, per=count)


def test_subscribe_with_a_known_document(bench: Bench) -> None:
    subscribing(bench, lambda: PASSTHROUGH, bench.size(1_000))


def test_subscribe_with_a_new_document(bench: Bench) -> None:
    numbers = itertools.count()
    subscribing(bench, lambda: f"subscription S{next(numbers)} {{ userUpdated {{ id payload }} }}", bench.size(1_000))


@pytest.mark.timeout(300)
def test_10_000_live_subscriptions(bench: Bench) -> None:
    """One unit is one subscription, opened and closed beside the others."""
    count = bench.size(10_000)

    async def work() -> None:
        streams = [bench.manager.subscribe(PASSTHROUGH, variables={"id": str(n)}) for n in range(count)]
        for stream in streams:
            await stream.__aenter__()
        assert bench.manager.get_metrics()["subscriptions"] == count
        for stream in streams:
            await stream.aclose()

    bench.measure(work, per=count, rounds=3)


def test_resume_over_1_000_events(bench: Bench) -> None:
    count = bench.size(1_000)

    async def first() -> str:
        async with bench.manager.subscribe(PASSTHROUGH, resume=True, framing="result") as stream:
            await bench.publish()
            token: str = json.loads(await anext(stream))["extensions"]["eventId"]
        for _ in range(count):
            await bench.publish()
        return token

    token = bench.run(first())

    async def work() -> None:
        async with bench.manager.subscribe(PASSTHROUGH, resume=token) as stream:
            await take([stream], count)

    bench.measure(work, per=count)


# ---- around it ----


def test_build_of_a_schema(benchmark: Any) -> None:
    benchmark(Schema, subscriptions=SUBSCRIPTIONS)


def test_metrics(bench: Bench) -> None:
    async def work() -> None:
        bench.manager.get_metrics()
        bench.manager.prometheus()

    bench.measure(work)
