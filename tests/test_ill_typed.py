"""A comparison of two types that have nothing in common: counted once for each event and field, and in the log once."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from fraiseql_subs import Event, SecurityContext, SubscriptionManager, argument, data, previous, viewer

from .judging import query_of, schema_of
from .support import take

V: Any = data["v"]
VIEWER = SecurityContext(user_id="7")


@dataclass
class Ill:
    """A condition with its argument, a value that matches, and values that are ill-typed."""

    condition: Callable[[], Any]
    good: Any
    ill: list[Any]
    arguments: str = ""
    given: Any = None
    option: str = "where"
    types: str = "."


TEXT, NUMBER = "(?i:text|str)", "(?i:number|int|float)"
ILL = {
    "text against a number": Ill(
        lambda: argument("x") <= V, 12, ["12", "ten"], "x: Int", 10, types=f"{TEXT}.*{NUMBER}|{NUMBER}.*{TEXT}"
    ),
    "text against a literal": Ill(lambda: V < 10, 9, ["9", True], types=f"{TEXT}.*{NUMBER}|{NUMBER}.*{TEXT}"),
    "a number against text": Ill(lambda: V < "b", "a", [1, True], types=f"{TEXT}.*{NUMBER}|{NUMBER}.*{TEXT}"),
    "a timestamp without zone, in an order": Ill(
        lambda: argument("x") <= V, "2026-01-01T12:00:00Z", ["2026-01-01T12:00:00", "soon", 1767268800],
        "x: DateTime", "2026-01-01T12:00:00Z", types="(?i:date.?time|instant|zone)",
    ),
    "a timestamp without zone, equal": Ill(
        lambda: argument("x") == V, "2026-01-01T13:00:00+01:00", ["2026-01-01T12:00:00", "soon", 1767268800],
        "x: DateTime", "2026-01-01T12:00:00Z", types="(?i:date.?time|instant|zone)",
    ),
    "a timestamp without zone, in a list": Ill(
        lambda: V.is_in(argument("x")), "2026-01-01T13:00:00+01:00", ["2026-01-01T12:00:00"],
        "x: [DateTime!]", ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z"],
    ),
    "no id": Ill(lambda: argument("x") == V, 42, [42.5, True, [42]], "x: ID", 42),
    "no id, as rows": Ill(lambda: viewer("user_id") == V, 7, [7.5, True, {"id": 7}], option="rows"),
    "no id, negated": Ill(lambda: argument("x") != V, 41, [42.5, True], "x: ID", 42),
    "no number against a Decimal": Ill(lambda: argument("x") == V, "9.50", ["ten", True], "x: Decimal", "9.5"),
    "a part of a number": Ill(lambda: V.contains("a"), "ab", [5, True]),
    "the beginning of a number": Ill(lambda: V.startswith("a"), "ab", [5, True]),
    "a list that is none": Ill(lambda: data["w"].is_in(V), ["w"], ["w", 5]),
    "two places of the event": Ill(lambda: data["n"] < V, 2, ["2", True]),
    "beside what is known": Ill(lambda: (data["n"] == 1) & (V > 1), 2, ["2"]),
}  # fmt: skip


@pytest.mark.parametrize("what", ILL)
async def test_an_ill_typed_side_counts_and_is_logged_once(what, told, caplog):
    case = ILL[what]
    schema = schema_of(case.arguments, judged={case.option: case.condition()}, other=data["n"] == 1)
    manager = SubscriptionManager(schema)
    caplog.clear()  # what is told when it is built is not asked here
    query, variables = query_of("judged", case.arguments), {"x": case.given} if case.arguments else None

    def counted() -> int:
        count: int = manager.get_metrics()["events_ill_typed"].get("judged", 0)
        return count

    async def publish(**event: Any) -> None:
        await manager.publish_event("e", "c", {"n": 1, "w": "w", **event})

    async with (
        manager,
        manager.subscribe(query, variables=variables, context=VIEWER, framing="result") as stream,
        manager.subscribe("subscription { other }", framing="result"),
    ):
        await publish(v=case.good)
        assert await take(stream) == [{"data": {"judged": {"n": 1, "w": "w", "v": case.good}}}]
        await publish(v=None)  # what is null or missing is unknown as well, and may be meant
        await publish()
        assert (counted(), told("judged")) == (0, [])
        for _ in range(2):
            for value in case.ill:
                await publish(v=value)
        assert counted() == 2 * len(case.ill)
        assert manager.get_metrics()["events_ill_typed"].get("other", 0) == 0
        assert f'fraiseql_subs_events_ill_typed_total{{field="judged"}} {counted()}' in manager.prometheus()
        [line] = told("judged", level=logging.WARNING)
        assert re.search(r"data\[.v.\]", line)
        assert re.search(case.types, line), line
        await publish(v=case.good)
        assert len(await take(stream)) == 1
        assert counted() == 2 * len(case.ill)


async def test_each_field_and_path_is_told_by_itself(told):
    schema = schema_of(one=(V > 1) | (data["w"] > 1), two=V > 1)
    async with (
        SubscriptionManager(schema) as manager,
        manager.subscribe("subscription { one }"),
        manager.subscribe("subscription { two }"),
    ):
        for _ in range(3):
            await manager.publish_event("e", "c", {"v": "2", "w": "2"})
        assert len(told("one", level=logging.WARNING)) == 2
        assert len(told("two", level=logging.WARNING)) == 1
        assert set(manager.get_metrics()["events_ill_typed"]) >= {"one", "two"}
        assert manager.get_metrics()["events_ill_typed"]["two"] == 3


async def test_the_old_image_is_told_too(told):
    async with (
        SubscriptionManager(schema_of(judged=previous["v"] > 1)) as manager,
        manager.subscribe("subscription { judged }", framing="result") as stream,
    ):
        await manager.publish_event("e", "c", {"n": 0})
        assert manager.get_metrics()["events_ill_typed"].get("judged", 0) == 0
        await manager.publish_event("e", "c", {"n": 1}, previous={"v": "2"})
        await manager.publish_event("e", "c", {"n": 2}, previous={"v": 2})
        assert await take(stream) == [{"data": {"judged": {"n": 2}}}]
        assert manager.get_metrics()["events_ill_typed"]["judged"] == 1
        assert len(told("judged", "previous", level=logging.WARNING)) == 1


async def test_a_dry_run_counts_nothing(told):
    manager = SubscriptionManager(schema_of(judged=V > 1))
    async with manager:
        assert manager.explain("subscription { judged }", Event("e", "c", {"v": "2"})).stage == "where"
        assert manager.get_metrics()["events_ill_typed"].get("judged", 0) == 0
        assert told("judged") == []
