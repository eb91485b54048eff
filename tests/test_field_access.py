"""Field access: guards of the SDL and of `requires`, through every way that a document may take to what they guard."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fraiseql_subs import (
    Event,
    Forbidden,
    GraphQLError,
    Info,
    Schema,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    requires,
    subscription,
)

from .support import one

FEDERATION = "https://specs.apollo.dev/federation/v2.5"
ANYBODY = SecurityContext()
SOMEBODY = SecurityContext(user_id=1)

RESULT: list[Any] = [None]
"""What the functions give."""

READS: Counter[str] = Counter()
"""The attributes of `Lazy` objects that were asked for, but for those that tell what a value is."""


@pytest.fixture(autouse=True)
def _forget_reads() -> None:
    READS.clear()


class Lazy:
    """An object whose attributes do their work when they are read; an exception is raised, a function called."""

    def __init__(self, **values: Any) -> None:
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            READS[name] += 1
        try:
            value = self._values[name]
        except KeyError:
            raise AttributeError(name) from None
        if isinstance(value, Exception):
            raise value
        return value


class Plain(Lazy):
    """A type that anybody may see."""


class Secret(Lazy):
    """A type that is guarded."""


class Derived(Plain):
    """Guarded, though its class is made from one that is not."""


def given(name: str, kind: str = "async") -> Any:
    """A subscription whose result is the `RESULT` of the moment, or the event's data."""

    async def in_the_loop(event: Event) -> Any:
        return RESULT[0]

    def in_a_thread(event: Event) -> Any:
        return RESULT[0]

    async def for_each_viewer(event: Event, info: Info) -> Any:
        return RESULT[0]

    async def generated(info: Info) -> Any:
        yield RESULT[0]

    if kind == "generator":
        return subscription(name=name)(generated)
    functions: dict[str, Any] = {"sync": in_a_thread, "info": for_each_viewer}
    function = functions.get(kind, in_the_loop)
    return subscription(channel="c", name=name, passthrough=kind == "passthrough")(function)


def manager_for(sdl: str, *functions: Any) -> SubscriptionManager:
    return SubscriptionManager(Schema.from_sdl(sdl, functions))


async def outcomes(
    manager: SubscriptionManager, query: str, contexts: Iterable[SecurityContext], data: Any = None
) -> list[Any]:
    """What each of these viewers is given for one event, all watching at once; "Forbidden" for who is refused."""
    async with manager, AsyncExitStack() as stack:
        streams: list[Any] = []
        for context in contexts:
            stream: Any = manager.subscribe(query, context=context)
            try:
                streams.append(await stack.enter_async_context(stream))
            except Forbidden as error:
                streams.append(str(error))
        await manager.publish_event("x", "c", data or {})
        return [stream if isinstance(stream, str) else await one(stream) for stream in streams]


def places(payload: Any) -> dict[str, str]:
    """The messages of a payload's errors by path."""
    found = {}
    for error in payload.get("errors", []):
        code = "FORBIDDEN" if error["message"] == "Forbidden" else "INTERNAL_SERVER_ERROR"
        assert error["extensions"] == {"code": code}
        assert error["locations"]
        found[".".join(map(str, error["path"]))] = error["message"]
    return found


# ---- what the directives are called ----

NAMES = [
    ("", "NAME"),
    ("directive @NAME(ARGUMENTS) on FIELD_DEFINITION", "NAME"),
    ("", "federation__NAME"),
    ('extend schema @link(url: "FEDERATION", import: ["@key", "@NAME"])', "NAME"),
    ('extend schema @link(url: "FEDERATION", import: "@NAME")', "NAME"),
    ('extend schema @link(url: "FEDERATION", import: [{name: "@NAME", as: "@own"}])', "own"),
    (
        'directive @own(ARGUMENTS) on FIELD_DEFINITION extend schema @link(url: "FEDERATION", import: {name: "@NAME", as: "@own"})',  # noqa: E501  # one line of SDL
        "own",
    ),
    ('extend schema @link(url: "FEDERATION")', "federation__NAME"),
    ('extend schema @link(url: "FEDERATION", as: "fed")', "fed__NAME"),
    ('extend schema @link(url: "https://specs.apollo.dev/NAME/v0.1", for: SECURITY)', "NAME"),
    ('extend schema @link(url: "https://specs.apollo.dev/NAME/v0.1", as: "own")', "own"),
    ('extend schema @core(feature: "https://specs.apollo.dev/NAME/v0.1", as: "own")', "own"),
    (
        """extend schema
        @by(url: "https://specs.apollo.dev/link/v1.0", as: "by")
        @by(url: "FEDERATION", import: [{name: "@NAME", as: "@own"}])""",
        "own",
    ),
]
"""What stands at the head of an SDL, and what the directive called NAME is called then."""


