"""Decimals compare exactly as numbers, whatever their form on the wire; no typed argument is compared as text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from fraiseql_subs import (
    Forbidden,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    decimal,
    previous,
    viewer,
)

from .judging import Judge, Raw, json_of, schema_of
from .sockets import logged
from .support import rest, take
from .test_matching import matching

V: Any = data["v"]


def claims(**given: Any) -> SecurityContext:
    return SecurityContext(user_id=1, claims=given)


@dataclass
class Ten:
    """One way to say ten so that the comparison is one of decimals."""

    sides: Callable[[], tuple[Any, Any]]
    arguments: str = ""
    given: dict[str, Any] = field(default_factory=dict)


TENS = {
    "argument, text": Ten(lambda: (V, argument("x")), "x: Decimal!", {"x": "10.00"}),
    "argument, integer": Ten(lambda: (V, argument("x")), "x: Decimal!", {"x": 10}),
    "argument, float": Ten(lambda: (V, argument("x")), "x: Decimal!", {"x": 10.0}),
    "argument, Decimal": Ten(lambda: (V, argument("x")), "x: Decimal!", {"x": Decimal("1E+1")}),
    "argument, number in the document": Ten(lambda: (V, argument("x")), "x: Decimal!", {"literal": "(x: 10.0)"}),
    "argument, text in the document": Ten(lambda: (V, argument("x")), "x: Decimal!", {"literal": '(x: "1e1")'}),
    "input object": Ten(lambda: (V, argument("f", "amount")), "f: Filter", {"f": {"amount": "10"}}),
    "below an input object": Ten(lambda: (V, argument("f", "inner", "amount")), "f: Filter",
                                 {"f": {"inner": {"amount": 10}}}),
    "literal": Ten(lambda: (V, Decimal("10.0"))),
    "claim": Ten(lambda: (V, viewer("claims", "x")), given={"context": {"x": Decimal("10.0")}}),
    "claim below": Ten(lambda: (V, viewer("claims", "a", "x")), given={"context": {"a": {"x": Decimal(10)}}}),
    "decimal(data), integer": Ten(lambda: (decimal(V), 10)),
    "decimal(data), float": Ten(lambda: (decimal(V), 10.0)),
    "decimal(data), text": Ten(lambda: (decimal(V), "10.00")),
    "decimal(data), claim that is text": Ten(lambda: (decimal(V), viewer("claims", "x")),
                                             given={"context": {"x": "10"}}),
    "decimal(data), argument that is text": Ten(lambda: (decimal(V), argument("x")), "x: String!", {"x": "10.0"}),
    "decimal(data), Int": Ten(lambda: (decimal(V), argument("x")), "x: Int!", {"x": 10}),
    "decimal(data), Float": Ten(lambda: (decimal(V), argument("x")), "x: Float!", {"x": 10}),
    "decimal(argument)": Ten(lambda: (V, decimal(argument("x"))), "x: String!", {"x": "10"}),
    "decimal(claim)": Ten(lambda: (V, decimal(viewer("claims", "x"))), given={"context": {"x": "10.0"}}),
    "decimal(previous)": Ten(lambda: (V, decimal(previous["x"])), given={"previous": {"x": "10"}}),
    "decimal on both sides": Ten(lambda: (decimal(V), decimal(previous["x"])), given={"previous": '{"x": 10.00}'}),
}  # fmt: skip

LESS = [
    "9",
    "9.5",
    '"9.50"',
    '"9"',
    "-11",
    '"-11"',
    '"1e0"',
    '"9.999999999999999999"',
    "9.999999999999999999",
    "1e-400",
]
SAME = ["10", "10.0", "10.00", "1e1", '"10"', '"10.000"', '"1E+1"', '"1e1"', '"100e-1"', "10.000000000000000000000"]
MORE = ["11", '"11"', '"100"', '"9e2"', "10.5", '"10.000000000000000001"', "10.000000000000000001", "1e400",
        '"1e999999999"', "123456789012345678901234567890"]  # fmt: skip
NEITHER = ['"ten"', '""', '"NaN"', '"Infinity"', '"1_0"', '"0x0a"', '"10 apples"', "true", "null", "[10]", '{"a": 10}']
ORDERS: dict[str, tuple[Callable[[Any, Any], Any], tuple[bool, bool, bool]]] = {
    "<": (lambda a, b: a < b, (True, False, False)),
    "<=": (lambda a, b: a <= b, (True, True, False)),
    "==": (lambda a, b: a == b, (False, True, False)),
    "!=": (lambda a, b: a != b, (True, False, True)),
    ">=": (lambda a, b: a >= b, (False, True, True)),
    ">": (lambda a, b: a > b, (False, False, True)),
}


@pytest.mark.parametrize("as_rows", [False, True], ids=["where", "rows"])
@pytest.mark.parametrize("how", TENS)
@pytest.mark.parametrize("operator", ORDERS)
def test_decimals_compare_as_numbers_whatever_their_form(how, operator, as_rows):
    ten, (compare, expected) = TENS[how], ORDERS[operator]
    given = {**ten.given}
    if "context" in given:
        given["context"] = claims(**given["context"])
    judge = Judge(compare(*ten.sides()), ten.arguments, as_rows=as_rows)
    asked = {text: judge(json_of(v=text), **given) for text in (*LESS, *SAME, *MORE, *NEITHER)}
    wanted = {
        **dict.fromkeys(LESS, expected[0]), **dict.fromkeys(SAME, expected[1]), **dict.fromkeys(MORE, expected[2]),
        **dict.fromkeys(NEITHER),
    }  # fmt: skip
    assert asked == wanted
    assert judge({}, **given) is None
    turned = Judge(compare(*reversed(ten.sides())), ten.arguments, as_rows=as_rows)
    mirrored = expected[::-1] if operator not in ("==", "!=") else expected
    assert [turned(json_of(v=text), **given) for text in (LESS[2], SAME[6], MORE[2])] == [*mirrored]


LISTS = {
    "literals": Ten(lambda: (V, [Decimal("9.50"), Decimal(100)])),
    "argument, texts": Ten(lambda: (V, argument("x")), "x: [Decimal!]!", {"x": ["9.50", "100"]}),
    "argument, numbers": Ten(lambda: (V, argument("x")), "x: [Decimal!]!", {"x": [9.5, 100]}),
    "argument, in the document": Ten(lambda: (V, argument("x")), "x: [Decimal!]!", {"literal": '(x: [9.50, "1e2"])'}),
    "claim": Ten(lambda: (V, viewer("claims", "x")), given={"context": {"x": [Decimal("9.5"), Decimal("1E+2")]}}),
    "decimal(data), literals": Ten(lambda: (decimal(V), ["9.50", 100])),
    "decimal(data), list of the event": Ten(
        lambda: (decimal(V), previous["x"]), given={"previous": {"x": ["9.5", 100]}}
    ),
    "decimal(list)": Ten(lambda: (V, decimal(previous["x"])), given={"previous": {"x": [9.5, "100.0"]}}),
}  # fmt: skip


@pytest.mark.parametrize("how", LISTS)
def test_membership_is_that_of_numbers(how):
    ten = LISTS[how]
    given = {**ten.given}
    if "context" in given:
        given["context"] = claims(**given["context"])
    item, items = ten.sides()
    judges = [Judge(item.is_in(items), ten.arguments)]
    if not isinstance(items, list):
        judges.append(Judge(items.contains(item), ten.arguments))
    texts = {'"9.50"': True, "9.5": True, "100": True, '"1e2"': True, '"100.000"': True,
             "9": False, '"9.51"': False, "100.00000000000000001": False, '"ten"': None, "true": None,
             "null": None}  # fmt: skip
    for judge in judges:
        assert {text: judge(json_of(v=text), **given) for text in texts} == texts


def test_lists_of_the_event_contain_decimals():
    events = {
        '["9.50", 3]': True,
        "[9.5]": True,
        '["9.51", 3]': False,
        "[]": False,
        '["nine", 3]': None,
        '["nine", 9.5]': True,
    }
    cases: list[tuple[Judge, dict[str, Any]]] = [
        (Judge(V.contains(Decimal("9.5"))), {}),
        (Judge(V.contains(argument("x")), "x: Decimal!"), {"literal": '(x: "9.500")'}),
        (Judge(decimal(V).contains("9.50")), {}),
        (Judge(decimal(V).contains(9.5)), {}),
    ]
    for judge, given in cases:
        assert {text: judge(json_of(v=text), **given) for text in events} == events


def test_lists_of_decimals_are_equal_by_element():
    judge = Judge(argument("x") == V, "x: [Decimal]!")
    for text, expected in (('["1.50", 2]', True), ("[1.5, 2.0]", True), ("[1.5]", False), ('["1.5", "two"]', None)):
        assert judge(json_of(v=text), x=["1.5", "2"]) is expected, text


def test_presence_is_that_of_the_operand():
    for name in ("exists", "is_null"):
        wrapped, plain = (Judge(getattr(operand, name)()) for operand in (decimal(V), V))
        for given in ({}, {"v": None}, {"v": 1}, {"v": "ten"}):
            assert wrapped(given) is plain(given)


@pytest.mark.parametrize("wrong", [data, previous, None, V == 1, object()])
def test_decimal_takes_an_operand(wrong):
    with pytest.raises(SchemaError):
        decimal(wrong) == 1  # noqa: B015  # that is the point
    assert repr(decimal(V)).startswith("decimal(data[")


# ---- the two leaks, over a bus ----


async def test_a_viewer_is_not_shown_rows_beyond_their_claim():
    events = [{"v": Decimal(1000)}, {"v": Decimal("150.50")}, {"v": 1000}, {"v": 199.99}, {"v": "200.00"}, {"v": "1e3"}]
    for rows in (viewer("claims", "x") >= V, decimal(V) <= viewer("claims", "x")):
        got = await matching(rows, events, as_rows=True, context=claims(x=Decimal("200")))
        assert got == [1, 3, 4]
    for x in ("200", 200, 200.0):
        assert await matching(decimal(V) <= viewer("claims", "x"), events, as_rows=True, context=claims(x=x)) == [
            1,
            3,
            4,
        ]


async def test_an_argument_is_compared_as_the_number_that_it_is():
    schema = schema_of("x: Decimal!", field=argument("x") <= V)
    async with SubscriptionManager(schema) as manager:
        query = "subscription ($x: Decimal!) { field(x: $x) }"
        for x in ("10", 10, "10.00", Decimal(10)):
            async with manager.subscribe(query, variables={"x": x}, framing="result") as stream:
                for value in (Decimal("9.50"), 9.5, "9", Decimal("10.50"), 9, 11, "100"):
                    await manager.publish_event("e", "c", {"v": value})
                given = [result["data"]["field"]["v"] for result in await take(stream, 3)]
                assert given == ["10.50", 11, "100"]


async def test_claims_that_differ_in_type_share_nothing():
    """`200` is compared with numbers alone, `Decimal(200)` with numeric text too."""
    schema = schema_of(field={"rows": viewer("claims", "x") >= V})
    query = "subscription { field }"
    async with (
        SubscriptionManager(schema) as manager,
        manager.subscribe(query, context=claims(x=200), framing="result") as number,
        manager.subscribe(query, context=claims(x=Decimal(200)), framing="result") as exact,
    ):
        for value in ("150", 160):
            await manager.publish_event("e", "c", {"v": value})
        assert [result["data"]["field"]["v"] for result in await take(exact, 2)] == ["150", 160]
        assert [result["data"]["field"]["v"] for result in await take(number, 1)] == [160]


async def test_a_scope_compares_decimals_as_numbers():
    schema = schema_of("x: Decimal!", field={"scope": {"x": viewer("claims", "x")}})
    async with SubscriptionManager(schema) as manager:
        query = "subscription ($x: Decimal!) { field(x: $x) }"
        for x in ("200", "200.00", 200, 200.0, "2e2"):
            async with manager.subscribe(query, variables={"x": x}, context=claims(x=Decimal(200))):
                pass
        for x in ("200.01", "20", 200.000001):
            with pytest.raises(Forbidden):
                await manager.subscribe(query, variables={"x": x}, context=claims(x=Decimal(200))).__aenter__()


@pytest.mark.parametrize(
    ("condition", "kind", "x"),
    [
        (argument("x") == V, "Decimal!", "10.0"),
        (V.is_in(argument("x")), "[Decimal!]!", ["7", "10"]),
        (argument("x").contains(V), "[Decimal!]!", [10.0]),
        ((argument("x") == V) & (data["w"] == 1), "Decimal!", 10),
        ((Decimal(10) == V) | (argument("x") == V), "Decimal!", 7),
        (decimal(V) == argument("x"), "String!", "1e1"),
        (V.is_in([Decimal(10), 7]), "Int", 1),
    ],
)
async def test_what_is_looked_up_is_found_whatever_its_form(condition, kind, x):
    """`explain` judges one event; here the index has to find it."""
    schema = schema_of(f"x: {kind}", field=condition, everything=data["w"] == 1)
    query = f"subscription ($x: {kind}) {{ field(x: $x) }}"
    async with (
        SubscriptionManager(schema) as manager,
        manager.subscribe(query, variables={"x": x}, framing="result", subscription_id="a") as stream,
        manager.subscribe(f"subscription {{ everything(x: {json.dumps(x)}) }}", framing="result") as control,
    ):
        values = [*LESS, *SAME, *MORE, *NEITHER]
        for at, text in enumerate(values):
            await manager.publish_event("e", "c", f'{{"v": {text}, "w": 1, "at": {at}}}')
        assert len(await take(control, len(values))) == len(values)
        assert await manager.complete_subscription("a")
        assert [values[result["data"]["field"]["at"]] for result in await rest(stream)] == SAME


# ---- an order without a type ----


def test_an_events_own_decimal_gives_no_type():
    judge = Judge(viewer("claims", "x") > V)
    assert judge({"v": Decimal(1000)}, context=claims(x="200")) is True  # text, by code point
    assert judge({"v": Decimal(300)}, context=claims(x="200")) is False
    assert judge({"v": Decimal(100)}, context=claims(x=200)) is None
    assert judge({"v": 100}, context=claims(x=200)) is True


UNTYPED = [
    (viewer("claims", "x") > V, ["v", "claims", "x"]),
    (viewer("claims", "x") >= V, ["v", "claims", "x"]),
    (data["v"]["w"] > previous["old"], ["w", "old"]),
    ((V == 1) | ~(data["a"] <= data["b"]), ["a", "b"]),
    (argument("j") > V, ["v", "j"]),
]


@pytest.mark.parametrize(("condition", "names"), UNTYPED)
@pytest.mark.parametrize("option", ["where", "rows"])
def test_an_order_between_two_sides_without_a_type_is_told_once_when_built(condition, names, option):
    with logged() as log:
        SubscriptionManager(schema_of("j: JSON", lonely={option: condition}, fine=V == 1))
        [line] = log.take()
    assert line.startswith("fraiseql_subs")
    for part in ("lonely", "decimal(", *names):
        assert part in line


@pytest.mark.parametrize(
    "condition",
    [
        lambda: viewer("claims", "x") == V,
        lambda: V.is_in(viewer("claims", "x")),
        lambda: V < 10,
        lambda: V < "10",
        lambda: argument("n") > V,
        lambda: argument("d") > V,
        lambda: viewer("user_id") > V,
        lambda: viewer("expires_at") > V,
        lambda: decimal(V) < viewer("claims", "x"),
        lambda: decimal(previous["v"]) > V,
        lambda: Decimal(10) > V,
    ],
)
def test_an_order_with_a_type_and_an_equality_are_not(condition):
    with logged() as log:
        SubscriptionManager(schema_of("n: Int, d: Decimal", field=condition()))
        assert log.take() == []


# ---- every other scalar ----

#: Type, what is given, what is less, what is more, and what has no order with it.
SCALARS: list[tuple[str, Any, list[Any], list[Any], list[Any]]] = [
    ("Int", 9, [8, 8.5, -1], [10, 9.5], ["10", "8", "ten", True, None, [10]]),
    ("Float", 9.5, [9, 9.25], [10, 9.75], ["10", "9", "ten", True, None]),
    ("Decimal", "9.5", [9, "9", "-10"], [10, "10", "9.75"], ["ten", True, None, []]),
    ("String", "9", ["8", "10", ""], ["ten", "91"], [10, 8, True, None]),
    ("ID", "9", ["8", "10", 8, 10], ["ten", "91", 91], [8.5, True, None, []]),
    ("Date", "2026-01-10", ["2026-01-09", "2025-12-31"], ["2026-01-11", "2026-10-01"],
     ["soon", "1", "2026-1-9", "2026-13-01", 20260111, True, None]),
    ("Time", "10:00:00", ["09:59:59", "09:59:59.5"], ["10:00:01", "23:00:00"], ["soon", "1", "9:00", 11, True, None]),
    ("DateTime", "2026-01-10T12:00:00Z", ["2026-01-10T11:59:59Z", "2026-01-10T12:00:00+01:00"],
     ["2026-01-10T12:00:01Z", "2026-01-10T11:30:00-01:00"],
     ["soon", "2027", "2026-01-10", "2026-01-11T12:00:00", 1767268800, True, None]),
    ("Boolean", True, [], [], [False, True, "yes", 0, 1, None]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "given", "less", "more", "neither"), SCALARS, ids=[row[0] for row in SCALARS])
def test_a_typed_argument_never_falls_back_to_the_order_of_its_text(kind, given, less, more, neither):
    under, over = Judge(argument("x") > V, f"x: {kind}"), Judge(argument("x") < V, f"x: {kind}")
    values = [*less, *more, *neither]
    assert [under({"v": value}, x=given) for value in values] == [True] * len(less) + [False] * len(more) + [
        None
    ] * len(neither)
    assert [over({"v": value}, x=given) for value in values] == [False] * len(less) + [True] * len(more) + [None] * len(
        neither
    )


def test_below_an_input_object_an_argument_has_its_type_too():
    judge = Judge(argument("f", "least") <= V, "f: Filter!")
    assert [judge({"v": value}, f={"least": 9}) for value in (9, 8, "10", "9", None)] == [True, False, None, None, None]
    assert judge(Raw('{"v": "10"}'), f={}) is None
    assert judge({"v": 3}, f={}) is True
