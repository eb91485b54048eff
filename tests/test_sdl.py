"""Schema first: SDL with interfaces, arguments below the root and Python names, run through `subscribe`."""

from __future__ import annotations

import types
from typing import Any

import graphql
import pytest
import strawberry

from fraiseql_subs import (
    Event,
    Forbidden,
    Info,
    Schema,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    requires,
    subscription,
)

from .support import one, rest, soon

SDL = '''
"""What everything is."""
interface Node { id: ID! displayName(upper: Boolean = false, nickNames: [String!] = ["a"]): String }
type User implements Node {
  id: ID!
  displayName(upper: Boolean = false, nickNames: [String!] = ["a"]): String
  emailAddress: String
}
type Bot implements Node {
  id: ID!
  displayName(upper: Boolean = false, nickNames: [String!] = ["a"]): String
  version: Int
}
union Actor = User | Bot
enum Level { LOW HIGH }
input Where { minLevel: Level = LOW, ids: [ID!], nested: Where }
scalar Opaque
type Query { hello: String }
type Subscription {
  nodeChanged(where: Where, onlyUsers: Boolean = true): Node
  actor: Actor!
  opaque: Opaque
}
'''


class User:
    id = "u"
    email_address = "u@example.org"

    def display_name(self, upper: bool, nick_names: list[str]) -> str:
        name = "+".join(["user", *nick_names])
        return name.upper() if upper else name


RESULT: list[Any] = [None]
CALLS: list[dict[str, Any]] = []


@subscription(channel="c")
async def node_changed(event: Event, where, only_users):
    CALLS.append({"where": where, "only_users": only_users})
    return RESULT[0]


@subscription(channel="c", name="actor")
async def whoever(event):
    return RESULT[0]


@subscription(channel="c")
def opaque(event):
    return RESULT[0]


FUNCTIONS: list[Any] = [node_changed, whoever, opaque]


async def result_of(query: str, value: Any, sdl: str = SDL, functions: Any = None, **options: Any) -> dict[str, Any]:
    manager = SubscriptionManager(Schema.from_sdl(sdl, functions or FUNCTIONS))
    RESULT[0] = value
    CALLS.clear()
    async with manager, manager.subscribe(query, **options) as stream:
        await manager.publish_event("x", "c", {})
        return await one(stream)


NODE = "subscription { nodeChanged { __typename id displayName ... on User { emailAddress } ... on Bot { version } } }"


async def test_interfaces_by_typename_and_by_class():
    assert await result_of(NODE, User()) == {
        "data": {
            "nodeChanged": {"__typename": "User", "id": "u", "displayName": "user+a", "emailAddress": "u@example.org"}
        }
    }
    assert await result_of(NODE, {"__typename": "Bot", "id": 1, "displayName": "b", "version": 2}) == {
        "data": {"nodeChanged": {"__typename": "Bot", "id": "1", "displayName": "b", "version": 2}}
    }
    assert await result_of(NODE, types.SimpleNamespace(__typename="Bot", id=1, display_name="b")) == {
        "data": {"nodeChanged": {"__typename": "Bot", "id": "1", "displayName": "b", "version": None}}
    }


async def test_a_subclass_is_what_its_base_is():
    class Admin(User):
        email_address = "admin"

    assert (await result_of(NODE, Admin()))["data"]["nodeChanged"]["emailAddress"] == "admin"


