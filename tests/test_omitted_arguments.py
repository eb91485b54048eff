"""What an argument does not have is null; an absent key of the event or of a claim is neither there nor null."""

from __future__ import annotations

from typing import Any

import pytest

from fraiseql_subs import SecurityContext, SubscriptionManager, argument, data, previous, viewer

from .judging import Judge, schema_of
from .support import rest, take

Presence = tuple[bool | None, bool | None]
OMITTED: Presence = (False, True)
NULL: Presence = (True, True)
VALUE: Presence = (True, False)
ABSENT: Presence = (False, False)


def presence(operand: Any, data: dict[str, Any], arguments: str = "", **given: Any) -> Presence:
    """Whether it exists, and whether it is null; neither is ever unknown."""
    exists, is_null = (Judge(how(), arguments)(data, **given) for how in (operand.exists, operand.is_null))
    assert None not in (exists, is_null)
    return exists, is_null


#: What stands in the parentheses, and what the argument, its fields and what lies below them are.
GIVEN: list[tuple[str, dict[str, Presence]]] = [
    ("", {"": OMITTED, "status": OMITTED, "inner": OMITTED, "inner.id": OMITTED, "least": OMITTED, "any.k": OMITTED}),
    ("(f: null)", {"": NULL, "status": OMITTED, "inner": OMITTED, "inner.id": OMITTED, "least": OMITTED}),
    ("(f: {})", {"": VALUE, "status": OMITTED, "inner": OMITTED, "inner.id": OMITTED, "least": VALUE}),
    ("(f: {status: null})", {"": VALUE, "status": NULL, "inner.id": OMITTED}),
    ("(f: {status: OPEN})", {"": VALUE, "status": VALUE, "inner": OMITTED, "inner.amount": OMITTED}),
    ("(f: {inner: null})", {"inner": NULL, "inner.id": OMITTED}),
    ("(f: {inner: {}})", {"inner": VALUE, "inner.id": OMITTED}),
    ("(f: {inner: {id: null}})", {"inner": VALUE, "inner.id": NULL, "inner.amount": OMITTED}),
    ("(f: {inner: {id: 0}})", {"inner.id": VALUE, "inner.amount": OMITTED}),
    ("(f: {least: null})", {"least": NULL}),
    ("(f: {any: {k: 1}})", {"any": VALUE, "any.k": VALUE, "any.l": OMITTED, "any.k.m": OMITTED}),
    ("(f: {any: {k: null}})", {"any.k": NULL, "any.k.m": OMITTED}),
    ("(f: {any: 1})", {"any": VALUE, "any.k": OMITTED}),
    ("(f: {any: null})", {"any": NULL, "any.k": OMITTED}),
]  # fmt: skip


@pytest.mark.parametrize(("given", "expected"), GIVEN)
def test_whatever_an_argument_does_not_have_is_null(given, expected):
    got = {}
    for path in expected:
        operand = argument("f", *path.split(".")) if path else argument("f")
        got[path] = presence(operand, {}, "f: Filter", literal=given)
    assert got == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, OMITTED),
        ({"f": None}, OMITTED),
        ({"f": {}}, OMITTED),
        ({"f": {"status": None}}, NULL),
        ({"f": {"status": "OPEN"}}, VALUE),
    ],
)
def test_so_it_is_where_variables_leave_it_out(variables, expected):
    assert presence(argument("f", "status"), {}, "f: Filter", **variables) == expected


async def test_a_variable_without_a_value_leaves_a_field_out():
    condition = argument("f", "status").is_null() & ~argument("f", "status").exists()
    schema = schema_of("f: Filter", left_out=condition, given=~condition)
    for field, query, variables in (
        ("left_out", "subscription ($s: Status) { left_out(f: {status: $s}) }", {}),
        ("given", "subscription ($s: Status) { given(f: {status: $s}) }", {"s": None}),
        ("given", "subscription ($s: Status) { given(f: {status: $s}) }", {"s": "OPEN"}),
    ):
        async with (
            SubscriptionManager(schema) as manager,
            manager.subscribe(query, variables=variables, subscription_id="a") as stream,
        ):
            await manager.publish_event("e", "c", {"n": 1})
            assert await manager.complete_subscription("a")
            assert await rest(stream) == [{"data": {field: {"n": 1}}}]


