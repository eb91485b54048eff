"""Results: what is read of what a function returns, and how it is completed."""

from __future__ import annotations

import asyncio
import enum
import json
import math
import types
from collections import UserDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pydantic
import pytest

from fraiseql_subs import ID, JSON, Event, GraphQLError, Schema, SubscriptionManager, subscription

from .support import manager_of, one


class Status(enum.Enum):
    OPEN = "o"
    CLOSED = "c"


class Other(enum.Enum):
    OTHER = 1


@dataclass
class Leaves:
    an_int: int | None = None
    a_float: float | None = None
    a_string: str | None = None
    a_bool: bool | None = None
    an_id: ID | None = None
    a_status: Status | None = None
    a_datetime: datetime | None = None
    a_date: date | None = None
    a_time: time | None = None
    a_uuid: UUID | None = None
    a_decimal: Decimal | None = None
    some_json: JSON | None = None


@dataclass
class Node:
    id: ID | None = None
    name: str | None = None
    must: int = 0
    child: Node | None = None
    strict_child: Node | None = None
    children: list[Node] = field(default_factory=list)
    loose: list[Node | None] | None = None
    words: list[str | None] | None = None
    strict_words: list[str] | None = None
    matrix: list[list[int]] | None = None


@subscription(channel="c")
async def leaves(event: Event) -> Leaves | None:
    return RESULT[0]


@subscription(channel="c")
async def node(event: Event) -> Node | None:
    return RESULT[0]


@subscription(channel="c")
def node_in_thread(event: Event) -> Node | None:
    return RESULT[0]


RESULT: list[Any] = [None]


async def result_of(query: str, value: Any, function: Any = None) -> dict[str, Any]:
    functions = [leaves, node, node_in_thread] if function is None else [function]
    manager = SubscriptionManager(Schema(functions))
    RESULT[0] = value
    async with manager, manager.subscribe(f"subscription {{ {query} }}") as stream:
        await manager.publish_event("x", "c", {})
        return await one(stream)


def problems(payload: dict[str, Any]) -> list[tuple[list[Any], str]]:
    for error in payload["errors"]:
        assert set(error) == {"message", "locations", "path", "extensions"}
        assert error["extensions"] == {"code": "INTERNAL_SERVER_ERROR"}
        assert len(error["locations"]) == 1
    return [(error["path"], error["message"]) for error in payload["errors"]]


SOME_ID = UUID("C0FFEE00-0000-4000-8000-000000000001")