def under(head: str, local: str, name: str, argument: str = "", value: str = "") -> str:
    """The SDL whose `Item.closed` has the directive."""
    head = head.replace("(ARGUMENTS)", f"({argument}: [[String!]!]!)" if argument else "")
    used = f"@{local}" + (f"({argument}: {value})" if argument else "")
    sdl = f"{head} type Item {{ open: Int closed: Int {used} }} type Subscription {{ item: Item }}"
    return sdl.replace("NAME", name).replace("FEDERATION", FEDERATION)


@pytest.mark.parametrize(("head", "local"), NAMES)
@pytest.mark.parametrize(
    ("directive", "permitted"),
    [
        (("authenticated",), SOMEBODY),
        (("requiresScopes", "scopes", '[["a", "b"], ["c"]]'), SecurityContext(permissions=["a", "b"])),
    ],
)
async def test_a_directive_means_the_same_under_every_name(head, local, directive, permitted):
    manager = manager_for(under(head, local, *directive), given("item"))
    RESULT[0] = {"open": 1, "closed": 2}
    without, with_it = await outcomes(manager, "subscription { item { open closed } }", [ANYBODY, permitted])
    assert without["data"] == {"item": {"open": 1, "closed": None}}
    assert places(without) == {"item.closed": "Forbidden"}
    assert with_it == {"data": {"item": {"open": 1, "closed": 2}}}


@pytest.mark.parametrize(("head", "local"), NAMES)
def test_policy_raises_under_every_name(head, local):
    with pytest.raises(SchemaError, match=r"on Item\.closed cannot be honoured"):
        Schema.from_sdl(under(head, local, "policy", "policies", '[["a"]]'), [given("item")])
    assert "closed" in Schema.from_sdl(under(head, local, "requiresScopes", "scopes", '[["a"]]'), [given("item")]).sdl


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("union U @authenticated = Item", r"@authenticated on the union U restricts nothing here"),
        ("enum E { A @authenticated }", r"@authenticated on the value E\.A restricts nothing here"),
        ("input I { a: Int @authenticated }", r"@authenticated on the input field I\.a restricts nothing here"),
        ("type T { a(b: Int @authenticated): Int }", r"@authenticated on the argument T\.a\.b restricts nothing here"),
        ("type T { a: Int @authenticated(role: 1) }", r"@authenticated on T\.a takes no arguments"),
        ("type T { a: Int @requiresScopes }", r"@requiresScopes on T\.a takes one argument: scopes"),
        ("type T @requiresScopes(scopes: [[1]]) { a: Int }", r"@requiresScopes on T takes scopes .* not 1"),
        ('extend schema @link(url: "x/federation/v2.5", import: [{as: "@a"}])', "import that cannot be read"),
    ],
)
def test_what_would_restrict_nothing_raises_with_its_place(place, named):
    sdl = "type Item { a: Int }\ntype Subscription { item: Item }\n"
    with pytest.raises(SchemaError, match=rf"{named}.* \(line 3, column \d+\)"):
        Schema.from_sdl(sdl + place, [given("item")])
    assert "union U" in Schema.from_sdl(sdl + "union U = Item", [given("item")]).sdl


# ---- what the directives ask for ----


@pytest.mark.parametrize(
    ("scopes", "held", "permitted"),
    [
        ('[["a", "b"], ["c"]]', ["a", "b"], True),
        ('[["a", "b"], ["c"]]', ["c"], True),
        ('[["a", "b"], ["c"]]', ["b"], False),
        ('[["a", "b"], ["c"]]', ["a b", "C", "*"], False),
        ('["a", "b"]', ["b"], True),
        ('["a", "b"]', [], False),
        ('"a"', ["a"], True),
        ('"a"', ["b"], False),
        ("[]", ["a", "b", "c"], False),
        ("[[]]", [], True),
    ],
)
async def test_scopes_are_an_or_of_ands_of_permissions(scopes, held, permitted):
    sdl = f"type Subscription {{ number: Int @requiresScopes(scopes: {scopes}) }}"
    RESULT[0] = 1
    viewers = [SecurityContext(permissions=held), SecurityContext(user_id=1, roles=["a", "b", "c"], permissions=held)]
    expected = {"data": {"number": 1}} if permitted else "Forbidden"
    assert await outcomes(manager_for(sdl, given("number")), "subscription { number }", viewers) == [expected] * 2


