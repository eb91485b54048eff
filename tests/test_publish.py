"""`publish_event` and its kin: what converts, what is refused, from where, and that readers get their turn."""

from __future__ import annotations

import asyncio
import enum
import json
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pydantic
import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    JSON,
    Event,
    Limits,
    NotRunning,
    SecurityContext,
    SlowConsumer,
    subscription,
)

from .support import manager_of, one, rest, soon, take


class Colour(enum.Enum):
    RED = "#f00"


class Level(enum.IntEnum):
    HIGH = 3


@dataclass
class Line:
    sku: str
    at: datetime
    tags: list[str] = field(default_factory=list)


class Address(pydantic.BaseModel):
    city: str
    id: UUID


@dataclass
class Holder:
    body: JSON | None


@subscription(channel="c", passthrough=True)
def raw() -> Holder:
    raise NotImplementedError


@subscription(channel="c")
async def seen(event: Event) -> JSON | None:
    return event.data["body"]


RAW = "subscription { raw { body } }"
SOME_ID = UUID("C0FFEE00-0000-4000-8000-000000000001")
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=timezone(timedelta(hours=2)))


# ---- what converts ----


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SOME_ID, "c0ffee00-0000-4000-8000-000000000001"),
        (MOMENT, "2026-01-02T03:04:05.000678+02:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (Colour.RED, "RED"),
        (Level.HIGH, "HIGH"),
        (Line("a", MOMENT, ["x"]), {"sku": "a", "at": "2026-01-02T03:04:05.000678+02:00", "tags": ["x"]}),
        (Address(city="Bern", id=SOME_ID), {"city": "Bern", "id": "c0ffee00-0000-4000-8000-000000000001"}),
        ((1, [2, (3,)]), [1, [2, [3]]]),
        (MappingProxyType({"a": {"b": None}}), {"a": {"b": None}}),
        (None, None),
        (True, True),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**64, 2**64),
        (10**60, 10**60),
        (0.1, 0.1),
        (1e300, 1e300),
        (5e-324, 5e-324),
        ('é\u2028\U0001f600"\\\x1f', 'é\u2028\U0001f600"\\\x1f'),
        ({"": {"é": []}}, {"": {"é": []}}),
        ([Colour.RED, [SOME_ID]], ["RED", ["c0ffee00-0000-4000-8000-000000000001"]]),
    ],
)
async def test_values_convert(given, expected):
    manager = manager_of(raw, seen)
    async with (
        manager,
        manager.subscribe(RAW, framing="result") as native,
        manager.subscribe("subscription { seen }", framing="result") as function,
    ):
        await manager.publish_event("x", "c", {"body": given})
        assert await one(native) == {"data": {"raw": {"body": expected}}}
        assert await one(function) == {"data": {"seen": expected}}


@pytest.mark.parametrize(("given", "numeric"), [(Decimal("1.10"), 1.1), (Decimal("100"), 100), (Decimal("1E+2"), 100)])
async def test_a_decimal_arrives_as_a_number_or_its_text(given, numeric):
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        await manager.publish_event("x", "c", {"body": given})
        body = (await one(stream))["data"]["raw"]["body"]
        assert Decimal(str(body)) == given == Decimal(str(numeric))


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"body": 1}', "1"),
        (' \n{"body":\t[1, {"a":2}] } ', '[1,{"a":2}]'),
        ('{"body": 1, "body": 2}', "2"),
        ('{"body": {"a": 1, "b": 0, "a": {"c": 1, "c": 2}}}', None),
        ('{"body": 123456789012345678901234567890}', "123456789012345678901234567890"),
        ('{"body": 18446744073709551616}', "18446744073709551616"),
        ('{"body": -9223372036854775809}', "-9223372036854775809"),
        ('{"body": "\\u00e9\\ud83d\\ude00"}', '"é\U0001f600"'),
        ('{"body": "é"}', '"é"'),
    ],
)
async def test_json_text_is_taken(text, expected, as_bytes):
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW, framing="result") as stream:
        await manager.publish_event("x", "c", text.encode() if as_bytes else text)
        message = (await soon(anext(stream))).decode()
    if expected is None:
        assert json.loads(message)["data"]["raw"]["body"] == {"a": {"c": 2}, "b": 0}
    else:
        assert message == f'{{"data":{{"raw":{{"body":{expected}}}}}}}'