# ---- leaves ----


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("anInt", 2**31 - 1, 2**31 - 1),
        ("anInt", -(2**31), -(2**31)),
        ("anInt", 1.0, 1),
        ("anInt", True, 1),
        ("anInt", "12", 12),
        ("aFloat", 1, 1),
        ("aFloat", 1.5, 1.5),
        ("aFloat", 1e300, 1e300),
        ("aFloat", Decimal("1.5"), 1.5),
        ("aString", 'é\u2028"', 'é\u2028"'),
        ("aString", True, "true"),
        ("aString", 12, "12"),
        ("aString", 1.5, "1.5"),
        ("aBool", True, True),
        ("aBool", 1, True),
        ("aBool", 0, False),
        ("anId", "a", "a"),
        ("anId", 12, "12"),
        ("anId", SOME_ID, str(SOME_ID)),
        ("anId", 2**80, str(2**80)),
        ("aStatus", Status.OPEN, "OPEN"),
        ("aStatus", "CLOSED", "CLOSED"),
        ("aDatetime", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc), "2026-01-02T03:04:05+00:00"),
        ("aDatetime", datetime(2026, 1, 2, 3, 4, 5, 6), "2026-01-02T03:04:05.000006"),
        ("aDate", date(2026, 1, 2), "2026-01-02"),
        ("aTime", time(3, 4), "03:04:00"),
        ("aUuid", SOME_ID, str(SOME_ID)),
        ("aDecimal", Decimal("1.10"), "1.10"),
        ("someJson", {"a": [1, None, {"b": SOME_ID}]}, {"a": [1, None, {"b": str(SOME_ID)}]}),
        ("someJson", [], []),
        ("someJson", "text", "text"),
    ],
)
async def test_leaves_that_serialise(field, value, expected):
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field)
    assert await result_of(f"leaves {{ {field} }}", {snake: value}) == {"data": {"leaves": {field: expected}}}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("anInt", 2**31, "Int cannot represent non 32-bit signed integer value: 2147483648"),
        ("anInt", -(2**31) - 1, "Int cannot represent non 32-bit signed integer value: -2147483649"),
        ("anInt", 1.5, "Int cannot represent non-integer value: 1.5"),
        ("anInt", "x", "Int cannot represent non-integer value: 'x'"),
        ("anInt", [1], None),
        ("anInt", math.nan, None),
        ("aFloat", math.nan, None),
        ("aFloat", math.inf, None),
        ("aFloat", -math.inf, None),
        ("aFloat", "x", None),
        ("aFloat", Decimal("NaN"), None),
        ("aString", {"a": 1}, None),
        ("aString", object(), None),
        ("aString", "\ud800", None),
        ("aBool", "x", None),
        ("aBool", math.nan, None),
        ("anId", 1.5, None),
        ("anId", True, None),
        ("anId", [], None),
        ("aStatus", "o", None),
        ("aStatus", 1, None),
        ("aStatus", Other.OTHER, None),
        ("aDatetime", 12, None),
        ("aDecimal", Decimal("Infinity"), None),
        ("someJson", object(), None),
        ("someJson", {"a": math.nan}, None),
    ],
)
async def test_leaves_that_do_not(field, value, said):
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in field)
    payload = await result_of(f"leaves {{ x: {field} }}", {snake: value})
    assert payload["data"] == {"leaves": {"x": None}}
    [(path, message)] = problems(payload)
    assert path == ["leaves", "x"]
    if said is not None:
        assert message.replace('"', "'") == said.replace('"', "'")
    assert "\n" not in message
    assert " at 0x" not in message


# ---- where fields come from ----


class Plain:
    id = "class attribute"

    def __init__(self) -> None:
        self.name = "attribute"


class Slotted:
    __slots__ = ("id", "name")

    def __init__(self) -> None:
        self.id, self.name = "1", "slot"


class Model(pydantic.BaseModel):
    id: int
    name: str


class Lazy:
    id = "1"

    def __getattr__(self, name: str) -> Any:
        if name == "name":
            return "by getattr"
        raise AttributeError(name)


class Reading(Mapping[str, Any]):
    def __getitem__(self, key: str) -> Any:
        if key in ("id", "name"):
            return f"{key}!"
        raise KeyError(key)

    def __iter__(self) -> Any:
        return iter(("id", "name"))

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Node(ID("1"), "a"), ("1", "a")),
        ({"id": 1, "name": "a"}, ("1", "a")),
        (UserDict(id=1, name="a"), ("1", "a")),
        (types.MappingProxyType({"id": 1, "name": "a"}), ("1", "a")),
        (types.SimpleNamespace(id=1, name="a"), ("1", "a")),
        (Plain(), ("class attribute", "attribute")),
        (Slotted(), ("1", "slot")),
        (Model(id=1, name="a"), ("1", "a")),
        (Lazy(), ("1", "by getattr")),
        (Reading(), ("id!", "name!")),
        ({}, (None, None)),
        (types.SimpleNamespace(), (None, None)),
        ({"id": None}, (None, None)),
        ({"id": 1, "name": lambda: "called"}, ("1", "called")),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_fields_are_read_from_keys_and_attributes(value, expected):
    for root in ("node", "nodeInThread"):
        payload = await result_of(f"{root} {{ id name }}", value)
        assert payload == {"data": {root: {"id": expected[0], "name": expected[1]}}}