async def test_a_union_of_the_sdl():
    query = "subscription { actor { __typename ... on User { id } ... on Bot { version } } }"
    assert await result_of(query, User()) == {"data": {"actor": {"__typename": "User", "id": "u"}}}
    payload = await result_of(query, {"__typename": "Nobody"})
    assert payload["data"] is None
    assert payload["errors"][0]["path"] == ["actor"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "user+a"),
        ("(upper: true)", "USER+A"),
        ('(nickNames: "x")', "user+x"),
        ("(nickNames: [], upper: false)", "user"),
        ("(upper: $yes, nickNames: $names)", "USER+N"),
    ],
)
async def test_callable_attributes_take_the_fields_arguments_by_python_name(given, expected):
    query = (
        f'subscription ($yes: Boolean = true, $names: [String!] = ["n"]) {{ nodeChanged {{ x: displayName{given} }} }}'
    )
    if "$" not in given:
        query = query.replace('($yes: Boolean = true, $names: [String!] = ["n"]) ', "")
    assert await result_of(query, User()) == {"data": {"nodeChanged": {"x": expected}}}


async def test_one_field_with_several_argument_sets():
    query = "subscription { nodeChanged { a: displayName b: displayName(upper: true) c: displayName(upper: false) } }"
    assert await result_of(query, User()) == {"data": {"nodeChanged": {"a": "user+a", "b": "USER+A", "c": "user+a"}}}


async def test_arguments_arrive_under_snake_case_names():
    await result_of("subscription { nodeChanged(where: {minLevel: HIGH, nested: {ids: 1}}) { id } }", User())
    assert CALLS == [{"where": {"min_level": "HIGH", "nested": {"min_level": "LOW", "ids": ["1"]}}, "only_users": True}]
    await result_of("subscription { nodeChanged(onlyUsers: null) { id } }", User())
    assert CALLS == [{"where": None, "only_users": None}]


async def test_an_unknown_scalar_passes():
    for value in (1, "x", [1, {"a": None}], None, 2**70):
        assert await result_of("subscription { opaque }", value) == {"data": {"opaque": value}}


async def test_snake_case_comes_before_the_graphql_name():
    assert await result_of(
        "subscription { nodeChanged { ... on User { emailAddress } } }",
        {"__typename": "User", "emailAddress": "graphql", "email_address": "python"},
    ) == {"data": {"nodeChanged": {"emailAddress": "python"}}}


async def test_predicates_use_python_names():
    @subscription(channel="c", passthrough=True, where=data["level"] == argument("where", "min_level"))
    def levels(): ...

    sdl = """
    enum Level { LOW HIGH }
    input Where { minLevel: Level! = LOW }
    type Level2 { level: Level }
    type Query { a: Int }
    type Subscription { levels(where: Where = {minLevel: HIGH}): Level2 }
    """
    manager = SubscriptionManager(Schema.from_sdl(sdl, [levels]))
    async with (
        manager,
        manager.subscribe("subscription { levels { level } }") as high,
        manager.subscribe("subscription { levels(where: {}) { level } }") as low,
    ):
        for level in ("LOW", "HIGH", "high", None):
            await manager.publish_event("x", "c", {"level": level})
        assert await one(high) == {"data": {"levels": {"level": "HIGH"}}}
        assert await one(low) == {"data": {"levels": {"level": "LOW"}}}


async def test_generators_of_the_sdl():
    @subscription
    async def opaque_values(info: Info, to):
        for n in range(to):
            yield n

    sdl = "scalar Opaque type Query { a: Int } type Subscription { opaqueValues(to: Int = 2): Opaque }"
    manager = SubscriptionManager(Schema.from_sdl(sdl, [opaque_values]))
    async with manager, manager.subscribe("subscription { opaqueValues }") as stream:
        assert await rest(stream) == [{"data": {"opaqueValues": n}} for n in range(2)]


async def test_requires_on_a_root_field_of_the_sdl():
    @subscription(channel="c", requires=requires("see"))
    async def secret(event):
        return 1

    manager = SubscriptionManager(Schema.from_sdl("type Query { a: Int } type Subscription { secret: Int }", [secret]))
    async with manager:
        with pytest.raises(Forbidden):
            async with manager.subscribe("subscription { secret }"):
                pass
        async with manager.subscribe("subscription { secret }", context=SecurityContext(permissions=["see"])) as stream:
            await manager.publish_event("x", "c", {})
            assert await one(stream) == {"data": {"secret": 1}}