@pytest.mark.parametrize(("user_id", "permitted"), [(None, False), (0, True), ("", True), ("None", True)])
async def test_who_has_a_user_id_is_authenticated(user_id, permitted):
    viewer = SecurityContext(user_id=user_id, tenant_id=None, permissions=["authenticated"])
    RESULT[0] = 1
    manager = manager_for("type Subscription { number: Int @authenticated }", given("number"))
    expected = {"data": {"number": 1}} if permitted else "Forbidden"
    assert await outcomes(manager, "subscription { number }", [viewer]) == [expected]
    assert manager.get_metrics()["violations"]["fields"] == (0 if permitted else 1)


async def test_all_that_stands_on_a_field_and_on_its_type_must_hold():
    @subscription(channel="c", requires=requires("function"))
    async def item(event: Event) -> Any:
        return {"__typename": "Item", "id": 1}

    sdl = """
    interface Node @requiresScopes(scopes: "interface") { id: ID @requiresScopes(scopes: "id") }
    type Item implements Node @requiresScopes(scopes: "type") { id: ID @authenticated }
    extend type Item @requiresScopes(scopes: ["extension", "other"])
    type Subscription @requiresScopes(scopes: "root") { item: Item @requiresScopes(scopes: "field") }
    """
    every = ["function", "interface", "id", "type", "extension", "root", "field"]
    missing = [SecurityContext(user_id=1, permissions=[one for one in every if one != left]) for left in every]
    whole = SecurityContext(user_id=1, permissions=every)
    found = await outcomes(manager_for(sdl, item), "subscription { item { id } }", [*missing, whole])
    masked = {"item": {"id": None}}
    assert [each if isinstance(each, str) else each["data"] for each in found] == [
        masked if left == "id" else "Forbidden" for left in every
    ] + [{"item": {"id": "1"}}]


# ---- every way to it ----

SDL = """
interface Node { id: ID! note: String @requiresScopes(scopes: "note") }
type Plain implements Node {
  id: ID! note: String mine: String @authenticated when: Instant level: Level levels: [[Level]]
  secret: Secret secrets: [Secret!] node: Node nodes: [Node] full: [Node!] matrix: [[Node]!]! found: [Found!]
  strict: Node! strictList: [Node!]! strictSecret: Secret! strictNote: Secretive!
}
type Secret implements Node { id: ID! note: String own: String @requiresScopes(scopes: "own")
  lazy: String plain: Plain }
extend type Secret @requiresScopes(scopes: "see")
type Derived implements Node & Secretive @requiresScopes(scopes: "see") { id: ID! note: String text: String }
interface Secretive @authenticated { text: String }
union Found = Plain | Secret | Derived
scalar Instant @requiresScopes(scopes: "when")
enum Level @requiresScopes(scopes: [["a", "b"], ["all"]]) { LOW HIGH }
type Subscription { plain: Plain node: Node found: Found strict: Found! hidden: Secret secretive: Secretive }
"""
ROOTS = ("plain", "node", "found", "strict", "hidden", "secretive")


def world(kind: str = "async") -> SubscriptionManager:
    return manager_for(SDL, *(given(name, kind) for name in ROOTS))


def plain(**more: Any) -> dict[str, Any]:
    return {"__typename": "Plain", "id": 1, "note": "n", "mine": "m", "when": "now", "level": "LOW", **more}


SECRET = {"__typename": "Secret", "id": 2, "note": "s", "own": "o", "lazy": "l"}
DERIVED = {"__typename": "Derived", "id": 3, "note": "d", "text": "t"}

