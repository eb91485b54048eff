"""What the documentation says of predicates, slow and obvious; the oracle tests compare with it."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from fraiseql_subs import SecurityContext

ABSENT = object()
Truth = bool | None


@dataclass
class Side:
    """What is compared: `null`, `ill` (typed), an `id`, `enum`, `instant` or `decimal`, a `list` or `json`."""

    kind: str
    value: Any = None


def side(value: Any, kind: str = "json") -> Side:
    if value is ABSENT or value is None:
        return Side("null")
    if kind == "json":
        return Side("json", value)
    if isinstance(value, list):
        return Side("list", [side(item, kind) for item in value])
    known = READ[kind](Side("json", value))
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
    return Side("decimal" if isinstance(value, Decimal) else "json", value)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def text_of(one: Side) -> str | None:
    """As an id."""
    if one.kind == "id" or name_of(one) is not None:
        return str(one.value)
    is_integer = one.kind == "json" and isinstance(one.value, int) and not isinstance(one.value, bool)
    return str(one.value) if is_integer else None


def name_of(one: Side) -> str | None:
    """As an enum's name."""
    return one.value if one.kind == "enum" or (one.kind == "json" and isinstance(one.value, str)) else None


def decimal_of(one: Side) -> Decimal | None:
    if one.kind == "decimal":
        known: Decimal = one.value
        return known
    if one.kind == "json" and is_number(one.value):
        return number(one.value)
    text = name_of(one) if one.kind == "json" else None
    return Decimal(text) if text is not None and re.fullmatch(r"[+-]?\d+(\.\d+)?", text, re.ASCII) else None


def instant_of(one: Side) -> datetime | None:
    if one.kind == "instant":
        instant: datetime = one.value
        return instant
    zoned = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?(Z|[+-]\d\d:\d\d)"
    if one.kind == "json" and isinstance(one.value, str) and re.fullmatch(zoned, one.value):
        return datetime.fromisoformat(one.value.replace("Z", "+00:00"))
    return None


READ: dict[str, Callable[[Side], Any]] = {
    "id": text_of,
    "enum": name_of,
    "instant": instant_of,
    "decimal": decimal_of,
}


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
    """Both as text: two strings or names, or ids and what may be one."""
    if "id" in (left.kind, right.kind):
        a, b = text_of(left), text_of(right)
        return None if a is None or b is None else (a, b)
    a, b = name_of(left), name_of(right)
    return None if a is None or b is None else (a, b)


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
    for kind in ("decimal", "instant", "id", "enum"):
        if kind in (left.kind, right.kind):
            x, y = READ[kind](left), READ[kind](right)
            return None if x is None or y is None else bool(x == y)
    return same(left.value, right.value)


def ordered(left: Side, right: Side, holds: Callable[[Any, Any], bool]) -> Truth:
    if not known(left, right):
        return None
    for kind in ("decimal", "instant", "id"):
        if kind in (left.kind, right.kind):
            x, y = READ[kind](left), READ[kind](right)
            return None if x is None or y is None else holds(x, y)
    both = texts(left, right)
    if both and "enum" not in (left.kind, right.kind):
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
    #: Whether its absence is a null: a field of the viewer; what an argument does not have is null at any depth.
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


def at(root: Any, path: list[str]) -> Any:
    for key in path:
        root = root[key]
    return root


def presence(operand: Operand, world: World) -> tuple[bool, bool]:
    """Whether it exists, whether it is null."""
    found = operand.find(world)
    if found is ABSENT and operand.text.startswith("argument"):
        return False, True
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


def compared(how: str, left: Operand, right: Operand) -> Condition:
    """`how` is a key of `OPERATORS`."""
    real, judge = OPERATORS[how]
    return Condition(
        real(left.real, right.real),
        f"{left.text} {how} {right.text}",
        lambda world: judge(left.side(world), right.side(world)),
    )


def exists(operand: Operand) -> Condition:
    return Condition(operand.real.exists(), f"{operand.text}.exists()", lambda world: presence(operand, world)[0])


def is_null(operand: Operand) -> Condition:
    return Condition(operand.real.is_null(), f"{operand.text}.is_null()", lambda world: presence(operand, world)[1])


def seen(context: SecurityContext) -> dict[str, Any]:
    """A viewer's fields as predicates see them."""
    return {
        "user_id": None if context.user_id is None else str(context.user_id),
        "tenant_id": None if context.tenant_id is None else str(context.tenant_id),
        "roles": sorted(context.roles),
        "permissions": sorted(context.permissions),
        "sources": None if context.sources is None else sorted(context.sources),
        "claims": thawed(context.claims),
        "expires_at": context.expires_at and context.expires_at.isoformat(),
    }


def thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: thawed(member) for key, member in value.items()}
    return [thawed(item) for item in value] if isinstance(value, tuple) else value
