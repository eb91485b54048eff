"""A reader that lags: the four rules, what is counted and what is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fraiseql_subs import Event, Limits, SlowConsumer, subscription

from .support import TICKS, Tick, manager_of, nonzero, one, rest, soon, take, ticks

PADDED = "subscription { ticks { n pad } }"


async def publish(manager, *numbers: int, pad: str | None = None) -> None:
    for n in numbers:
        await manager.publish_event("x", "c", {"n": n, "pad": pad})


def tick(n: int, dropped: int = 0) -> dict[str, Any]:
    payload: dict[str, Any] = {"data": {"ticks": {"n": n}}}
    if dropped:
        payload["extensions"] = {"dropped": dropped}
    return payload


async def test_up_to_the_limit_nothing_is_lost():
    manager = manager_of(ticks, limits=Limits(queue_messages=5))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, *range(5))
        assert await take(stream, 5) == [tick(n) for n in range(5)]
        await publish(manager, *range(5))
        assert await take(stream, 5) == [tick(n) for n in range(5)]
    assert nonzero(manager, "events_dropped") == {}


async def test_disconnect_raises_and_discards_what_waits():
    manager = manager_of(ticks, limits=Limits(queue_messages=5))
    async with manager, manager.subscribe(TICKS, subscription_id="a") as stream, manager.subscribe(TICKS) as other:
        await publish(manager, 0)
        assert await one(other) == tick(0)
        await publish(manager, *range(1, 5))
        assert await take(other, 4) == [tick(n) for n in range(1, 5)]
        await publish(manager, 5)
        with pytest.raises(SlowConsumer):
            await soon(anext(stream))
        assert await rest(stream) == []
        assert manager.get_metrics()["subscriptions"] == 1
        assert nonzero(manager, "events_dropped") == {"overflow": 6}
        await publish(manager, 6)
        assert await take(other, 2) == [tick(5), tick(6)]
        async with manager.subscribe(TICKS, subscription_id="a") as again:
            await publish(manager, 7)
            assert await one(again) == tick(7)


async def test_disconnect_wakes_a_reader_whose_messages_are_gone():
    """The reader waits in `async for` while more comes at once than its queue holds."""
    manager = manager_of(ticks, limits=Limits(queue_messages=2))
    async with manager, manager.subscribe(TICKS) as stream:
        reading = asyncio.create_task(rest(stream))
        for _ in range(10):
            await asyncio.sleep(0)
        await manager.publish_events([Event("x", "c", {"n": n}) for n in range(3)])
        with pytest.raises(SlowConsumer):
            await soon(reading)


async def test_drop_oldest_keeps_the_newest():
    manager = manager_of(ticks, limits=Limits(queue_messages=3, overflow="drop_oldest"))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, *range(8))
        assert await take(stream, 3) == [tick(5, dropped=5), tick(6), tick(7)]
        await publish(manager, 8)
        assert await one(stream) == tick(8)
    assert nonzero(manager, "events_dropped") == {"overflow": 5}


async def test_drop_newest_keeps_the_oldest():
    manager = manager_of(ticks, limits=Limits(queue_messages=3, overflow="drop_newest"))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, *range(8))
        assert await take(stream, 3) == [tick(0, dropped=5), tick(1), tick(2)]
        await publish(manager, 8)
        assert await one(stream) == tick(8)
    assert nonzero(manager, "events_dropped") == {"overflow": 5}


async def test_latest_keeps_one():
    manager = manager_of(ticks, limits=Limits(overflow="latest"))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, *range(8))
        assert await one(stream) == tick(7, dropped=7)
        await publish(manager, 8)
        assert await one(stream) == tick(8)
        await publish(manager, 9, 10)
        assert await one(stream) == tick(10, dropped=1)
    assert nonzero(manager, "events_dropped") == {"overflow": 8}


async def test_the_count_is_of_what_was_lost_since_the_message_before():
    manager = manager_of(ticks, limits=Limits(queue_messages=2, overflow="drop_newest"))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, 0, 1, 2)
        assert await one(stream) == tick(0, dropped=1)
        await publish(manager, 3, 4, 5)
        assert await one(stream) == tick(1, dropped=2)
        assert await one(stream) == tick(3)
    assert nonzero(manager, "events_dropped") == {"overflow": 3}


async def test_a_field_has_its_own_rule():
    @subscription(channel="c", passthrough=True, overflow="latest")
    def newest() -> Tick:
        raise NotImplementedError

    manager = manager_of(ticks, newest, limits=Limits(queue_messages=4, overflow="drop_oldest"))
    async with manager, manager.subscribe(TICKS) as first, manager.subscribe("subscription { newest { n } }") as second:
        await publish(manager, *range(5))
        assert await take(first, 4) == [tick(1, dropped=1), tick(2), tick(3), tick(4)]
        assert await one(second) == {"data": {"newest": {"n": 4}}, "extensions": {"dropped": 4}}


async def test_a_rule_of_a_field_beats_disconnect_and_the_other_way_round():
    @subscription(channel="c", passthrough=True, overflow="disconnect")
    def strict() -> Tick:
        raise NotImplementedError

    manager = manager_of(ticks, strict, limits=Limits(queue_messages=1, overflow="drop_newest"))
    async with manager, manager.subscribe(TICKS) as first, manager.subscribe("subscription { strict { n } }") as second:
        await publish(manager, 0, 1)
        assert await one(first) == tick(0, dropped=1)
        with pytest.raises(SlowConsumer):
            await soon(anext(second))


async def test_bytes_are_bounded_exactly():
    one_result = len('{"data":{"ticks":{"n":0}}}')
    for queue_bytes, kept in ((3 * one_result, 3), (3 * one_result - 1, 2)):
        manager = manager_of(ticks, limits=Limits(queue_bytes=queue_bytes, overflow="drop_newest"))
        async with manager, manager.subscribe(TICKS) as stream:
            await publish(manager, 0, 1, 2, 3)
            assert await take(stream, kept) == [tick(0, dropped=4 - kept), *[tick(n) for n in range(1, kept)]]


async def test_drop_oldest_gives_way_to_a_large_message_by_as_many_as_it_takes():
    manager = manager_of(ticks, limits=Limits(queue_bytes=500, overflow="drop_oldest"))
    async with manager, manager.subscribe(PADDED) as stream:
        await publish(manager, *range(5))
        await publish(manager, 5, pad="x" * 400)
        got = await take(stream, 2)
        lost = got[0]["extensions"]["dropped"]
        assert [payload["data"]["ticks"]["n"] for payload in got] == [4, 5]
        assert lost == 4
    assert nonzero(manager, "events_dropped") == {"overflow": 4}


@pytest.mark.parametrize("overflow", ["disconnect", "drop_oldest", "drop_newest", "latest"])
async def test_a_huge_message_enters_an_empty_queue(overflow):
    limits = Limits(queue_bytes=100, connection_queue_bytes=100, overflow=overflow)
    manager = manager_of(ticks, limits=limits)
    async with manager, manager.subscribe(PADDED) as stream:
        for n in range(3):
            await publish(manager, n, pad="x" * 10_000)
            assert await one(stream) == {"data": {"ticks": {"n": n, "pad": "x" * 10_000}}}
    assert nonzero(manager, "events_dropped") == {}


@pytest.mark.parametrize(
    ("overflow", "expected"),
    [("drop_oldest", [(1, 1)]), ("drop_newest", [(0, 1)]), ("latest", [(1, 1)])],
)
async def test_a_huge_message_does_not_enter_a_queue_that_is_not(overflow, expected):
    manager = manager_of(ticks, limits=Limits(queue_bytes=100, overflow=overflow))
    async with manager, manager.subscribe(PADDED) as stream:
        await publish(manager, 0)
        await publish(manager, 1, pad="x" * 10_000)
        got = await take(stream, len(expected))
        assert [(payload["data"]["ticks"]["n"], payload["extensions"]["dropped"]) for payload in got] == expected


async def test_a_message_beyond_the_queue_behind_a_small_one_disconnects():
    manager = manager_of(ticks, limits=Limits(queue_bytes=100))
    async with manager, manager.subscribe(PADDED) as stream:
        await publish(manager, 0)
        await publish(manager, 1, pad="x" * 10_000)
        with pytest.raises(SlowConsumer):
            await soon(anext(stream))
    assert nonzero(manager, "events_dropped") == {"overflow": 2}


async def test_connection_queue_bytes_bound_a_subscribe_too():
    manager = manager_of(ticks, limits=Limits(connection_queue_bytes=60, overflow="drop_newest"))
    async with manager, manager.subscribe(TICKS) as stream:
        await publish(manager, 0, 1, 2)
        assert await take(stream, 2) == [tick(0, dropped=1), tick(1)]


async def test_subscriptions_of_one_label_do_not_share_a_connections_bytes():
    """In process a label is a label: each `subscribe` has its own reader."""
    manager = manager_of(ticks, limits=Limits(connection_queue_bytes=60, overflow="drop_newest"))
    async with (
        manager,
        manager.subscribe(TICKS, connection_id="x") as first,
        manager.subscribe(TICKS, connection_id="x") as second,
    ):
        await publish(manager, 0, 1)
        for stream in (first, second):
            assert await take(stream, 2) == [tick(0), tick(1)]


async def test_a_result_beyond_max_result_bytes_is_an_error_in_its_place():
    manager = manager_of(ticks, limits=Limits(max_result_bytes=200, max_event_bytes=200))
    async with manager, manager.subscribe(PADDED) as stream, manager.subscribe(TICKS) as small:
        await publish(manager, 0, pad="x" * 180)
        await publish(manager, 1, pad="x")
        first, second = await take(stream, 2)
        [error] = first["errors"]
        assert first["data"] is None
        assert error["extensions"] == {"code": "RESULT_TOO_LARGE"}
        assert second == {"data": {"ticks": {"n": 1, "pad": "x"}}}
        assert await take(small, 2) == [tick(0), tick(1)]
    assert nonzero(manager, "events_dropped") == {"result": 1}


async def test_exactly_max_result_bytes_is_sent():
    body = len('{"data":{"ticks":{"n":0,"pad":""}}}')
    manager = manager_of(ticks, limits=Limits(max_result_bytes=body + 10, max_event_bytes=body + 10))
    async with manager, manager.subscribe(PADDED) as stream:
        await publish(manager, 0, pad="x" * 10)
        await publish(manager, 0, pad="x" * 11)
        first, second = await take(stream, 2)
        assert first == {"data": {"ticks": {"n": 0, "pad": "x" * 10}}}
        assert second["errors"][0]["extensions"] == {"code": "RESULT_TOO_LARGE"}


async def test_the_rules_hold_for_functions_too():
    @subscription(channel="c", overflow="drop_oldest")
    async def counted(event: Event) -> int:
        if event.data["n"] == 9:
            done.set()
        return event.data["n"]

    done = asyncio.Event()
    manager = manager_of(counted, limits=Limits(queue_messages=3))
    async with manager, manager.subscribe("subscription { counted }") as stream:
        for n in range(10):
            # One after the other, so that nothing waits for the function itself.
            await publish(manager, n)
            for _ in range(10):
                await asyncio.sleep(0)
        await soon(done.wait())
        while manager.get_metrics()["events_dropped"]["overflow"] < 7:
            await asyncio.sleep(0)
        assert await take(stream, 3) == [
            {"data": {"counted": 7}, "extensions": {"dropped": 7}},
            {"data": {"counted": 8}},
            {"data": {"counted": 9}},
        ]


async def test_nothing_is_told_to_those_who_lost_nothing():
    manager = manager_of(ticks, limits=Limits(queue_messages=2, overflow="drop_oldest"))
    async with manager, manager.subscribe(TICKS) as slow, manager.subscribe(TICKS) as quick:
        for n in range(4):
            await publish(manager, n)
            assert await one(quick) == tick(n)
        assert await take(slow, 2) == [tick(2, dropped=2), tick(3)]


async def test_complete_gives_what_waits_with_its_count():
    manager = manager_of(ticks, limits=Limits(queue_messages=2, overflow="drop_oldest"))
    async with manager, manager.subscribe(TICKS, subscription_id="a") as stream:
        await publish(manager, 0, 1, 2)
        await manager.complete_subscription("a")
        assert await rest(stream) == [tick(1, dropped=1), tick(2)]