SEE = ["see"]
VIEWER = SecurityContext(user_id=1, permissions=SEE)
WAYS: list[tuple[str, Any, SecurityContext, Any, dict[str, str]]] = [
    # A field of an interface, selected on the interface, on the type, and through fragments under an alias.
    (
        "plain { id note }",
        plain(),
        SecurityContext(permissions=["note"]),
        {"id": "1", "note": None},
        {"plain.note": ""},
    ),
    (
        "node { ... { x: note } ...F } } fragment F on Node { y: note ...G } fragment G on Plain { z: note",
        plain(),
        SecurityContext(permissions=["note"]),
        {"x": None, "y": None, "z": None},
        {"node.x": "", "node.y": "", "node.z": ""},
    ),
    ("plain { who: mine id }", plain(), SOMEBODY, {"who": None, "id": "1"}, {"plain.who": ""}),
    # Scalars and enums, in lists too.
    ("plain { when }", plain(), SecurityContext(permissions=["when"]), {"when": None}, {"plain.when": ""}),
    (
        "plain { level levels }",
        plain(levels=[["LOW"], None]),
        SecurityContext(permissions=["b", "a"]),
        {"level": None, "levels": None},
        {"plain.level": "", "plain.levels": ""},
    ),
    # A guarded type is masked as a whole where nothing else may stand, whatever is asked of it.
    (
        "plain { secret { __typename } s: secrets { id } }",
        plain(secret=SECRET, secrets=[SECRET]),
        SecurityContext(permissions=SEE),
        {"secret": None, "s": None},
        {"plain.secret": "", "plain.s": ""},
    ),
    # Among others it is null where it stands, and they are there.
    ("node { __typename id }", SECRET, SecurityContext(permissions=SEE), None, {"node": ""}),
    ("found { __typename }", SECRET, SecurityContext(permissions=SEE), None, {"found": ""}),
    (
        "plain { nodes { __typename ... on Secret { lazy } ... on Node { id } } }",
        plain(nodes=[plain(), SECRET, None, plain(id=4)]),
        SecurityContext(permissions=SEE),
        {"nodes": [{"__typename": "Plain", "id": "1"}, None, None, {"__typename": "Plain", "id": "4"}]},
        {"plain.nodes.1": ""},
    ),
    (
        "plain { full { id } matrix { id } found { ... on Plain { id } } }",
        plain(full=[plain(), SECRET], matrix=[[SECRET, plain()]], found=[plain()]),
        SecurityContext(permissions=SEE),
        {"full": None, "matrix": [[None, {"id": "1"}]], "found": [{"id": "1"}]},
        {"plain.full.1": "", "plain.matrix.0.0": ""},
    ),
    # The guard of an interface holds in every type behind it, and where the interface itself is given.
    ("node { id }", DERIVED, SecurityContext(user_id=1, permissions=SEE), None, {"node": ""}),
    # Below what may be seen it goes on.
    (
        "node { ... on Plain { node { ... on Plain { node { id } } } } }",
        plain(node=plain(node=SECRET)),
        SecurityContext(permissions=SEE),
        {"node": {"node": None}},
        {"node.node.node": ""},
    ),
]


@pytest.mark.parametrize(("body", "value", "permitted", "expected", "forbidden"), WAYS)
@pytest.mark.parametrize("kind", ["async", "sync", "info", "generator", "passthrough"])
async def test_every_way_meets_the_guard(kind, body, value, permitted, expected, forbidden):
    RESULT[0] = value
    query = f"subscription {{ {body} }}"
    root = body.split()[0]
    found = await outcomes(world(kind), query, [ANYBODY, permitted], value if kind == "passthrough" else None)
    assert found[0]["data"] == {root: expected}
    assert places(found[0]) == dict.fromkeys(forbidden, "Forbidden")
    # Who may sees all of it, from the same function and the same document.
    assert "errors" not in found[1]
    assert found[1]["data"][root] is not None


@pytest.mark.parametrize(
    ("body", "value", "permitted"),
    [
        ("hidden { id }", SECRET, SecurityContext(permissions=SEE)),
        ("h: hidden { __typename }", SECRET, SecurityContext(permissions=SEE)),
        ("strict { __typename }", plain(), VIEWER),
        ("secretive { text }", DERIVED, VIEWER),
        ("plain { strict { id } }", plain(strict=SECRET), VIEWER),
        ("plain { l: strictList { id } }", plain(strictList=[]), VIEWER),
        ("node { ...F } } fragment F on Plain { strictSecret { id }", plain(strictSecret=SECRET), VIEWER),
        ("plain { strictNote { __typename } }", plain(strictNote=DERIVED), VIEWER),
    ],
)  # fmt: skip
async def test_where_nothing_can_be_null_the_subscription_is_refused(body, value, permitted):
    RESULT[0] = value
    manager = world()
    found = await outcomes(manager, f"subscription {{ {body} }}", [ANYBODY, permitted])
    assert found[0] == "Forbidden"
    assert manager.get_metrics()["violations"]["fields"] == 1
    assert "errors" not in found[1]
    # What can be null is.
    RESULT[0] = plain(matrix=[[SECRET]])
    assert await outcomes(manager, "subscription { plain { id matrix { id } } }", [ANYBODY]) == [
        {
            "data": {"plain": {"id": "1", "matrix": [[None]]}},
            "errors": [
                {
                    "message": "Forbidden",
                    "locations": [{"line": 1, "column": 27}],
                    "path": ["plain", "matrix", 0, 0],
                    "extensions": {"code": "FORBIDDEN"},
                }
            ],
        }
    ]