async def test_the_python_name_comes_before_the_graphql_name():
    for value, expected in [
        ({"strict_words": ["p"], "strictWords": ["g"]}, ["p"]),
        ({"strictWords": ["g"]}, ["g"]),
        (types.SimpleNamespace(strictWords=["g"]), ["g"]),
        ({"strict_words": None, "strictWords": ["g"]}, None),
    ]:
        payload = await result_of("node { strictWords }", value)
        assert payload == {"data": {"node": {"strictWords": expected}}}


async def test_fields_are_read_only_when_selected():
    read: list[str] = []

    class Watched:
        def __getattribute__(self, name: str) -> Any:
            if name in ("id", "name", "must", "children"):
                read.append(name)
                return [] if name == "children" else 1
            return super().__getattribute__(name)

    payload = await result_of("node { id name @skip(if: true) a: id must @include(if: false) }", Watched())
    assert payload == {"data": {"node": {"id": "1", "a": "1"}}}
    assert read == ["id"]


@pytest.mark.parametrize("error", [ValueError("a secret"), AttributeError("a secret"), KeyError("a secret")])
@pytest.mark.parametrize("field", ["node", "nodeInThread"])
async def test_a_property_that_raises_is_a_masked_field_error(error, field, caplog):
    class Broken:
        id = "1"

        @property
        def name(self) -> str:
            raise error

    payload = await result_of(f"{field} {{ id name }}", Broken())
    assert payload["data"] == {field: {"id": "1", "name": None}}
    assert problems(payload) == [([field, "name"], "Internal server error")]
    assert "a secret" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_property_may_tell():
    class Telling:
        @property
        def name(self) -> str:
            raise GraphQLError("told", extensions={"code": "MINE"})

    payload = await result_of("node { name }", Telling())
    [error] = payload["errors"]
    assert (error["message"], error["path"], error["extensions"]) == ("told", ["node", "name"], {"code": "MINE"})


async def test_awaitables_are_awaited_where_the_function_is_async():
    async def later(value: Any) -> Any:
        await asyncio.sleep(0)
        return value

    class Loading:
        @property
        async def id(self) -> str:
            return await later("1")

        async def name(self) -> str:
            return "called and awaited"

        @property
        def children(self) -> Any:
            return [later({"id": 2, "name": later("deep")}), {"id": later(3)}]

    future = asyncio.get_running_loop().create_future()
    future.set_result("future")
    payload = await result_of("node { id name children { id name } }", Loading())
    assert payload == {
        "data": {
            "node": {
                "id": "1",
                "name": "called and awaited",
                "children": [{"id": "2", "name": "deep"}, {"id": "3", "name": None}],
            }
        }
    }
    assert await result_of("node { name }", {"name": future}) == {"data": {"node": {"name": "future"}}}


async def test_awaitables_run_at_the_same_time_and_fail_each_for_itself():
    together = asyncio.Barrier(3) if hasattr(asyncio, "Barrier") else None

    async def meet(value: Any) -> Any:
        if together is not None:
            await together.wait()
        if isinstance(value, Exception):
            raise value
        return value

    value = {"id": meet("1"), "name": meet(ValueError("a secret")), "must": meet(3)}
    payload = await result_of("node { id name must }", value)
    assert payload["data"] == {"node": {"id": "1", "name": None, "must": 3}}
    assert problems(payload) == [(["node", "name"], "Internal server error")]


async def test_an_awaitable_of_a_sync_function_is_a_field_error():
    async def later() -> str:
        return "never"

    payload = await result_of("nodeInThread { id name }", {"id": "1", "name": later()})
    assert payload["data"] == {"nodeInThread": {"id": "1", "name": None}}
    [(path, _)] = problems(payload)
    assert path == ["nodeInThread", "name"]


async def test_an_awaitable_that_never_ends_is_a_field_error_when_its_function_times_out():
    @subscription(channel="c", timeout=0.05)
    async def slow(event: Event) -> Node | None:
        return {"id": "1", "name": asyncio.Event().wait()}  # type: ignore[return-value]  # a mapping is fine

    payload = await result_of("slow { id name }", None, slow)
    assert payload["data"] == {"slow": {"id": "1", "name": None}}
    [error] = payload["errors"]
    assert (error["path"], error["extensions"]) == (["slow", "name"], {"code": "TIMEOUT"})


