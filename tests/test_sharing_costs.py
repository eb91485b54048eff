"""What refusing, many plans and catching up cost: processor time beside a control, never the clock's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    EventBusConfig,
    GraphQLRequestError,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    subscription,
    viewer,
)

from .costs import cost, publishing
from .support import entered, nonzero, one, soon, take

pytestmark = pytest.mark.timeout(180)

LIMITS = Limits(
    queue_messages=100_000,
    subscribes_per_second=None,
    max_argument_bytes=10_000_000,
    max_subscription_bytes=100_000_000,
    max_connection_state_bytes=100_000_000,
)


def manager_of(*fields: Any, history: int = 0) -> SubscriptionManager:
    return SubscriptionManager(Schema([*fields]), EventBusConfig.memory(history=history), limits=LIMITS)


# ---- what is refused ----

MANY = 20_000
UNKNOWN: dict[str, Any] = {f"unknown{n}": 0 for n in range(MANY)}
#: What is sent, by the type that refuses it.
REFUSED: dict[str, tuple[str, Any]] = {
    "unknown members": ("Deep!", UNKNOWN),
    "unknown members below": ("Deep!", {"deep": UNKNOWN}),
    "unknown members beside a long number": ("Deep!", {"number": 10**4000, **UNKNOWN}),
    "unknown members of many": ("[Deep!]!", [{"unknown": 0}] * MANY),
    "missing members of many": ("[Deep!]!", [{}] * MANY),
    "nulls": ("[ID!]!", [None] * MANY),
    "numbers that are none": ("[Int!]!", ["x"] * MANY),
    "a long name": ("Deep!", {"x" * 200_000: 0}),
    "a long value of an enum": ("Color!", "x" * 200_000),
}
SDL = """
type Query { _empty: Boolean }
type Subscription { given(deep: Deep, deeps: [Deep!], ids: [ID!], ints: [Int!], color: Color, any: JSON): JSON }
input Deep { name: String! deep: Deep number: Int = 1 texts: [String!] = ["a"] }
enum Color { RED }
scalar JSON
"""
ARGUMENTS = {
    "Deep!": "deep",
    "[Deep!]!": "deeps",
    "[ID!]!": "ids",
    "[Int!]!": "ints",
    "Color!": "color",
    "JSON!": "any",
}


@subscription(channel="c", passthrough=True)
def given():
    raise NotImplementedError


@pytest.mark.parametrize("what", REFUSED)
async def test_refusing_costs_no_more_than_reading_what_came(what):
    """The control takes the same value as JSON, and keeps it."""
    manager = SubscriptionManager(Schema.from_sdl(SDL, subscriptions=[given]), limits=LIMITS)
    ty, value = REFUSED[what]

    async def subscribe(ty: str) -> None:
        query = f"subscription ($x: {ty}) {{ given({ARGUMENTS[ty]}: $x) }}"
        async with manager.subscribe(query, variables={"x": value}):
            pass

    async def refuse() -> None:
        with pytest.raises(GraphQLRequestError) as refused:
            await subscribe(ty)
        errors = refused.value.errors
        assert {error["extensions"]["code"] for error in errors} == {"BAD_USER_INPUT"}
        assert len(errors) <= 51
        assert all(len(error["message"]) < 1_000 for error in errors)

    async with manager:
        control = await cost(lambda: subscribe("JSON!"))
        assert await cost(refuse) < 2 * control + 0.002


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

            async def publish() -> None:
                await publishing(manager, {"n": 1}, 3)()
                for n in (0, plans // 2, plans - 1):
                    assert await take(streams[n], 3) == [{"data": {f"a{n}": {"n": 1}}}] * 3

            return await cost(publish) / plans

    assert await took(4_000) < 2 * await took(500)


# ---- catching up ----


@subscription(channel="c", where=data["id"] == argument("x"), passthrough=True)
def of_id(x: ID) -> JSON:
    raise NotImplementedError


@subscription(channel="c", rows=data["id"] == viewer("user_id"), passthrough=True)
def of_user() -> JSON:
    raise NotImplementedError


READERS = 300


def resuming(manager: SubscriptionManager, field: str, reader: int, token: str) -> Any:
    if field == "of_id":
        query = "subscription ($x: ID!) { ofId(x: $x) }"
        return manager.subscribe(query, variables={"x": f"r{reader}"}, framing="result", resume=token)
    context = SecurityContext(user_id=f"r{reader}")
    return manager.subscribe("subscription { ofUser }", context=context, framing="result", resume=token)


@pytest.mark.parametrize("field", ["of_id", "of_user"])
async def test_those_who_catch_up_share_the_judging_of_what_they_missed(field):
    """Each reader has a condition of his own, and one event that is for him: the last of many, or of few."""

    async def took(missed: int) -> float:
        manager = manager_of(of_id, of_user, everything, history=missed + READERS)
        async with manager:
            async with manager.subscribe("subscription { everything }", framing="result", resume=True) as stream:
                await manager.publish_event("e", "c", {})
                token = (await one(stream))["extensions"]["eventId"]
            for n in range(missed):
                await manager.publish_event("e", "c", {"id": str(n)})
            for n in range(READERS):
                await manager.publish_event("e", "c", {"id": f"r{n}"})

            async def resume() -> None:
                async with contextlib.AsyncExitStack() as stack:
                    streams = [
                        await entered(stack, resuming(manager, field, reader, token)) for reader in range(READERS)
                    ]
                    name = "ofId" if field == "of_id" else "ofUser"
                    for reader, stream in enumerate(streams):
                        assert (await one(stream))["data"] == {name: {"id": f"r{reader}"}}

            return await cost(resume)

    assert await took(4_500) < 3 * await took(20)


@pytest.mark.parametrize("readers", [3, 50])
async def test_what_is_withheld_from_those_who_catch_up_is_counted_for_each(readers):
    """Whether few catch up or many, who share the judging."""
    manager = manager_of(of_user, everything, history=1_000)
    async with manager, contextlib.AsyncExitStack() as stack:
        async with manager.subscribe("subscription { everything }", framing="result", resume=True) as stream:
            await manager.publish_event("e", "c", {})
            token = (await one(stream))["extensions"]["eventId"]
        for n in range(200):
            await manager.publish_event("e", "c", {"id": f"r{n % 100}"})
        streams = [await entered(stack, resuming(manager, "of_user", n, token)) for n in range(readers)]
        for n, stream in enumerate(streams):
            assert [message["data"] for message in await take(stream, 2)] == [{"ofUser": {"id": f"r{n}"}}] * 2
        expected = {"rows": readers * 198}

        async def counted() -> None:
            while nonzero(manager, "events_filtered").get("rows", 0) < expected["rows"]:
                await asyncio.sleep(0)

        await soon(counted())
        # Who is live is found by the index: what is for others is not even looked at.
        await manager.publish_event("e", "c", {"id": "r0"})
        assert (await one(streams[0]))["data"] == {"ofUser": {"id": "r0"}}
        assert nonzero(manager, "events_filtered") == expected