async def test_a_number_beyond_a_double_is_kept_as_it_was_written():
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW, framing="result") as stream:
        await manager.publish_event("x", "c", '{"body": 1e400}')
        assert (await soon(anext(stream))).decode().lower().replace("+", "") == '{"data":{"raw":{"body":1e400}}}'


async def test_each_call_gets_its_own_data_and_the_publisher_keeps_theirs():
    got: list[Event] = []

    @subscription(channel="c")
    async def first(event: Event) -> int:
        got.append(event)
        event.data["body"].append(1)
        return len(event.data["body"])

    @subscription(channel="c")
    async def second(event: Event) -> int:
        got.append(event)
        event.data["body"].append(1)
        return len(event.data["body"])

    manager = manager_of(first, second)
    body: list[int] = []
    async with (
        manager,
        manager.subscribe("subscription { first }") as one_stream,
        manager.subscribe("subscription { second }") as other_stream,
    ):
        identity = await manager.publish_event("kind", "c", {"body": body}, tenant_id=None, source="billing")
        body.append(7)
        assert await one(one_stream) == {"data": {"first": 1}}
        assert await one(other_stream) == {"data": {"second": 1}}
    assert body == [7]
    assert [(event.id, event.event_type, event.channel, event.source, event.tenant_id) for event in got] == [
        (identity, "kind", "c", "billing", None)
    ] * 2
    assert abs(got[0].published_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert got[0].published_at.utcoffset() == timedelta(0)
    assert got[0].published_at == got[1].published_at
    with pytest.raises(AttributeError):
        got[0].channel = "d"  # type: ignore[misc]  # that is the point


# ---- what is refused ----


class Strange:
    pass


@pytest.mark.parametrize(
    ("data", "error", "path"),
    [
        ({"a": {"b": [1, Strange()]}}, TypeError, 'data["a"]["b"][1]'),
        ({"a": {1, 2}}, TypeError, 'data["a"]'),
        ({"a": b"bytes"}, TypeError, 'data["a"]'),
        ({"a": 1j}, TypeError, 'data["a"]'),
        ({"a": Strange}, TypeError, 'data["a"]'),
        ({"a": Line}, TypeError, 'data["a"]'),
        ({1: 2}, TypeError, "data"),
        ({"a": {None: 2}}, TypeError, 'data["a"]'),
        ({"a": [float("nan")]}, ValueError, 'data["a"][0]'),
        ({"a": float("inf")}, ValueError, 'data["a"]'),
        ({"a": -float("inf")}, ValueError, 'data["a"]'),
        ({"a": Decimal("NaN")}, ValueError, 'data["a"]'),
        ({"a": Decimal("sNaN")}, ValueError, 'data["a"]'),
        ({"a": Decimal("Infinity")}, ValueError, 'data["a"]'),
        ({"a": {"b": "\0"}}, ValueError, 'data["a"]["b"]'),
        ({"a": "\ud800"}, ValueError, 'data["a"]'),
        ({"a": {"\ud800": 1}}, ValueError, 'data["a"]'),
        ({"a": {"\0": 1}}, ValueError, 'data["a"]'),
        ([], TypeError, "data"),
        (None, TypeError, "data"),
        (1, TypeError, "data"),
        ("[]", TypeError, "data"),
        ("1", TypeError, "data"),
        ("null", TypeError, "data"),
        ("", ValueError, "data"),
        ("{", ValueError, "data"),
        ('{"a": 1} x', ValueError, "data"),
        ('{"a": NaN}', ValueError, "data"),
        ('{"a": Infinity}', ValueError, "data"),
        ("{'a': 1}", ValueError, "data"),
        ('{"a": 01}', ValueError, "data"),
        ('{"a": "\\u0000"}', ValueError, "data"),
        ('{"a\\u0000": 1}', ValueError, "data"),
        ('{"a": "\\ud800"}', ValueError, "data"),
        ('{"a": "\\udc00\\ud800"}', ValueError, "data"),
        (b'{"a": "\xff"}', ValueError, "data"),
        (b"\xef\xbb\xbf{}", ValueError, "data"),
        ('{"a": "\ud800"}', ValueError, "data"),
        ('{"a": "\0"}', ValueError, "data"),
        ('{"a":' * 100_000, ValueError, "data"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, ValueError, "data"),
    ],
)
@pytest.mark.parametrize("as_previous", [False, True])
async def test_what_is_no_json_object_raises_and_names_its_path(data, error, path, as_previous):
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        if as_previous and data is None:
            return
        given = {"data": {"body": 0}, "previous": data} if as_previous else {"data": data}
        with pytest.raises(error) as raised:
            await manager.publish_event("x", "c", **given)
        assert (path.replace("data", "previous", 1) if as_previous else path) in str(raised.value)
        await manager.publish_event("x", "c", {"body": 1})
        assert await one(stream) == {"data": {"raw": {"body": 1}}}
        assert manager.get_metrics()["events_published"] == 1


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return {"body": value}


async def test_deep_data_is_refused_alike_as_a_mapping_and_as_text():
    manager = manager_of(raw)
    async with manager:
        for data in (nested(3000), '{"a":' * 3000 + "1" + "}" * 3000):
            with pytest.raises(ValueError, match="data"):
                await manager.publish_event("x", "c", data)
        loop: dict[str, Any] = {}
        loop["a"] = loop
        with pytest.raises(ValueError, match="data"):
            await manager.publish_event("x", "c", loop)
        await manager.publish_event("x", "c", nested(100))


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("", "c"), {}, ValueError),
        (("x", ""), {}, ValueError),
        (("x\0", "c"), {}, ValueError),
        (("x", "c\0"), {}, ValueError),
        (("\ud800", "c"), {}, ValueError),
        (("x", "\udfff"), {}, ValueError),
        ((1, "c"), {}, TypeError),
        (("x", None), {}, TypeError),
        (("x", b"c"), {}, TypeError),
        (("x", "c"), {"source": 1}, TypeError),
        (("x", "c"), {"source": "\0"}, ValueError),
        (("x", "c"), {"source": "\ud800"}, ValueError),
        (("x", "c"), {"tenant_id": 1.5}, TypeError),
        (("x", "c"), {"tenant_id": True}, TypeError),
        (("x", "c"), {"tenant_id": "\0"}, ValueError),
        (("x", "c"), {"tenant_id": "\ud800"}, ValueError),
        (("x", "c"), {"tenant_id": b"t"}, TypeError),
    ],
)
async def test_other_arguments_are_checked_too(arguments: Any, options: Any, error: Any):
    event_type, channel = arguments
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        with pytest.raises(error):
            await manager.publish_event(event_type, channel, {"body": 0}, **options)
        with pytest.raises(error):
            await manager.publish_events([Event(event_type, channel, {"body": 0}, **options)])
        with pytest.raises(error):
            await asyncio.to_thread(manager.publish_event_sync, event_type, channel, {"body": 0}, **options)
        await manager.publish_event("x", "c", {"body": 1})
        assert await one(stream) == {"data": {"raw": {"body": 1}}}


