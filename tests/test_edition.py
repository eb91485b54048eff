"""What documents may hold since the specification's edition of September 2025, through `subscribe`."""

from __future__ import annotations

from typing import Any

import graphql
import pytest

from fraiseql_subs import Event, GraphQLRequestError, Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import serving
from .support import one

SDL = """
scalar Point
enum Level { LOW HIGH }
input Place @oneOf { id: ID, name: String }
input Filter { place: Place, level: Level = LOW }
interface Node { id: ID }
type Query { ok: Boolean, order: Order, orders(filter: Filter): [Order!]! }
type Order implements Node { id: ID, status: String, near(point: Point): String, query: Query!, deep: Deep }
type Deep { query: Query }
type Subscription { order(filter: Filter): Order, priced(point: Point, name: String = "a"): Order }
"""
CALLS: list[Any] = []


class Order:
    id = 1
    status = "paid"

    def near(self, point: Any = None) -> str:
        CALLS.append(point)
        return "here"


@subscription(channel="c", passthrough=True)
def order() -> None: ...


@subscription(channel="c")
async def priced(event: Event, point, name):
    CALLS.append((point, name))
    return Order()


def manager_of(**limits: Any) -> SubscriptionManager:
    return SubscriptionManager(Schema.from_sdl(SDL, [order, priced]), limits=Limits(**limits))


async def result_of(query: str, data: dict[str, Any] | None = None, **options: Any) -> Any:
    manager = manager_of()
    CALLS.clear()
    async with manager, manager.subscribe(query, framing="result", **options) as stream:
        await manager.publish_event("x", "c", data or {"id": 1, "status": "paid", "query": {}, "deep": {"query": {}}})
        return await one(stream)


async def refused(query: str, **options: Any) -> list[dict[str, Any]]:
    manager = manager_of()
    async with manager:
        with pytest.raises(GraphQLRequestError) as raised:
            async with manager.subscribe(query, **options):
                pass
    return raised.value.errors


# One response key.


async def test_the_root_field_may_be_selected_by_fragments_side_by_side():
    query = """
    subscription { ...Id ...Status order { __typename } }
    fragment Id on Subscription { order { id } }
    fragment Status on Subscription { order { status } }
    """
    assert await result_of(query) == {"data": {"order": {"id": "1", "status": "paid", "__typename": "Order"}}}


async def test_one_field_under_two_response_keys_is_two():
    [error] = await refused("subscription Q { order { id } again: order { id } }")
    assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    assert "one root field" in error["message"]
    [error] = await refused("subscription { order { id } ...F } fragment F on Subscription { priced { id } }")
    assert "one root field" in error["message"]


async def test_one_response_key_is_one_call_with_one_set_of_arguments():
    [error] = await refused('subscription { priced(name: "a") { id } priced(name: "b") { status } }')
    assert "conflict" in error["message"] or "argument" in error["message"]
    assert await result_of('subscription { priced(name: "b") { id } priced(name: "b") { status } }') == {
        "data": {"priced": {"id": "1", "status": "paid"}}
    }
    assert CALLS == [(None, "b")]


@pytest.mark.parametrize(("one_list", "other"), [("[1, 2]", "[1]"), ("[]", "[1]"), ("{a: [1]}", "{a: [1, 2]}")])
async def test_lists_of_two_lengths_are_two_arguments(one_list, other):
    query = "subscription {{ priced {{ near(point: {}) near(point: {}) }} }}"
    [error] = await refused(query.format(one_list, other))
    assert error["message"].startswith("Fields 'near' conflict because they have differing arguments.")
    assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    [error] = await refused(f"subscription {{ priced(point: {one_list}) {{ id }} priced(point: {other}) {{ id }} }}")
    assert error["message"].startswith("Fields 'priced' conflict")
    assert await result_of(query.format(other, other)) == {"data": {"priced": {"near": "here"}}}


# Descriptions.


async def test_operations_variables_and_fragments_may_have_descriptions():
    query = '''
    "What it is about: é"
    subscription Q(
      """
      The "name", $name: String
      """
      $name: String = "b" "Behind a default." $point: Point
    ) { priced(point: $point, name: $name) { ...F } }
    """A fragment."""
    fragment F on Order { id }
    '''
    assert await result_of(query, variables={"point": [1]}) == {"data": {"priced": {"id": "1"}}}
    assert CALLS == [([1], "b")]


@pytest.mark.parametrize(
    "query",
    [
        '"shorthand" { ok }',
        '"one" "two" subscription { order { id } }',
        'subscription { "a field" order { id } }',
        'subscription "a name" Q { order { id } }',
        'subscription ($a: "a type" Int) { order { id } }',
        'subscription { priced(name: "x" $name) { id } }',
        'subscription ($name: String) @include(if: "x" $name) { order { id } }',
        'query "Q" subscription { order { id } }',
        'subscription { order { id } } "the end"',
    ],
)
async def test_a_text_elsewhere_is_no_description(query):
    for error in await refused(query):
        assert error["extensions"]["code"] == "GRAPHQL_PARSE_FAILED"


@pytest.mark.parametrize("description", ["", '"""é\n\né""" ', '"é"\r\n', '"a" '])
async def test_places_are_those_of_the_text_that_was_sent(description):
    query = f'{description}subscription Q("é" $a: Int) {{ order {{ nope }} }}'
    errors = graphql.validate(graphql.build_schema(SDL), graphql.parse(query))
    [[theirs]] = [error.locations for error in errors if "nope" in error.message and error.locations]
    [error] = await refused(query)
    assert error["locations"] == [{"line": theirs.line, "column": theirs.column}]