async def test_the_names_of_the_root_types_are_the_schemas():
    @subscription(channel="c")
    async def ticked(event):
        return 1

    sdl = "schema { query: Q subscription: S } type Q { a: Int } type S { ticked: Int! }"
    assert await result_of("subscription { ticked }", None, sdl, [ticked]) == {"data": {"ticked": 1}}
    assert await result_of("subscription { ...F } fragment F on S { ticked }", None, sdl, [ticked]) == {
        "data": {"ticked": 1}
    }


@strawberry.type(name="Query")
class StrawberryQuery:
    a: int = 1


@strawberry.type
class Item:
    item_id: strawberry.ID
    tags: list[str] | None = None


@strawberry.type(name="Subscription")
class StrawberrySubscription:
    @strawberry.subscription
    async def item_changed(self, item_id: strawberry.ID, tags: list[str] | None = None) -> Item:
        raise NotImplementedError


async def test_a_strawberry_schema_printed():
    @subscription(channel="items:{item_id}", passthrough=True)
    def item_changed(item_id, tags): ...

    sdl = strawberry.Schema(query=StrawberryQuery, subscription=StrawberrySubscription).as_str()
    manager = SubscriptionManager(Schema.from_sdl(sdl, [item_changed]))
    async with manager, manager.subscribe('subscription { itemChanged(itemId: "a") { itemId tags } }') as stream:
        await manager.publish_event("x", "items:b", {"item_id": "b"})
        await manager.publish_event("x", "items:a", {"item_id": "a", "tags": ["t"]})
        assert await one(stream) == {"data": {"itemChanged": {"itemId": "a", "tags": ["t"]}}}


async def test_the_printed_schema_is_a_schema_for_graphql_core():
    schema = Schema.from_sdl(SDL, FUNCTIONS)
    built = graphql.build_schema(schema.sdl)
    assert set(built.subscription_type.fields) == {"nodeChanged", "actor", "opaque"}  # type: ignore[union-attr]  # it is there
    again = Schema.from_sdl(schema.sdl, FUNCTIONS)
    assert again.sdl == schema.sdl


@pytest.mark.parametrize(
    ("sdl", "named"),
    [
        ("type Query { a: Int }", "subscription"),
        ("type Query { a: Int } type Subscription { other: Int }", "node_changed"),
        ("type Query { a: Int } type Subscription { nodeChanged: Int }", "where"),
        ("type Query { a: Int", None),
        ("type Query { a: Nope } type Subscription { nodeChanged(where: Int, onlyUsers: Int): Int }", "Nope"),
        (
            "type Query { a: Int } type Subscription { nodeChanged(where: Int, onlyUsers: Int): Int, extra: Int }",
            "extra",
        ),
        ("", None),
    ],
)
def test_what_does_not_fit_raises_and_names_it(sdl, named):
    with pytest.raises(SchemaError) as raised:
        Schema.from_sdl(sdl, [node_changed])
    if named is not None:
        assert named in str(raised.value)


def test_federations_directives_are_accepted_undeclared_and_policy_raises():
    @subscription(channel="c")
    async def ticked(event):
        return 1

    sdl = """
    extend schema @link(url: "https://specs.apollo.dev/federation/v2.7", import: ["@key", "@shareable", "@tag"])
    type Item @key(fields: "id") @shareable { id: ID! @tag(name: "x") }
    type Query { item: Item }
    type Subscription { ticked: Item %s }
    """
    assert "ticked" in Schema.from_sdl(sdl % "", [ticked]).sdl
    with pytest.raises(SchemaError, match=r"@policy on Subscription\.ticked cannot be honoured"):
        Schema.from_sdl(sdl % '@policy(policies: [["a"]])', [ticked])


async def test_what_waits_is_a_positive_control_for_all_of_the_above():
    payload = await soon(result_of(NODE, None))
    assert payload == {"data": {"nodeChanged": None}}