async def test_a_guard_on_the_root_type_is_one_on_each_of_its_fields():
    sdl = "type Subscription { a: Int b: Int! } extend type Subscription @authenticated"
    manager = manager_for(sdl, given("a"), given("b"))
    RESULT[0] = 1
    for field in ("a", "b"):
        assert await outcomes(manager, f"subscription {{ x: {field} }}", [ANYBODY, SOMEBODY]) == [
            "Forbidden",
            {"data": {"x": 1}},
        ]


# ---- nothing is read for who may not see it ----


async def soon_there() -> str:
    await asyncio.sleep(0)
    return "there"


class NoAwaitable:
    """It says that it can be awaited, and cannot."""

    def __await__(self) -> int:
        return 1


def told() -> str:
    raise GraphQLError("a word of the attribute's own")


@pytest.mark.parametrize(
    ("lazy", "seen"),
    [
        ("there", {"lazy": "there"}),
        (soon_there, {"lazy": "there"}),
        (lambda: "there", {"lazy": "there"}),
        (ValueError("a word of the attribute's own"), "Internal server error"),
        (AttributeError("a word of the attribute's own"), None),
        (told, "a word of the attribute's own"),
        (NoAwaitable, "Internal server error"),
    ],
)
@pytest.mark.parametrize("place", ["secret", "node", "own"])
async def test_a_lazy_attribute_is_read_for_those_who_may_see_it_alone(caplog, place, lazy, seen):
    caplog.set_level(logging.CRITICAL, logger="fraiseql_subs")
    values = {"id": 2, "own": lazy} if place == "own" else {"id": 2, "lazy": lazy}
    RESULT[0] = Plain(id=1, **{("node" if place == "own" else place): Secret(**values)})
    body = "x: node { ... on Secret { lazy: own } }" if place == "own" else f"x: {place} {{ ... on Secret {{ lazy }} }}"
    held = ["see", "own"]
    alone = SecurityContext(permissions=SEE) if place == "own" else ANYBODY
    manager = world()

    async def watch(*viewers: SecurityContext) -> list[Any]:
        READS.clear()
        return await outcomes(manager, f"subscription {{ plain {{ id {body} }} }}", viewers)

    name = "own" if place == "own" else "lazy"
    [refused] = await watch(alone)
    hidden, path = ({"lazy": None}, "plain.x.lazy") if place == "own" else (None, "plain.x")
    assert refused["data"] == {"plain": {"id": "1", "x": hidden}}
    assert places(refused) == {path: "Forbidden"}
    # Where a field may give something else, it is looked at to tell what it is.
    expected = Counter({"id": 1, "node": 1}) if place != "secret" else Counter({"id": 1})
    assert expected == READS

    # The others' presence changes nothing: one call, one reading, to each his own.
    permitted = SecurityContext(permissions=held)
    again, first, same = await watch(alone, permitted, permitted)
    assert again == refused
    assert first == same
    assert Counter({"id": 1, "node" if place == "own" else place: 1, name: 1}) == READS
    if isinstance(seen, dict):
        assert first == {"data": {"plain": {"id": "1", "x": seen}}}
    else:
        assert first["data"] == {"plain": {"id": "1", "x": {"lazy": None}}}
        assert places(first) == ({} if seen is None else {"plain.x.lazy": seen})


