"""Predicates against a model of what the contract says, slow and obvious: which subscription receives which event.

Predicates, arguments, viewers and events are generated from few values, so that many are equal and nearly equal ones
meet. Each predicate is asked as it is and negated: what is unknown is neither.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import given

from fraiseql_subs import Schema, SecurityContext, SubscriptionManager, argument, data, previous, subscription, viewer
from tests.oracle import Chooser, cases, choosers, running, tell

KEY = UUID("c0ffee00-0000-4000-8000-00000000000a")
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
ABSENT = object()


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

# ---- the model ----

Truth = bool | None


@dataclass
class Side:
    """What is compared: `null`, `ill` (typed), an `id` (text), an `instant`, a `list` of sides, or `json`."""

    kind: str
    value: Any = None


def side(value: Any, kind: str = "json") -> Side:
    if value is ABSENT or value is None:
        return Side("null")
    if kind == "json":
        return Side("json", value)
    if isinstance(value, list):
        return Side("list", [side(item, kind) for item in value])
    known = text_of(Side("json", value)) if kind == "id" else instant_of(Side("json", value))
    return Side("ill") if known is None else Side(kind, known)


def literal(value: Any) -> Side:
    if isinstance(value, list):
        items = [literal(item) for item in value]
        is_plain = all(item.kind == "json" for item in items)
        return Side("json", [item.value for item in items]) if is_plain else Side("list", items)
    if isinstance(value, UUID):
        return Side("id", str(value))
    if isinstance(value, datetime):
        return Side("instant", value)
    if isinstance(value, enum.Enum):
        return Side("json", value.name)
    return Side("json", str(value) if isinstance(value, Decimal) else value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def text_of(one: Side) -> str | None:
    """As an id."""
    if one.kind == "id" or (one.kind == "json" and isinstance(one.value, str)):
        return str(one.value)
    is_integer = one.kind == "json" and isinstance(one.value, int) and not isinstance(one.value, bool)
    return str(one.value) if is_integer else None


def instant_of(one: Side) -> datetime | None:
    if one.kind == "instant":
        instant: datetime = one.value
        return instant
    zoned = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|[+-]\d\d:\d\d)"
    if one.kind == "json" and isinstance(one.value, str) and re.fullmatch(zoned, one.value):
        return datetime.fromisoformat(one.value.replace("Z", "+00:00"))
    return None


def number(value: Any) -> Decimal:
    """A number as JSON writes it."""
    return Decimal(repr(value))


def same(left: Any, right: Any) -> bool:
    """Equality of typed JSON."""
    if is_number(left) and is_number(right):
        return number(left) == number(right)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def items(one: Side) -> list[Side] | None:
    if one.kind == "list":
        found: list[Side] = one.value
        return found
    return [side(item) for item in one.value] if one.kind == "json" and isinstance(one.value, list) else None


def known(left: Side, right: Side) -> bool:
    return not {"null", "ill"} & {left.kind, right.kind}


def texts(left: Side, right: Side) -> tuple[str, str] | None:
    """Both as text: two strings, or ids and what may be one."""
    if "id" in (left.kind, right.kind):
        a, b = text_of(left), text_of(right)
        return None if a is None or b is None else (a, b)
    is_text = all(one.kind == "json" and isinstance(one.value, str) for one in (left, right))
    return (left.value, right.value) if is_text else None


def equal(left: Side, right: Side) -> Truth:
    if not known(left, right):
        return None
    if "list" in (left.kind, right.kind):
        a, b = items(left), items(right)
        if a is None or b is None:
            return None
        if len(a) != len(b):
            return False
        each = [
            one.kind == other.kind if "null" in (one.kind, other.kind) else equal(one, other)
            for one, other in zip(a, b, strict=True)
        ]
        return False if False in each else None if None in each else True
    if "instant" in (left.kind, right.kind):
        x, y = instant_of(left), instant_of(right)
        return None if x is None or y is None else x == y
    if "id" in (left.kind, right.kind):
        both = texts(left, right)
        return None if both is None else both[0] == both[1]
    return same(left.value, right.value)


def ordered(left: Side, right: Side, holds: Callable[[Any, Any], bool]) -> Truth:
    if not known(left, right):
        return None
    if "instant" in (left.kind, right.kind):
        x, y = instant_of(left), instant_of(right)
        return None if x is None or y is None else holds(x, y)
    both = texts(left, right)
    if both:
        return holds(*both)
    if left.kind == right.kind == "json" and is_number(left.value) and is_number(right.value):
        return holds(number(left.value), number(right.value))
    return None


def member(item: Side, of: Side) -> Truth:
    """An OR of `==`."""
    found = items(of)
    if found is None:
        return None
    each = [equal(item, one) for one in found]
    return True if True in each else None if None in each else False


def contains(left: Side, right: Side) -> Truth:
    if items(left) is not None:
        return member(right, left)
    both = texts(left, right) if known(left, right) else None
    return None if both is None else both[1] in both[0]


def affixed(left: Side, right: Side, holds: Callable[[str, str], bool]) -> Truth:
    both = texts(left, right) if known(left, right) else None
    return None if both is None else holds(*both)


@dataclass
class World:
    """What a predicate is asked about."""

    data: dict[str, Any]
    previous: dict[str, Any] | None
    arguments: dict[str, Any]
    viewer: dict[str, Any]


def walk(root: Any, path: list[str]) -> Any:
    for key in path:
        if not isinstance(root, dict) or key not in root:
            return ABSENT
        root = root[key]
    return root


@dataclass
class Operand:
    """One as it is declared, and as the model sees it."""

    real: Any
    text: str
    kind: str
    find: Callable[[World], Any]
    #: Whether its absence is a null: an argument, or a field of the viewer.
    is_given: bool = False

    def side(self, world: World) -> Side:
        return literal(self.find(world)) if self.kind == "literal" else side(self.find(world), self.kind)


@dataclass
class Condition:
    """A predicate as it is declared, and as the model judges it."""

    real: Any
    text: str
    judge: Callable[[World], Truth]

    def negated(self) -> Condition:
        def judge(world: World) -> Truth:
            truth = self.judge(world)
            return None if truth is None else not truth

        return Condition(~self.real, f"~({self.text})", judge)

    def joined(self, other: Condition, is_and: bool) -> Condition:
        def judge(world: World) -> Truth:
            both = [self.judge(world), other.judge(world)]
            decides = not is_and
            return decides if decides in both else None if None in both else not decides

        real = self.real & other.real if is_and else self.real | other.real
        return Condition(real, f"({self.text} {'&' if is_and else '|'} {other.text})", judge)


# ---- predicates, subscribers and events ----

ARGUMENTS = {
    "some_id": ("ID", "id"), "ids": ("[ID]", "id"), "key": ("UUID", "id"), "at": ("DateTime", "instant"),
    "ats": ("[DateTime]", "instant"), "n": ("Int", "json"), "x": ("Float", "json"), "s": ("String", "json"),
    "b": ("Boolean", "json"), "e": ("Status", "json"), "j": ("JSON", "json"), "texts": ("[String]", "json"),
    "f": ("Filter", "json"),
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
        if ordered and isinstance(value, (bool, Decimal)):
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
            return Condition(left.real.exists(), f"{left.text}.exists()", lambda world: presence(left, world)[0])
        if how == "null":
            return Condition(left.real.is_null(), f"{left.text}.is_null()", lambda world: presence(left, world)[1])
        if how == "in" and choose.chance(30):
            right = self.operand(choose.one(["ids", "ats", "texts"]))
        else:
            is_literal = choose.chance(50)
            right = self.literal(ordered=how[0] in "<>", is_list=how == "in") if is_literal else self.operand()
        if how in ("starts", "ends") and right.kind == "literal":
            text = choose.one(TEXTS)
            right = Operand(text, repr(text), "literal", lambda _: text)
        real, judge = OPERATORS[how]
        return Condition(
            real(left.real, right.real),
            f"{left.text} {how} {right.text}",
            lambda world: judge(left.side(world), right.side(world)),
        )

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


def at(root: Any, path: list[str]) -> Any:
    for key in path:
        root = root[key]
    return root


def presence(operand: Operand, world: World) -> tuple[bool, bool]:
    """Whether it exists, whether it is null."""
    found = operand.find(world)
    if found is ABSENT or (found is None and operand.text.startswith("viewer") and operand.is_given):
        return False, operand.is_given
    return True, found is None


OPERATORS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Side, Side], Truth]]] = {
    "==": (lambda a, b: a == b, equal),
    "!=": (lambda a, b: a != b, lambda a, b: None if equal(a, b) is None else not equal(a, b)),
    "<": (lambda a, b: a < b, lambda a, b: ordered(a, b, lambda x, y: x < y)),
    "<=": (lambda a, b: a <= b, lambda a, b: ordered(a, b, lambda x, y: x <= y)),
    ">": (lambda a, b: a > b, lambda a, b: ordered(a, b, lambda x, y: x > y)),
    ">=": (lambda a, b: a >= b, lambda a, b: ordered(a, b, lambda x, y: x >= y)),
    "in": (lambda a, b: a.is_in(b), member),
    "contains": (lambda a, b: a.contains(b), contains),
    "starts": (lambda a, b: a.startswith(b), lambda a, b: affixed(a, b, str.startswith)),
    "ends": (lambda a, b: a.endswith(b), lambda a, b: affixed(a, b, str.endswith)),
}

SDL = f"""
    scalar JSON scalar DateTime scalar UUID
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


def seen(context: SecurityContext) -> dict[str, Any]:
    """A viewer's fields as predicates see them."""
    return {
        "user_id": context.user_id if context.user_id is None else str(context.user_id),
        "tenant_id": None,
        "roles": sorted(context.roles),
        "sources": None,
        "claims": thawed(context.claims),
        "expires_at": context.expires_at and context.expires_at.isoformat(),
    }


def thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: thawed(member) for key, member in value.items()}
    return [thawed(item) for item in value] if isinstance(value, tuple) else value


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
