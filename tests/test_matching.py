"""Which events reach a subscription: channels, event types and every predicate, asked through `subscribe`."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Schema,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    previous,
    subscription,
    viewer,
)

from .support import manager_of, one, rest, take

LAST = "the last"


@dataclass
class Marked:
    mark: JSON


async def matching(
    predicate: Any,
    events: Sequence[Any],
    *,
    as_rows: bool = False,
    context: SecurityContext | None = None,
    previous: dict[str, Any] | None = None,
) -> list[int]:
    """Which of the events (by position) a subscription with this condition receives.

    Another subscription, without condition, is the control: it receives them all.
    """
    condition = {"rows" if as_rows else "where": predicate}

    @subscription(channel="c", passthrough=True, **condition)
    def judged() -> Marked:
        raise NotImplementedError

    @subscription(channel="c", passthrough=True)
    def everything() -> Marked:
        raise NotImplementedError

    manager = SubscriptionManager(Schema([judged, everything]))
    async with (
        manager,
        manager.subscribe("subscription { judged { mark } }", context=context, subscription_id="a") as stream,
        manager.subscribe("subscription { everything { mark } }") as control,
    ):
        for position, event in enumerate(events):
            await manager.publish_event("x", "c", {**event, "mark": position}, previous=previous)
        seen = [payload["data"]["everything"]["mark"] for payload in await take(control, len(events))]
        assert seen == list(range(len(events)))
        assert await manager.complete_subscription("a")
        return [payload["data"]["judged"]["mark"] for payload in await rest(stream)]


@pytest.fixture(params=[False, True], ids=["where", "rows"])
def as_rows(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


VALUES: list[Any] = [
    None,
    0,
    1,
    -1,
    1.0,
    1.5,
    "1",
    "",
    "a",
    "ab",
    True,
    False,
    [],
    [1],
    [1.0],
    ["a"],
    {},
    {"a": 1},
    {"a": 1.0},
]
"""Asked as `data["v"]`; the event after them has no `v` at all."""
EVENTS = [{"v": value} for value in VALUES] + [{}]


def having(*values: Any) -> list[int]:
    """The positions of these values, told apart by type."""
    wanted = [repr(value) for value in values]
    return [position for position, value in enumerate(VALUES) if repr(value) in wanted]


class Colour(enum.Enum):
    RED = 1


v: Any = data["v"]
ABSENT = len(VALUES)
NUMBERS = (0, 1, -1, 1.0, 1.5)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (lambda: v == 1, having(1, 1.0)),
        (lambda: v == 1.0, having(1, 1.0)),
        (lambda: v == "1", having("1")),
        (lambda: v == "", having("")),
        (lambda: v == True, having(True)),  # noqa: E712  # a comparison is a value here
        (lambda: v == False, having(False)),  # noqa: E712  # likewise
        (lambda: v == [], having([])),
        (lambda: v == [1], having([1], [1.0])),
        (lambda: v == ["a"], having(["a"])),
        (lambda: v != 1, None),
        (lambda: ~(v == 1), None),
        (lambda: v > 0, having(1, 1.0, 1.5)),
        (lambda: v >= 1, having(1, 1.0, 1.5)),
        (lambda: v < 0, having(-1)),
        (lambda: v <= 0, having(0, -1)),
        (lambda: v < "a", having("1", "")),
        (lambda: v <= "a", having("1", "", "a")),
        (lambda: v > "a", having("ab")),
        (lambda: ~(v > 0), having(0, -1)),
        (lambda: (v > 0) & (v < 1.2), having(1, 1.0)),
        (lambda: (v == 1) | (v == "a"), having(1, 1.0, "a")),
        (lambda: (v > 0) | (v == "a"), having(1, 1.0, 1.5, "a")),
        (lambda: v.is_in([1, "a"]), having(1, 1.0, "a")),
        (lambda: v.is_in([]), []),
        (lambda: ~v.is_in([]), None),
        (lambda: v.is_in(["zzz"]), []),
        (lambda: v.contains("a"), having("a", "ab", ["a"])),
        (lambda: v.contains(1), having([1], [1.0])),
        (lambda: v.contains(""), having("1", "", "a", "ab")),
        (lambda: v.startswith("a"), having("a", "ab")),
        (lambda: v.endswith("b"), having("ab")),
        (lambda: v.startswith(""), having("1", "", "a", "ab")),
        (lambda: v.exists(), list(range(ABSENT))),
        (lambda: ~v.exists(), [ABSENT]),
        (lambda: v.is_null(), having(None)),
        (lambda: ~v.is_null(), list(range(1, ABSENT + 1))),
        (lambda: v["a"] == 1, having({"a": 1}, {"a": 1.0})),
        (lambda: v["a"].exists(), having({"a": 1}, {"a": 1.0})),
        (lambda: v["a"].is_null(), []),
        (lambda: v == v, None),
        (lambda: v == Colour.RED, []),
        (lambda: v.exists() | (v == 1), list(range(ABSENT))),
        (lambda: (v == 1) & (v == 2), []),
        (lambda: (v == 1) & (v == "1"), []),
    ],
)
async def test_predicates_over_every_kind_of_value(predicate, expected, as_rows):
    got = await matching(predicate(), EVENTS, as_rows=as_rows)
    if expected is not None:
        assert got == expected


async def test_a_comparison_with_null_absent_or_ill_typed_survives_not(as_rows):
    """`~` of unknown is unknown: an event is in one of the two, or in none, where something is missing."""
    for predicate in (v == 1, v > 0, v.is_in([1, 2]), v.contains("a"), v.startswith("a")):
        yes = await matching(predicate, EVENTS, as_rows=as_rows)
        no = await matching(~predicate, EVENTS, as_rows=as_rows)
        assert not set(yes) & set(no)
        for missing in (*having(None), ABSENT):
            assert missing not in yes
            assert missing not in no


async def test_unknown_or_true_is_true_and_unknown_and_false_is_false(as_rows):
    missing = data["missing"] == 1
    true, false = v.exists(), ~v.exists()
    event = [{"v": 1}]
    for predicate, expected in [
        (missing | true, [0]),
        (true | missing, [0]),
        (missing & true, []),
        (missing & false, []),
        (~(missing & false), [0]),
        (~(missing | false), []),
        (~(missing | true), []),
        (~missing, []),
        (missing | false, []),
        (~~true, [0]),
    ]:
        assert await matching(predicate, event, as_rows=as_rows) == expected


async def test_is_in_over_lists_of_the_event(as_rows):
    events = [
        {"v": 1, "l": [1, 2]},
        {"v": 3, "l": [1]},
        {"v": 1, "l": []},
        {"v": 1, "l": [None]},
        {"v": 1, "l": "1"},
        {"v": 1},
    ]
    assert await matching(v.is_in(data["l"]), events, as_rows=as_rows) == [0]
    # A null element makes a miss unknown; an empty list is false.
    assert await matching(~v.is_in(data["l"]), events, as_rows=as_rows) == [1, 2]
    assert await matching(data["l"].contains(v), events, as_rows=as_rows) == [0]


async def test_paths_below_missing_and_null_parents_are_absent(as_rows):
    events = [
        {"a": {"b": {"c": 1}}},
        {"a": {"b": None}},
        {"a": None},
        {},
        {"a": 1},
        {"a": {"b": {"c": None}}},
        {"a": [{"b": 1}]},
    ]
    path = data["a"]["b"]["c"]
    assert await matching(path == 1, events, as_rows=as_rows) == [0]
    assert await matching(path.exists(), events, as_rows=as_rows) == [0, 5]
    assert await matching(~path.exists(), events, as_rows=as_rows) == [1, 2, 3, 4, 6]
    assert await matching(path.is_null(), events, as_rows=as_rows) == [5]
    assert await matching(~path.is_null(), events, as_rows=as_rows) == [0, 1, 2, 3, 4, 6]


async def test_integers_are_exact_whatever_their_size(as_rows):
    big = 2**70
    events = [{"v": big}, {"v": big + 1}, {"v": 1e22}, {"v": 2**53}, {"v": 2**53 + 1}, {"v": 9007199254740992.0}]
    assert await matching(v == big, events, as_rows=as_rows) == [0]
    assert await matching(v == 10**22, events, as_rows=as_rows) == [2]
    assert await matching(v > big, events, as_rows=as_rows) == [1, 2]
    assert await matching(v == 2**53 + 1, events, as_rows=as_rows) == [4]
    assert await matching(v == 2**53, events, as_rows=as_rows) == [3, 5]


async def test_strings_are_ordered_by_code_point(as_rows):
    events = [{"v": text} for text in ("Z", "a", "é", "\uffff", "\U0001f600")]
    assert await matching(v > "a", events, as_rows=as_rows) == [2, 3, 4]
    assert await matching(v > "\uffff", events, as_rows=as_rows) == [4]


MOMENT = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


async def test_instants(as_rows):
    events = [
        {"v": "2026-01-01T12:00:00Z"},
        {"v": "2026-01-01T13:00:00+01:00"},
        {"v": MOMENT},
        {"v": "2026-01-01T12:00:00.000"},
        {"v": "2026-01-01T12:00:00"},
        {"v": "2026-01-01T11:59:59.999999Z"},
        {"v": "2026-01-01T12:00:00.000001+00:00"},
        {"v": "soon"},
        {"v": 1767268800},
        {"v": None},
    ]
    assert await matching(v == MOMENT, events, as_rows=as_rows) == [0, 1, 2]
    assert await matching(v < MOMENT, events, as_rows=as_rows) == [5]
    assert await matching(v >= MOMENT, events, as_rows=as_rows) == [0, 1, 2, 6]
    assert await matching(~(v == MOMENT), events, as_rows=as_rows) == [5, 6]
    assert await matching(v.is_in([MOMENT, MOMENT + timedelta(microseconds=1)]), events, as_rows=as_rows) == [
        0,
        1,
        2,
        6,
    ]


SOME_ID = UUID("C0FFEE00-0000-4000-8000-000000000001")


async def test_ids_compare_as_text(as_rows):
    events: list[dict[str, Any]] = [{"v": value} for value in (42, "42", 42.0, "042", True, None, [42], "4", 10**30)]
    context = SecurityContext(user_id=42)
    assert await matching(v == viewer("user_id"), events, as_rows=as_rows, context=context) == [0, 1]
    assert await matching(v != viewer("user_id"), events, as_rows=as_rows, context=context) == [3, 7, 8]
    events = [{"v": str(SOME_ID)}, {"v": str(SOME_ID).upper()}, {"v": SOME_ID}]
    assert await matching(
        v == viewer("user_id"), events, as_rows=as_rows, context=SecurityContext(user_id=SOME_ID)
    ) == [0, 2]
    assert await matching(v == SOME_ID, events, as_rows=as_rows) == [0, 2]


async def test_a_viewers_none_is_unknown(as_rows):
    events = [{"v": None}, {"v": 1}, {}]
    nobody = SecurityContext()
    for predicate in (
        v == viewer("user_id"),
        v != viewer("user_id"),
        v == viewer("claims", "org"),
        ~(v == viewer("user_id")),
    ):
        assert await matching(predicate, events, as_rows=as_rows, context=nobody) == []
    assert await matching(viewer("user_id").is_null(), events, as_rows=as_rows, context=nobody) == [0, 1, 2]
    assert await matching(viewer("user_id").exists(), events, as_rows=as_rows, context=nobody) == []


async def test_the_old_image(as_rows):
    changed = previous["status"] != data["status"]
    events = [{"status": "a"}, {"status": "b"}]
    assert await matching(changed, events, as_rows=as_rows, previous={"status": "a"}) == [1]
    assert await matching(changed, events, as_rows=as_rows) == []
    assert await matching(~previous["status"].exists(), events, as_rows=as_rows) == [0, 1]
    assert await matching(previous["status"].exists(), events, as_rows=as_rows, previous={"status": None}) == [0, 1]


# ---- arguments ----


@dataclass
class Range:
    least: int = 0
    most: int | None = None
    owner: ID | None = None


class Status(enum.Enum):
    OPEN = "o"
    CLOSED = "c"


async def ask(query: str, events: Sequence[Any], function: Any, **options: Any) -> list[int]:
    manager = manager_of(function)
    async with manager, manager.subscribe(query, subscription_id="a", **options) as stream:
        for position, event in enumerate(events):
            await manager.publish_event("x", "c", {**event, "mark": position})
        await manager.publish_event("control", "c", {"mark": LAST})
        got: list[Any] = []
        while LAST not in got:
            [value] = (await one(stream))["data"].values()
            got.append(value["mark"])
    return got[:-1]


def judged_by(where: Any) -> Any:
    """Every event that `where` matches, and the control."""
    return where | (data["mark"] == LAST)


def not_given(name: str) -> Any:
    """A field of an input object that is left out is an absent key, not null."""
    return ~argument("within", name).exists() | argument("within", name).is_null()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", [1, 2]),
        ("{}", [1, 2]),
        ("{least: 2}", [2]),
        ("{most: 2}", [1]),
        ("{least: 0, most: null}", [1, 2]),
        ("{owner: 7}", []),
    ],
)
async def test_input_objects(given, expected):
    @subscription(
        channel="c",
        passthrough=True,
        where=judged_by(
            (data["v"] >= argument("within", "least"))
            & (not_given("most") | (data["v"] < argument("within", "most")))
            & (not_given("owner") | (data["owner"] == argument("within", "owner")))
        ),
    )
    def ranged(within: Range = Range()) -> Marked:  # noqa: B008  # a default is a constant of the schema
        raise NotImplementedError

    query = f"subscription {{ ranged{f'(within: {given})' if given else ''} {{ mark }} }}"
    assert await ask(query, [{"v": -1}, {"v": 1}, {"v": 2}], ranged) == expected


@pytest.mark.parametrize("how", ["literal", "variable", "list literal", "list variable"])
async def test_lists_of_arguments(how):
    @subscription(channel="c", passthrough=True, where=judged_by(data["v"].is_in(argument("ids"))))
    def listed(ids: list[ID]) -> Marked:
        raise NotImplementedError

    query, variables = {
        "literal": ("subscription { listed(ids: 1) { mark } }", None),
        "variable": ("subscription ($i: ID!) { listed(ids: [$i]) { mark } }", {"i": 1}),
        "list literal": ('subscription { listed(ids: [1, "x"]) { mark } }', None),
        "list variable": ("subscription ($i: [ID!]!) { listed(ids: $i) { mark } }", {"i": ["x", 1]}),
    }[how]
    events = [{"v": 1}, {"v": "1"}, {"v": 2}, {"v": 1.0}, {"v": None}]
    assert await ask(query, events, listed, variables=variables) == [0, 1]


async def test_enums_compare_by_name():
    @subscription(channel="c", passthrough=True, where=judged_by(data["v"] == argument("status")))
    def by_status(status: Status = Status.OPEN) -> Marked:
        raise NotImplementedError

    events = [{"v": "OPEN"}, {"v": "o"}, {"v": Status.OPEN}, {"v": Status.CLOSED}]
    assert await ask("subscription { byStatus { mark } }", events, by_status) == [0, 2]
    assert await ask("subscription { byStatus(status: CLOSED) { mark } }", events, by_status) == [3]
    query = "subscription ($s: Status!) { byStatus(status: $s) { mark } }"
    assert await ask(query, events, by_status, variables={"s": "CLOSED"}) == [3]


async def test_instants_of_arguments():
    @subscription(channel="c", passthrough=True, where=judged_by(data["at"] >= argument("since")))
    def since(since: datetime) -> Marked:
        raise NotImplementedError

    events = [
        {"at": "2026-01-01T13:00:00+01:00"},
        {"at": "2026-01-01T11:00:00Z"},
        {"at": "2026-01-01T14:00:00"},
        {"at": MOMENT},
    ]
    for text in ("2026-01-01T12:00:00Z", "2026-01-01T07:00:00-05:00"):
        assert await ask(f'subscription {{ since(since: "{text}") {{ mark }} }}', events, since) == [0, 3]


async def test_an_optional_argument_folds_away():
    @subscription(
        channel="c",
        passthrough=True,
        where=judged_by(argument("id").is_null() | (data["id"] == argument("id"))),
    )
    def optional(id: ID | None = None) -> Marked:
        raise NotImplementedError

    events: Sequence[Any] = [{"id": 1}, {"id": 2}, {}]
    assert await ask("subscription { optional { mark } }", events, optional) == [0, 1, 2]
    assert await ask("subscription { optional(id: null) { mark } }", events, optional) == [0, 1, 2]
    assert await ask("subscription { optional(id: 2) { mark } }", events, optional) == [1]


async def test_null_arguments_are_unknown_in_comparisons():
    @subscription(channel="c", passthrough=True, where=judged_by(data["id"] != argument("id")))
    def other_than(id: ID | None = None) -> Marked:
        raise NotImplementedError

    assert await ask("subscription { otherThan { mark } }", [{"id": 1}, {"id": None}], other_than) == []
    assert await ask(
        "subscription { otherThan(id: 2) { mark } }", [{"id": 1}, {"id": 2}, {"id": None}], other_than
    ) == [0]


# ---- channels and types ----


async def test_event_types():
    @subscription(channel="c", event_types=["a", "b"], passthrough=True)
    def some() -> Marked:
        raise NotImplementedError

    @subscription(channel="c", passthrough=True)
    def every() -> Marked:
        raise NotImplementedError

    manager = manager_of(some, every)
    async with (
        manager,
        manager.subscribe("subscription { some { mark } }") as first,
        manager.subscribe("subscription { every { mark } }") as second,
    ):
        for kind in ("c", "A", "a ", "a", "ab", "b"):
            await manager.publish_event(kind, "c", {"mark": kind})
        assert [payload["data"]["some"]["mark"] for payload in await take(first, 2)] == ["a", "b"]
        assert [payload["data"]["every"]["mark"] for payload in await take(second, 6)] == [
            "c",
            "A",
            "a ",
            "a",
            "ab",
            "b",
        ]


async def test_without_a_channel_the_functions_name_is_the_channel():
    @subscription(passthrough=True, name="renamed")
    def some_changes() -> Marked:
        raise NotImplementedError

    manager = manager_of(some_changes)
    async with manager, manager.subscribe("subscription { renamed { mark } }") as stream:
        for channel in ("renamed", "someChanges", "Some_changes", "some_changes"):
            await manager.publish_event("x", channel, {"mark": channel})
        assert await one(stream) == {"data": {"renamed": {"mark": "some_changes"}}}


@pytest.mark.parametrize(
    ("value", "rendered"),
    [("1", "c:1"), ('"é/*"', "c:é/*"), ('"{b}"', "c:{b}"), ('""', "c:")],
)
async def test_placeholders(value, rendered):
    @subscription(channel="c:{a}", passthrough=True)
    def placed(a: ID) -> Marked:
        raise NotImplementedError

    manager = manager_of(placed)
    async with manager, manager.subscribe(f"subscription {{ placed(a: {value}) {{ mark }} }}") as stream:
        await manager.publish_event("x", "c:other", {"mark": 0})
        await manager.publish_event("x", rendered, {"mark": 1})
        assert await one(stream) == {"data": {"placed": {"mark": 1}}}


async def test_placeholders_of_every_scalar():
    @subscription(channel="{flag}:{number}:{text}:{status}:{key}", passthrough=True)
    def placed(flag: bool, number: int, text: str, status: Status, key: UUID) -> Marked:
        raise NotImplementedError

    manager = manager_of(placed)
    key = UUID(int=10)
    query = f'subscription {{ placed(flag: true, number: -5, text: "1.50", status: OPEN, key: "{key}") {{ mark }} }}'
    async with manager, manager.subscribe(query) as stream:
        await manager.publish_event("x", f"true:-5:1.50:OPEN:{key}", {"mark": 1})
        assert await one(stream) == {"data": {"placed": {"mark": 1}}}


@pytest.mark.parametrize("channel", ["{nope}", "{a", "a}", "{}", "{b}", "{c}", "", "a\nb", "{a.b}"])
def test_bad_channels_raise_naming_the_function(channel):
    def placed(a: ID, b: ID | None = None, c: Range | None = None) -> Marked:
        raise NotImplementedError

    with pytest.raises(SchemaError, match="placed"):
        Schema([subscription(channel=channel, passthrough=True)(placed)])


async def test_one_event_reaches_many_shapes_of_conditions_once():
    @subscription(
        channel="c",
        passthrough=True,
        where=judged_by(
            ((data["a"] == argument("a")) | data["tags"].contains(argument("a"))) & data["b"].is_in(["x", "y"])
        ),
    )
    def shaped(a: ID) -> Marked:
        raise NotImplementedError

    events = [
        {"a": 1, "b": "x", "tags": ["1", "1", 1]},
        {"a": 2, "b": "y", "tags": ["1"]},
        {"a": 1, "b": "z", "tags": []},
        {"a": 1, "b": "y"},
    ]
    assert await ask("subscription { shaped(a: 1) { mark } }", events, shaped) == [0, 1, 3]


@pytest.mark.parametrize(
    "declare",
    [
        lambda: bool(v == 1),
        lambda: (v == 1) and (v == 2),
        lambda: not (v == 1),  # noqa: SIM201  # that is the point
        lambda: 1 < v < 2,
        lambda: 1 in v,
        lambda: list(v),
        lambda: v == None,  # noqa: E711  # that is the point
        lambda: v != None,  # noqa: E711  # that is the point
        lambda: viewer("nobody"),
        lambda: viewer("user_id", "path"),
        lambda: v == object(),
        lambda: v == float("nan"),
        lambda: v == datetime(2026, 1, 1),
        lambda: v == "\0",
        lambda: v & (v == 1),
        lambda: v.is_in("abc"),
        lambda: v > [1],
        lambda: data == 1,
    ],
)
def test_what_could_only_be_a_mistake_raises_when_declared(declare):
    with pytest.raises((SchemaError, TypeError, ValueError)):
        declare()


def test_unknown_arguments_raise_when_declared():
    for where in (
        data["a"] == argument("nope"),
        data["a"] == argument("within", "nope"),
        data["a"] == argument("a", "nope"),
    ):

        def judged(a: ID, within: Range) -> Marked:
            raise NotImplementedError

        with pytest.raises(SchemaError, match="nope"):
            Schema([subscription(channel="c", passthrough=True, where=where)(judged)])
