"""What no client should send: it ends its own connection or operation, quickly, and nobody else notices."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from fraiseql_subs import Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import Client, Direct, gauges, next_frame, publish_tick, served, tick, tick_of, ticking, until
from .support import soon

# ---- frames ----

INVALID = "Invalid message received: "


@pytest.mark.parametrize(
    ("frame", "close"),
    [
        ("{", (4400, INVALID + "not JSON")),
        ("[" * 200_000, (4400, INVALID + "nested too deep")),
        ('{"a":' * 40_000, (4400, INVALID + "nested too deep")),
        ('{"type":"ping","payload":' + '{"a":' * 128 + "1" + "}" * 129, (4400, INVALID + "nested too deep")),
        ('{"type":"ping","payload":{"a":"' + "\\u0000" + '"}}', (4400, INVALID + "contains NUL")),
        ('{"type":"ping\\u0000"}', (4400, INVALID + "contains NUL")),
        ("\x00", (4400, INVALID + "not JSON")),
        ('{"type":"\x00"}', (4400, INVALID + "not JSON")),
        ("\ufeff" + '{"type":"ping"}', (4400, INVALID + "not JSON")),
        ('{"type":"ping","payload":{"a":"\\udead"}}', (4400, INVALID + "not JSON")),
        ('{"type":"ping","payload":{"a":"\\ud800\\ud800"}}', (4400, INVALID + "not JSON")),
        ('{"type":"ping","payload":{"a":' + "9" * 200_000 + "x}}", (4400, INVALID + "not JSON")),
        ("1" * 200_000, (4400, INVALID + "not an object")),
        ('{"type":"' + "x" * 200_000 + '"}', (4400, INVALID + "unknown type")),
        ('{"type":"connection_ack"}', (4400, INVALID + "unknown type")),
        ('{"type":"next","id":"1","payload":{}}', (4400, INVALID + "unknown type")),
        ('{"type":["ping"]}', (4400, INVALID + "type must be a string")),
        (b"", (4400, INVALID + "binary frame")),
        (b'{"type":"ping"}', (4400, INVALID + "binary frame")),
        (b"\xff" * 200_000, (4400, INVALID + "binary frame")),
        ("x" * 262_145, (1009, "Message too big")),
    ],
)
@pytest.mark.parametrize("phase", ["before the init", "after the ack"])
async def test_what_is_no_message_ends_this_connection_alone(frame, close, phase):
    async with ticking() as (manager, server), server.acknowledged() as other, server.client() as client:
        if phase == "after the ack":
            await client.init()
            await client.subscribe("1", tick_of("a"))
        await other.subscribe("1", tick_of("a"))
        await client.send(frame)
        code, reason = await client.closed()
        assert (code, reason) == close
        assert len(reason.encode()) < 123
        await publish_tick(manager, "a", 1)
        await other.expect(next_frame("1", {"tick": {"n": 1}}))
        assert gauges(manager) == {"connections": 1, "subscriptions": 1}


@pytest.mark.parametrize("broken", [b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b'{"type":"ping"}\xe2\x82'])
@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
async def test_text_that_is_not_utf_8_is_closed_by_the_layer_below(broken, ws):
    async with ticking(server={"ws": ws}) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", tick_of("a"))
        client.ws.protocol.send_text(broken)
        client.ws.transport.write(b"".join(client.ws.protocol.data_to_send()))
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive()
        if closed.value.rcvd is not None:  # wsproto's server says nothing
            assert closed.value.rcvd.code == 1007
        await until(lambda: gauges(manager) == {"connections": 0, "subscriptions": 0})
        # Some servers log what they do not like; that is theirs.
        assert all(text.startswith("uvicorn.error") for text in server.log.take())


class Relayed(Direct):
    """A server that hands a message on as it came, as Python allows, and ends the connection after the answer."""

    def __init__(self, manager: SubscriptionManager, message: dict[str, Any]) -> None:
        super().__init__(SubscriptionApp(manager))
        self.hand({"type": "websocket.receive", **message})

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] != "websocket.accept":
            self.hand({"type": "websocket.disconnect", "code": 1006})


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        ({"text": '{"type":"ping","payload":{"a":"\ud800"}}'}, "not Unicode text"),
        ({"text": "\udfff"}, "not Unicode text"),
        ({"bytes": b"x", "text": None}, "binary frame"),
        ({"bytes": b"x"}, "binary frame"),
    ],
)
async def test_what_other_servers_may_hand_on(message, detail):
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        server = Relayed(manager, message)
        await soon(server.task)
    assert server.sent == [
        {"type": "websocket.accept", "subprotocol": "graphql-transport-ws"},
        {"type": "websocket.close", "code": 4400, "reason": INVALID + detail},
    ]


async def test_a_text_beside_empty_bytes_is_text():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        server = Relayed(manager, {"text": '{"type":"ping"}', "bytes": None})
        await soon(server.task)
    assert server.sent[1:] == [{"type": "websocket.send", "text": '{"type":"pong"}'}]


@pytest.mark.parametrize("operation", ["x" * 1_024, "\u20ac" * 341, '"\\\t\u001f</script>', "__proto__", " "])
async def test_any_text_that_is_not_too_long_is_an_id(operation):
    async with ticking() as (manager, server), server.acknowledged() as client:
        await client.subscribe(operation, tick_of("a"))
        await publish_tick(manager, "a", 1)
        message = await client.message()
        assert message == {"id": operation, "type": "next", "payload": {"data": {"tick": {"n": 1}}}}


async def test_the_reason_of_a_long_id_fits_a_close_frame():
    async with ticking() as (_, server), server.acknowledged() as client:
        await client.subscribe("\u20ac" * 341, tick_of("a"))
        await client.ask("\u20ac" * 341, tick_of("a"))
        code, reason = await client.closed()
        assert code == 4409
        assert len(reason.encode()) < 123
        assert reason.startswith("Subscriber for \u20ac")
        assert reason.endswith("\u2026 already exists")


async def test_fragments_with_pings_between_them_are_one_message():
    async with ticking() as (_, server), server.acknowledged() as client:
        protocol = client.ws.protocol
        for piece, opcode in ((b'{"type":', 1), (b'"pi', 0), (b"\xe2" * 0 + b'ng"', 0)):
            if opcode:
                protocol.send_text(piece, fin=False)
            else:
                protocol.send_continuation(piece, fin=False)
            protocol.send_ping(b"between")
        protocol.send_continuation(b"}", fin=True)
        client.ws.transport.write(b"".join(protocol.data_to_send()))
        await client.expect({"type": "pong"})


# ---- documents ----


@subscription(channel="deep")
async def node() -> Any:
    return {}


def schema() -> Schema:
    sdl = """
        type Query { _empty: Boolean }
        interface Named { name: String }
        type Node implements Named { name: String next: Node list(first: Int, filter: Filter): [Node] named: Named }
        input Filter { and: [Filter!] name: String }
        type Tick { n: Int text: String }
        type Subscription { tick(of: ID!): Tick node: Node }
    """
    return Schema.from_sdl(sdl, subscriptions=[tick, node])


def fragment_bomb(levels: int) -> str:
    """Twice as many fields with each level, in a text that grows by a line."""
    lines = [f"fragment F{n} on Node {{ ...F{n + 1} ...F{n + 1} }}" for n in range(levels)]
    return "subscription { node { ...F0 } } " + " ".join(lines) + f" fragment F{levels} on Node {{ name }}"


def nested_fragment_bomb(levels: int) -> str:
    lines = [f"fragment F{n} on Node {{ a: next {{ ...F{n + 1} }} b: next {{ ...F{n + 1} }} }}" for n in range(levels)]
    return "subscription { node { ...F0 } } " + " ".join(lines) + f" fragment F{levels} on Node {{ name }}"


def overlapping(count: int) -> str:
    """Fields that have to be compared with one another."""
    return "subscription { node { " + "next { name } " * count + "} }"


BOMBS = {
    "fragments": fragment_bomb(60),
    "nested fragments": nested_fragment_bomb(15),
    "fragments in a circle": "subscription { node { ...A } } fragment A on Node { ...B } fragment B on Node { ...A }",
    "a fragment in itself": "subscription { node { ...A } } fragment A on Node { next { ...A } }",
    "aliases": "subscription { node { " + " ".join(f"a{n}: name" for n in range(600)) + " } }",
    "depth": "subscription { node " + "{ next " * 1_900 + "{ name }" + " }" * 1_900 + " }",
    "unclosed depth": "subscription " + "{ a " * 1_900,
    "inline fragments": "subscription { node " + "{ ... " * 900 + "{ name }" + " }" * 900 + " }",
    "directives": "subscription { node { name " + "@skip(if: false) " * 300 + "} }",
    "unknown directives": "subscription { node { name " + "@a " * 900 + "} }",
    "a list in lists": "subscription { node { list(first: " + "[" * 900 + "1" + "]" * 900 + ") { name } } }",
    "an object in objects": "subscription { node { list(filter: "
    + "{ and: [" * 400
    + "{}"
    + "] }" * 400
    + ") { name } } }",
    "overlapping fields": overlapping(600),
    "overlapping deep": "subscription { node { " + ("next { " * 17 + "name" + " }" * 17 + " ") * 40 + "} }",
    "variables": "subscription (" + " ".join(f"$v{n}: Int" for n in range(450)) + ") { node { name } }",
    "unused fragments": "subscription { node { name } } "
    + " ".join(f"fragment F{n} on Node {{ ...F{n + 1} }}" for n in range(300))
    + " fragment F300 on Node { name }",
    "operations": " ".join(f"subscription S{n} {{ node {{ name }} }}" for n in range(280)),
    "a long name": "subscription { node { " + "n" * 60_000 + " } }",
    "a long string": 'subscription { tick(of: "' + "x" * 60_000 + '") { nobody } }',
    "a long number": "subscription { tick(of: " + "9" * 60_000 + ") { nobody } }",
    "a long block string": 'subscription { tick(of: """' + "\n " * 30_000 + '""") { nobody } }',
    "commas": "subscription { node { nobody " + "," * 60_000 + " } }",
    "comments": "subscription { node { nobody " + "#\n" * 30_000 + " } }",
    "bytes": "subscription { node { name } } #" + "x" * 70_000,
    "tokens": "subscription { node { " + "name " * 5_000 + " } }",
    "introspection": "{ __schema { types { "
    + "fields { type { fields { type { " * 4
    + "name"
    + " } } } }" * 4
    + " } } }",
}
CODES = {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "LIMIT_EXCEEDED", "OPERATION_RESOLUTION_FAILURE"}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_hostile_document_is_refused_and_another_client_sees_no_delay(bomb):
    manager = SubscriptionManager(schema())
    async with served(manager) as (_, server), server.acknowledged() as client, server.acknowledged() as other:
        await other.subscribe("1", tick_of("a"))
        began = time.process_time()
        for operation in range(5):
            await client.ask(str(operation), BOMBS[bomb])
        await publish_tick(manager, "a", 1)
        await other.expect(next_frame("1", {"tick": {"n": 1}}))
        for operation in range(5):
            message = await client.message()
            assert (message["id"], message["type"]) == (str(operation), "error")
            assert {error["extensions"]["code"] for error in message["payload"]} <= CODES
            assert len(json.dumps(message)) < 100_000
        # Without optimisation, with everything that a test has around it.
        assert time.process_time() - began < 1.0
        await client.subscribe("1", tick_of("a"))
        await publish_tick(manager, "a", 2)
        for each in (client, other):
            await each.expect(next_frame("1", {"tick": {"n": 2}}))


async def test_the_most_that_a_document_may_have_is_admitted_as_quickly():
    manager = SubscriptionManager(schema())
    async with served(manager) as (_, server), server.acknowledged() as client:
        began = time.process_time()
        for operation in range(5):
            await client.subscribe(str(operation), overlapping(490) + " " * operation)
        assert time.process_time() - began < 1.0


async def test_distinct_documents_do_not_pile_up():
    """A thousand documents that are all known for a moment; what is kept of them is bounded."""
    limits = Limits(subscribes_per_second=None)
    async with ticking(limits=limits) as (manager, server), server.acknowledged() as client:
        for n in range(300):
            await client.ask("1", f"subscription {{ tick(of: {n}) {{ n }} }}")
            await client.complete("1")
            await client.ask("2", f"subscription {{ tick(of: {n}) {{ nobody{n} }} }}")
        for n in range(300):
            assert f"nobody{n}" in await client.receive()
        await client.sync()
        assert gauges(manager)["subscriptions"] == 0


# ---- requests ----


def error(code: str, **more: Any) -> dict[str, Any]:
    return {"extensions": {"code": code}, **more}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"query": ""}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "subscription {"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "\ufeff#"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "fragment F on Tick { n }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { nobody }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { tick { n } }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { tick(of: 1) }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { a: tick(of: 1) { n } b: tick(of: 1) { n } }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { __typename }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "{ _empty }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "mutation { tick }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "type T { a: Int }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": tick_of(1), "operationName": "A"}, "OPERATION_RESOLUTION_FAILURE"),
        (
            {"query": "subscription A { tick(of: 1) { n } } subscription B { tick(of: 1) { n } }"},
            "OPERATION_RESOLUTION_FAILURE",
        ),
        ({"query": "subscription ($of: ID!) { tick(of: $of) { n } }"}, "BAD_USER_INPUT"),
        ({"query": "subscription ($of: ID!) { tick(of: $of) { n } }", "variables": {"of": None}}, "BAD_USER_INPUT"),
        ({"query": "subscription ($of: ID!) { tick(of: $of) { n } }", "variables": {"of": [1, 2]}}, "BAD_USER_INPUT"),
        ({"query": "subscription ($of: ID!) { tick(of: $of) { n } }", "variables": {"of": "a\x7f"}}, "BAD_USER_INPUT"),
        ({"query": "subscription ($of: ID!) { tick(of: $of) { n } }", "variables": {"of": "a\nb"}}, "BAD_USER_INPUT"),
    ],
)
async def test_a_bad_request_is_an_error_and_the_socket_stays(payload, code):
    async with ticking() as (manager, server), server.acknowledged() as client:
        await client.send({"id": "1", "type": "subscribe", "payload": payload})
        message = await client.message()
        assert (message["id"], message["type"]) == ("1", "error")
        assert {error["extensions"]["code"] for error in message["payload"]} == {code}
        assert all(error.keys() <= {"message", "locations", "extensions"} for error in message["payload"])
        assert all(error["message"] for error in message["payload"])
        # The id is free, no complete has followed, and the next one is live.
        await client.subscribe("1", tick_of("a"))
        await publish_tick(manager, "a", 1)
        await client.expect(next_frame("1", {"tick": {"n": 1}}))


@pytest.mark.parametrize(
    ("query", "line", "column"),
    [
        ("subscription {\n  tick(of: 1) {\n    nobody\n  }\n}", 3, 5),
        ("subscription {\n  tick(of: 1) { n }\n", 3, 1),
        ("{\n  _empty\n}", 2, 3),
    ],
)
async def test_errors_say_where(query, line, column):
    async with ticking() as (_, server), server.acknowledged() as client:
        await client.ask("1", query)
        assert (await client.message())["payload"][0]["locations"] == [{"line": line, "column": column}]


async def test_what_is_served_here_is_said_to_queries_and_mutations():
    async with ticking() as (_, server), server.acknowledged() as client:
        for query in ("{ _empty }", "query Q { _empty }"):
            await client.ask("1", query)
            assert "subscription" in (await client.message())["payload"][0]["message"].lower()


@pytest.mark.parametrize("introspection", [True, False])
async def test_introspection_is_answered_where_it_is_not_switched_off(introspection):
    async with ticking(introspection=introspection) as (_, server), server.acknowledged() as client:
        await client.ask("1", "{ __typename a: __typename }")
        await client.expect(next_frame("1", {"__typename": "Query", "a": "Query"}), {"id": "1", "type": "complete"})
        for query, data in (
            ("{ __schema { queryType { name } } }", {"__schema": {"queryType": {"name": "Query"}}}),
            ('{ __type(name: "Tick") { kind } }', {"__type": {"kind": "OBJECT"}}),
            ("query Q($n: String!) { t: __type(name: $n) { name } }", {"t": {"name": "Tick"}}),
        ):
            await client.ask("1", query, **({"variables": {"n": "Tick"}} if "$n" in query else {}))
            if introspection:
                await client.expect(next_frame("1", data), {"id": "1", "type": "complete"})
            else:
                message = await client.message()
                assert (message["id"], message["type"]) == ("1", "error")
                assert "introspection" in message["payload"][0]["message"].lower()
        await client.sync()


async def test_introspection_cannot_hide_behind_a_fragment():
    async with ticking(introspection=False) as (_, server), server.acknowledged() as client:
        for query in (
            "{ ...F } fragment F on Query { __schema { description } }",
            "{ ... on Query { x: __schema { description } } }",
            "{ __typename ... @include(if: true) { __schema { description } } }",
        ):
            await client.ask("1", query)
            assert (await client.message())["type"] == "error"


async def many(client: Client, count: int) -> None:
    for n in range(count):
        await client.ask(str(n), tick_of(n))


async def test_a_thousand_subscribes_and_completes_leave_what_there_was():
    limits = Limits(max_subscriptions_per_connection=1_000, subscribes_per_second=None)
    async with ticking(limits=limits) as (manager, server), server.acknowledged() as client:
        await many(client, 1_000)
        await client.sync()
        assert gauges(manager)["subscriptions"] == 1_000
        for n in range(1_000):
            await client.complete(str(n))
        await client.sync()
        assert gauges(manager)["subscriptions"] == 0
        await publish_tick(manager, 1, 1)
        await client.sync()
