"""Attacks by documents: each gets what this viewer may see, or a refusal that tells nothing.

Beside each stands a viewer for whom the same is right, so that no test holds because nothing arrives.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    Forbidden,
    Schema,
    SecurityContext,
    SubscriptionManager,
    data,
    requires,
    subscription,
    viewer,
)

from .attacks import CODES, FORBIDDEN, SECRET, attacked, attempt
from .sockets import FORBIDDEN as CLOSED
from .sockets import next_frame

# ---- round a field's permission ----


GUARDED = """
interface Node { id: ID! secret: String @requiresScopes(scopes: [["see"]]) next: Node list: [Node!] }
type A implements Node { id: ID! secret: String next: Node list: [Node!] }
type B implements Node { id: ID! secret: String next: Node list: [Node!]
    own: String @requiresScopes(scopes: [["see"]]) }
union Either = A | B
type Query { q: Int }
type Subscription { node: Node either: Either a: A }
"""


def guarded_schema() -> Schema:
    def tree(kind: str, depth: int = 2) -> dict[str, Any]:
        below = tree("B", depth - 1) if depth else None
        more = {"next": below, "list": [below, below] if below else []}
        return {"__typename": kind, "id": "1", "secret": SECRET, "own": SECRET, **more}

    @subscription(channel="c")
    async def node(event):
        return tree("B")

    @subscription(channel="c")
    async def either(event):
        return tree("B")

    @subscription(channel="c")
    async def a(event):
        return tree("A")

    return Schema.from_sdl(GUARDED, [node, either, a])


@dataclass
class Item:
    id: ID
    secret: Annotated[str | None, requires("see")] = None
    next: Item | None = None
    list: list[Item] | None = None


@dataclass
class Other:
    id: ID


def guarded_code() -> Schema:
    item = Item(ID("1"), SECRET, Item(ID("2"), SECRET, Item(ID("3"), SECRET)), [Item(ID("4"), SECRET)])

    @subscription(channel="c")
    async def node(event: Event) -> Item:
        return item

    @subscription(channel="c")
    async def either(event: Event) -> Item | Other:
        return item

    return Schema(subscriptions=[node, either])


ROUTES = {
    "plainly": "{ node { secret } }",
    "by an alias": "{ node { x: secret } }",
    "by the alias of a field that may be seen": "{ node { id: secret } }",
    "by an alias that looks like a meta field": "{ node { __typename: secret } }",
    "by a fragment": "{ node { ...F } } fragment F on NODE { secret }",
    "by a fragment in a fragment": "{ node { ...G } } fragment F on NODE { secret } fragment G on NODE { ...F }",
    "by an inline fragment": "{ node { ... { secret } } }",
    "by a type condition": "{ node { ... on TYPE { secret } } }",
    "by two type conditions": "{ node { ... on NODE { ... on TYPE { secret } } } }",
    "by a union": "{ either { ... on TYPE { secret } } }",
    "by an abstract type in a union": "{ either { ... on NODE { secret } } }",
    "further down": "{ node { next { next { secret } } } }",
    "in a list": "{ node { list { secret } } }",
    "by a fragment at the root": "{ ...F ...F } fragment F on Subscription { node { secret } }",
    "merged further down": "{ node { next { id } ... { next { secret } } } }",
    "by an inline fragment at the root": "{ ... on Subscription { node { secret } } }",
    "where a variable includes it": "($on: Boolean = true) { node { id secret @include(if: $on) } }",
    "where a variable does not skip it": "($off: Boolean = false) { node { id ... @skip(if: $off) { secret } } }",
    "next to its type's name": "{ node { __typename secret } }",
}
ONLY_SDL = {
    "by the interface's other type": "{ a { secret } }",
    "by the interface of a concrete field": "{ a { ... on Node { secret } } }",
    "by a guard of one type behind the interface": "{ node { ... on B { own } } }",
    "by one key for two types": "{ node { ... on A { x: secret } ... on B { x: own } } }",
}


@pytest.mark.parametrize("route", [*ROUTES, *ONLY_SDL])
@pytest.mark.parametrize("build", [guarded_schema, guarded_code])
async def test_no_document_leads_round_a_fields_permission(route, build):
    if build is guarded_code and route in ONLY_SDL:
        build = guarded_schema  # code first has no interfaces
    names = ("Node", "B") if build is guarded_schema else ("Item", "Item")
    query = "subscription " + {**ROUTES, **ONLY_SDL}[route].replace("NODE", names[0]).replace("TYPE", names[1])
    async with attacked(schema=build()) as (manager, server):
        async with server.acknowledged(payload={"permissions": ["see"]}) as allowed, server.acknowledged() as client:
            for who, sees in ((client, False), (allowed, True), (client, False)):
                answer = await attempt(manager, who, query)
                assert (SECRET in json.dumps(answer)) is sees, answer
                if not sees:
                    errors = answer["errors"]
                    assert {(error["message"], error["extensions"]["code"]) for error in errors} == {
                        ("Forbidden", "FORBIDDEN")
                    }


async def test_a_variable_that_left_a_guarded_field_out_lets_nobody_see_it_later():
    query = "subscription ($on: Boolean!) { node { id secret @include(if: $on) } }"
    async with attacked(schema=guarded_schema()) as (manager, server):
        async with server.acknowledged(payload={"permissions": ["see"]}) as allowed, server.acknowledged() as client:
            for _ in range(2):
                for who in (client, allowed):
                    assert await attempt(manager, who, query, '{"on":false}') == {"data": {"node": {"id": "1"}}}
                answer = await attempt(manager, allowed, query, '{"on":true}')
                assert answer == {"data": {"node": {"id": "1", "secret": SECRET}}}
                answer = await attempt(manager, client, query, '{"on":true}')
                assert answer["data"] == {"node": {"id": "1", "secret": None}}
                assert [error["message"] for error in answer["errors"]] == ["Forbidden"]


@subscription(channel="c", requires=requires("see"), passthrough=True)
async def closed(of: int = 0) -> JSON:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, name="open")
async def opened() -> JSON:
    raise NotImplementedError


@pytest.mark.parametrize(
    "query",
    [
        "subscription { closed }",
        "subscription { open: closed }",
        "subscription { ...F } fragment F on Subscription { open: closed }",
        "subscription { ... { ... on Subscription { closed } } }",
        "subscription { closed(of: 1) ... { closed(of: 1) } }",
        "subscription open { closed }",
        "subscription ($off: Boolean = false) { closed @skip(if: $off) }",
        "subscription { open @skip(if: true) closed }",
        "subscription { open closed }",
        "subscription { open ...F } fragment F on Subscription { closed }",
        "subscription { open ... { open: closed } }",
        "subscription { closed open @include(if: false) }",
        "subscription { closed(of: 9999999999) }",
    ],
)
async def test_no_document_leads_round_a_root_fields_permission(query):
    async with attacked(closed, opened) as (manager, server):
        async with server.acknowledged(payload={"permissions": ["see"]}) as allowed, server.acknowledged() as client:
            answer = await attempt(manager, client, query, event={"n": SECRET})
            seen = await attempt(manager, allowed, query, event={"n": SECRET})
            if isinstance(seen, dict):  # whoever may see it does, and whoever may not learns one word
                assert list(seen["data"].values()) == [{"n": SECRET}]
                assert answer == FORBIDDEN
            else:  # it is no valid document, or asks wrongly
                assert isinstance(answer, list)
                assert {error["extensions"]["code"] for error in seen} <= CODES


async def test_an_operation_name_selects_what_is_asked_about():
    query = "subscription A { open } subscription B { open: closed }"
    async with attacked(closed, opened) as (manager, server), server.acknowledged() as client:
        for _ in range(2):
            await client.ask("1", query, operationName="B")
            assert (await client.message())["payload"] == FORBIDDEN
            await client.subscribe("1", query, operationName="A")
            await manager.publish_event("x", "c", {"n": 1})
            await client.expect(next_frame("1", {"open": {"n": 1}}))
            await client.complete("1")


async def test_a_list_in_an_objects_place_does_not_tell_what_its_fields_guard():
    @subscription(channel="c", passthrough=True)
    async def holder() -> Item:
        raise NotImplementedError

    event = {"id": "1", "next": [{"id": "2", "secret": SECRET}]}
    async with attacked(holder) as (manager, server), server.acknowledged() as client:
        answer = await attempt(manager, client, "subscription { holder { id next { id secret } } }", event=event)
        assert SECRET not in json.dumps(answer)
        assert answer["data"] == {"holder": {"id": "1", "next": None}}


# ---- introspection ----


@pytest.mark.parametrize(
    "query",
    [
        "{ __schema { types { name } } }",
        "{ x: __schema { types { name } } }",
        '{ __type(name: "Item") { fields { name } } }',
        "{ __typename ...F } fragment F on Query { __schema { types { name } } }",
        "{ ... @include(if: true) { __typename: __schema { types { name } } } }",
        "query A { __typename } query B { __schema { types { name } } }",
    ],
)
async def test_switched_off_introspection_tells_no_type(query):
    name = {"operationName": "B"} if "B" in query else {}
    for introspection in (True, False):
        async with attacked(schema=guarded_code(), introspection=introspection) as (_, server):
            async with server.acknowledged() as client:
                await client.ask("1", query, **name)
                frame = await client.receive()
                if introspection:
                    assert "Item" in frame or "secret" in frame
                    await client.expect({"id": "1", "type": "complete"})
                else:
                    assert json.loads(frame)["type"] == "error"
                    assert "Item" not in frame
                    assert "secret" not in frame


@pytest.mark.parametrize("introspection", [True, False])
async def test_a_wrong_name_is_answered_without_suggesting_others(introspection):
    async with attacked(schema=guarded_code(), introspection=introspection) as (_, server):
        async with server.acknowledged() as client:
            for query in (
                "{ node { secre } }",
                "{ nod { id } }",
                "{ node { ... on Ite { id } } }",
                "{ node(i: 1) { id } }",
            ):
                await client.ask("1", "subscription " + query)
                frame = await client.receive()
                assert '"GRAPHQL_VALIDATION_FAILED"' in frame
                assert "secret" not in frame
                assert "mean" not in frame


# ---- what a client is told ----


PLANTED = [f"{SECRET}-{what}" for what in ("rule", "claim", "channel", "tenant", "text", "role", "source", "owner")]


class Lazy(Mapping[str, Any]):
    """A mapping that fails when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("planted-text")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


