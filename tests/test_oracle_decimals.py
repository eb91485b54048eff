"""Decimal, integers, floats and text against Python's `decimal`: thousands of pairs that are equal, or nearly."""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import pytest

from fraiseql_subs import SubscriptionManager, argument, data, decimal

from .judging import event_of, json_of, query_of, schema_of
from .oracle import FACTOR

V, W = data["v"], data["w"]
CASES = 500 * FACTOR
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
EXACT = Context(prec=200)


class Pairs:
    """Numbers of up to 25 digits, and others that are equal to them or differ in the last place."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def number(self) -> Decimal:
        pick = self._random
        how = pick.randrange(4)
        if how == 0:
            return Decimal(pick.randint(-20, 20))
        if how == 1:
            return Decimal(
                repr(pick.choice([pick.uniform(-10, 10), pick.random() * 10 ** pick.randint(-30, 30), 0.1, 1e300]))
            )
        digits = pick.randint(1, 25)
        return Decimal(pick.randint(-(10**digits), 10**digits)).scaleb(pick.randint(-25, 5), EXACT)

    def near(self, number: Decimal) -> Decimal:
        how = self._random.randrange(4)
        if how == 0:
            return self.number()
        if how == 1:
            return EXACT.add(number, Decimal(1).scaleb(number.as_tuple().exponent - self._random.randint(0, 3)))  # type: ignore[operator]
        return number

    def spelled(self, number: Decimal) -> str:
        """As JSON: a number or numeric text, written in one of its ways."""
        pick = self._random
        texts = [str(number), f"{number:e}", f"{number:E}"]
        if -30 < number.adjusted() < 30:
            texts += [f"{number:f}", f"{number:f}" + ("000" if "." in f"{number:f}" else ".000")]
        text = pick.choice([text for text in texts if Decimal(text) == number])
        if Decimal(repr(float(number))) == number and pick.random() < 0.3:
            text = json.dumps(float(number))
        return json.dumps(text) if pick.random() < 0.5 else text.replace("E+", "e")

    def noise(self) -> str:
        return self._random.choice(['"ten"', "true", "null", "[1]", '""', '"1x"', '"--1"', '"."', '"e5"', "{}"])

    def pair(self) -> tuple[Decimal | None, str, Decimal, str]:
        one = self.number()
        other = self.near(one)
        if self._random.random() < 0.1:
            return None, self.noise(), other, self.spelled(other)
        return one, self.spelled(one), other, self.spelled(other)


def expected(name: str, left: Decimal | None, right: Decimal) -> bool | None:
    return None if left is None else bool(OPERATORS[name](left, right))


def judged(
    manager: SubscriptionManager,
    field: str,
    event: Any,
    arguments: str = "",
    literal: str | None = None,
    **variables: Any,
) -> bool | None:
    truths = []
    for name in (field, f"not_{field}"):
        query = query_of(name, arguments) if literal is None else f"subscription {{ {name}{literal} }}"
        truths.append(manager.explain(query, event_of(event), variables=variables).delivered)
    assert truths != [True, True]
    return None if truths == [False, False] else truths[0]


def manager_of(
    compare: Callable[[Callable[[Any, Any], Any]], Any], arguments: str = "", **more: Any
) -> SubscriptionManager:
    conditions = {name: compare(how) for name, how in OPERATORS.items()} | more
    return SubscriptionManager(
        schema_of(arguments, **conditions, **{f"not_{name}": ~condition for name, condition in conditions.items()})
    )


@pytest.mark.parametrize("seed", range(3))
def test_arguments_compare_as_pythons_decimals(seed):
    manager = manager_of(lambda how: how(V, argument("x")), "x: Decimal", holds=W.contains(argument("x")))
    pairs = Pairs(seed)
    for _ in range(CASES):
        left, text, right, spelled = pairs.pair()
        x = json.loads(spelled)
        # A number with a fraction travels to the last digit in a document.
        given: dict[str, Any] = {"literal": f"(x: {spelled})"} if isinstance(x, float) else {"x": x}
        event = json_of(v=text, w=f"[{text}]")
        got = {name: judged(manager, name, event, "x: Decimal", **given) for name in OPERATORS}
        assert got == {name: expected(name, left, right) for name in OPERATORS}, (text, spelled)
        assert judged(manager, "holds", event, "x: Decimal", **given) is expected("eq", left, right), (text, spelled)


@pytest.mark.parametrize("seed", range(3))
def test_sides_in_decimal_compare_as_pythons_decimals(seed):
    manager = manager_of(lambda how: how(decimal(V), W), member=V.is_in(decimal(data["l"])))
    pairs = Pairs(100 + seed)
    for _ in range(CASES):
        left, text, right, spelled = pairs.pair()
        event = json_of(v=text, w=spelled, l=f"[{spelled}]")
        got = {name: judged(manager, name, event) for name in OPERATORS}
        assert got == {name: expected(name, left, right) for name in OPERATORS}, (text, spelled)
        assert judged(manager, "member", event) is expected("eq", left, right), (text, spelled)


@pytest.mark.parametrize("seed", range(2))
def test_without_a_type_numbers_are_numbers_and_text_is_text(seed):
    """The control: what compares so without any Decimal."""
    manager = manager_of(lambda how: how(V, W))
    pairs = Pairs(200 + seed)
    for _ in range(CASES):
        _, text, _, spelled = pairs.pair()
        event = json_of(v=text, w=spelled)
        left, right = (json.loads(each, parse_float=Decimal, parse_int=Decimal) for each in (text, spelled))
        alike = {type(left), type(right)} in ({Decimal}, {str})
        for name in OPERATORS:
            wanted: bool | None
            if left is None:
                wanted = None
            elif alike:
                wanted = bool(OPERATORS[name](left, right))
            else:
                wanted = {"eq": False, "ne": True}.get(name)
            assert judged(manager, name, event) is wanted, (name, text, spelled)