@pytest.mark.parametrize("kind", ["async", "sync", "info", "generator"])
async def test_a_masked_value_tells_no_more_than_its_type(kind):
    class Younger(Secret):
        """What its base is."""

    RESULT[0] = Plain(nodes=[Secret(id=2), Younger(id=3), Derived(id=4), Plain(id=1)])
    query = "subscription { plain { nodes { __typename id note } } }"
    [refused] = await outcomes(world(kind), query, [SecurityContext(permissions=["note"])])
    assert Counter(nodes=1, id=1, note=1) == READS
    last = {"__typename": "Plain", "id": "1", "note": None}
    assert refused["data"] == {"plain": {"nodes": [None, None, None, last]}}
    assert places(refused) == {f"plain.nodes.{at}": "Forbidden" for at in range(3)}
    READS.clear()
    [seen] = await outcomes(world(kind), query, [SecurityContext(user_id=1, permissions=["note", "see"])])
    assert Counter(nodes=1, id=4, note=4) == READS
    types = ["Secret", "Secret", "Derived", "Plain"]
    assert [item["__typename"] for item in seen["data"]["plain"]["nodes"]] == types


async def test_an_attribute_that_hangs_is_told_to_those_who_may_see_it_alone(caplog):
    caplog.set_level(logging.CRITICAL, logger="fraiseql_subs")

    @subscription(channel="c", name="plain", timeout=0.05)
    async def hanging(event: Event) -> Any:
        return Plain(id=1, secret=Secret(lazy=asyncio.Event().wait), nodes=[Secret(id=2, lazy=asyncio.Event().wait)])

    manager = manager_for(SDL, hanging, *(given(name) for name in ROOTS[1:]))
    query = "subscription { plain { id secret { lazy } nodes { ... on Secret { id lazy } } } }"
    alone = await outcomes(manager, query, [ANYBODY])
    assert "lazy" not in READS
    refused, seen = await outcomes(manager, query, [ANYBODY, SecurityContext(permissions=SEE)])
    assert [refused] == alone
    assert refused["data"] == {"plain": {"id": "1", "secret": None, "nodes": [None]}}
    assert places(refused) == {"plain.secret": "Forbidden", "plain.nodes.0": "Forbidden"}
    assert seen["data"] == {"plain": {"id": "1", "secret": {"lazy": None}, "nodes": [{"id": "2", "lazy": None}]}}
    assert [(error["path"], error["extensions"]) for error in seen["errors"]] == [
        (["plain", "secret", "lazy"], {"code": "TIMEOUT"}),
        (["plain", "nodes", 0, "lazy"], {"code": "TIMEOUT"}),
    ]


async def test_an_attribute_that_cannot_be_awaited_here_fails_at_its_place_alone(caplog):
    caplog.set_level(logging.CRITICAL, logger="fraiseql_subs")
    elsewhere = asyncio.new_event_loop()

    @subscription(channel="c", name="plain")
    async def foreign(event: Event) -> Any:
        return Plain(id=soon_there, secret=Secret(id=soon_there, lazy=elsewhere.create_future))

    manager = manager_for(SDL, foreign, *(given(name) for name in ROOTS[1:]))
    query = "subscription { plain { secret { lazy id } id } }"
    alone = await outcomes(manager, query, [ANYBODY])
    refused, seen = await outcomes(manager, query, [ANYBODY, SecurityContext(permissions=SEE)])
    elsewhere.close()
    assert [refused] == alone
    assert refused["data"] == {"plain": {"secret": None, "id": "there"}}
    assert seen["data"] == {"plain": {"secret": {"lazy": None, "id": "there"}, "id": "there"}}
    assert places(seen) == {"plain.secret.lazy": "Internal server error"}


async def test_values_that_are_no_objects_are_masked_by_their_type_too():
    class Text(str):
        pass

    Text.__name__ = "Secret"
    RESULT[0] = Plain(nodes=[Text("secret words"), {"__typename": "Secret"}, {"__typename": "Nothing"}])
    [refused] = await outcomes(world(), "subscription { plain { nodes { id } } }", [ANYBODY])
    assert places(refused) == {
        "plain.nodes.0": "Forbidden",
        "plain.nodes.1": "Forbidden",
        "plain.nodes.2": "Runtime Object type 'Nothing' is not a possible type for 'Node'.",
    }


# ---- to each his own ----

EVERY = ("see", "own", "note", "when", "all")
VIEWERS = [
    SecurityContext(user_id=user_id, permissions=held)
    for user_id in (None, 1)
    for count in range(len(EVERY) + 1)
    for held in itertools.combinations(EVERY, count)
]
WHOLE = """subscription { plain {
  id note mine when level secret { id note own lazy plain { when } } found { __typename ... on Secret { own } ...N }
  nodes { ...N } again: nodes { id ... on Secret { secret: own when: plain { level } } ... on Derived { text } }
} }
fragment N on Node { note ... on Plain { mine level node { ... on Secret { own plain { note } } } } }"""