async def test_exactly_max_event_bytes_is_accepted():
    manager = manager_of(raw, limits=Limits(max_event_bytes=100))
    fitting = {"body": "a" * (100 - len('{"body":""}'))}
    over = {"body": fitting["body"] + "a"}
    async with manager, manager.subscribe(RAW) as stream:
        for form in (lambda data: data, lambda data: json.dumps(data, separators=(",", ":"))):
            await manager.publish_event("x", "c", form(fitting))
            await manager.publish_event("x", "c", {"body": 1}, previous=form(fitting))
            with pytest.raises(ValueError, match="max_event_bytes"):
                await manager.publish_event("x", "c", form(over))
            with pytest.raises(ValueError, match=r"previous.*max_event_bytes"):
                await manager.publish_event("x", "c", {"body": 1}, previous=form(over))
            with pytest.raises(ValueError, match="max_event_bytes"):
                await manager.publish_events([Event("x", "c", {"body": 1}), Event("x", "c", over)])
        assert await take(stream, 4) == [
            {"data": {"raw": {"body": body}}} for body in (fitting["body"], 1, fitting["body"], 1)
        ]
        assert manager.get_metrics()["events_published"] == 4


async def test_bytes_are_counted_not_characters():
    manager = manager_of(raw, limits=Limits(max_event_bytes=20))
    async with manager:
        await manager.publish_event("x", "c", {"a": "é" * 6})
        with pytest.raises(ValueError, match="max_event_bytes"):
            await manager.publish_event("x", "c", {"a": "é" * 7})


# ---- several at once ----


