"""Predicates as values: `data["id"] == argument("order_id")` builds an expression that Rust compiles and evaluates.

Nothing here is evaluated in Python. What could only be a mistake raises where it is written.
"""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, TypeVar, cast
from uuid import UUID

from .errors import SchemaError
from .text import checked

LiteralValue: TypeAlias = "str | int | float | bool | Decimal | UUID | Enum | datetime"
"""What may stand for a constant: an aware datetime is an instant, an enum's member its name, a Decimal a number."""

Wire: TypeAlias = "tuple[Any, ...]"

METHODS = ("is_in", "contains", "startswith", "endswith", "exists", "is_null")

VIEWER_FIELDS = ("user_id", "tenant_id", "roles", "permissions", "sources", "claims", "expires_at")


class Predicate:
    """A condition on an event; `&`, `|` and `~` combine conditions.

    Logic is SQL's: a comparison with a missing, null or ill-typed side is unknown, and only true matches.
    """

    __slots__ = ("_arguments", "_wire")

    def __init__(self, wire: Wire, arguments: frozenset[str]) -> None:
        self._wire = wire  # what Rust reads
        self._arguments = arguments  # the names that `argument(...)` was given

    def __and__(self, other: Predicate) -> Predicate:
        return self._join("&", other)

    def __or__(self, other: Predicate) -> Predicate:
        return self._join("|", other)

    def __rand__(self, other: object) -> NoReturn:
        self._join("&", other)
        raise AssertionError  # `other` is no predicate, or its own operator had been asked

    def __ror__(self, other: object) -> NoReturn:
        self._join("|", other)
        raise AssertionError

    def __invert__(self) -> Predicate:
        return Predicate(("~", self._wire), self._arguments)

    def __bool__(self) -> NoReturn:
        raise SchemaError(
            "a predicate is no bool: join with & | ~ and parentheses, not with and, or, not, in, a < b < c"
        )

    def __eq__(self, other: object) -> NoReturn:
        raise SchemaError("a predicate cannot be compared: put parentheses around each comparison that & or | joins")

    __ne__ = __eq__
    __hash__ = None  # type: ignore[assignment]  # what cannot be compared cannot be hashed

    def __repr__(self) -> str:
        return f"<Predicate {json.dumps(self._wire)}>"

    def _join(self, symbol: str, other: object) -> Predicate:
        if not isinstance(other, Predicate):
            raise SchemaError(
                f"{symbol} joins two predicates, got {_named(other)}: "
                f'compare it, as in (data["a"] == 1) {symbol} (data["b"] == True)'
            )
        return Predicate((symbol, self._wire, other._wire), self._arguments | other._arguments)