# ---- completion ----


async def test_keys_are_in_the_order_of_selection():
    @subscription(channel="c")
    async def ordered(event: Event) -> Node:
        return Node(ID("1"), "a", must=2)

    manager = manager_of(ordered)
    query = "subscription { z: ordered { must ...F id x: name __typename } } fragment F on Node { name id }"
    async with manager, manager.subscribe(query, framing="result") as stream:
        await manager.publish_event("x", "c", {})
        message = (await anext(stream)).decode()
    assert message == '{"data":{"z":{"must":2,"name":"a","id":"1","x":"a","__typename":"Node"}}}'


NON_NULL = "Cannot return null for non-nullable field Node.must."


@pytest.mark.parametrize(
    ("query", "value", "data", "expected"),
    [
        ("node { must }", {"must": None}, {"node": None}, [(["node", "must"], NON_NULL)]),
        ("node { must }", {}, {"node": None}, [(["node", "must"], NON_NULL)]),
        (
            "node { id child { id must } }",
            {"id": 1, "child": {"id": 2}},
            {"node": {"id": "1", "child": None}},
            [(["node", "child", "must"], NON_NULL)],
        ),
        (
            "node { loose { must } }",
            {"loose": [{"must": 1}, {}, None]},
            {"node": {"loose": [{"must": 1}, None, None]}},
            [(["node", "loose", 1, "must"], NON_NULL)],
        ),
        (
            "node { id children { must } }",
            {"id": 1, "children": [{"must": 1}, {}]},
            {"node": None},
            [(["node", "children", 1, "must"], NON_NULL)],
        ),
        (
            "node { id strictWords }",
            {"id": 1, "strict_words": ["a", None]},
            {"node": {"id": "1", "strictWords": None}},
            [(["node", "strictWords", 1], "Cannot return null for non-nullable field Node.strictWords.")],
        ),
        ("node { words }", {"words": ["a", None]}, {"node": {"words": ["a", None]}}, None),
        ("node { matrix }", {"matrix": [[1], [], [2, 3]]}, {"node": {"matrix": [[1], [], [2, 3]]}}, None),
        ("node { words }", {"words": ("a", "b")}, {"node": {"words": ["a", "b"]}}, None),
        ("node { words }", {"words": deque(["a"])}, {"node": {"words": ["a"]}}, None),
        ("node { words }", {"words": (word for word in "ab")}, {"node": {"words": ["a", "b"]}}, None),
        ("node { words }", {"words": {}.keys()}, {"node": {"words": []}}, None),
        ("node { x: must y: must }", {"must": 1}, {"node": {"x": 1, "y": 1}}, None),
    ],
)
async def test_completion(query, value, data, expected):
    payload = await result_of(query, value)
    assert payload["data"] == data
    if expected is None:
        assert "errors" not in payload
    else:
        assert problems(payload) == expected


@pytest.mark.parametrize(
    ("query", "value", "path"),
    [
        ("node { words }", {"words": "text"}, ["node", "words"]),
        ("node { words }", {"words": 1}, ["node", "words"]),
        ("node { words }", {"words": {"a": 1}}, ["node", "words"]),
        ("node { child { id } }", {"child": 5}, ["node", "child"]),
        ("node { child { id } }", {"child": "text"}, ["node", "child"]),
    ],
)
async def test_values_of_another_kind_are_field_errors(query, value, path):
    payload = await result_of(query, value)
    assert list(payload["data"]["node"].values()) == [None]
    assert [place for place, _ in problems(payload)] == [path]


async def test_a_list_that_raises_while_it_is_read():
    def words() -> Any:
        yield "a"
        raise ValueError("a secret")

    payload = await result_of("node { id words }", {"id": 1, "words": words()})
    assert payload["data"] == {"node": {"id": "1", "words": None}}
    assert problems(payload) == [(["node", "words"], "Internal server error")]