OPTIONAL = argument("f", "status").is_null() | (data["status"] == argument("f", "status"))


@pytest.mark.parametrize("option", ["where", "rows"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", ["OPEN", "CLOSED", None]),
        ("(f: null)", ["OPEN", "CLOSED", None]),
        ("(f: {})", ["OPEN", "CLOSED", None]),
        ("(f: {inner: {id: 1}})", ["OPEN", "CLOSED", None]),
        ("(f: {status: null})", ["OPEN", "CLOSED", None]),
        ("(f: {status: CLOSED})", ["CLOSED"]),
    ],
)
async def test_a_filters_field_that_is_left_out_filters_nothing(given, expected, option):
    schema = schema_of("f: Filter", field={option: OPTIONAL}, everything=data["status"].exists())
    async with (
        SubscriptionManager(schema) as manager,
        manager.subscribe(f"subscription {{ field{given} }}", subscription_id="a") as stream,
        manager.subscribe("subscription { everything }") as control,
    ):
        for status in ("OPEN", "CLOSED", None):
            await manager.publish_event("e", "c", {"status": status})
        assert [payload["data"]["everything"]["status"] for payload in await take(control, 3)] == [
            "OPEN",
            "CLOSED",
            None,
        ]
        assert await manager.complete_subscription("a")
        assert [payload["data"]["field"]["status"] for payload in await rest(stream)] == expected


@pytest.mark.parametrize("given", ["", "(f: null)", "(f: {})", "(f: {status: null})"])
@pytest.mark.parametrize(
    "comparison",
    [
        lambda it: data["status"] == it,
        lambda it: data["status"] != it,
        lambda it: it.is_in(["OPEN"]),
        lambda it: data["list"].contains(it),
        lambda it: it.startswith("O"),
    ],
)
def test_a_comparison_with_what_is_omitted_stays_unknown(given, comparison):
    judge = Judge(comparison(argument("f", "status")), "f: Filter")
    event = {"status": "OPEN", "list": ["OPEN"]}
    assert judge(event, literal=given) is None
    assert judge(event, literal="(f: {status: OPEN})") is not None


# ---- the event, its old image and claims ----

PLACES: list[tuple[dict[str, Any], Presence]] = [
    ({}, ABSENT),
    ({"a": None}, ABSENT),
    ({"a": {}}, ABSENT),
    ({"a": 1}, ABSENT),
    ({"a": [{"b": 1}]}, ABSENT),
    ({"a": {"b": None}}, NULL),
    ({"a": {"b": 0}}, VALUE),
    ({"a": {"b": {}}}, VALUE),
]


@pytest.mark.parametrize(("place", "expected"), PLACES)
def test_below_a_missing_or_null_parent_a_key_is_absent(place, expected):
    assert presence(data["a"]["b"], place) == expected
    assert presence(previous["a"]["b"], {}, previous=place) == expected
    assert presence(viewer("claims", "a", "b"), {}, context=SecurityContext(claims=place)) == expected


def test_the_old_image_that_an_event_does_not_have_is_absent():
    assert presence(previous["a"], {}) == ABSENT
    assert presence(previous["a"], {}, previous={"a": None}) == NULL


@pytest.mark.parametrize("name", ["user_id", "tenant_id", "sources", "expires_at"])
def test_a_viewers_none_does_not_exist_and_is_null(name):
    assert presence(viewer(name), {}) == OMITTED
    assert presence(viewer("roles"), {}) == VALUE
    assert presence(viewer("claims", "a"), {}) == ABSENT
    assert presence(viewer("claims", "a"), {}, context=SecurityContext(claims={"a": None})) == NULL
