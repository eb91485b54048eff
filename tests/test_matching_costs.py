"""What matching costs does not grow with what a client sends: processor time beside a control, never the clock's."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    EventBusConfig,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    subscription,
    viewer,
)

from .conftest import ENVIRONMENT
from .costs import cost, is_taken, passthrough, publishing, subscribed
from .support import entered, take
from .test_leaks import rss

pytestmark = pytest.mark.timeout(180)

MANY = 20
"""Subscriptions."""

FIELDS = {
    "is_in": passthrough("listed", data["id"].is_in(argument("x")), x=list[ID]),
    "contains": passthrough("held", argument("x").contains(data["id"]), x=list[ID]),
    "is_in of numbers": passthrough("numbers", data["n"].is_in(argument("x")), x=list[int]),
    "is_in of JSON": passthrough("any_json", data["id"].is_in(argument("x")), x=JSON),
    "rows": passthrough("ruled", {"rows": data["id"].is_in(argument("x"))}, x=list[ID]),
    "beside an equality": passthrough("kinds", (data["kind"] == "k") & data["id"].is_in(argument("x")), x=list[ID]),
    "in two places": passthrough(
        "twice", data["kind"].is_in(["k", "l"]) & data["id"].is_in(argument("x")), x=list[ID]
    ),
    "one of two": passthrough(
        "either", data["id"].is_in(argument("x")) | data["other"].is_in(argument("x")), x=list[ID]
    ),
}  # fmt: skip
CONTROL = passthrough("plain", data["id"] == "none at all", x=list[ID])
TYPES = {"is_in of numbers": "[Int!]!", "is_in of JSON": "JSON!"}
MISS = {"id": "nobody", "n": -1, "kind": "k", "other": "nobody", "v": 0}


def query_of(what: str) -> str:
    return f"subscription ($x: {TYPES.get(what, '[ID!]!')}) {{ {name_of(what)}(x: $x) }}"


def name_of(what: str) -> str:
    return {"any_json": "anyJson"}.get(FIELDS[what].__name__, FIELDS[what].__name__)


def ids(what: str, of: int, length: int) -> list[Any]:
    """Short ids that no other list has."""
    numbers = range(of * length, (of + 1) * length)
    return [*numbers] if "number" in what else [str(number) for number in numbers]


def manager_of(*fields: Any, history: int = 0) -> SubscriptionManager:
    limits = Limits(queue_messages=100_000, subscribes_per_second=None)
    return SubscriptionManager(Schema([*fields, CONTROL]), EventBusConfig.memory(history=history), limits=limits)


# ---- long lists ----


async def a_miss(what: str, length: int, many: int = MANY) -> float:
    """What an event that matches nothing costs beside so many lists; one that matches reaches its own subscription."""
    manager = manager_of(FIELDS[what])
    lists = [ids(what, of, length) for of in range(many)]
    async with manager, subscribed(manager, query_of(what), lists) as streams:
        took = await cost(publishing(manager, MISS))
        for of in (0, many // 2, many - 1):
            for found in (lists[of][0], lists[of][-1]):
                event = {**MISS, "n" if "number" in what else "id": found}
                await manager.publish_event("e", "c", event)
                assert await take(streams[of]) == [{"data": {name_of(what): event}}]
        assert manager.get_metrics()["queued_messages"] == 0
    return took


@pytest.mark.parametrize(
    ("what", "length"),
    [*((what, 1_000) for what in FIELDS), *((what, 1_025) for what in FIELDS), ("is_in", 4_000), ("contains", 4_000)],
)
async def test_an_event_that_matches_nothing_costs_the_same_beside_longer_lists(what, length):
    short = await a_miss(what, 10)
    assert await a_miss(what, length) < 3 * short


async def test_more_long_lists_cost_a_miss_nothing():
    assert await a_miss("is_in", 1_025, 40) < 3 * await a_miss("is_in", 1_025, 5)


async def test_a_list_beyond_any_table_is_asked_as_a_set():
    """More elements than the index takes: it may be refused by a limit; where it is not, a miss is a look-up."""
    manager = manager_of(FIELDS["is_in of numbers"])
    query = query_of("is_in of numbers")
    async with manager, contextlib.AsyncExitStack() as stack:
        long = [number % 100_000 for number in range(20_000)]
        if not await is_taken(manager.subscribe(query, variables={"x": long})):
            return
        await entered(stack, manager.subscribe(query, variables={"x": [1]}))
        short = await cost(publishing(manager, MISS))
        stream = await entered(stack, manager.subscribe(query, variables={"x": long}, framing="result"))
        assert await cost(publishing(manager, MISS)) < 3 * short
        await manager.publish_event("e", "c", {"n": 19_999})
        assert await take(stream) == [{"data": {"numbers": {"n": 19_999}}}]


async def test_long_claims_cost_a_miss_nothing():
    ruled = passthrough("ruled", {"rows": data["id"].is_in(viewer("claims", "orgs"))})
    held = passthrough("held", {"rows": viewer("roles").contains(data["id"])})

    async def took(length: int) -> float:
        manager = manager_of(ruled, held)
        async with manager, contextlib.AsyncExitStack() as stack:
            for of in range(10):
                names = ids("", of, length)
                context = SecurityContext(user_id=of, claims={"orgs": names}, roles=names)
                for field in ("ruled", "held"):
                    query = f"subscription {{ {field} }}"
                    stream = await entered(stack, manager.subscribe(query, context=context, framing="result"))
            least = await cost(publishing(manager, MISS))
            await manager.publish_event("e", "c", {"id": names[-1]})
            assert await take(stream) == [{"data": {"held": {"id": names[-1]}}}]
            return least

    short = await took(10)
    assert await took(2_000) < 3 * short


@pytest.mark.parametrize("what", ["is_in", "contains", "is_in of numbers", "is_in of JSON"])
async def test_subscribing_with_40_000_ids_costs_little_more_than_reading_them(what):
    """The control takes the same list and compares it with nothing. Limits may refuse it, as cheaply."""
    manager = manager_of(FIELDS[what], passthrough("read", data["id"] == "none", x=FIELDS[what].__annotations__["x"]))
    long = ids(what, 0, 40_000)

    def subscribing(query: str) -> Callable[[], Any]:
        return lambda: is_taken(manager.subscribe(query, variables={"x": long}))

    async with manager:
        control = await cost(subscribing(query_of(what).replace(name_of(what), "read")))
        assert await cost(subscribing(query_of(what))) < 5 * control
        assert await is_taken(manager.subscribe(query_of(what), variables={"x": long[:100]}))


@pytest.mark.parametrize("what", ["is_in", "contains", "beside an equality"])
async def test_resuming_with_a_long_list_costs_what_a_short_one_does(what):
    manager = manager_of(FIELDS[what], history=2_000)
    query, found = query_of(what), ids(what, 1, 2_000)

    async with manager, manager.subscribe(query, variables={"x": ["first"]}, framing="result", resume=True) as stream:
        await manager.publish_event("e", "c", {**MISS, "id": "first"})
        [first] = await take(stream)
        token = first["extensions"]["eventId"]
        for _ in range(300):
            await manager.publish_event("e", "c", MISS)
        last = {**MISS, "id": found[7]}
        await manager.publish_event("e", "c", last)

        async def resume(length: int) -> None:
            given = {"x": found[:length]}
            async with manager.subscribe(query, variables=given, framing="result", resume=token) as again:
                [got] = await take(again)
                assert got["data"] == {name_of(what): last}

        short = await cost(lambda: resume(10))
        joining = await cost(lambda: is_taken(manager.subscribe(query, variables={"x": found})))
        assert await cost(lambda: resume(2_000), times=2) < 3 * (short + joining)


async def kept(what: str, length: int, lists: int) -> float:
    """Bytes that so many different lists make a fresh process keep, for each element of those subscribed with."""
    field = FIELDS.get(what, CONTROL)
    given = [ids("", of % lists, length) for of in range(MANY)]
    manager = manager_of(field) if what in FIELDS else manager_of()
    query = f"subscription ($x: [ID!]!) {{ {field.__name__}(x: $x) }}"
    async with manager, subscribed(manager, query, [ids("", 99, 10)]):
        gc.collect()
        before = rss()
        async with subscribed(manager, query, given):
            gc.collect()
            return (rss() - before) / (MANY * length)


def kept_by_itself(what: str, length: int, lists: int) -> float:
    """In a process of its own, as memory that others gave back is taken without a sign."""
    code = f"import asyncio, tests.test_matching_costs as it; print(asyncio.run(it.kept({what!r}, {length}, {lists})))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("length", [1_000, 4_000])
@pytest.mark.parametrize("what", ["is_in", "contains"])
def test_an_element_of_a_list_keeps_few_bytes_and_equal_conditions_share_them(what, length):
    """What the arguments themselves keep is the control's."""
    assert kept_by_itself(what, length, MANY) - kept_by_itself("control", length, MANY) < 64
    assert kept_by_itself(what, length, 1) - kept_by_itself("control", length, 1) < 32