async def test_null_at_the_root():
    assert await result_of("node { id }", None) == {"data": {"node": None}}

    @subscription(channel="c")
    async def strict(event: Event) -> int:
        return None  # type: ignore[return-value]  # that is the point

    payload = await result_of("strict", None, strict)
    assert payload["data"] is None
    assert problems(payload) == [(["strict"], "Cannot return null for non-nullable field Subscription.strict.")]


async def test_several_errors_each_at_its_place():
    payload = await result_of("leaves { anInt aFloat aString }", {"an_int": "x", "a_float": "y", "a_string": "z"})
    assert payload["data"] == {"leaves": {"anInt": None, "aFloat": None, "aString": "z"}}
    assert [path for path, _ in problems(payload)] == [["leaves", "anInt"], ["leaves", "aFloat"]]
    assert [error["locations"] for error in payload["errors"]] == [
        [{"line": 1, "column": 25}],
        [{"line": 1, "column": 31}],
    ]


# ---- unions ----


@dataclass
class Cat:
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    good: bool = True


class Puppy(Dog):
    pass


@subscription(channel="c")
async def pet(event: Event) -> Cat | Dog | None:
    return RESULT[0]


PET = "pet { __typename ... on Cat { name lives } ... on Dog { name good } }"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Cat("c"), {"__typename": "Cat", "name": "c", "lives": 9}),
        (Dog("d"), {"__typename": "Dog", "name": "d", "good": True}),
        (Puppy("p"), {"__typename": "Dog", "name": "p", "good": True}),
        ({"__typename": "Cat", "name": "m", "lives": 1}, {"__typename": "Cat", "name": "m", "lives": 1}),
        (
            types.SimpleNamespace(__typename="Dog", name="n", good=False),
            {"__typename": "Dog", "name": "n", "good": False},
        ),
        (None, None),
    ],
)
async def test_unions(value, expected):
    assert await result_of(PET, value, pet) == {"data": {"pet": expected}}


@pytest.mark.parametrize("value", [{"name": "x"}, {"__typename": "Node"}, {"__typename": 5}, Node(), 5, "Cat"])
async def test_a_value_of_no_member_is_a_field_error(value):
    payload = await result_of(PET, value, pet)
    assert payload["data"] == {"pet": None}
    [(path, _)] = problems(payload)
    assert path == ["pet"]


# ---- passthrough ----


@subscription(channel="c", passthrough=True)
def passed() -> Node | None:
    raise NotImplementedError


async def passing(query: str, data: Any) -> dict[str, Any]:
    manager = manager_of(passed)
    async with manager, manager.subscribe(f"subscription {{ {query} }}") as stream:
        await manager.publish_event("x", "c", data)
        return await one(stream)


async def test_passthrough_reads_the_events_own_data():
    data = {
        "id": 1,
        "name": None,
        "strict_words": ["python"],
        "strictWords": ["graphql"],
        "children": [{"id": "x", "must": 1}],
        "matrix": [[1.0]],
    }
    query = "passed { id name strictWords children { id must child { id } } matrix loose { id } __typename }"
    assert await passing(query, data) == {
        "data": {
            "passed": {
                "id": "1",
                "name": None,
                "strictWords": ["python"],
                "children": [{"id": "x", "must": 1, "child": None}],
                "matrix": [[1]],
                "loose": None,
                "__typename": "Node",
            }
        }
    }
    assert await passing("passed { strictWords }", {"strictWords": ["graphql"]}) == {
        "data": {"passed": {"strictWords": ["graphql"]}}
    }


async def test_passthrough_is_completed_like_any_other():
    payload = await passing("passed { id must }", {"id": 1, "must": 2**31})
    assert payload["data"] == {"passed": None}
    assert problems(payload) == [
        (["passed", "must"], "Int cannot represent non 32-bit signed integer value: 2147483648")
    ]
    payload = await passing("passed { words }", {"words": [1, True, "x", {}]})
    assert payload["data"] == {"passed": {"words": ["1", "true", "x", None]}}