@dataclass
class Broken:
    @property
    def text(self) -> str:
        raise ValueError("planted-text")

    async def later(self) -> str:
        raise LookupError("planted-text")


SDL = """
type Broken { text: String later: String n: Int }
scalar Any
type Query { q: Int }
type Subscription { broken: Broken lazy: Any raising: Int generated: Int scoped(of: ID!): Int ruled: Int sourced: Int }
"""


@subscription(channel="planted-channel", rows=data["owner"] == viewer("claims", "of"))
async def broken(event):
    return Broken()


@subscription(channel="planted-channel")
async def lazy(event):
    return Lazy()


@subscription(channel="planted-channel")
def raising(event):
    try:
        raise KeyError("planted-text")
    except KeyError as error:
        raise RuntimeError("planted-text") from error


@subscription
async def generated(info):
    yield 1
    raise RuntimeError(f"planted-text {info.viewer}")


@subscription(channel="planted-channel", scope={"of": viewer("claims", "of")})
async def scoped(event, of):
    return 1


@subscription(channel="planted-channel", requires=requires("planted-rule"))
async def ruled(event):
    return 1


@subscription(channel="planted-channel", sources=["planted-source"])
async def sourced(event):
    return 1


async def test_no_frame_and_no_close_tells_a_rule_a_value_or_an_exceptions_text():
    functions: list[Any] = [broken, lazy, raising, generated, scoped, ruled, sourced]
    context = {
        "user_id": 1, "tenant_id": "planted-tenant", "roles": ["planted-role"], "claims": {"of": "planted-claim"},
        "sources": ["other"],
    }  # fmt: skip
    masked = {"message": "Internal server error", "code": "INTERNAL_SERVER_ERROR"}
    forbidden = {"message": "Forbidden", "code": "FORBIDDEN"}
    told: list[str] = []

    def said(frame: str) -> list[dict[str, Any]]:
        told.append(frame)
        payload = json.loads(frame)["payload"]
        errors = payload if isinstance(payload, list) else payload["errors"]
        return [{"message": error["message"], **error["extensions"]} for error in errors]

    async with attacked(schema=Schema.from_sdl(SDL, functions)) as (manager, server):
        async with server.acknowledged(payload={**context, "sources": None}) as client:
            event = {"owner": "planted-claim"}
            for query in ("{ broken { text later n } }", "{ lazy }", "{ raising }"):
                await client.subscribe("1", "subscription " + query)
                await manager.publish_event("x", "planted-channel", event, tenant_id="planted-tenant")
                errors = said(await client.receive())
                assert errors == [masked] * len(errors)
                await client.complete("1")
                await client.sync()
            await client.ask("1", "subscription { generated }")
            await client.expect(next_frame("1", {"generated": 1}))
            assert said(await client.receive()) == [masked]
            for query in ("{ scoped(of: 1) }", "{ ruled }"):
                await client.ask("1", "subscription " + query)
                assert said(await client.receive()) == [forbidden]
        async with server.acknowledged(payload=context) as client:
            for query in ("{ sourced }", "{ generated }"):
                await client.ask("1", "subscription " + query)
                assert said(await client.receive()) == [forbidden]
            await manager.revoke(tenant_id="planted-tenant")
            told.append(repr(await client.closed()))
        logged = server.log.take()
        assert any("planted-text" in text for text in logged)  # operators are told
    for text in told:
        assert SECRET not in text
    async with SubscriptionManager(Schema.from_sdl(SDL, functions)) as manager:
        with pytest.raises(Forbidden, match=r"^Forbidden$") as refused:
            await anext(manager.subscribe("subscription { ruled }"))
    assert refused.value.__cause__ is refused.value.__context__ is None