# ---- values that collide ----


def bits(number: int, zero: Any, one: Any, width: int = 11) -> list[Any]:
    return [one if number >> bit & 1 else zero for bit in range(width)]


#: Values that a careless hash takes for one, and others like them that it does not.
COLLIDING: dict[str, tuple[Callable[[int], Any], Callable[[int], Any]]] = {
    "integers of one float": (lambda n: 2**100 + n, lambda n: 2**100 + n * 2**60),
    "integers of one float in a list": (lambda n: [2**100 + n], lambda n: [2**100 + n * 2**60]),
    "integers of one float in an object": (lambda n: {"k": 2**100 + n}, lambda n: {"k": 2**100 + n * 2**60}),
    "null and the empty list": (lambda n: bits(n, None, []), lambda n: bits(n, 0, 1)),
    "empty lists in empty lists": (lambda n: bits(n, [], [[]]), lambda n: bits(n, [], [0])),
    "lists that only their parentheses divide": (
        lambda n: [[number] if n >> number & 1 else number for number in range(11)],
        lambda n: [[number] if n >> number & 1 else -number - 1 for number in range(11)],
    ),
}
SAME = passthrough("same", data["v"] == argument("x"), x=JSON)
MEMBER = passthrough("member", data["v"].is_in(argument("x")), x=JSON)