async def test_passthrough_unions_go_by_typename():
    @subscription(channel="c", passthrough=True)
    def any_pet() -> Cat | Dog | None:
        raise NotImplementedError

    manager = manager_of(any_pet)
    query = "subscription { anyPet { __typename ... on Cat { lives } ... on Dog { good } } }"
    async with manager, manager.subscribe(query) as stream:
        await manager.publish_event("x", "c", {"__typename": "Dog", "good": False})
        await manager.publish_event("x", "c", {"good": False})
        assert await one(stream) == {"data": {"anyPet": {"__typename": "Dog", "good": False}}}
        payload = await one(stream)
        assert payload["data"] == {"anyPet": None}
        assert [path for path, _ in problems(payload)] == [["anyPet"]]


async def test_no_python_runs_for_a_passthrough():
    @subscription(channel="c", passthrough=True)
    def never(event: Event) -> Node:
        raise AssertionError("it ran")

    manager = manager_of(never)
    async with manager, manager.subscribe("subscription { never { must } }") as stream:
        await manager.publish_event("x", "c", {"must": 1})
        assert await one(stream) == {"data": {"never": {"must": 1}}}
        assert manager.get_metrics()["resolver_errors"] == 0


# ---- arguments of the function ----


@dataclass
class Filter:
    kind: Status = Status.OPEN
    at: datetime | None = None
    inner: Filter | None = None
    ids: list[ID] = field(default_factory=lambda: [ID("d")])


async def test_arguments_arrive_as_their_annotations_say():
    seen: list[dict[str, Any]] = []

    @subscription(channel="c")
    async def typed(
        event: Event,
        a_filter: Filter,
        at: datetime,
        span: time,
        key: UUID,
        price: Decimal,
        day: date = date(2026, 1, 1),
        statuses: list[Status] | None = None,
        anything: JSON | None = None,
        ratio: float = 1,
    ) -> bool:
        seen.append({name: value for name, value in locals().items() if name not in ("event", "seen")})
        return True

    query = """typed(
        aFilter: {inner: {kind: CLOSED, ids: []}, at: "2026-01-01T00:00:00Z"}, at: "2026-01-02T03:04:05.5+01:00",
        span: "03:04", key: "C0FFEE00-0000-4000-8000-000000000001", price: "1.10", statuses: OPEN,
        anything: {a: [1, X]}, ratio: 2
    )"""
    assert await result_of(query, None, typed) == {"data": {"typed": True}}
    assert seen == [
        {
            "a_filter": Filter(at=datetime(2026, 1, 1, tzinfo=timezone.utc), inner=Filter(kind=Status.CLOSED, ids=[])),
            "at": datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=timezone(timedelta(hours=1))),
            "span": time(3, 4),
            "key": SOME_ID,
            "price": Decimal("1.10"),
            "day": date(2026, 1, 1),
            "statuses": [Status.OPEN],
            "anything": {"a": [1, "X"]},
            "ratio": 2.0,
        }
    ]
    assert isinstance(seen[0]["ratio"], float)


async def test_typename_skip_and_include():
    query = (
        "subscription ($yes: Boolean!, $no: Boolean = false) { node { __typename @include(if: $yes) "
        "id @include(if: $no) ... @skip(if: $no) { name } ...F @skip(if: $yes) } } fragment F on Node { must }"
    )
    manager = manager_of(node)
    RESULT[0] = {"id": 1, "name": "a"}
    async with manager, manager.subscribe(query, variables={"yes": True}) as stream:
        await manager.publish_event("x", "c", {})
        assert await one(stream) == {"data": {"node": {"__typename": "Node", "name": "a"}}}


async def test_the_same_bytes_for_equal_results():
    manager = manager_of(node)
    RESULT[0] = {"id": 1, "name": "é"}
    async with (
        manager,
        manager.subscribe("subscription { node { name } }", framing="result") as first,
        manager.subscribe("subscription { node { name } }", framing="result") as second,
    ):
        await manager.publish_event("x", "c", {})
        messages = [await anext(first), await anext(second)]
    assert messages == ['{"data":{"node":{"name":"é"}}}'.encode()] * 2
    assert json.loads(messages[0])