async def test_an_auth_handlers_text_is_in_no_close():
    async def raising(payload: dict[str, Any]) -> SecurityContext:
        if payload == {"n": 1}:
            return SecurityContext()
        raise RuntimeError(f"planted-text {payload}")

    async with attacked(opened, auth_handler=raising) as (manager, server):
        async with server.client() as client:
            await client.send({"type": "connection_init", "payload": {"token": SECRET}})
            assert await client.closed() == CLOSED
        async with server.acknowledged(payload={"n": 1}) as client:
            assert await attempt(manager, client, "subscription { open }") == {"data": {"open": {}}}
            await client.ask_refresh({"token": SECRET})
            await client.expect({"type": "pong", "payload": {"refresh": {"ok": False}}})
        # It is for the operator, in the log.
        assert ["planted-text" in text for text in server.log.take()] == [True, True]


LONG_NUMBER = "9" * 5_000  # Python converts no text of so many digits


@pytest.mark.parametrize("when", ["init", "refresh"])
async def test_a_number_that_python_cannot_hold_is_refused_and_is_no_error_of_the_server(when):
    async with attacked(opened) as (manager, server):
        async with server.client() as client, server.acknowledged() as other:
            if when == "init":
                await client.send(f'{{"type":"connection_init","payload":{{"user_id":{LONG_NUMBER}}}}}')
                assert await client.closed() == CLOSED
            else:
                await client.init()
                await client.send(f'{{"type":"ping","payload":{{"refresh":{{"user_id":{LONG_NUMBER}}}}}}}')
                await client.expect({"type": "pong", "payload": {"refresh": {"ok": False}}})
            assert await attempt(manager, other, "subscription { open }") == {"data": {"open": {}}}