class Operand:
    """One side of a comparison: a value of the event, an argument, or a field of the viewer.

    Compared with `== != < <= > >=` to another operand or a literal it gives a `Predicate`; so do its methods.
    """

    __slots__ = ("_head", "_is_decimal", "_path")

    def __init__(self, head: tuple[str, ...], path: tuple[str, ...] = (), *, is_decimal: bool = False) -> None:
        self._head = head
        self._path = path
        self._is_decimal = is_decimal

    def __getitem__(self, key: str) -> Operand:
        if self._is_decimal:
            raise SchemaError(f"{self!r}: a path goes inside the parentheses of decimal")
        if self._head[0] == "viewer":
            _check_viewer_path(self._head[1], key)
        return Operand(self._head, (*self._path, _key(key, repr(self))))

    def is_in(self, values: Operand | Iterable[LiteralValue]) -> Predicate:
        """True where this equals one of `values`, a literal list or an operand; an empty list is false."""
        if not isinstance(values, Operand):
            if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
                raise SchemaError(f"is_in takes one list, got {_named(values)}")
            values = list(values)
        return self._with("is_in", values)

    def contains(self, item: Operand | LiteralValue) -> Predicate:
        """True where this is a list with this item, or a string with this part."""
        return self._with("contains", item)

    def startswith(self, prefix: Operand | str) -> Predicate:
        """True where this is a string that begins so."""
        return self._with("startswith", prefix)

    def endswith(self, suffix: Operand | str) -> Predicate:
        """True where this is a string that ends so."""
        return self._with("endswith", suffix)

    def exists(self) -> Predicate:
        """True where this is present, be it null; never unknown. Omitted arguments and a viewer's `None` are absent."""
        return self._alone("exists")

    def is_null(self) -> Predicate:
        """True where this is present and null, an omitted argument or a viewer's `None`; never unknown."""
        return self._alone("is_null")

    def __eq__(self, other: Operand | LiteralValue) -> Predicate:  # type: ignore[override]  # a comparison is a value here
        return self._with("==", other)

    def __ne__(self, other: Operand | LiteralValue) -> Predicate:  # type: ignore[override]  # a comparison is a value here
        return self._with("!=", other)

    def __lt__(self, other: Operand | LiteralValue) -> Predicate:
        return self._with("<", other)

    def __le__(self, other: Operand | LiteralValue) -> Predicate:
        return self._with("<=", other)

    def __gt__(self, other: Operand | LiteralValue) -> Predicate:
        return self._with(">", other)

    def __ge__(self, other: Operand | LiteralValue) -> Predicate:
        return self._with(">=", other)

    __hash__ = None  # type: ignore[assignment]  # equality is no bool here

    def __bool__(self) -> NoReturn:
        raise SchemaError(f"{self!r} is not a bool: compare it, as in {self!r} == True, and join with & | ~")

    def __and__(self, other: object) -> NoReturn:
        self.__invert__()

    __or__ = __rand__ = __ror__ = __and__

    def __invert__(self) -> NoReturn:
        raise SchemaError(
            f"& | ~ join comparisons, and {self!r} is none: put parentheses around each, or compare it with True"
        )

    def __iter__(self) -> NoReturn:
        raise SchemaError(f"{self!r} cannot be iterated: its value is known when an event comes")

    def __contains__(self, item: object) -> NoReturn:
        raise SchemaError(f"`in` gives a bool: write {self!r}.contains(...), or .is_in(...) on the item")

    if not TYPE_CHECKING:  # a type checker knows that there is no such attribute

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            raise _no_attribute(repr(self), name, lambda: self[name], "; its methods are " + ", ".join(METHODS))

    def __repr__(self) -> str:
        if self._head[0] in ("argument", "viewer"):
            text = f"{self._head[0]}({', '.join(map(repr, (*self._head[1:], *self._path)))})"
        else:
            text = self._head[0] + "".join(f"[{key!r}]" for key in self._path)
        return f"decimal({text})" if self._is_decimal else text

    def _alone(self, symbol: str) -> Predicate:
        wire, arguments = _operand(self, symbol)
        return Predicate((symbol, wire), arguments)

    def _with(self, symbol: str, other: object) -> Predicate:
        left, left_arguments = _operand(self, symbol)
        right, right_arguments = _operand(other, symbol)
        return Predicate((symbol, left, right), left_arguments | right_arguments)


data: Final = Operand(("data",))
"""The event's own keys: `data["customer"]["id"]`."""

previous: Final = Operand(("previous",))
"""The event's old image, where it has one: `previous["status"]`."""


Function = TypeVar("Function", bound=Callable[..., Operand])


