"""Schema first with other people's SDL: fields without a function, scalars of its own, names that Python keeps."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import graphql
import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    GraphQLRequestError,
    Schema,
    SchemaError,
    SubscriptionManager,
    argument,
    data,
    subscription,
    viewer,
)

from .support import one

CALLS: list[Any] = []


async def result_of(schema: Schema, query: str, published: dict[str, Any] | None = None, **options: Any) -> Any:
    manager = SubscriptionManager(schema)
    CALLS.clear()
    async with manager, manager.subscribe(query, framing="result", **options) as stream:
        await manager.publish_event("x", "c", published or {})
        return await one(stream)


@subscription(channel="c")
async def order_changed(event: Event, since=None):
    CALLS.append(since)
    return event.data


# partial=True

MANY = """
interface Changes { orderChanged(since: String): Order other1: Int }
type Query { ok: Boolean }
type Order { id: ID }
type Subscription implements Changes {
  "It stays."
  orderChanged(since: String): Order
  OTHERS
}
extend type Subscription { other80: Int }
""".replace("OTHERS", "\n  ".join(f"other{n}: Int" for n in range(1, 80)))


async def test_subscription_fields_without_a_function_can_be_left_out():
    with pytest.raises(SchemaError, match=r"Subscription\.other1 has no function.*partial=True"):
        Schema.from_sdl(MANY, [order_changed])
    schema = Schema.from_sdl(MANY, [order_changed], partial=True)
    built = graphql.build_schema(schema.sdl)
    assert built.subscription_type is not None
    assert list(built.subscription_type.fields) == ["orderChanged"]
    assert built.subscription_type.fields["orderChanged"].description == "It stays."
    assert Schema.from_sdl(schema.sdl, [order_changed]).sdl == schema.sdl
    assert await result_of(schema, "subscription { orderChanged { id } }", {"id": 1}) == {
        "data": {"orderChanged": {"id": "1"}}
    }
    with pytest.raises(GraphQLRequestError, match="other1"):
        await result_of(schema, "subscription { other1 }")


@pytest.mark.parametrize(
    "sdl",
    [
        "schema { subscription: S } type S { orderChanged: Int other: Int }",
        "extend schema { subscription: S } extend type S { orderChanged: Int other: Int } extend type S { more: Int }",
        'type Subscription { other: Int } extend type Subscription @key(fields: "id") { orderChanged: Int }',
        "type Foo { a: Int } extend schema { mutation: Foo } type Subscription { orderChanged: Int other: Int }",
    ],
)
async def test_they_are_left_out_wherever_the_root_is_defined(sdl):
    @subscription(channel="c", passthrough=True)
    def order_changed(): ...

    schema = Schema.from_sdl(sdl, [order_changed], partial=True)
    assert not re.search("other|more", schema.sdl)
    assert await result_of(schema, "subscription { orderChanged }", {"a": 1}) is not None


def test_a_function_without_a_field_raises_all_the_same():
    @subscription(channel="c")
    def nobody(): ...

    with pytest.raises(SchemaError, match=r"nobody.*expected one of orderChanged, other1, other2"):
        Schema.from_sdl(MANY, [order_changed, nobody], partial=True)
    with pytest.raises(SchemaError, match="two functions"):
        Schema.from_sdl(MANY, [order_changed, order_changed], partial=True)


# scalars=

DATES = """
scalar Date
scalar Money
scalar Key
input Window { start: Date = 0, end: Date }
type Query { ok: Boolean }
type Order { at: Date, days: [Date!], price: Money, key: Key }
type Subscription { orderChanged(since: Date = 1700000000000, window: Window, price: Money, key: Key): Order }
"""


@subscription(channel="c", name="orderChanged")
async def windows(event: Event, since, window=None, price=None, key=None):
    CALLS.append((since, window, price, key))
    return event.data


async def test_a_scalar_of_the_sdl_is_what_the_user_says():
    schema = Schema.from_sdl(DATES, [windows], scalars={"Date": JSON, "Money": Decimal, "Key": int})
    arguments = 'window: {end: $end}, price: "1.50", key: 7'
    query = f"subscription ($end: Date) {{ orderChanged({arguments}) {{ at days price key }} }}"
    published = {"at": 1700000000001, "days": [1, {"y": 2026}], "price": "2.50", "key": "8"}
    assert await result_of(schema, query, published, variables={"end": {"y": 1}}) == {
        "data": {"orderChanged": {**published, "key": 8}}
    }
    assert [(1700000000000, {"start": 0, "end": {"y": 1}}, Decimal("1.50"), 7)] == CALLS
    payload = await result_of(schema, "subscription { orderChanged { at key price } }", {"key": "x", "price": []})
    assert [error["message"] for error in payload["errors"]] == [
        "Key cannot represent non-integer value: 'x'",
        "Money cannot represent value: an instance of list",
    ]


@pytest.mark.parametrize(
    ("scalar", "literal", "expected"),
    [
        (ID, "7", "7"),
        (str, '"a"', "a"),
        (bool, "true", True),
        (float, "2", 2.0),
        (date, '"2026-01-02"', date(2026, 1, 2)),
        (datetime, '"2026-01-02T03:04:05Z"', datetime.fromisoformat("2026-01-02T03:04:05+00:00")),
        (UUID, '"00000000-0000-0000-0000-00000000000A"', UUID(int=10)),
    ],
)
async def test_any_scalar_type_is_one(scalar, literal, expected):
    sdl = "scalar Mine type Subscription { orderChanged(since: Mine): Mine }"

    @subscription(channel="c", name="orderChanged")
    async def changed(event: Event, since):
        CALLS.append(since)
        return since

    schema = Schema.from_sdl(sdl, [changed], scalars={"Mine": scalar})
    payload = await result_of(schema, f"subscription {{ orderChanged(since: {literal}) }}")
    assert [expected] == CALLS
    assert type(CALLS[0]) is type(expected)
    assert "errors" not in payload
    wrong = "{a: 1}"
    with pytest.raises(GraphQLRequestError, match="Mine cannot"):
        await result_of(schema, f"subscription {{ orderChanged(since: {wrong}) }}")


async def test_without_it_the_name_says_it_and_the_error_says_how_to_change_that():
    hint = r'Date cannot represent value: .*; .*Schema\.from_sdl\(\.\.\., scalars=\{"Date": \.\.\.\}\)'
    with pytest.raises(SchemaError, match=f"the default of .*{hint}"):
        Schema.from_sdl(DATES, [windows])
    sdl = DATES.replace(" = 1700000000000", "").replace(" = 0", "")
    schema = Schema.from_sdl(sdl, [windows])
    with pytest.raises(GraphQLRequestError, match=f"since.*{hint}"):
        await result_of(schema, "subscription { orderChanged(since: 17) { at } }")
    with pytest.raises(GraphQLRequestError, match=f"\\$d.*{hint}"):
        await result_of(schema, "subscription ($d: Date) { orderChanged(since: $d) { at } }", variables={"d": 17})
    payload = await result_of(schema, "subscription { orderChanged { at } }", {"at": 17})
    assert payload["data"] == {"orderChanged": {"at": None}}
    assert re.fullmatch(hint, payload["errors"][0]["message"])
    assert await result_of(
        schema, 'subscription { orderChanged(since: "2026-01-02") { at } }', {"at": "2026-01-03"}
    ) == {"data": {"orderChanged": {"at": "2026-01-03"}}}
    assert [(date(2026, 1, 2), None, None, None)] == CALLS


async def test_channels_and_predicates_know_what_a_scalar_is():
    sdl = "scalar Key type Subscription { orderChanged(key: Key!): Key }"

    @subscription(channel="orders:{key}", where=data["key"] == argument("key"), passthrough=True)
    def order_changed(key): ...

    with pytest.raises(SchemaError, match="key"):
        Schema.from_sdl(sdl, [order_changed])
    manager = SubscriptionManager(Schema.from_sdl(sdl, [order_changed], scalars={"Key": ID}))
    async with manager, manager.subscribe("subscription { orderChanged(key: 7) }", framing="result") as stream:
        await manager.publish_event("x", "orders:7", {"key": "8"})
        await manager.publish_event("x", "orders:7", {"key": 7})
        assert (await one(stream))["errors"][0]["message"].startswith("Key cannot represent value: {")


@pytest.mark.parametrize(
    ("scalars", "message"),
    [
        ({"Nope": JSON}, "the SDL defines no scalar Nope; expected some of Date, Money, Key"),
        ({"Order": JSON}, "the SDL defines no scalar Order"),
        ({"ID": str}, "the SDL defines no scalar ID"),
        ({"Date": bytes}, "scalars, Date: expected ID, int, .*, got <class 'bytes'>"),
        ({"Date": "JSON"}, "scalars, Date: expected ID, int, .*, got 'JSON'"),
        ({"Date": []}, "scalars, Date: expected ID, int"),
    ],
)
def test_scalars_that_there_are_not_raise(scalars, message):
    with pytest.raises(SchemaError, match=message):
        Schema.from_sdl(DATES, [windows], scalars=scalars)


# Built-in definitions.


async def test_built_in_scalars_and_introspection_types_of_the_sdl_are_ignored():
    printed = graphql.print_introspection_schema(graphql.build_schema("type Query { ok: Boolean }"))
    printed = printed.replace(" | DIRECTIVE_DEFINITION", "")  # of a later draft
    sdl = f"""{printed}
    scalar ID scalar Int scalar Float scalar String scalar Boolean
    type Query {{ ok: Boolean }}
    type Order {{ id: ID, n: Int, query: Query }}
    type Subscription {{ orderChanged(since: Int): Order }}
    """
    schema = Schema.from_sdl(sdl, [order_changed])
    query = 'subscription { orderChanged(since: 1) { id n query { __type(name: "ID") { kind isOneOf } } } }'
    assert await result_of(schema, query, {"id": 1, "n": 2, "query": {}}) == {
        "data": {"orderChanged": {"id": "1", "n": 2, "query": {"__type": {"kind": "SCALAR", "isOneOf": None}}}}
    }
    assert CALLS == [1]
    with pytest.raises(GraphQLRequestError, match="expected value of type Int"):
        await result_of(schema, 'subscription { orderChanged(since: "x") { id } }')


# Keywords.


async def test_an_argument_called_as_a_keyword_is_received_with_an_underscore():
    sdl = """
    input Range { from: Int = 1, in: [String!], notAKeyword: Int }
    type Query { ok: Boolean }
    type Order { from: Int, class: String, pass(lambda: Int = 3): Int }
    type Subscription { orderChanged(from: Int, in: Range, isNot: Int): Order }
    """

    class Result:
        from_ = 5
        class_ = "first"

        def pass_(self, lambda_: int) -> int:
            return lambda_

    @subscription(channel="c", where=(data["n"] == argument("from_")) & (data["m"] == argument("in_", "from_")))
    async def order_changed(event, from_, in_, is_not=None):
        CALLS.append((from_, in_, is_not))
        return Result()

    schema = Schema.from_sdl(sdl, [order_changed])
    query = 'subscription { orderChanged(from: 7, in: {in: "a"}, isNot: 2) { from class pass } }'
    assert await result_of(schema, query, {"n": 7, "m": 1}) == {
        "data": {"orderChanged": {"from": 5, "class": "first", "pass": 3}}
    }
    assert CALLS == [(7, {"from_": 1, "in_": ["a"]}, 2)]

    @subscription(channel="c", passthrough=True, name="orderChanged", scope={"from_": viewer("claims", "n")})
    def passed(): ...

    plain = Schema.from_sdl(sdl, [passed])
    assert plain.sdl == sdl

    @subscription(channel="c", name="orderChanged", where=data["n"] == argument("from"))
    async def unknown(event): ...

    with pytest.raises(SchemaError, match='unknown argument "from"'):
        Schema.from_sdl(sdl, [unknown])


async def test_a_passthrough_reads_the_keys_that_publishers_write():
    @subscription(channel="c", passthrough=True)
    def order_changed(): ...

    schema = Schema.from_sdl("type Order { from: Int } type Subscription { orderChanged: Order }", [order_changed])
    for key in ("from", "from_"):
        assert await result_of(schema, "subscription { orderChanged { from } }", {key: 5}) == {
            "data": {"orderChanged": {"from": 5}}
        }
