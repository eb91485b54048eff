import dataclasses
import json
import pickle
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from fraiseql_subs import ALL_TENANTS, Event, SecurityContext, requires, requires_any

KEY = UUID("C0FFEE00-0000-4000-8000-000000000000")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))


def test_a_context_keeps_what_it_was_given_immutably():
    roles = ["b", "a"]
    claims: dict[str, Any] = {"org": {"ids": [1, 2.5, None, True]}}
    context = SecurityContext(KEY, 7, roles, {"p"}, claims, sources=(s for s in "xy"), expires_at=NOON)
    roles.append("c")
    claims["org"]["ids"].append(3)
    assert (context.user_id, context.tenant_id, context.expires_at) == (KEY, 7, NOON)
    assert (context.roles, context.permissions, context.sources) == (
        frozenset("ab"),
        frozenset("p"),
        frozenset("xy"),
    )
    assert context.claims["org"]["ids"] == (1, 2.5, None, True)
    with pytest.raises(TypeError):
        context.claims["org"]["x"] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.user_id = 2  # type: ignore[misc]


def test_contexts_are_equal_as_typed_json():
    def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
        one, other = SecurityContext(**left), SecurityContext(**right)
        assert (one == other) is (hash(one) == hash(other))
        return one == other

    assert same(
        {"roles": ["a", "b"], "claims": {"x": 1, "y": [2]}}, {"roles": ("b", "a", "a"), "claims": {"y": (2,), "x": 1.0}}
    )
    assert not same({"user_id": 1}, {"user_id": "1"})
    assert not same({"user_id": KEY}, {"user_id": str(KEY)})
    assert not same({"claims": {"x": 1}}, {"claims": {"x": True}})
    assert not same({"sources": ()}, {"sources": None})
    assert not same({"expires_at": NOON}, {})
    assert SecurityContext() != "anonymous"


def test_a_context_can_be_replaced_in_part():
    context = SecurityContext(1, roles=["a"], claims={"x": [1]}, expires_at=NOON)
    lasting = SecurityContext(1, roles=["a"], claims={"x": [1]})
    assert dataclasses.replace(context, expires_at=None) == context._without_expiry() == lasting
    assert context.expires_at == NOON


def test_what_rust_is_given():
    context = SecurityContext(KEY, 7, ["b", "a"], {"q", "p"}, {"x": [1.0, {"y": None}]}, (), NOON)
    given = json.loads(context._json())
    key = given.pop("key")
    assert given.pop("decimals") == []
    assert given == {
        "user_id": str(KEY),
        "tenant_id": "7",
        "permissions": ["p", "q"],
        "sources": [],
        "expires_at": "2026-01-01T11:00:00+00:00",
        "fields": {
            "user_id": str(KEY),
            "tenant_id": "7",
            "roles": ["a", "b"],
            "permissions": ["p", "q"],
            "sources": [],
            "claims": {"x": [1.0, {"y": None}]},
        },
    }
    assert key == json.loads(dataclasses.replace(context, expires_at=None)._json())["key"]
    anonymous = json.loads(SecurityContext()._json())
    assert [anonymous[name] for name in ("user_id", "tenant_id", "sources", "expires_at")] == [None] * 4


AMOUNT = "12345678901.123456789"


def test_rust_is_told_which_claims_are_decimals():
    amount = Decimal(AMOUNT)
    claims = {
        "a": amount,
        "b": {"c": Decimal("1E+400"), "d": "1"},
        "e": [amount, None],
        "f": [amount, 1],
        "g": [{"h": amount}],
        "i": [None],
        "j": 1.5,
    }
    given = SecurityContext(claims=claims)._json()
    assert json.loads(given)["decimals"] == [["claims", "a"], ["claims", "b", "c"], ["claims", "e"]]
    exact = json.loads(given, parse_float=Decimal)["fields"]["claims"]
    assert exact == {**claims, "j": Decimal("1.5")}
    assert '"j":1.5' in given


def test_claims_take_decimals_and_stay_immutable_json():
    amount = Decimal(AMOUNT)
    context = SecurityContext(claims={"a": amount, "b": [{"c": amount}]})
    assert context.claims["a"] == amount
    assert isinstance(context.claims["b"][0]["c"], Decimal)
    assert context == SecurityContext(claims={"a": Decimal(AMOUNT + "0"), "b": ({"c": amount},)})
    assert hash(context) == hash(SecurityContext(claims={"a": Decimal(AMOUNT + "0"), "b": ({"c": amount},)}))
    assert context != SecurityContext(claims={"a": Decimal("12345678901.123456788"), "b": [{"c": amount}]})
    assert context != SecurityContext(claims={"a": AMOUNT, "b": [{"c": amount}]})


