import enum
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from fraiseql_subs import SchemaError, argument, data, decimal, previous, viewer

A, B = data["a"], data["b"]["c"]
KEY = UUID("C0FFEE00-0000-4000-8000-000000000000")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))


class Color(enum.Enum):
    RED = 1


class Text(str, enum.Enum):
    RED = "red"


def wire(predicate: Any) -> Any:
    return json.loads(json.dumps(predicate._wire))


a, b = ["data", ["a"]], ["data", ["b", "c"]]


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        (A == 1, ["==", a, ["literal", 1]]),
        (1 == A, ["==", a, ["literal", 1]]),  # noqa: SIM300
        (A != B, ["!=", a, b]),
        (A < 1.5, ["<", a, ["literal", 1.5]]),
        (1.5 > A, ["<", a, ["literal", 1.5]]),  # noqa: SIM300
        (A <= "x", ["<=", a, ["literal", "x"]]),
        (A > B, [">", a, b]),
        (A >= NOON, [">=", a, ["datetime", "2026-01-01T12:00:00+01:00"]]),
        (A == KEY, ["==", a, ["id", "c0ffee00-0000-4000-8000-000000000000"]]),
        (A == Color.RED, ["==", a, ["literal", "RED"]]),
        (A == Text.RED, ["==", a, ["literal", "RED"]]),
        (A == True, ["==", a, ["literal", True]]),  # noqa: E712
        (Decimal("2.50") == A, ["==", a, ["number", "2.50"]]),
        (Decimal("1E+400") < A, [">", a, ["number", "1E+400"]]),
        (A.is_in([Decimal(1), 2]), ["is_in", a, ["list", [["number", "1"], ["literal", 2]]]]),
        (decimal(A) >= B, [">=", ["decimal", a], b]),
        (decimal(argument("x")) == decimal(viewer("claims", "y")), [
            "==", ["decimal", ["argument", "x", []]], ["decimal", ["viewer", "claims", ["y"]]],
        ]),
        (A.is_in(decimal(decimal(B))), ["is_in", a, ["decimal", b]]),
        (decimal(A).exists() & decimal(A).is_null(), ["&", ["exists", a], ["is_null", a]]),
        (A == 10**30, ["==", a, ["literal", 10**30]]),
        (A == [1, ("x", KEY)], ["==", a, ["list", [["literal", 1], ["list", [["literal", "x"], ["id", str(KEY)]]]]]]),
        (previous["a"] == viewer("user_id"), ["==", ["previous", ["a"]], ["viewer", "user_id", []]]),
        (viewer("claims", "org")["id"] == A, ["==", ["viewer", "claims", ["org", "id"]], a]),
        (argument("f", "x")["y"] == A, ["==", ["argument", "f", ["x", "y"]], a]),
        (A.is_in({2, 1}), ["is_in", a, ["list", [["literal", 1], ["literal", 2]]]]),
        (A.is_in([]), ["is_in", a, ["list", []]]),
        (A.is_in(iter("xy")), ["is_in", a, ["list", [["literal", "x"], ["literal", "y"]]]]),
        (A.is_in(viewer("roles")), ["is_in", a, ["viewer", "roles", []]]),
        (A.is_in([NOON]), ["is_in", a, ["list", [["datetime", NOON.isoformat()]]]]),
        (A.contains("x"), ["contains", a, ["literal", "x"]]),
        (A.startswith("x"), ["startswith", a, ["literal", "x"]]),
        (A.endswith(argument("s")), ["endswith", a, ["argument", "s", []]]),
        (A.exists(), ["exists", a]),
        (A.is_null(), ["is_null", a]),
        (~(A == 1) & (B == 2) | A.is_null(), [
            "|", ["&", ["~", ["==", a, ["literal", 1]]], ["==", b, ["literal", 2]]], ["is_null", a],
        ]),
    ],
)  # fmt: skip
def test_operators_build_the_wire_form(predicate: Any, expected: Any):
    assert wire(predicate) == expected