@pytest.mark.parametrize("kind", ["async", "sync", "info", "generator", "passthrough"])
async def test_whoever_else_watches_each_sees_what_he_sees_alone(kind):
    secret = {**SECRET, "plain": plain()}
    value = plain(secret=secret, found=[DERIVED, secret, plain()], nodes=[secret, plain(node=secret), DERIVED])
    RESULT[0] = value
    data = value if kind == "passthrough" else None
    manager = world(kind)
    alone = [(await outcomes(manager, WHOLE, [viewer], data))[0] for viewer in VIEWERS]
    together = await outcomes(manager, WHOLE, [*VIEWERS, *reversed(VIEWERS)], data)
    assert together == alone + alone[::-1]
    # Who may see all of it has no errors, and the results are as many as the rights that matter.
    everything = alone[-1]
    assert "errors" not in everything
    assert len({str(each["data"]) for each in alone}) > len(VIEWERS) / 2
    for viewer, payload in zip(VIEWERS, alone, strict=True):
        item = payload["data"]["plain"]
        held = viewer.permissions
        assert (item["mine"] is None) == (viewer.user_id is None)
        assert (item["note"] is None, item["when"] is None, item["level"] is None) == (
            "note" not in held,
            "when" not in held,
            "all" not in held,
        )
        assert (item["secret"] is None) == ("see" not in held)
        if item["secret"] is not None:
            assert (item["secret"]["own"] is None) == ("own" not in held)
        # Two guards: the type's own and its interface's. In `found` nothing but the whole list can be null.
        assert (item["again"][2] is None) == ("see" not in held or viewer.user_id is None)
        assert (item["found"] is None) == ("see" not in held or viewer.user_id is None)


async def test_operators_are_told_what_is_masked_and_who_is_refused_and_why():
    manager = world()
    event = Event(event_type="x", channel="c", data={})
    viewer = SecurityContext(permissions=["note"])

    def explained(body: str, context: SecurityContext = viewer) -> tuple[Any, ...]:
        told = manager.explain(f"subscription {{ {body} }}", event, context=context)
        return (told.stage, told.reason, told.masked)

    stage, _, masked = explained(
        "plain { note mine x: mine when nodes { ... on Plain { level } } node { ... { id } } }"
    )
    assert (stage, masked) == ("delivered", ("Plain.level", "Plain.mine", "Plain.node", "Plain.nodes", "Plain.when"))
    assert explained("plain { note node { note } }", SecurityContext(user_id=1, permissions=EVERY))[2] == ()
    lacks = "requires 'see'; the viewer lacks 'see'"
    assert explained("hidden { id }") == ("forbidden", f"Subscription.hidden {lacks}", ())
    assert explained("strict { __typename }") == (
        "forbidden",
        f"Subscription.strict may give Secret, which {lacks}",
        (),
    )


async def test_functions_and_passthroughs_say_the_same():
    value = plain(secret=SECRET, found=[plain(), SECRET], nodes=[SECRET, plain(), DERIVED], matrix=[[DERIVED]])
    RESULT[0] = value
    documents = [
        WHOLE,
        "subscription { plain { matrix { __typename } } }",
        "subscription { plain { found { __typename } } }",
    ]
    for query in documents:
        functions = await outcomes(world(), query, VIEWERS)
        assert await outcomes(world("passthrough"), query, VIEWERS, value) == functions


async def test_a_function_is_not_told_of_what_is_masked():
    asked: list[tuple[str, ...]] = []

    @subscription(channel="c", name="plain")
    async def told_of(event: Event, info: Info) -> Any:
        asked.append(info.selected_fields)
        return None

    manager = manager_for(SDL, told_of, *(given(name) for name in ROOTS[1:]))
    query = "subscription { plain { id mine node { id ... on Secret { own lazy } } secret { lazy } } }"
    await outcomes(manager, query, [ANYBODY, SecurityContext(permissions=["see"])])
    assert sorted(asked, key=len) == [
        ("id", "node", "node.id"),
        ("id", "node", "node.id", "node.lazy", "secret", "secret.lazy"),
    ]
