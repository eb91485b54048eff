"""Predicates against a model of what the contract says, slow and obvious: which subscription receives which event.

Predicates, arguments, viewers and events are generated from few values, so that many are equal and nearly equal ones
meet. Each predicate is asked as it is and negated: what is unknown is neither.
"""

from __future__ import annotations

import enum
import inspect
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given

from fraiseql_subs import Schema, SecurityContext, SubscriptionManager, argument, data, previous, subscription, viewer
from tests.oracle import Chooser, cases, choosers, running, tell
from tests.predicate_model import Condition, Operand, World, at, compared, exists, is_null, seen, walk

KEY = UUID("c0ffee00-0000-4000-8000-00000000000a")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


class Status(enum.Enum):
    OPEN = "anything"


ATOMS: list[Any] = [
    None, True, False, 0, 1, -1, 42, 42.0, 1.5, -0.0, 2**53, 2**53 + 1, float(2**53), 10**30, 1e30,
    "", "a", "ab", "b", "é", "\U0001d11e", "\ufffd", "1", "42", "42.0", "OPEN", "true", str(KEY), str(KEY).upper(),
    "2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00.000001Z", "2026-01-01T12:00:00",
]  # fmt: skip
LITERALS: list[Any] = [
    *ATOMS[1:], KEY, NOON, NOON + timedelta(hours=1), NOON.astimezone(timezone(timedelta(hours=5))),
    Status.OPEN, Decimal("1.50"),
]  # fmt: skip

# ---- predicates, subscribers and events ----

ARGUMENTS = {
    "some_id": ("ID", "id"), "ids": ("[ID]", "id"), "key": ("UUID", "id"), "at": ("DateTime", "instant"),
    "ats": ("[DateTime]", "instant"), "n": ("Int", "json"), "x": ("Float", "json"), "s": ("String", "json"),
    "b": ("Boolean", "json"), "e": ("Status", "enum"), "d": ("Decimal", "decimal"), "j": ("JSON", "json"),
    "texts": ("[String]", "json"), "f": ("Filter", "json"),
}  # fmt: skip
FILTER = {"some_id": ("ID", "id"), "some_at": ("DateTime", "instant"), "n": ("Int", "json")}
TEXTS = [one for one in ATOMS if isinstance(one, str)]
INSTANTS = ["2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00.000001Z"]
VALUES: dict[str, list[Any]] = {
    "ID": TEXTS,
    "UUID": [str(KEY)],
    "DateTime": [*INSTANTS, "2026-01-01T12:00:00"],
    "Int": [0, 1, -1, 42],
    "Float": [0.0, 1.0, 42.0, 1.5],
    "String": TEXTS,
    "Boolean": [True, False],
    "Status": ["OPEN"],
    "Decimal": ["1.5", "42", "1.50", "9007199254740993"],
    "JSON": [*ATOMS[1:], [], [1, "a"], [None, 1], {"k": 1}, {"k": None}, {"k": {"l": "a"}}],
    "[ID]": [[], ["42"], ["a", None], [str(KEY), "1"]],
    "[DateTime]": [[], INSTANTS[:1], INSTANTS, [None]],
    "[String]": [[], ["a"], ["42", None], ["a", "b"]],
}
VIEWERS: dict[str, str] = {
    "user_id": "id",
    "tenant_id": "id",
    "roles": "json",
    "sources": "json",
    "expires_at": "instant",
}


def graphql(name: str) -> str:
    return {"some_id": "someId", "some_at": "someAt"}.get(name, name)