MISTAKES: list[tuple[str, Callable[[], Any]]] = [
    ("join with & | ~", lambda: A == 1 and B == 2),
    ("join with & | ~", lambda: not A == 1),  # noqa: SIM201
    ("join with & | ~", lambda: 1 < A < 3),
    ("join with & | ~", lambda: A == B == 1),
    ("is not a bool: compare it", lambda: A and B),  # type: ignore[redundant-expr, unreachable]
    ("is not a bool: compare it", lambda: bool(data)),
    ("cannot be iterated", lambda: list(A)),
    ("`in` gives a bool", lambda: 1 in A),
    ("join with & | ~", lambda: A in [B]),
    (r"use \.is_null\(\)", lambda: A == None),  # noqa: E711
    (r"use \.is_null\(\)", lambda: A != None),  # noqa: E711
    (r"use \.is_null\(\)", lambda: A.is_in([None])),  # type: ignore[list-item]
    ("parentheses around each", lambda: A == 1 & B == 2),
    ("parentheses around each", lambda: A & B),
    ("parentheses around each", lambda: ~A),
    ("parentheses around each", lambda: (B == 1) == A),
    ("parentheses around each", lambda: (A == 1) == (B == 1)),
    ("joins two predicates", lambda: (A == 1) & True),  # type: ignore[operator]
    ("joins two predicates", lambda: True | (A == 1)),
    ("joins two predicates", lambda: (A == 1) & B),
    ("unhashable", lambda: hash(A)),
    ("unhashable", lambda: {A == 1}),
    ("a path is made of str keys, got 0", lambda: data[0]),  # type: ignore[index]
    ("a path is made of str keys", lambda: data["a", "b"]),  # type: ignore[index]
    ("a path is made of str keys", lambda: argument("x", 1)),  # type: ignore[arg-type]
    ("data needs a key, as in data", lambda: data == 1),
    ("previous needs a key", lambda: previous.exists()),
    (r"viewer\('name'\): a SecurityContext has user_id, ", lambda: viewer("name")),
    ("only claims have a path below", lambda: viewer("user_id", "x")),
    ("only claims have a path below", lambda: viewer("roles")["x"]),
    ("is no literal", lambda: A == {"a": 1}),
    ("is no literal", lambda: NOON.date() == A),
    ("is no literal", lambda: object() == A),
    ("needs a time zone", lambda: NOON.replace(tzinfo=None) > A),
    ("expected a finite number", lambda: float("nan") > A),
    ("expected a finite number", lambda: Decimal("inf") == A),
    ("have an order", lambda: A < True),
    ("expected a finite number", lambda: Decimal("sNaN") > A),
    ("decimal takes an operand", lambda: decimal(Decimal(1))),  # type: ignore[arg-type]
    ("decimal takes an operand", lambda: decimal(A == 1)),  # type: ignore[arg-type]
    ("inside the parentheses of decimal", lambda: decimal(data["a"])["b"]),
    ("data needs a key", lambda: decimal(data) == 1),
    (r"decimal\(data\['a'\]\) is a number", lambda: decimal(A).startswith("1")),
    (r"decimal\(data\['a'\]\) is a number", lambda: B.endswith(decimal(A))),
    ("have an order", lambda: A >= [1]),  # type: ignore[operator]
    ("is_in takes one list", lambda: A.is_in("abc")),
    ("is_in takes one list", lambda: A.is_in(1)),  # type: ignore[arg-type]
    ("startswith takes a string", lambda: A.startswith(1)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("message", "mistake"), MISTAKES)
def test_a_mistake_raises_where_it_is_written(message: str, mistake: Callable[[], Any]):
    with pytest.raises(TypeError, match=message) as raised:
        mistake()
    assert message == "unhashable" or isinstance(raised.value, SchemaError)


@pytest.mark.parametrize("text", ["\0", "\ud800"])
def test_text_that_cannot_travel_raises(text: str):
    for build in (lambda: text == A, lambda: data[text], lambda: A.is_in([text])):
        with pytest.raises(ValueError, match="is not allowed"):
            build()


def test_what_a_predicate_looks_like():
    assert repr(data["a"]["b"]) == "data['a']['b']"
    assert repr(argument("f", "x")) == "argument('f', 'x')"
    assert repr(A == 1) == '<Predicate ["==", ["data", ["a"]], ["literal", 1]]>'
