"""`manager.subscribe`: what it raises, what its messages look like, how it is read and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import re
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fraiseql_subs import (
    ID,
    Event,
    Forbidden,
    FraiseQLSubsError,
    GraphQLRequestError,
    Limits,
    NotRunning,
    SecurityContext,
    argument,
    data,
    subscription,
)

from .support import ORDERS, Order, manager_of, one, publish_order, reader, rest, soon, take

ORDER_UPDATED = "subscription ($id: ID!) { orderUpdated(orderId: $id) { id status } }"


# ---- messages ----


async def test_next_is_a_whole_message_of_the_protocol_with_the_id_that_was_given():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS, subscription_id='a"é') as stream:
        assert stream.id == 'a"é'
        await publish_order(manager, 1)
        message = await soon(anext(stream))
    assert type(message) is bytes
    assert json.loads(message) == {"id": 'a"é', "type": "next", "payload": {"data": {"orders": {"id": "1"}}}}


async def test_an_id_is_made_up_where_none_is_given():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as first, manager.subscribe(ORDERS) as second:
        assert first.id != second.id
        await publish_order(manager, 1)
        for stream in (first, second):
            message = json.loads(await soon(anext(stream)))
            assert message == {"id": stream.id, "type": "next", "payload": {"data": {"orders": {"id": "1"}}}}


async def test_result_is_the_bare_execution_result():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS, framing="result") as stream:
        await publish_order(manager, 1)
        assert await soon(anext(stream)) == b'{"data":{"orders":{"id":"1"}}}'


async def test_framings_of_one_event_differ_in_the_frame_alone():
    manager = manager_of()
    async with (
        manager,
        manager.subscribe(ORDERS, subscription_id="1") as framed,
        manager.subscribe(ORDERS, framing="result") as bare,
    ):
        await publish_order(manager, 1)
        assert json.loads(await soon(anext(framed)))["payload"] == json.loads(await soon(anext(bare)))


@pytest.mark.parametrize("framing", ["", "NEXT", "sse", None, 1])
async def test_another_framing_raises(framing):
    manager = manager_of()
    with pytest.raises((ValueError, TypeError)):
        async with manager, manager.subscribe(ORDERS, framing=framing):
            pass


# ---- arguments ----


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ('subscription { orderUpdated(orderId: "7") { id status } }', None),
        ("subscription { orderUpdated(orderId: 7) { id status } }", None),
        (ORDER_UPDATED, {"id": "7"}),
        (ORDER_UPDATED, {"id": 7}),
        ("subscription ($id: ID! = 7) { orderUpdated(orderId: $id) { id status } }", None),
        ("subscription ($id: ID! = 8) { orderUpdated(orderId: $id) { id status } }", {"id": "7"}),
        ("subscription ($other: ID!) { orderUpdated(orderId: $other) { id status } }", {"other": 7, "unused": 1}),
    ],
)
@pytest.mark.parametrize("published", [7, "7"])
async def test_a_literal_a_variable_and_a_default_are_the_same_argument(query, variables, published):
    manager = manager_of()
    async with manager, manager.subscribe(query, variables=variables) as stream:
        await publish_order(manager, 8)
        await publish_order(manager, published, status="paid")
        assert await one(stream) == {"data": {"orderUpdated": {"id": "7", "status": "paid"}}}


async def test_a_default_of_the_function_is_an_argument_like_another():
    calls = []

    @subscription(where=data["n"] >= argument("least"))
    async def numbers(event: Event, least: int = 3) -> int:
        calls.append(least)
        return event.data["n"]

    manager = manager_of(numbers)
    async with (
        manager,
        manager.subscribe("subscription { numbers }") as omitted,
        manager.subscribe("subscription { numbers(least: 3) }") as literal,
        manager.subscribe("subscription ($n: Int!) { numbers(least: $n) }", variables={"n": 3}) as variable,
        manager.subscribe("subscription ($n: Int) { numbers(least: $n) }") as absent,
    ):
        for n in (2, 3):
            await manager.publish_event("x", "numbers", {"n": n})
        for stream in (omitted, literal, variable, absent):
            assert await one(stream) == {"data": {"numbers": 3}}
    assert calls == [3]


# ---- what is refused ----


def coded(error: GraphQLRequestError) -> list[tuple[str, list[tuple[int, int]]]]:
    return [
        (each["extensions"]["code"], [(at["line"], at["column"]) for at in each.get("locations", [])])
        for each in error.errors
    ]


@pytest.mark.parametrize(
    ("query", "options", "expected"),
    [
        ("subscription {\n  orders { id }", {}, ("GRAPHQL_PARSE_FAILED", [(2, 16)])),
        ("", {}, ("GRAPHQL_PARSE_FAILED", None)),
        ("subscription { orders { id } } }", {}, ("GRAPHQL_PARSE_FAILED", [(1, 32)])),
        ("subscription {\n  nothing\n}", {}, ("GRAPHQL_VALIDATION_FAILED", [(2, 3)])),
        ("subscription { orders { id nope } }", {}, ("GRAPHQL_VALIDATION_FAILED", [(1, 28)])),
        ("subscription { orders }", {}, ("GRAPHQL_VALIDATION_FAILED", [(1, 16)])),
        ("subscription { orders { id } __typename }", {}, ("GRAPHQL_VALIDATION_FAILED", None)),
        ("subscription { __typename }", {}, ("GRAPHQL_VALIDATION_FAILED", None)),
        ("subscription { a: orders { id } b: orders { id } }", {}, ("GRAPHQL_VALIDATION_FAILED", None)),
        ("subscription { orderUpdated { id } }", {}, ("GRAPHQL_VALIDATION_FAILED", None)),
        ("subscription A { orders { id } } subscription B { orders { id } }", {}, ("OPERATION_RESOLUTION_FAILURE", [])),
        ("subscription A { orders { id } }", {"operation_name": "B"}, ("OPERATION_RESOLUTION_FAILURE", [])),
        (ORDER_UPDATED, {}, ("BAD_USER_INPUT", [(1, 15)])),
        (ORDER_UPDATED, {"variables": {}}, ("BAD_USER_INPUT", [(1, 15)])),
        (ORDER_UPDATED, {"variables": {"id": None}}, ("BAD_USER_INPUT", [(1, 15)])),
        (ORDER_UPDATED, {"variables": {"id": 1.5}}, ("BAD_USER_INPUT", [(1, 15)])),
        (ORDER_UPDATED, {"variables": {"id": {}}}, ("BAD_USER_INPUT", [(1, 15)])),
        ("{ _empty }", {}, (None, None)),
        ("query { __typename }", {}, (None, None)),
        ("{ __schema { queryType { name } } }", {}, (None, None)),
        ("mutation { orders }", {}, (None, None)),
    ],
)
async def test_a_bad_request_raises_with_code_and_locations(query, options, expected):
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError) as raised:
            async with manager.subscribe(query, **options):
                pass
        assert manager.get_metrics()["subscriptions"] == 0
    code, locations = coded(raised.value)[0]
    if expected[0] is not None:
        assert code == expected[0]
    if expected[1] is not None:
        assert locations == expected[1]
    error = raised.value.errors[0]
    assert set(error) <= {"message", "locations", "extensions"}
    assert error["message"] in str(raised.value)
    assert isinstance(raised.value, FraiseQLSubsError)


async def test_a_literal_of_the_wrong_type_names_its_place():
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError) as raised:
            async with manager.subscribe("subscription {\n orderUpdated(orderId: 1.5) { id }\n}"):
                pass
    [(code, locations)] = coded(raised.value)
    assert code in ("GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT")
    assert locations
    assert locations[0][0] == 2


async def test_an_operation_is_chosen_by_its_name():
    manager = manager_of()
    document = "subscription A { orders { id } } subscription B { orders { status } }"
    async with manager, manager.subscribe(document, operation_name="B") as stream:
        await publish_order(manager, 1, status="paid")
        assert await one(stream) == {"data": {"orders": {"status": "paid"}}}


@pytest.mark.parametrize(
    ("limits", "query"),
    [
        (Limits(max_query_bytes=30), "subscription { orders { id status } }"),
        (Limits(max_query_tokens=6), ORDERS),
        (Limits(max_query_depth=1), ORDERS),
        (Limits(max_query_fields=2), "subscription { orders { id status } }"),
        (Limits(max_query_aliases=1), "subscription { a: orders { b: id } }"),
    ],
)
async def test_query_limits_raise_limit_exceeded_before_anything_starts(limits, query):
    manager = manager_of(limits=limits)
    async with manager:
        with pytest.raises(GraphQLRequestError) as raised:
            async with manager.subscribe(query):
                pass
        [(code, _)] = coded(raised.value)
        assert code == "LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    ("limits", "query"),
    [
        (Limits(max_query_bytes=37), "subscription { orders { id status } }"),
        (Limits(max_query_tokens=7), ORDERS),
        (Limits(max_query_depth=2), ORDERS),
        (Limits(max_query_fields=3), "subscription { orders { id status } }"),
        (Limits(max_query_aliases=2), "subscription { a: orders { b: id } }"),
        (Limits(max_query_fields=3), "subscription { ...F } fragment F on Subscription { orders { id status } }"),
    ],
)
async def test_exactly_the_limit_is_accepted(limits, query):
    manager = manager_of(limits=limits)
    async with manager, manager.subscribe(query) as stream:
        await publish_order(manager, 1)
        assert "data" in await one(stream)


async def test_fragments_count_as_if_inlined():
    bomb = "subscription { orders { ...F0 } }" + "".join(
        f" fragment F{n} on Order {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60)
    )
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError) as raised:
            async with manager.subscribe(bomb + " fragment F60 on Order { id }"):
                pass
        [(code, _)] = coded(raised.value)
        assert code == "LIMIT_EXCEEDED"


@pytest.mark.parametrize("context", [{}, "user", 1, {"user_id": 1}])
async def test_a_context_that_is_none_raises(context):
    manager = manager_of()
    async with manager:
        with pytest.raises(TypeError, match="context"):
            async with manager.subscribe(ORDERS, context=context):
                pass


@pytest.mark.parametrize("variables", [[], 1, {"id": float("nan")}, {"id": object()}, {1: 2}])
async def test_variables_that_are_no_json_object_raise(variables):
    manager = manager_of()
    async with manager:
        with pytest.raises((TypeError, ValueError)):
            async with manager.subscribe(ORDER_UPDATED, variables=variables):
                pass


# ---- ids ----


async def test_an_id_in_use_raises_and_leaves_its_owner_alone():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS, subscription_id="a") as stream:
        with pytest.raises(ValueError, match="a"):
            async with manager.subscribe(ORDERS, subscription_id="a"):
                pass
        await publish_order(manager, 1)
        assert await one(stream) == {"data": {"orders": {"id": "1"}}}
        assert manager.get_metrics()["subscriptions"] == 1


async def test_an_id_belongs_to_its_label():
    manager = manager_of()
    async with (
        manager,
        manager.subscribe(ORDERS, subscription_id="a") as first,
        manager.subscribe(ORDERS, subscription_id="a", connection_id="x") as second,
        manager.subscribe(ORDERS, subscription_id="a", connection_id="y") as third,
    ):
        with pytest.raises(ValueError, match="a"):
            async with manager.subscribe(ORDERS, subscription_id="a", connection_id="x"):
                pass
        await publish_order(manager, 1)
        for stream in (first, second, third):
            assert await one(stream) == {"data": {"orders": {"id": "1"}}}


async def test_an_id_is_free_again_after_the_end_and_after_a_refusal():
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError):
            async with manager.subscribe("subscription { nothing }", subscription_id="a"):
                pass
        for _ in range(2):
            async with manager.subscribe(ORDERS, subscription_id="a") as stream:
                await publish_order(manager, 1)
                assert await one(stream) == {"data": {"orders": {"id": "1"}}}
        async with manager.subscribe(ORDERS, subscription_id="a") as stream:
            assert await manager.complete_subscription("a")
            assert await rest(stream) == []
            async with manager.subscribe(ORDERS, subscription_id="a") as again:
                await publish_order(manager, 2)
                assert await one(again) == {"data": {"orders": {"id": "2"}}}


# ---- when it is live ----


async def test_every_event_after_entering_is_seen_and_none_before():
    manager = manager_of()
    async with manager:
        stream = manager.subscribe(ORDERS)
        await publish_order(manager, 1)
        async with stream:
            await publish_order(manager, 2)
            assert await one(stream) == {"data": {"orders": {"id": "2"}}}


async def test_without_entering_it_is_live_at_the_first_iteration():
    manager = manager_of()
    async with manager:
        stream = manager.subscribe(ORDERS)
        await publish_order(manager, 1)
        reading = asyncio.ensure_future(_coroutine(anext(stream)))
        await asyncio.sleep(0)
        await publish_order(manager, 2)
        assert json.loads(await soon(reading))["payload"] == {"data": {"orders": {"id": "2"}}}
        await stream.aclose()


async def _coroutine(awaitable: Any) -> Any:
    return await awaitable


async def test_a_refusal_without_entering_is_raised_by_the_iteration():
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError):
            async for _ in manager.subscribe("subscription { nothing }"):
                pass


async def test_a_subscription_that_is_never_entered_costs_nothing():
    manager = manager_of()
    async with manager:
        for _ in range(10):
            manager.subscribe(ORDERS)
        assert manager.get_metrics()["subscriptions"] == 0


async def test_one_that_is_dropped_is_closed():
    manager = manager_of()
    async with manager:
        stream = manager.subscribe(ORDERS, subscription_id="a")
        await stream.__aenter__()
        assert manager.get_metrics()["subscriptions"] == 1
        del stream
        gc.collect()
        assert manager.get_metrics()["subscriptions"] == 0
        assert await manager.complete_subscription("a") is False


# ---- reading ----


async def test_the_order_is_the_order_of_publishing():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        for n in range(500):
            await publish_order(manager, n)
        assert await take(stream, 500) == [{"data": {"orders": {"id": str(n)}}} for n in range(500)]


async def test_a_timeout_while_waiting_loses_nothing():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        seen = []
        for n in range(30):
            with contextlib.suppress(asyncio.TimeoutError):
                seen.append(await asyncio.wait_for(anext(stream), 0.001 if n % 3 else 0))
            await publish_order(manager, n)
        seen = [json.loads(message)["payload"] for message in seen]
        assert seen + await take(stream, 30 - len(seen)) == [{"data": {"orders": {"id": str(n)}}} for n in range(30)]


async def test_cancelling_a_reader_loses_nothing():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        for n in range(20):
            reading = asyncio.create_task(_coroutine(anext(stream)))
            await asyncio.sleep(0)
            await publish_order(manager, n)
            # Woken, but not run: the message stays where it is.
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await one(stream) == {"data": {"orders": {"id": str(n)}}}


async def test_a_second_reader_is_told_and_the_first_reads_on():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        first = asyncio.create_task(_coroutine(anext(stream)))
        await asyncio.sleep(0)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="another task"):
                await anext(stream)
        await publish_order(manager, 1)
        assert json.loads(await soon(first))["payload"] == {"data": {"orders": {"id": "1"}}}
        await publish_order(manager, 2)
        assert await one(stream) == {"data": {"orders": {"id": "2"}}}


async def test_closing_ends_a_reader_that_waits():
    manager = manager_of()
    async with manager:
        stream = manager.subscribe(ORDERS)
        reading = await reader(manager, stream)
        await stream.aclose()
        assert await soon(reading) == []
        assert manager.get_metrics()["subscriptions"] == 0
        assert await rest(stream) == []
        await stream.aclose()


async def test_after_closing_nothing_more_is_given_not_even_what_waited():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        await publish_order(manager, 1)
        await publish_order(manager, 2)
        assert await one(stream) == {"data": {"orders": {"id": "1"}}}
        await stream.aclose()
        assert await rest(stream) == []
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_leaving_by_an_exception_closes_and_lets_it_pass():
    manager = manager_of()
    async with manager:
        with pytest.raises(ZeroDivisionError):
            async with manager.subscribe(ORDERS):
                raise ZeroDivisionError
        assert manager.get_metrics()["subscriptions"] == 0


async def test_a_reader_on_another_loop_and_thread():
    manager = manager_of()
    got: list[dict[str, Any]] = []
    entered, done = threading.Event(), asyncio.Event()
    home = asyncio.get_running_loop()

    async def read() -> None:
        async with manager.subscribe(ORDERS) as stream:
            entered.set()
            got.extend(await take(stream, 300))

    def run() -> None:
        asyncio.run(read())
        home.call_soon_threadsafe(done.set)

    async with manager:
        thread = threading.Thread(target=run)
        thread.start()
        await asyncio.to_thread(entered.wait)
        for n in range(300):
            await publish_order(manager, n)
        await soon(done.wait())
        thread.join()
    assert got == [{"data": {"orders": {"id": str(n)}}} for n in range(300)]


async def test_a_subscription_entered_here_may_be_read_on_another_loop():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:

        async def read() -> list[dict[str, Any]]:
            return await take(stream, 2)

        reading = asyncio.create_task(asyncio.to_thread(asyncio.run, read()))
        await publish_order(manager, 1)
        await publish_order(manager, 2)
        assert await soon(reading) == [{"data": {"orders": {"id": n}}} for n in ("1", "2")]
        await publish_order(manager, 3)
        assert await one(stream) == {"data": {"orders": {"id": "3"}}}


async def test_the_stop_of_the_manager_ends_a_reader_on_another_loop():
    manager = manager_of()
    got: list[list[Any]] = []
    entered = threading.Event()

    async def read() -> None:
        async with manager.subscribe(ORDERS) as stream:
            entered.set()
            got.append(await rest(stream))

    threads = [threading.Thread(target=asyncio.run, args=(read(),)) for _ in range(3)]
    async with manager:
        for thread in threads:
            thread.start()
            await asyncio.to_thread(entered.wait)
            entered.clear()
    for thread in threads:
        await asyncio.to_thread(thread.join, 10)
        assert not thread.is_alive()
    assert got == [[], [], []]


# ---- the end ----


async def test_complete_subscription_ends_it_after_what_waits():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS, subscription_id="a") as stream:
        await publish_order(manager, 1)
        assert await manager.complete_subscription("a") is True
        await publish_order(manager, 2)
        assert await rest(stream) == [{"data": {"orders": {"id": "1"}}}]
        assert await manager.complete_subscription("a") is False
        assert manager.get_metrics()["subscriptions"] == 0


async def test_complete_subscription_looks_under_its_label_alone():
    manager = manager_of()
    async with (
        manager,
        manager.subscribe(ORDERS, subscription_id="a") as bare,
        manager.subscribe(ORDERS, subscription_id="a", connection_id="x") as labelled,
        manager.subscribe(ORDERS, subscription_id="b", connection_id="x"),
    ):
        assert await manager.complete_subscription("b") is False
        assert await manager.complete_subscription("a", "y") is False
        assert await manager.complete_subscription("a", connection_id="x") is True
        assert await rest(labelled) == []
        await publish_order(manager, 1)
        assert await one(bare) == {"data": {"orders": {"id": "1"}}}
        assert await manager.complete_subscription("a") is True
        assert await rest(bare) == []


async def test_the_expiry_of_the_context_raises_forbidden():
    manager = manager_of()
    soon_over = datetime.now(timezone.utc) + timedelta(milliseconds=150)
    async with manager:
        async with manager.subscribe(ORDERS, context=SecurityContext(expires_at=soon_over)) as stream:
            await publish_order(manager, 1)
            assert await one(stream) == {"data": {"orders": {"id": "1"}}}
            with pytest.raises(Forbidden, match=r"^Forbidden$"):
                await soon(anext(stream))
            assert datetime.now(timezone.utc) >= soon_over
            assert await rest(stream) == []
        assert manager.get_metrics()["subscriptions"] == 0
        with pytest.raises(Forbidden):
            async with manager.subscribe(ORDERS, context=SecurityContext(expires_at=soon_over)):
                pass
        await publish_order(manager, 2)


async def test_what_waits_when_the_context_expires_is_not_given_any_more():
    manager = manager_of()
    soon_over = datetime.now(timezone.utc) + timedelta(milliseconds=100)
    context = SecurityContext(expires_at=soon_over)
    async with manager, manager.subscribe(ORDERS, context=context) as stream, manager.subscribe(ORDERS) as other:
        await publish_order(manager, 1)
        late = manager.subscribe(ORDERS, context=SecurityContext(expires_at=soon_over))
        with pytest.raises(Forbidden):
            async for _ in late:
                pass
        with pytest.raises(Forbidden):
            await soon(anext(stream))
        assert await one(other) == {"data": {"orders": {"id": "1"}}}


# ---- not there, and not entered ----


async def test_before_entering_and_after_leaving_it_raises_at_once():
    manager = manager_of()
    with pytest.raises(NotRunning, match="enter"):
        async with manager.subscribe(ORDERS):
            pass
    async with manager:
        pass
    with pytest.raises(NotRunning):
        async with manager.subscribe(ORDERS):
            pass
    with pytest.raises(NotRunning):
        async for _ in manager.subscribe(ORDERS):
            pass


async def test_a_valid_subscribe_of_a_known_document_costs_no_second_parse():
    manager = manager_of()
    async with manager:
        for n in range(5):
            async with manager.subscribe(ORDER_UPDATED, variables={"id": n}):
                pass
        assert manager._core.parses() == 1
        async with manager.subscribe(ORDERS):
            pass
        assert manager._core.parses() == 2


async def test_resuming_without_history_is_refused():
    manager = manager_of()
    async with manager:
        for resume in (True, "token"):
            with pytest.raises(GraphQLRequestError) as raised:
                async with manager.subscribe(ORDERS, resume=resume):
                    pass
            [(code, _)] = coded(raised.value)
            assert code == "RESUME_UNAVAILABLE"


async def test_placeholders_make_the_channel():
    @subscription(channel="orders:{order_id}:{kind}", passthrough=True)
    def order_changes(order_id: ID, kind: int = 1) -> Order:
        raise NotImplementedError

    manager = manager_of(order_changes)
    query = "subscription ($id: ID!) { orderChanges(orderId: $id) { id } }"
    async with manager, manager.subscribe(query, variables={"id": "é 1"}) as stream:
        for channel in ("orders:1:1", "orders:é 1:2", "orders:{order_id}:{kind}", "orders:é 1", "orders:é 1:1"):
            await manager.publish_event("x", channel, {"id": channel})
        assert await one(stream) == {"data": {"orderChanges": {"id": "orders:é 1:1"}}}
        for value in ("a\nb", "\x7f", "\x85", ":" * 400):
            with pytest.raises(GraphQLRequestError) as raised:
                async with manager.subscribe(query, variables={"id": value}):
                    pass
            [(code, _)] = coded(raised.value)
            assert code == "BAD_USER_INPUT"
            assert not re.search("orders", raised.value.errors[0]["message"])
