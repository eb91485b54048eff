"""Numbers of JSON against Python's `decimal`: what arrives where, and how two of them compare without any type."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fraiseql_subs import JSON, Event, Schema, SecurityContext, SubscriptionManager, data, subscription

from .judging import event_of, json_of, query_of, schema_of
from .oracle import cases, running
from .support import soon

EXACT = Context(prec=200)

FEW = st.integers(-20, 20).map(Decimal)
FLOATS = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: Decimal(repr(number)))


def scaled(digits: int, lowest: int, highest: int) -> st.SearchStrategy[Decimal]:
    numbers, places = st.integers(-digits, digits), st.integers(lowest, highest)
    return st.builds(lambda number, places: Decimal(number).scaleb(places, EXACT), numbers, places)


NUMBER = st.one_of(FEW, FLOATS, scaled(10**25, -30, 8), scaled(99, -420, 420))
STEP = st.sampled_from([Decimal(0), Decimal(0), Decimal(1), Decimal(-1)])


@st.composite
def pairs(draw: Callable[[st.SearchStrategy[Any]], Any]) -> tuple[str, str]:
    """Two numbers as JSON writes them: often equal, often different in the last place."""
    one = draw(NUMBER)
    near = EXACT.add(one, draw(STEP).scaleb(int(one.as_tuple().exponent)))
    return draw(spelled(one)), draw(spelled(near if draw(st.booleans()) else draw(NUMBER)))


def spelled(number: Decimal) -> st.SearchStrategy[str]:
    texts = [str(number), f"{number:e}", f"{number:E}"]
    if -30 < number.adjusted() < 30:
        plain = f"{number:f}"
        texts += [plain, plain + ("000" if "." in plain else ".000")]
    return st.sampled_from([text for text in texts if Decimal(text) == number])


def in_python(text: str) -> Any:
    """An integer; a float where its shortest text has the same value; else a Decimal."""
    if not set(text) & set(".eE"):
        return int(text)
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else Decimal(text)


@dataclass
class Holder:
    body: JSON
    exact: Decimal
    approximate: float


SEEN: list[Any] = []


@subscription(channel="c", passthrough=True)
def raw() -> Holder:
    raise NotImplementedError


@subscription(channel="c")
async def seen(event: Event) -> Holder:
    SEEN.append(event.data["body"])
    number = event.data["body"]
    return Holder(body=number, exact=number, approximate=number)


SCHEMA = Schema([raw, seen])
SELECTED = "{ body exact approximate }"


def test_a_number_keeps_its_value_from_publishing_to_the_client():
    @cases(200)
    @given(st.lists(NUMBER.flatmap(spelled), min_size=1, max_size=5))
    def check(texts: list[str]) -> None:
        run(ask(texts))

    async def ask(texts: list[str]) -> None:
        async with (
            SubscriptionManager(SCHEMA) as manager,
            manager.subscribe(f"subscription {{ raw {SELECTED} }}", framing="result") as native,
            manager.subscribe(f"subscription {{ seen {SELECTED} }}", framing="result") as function,
        ):
            for text in texts:
                await manager.publish_event("e", "c", f'{{"body":{text},"exact":{text},"approximate":{text}}}')
                for stream in (native, function):
                    message = json.loads(await soon(anext(stream)), parse_float=Decimal, parse_int=Decimal)
                    if message["data"] is None:  # a Float is finite
                        assert not math.isfinite(float(text))
                    else:
                        [result] = message["data"].values()
                        assert [Decimal(value) for value in result.values()] == [Decimal(text)] * 3, text
                value = SEEN.pop()
                assert (type(value), value) == (type(in_python(text)), in_python(text)), text

    with running() as run:
        check()


V, W = data["v"], data["w"]
OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
COMPARED = SubscriptionManager(schema_of(**{name: compare(V, W) for name, compare in OPERATORS.items()}))
LISTED = SubscriptionManager(schema_of(held=V.is_in(W), same=V == W))


@cases(500)
@given(pairs())
def test_two_numbers_of_an_event_compare_as_pythons_decimals(pair: tuple[str, str]) -> None:
    left, right = pair
    for name, compare in OPERATORS.items():
        found = COMPARED.explain(query_of(name), event_of(json_of(v=left, w=right))).delivered
        assert found is bool(compare(Decimal(left), Decimal(right))), (name, left, right)
    # The same inside lists and objects.
    for name, event in {
        "held": json_of(v=left, w=f"[{right}]"),
        "same": json_of(v=f'[{{"x": {left}}}]', w=f'[{{"x": {right}}}]'),
    }.items():
        found = LISTED.explain(query_of(name), event_of(event)).delivered
        assert found is (Decimal(left) == Decimal(right)), (name, left, right)


@cases(500)
@given(pairs())
def test_numbers_of_claims_are_equal_as_pythons_decimals(pair: tuple[str, str]) -> None:
    left, right = (
        [SecurityContext(claims={"x": value}) for value in (Decimal(text), in_python(text))] for text in pair
    )
    for one in left:
        for other in right:
            assert (one == other) is (Decimal(pair[0]) == Decimal(pair[1])), pair