@subscription(channel="c")
async def echoed(event: Event, of: JSON | None = None) -> JSON:
    return [of, event.data]


@subscription(channel="c", name="threaded")
def echoed_by_a_thread(event: Event, of: JSON | None = None) -> JSON:
    return [of, event.data]


TOO_LONG = "JSON cannot hold a number of more than 4300 digits"


@pytest.mark.parametrize("number", [LONG_NUMBER, "-" + LONG_NUMBER, "1e99999999", "1e-99999999", "1.5E+4300"])
@pytest.mark.parametrize("field", ["echoed", "threaded"])
async def test_a_number_that_python_would_not_end_with_is_refused_as_an_argument(field, number):
    def sent(text: str) -> str:
        return f'{{"type":"subscribe","id":"1","payload":{{"query":{text}}}}}'

    async with attacked(opened, echoed, echoed_by_a_thread) as (manager, server):
        async with server.acknowledged() as client:
            for text in (
                f'"subscription {{ {field}(of: {number}) }}"',
                f'"subscription {{ {field}(of: [{{a: {number}}}]) }}"',
                f'"subscription ($v: JSON = {number}) {{ {field}(of: $v) }}"',
                f'"subscription ($v: JSON) {{ {field}(of: $v) }}","variables":{{"v":[{number}]}}',
            ):
                await client.send(sent(text))
                message = await client.message()
                assert (message["type"], message["id"]) == ("error", "1")
                [error] = message["payload"]
                assert error["extensions"] == {"code": "BAD_USER_INPUT"}
                assert TOO_LONG in error["message"]
                assert len(error["message"]) < 700
            # A control: the longest that is taken.
            await client.subscribe("1", f"subscription {{ {field}(of: {LONG_NUMBER[:4300]}) }}")
            await manager.publish_event("x", "c", '{"n":1}')
            await client.expect(next_frame("1", {field: [int(LONG_NUMBER[:4300]), {"n": 1}]}))
        assert server.log.take() == []


@pytest.mark.parametrize("number", [LONG_NUMBER, "1e99999999"])
@pytest.mark.parametrize("field", ["echoed", "threaded"])
async def test_a_number_of_any_length_in_an_event_reaches_a_function(field, number):
    async with attacked(opened, echoed, echoed_by_a_thread) as (manager, server):
        async with server.acknowledged() as client:
            await client.subscribe("1", f"subscription {{ {field} }}")
            await client.subscribe("2", "subscription { open }")  # no Python on its way
            await manager.publish_event("x", "c", f'{{"n":{number}}}')
            native, function = sorted([await client.receive(), await client.receive()], key=len)
            if '"open"' in function:
                native, function = function, native
            assert (
                native.replace("+", "")
                == f'{{"id":"2","type":"next","payload":{{"data":{{"open":{{"n":{number}}}}}}}}}'
            )
            # It is a Decimal, which is text in JSON.
            given = json.loads(function)["payload"]["data"][field][1]["n"]
            assert isinstance(given, str)
            assert Decimal(given) == Decimal(number)
        assert server.log.take() == []
