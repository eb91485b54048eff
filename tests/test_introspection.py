"""Introspection of a large schema: who waits for it, how often it is made, and how much of it waits for a reader."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from fraiseql_subs import JSON, Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .costs import cost
from .sockets import NARROW, Client, Direct, served, until

TYPES = 500
WHOLE = "{ __schema { types { name fields { name type { name kind ofType { name kind } } args { name } } } } }"


@subscription(channel="c", passthrough=True)
def ticks() -> JSON:
    raise NotImplementedError


def large_schema(types: int = TYPES) -> Schema:
    fields = " ".join(f"f{n}(first: Int, after: String): [T0!]" for n in range(10))
    sdl = "\n".join(f"type T{n} {{ id: ID! {fields} }}" for n in range(types))
    roots = "type Query { t: T0 } type Subscription { ticks: JSON } scalar JSON"
    return Schema.from_sdl(f"{sdl}\n{roots}", subscriptions=[ticks])


def whole(name: str = "") -> str:
    """One document for each name."""
    return f"query {name or 'Whole'} {WHOLE}"


def subscribe(id: str, query: str, **payload: Any) -> dict[str, Any]:
    return {"id": id, "type": "subscribe", "payload": {"query": query, **payload}}


def sent(server: Direct) -> list[tuple[str, str | None]]:
    """Types and ids of what an application has sent."""
    texts = [json.loads(message["text"]) for message in server.sent if message["type"] == "websocket.send"]
    return [(message["type"], message.get("id")) for message in texts]


@contextlib.asynccontextmanager
async def direct(manager: SubscriptionManager) -> Any:
    server = Direct(SubscriptionApp(manager), {"type": "connection_init"})
    await until(lambda: len(server.sent) == 2)
    server.sent.clear()
    yield server
    server.hand({"type": "websocket.disconnect"})
    await server.task


async def answer(server: Direct, *messages: dict[str, Any]) -> None:
    """Asks, and waits until all is answered."""
    server.sent.clear()
    server.say(*messages)
    await until(lambda: len(server.sent) >= 2 * len(messages))


async def test_others_are_served_while_a_long_answer_is_made():
    manager = SubscriptionManager(large_schema())
    async with manager, direct(manager) as server:
        server.say(subscribe("1", whole()), {"type": "ping"}, subscribe("2", "{ __typename }"), {"type": "ping"})
        await until(lambda: len(server.sent) == 6)
        # What takes no time is answered where it is asked.
        assert sent(server) == [
            ("pong", None),
            ("next", "2"),
            ("complete", "2"),
            ("pong", None),
            ("next", "1"),
            ("complete", "1"),
        ]
        names = {each["name"] for each in json.loads(server.sent[4]["text"])["payload"]["data"]["__schema"]["types"]}
        assert {f"T{n}" for n in range(TYPES)} < names


async def test_an_answer_is_made_once_for_a_document_and_variables():
    manager = SubscriptionManager(large_schema())
    query = f"query Whole($yes: Boolean!) {WHOLE[:-1]} __typename @include(if: $yes) }}"
    async with manager, direct(manager) as one, direct(manager) as other:
        made = await cost(lambda: answer(one, subscribe("1", query, variables={"yes": True})), times=1)
        again = await cost(lambda: answer(other, subscribe("1", query, variables={"yes": True})))
        assert again < made / 3
        assert one.sent[0] == other.sent[0]
        await answer(other, subscribe("1", query, variables={"yes": False}))
        assert "__typename" not in json.loads(other.sent[0]["text"])["payload"]["data"]
        assert "__typename" in json.loads(one.sent[0]["text"])["payload"]["data"]


async def test_an_answer_has_a_bound_of_its_own():
    manager = SubscriptionManager(large_schema(1_000), limits=Limits(max_result_bytes=2**19, max_event_bytes=1_000))
    aliases = " ".join(f"a{n}: __schema {WHOLE.removeprefix('{ __schema ').removesuffix(' }')}" for n in range(29))
    async with manager, direct(manager) as server:
        await answer(server, subscribe("1", whole()))
        assert len(server.sent[0]["text"]) > 2**19
        server.sent.clear()
        server.say(subscribe("2", f"{{ {aliases} }}"))
        await until(lambda: server.sent)
        error = json.loads(server.sent[0]["text"])
        assert (error["id"], error["type"]) == ("2", "error")
        assert error["payload"][0]["extensions"] == {"code": "RESULT_TOO_LARGE"}
        assert error["payload"][0]["message"] == f"The answer would be larger than {16 * 2**20} bytes."


async def large(client: Client, id: str) -> int:
    """The size of an answer and its completion, which come next."""
    frame = await client.receive()
    assert json.loads(frame)["id"] == id
    await client.expect({"id": id, "type": "complete"})
    return len(frame)


async def test_one_answer_waits_for_a_client_that_does_not_read():
    manager = SubscriptionManager(large_schema(300), limits=Limits(ping_interval=600))
    async with served(manager, server=NARROW) as (_, server):
        async with server.acknowledged() as client:
            await client.ask("0", whole())
            size = await large(client, "0")
        async with server.acknowledged(narrow=True) as client:
            client.stop_reading()
            for n in range(1, 20):
                await client.ask(str(n), whole(f"Q{n}"))
            async with server.acknowledged() as other:
                # It is served meanwhile, and has its own made.
                await other.ask("1", whole("Other"))
                await large(other, "1")
            metrics = manager.get_metrics()
            assert metrics["queued_messages"] <= 1
            assert metrics["queued_bytes"] <= size
            client.read_on()
            assert [await large(client, str(n)) - len(str(n)) for n in range(1, 20)] == [size - 1] * 19


async def test_an_answer_that_is_not_wanted_any_more_is_not_sent():
    manager = SubscriptionManager(large_schema())
    complete = {"id": "1", "type": "complete"}
    async with manager, direct(manager) as server:
        server.say(subscribe("1", whole("A")), subscribe("2", whole("B")), subscribe("3", whole("C")), complete)
        server.say({"id": "2", "type": "complete"}, subscribe("1", "subscription { ticks }"))
        await until(lambda: len(server.sent) == 2)
        assert sent(server) == [("next", "3"), ("complete", "3")]
        # The id is free for something else.
        await manager.publish_event("x", "c", {"n": 1})
        await until(lambda: len(server.sent) == 3)
        assert server.sent[2]["text"] == '{"id":"1","type":"next","payload":{"data":{"ticks":{"n":1}}}}'


async def test_a_connection_that_ends_leaves_nothing_of_what_it_asked():
    manager = SubscriptionManager(large_schema())
    async with manager:
        async with direct(manager) as server:
            server.say(*(subscribe(str(n), whole(f"Q{n}")) for n in range(50)))
            await until(lambda: len(server.sent) >= 2)
        assert manager.get_metrics()["connections"] == 0
        came = len(server.sent)
        # Whoever asks next does not wait for the other fifty.
        async with direct(manager) as other:
            await answer(other, subscribe("1", whole("Another")))
            assert sent(other) == [("next", "1"), ("complete", "1")]
        assert len(server.sent) == came
        assert asyncio.all_tasks() == {asyncio.current_task()}
