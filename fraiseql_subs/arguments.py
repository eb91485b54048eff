"""A function as it is called: what Rust has coerced becomes what the function's annotations say.

Rust hands over plain JSON values under Python's names. `DateTime`, `Date`, `Time`, `UUID` and `Decimal` become Python's
types, an enum's name becomes its member and an input object a dataclass or pydantic model where the parameter is
annotated so; else the name stays a name and the object a dict with Python's names.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

from .errors import GraphQLError, SchemaError
from .event import Event
from .info import Info
from .records import MISSING, hints, is_record, members
from .subscription import Declaration, Kind
from .types import COLLECTIONS, is_enum, unwrap

Converter: TypeAlias = Callable[[Any], Any]


class Function:
    """A declared function with what it takes to call it.

    Attributes:
        kind: How its result comes: `"passthrough"` is never called.
        field: The GraphQL name of its field.
        name: Its qualified Python name, for logs.
    """

    __slots__ = ("_event", "_function", "_info", "_parameters", "field", "kind", "name")

    def __init__(self, declaration: Declaration, field: str, converters: Mapping[str, Converter | None]) -> None:
        self.kind: Kind = declaration.kind
        self.field = field
        self.name = declaration.qualified_name
        self._function = declaration.function
        self._event = declaration.event_parameter
        self._info = declaration.info_parameter
        self._parameters = [
            (name, converters[name], None if parameter.default is parameter.empty else parameter.default)
            for name, parameter in declaration.parameters.items()
        ]

    def call(self, event: Event | None, arguments: Mapping[str, Any], info: Info | None) -> Any:
        """Calls the function.

        Args:
            event: The event; `None` for a generator.
            arguments: The coerced arguments, plain JSON under Python's names, the omitted ones absent.
            info: For a function that takes it.

        Returns:
            What the function returns: a value, a coroutine or an async generator, by `kind`.
        """
        given: dict[str, Any] = {
            name: _convert(convert, arguments[name]) if name in arguments else absent
            for name, convert, absent in self._parameters
        }
        if self._event is not None:
            given[self._event] = event
        if self._info is not None:
            given[self._info] = info
        return self._function(**given)


class Converters:
    """Makes converters for arguments, once for each type.

    Args:
        inputs: The fields of each input type: type references by Python name.
        enums: The values of each enum type.
        local: Names for annotations that their modules do not know.
    """

    def __init__(
        self, inputs: Mapping[str, Mapping[str, str]], enums: Mapping[str, Sequence[str]], local: Mapping[str, Any]
    ) -> None:
        self._inputs = inputs
        self._enums = enums
        self.local = local
        self._made: dict[tuple[str, type | None], Converter] = {}

    def make(self, reference: str, annotation: Any, place: str) -> Converter | None:
        """The converter for a type reference, `"[Order!]!"`; `None` where values stay as they are.

        Args:
            reference: The type in the schema, which decides.
            annotation: The parameter's annotation, or `MISSING`.
            place: For error texts.
        """
        plain = unwrap(Any if annotation is MISSING else annotation)
        name = reference.removesuffix("!")
        if name.startswith("["):
            convert = self.make(name[1:-1], plain.item, place)
            collect = COLLECTIONS.get(typing.get_origin(plain.core), list)
            return None if convert is None and collect is list else _items(convert, collect)
        if name in self._inputs:
            return self._input(name, plain.core if is_record(plain.core) else None, place)
        if name in self._enums and is_enum(plain.core):
            unknown = set(self._enums[name]) - set(plain.core.__members__)
            if unknown:
                lacking = ", ".join(sorted(unknown))
                raise SchemaError(f"{place}: {plain.core.__name__} lacks {lacking} of the enum {name}")
            member: Converter = plain.core.__members__.__getitem__
            return member
        return _SCALARS.get(name)

    def below(self, arguments: Mapping[str, Mapping[str, str]]) -> dict[str, Converter]:
        """Converters of whole sets of arguments, which callables below the root are called with.

        Args:
            arguments: Type references of each field's arguments by Python name, by `Type.field`.
        """
        return {place: self._arguments(place, references) for place, references in arguments.items()}

    def _arguments(self, place: str, references: Mapping[str, str]) -> Converter:
        made = {name: self.make(reference, MISSING, place) for name, reference in references.items()}
        return lambda given: {name: _convert(made[name], value) for name, value in given.items()}

    def _input(self, name: str, record: type | None, place: str) -> Converter:
        if (name, record) in self._made:
            return self._made[name, record]
        fields: dict[str, tuple[str, Converter | None, Any]] = {}  # keyword, converter, what an absent one is

        def convert(value: Mapping[str, Any]) -> Any:
            given = {
                keyword: _convert(each, value[field]) if field in value else absent
                for field, (keyword, each, absent) in fields.items()
                if field in value or absent is not MISSING
            }
            return given if record is None else record(**given)

        self._made[name, record] = convert  # before the fields: an input type may hold itself
        annotations = {} if record is None else hints(record, self.local, name, as_input=True)
        known = {} if record is None else {member.name: member for member in members(record, as_input=True)}
        for field, reference in self._inputs[name].items():
            if record is not None and field not in known:
                raise SchemaError(f"{place}: {record.__name__} has no field {field}, which the input type {name} has")
            member = known.get(field)
            optional = member is None or member.constant is not MISSING or member.factory is not MISSING
            each = self.make(reference, annotations.get(field, MISSING), f"{name}.{field}")
            fields[field] = (member.keyword if member else field, each, MISSING if optional else None)
        return convert


def _convert(convert: Converter | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def _items(convert: Converter | None, collect: Callable[..., Any]) -> Converter:
    return lambda values: collect(_convert(convert, value) for value in values)


def _scalar(name: str, read: Callable[[str], Any]) -> Converter:
    def convert(value: Any) -> Any:
        try:
            return read(str(value))
        except (ValueError, ArithmeticError):
            code = {"code": "BAD_USER_INPUT"}
            raise GraphQLError(f"{name} cannot represent value: {value!r}", extensions=code) from None

    return convert


def _iso(text: str) -> str:
    """ISO 8601 as CPython 3.10 reads it: no `Z`, and six digits of a second's fraction."""
    text = re.sub("[zZ]$", "+00:00", text)
    return re.sub(r"\.(\d+)", lambda match: f".{match[1][:6]:0<6}", text)


_SCALARS: Mapping[str, Converter] = {
    "Float": float,
    "DateTime": _scalar("DateTime", lambda text: datetime.fromisoformat(_iso(text))),
    "Date": _scalar("Date", date.fromisoformat),
    "Time": _scalar("Time", lambda text: time.fromisoformat(_iso(text))),
    "UUID": _scalar("UUID", UUID),
    "Decimal": _scalar("Decimal", Decimal),
}