class Generator:
    """Draws from few values each time: then they meet."""

    def __init__(self, choose: Chooser) -> None:
        self.choose = choose
        self.atoms = [choose.one(ATOMS) for _ in range(6)]
        self.literals = [*(atom for atom in self.atoms if atom is not None), *(choose.one(LITERALS) for _ in range(3))]
        pick: Callable[[str], list[Any]] = lambda kind: [choose.one(VALUES[kind]) for _ in range(2)]  # noqa: E731
        self.values = {kind: pick(kind) for kind in VALUES}
        self.values["ID"] += [one for one in self.atoms if isinstance(one, str)]
        self.values["JSON"] += self.literals[: len(self.literals) - 3]

    def value(self, depth: int = 0) -> Any:
        choose = self.choose
        how = choose.integer(0, 9)
        if how < 7 or depth > 1:
            return choose.one(self.atoms)
        if how < 9:
            return [self.value(depth + 1) for _ in range(choose.integer(0, 2))]
        return {key: self.value(depth + 1) for key in choose.some(["k", "l"])}

    def image(self) -> dict[str, Any]:
        image = {key: self.value() for key in choose_some(self.choose, "abc")}
        if self.choose.chance(70):
            image["o"] = (
                {key: self.value() for key in choose_some(self.choose, "ab")} if self.choose.chance(80) else None
            )
        return image

    def operand(self, name: str = "") -> Operand:
        """Any, or an argument."""
        choose = self.choose
        how = 5 if name else choose.integer(0, 9)
        if how < 5:
            path = choose.one([["a"], ["a"], ["b"], ["c"], ["o", "a"], ["o", "b"], ["a", "k"]])
            if how < 4:
                return Operand(at(data, path), f"data{path}", "json", lambda world: walk(world.data, path))
            return Operand(at(previous, path), f"previous{path}", "json", lambda world: walk(world.previous, path))
        if how < 8:
            name = name or choose.one(list(ARGUMENTS))
            path, kind = [name], ARGUMENTS[name][1]
            if name == "f":
                path = [name, choose.one(list(FILTER))]
                kind = FILTER[path[1]][1]
            elif name == "j" and choose.chance(30):
                path = [name, "k"]
            find = lambda world: walk(world.arguments, path)  # noqa: E731
            return Operand(argument(*path), f"argument{path}", kind, find, is_given=len(path) == 1)
        name = choose.one(["user_id"] * 3 + ["claims"] * 3 + [*VIEWERS])
        path = [name, choose.one(["k", "l"])] if name == "claims" else [name]
        find = lambda world: walk(world.viewer, path)  # noqa: E731
        return Operand(viewer(*path), f"viewer{path}", VIEWERS.get(name, "json"), find, is_given=len(path) == 1)

    def literal(self, *, ordered: bool = False, is_list: bool = False) -> Operand:
        choose = self.choose
        value: Any = choose.one(self.literals)
        if ordered and isinstance(value, bool):
            value = 1
        if is_list or (not ordered and choose.chance(15)):
            value = [choose.one(self.literals) for _ in range(choose.integer(0, 3))]
        return Operand(value, repr(value), "literal", lambda _: value)

    def comparison(self) -> Condition:
        choose = self.choose
        left = self.operand()
        how = choose.one(
            ["==", "==", "==", "!=", "<", "<=", ">", ">=", "in", "in", "contains", "starts", "ends", "exists", "null"]
        )
        if how == "exists":
            return exists(left)
        if how == "null":
            return is_null(left)
        if how == "in" and choose.chance(30):
            right = self.operand(choose.one(["ids", "ats", "texts"]))
        else:
            is_literal = choose.chance(50)
            right = self.literal(ordered=how[0] in "<>", is_list=how == "in") if is_literal else self.operand()
        if how in ("starts", "ends") and right.kind == "literal":
            text = choose.one(TEXTS)
            right = Operand(text, repr(text), "literal", lambda _: text)
        return compared(how, left, right)

    def condition(self, depth: int = 0) -> Condition:
        choose = self.choose
        how = choose.integer(0, 9)
        if how < 5 or depth > 2:
            return self.comparison()
        if how < 6:
            return self.condition(depth + 1).negated()
        return self.condition(depth + 1).joined(self.condition(depth + 1), choose.chance(50))

    def arguments(self) -> dict[str, Any]:
        return self.given({name: kind for name, (kind, _) in ARGUMENTS.items()})

    def given(self, kinds: dict[str, str]) -> dict[str, Any]:
        choose = self.choose
        given: dict[str, Any] = {}
        for name, kind in kinds.items():
            if choose.chance(20):
                continue
            nested = {name: kind for name, (kind, _) in FILTER.items()}
            value = self.given(nested) if kind == "Filter" else choose.one(self.values[kind])
            given[name] = None if choose.chance(8) else value
        return given

    def viewer(self) -> SecurityContext:
        choose = self.choose
        return SecurityContext(
            user_id=choose.one([None, 42, "42", "a", KEY]),
            roles=choose.some(["a", "b", "42"]),
            claims={key: self.value() for key in choose.some(["k", "l"])},
            expires_at=choose.one([None, datetime(2096, 1, 1, tzinfo=timezone.utc)]),
        )