@pytest.mark.parametrize("what", COLLIDING)
async def test_values_that_collide_make_neither_joins_nor_events_dearer(what):
    many = 1_000

    async def took(value: Callable[[int], Any]) -> tuple[float, float]:
        manager = manager_of(SAME)
        query = "subscription ($x: JSON!) { same(x: $x) }"
        async with manager, contextlib.AsyncExitStack() as stack:

            async def join() -> None:
                await stack.enter_async_context(subscribed(manager, query, map(value, range(many))))

            joining = await cost(join, times=1)
            # Beyond the last: it is like the others and equals none.
            missing = await cost(publishing(manager, {"v": value(many + 7)}))
            last = await entered(stack, manager.subscribe(query, variables={"x": value(many + 1)}, framing="result"))
            await manager.publish_event("e", "c", {"v": value(many + 1)})
            assert await take(last) == [{"data": {"same": {"v": value(many + 1)}}}]
            return joining, missing

    colliding, spread = COLLIDING[what]
    hostile, control = await took(colliding), await took(spread)
    assert hostile[0] < 3 * control[0]
    assert hostile[1] < 3 * control[1]


async def test_members_that_collide_cost_no_more_than_others():
    async def took(value: Callable[[int], Any]) -> tuple[float, float]:
        manager = manager_of(MEMBER)
        query = "subscription ($x: JSON!) { member(x: $x) }"
        async with manager, contextlib.AsyncExitStack() as stack:
            streams: list[Any] = []

            async def join() -> None:
                lists = [[value(of * 100 + n) for n in range(100)] for of in range(10)]
                streams.extend(await stack.enter_async_context(subscribed(manager, query, lists)))

            joining = await cost(join, times=1)
            missing = await cost(publishing(manager, {"v": value(1_007)}))
            await manager.publish_event("e", "c", {"v": value(101)})
            assert await take(streams[1]) == [{"data": {"member": {"v": value(101)}}}]
            return joining, missing

    hostile, control = await took(lambda n: 2**100 + n), await took(lambda n: 2**100 + n * 2**60)
    assert hostile[0] < 3 * control[0]
    assert hostile[1] < 3 * control[1]


# ---- many plans of one group ----


@subscription(channel="c", passthrough=True)
def everything() -> JSON:
    raise NotImplementedError


async def test_an_event_costs_each_of_many_plans_the_same():
    """Plans differ by an alias; so do results, which each reader takes."""

    async def took(plans: int) -> float:
        manager = manager_of(everything)
        async with manager, contextlib.AsyncExitStack() as stack:
            streams = [
                await entered(stack, manager.subscribe(f"subscription {{ a{n}: everything }}", framing="result"))
                for n in range(plans)
            ]
            least = await cost(publishing(manager, {"n": 1}, 5))
            assert await take(streams[-1], 15) == [{"data": {f"a{plans - 1}": {"n": 1}}}] * 15
            return least / plans

    few = await took(250)
    assert await took(4_000) < 2 * few