class _Advising:
    """A function that answers `viewer.user_id` and `viewer["user_id"]` with how it is written."""

    __name__: str

    def __init__(self, function: Callable[..., Operand]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Operand:
        return self._function(*args, **kwargs)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise _no_attribute(self.__name__, name, lambda: self(name))

    def __getitem__(self, key: str) -> NoReturn:
        raise TypeError(f"{self.__name__} is called, as in {self(key)!r}")

    def __repr__(self) -> str:
        return f"<function {self.__name__}>"

    def __reduce__(self) -> str:
        return self.__name__  # it is found by its name, as any function


def _advising(function: Function) -> Function:
    return cast("Function", _Advising(function))


def _no_attribute(owner: str, name: str, operand: Callable[[], Operand], more: str = "") -> AttributeError:
    """The error of `data.owner_id`: what to write in its place."""
    try:
        advice = f"write {operand()!r}"
    except SchemaError as error:
        advice = str(error)
    return AttributeError(f"{owner} has no attribute {name}: {advice}{more}")


def decimal(operand: Operand) -> Operand:
    """The same operand, compared as an exact number: JSON numbers and numeric text alike.

    You need it where neither side has a type, as in `decimal(data["limit"]) > data["spent"]`. A `Decimal` literal,
    argument or claim has one. What is no number makes the comparison unknown.

    Args:
        operand: A value of the event, an argument or a field of the viewer.

    Raises:
        SchemaError: It is no operand.
    """
    if not isinstance(operand, Operand):
        raise SchemaError(f'decimal takes an operand, as in decimal(data["total"]), got {_named(operand)}')
    _check_key(operand)
    return Operand(operand._head, operand._path, is_decimal=True)


@_advising
def argument(name: str, *path: str) -> Operand:
    """A coerced argument of the field, or what lies below it in an input object; names are Python's."""
    operand = Operand(("argument", _key(name, "argument")))
    return functools.reduce(operator.getitem, path, operand)


@_advising
def viewer(name: str, *path: str) -> Operand:
    """A field of the viewer's `SecurityContext`: `viewer("user_id")`, `viewer("claims", "org")`."""
    if name not in VIEWER_FIELDS:
        raise SchemaError(f"viewer({name!r}): a SecurityContext has {', '.join(VIEWER_FIELDS)}")
    operand = Operand(("viewer", name))
    return functools.reduce(operator.getitem, path, operand)


def _operand(value: object, symbol: str) -> tuple[Wire, frozenset[str]]:
    """One side of `symbol` as Rust reads it, and the argument that it names."""
    if isinstance(value, Operand):
        _check_key(value)
        arguments = frozenset(value._head[1:]) if value._head[0] == "argument" else frozenset()
        if value._is_decimal and symbol in ("startswith", "endswith"):
            raise SchemaError(f"{symbol} asks a text, and {value!r} is a number")
        wire = (*value._head, value._path)
        is_compared = value._is_decimal and symbol not in ("exists", "is_null")
        return ("decimal", wire) if is_compared else wire, arguments
    if symbol in ("<", "<=", ">", ">=") and isinstance(value, (bool, list, tuple, set, frozenset)):
        raise SchemaError(f"{symbol}: only numbers, strings and instants have an order, got {_named(value)}")
    if symbol in ("startswith", "endswith") and not (isinstance(value, str) and not isinstance(value, Enum)):
        raise SchemaError(f"{symbol} takes a string or an operand, got {_named(value)}")
    return _literal(value, symbol), frozenset()


def _literal(value: object, symbol: str) -> Wire:
    if isinstance(value, (list, tuple)):
        return ("list", tuple(_literal(item, symbol) for item in value))
    if isinstance(value, (set, frozenset)):
        return ("list", tuple(sorted((_literal(item, symbol) for item in value), key=json.dumps)))
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise SchemaError(f"{symbol}: a datetime needs a time zone, got {value!r}")
        return ("datetime", value.isoformat())
    if isinstance(value, UUID):
        return ("id", str(value))
    if isinstance(value, Decimal) and not isinstance(value, Enum):
        if not value.is_finite():
            raise SchemaError(f"{symbol}: expected a finite number, got {value}")
        return ("number", str(value))
    return ("literal", _scalar(value, symbol))


def _scalar(value: object, symbol: str) -> Any:
    """A constant as plain JSON, converted as `publish_event` converts."""
    if value is None:
        raise SchemaError(f"{symbol}: a comparison with None never matches: use .is_null() or .exists()")
    if isinstance(value, Predicate):
        raise SchemaError(f"{symbol}: got a predicate: put parentheses around each comparison that & or | joins")
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str):
        return checked(value, symbol)
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SchemaError(f"{symbol}: expected a finite number, got {value}")
        return value
    raise SchemaError(
        f"{symbol}: {_named(value)} is no literal; expected a str, int, float, bool, Decimal, UUID, Enum, "
        "an aware datetime, or a list of them"
    )


def _key(key: object, place: str) -> str:
    if not isinstance(key, str):
        raise SchemaError(f"{place}: a path is made of str keys, got {_named(key)}")
    return checked(key, place)


def _check_key(operand: Operand) -> None:
    if operand._head[0] in ("data", "previous") and not operand._path:
        raise SchemaError(f'{operand!r} needs a key, as in {operand!r}["id"]')


def _check_viewer_path(name: str, key: str) -> None:
    if name != "claims":
        raise SchemaError(f"viewer({name!r}, {key!r}): only claims have a path below")


def _named(value: object) -> str:
    return f"{value!r}, a {type(value).__name__}"
