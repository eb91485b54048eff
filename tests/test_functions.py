"""Functions: how often they run, where, in what order, what they may know, and what becomes of their errors."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import json
import logging
import threading
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any

import graphql
import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    GraphQLError,
    Info,
    Limits,
    SecurityContext,
    argument,
    data,
    subscription,
    viewer,
)

from .support import manager_of, nonzero, one, soon, take


@dataclasses.dataclass
class Item:
    id: ID
    name: str | None = None
    other: Item | None = None


def failed(field: str, message: str, code: str = "INTERNAL_SERVER_ERROR", **more: Any) -> dict[str, Any]:
    """The payload of a nullable root field that failed, for `subscription { field }` on one line."""
    error = {
        "message": message,
        "locations": [{"line": 1, "column": 16}],
        "path": [field],
        "extensions": {"code": code, **more},
    }
    return {"data": {field: None}, "errors": [error]}


async def publish(manager: Any, channel: str, count: int = 1, **more: Any) -> None:
    for n in range(count):
        await manager.publish_event("x", channel, {"n": n, **more})


# ---- once ----


async def test_a_hundred_equal_subscriptions_of_a_hundred_users_are_one_call():
    calls: list[str] = []

    @subscription(channel="c")
    async def item(event: Event) -> Item:
        calls.append(event.id)
        return Item(ID("1"), name="a")

    manager = manager_of(item)
    async with manager:
        streams = [
            manager.subscribe(
                "subscription { item { id name } }",
                context=SecurityContext(user_id=n, claims={"n": n}),
                subscription_id=str(n),
            )
            for n in range(100)
        ]
        for stream in streams:
            await stream.__aenter__()
        identity = await manager.publish_event("x", "c", {})
        messages = [await soon(anext(stream)) for stream in streams]
        for stream in streams:
            await stream.aclose()
    assert calls == [identity]
    assert [json.loads(message)["id"] for message in messages] == [str(n) for n in range(100)]
    assert len({message.replace(b'"id":"%d"' % n, b"", 1) for n, message in enumerate(messages)}) == 1


async def test_different_documents_share_a_call_and_the_union_of_their_selections_is_read_once():
    calls: list[str] = []
    reads: Counter[str] = Counter()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            if name not in ("id", "name", "other"):
                raise AttributeError(name)
            reads[name] += 1
            return Watched() if name == "other" else name

    @subscription(channel="c")
    async def item(event: Event) -> Item:
        calls.append(event.id)
        return Watched()  # type: ignore[return-value]  # it is as good as an item

    manager = manager_of(item)
    async with (
        manager,
        manager.subscribe("subscription { item { id } }") as first,
        manager.subscribe("subscription Named { alias: item { x: id y: id } }") as second,
        manager.subscribe("subscription { item { ...F } } fragment F on Item { id name }") as third,
        manager.subscribe(
            "subscription ($no: Boolean = false) { item { other { name @include(if: $no) id } } }"
        ) as fourth,
    ):
        await publish(manager, "c")
        assert await one(first) == {"data": {"item": {"id": "id"}}}
        assert await one(second) == {"data": {"alias": {"x": "id", "y": "id"}}}
        assert await one(third) == {"data": {"item": {"id": "id", "name": "name"}}}
        assert await one(fourth) == {"data": {"item": {"other": {"id": "id"}}}}
    assert len(calls) == 1
    assert reads == {"id": 2, "name": 1, "other": 1}


async def test_different_arguments_are_different_calls():
    calls: list[Any] = []

    @subscription(channel="c")
    async def echo(event: Event, a: int = 1, b: str | None = None) -> str:
        calls.append((a, b))
        return f"{a}{b}"

    manager = manager_of(echo)
    documents = ["echo", "echo(a: 1)", "echo(a: 1, b: null)", 'echo(b: "x", a: 2)', 'echo(a: 2, b: "x")']
    async with manager:
        streams = [manager.subscribe(f"subscription {{ {document} }}") for document in documents]
        for stream in streams:
            await stream.__aenter__()
        await publish(manager, "c")
        got = [(await one(stream))["data"]["echo"] for stream in streams]
        for stream in streams:
            await stream.aclose()
    assert got == ["1None", "1None", "1None", "2x", "2x"]
    assert sorted(set(calls)) == [(1, None), (2, "x")]
    assert calls.count((2, "x")) == 1
    assert calls.count((1, None)) <= 2  # an omitted argument is not a null one


async def test_info_makes_a_call_the_viewers_own():
    calls: list[tuple[Any, ...]] = []

    @subscription(channel="c")
    async def item(event: Event, info: Info) -> Item:
        calls.append((info.viewer.user_id, info.selected_fields))
        return Item(ID(str(info.viewer.user_id)), name="x")

    manager = manager_of(item)
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    asked = [
        (SecurityContext(user_id=1), "{ id }"),
        (SecurityContext(user_id=1, expires_at=later), "{ id }"),
        (SecurityContext(user_id=1, expires_at=later + timedelta(hours=1)), "{ id }"),
        (SecurityContext(user_id=2), "{ id }"),
        (SecurityContext(user_id="1"), "{ id }"),
        (SecurityContext(user_id=1, roles=["a"]), "{ id }"),
        (SecurityContext(user_id=1, claims={"a": 1}), "{ id }"),
        (SecurityContext(user_id=1, claims={"a": 1.0}), "{ id }"),
        (SecurityContext(user_id=1), "{ id name }"),
        (SecurityContext(user_id=1), "{ name id }"),
    ]
    async with manager:
        streams = [manager.subscribe(f"subscription {{ item {what} }}", context=context) for context, what in asked]
        for stream in streams:
            await stream.__aenter__()
        await publish(manager, "c")
        for (context, _), stream in zip(asked, streams, strict=True):
            payload = await one(stream)
            assert payload["data"]["item"].get("id") == str(context.user_id)
            await stream.aclose()
    counts = Counter(calls)
    assert counts[(2, ("id",))] == 1
    # Viewer 1 alone (three contexts that differ in `expires_at`), with a role, and with a claim (1 and 1.0 are equal).
    assert counts[(1, ("id",))] == 3
    assert counts[("1", ("id",))] == 1
    assert len(calls) <= 7


async def test_what_an_event_function_knows_of_its_viewer():
    seen: list[Info] = []

    @subscription(channel="c", name="theItem")
    async def item(about: Info, event: Event) -> Item:
        seen.append(about)
        return Item(ID("1"))

    manager = manager_of(item)
    context = SecurityContext(
        user_id=7,
        tenant_id="t",
        roles=["r"],
        permissions=["p"],
        claims={"a": [1]},
        expires_at=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    document = "subscription Op { x: theItem { y: id other { name ...F } } } fragment F on Item { id }"
    async with manager, manager.subscribe(document, context=context, connection_id="c") as stream:
        await manager.publish_event("x", "c", {}, tenant_id="t")
        await one(stream)
    [info] = seen
    assert (info.viewer.user_id, info.viewer.tenant_id) == (7, "t")
    assert (set(info.viewer.roles), set(info.viewer.permissions)) == ({"r"}, {"p"})
    assert dict(info.viewer.claims) == {"a": (1,)}
    assert info.viewer.expires_at is None
    assert info.field_name == "theItem"
    assert info.selected_fields == ("id", "other", "other.name", "other.id")
    for name in ("operation_name", "variables", "connection_id"):
        with pytest.raises(AttributeError, match=name):
            getattr(info, name)


async def test_info_alone_by_name_and_no_event():
    @subscription
    async def who(info) -> str:
        return str(info.viewer.user_id)

    manager = manager_of(who)
    async with manager, manager.subscribe("subscription { who }", context=SecurityContext(user_id="é")) as stream:
        await publish(manager, "who")
        assert await one(stream) == {"data": {"who": "é"}}


async def test_the_function_can_still_be_called_plainly():
    @subscription(channel="c")
    async def double(event: Event, by: int = 2) -> int:
        return event.data["n"] * by

    assert await double(Event("x", "c", {"n": 4})) == 8
    assert await double(Event("x", "c", {"n": 4}), by=3) == 12


async def test_nobody_who_hears_means_no_call():
    calls: list[int] = []

    @subscription(channel="c", where=data["n"] == argument("n"), rows=data["owner"] == viewer("user_id"))
    async def mine(event: Event, n: int) -> int:
        calls.append(event.data["n"])
        return n

    manager = manager_of(mine)
    query = "subscription { mine(n: 1) }"
    async with manager, manager.subscribe(query, context=SecurityContext(user_id=1)) as stream:
        for n, owner in ((0, 1), (1, 2), (1, 1)):
            await manager.publish_event("x", "c", {"n": n, "owner": owner})
        assert await one(stream) == {"data": {"mine": 1}}
        assert calls == [1]
        assert manager.get_metrics()["events_filtered"]["rows"] in (0, 1)


# ---- order and concurrency ----


async def test_results_come_in_publish_order_however_long_each_takes():
    release: dict[int, asyncio.Event] = {n: asyncio.Event() for n in range(5)}
    running: list[int] = []

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        n = event.data["n"]
        running.append(n)
        await release[n].wait()
        return n

    manager = manager_of(slow)
    async with manager, manager.subscribe("subscription { slow }") as stream:
        await publish(manager, "c", 5)
        while len(running) < 5:
            await asyncio.sleep(0)
        for n in (4, 3, 2, 1, 0):
            release[n].set()
        assert await take(stream, 5) == [{"data": {"slow": n}} for n in range(5)]


async def test_a_slow_call_holds_back_its_own_class_alone():
    release = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event, wait: bool) -> int:
        if wait:
            await release.wait()
        return event.data["n"]

    @subscription(channel="c", passthrough=True)
    def quick() -> Counted:
        raise NotImplementedError

    manager = manager_of(slow, quick)
    async with (
        manager,
        manager.subscribe("subscription { slow(wait: true) }") as waiting,
        manager.subscribe("subscription { slow(wait: false) }") as other,
        manager.subscribe("subscription { quick { n } }") as native,
    ):
        await publish(manager, "c", 3)
        assert await take(other, 3) == [{"data": {"slow": n}} for n in range(3)]
        assert await take(native, 3) == [{"data": {"quick": {"n": n}}} for n in range(3)]
        assert manager.get_metrics()["events_delivered"] == 6
        release.set()
        assert await take(waiting, 3) == [{"data": {"slow": n}} for n in range(3)]


@dataclasses.dataclass
class Counted:
    n: int


async def test_at_most_resolver_concurrency_events_of_a_set_run_at_once():
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    gate = asyncio.Semaphore(0)

    @subscription(channel="c")
    async def slow(event: Event, a: str) -> int:
        running[a] += 1
        most[a] = max(most[a], running[a])
        await gate.acquire()
        running[a] -= 1
        return event.data["n"]

    manager = manager_of(slow, limits=Limits(resolver_concurrency=3))
    async with (
        manager,
        manager.subscribe('subscription { slow(a: "a") }') as first,
        manager.subscribe('subscription { slow(a: "b") }') as second,
    ):
        await publish(manager, "c", 10)
        while running != {"a": 3, "b": 3}:
            await asyncio.sleep(0)
        for _ in range(20):
            gate.release()
            await asyncio.sleep(0)
        for stream in (first, second):
            assert await take(stream, 10) == [{"data": {"slow": n}} for n in range(10)]
    assert most == {"a": 3, "b": 3}


async def test_what_waits_beyond_the_queue_is_dropped_counted_and_told_once_a_subscription():
    gate = asyncio.Semaphore(0)

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        await gate.acquire()
        return event.data["n"]

    manager = manager_of(slow, limits=Limits(resolver_concurrency=1, queue_messages=2))
    async with (
        manager,
        manager.subscribe("subscription { slow }") as first,
        manager.subscribe("subscription { alias: slow }") as second,
    ):
        await publish(manager, "c", 7)  # one runs, two wait, four are lost
        assert manager.get_metrics()["events_dropped"]["resolver"] == 8
        gate.release()
        for stream, field in [(first, "slow"), (second, "alias")]:
            assert await one(stream) == {"data": {field: 0}, "extensions": {"dropped": 4}}
        for n in (1, 2):
            gate.release()
            for stream, field in [(first, "slow"), (second, "alias")]:
                assert await one(stream) == {"data": {field: n}}
        await publish(manager, "c")
        gate.release()
        assert await one(first) == {"data": {"slow": 0}}
        assert nonzero(manager, "events_dropped") == {"resolver": 8}


async def test_the_bytes_of_waiting_events_are_bounded_too():
    gate = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        await gate.wait()
        return event.data["n"]

    manager = manager_of(slow, limits=Limits(resolver_concurrency=1, queue_bytes=250))
    async with manager, manager.subscribe("subscription { slow }") as stream:
        await publish(manager, "c", 6, pad="x" * 80)  # a hundred bytes each: one runs, two wait
        assert manager.get_metrics()["events_dropped"]["resolver"] == 3
        gate.set()
        got = await take(stream, 3)
        assert [payload["data"]["slow"] for payload in got] == [0, 1, 2]
        assert got[0]["extensions"] == {"dropped": 3}


# ---- time-outs ----


async def test_an_async_function_that_takes_too_long_is_cancelled():
    cancelled = asyncio.Event()

    @subscription(channel="c")
    async def stuck(event: Event) -> int | None:
        if event.data["n"]:
            return 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return 0

    manager = manager_of(stuck, limits=Limits(resolver_timeout=0.05))
    async with manager, manager.subscribe("subscription { stuck }") as stream:
        await publish(manager, "c", 2)
        payload = await one(stream)
        message = payload["errors"][0].pop("message")
        assert "timed out" in message
        assert payload == {
            "data": {"stuck": None},
            "errors": [
                {"locations": [{"line": 1, "column": 16}], "path": ["stuck"], "extensions": {"code": "TIMEOUT"}}
            ],
        }
        await soon(cancelled.wait())
        assert await one(stream) == {"data": {"stuck": 1}}
        assert manager.get_metrics()["resolver_errors"] == 1


async def test_a_sync_functions_late_result_is_discarded():
    release, returned = threading.Event(), threading.Event()

    @subscription(channel="c")
    def stuck(event: Event) -> int | None:
        if event.data["n"] == 0:
            release.wait()
            returned.set()
        return event.data["n"]

    manager = manager_of(stuck, limits=Limits(resolver_timeout=0.05))
    async with manager, manager.subscribe("subscription { stuck }") as stream:
        await publish(manager, "c", 2)
        payload = await one(stream)
        assert payload["errors"][0]["extensions"] == {"code": "TIMEOUT"}
        release.set()
        await asyncio.to_thread(returned.wait)
        assert await one(stream) == {"data": {"stuck": 1}}
        await publish(manager, "c")
        assert await one(stream) == {"data": {"stuck": 0}}


async def test_a_field_may_have_its_own_time_out():
    @subscription(channel="c", timeout=0.02)
    async def hasty(event: Event) -> int | None:
        await asyncio.Event().wait()
        return 0

    @subscription(channel="c", timeout=30)
    async def patient(event: Event) -> int | None:
        await asyncio.sleep(0.1)
        return 1

    manager = manager_of(hasty, patient, limits=Limits(resolver_timeout=0.05))
    async with (
        manager,
        manager.subscribe("subscription { hasty }") as first,
        manager.subscribe("subscription { patient }") as second,
    ):
        await publish(manager, "c")
        assert (await one(first))["errors"][0]["extensions"] == {"code": "TIMEOUT"}
        assert await one(second) == {"data": {"patient": 1}}


async def test_waiting_too_long_for_a_thread_is_a_time_out_and_the_function_is_never_called():
    release = threading.Event()
    called: list[int] = []

    @subscription(channel="c", timeout=20)
    def blocking(event: Event) -> int:
        release.wait()
        return 1

    @subscription(channel="d", timeout=0.05)
    def queued(event: Event) -> int | None:
        called.append(event.data["n"])
        return event.data["n"]

    manager = manager_of(blocking, queued, limits=Limits(resolver_threads=1))
    async with (
        manager,
        manager.subscribe("subscription { blocking }") as first,
        manager.subscribe("subscription { queued }") as second,
    ):
        await publish(manager, "c")
        await publish(manager, "d")
        assert (await one(second))["errors"][0]["extensions"] == {"code": "TIMEOUT"}
        release.set()
        assert await one(first) == {"data": {"blocking": 1}}
        await manager.publish_event("x", "d", {"n": 5})
        assert await one(second) == {"data": {"queued": 5}}
    assert called == [5]


async def test_the_time_of_a_class_that_waits_does_not_count():
    """Eight events, one at a time, each half of the time-out: none times out."""

    @subscription(channel="c")
    async def slow(event: Event) -> int | None:
        await asyncio.sleep(0.05)
        return event.data["n"]

    manager = manager_of(slow, limits=Limits(resolver_concurrency=1, resolver_timeout=0.3))
    async with manager, manager.subscribe("subscription { slow }") as stream:
        await publish(manager, "c", 8)
        assert await take(stream, 8) == [{"data": {"slow": n}} for n in range(8)]


# ---- where they run ----


async def test_async_functions_run_on_the_loop_and_sync_ones_in_threads():
    where: dict[str, Any] = {}

    @subscription(channel="c")
    async def on_loop(event: Event) -> int:
        where["loop"] = (threading.current_thread(), asyncio.get_running_loop())
        return 1

    @subscription(channel="c")
    def in_thread(event: Event) -> int:
        time.sleep(0.01)
        where["thread"] = threading.current_thread()
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return 2

    manager = manager_of(on_loop, in_thread)
    async with (
        manager,
        manager.subscribe("subscription { onLoop }") as first,
        manager.subscribe("subscription { inThread }") as second,
    ):
        # Published from a thread without a loop: that changes nothing.
        await asyncio.to_thread(manager.publish_event_sync, "x", "c", {})
        assert await one(first) == {"data": {"onLoop": 1}}
        assert await one(second) == {"data": {"inThread": 2}}
    assert where["loop"] == (threading.current_thread(), asyncio.get_running_loop())
    assert where["thread"] is not threading.current_thread()


async def test_sync_functions_run_beside_each_other_up_to_resolver_threads():
    together = threading.Barrier(4)

    @subscription(channel="c")
    def meet(event: Event) -> int:
        together.wait(5)
        return event.data["n"]

    manager = manager_of(meet, limits=Limits(resolver_threads=4))
    async with manager, manager.subscribe("subscription { meet }") as stream:
        await publish(manager, "c", 4)
        assert await take(stream, 4) == [{"data": {"meet": n}} for n in range(4)]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="default")


async def test_functions_see_the_context_of_entering_alone():
    @subscription(channel="c")
    async def on_loop(event: Event) -> str:
        seen = VARIABLE.get()
        VARIABLE.set("a function's own")
        return seen

    @subscription(channel="c")
    def in_thread(event: Event) -> str:
        seen = VARIABLE.get()
        VARIABLE.set("a function's own")
        return seen

    manager = manager_of(on_loop, in_thread)
    VARIABLE.set("entered")
    async with manager:
        VARIABLE.set("subscribed")
        async with (
            manager.subscribe("subscription { onLoop }") as first,
            manager.subscribe("subscription { inThread }") as second,
        ):
            VARIABLE.set("published")
            await publish(manager, "c", 2)
            assert await take(first, 2) == [{"data": {"onLoop": "entered"}}] * 2
            assert await take(second, 2) == [{"data": {"inThread": "entered"}}] * 2
    assert VARIABLE.get() == "published"


# ---- errors ----


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_an_exception_is_masked_logged_and_counted_and_the_subscription_goes_on(kind, caplog):
    def body(event: Event) -> int | None:
        if event.data["n"] == 0:
            raise ZeroDivisionError("a secret")
        return event.data["n"]

    @subscription(channel="c")
    async def asynchronous(event: Event) -> int | None:
        return body(event)

    @subscription(channel="c")
    def synchronous(event: Event) -> int | None:
        return body(event)

    manager = manager_of(asynchronous if kind == "async" else synchronous)
    field = "asynchronous" if kind == "async" else "synchronous"
    async with manager, manager.subscribe(f"subscription {{ {field} }}") as stream:
        with caplog.at_level(logging.ERROR):
            await publish(manager, "c", 2)
            assert await one(stream) == failed(field, "Internal server error")
        assert await one(stream) == {"data": {field: 1}}
        assert manager.get_metrics()["resolver_errors"] == 1
    [record] = caplog.records
    assert record.name.split(".")[0] == "fraiseql_subs"
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert record.exc_info[2] is not None
    assert "a secret" in caplog.text


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (GraphQLError("told"), failed("fails", "told")),
        (GraphQLError("told", extensions={"code": "MINE", "a": [1]}), failed("fails", "told", "MINE", a=[1])),
        (GraphQLError("told", extensions={"a": 1}), failed("fails", "told", a=1)),
        (graphql.GraphQLError("core"), failed("fails", "core")),
        (graphql.GraphQLError("core", extensions={"code": "X"}), failed("fails", "core", "X")),
        (type("Mine", (GraphQLError,), {})("sub"), failed("fails", "sub")),
        (Exception("a secret"), failed("fails", "Internal server error")),
        (KeyError("a secret"), failed("fails", "Internal server error")),
        (StopIteration("a secret"), failed("fails", "Internal server error")),
        (asyncio.CancelledError(), failed("fails", "Internal server error")),
        (asyncio.TimeoutError("a secret"), failed("fails", "Internal server error")),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_errors_that_are_told_and_errors_that_are_masked(kind, error, expected):
    if kind == "async":

        @subscription(channel="c")
        async def fails(event: Event) -> int | None:
            if event.data["n"]:
                return 1
            raise error
    else:

        @subscription(channel="c")
        def fails(event: Event) -> int | None:  # type: ignore[misc]  # one of two
            if event.data["n"]:
                return 1
            raise error

    manager = manager_of(fails)
    async with manager, manager.subscribe("subscription { fails }") as stream:
        await publish(manager, "c", 2)
        assert await one(stream) == expected
        assert await one(stream) == {"data": {"fails": 1}}


async def test_an_exception_under_a_non_null_field_leaves_no_data():
    @subscription(channel="c")
    async def fails(event: Event) -> int:
        raise GraphQLError("told")

    manager = manager_of(fails)
    async with manager, manager.subscribe("subscription { x: fails }") as stream:
        await publish(manager, "c")
        assert await one(stream) == {**failed("x", "told"), "data": None}


# ---- functions that use the manager ----


async def test_a_function_may_publish_and_subscribe():
    @subscription(channel="in")
    async def relay(event: Event) -> int:
        async with manager.subscribe("subscription { out }") as inner:
            await manager.publish_event("x", "out", {"n": event.data["n"] * 10})
            return int((await one(inner))["data"]["out"])

    @subscription(channel="in")
    def from_thread(event: Event) -> int:
        manager.publish_event_sync("x", "echo", {"n": event.data["n"] + 1})
        return 0

    @subscription(channel="out")
    async def out(event: Event) -> int:
        return int(event.data["n"])

    @subscription(channel="echo")
    async def echo(event: Event) -> int:
        return int(event.data["n"])

    manager = manager_of(relay, from_thread, out, echo)
    async with (
        manager,
        manager.subscribe("subscription { relay }") as first,
        manager.subscribe("subscription { fromThread }") as second,
        manager.subscribe("subscription { echo }") as third,
    ):
        await manager.publish_event("x", "in", {"n": 4})
        assert await one(first) == {"data": {"relay": 40}}
        assert await one(second) == {"data": {"fromThread": 0}}
        assert await one(third) == {"data": {"echo": 5}}


async def test_a_function_may_publish_to_its_own_channel():
    @subscription(channel="c")
    async def count_down(event: Event) -> int:
        n = int(event.data["n"])
        if n:
            await manager.publish_event("x", "c", {"n": n - 1})
        return n

    manager = manager_of(count_down)
    async with manager, manager.subscribe("subscription { countDown }") as stream:
        await manager.publish_event("x", "c", {"n": 300})
        assert await take(stream, 301) == [{"data": {"countDown": n}} for n in range(300, -1, -1)]


async def test_who_joins_while_a_call_is_under_way_hears_of_later_events_alone():
    gates = [asyncio.Event(), asyncio.Event()]
    started = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        started.set()
        await gates[event.data["n"]].wait()
        return event.data["n"]

    manager = manager_of(slow)
    async with manager, manager.subscribe("subscription { slow }") as early:
        await manager.publish_event("x", "c", {"n": 0})
        await soon(started.wait())
        async with manager.subscribe("subscription { slow }") as late:
            await manager.publish_event("x", "c", {"n": 1})
            for gate in gates:
                gate.set()
            assert await take(early, 2) == [{"data": {"slow": 0}}, {"data": {"slow": 1}}]
            assert await one(late) == {"data": {"slow": 1}}


async def test_everybody_leaving_in_the_middle_of_a_call_leaves_nothing_behind():
    gate, started = asyncio.Event(), asyncio.Event()
    finished: list[int] = []

    @subscription(channel="c")
    async def slow(event: Event) -> JSON:
        started.set()
        await gate.wait()
        finished.append(1)
        return event.data

    manager = manager_of(slow)
    async with manager:
        async with manager.subscribe("subscription { slow }"):
            await publish(manager, "c", 3)
            await soon(started.wait())
        gate.set()
        async with manager.subscribe("subscription { slow }") as stream:
            await publish(manager, "c", 1)
            assert await one(stream) == {"data": {"slow": {"n": 0}}}
        metrics = manager.get_metrics()
        assert metrics["subscriptions"] == 0
        assert metrics["events_delivered"] == 1
        assert not any(metrics["events_dropped"].values())