def choose_some(choose: Chooser, keys: str) -> list[str]:
    return choose.some(list(keys), 80)


SDL = f"""
    scalar JSON scalar DateTime scalar UUID scalar Decimal
    enum Status {{ OPEN }}
    input Filter {{ {", ".join(f"{graphql(name)}: {kind}" for name, (kind, _) in FILTER.items())} }}
    type Marked {{ n: Int }}
"""
WRITTEN = ", ".join(f"{graphql(name)}: {kind}" for name, (kind, _) in ARGUMENTS.items())


@dataclass
class Field:
    """A field of the schema with its condition."""

    name: str
    where: Condition | None
    rows: Condition | None
    event_types: list[str] | None

    def __str__(self) -> str:
        where, rows = (one.text if one else "-" for one in (self.where, self.rows))
        return f"{self.name} {self.event_types}: {where} / {rows}"

    def delivers(self, event_type: str, world: World) -> bool:
        conditions = [one for one in (self.where, self.rows) if one]
        is_of_type = self.event_types is None or event_type in self.event_types
        return is_of_type and all(one.judge(world) is True for one in conditions)

    def declared(self) -> Any:

        def field(**_: Any) -> Any:
            raise NotImplementedError

        parameters = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ARGUMENTS]
        field.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        where, rows = (one.real if one else None for one in (self.where, self.rows))
        declare = subscription(
            channel="c", name=self.name, passthrough=True, where=where, rows=rows, event_types=self.event_types
        )
        return declare(field)


def fields(generator: Generator, count: int) -> list[Field]:
    """Each condition as it is and negated; some under two names of an event, some beside another one."""
    made = []
    for index in range(count):
        condition, choose = generator.condition(), generator.choose
        for suffix, one in (("", condition), ("not", condition.negated())):
            beside = generator.condition() if choose.chance(20) else None
            where, rows = (one, beside) if choose.chance(60) else (beside, one)
            made.append(Field(f"p{index}{suffix}", where, rows, choose.one([None, None, ["x"], ["x", "y"]])))
    return made


def test_predicates_are_the_models() -> None:
    with running() as run:

        @cases(45)
        @given(choosers())
        def check(choose: Chooser) -> None:
            generator = Generator(choose)
            declared = fields(generator, 5)
            for field in declared:
                tell(str(field))
            roots = " ".join(f"{field.name}({WRITTEN}): Marked" for field in declared)
            schema = Schema.from_sdl(f"{SDL} type Subscription {{ {roots} }}", [field.declared() for field in declared])
            subscribers = [(generator.arguments(), generator.viewer()) for _ in range(3)]
            events = [
                (choose.one("xyz"), {**generator.image(), "n": n}, generator.image() if choose.chance(70) else None)
                for n in range(8)
            ]
            run(decide(SubscriptionManager(schema), declared, subscribers, events))

        check()


async def decide(
    manager: SubscriptionManager,
    declared: list[Field],
    subscribers: list[tuple[dict[str, Any], SecurityContext]],
    events: list[tuple[str, dict[str, Any], dict[str, Any] | None]],
) -> None:
    variables = ", ".join(f"${name}: {kind}" for name, (kind, _) in ARGUMENTS.items())
    passed = ", ".join(f"{graphql(name)}: ${name}" for name in ARGUMENTS)
    async with manager, AsyncExitStack() as stack:
        open_: list[Any] = []
        for given, context in subscribers:
            sent = {**given}
            if given.get("f"):
                sent["f"] = {graphql(name): value for name, value in given["f"].items()}
            for field in declared:
                query = f"subscription({variables}) {{ {field.name}({passed}) {{ n }} }}"
                stream: Any = manager.subscribe(query, variables=sent, context=context, framing="result")
                open_.append((field, given, context, await stack.enter_async_context(stream)))
        for event_type, image, old in events:
            await manager.publish_event(event_type, "c", image, previous=old)
        for field, given, context, stream in open_:
            await manager.complete_subscription(stream.id)
            got = [json.loads(message)["data"][field.name]["n"] async for message in stream]
            worlds = [(kind, World(image, old, given, seen(context))) for kind, image, old in events]
            expected = [n for n, (kind, world) in enumerate(worlds) if field.delivers(kind, world)]
            if got != expected:
                tell(f"{field.name}: {given} {seen(context)}\n{events}")
            assert got == expected, field.name