NUMBERS = [
    0, -0.0, Decimal("-0.00"), 1, 1.0, True, "1", Decimal("1.0"), Decimal("1e0"), 0.1, Decimal("0.1"), Decimal("0.10"),
    100, 1e2, Decimal("1E+2"), 2**60, 2.0**60, Decimal(repr(2.0**60)), 10**22, 1e22, Decimal("1e22"), 2**53 + 1,
    float(2**53), Decimal("1e400"), 10**400, Decimal("-1e400"), Decimal("1e-400"), Decimal("1e99999999"),
]  # fmt: skip


@pytest.mark.parametrize("one", NUMBERS, ids=repr)
def test_numbers_of_claims_are_equal_by_their_value(one):
    """Python's `decimal` says what is equal; the value of a float is that of its shortest text."""

    def typed(value: Any) -> Any:
        is_number = isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
        return Decimal(repr(value) if isinstance(value, float) else value) if is_number else [value, type(value)]

    for other in NUMBERS:
        left, right = (SecurityContext(claims={"x": [value]}) for value in (one, other))
        assert (left == right) is (typed(one) == typed(other)), (one, other)
        assert (hash(left) == hash(right)) is (typed(one) == typed(other)), (one, other)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"user_id": True}, TypeError, "user_id: expected a str, an int or a UUID, got bool"),
        ({"tenant_id": 1.0}, TypeError, "tenant_id: expected a str, an int or a UUID, got float"),
        ({"user_id": "\0"}, ValueError, "user_id: NUL"),
        ({"tenant_id": "\ud800"}, ValueError, "tenant_id: a lone surrogate"),
        ({"roles": "admin"}, TypeError, "roles: expected a collection of str, got str"),
        ({"permissions": "read"}, TypeError, "permissions: expected a collection"),
        ({"sources": "a"}, TypeError, "sources: expected a collection"),
        ({"roles": None}, TypeError, "roles: expected a collection"),
        ({"roles": [1]}, TypeError, "roles: expected a str, got int"),
        ({"claims": []}, TypeError, "claims: expected a mapping"),
        ({"claims": {"a": {"b": [object()]}}}, TypeError, r"claims\['a'\]\['b'\]\[0\]: expected JSON"),
        ({"claims": {1: 2}}, TypeError, "claims, a key: expected a str"),
        ({"claims": {"a": float("nan")}}, ValueError, r"claims\['a'\]: expected a finite number"),
        ({"claims": {"a": Decimal("sNaN")}}, ValueError, r"claims\['a'\]: expected a finite number"),
        ({"claims": {"a": Decimal("-Infinity")}}, ValueError, r"claims\['a'\]: expected a finite number"),
        ({"claims": {"a": [10**5000]}}, ValueError, r"claims\['a'\]\[0\]: Exceeds the limit"),
        ({"claims": {"a": "\0"}}, ValueError, r"claims\['a'\]: NUL"),
        ({"expires_at": 1}, TypeError, "expires_at: expected a datetime, got int"),
        ({"expires_at": NOON.replace(tzinfo=None)}, ValueError, "expires_at: expected a datetime with a time zone"),
    ],
)
def test_a_wrong_context_raises(given: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        SecurityContext(**given)


def test_requirements_are_an_or_of_ands():
    assert requires("a", "b").alternatives == (("a", "b"),)
    assert requires_any("a", "b").alternatives == (("a",), ("b",))
    assert (requires("a") & requires_any("a", "b")).alternatives == (("a",), ("a", "b"))
    for make in (requires, requires_any):
        with pytest.raises(ValueError, match="at least one"):
            make()
        with pytest.raises(ValueError, match="cannot be empty"):
            make("")
        with pytest.raises(TypeError, match="expected a str"):
            make(["a"])  # type: ignore[arg-type]


def test_an_event_is_frozen_and_makes_up_what_is_missing():
    event = Event("t", "c", {"a": 1})
    assert (event.event_type, event.channel, event.data, event.tenant_id, event.source) == (
        "t",
        "c",
        {"a": 1},
        None,
        None,
    )
    assert event.id != Event("t", "c", {}).id
    assert event.published_at.utcoffset() == timedelta(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.channel = "d"  # type: ignore[misc]
    assert dataclasses.replace(event, source="s") == Event(
        "t", "c", {"a": 1}, source="s", id=event.id, published_at=event.published_at
    )


def test_an_events_tenant_is_text_or_everyone():
    assert [Event("t", "c", {}, tenant_id=given).tenant_id for given in (7, KEY, "", None, ALL_TENANTS)] == [
        "7",
        str(KEY),
        "",
        None,
        ALL_TENANTS,
    ]
    assert Event("t", "c", {}, tenant_id="ALL_TENANTS").tenant_id != ALL_TENANTS
    assert pickle.loads(pickle.dumps(ALL_TENANTS)) is ALL_TENANTS
    with pytest.raises(TypeError, match="tenant_id: expected"):
        Event("t", "c", {}, tenant_id=True)