async def test_a_description_counts_in_bytes_and_tokens():
    plain = "subscription Q { order { id } }"
    described = f'"A description." {plain}'
    async with manager_of(max_query_tokens=9) as manager:
        async with manager.subscribe(described):
            pass
    for limits in ({"max_query_tokens": 8}, {"max_query_bytes": len(plain) + 4}):
        async with manager_of(**limits) as manager:
            async with manager.subscribe(plain):
                pass
            with pytest.raises(GraphQLRequestError, match=r"larger|tokens"):
                async with manager.subscribe(described):
                    pass


# Variables in a custom scalar.


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("[$lat, 2]", [1.5, 2]),
        ("{at: [$lat, {y: $lat}]}", {"at": [1.5, {"y": 1.5}]}),
        ("[[$lat]]", [[1.5]]),
        ("$point", 7),
    ],
)
async def test_a_variable_stands_anywhere_in_a_custom_scalar(literal, expected):
    variable = "$point: Point" if literal == "$point" else "$lat: Float"
    query = f"subscription ({variable}) {{ priced(point: {literal}) {{ near(point: {literal}) }} }}"
    sdl = SDL.replace("status: String", "status: String, total: Float")
    manager = SubscriptionManager(Schema.from_sdl(sdl, [order, priced]))
    CALLS.clear()
    async with manager, manager.subscribe(query, framing="result", variables={"lat": 1.5, "point": 7}) as stream:
        await manager.publish_event("x", "c", {})
        assert await one(stream) == {"data": {"priced": {"near": "here"}}}
    assert [(expected, "a"), expected] == CALLS


@pytest.mark.parametrize(
    "query",
    [
        "subscription ($x: Int) { priced(name: $x) { id } }",
        "subscription ($x: String) { order(filter: {level: $x}) { id } }",
        "subscription ($x: String) { order(filter: {place: {id: $x}}) { id } }",
        "subscription ($x: Level) { order(filter: $x) { id } }",
        "subscription ($x: String) { priced(point: $x) { id } }",
        "subscription { priced(point: [$x]) { id } }",
        "subscription ($x: String @include(if: $x)) { priced(name: $x) { id } }",
    ],
)
async def test_a_variable_of_another_type_is_refused_elsewhere(query):
    for error in await refused(query, variables={"x": "1"}):
        assert error["extensions"]["code"] in ("GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED")


# Introspection.

TYPES = "{ __type(name: $name) { name kind isOneOf again: isOneOf fields { type { isOneOf } } } }"


@pytest.mark.parametrize("name", ["Place", "Filter", "Order", "Point", "Level", "Nope"])
async def test_introspection_below_the_root_is_answered_as_graphql_core_does(name):
    query = f"""subscription ($name: String!) {{ order {{ id deep {{ query {{ ...Q }} }} query {{ ...Q }} }} }}
    fragment Q on Query {{ __schema {{ queryType {{ name }} }} schema: __schema {{ types {{ name }} }} ...T }}
    fragment T on Query {TYPES}"""
    document = graphql.parse(f"query ($name: String!) {TYPES}")
    schema = graphql.build_schema(SDL)
    theirs = graphql.execute_sync(schema, document, variable_values={"name": name}).data
    assert theirs is not None
    found = (await result_of(query, variables={"name": name}))["data"]["order"]
    assert found["deep"]["query"] == found["query"]
    assert found["query"]["__type"] == theirs["__type"]
    assert found["query"]["__schema"] == {"queryType": {"name": "Query"}}
    assert {"name": "Order"} in found["query"]["schema"]["types"]


@pytest.mark.parametrize("introspection", [True, False])
async def test_introspection_below_the_root_can_be_switched_off(introspection):
    query = f"subscription {{ order {{ id query {{ {TYPES.replace('$name', chr(34) + 'Place' + chr(34))[1:-1]} }} }} }}"
    manager = manager_of()
    async with serving(SubscriptionApp(manager, introspection=introspection)) as server, manager:
        async with server.acknowledged() as client:
            await client.ask("plain", "subscription { order { query { __typename } } }")
            await client.ask("1", query)
            if introspection:
                await client.ask("one", '{ __type(name: "Place") { isOneOf } }')
                answer = {"data": {"__type": {"isOneOf": True}}}
                assert await client.message() == {"id": "one", "type": "next", "payload": answer}
            else:
                frame = await client.message()
                assert (frame["id"], frame["type"]) == ("1", "error")
                assert frame["payload"][0]["message"] == "Introspection is switched off: '__type' is not answered here."


async def test_introspection_below_the_root_is_bounded():
    part = "__schema { types { name description fields { name type { name } } } }"
    parts = " ".join(f"a{n}: {part}" for n in range(29))
    manager = manager_of()
    async with manager:
        async with manager.subscribe(f"subscription {{ order {{ query {{ {part} }} }} }}"):
            pass
        types = "\n".join(f"type T{n} {{ a: Int b: Int c: Int d: Int }}" for n in range(200))
        large = SubscriptionManager(Schema.from_sdl(SDL + types, [order, priced]))
        async with large:
            with pytest.raises(GraphQLRequestError) as raised:
                async with large.subscribe(f"subscription {{ order {{ query {{ {parts} }} }} }}"):
                    pass
    assert raised.value.errors[0]["extensions"]["code"] == "RESULT_TOO_LARGE"


# Passthroughs.


async def test_a_field_with_arguments_is_refused_where_a_passthrough_selects_it():
    assert await result_of("subscription { order { id } }") == {"data": {"order": {"id": "1"}}}
    for field in ("near", "query { orders { id } }"):
        [error] = await refused(f"subscription {{ order {{ id {field} }} }}")
        assert error["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
        assert ("Order.near" if field == "near" else "Query.orders") in error["message"]
        assert error["locations"][0]["line"] == 1
    assert await result_of("subscription { priced { near } }") == {"data": {"priced": {"near": "here"}}}