async def test_publish_events_gives_ids_in_order_and_keeps_the_order():
    ids: list[str] = []

    @subscription(channel="c")
    async def watch(event: Event) -> int:
        ids.append(event.id)
        return event.data["n"]

    manager = manager_of(watch)
    async with manager, manager.subscribe("subscription { watch }") as stream:
        events = [Event("x", "c", {"n": n}, id="mine", published_at=datetime(2000, 1, 1)) for n in range(50)]
        given = await manager.publish_events(events)
        assert await take(stream, 50) == [{"data": {"watch": n}} for n in range(50)]
        assert given == ids
        assert len(set(ids)) == 50
        assert "mine" not in ids
        assert await manager.publish_events([]) == []
        last = await manager.publish_events(iter([Event("x", "c", {"n": 1})]))
        assert await one(stream) == {"data": {"watch": 1}}
        assert last == ids[50:]


async def test_publish_events_is_all_or_none():
    manager = manager_of(raw)
    good = Event("x", "c", {"body": 0})
    async with manager, manager.subscribe(RAW) as stream:
        for bad in (
            Event("x", "", {"body": 0}),
            Event("x", "c", {"body": float("nan")}),
            Event("x", "c", {"body": Strange()}),
            Event("x", "c", [1]),  # type: ignore[arg-type]  # that is the point
            Event("x", "c", {"body": 0}, source="\0"),
        ):
            with pytest.raises((TypeError, ValueError)):
                await manager.publish_events([good, bad, good])
        with pytest.raises((TypeError, AttributeError)):
            await manager.publish_events([good, {"event_type": "x"}])  # type: ignore[list-item]  # that is the point
        await manager.publish_event("x", "c", {"body": 1})
        assert await one(stream) == {"data": {"raw": {"body": 1}}}
        assert manager.get_metrics()["events_published"] == 1


async def test_publish_events_reaches_tenants():
    manager = manager_of(raw)
    async with (
        manager,
        manager.subscribe(RAW, context=SecurityContext(tenant_id="a")) as a,
        manager.subscribe(RAW) as none,
    ):
        await manager.publish_events(
            [
                Event("x", "c", {"body": 1}, tenant_id="a"),
                Event("x", "c", {"body": 2}),
                Event("x", "c", {"body": 3}, tenant_id=ALL_TENANTS),
            ]
        )
        assert await take(a, 2) == [{"data": {"raw": {"body": n}}} for n in (1, 3)]
        assert await take(none, 2) == [{"data": {"raw": {"body": n}}} for n in (2, 3)]


# ---- from where ----


async def test_publish_event_sync_from_threads():
    manager = manager_of(raw)

    def publish(start: int) -> list[str]:
        return [manager.publish_event_sync("x", "c", {"body": start + n}) for n in range(100)]

    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(take(stream, 400))
        ids = await asyncio.gather(*(asyncio.to_thread(publish, 1000 * thread) for thread in range(4)))
        bodies = [message["data"]["raw"]["body"] for message in await soon(reading)]
    assert len({identity for part in ids for identity in part}) == 400
    for thread in range(4):
        assert [body for body in bodies if body // 1000 == thread] == [1000 * thread + n for n in range(100)]


async def test_publish_event_sync_on_a_loop_raises():
    manager = manager_of(raw)
    async with manager:
        with pytest.raises(RuntimeError, match="await publish_event"):
            manager.publish_event_sync("x", "c", {"body": 1})


async def test_publish_event_sync_where_the_manager_is_not_entered_raises():
    manager = manager_of(raw)
    with pytest.raises(RuntimeError):
        await asyncio.to_thread(manager.publish_event_sync, "x", "c", {"body": 1})


async def test_publish_event_from_other_loops():
    manager = manager_of(raw)

    async def publish(start: int) -> None:
        for n in range(100):
            await manager.publish_event("x", "c", {"body": start + n})

    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(take(stream, 300))
        await asyncio.gather(*(asyncio.to_thread(asyncio.run, publish(1000 * loop)) for loop in range(3)))
        bodies = [message["data"]["raw"]["body"] for message in await soon(reading)]
    for loop in range(3):
        assert [body for body in bodies if body // 1000 == loop] == [1000 * loop + n for n in range(100)]


async def test_before_entering_and_after_leaving_publishing_raises():
    manager = manager_of(raw)
    for _ in range(2):
        with pytest.raises(NotRunning, match="enter"):
            await manager.publish_event("x", "c", {"body": 1})
        with pytest.raises(NotRunning):
            await manager.publish_events([Event("x", "c", {"body": 1})])
        async with manager:
            await manager.publish_event("x", "c", {"body": 1})
    assert manager.get_metrics()["events_published"] == 2


# ---- fairness ----


async def read_by_iteration(stream, count):
    got = []
    async for message in stream:
        got.append(message)
        if len(got) == count:
            break
    return got


async def read_with_time_limits(stream, count):
    return [await asyncio.wait_for(anext(stream), 5) for _ in range(count)]


async def read_with_turns(stream, count):
    got = []
    async for message in stream:
        got.append(message)
        await asyncio.sleep(0)
        if len(got) == count:
            break
    return got


@pytest.mark.parametrize("read", [read_by_iteration, read_with_time_limits, read_with_turns])
@pytest.mark.parametrize("field", ["raw { body }", "seen"])
async def test_five_thousand_events_in_a_row_do_not_overrun_a_reader_on_the_same_loop(read, field):
    count = 5000
    manager = manager_of(raw, seen)
    async with manager, manager.subscribe(f"subscription {{ {field} }}", framing="result") as stream:
        reading = asyncio.create_task(read(stream, count))
        for n in range(count):
            await manager.publish_event("x", "c", {"body": n})
        messages = [json.loads(message) for message in await soon(reading)]
    name = field.partition(" ")[0]
    expected = [{name: {"body": n}} if name == "raw" else {name: n} for n in range(count)]
    assert messages == [{"data": data} for data in expected]


async def test_thousands_of_publishes_gathered_do_not_overrun_it_either():
    count = 5000
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(read_by_iteration(stream, count))
        ids = await asyncio.gather(*(manager.publish_event("x", "c", {"body": n}) for n in range(count)))
        bodies = [json.loads(message)["payload"]["data"]["raw"]["body"] for message in await soon(reading)]
    assert sorted(bodies) == list(range(count))
    assert len(set(ids)) == count


async def test_lists_of_events_in_a_row_do_not_overrun_it_either():
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(read_by_iteration(stream, 5000))
        for n in range(50):
            await manager.publish_events([Event("x", "c", {"body": 100 * n + m}) for m in range(100)])
        bodies = [json.loads(message)["payload"]["data"]["raw"]["body"] for message in await soon(reading)]
    assert bodies == list(range(5000))


async def test_a_publisher_never_waits_for_a_reader_that_does_not_read():
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        for n in range(3000):
            await soon(manager.publish_event("x", "c", {"body": n}))
        with pytest.raises(SlowConsumer):
            await anext(stream)


async def test_a_cancelled_publisher_stops_others_from_nothing():
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(read_by_iteration(stream, 500))

        async def flood() -> None:
            while True:
                await manager.publish_event("noise", "d", {})

        floods = [asyncio.create_task(flood()) for _ in range(3)]
        for n in range(500):
            await manager.publish_event("x", "c", {"body": n})
            if n == 250:
                for task in floods:
                    task.cancel()
        assert len(await soon(reading)) == 500
        await asyncio.gather(*floods, return_exceptions=True)


async def test_five_thousand_events_from_a_thread_do_not_overrun_it():
    count = 5000
    manager = manager_of(raw)

    def publish() -> None:
        for n in range(count):
            manager.publish_event_sync("x", "c", {"body": n})

    async with manager, manager.subscribe(RAW) as stream:
        reading = asyncio.create_task(read_by_iteration(stream, count))
        await asyncio.to_thread(publish)
        assert len(await soon(reading)) == count


def test_the_loop_may_stand_still_between_publishes():
    manager = manager_of(raw)
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(manager.__aenter__())
        stream = manager.subscribe(RAW)
        loop.run_until_complete(_enter(stream))
        for n in range(200):
            manager.publish_event_sync("x", "c", {"body": n})
        assert len(loop.run_until_complete(take(stream, 200))) == 200
        loop.run_until_complete(manager.__aexit__(None, None, None))
        assert loop.run_until_complete(rest(stream)) == []
    finally:
        loop.close()


async def _enter(stream: Any) -> None:
    await stream.__aenter__()


async def test_an_event_that_nobody_hears_is_published_all_the_same():
    manager = manager_of(raw)
    async with manager, manager.subscribe(RAW) as stream:
        first = await manager.publish_event("x", "nobody", {})
        second = await manager.publish_event("x", "c", {"body": 1})
        assert first != second
        assert await one(stream) == {"data": {"raw": {"body": 1}}}
        metrics = manager.get_metrics()
        assert (metrics["events_published"], metrics["events_delivered"]) == (2, 1)
