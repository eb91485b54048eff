"""Python annotations as GraphQL types: how each maps, and how a code-first schema's types are written as SDL.

Dataclasses, `TypedDict`s and pydantic models are object types, or input types where an argument leads to them; never
both. Fields are inherited in Python's way; that makes no GraphQL interface, which only `Schema.from_sdl` has. `A | B`
of object types is a union called `AB`, and `Page[Order]` is `OrderPage`.
"""

from __future__ import annotations

import collections
import collections.abc as abc
import dataclasses
import enum
import functools
import inspect
import json
import math
import operator
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, NewType, TypeAlias
from uuid import UUID

from .errors import SchemaError
from .records import MISSING, generic, hints, is_record, key_form, members
from .security import Requirement, requires, requires_any
from .text import checked

ID = NewType("ID", str)
"""GraphQL's `ID`: text, also where a client sends an integer."""


@dataclasses.dataclass(frozen=True)
class ScalarName:
    """Marks an annotation as the scalar of this name."""

    name: str


JSON: TypeAlias = Annotated[Any, ScalarName("JSON")]
"""The scalar `JSON`: any value."""

SCALARS: Mapping[Any, str] = types.MappingProxyType(
    {
        ID: "ID", int: "Int", float: "Float", str: "String", bool: "Boolean", datetime: "DateTime", date: "Date",
        time: "Time", UUID: "UUID", Decimal: "Decimal",
    }
)  # fmt: skip
SPECIFIED_SCALARS = ("ID", "Int", "Float", "String", "Boolean")

COLLECTIONS: Mapping[Any, Callable[[Iterable[Any]], Any]] = types.MappingProxyType(
    {
        **dict.fromkeys((list, abc.Iterable, abc.Collection, abc.Sequence, abc.MutableSequence), list),
        **dict.fromkeys((set, abc.MutableSet, abc.Set), set),
        tuple: tuple,
        frozenset: frozenset,
        collections.deque: collections.deque,
    }
)
"""What lists are in Python, and how an argument becomes one."""

_LIBRARIES = ("strawberry", "graphene", "ariadne", "graphql")
_JSON_FORMATS = {"date-time": "DateTime", "date": "Date", "time": "Time", "uuid": "UUID"}
_JSON_TYPES = {"string": "String", "integer": "Int", "number": "Float", "boolean": "Boolean"}
_RESERVED = ("Query", "Mutation", "Subscription", "JSON", *SCALARS.values())
_EXPECTED = (
    "int, float, str, bool, ID, JSON, datetime, date, time, UUID, Decimal, an Enum, a dataclass, a TypedDict, "
    "a pydantic model, a list of one of these, or `| None`"
)


@dataclasses.dataclass(frozen=True)
class Annotation:
    """An annotation without its wrapping.

    Attributes:
        core: What is left of it: a class, a generic alias, a union, or a `ScalarName`.
        nullable: Whether `None` is allowed.
        guard: What `requires(...)` within it ask for, all of them.
    """

    core: Any
    nullable: bool
    guard: Requirement | None

    @property
    def alternatives(self) -> tuple[Any, ...]:
        """The members of a union, without `None`."""
        members = typing.get_args(self.core) if _is_union(self.core) else ()
        return tuple(member for member in members if member is not types.NoneType)

    @property
    def item(self) -> Any:
        """The items' annotation where this is a list, else `MISSING`."""
        arguments = [one for one in typing.get_args(self.core) if one is not Ellipsis]
        is_list = typing.get_origin(self.core) in COLLECTIONS and len(set(map(repr, arguments))) == 1
        return arguments[0] if is_list else MISSING


def scalar_name(core: Any) -> str | None:
    """The scalar that an annotation without its wrapping means."""
    if isinstance(core, ScalarName):
        return core.name
    return SCALARS.get(core) if isinstance(core, abc.Hashable) else None


def unwrap(annotation: Any) -> Annotation:
    """Takes `Annotated`, `| None`, aliases, `NewType` and what `TypedDict`s say of their keys off an annotation."""
    nullable = False
    guard: Requirement | None = None
    while True:
        if typing.get_origin(annotation) is Annotated:
            annotation, *marks = typing.get_args(annotation)
            for mark in marks:
                if mark in (requires, requires_any):
                    raise SchemaError(f"{mark.__name__} in Annotated needs its permissions: {mark.__name__}(...)")
                if isinstance(mark, Requirement):
                    guard = mark if guard is None else guard & mark
            annotation = next((mark for mark in marks if isinstance(mark, ScalarName)), annotation)
        elif _is_union(annotation) and types.NoneType in typing.get_args(annotation):
            nullable = True
            members = (member for member in typing.get_args(annotation) if member is not types.NoneType)
            annotation = functools.reduce(operator.or_, members)
        elif key_form(annotation) is not None:
            nullable = nullable or key_form(annotation) == "NotRequired"
            [annotation] = typing.get_args(annotation)
        elif isinstance(annotation, NewType) and annotation is not ID and library(annotation) is None:
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # of `type X = ...`, from CPython 3.12 on
            annotation = annotation.__value__
        else:
            return Annotation(annotation, nullable, guard)


def graphql_name(python_name: str, place: str) -> str:
    """The camelCase of a Python name."""
    first, *rest = python_name.rstrip("_").split("_")
    return check_name(first + "".join(part[:1].upper() + part[1:] for part in rest), place, python_name)


def check_name(name: str, place: str, python_name: str | None = None) -> str:
    """Returns a name that GraphQL allows and does not keep for itself."""
    if not re.fullmatch("[A-Za-z][_0-9A-Za-z]*", name) or (python_name or name).startswith("_"):
        got = python_name or name
        raise SchemaError(f"{place}: {got!r} is no GraphQL name here; expected letters, digits and _, a letter first")
    return name


def library(annotation: Any) -> str | None:
    """The other GraphQL library that a class or an object belongs to."""
    owner = generic(annotation)[0]
    owner = owner if isinstance(owner, (type, NewType)) else type(owner)
    if hasattr(owner, "__strawberry_definition__"):
        return "strawberry"
    modules = (str(getattr(base, "__module__", "")) for base in getattr(owner, "__mro__", (owner,)))
    roots = (module.partition(".")[0] for module in modules)
    return next((root for root in roots if root in _LIBRARIES), None)


def check_own(annotation: Any, place: str) -> None:
    """Raises for a type of another GraphQL library: what it says about fields and permissions is nothing to us."""
    name = library(annotation)
    if name is not None:
        got = getattr(annotation, "__name__", repr(annotation))
        printed = "str(schema)" if name in ("strawberry", "graphene") else "graphql.print_schema(schema)"
        raise SchemaError(
            f"{place}: {got} is a type of {name}; expected a dataclass, a TypedDict or a pydantic model, or the whole "
            f"schema as SDL: Schema.from_sdl({printed}, subscriptions=[...])"
        )


def validated(annotation: Any) -> str | None:
    """The scalar that a class of pydantic's validates to, such as `EmailStr`."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not hasattr(annotation, "__get_pydantic_core_schema__"):
        return None
    try:
        described = pydantic.TypeAdapter(annotation).json_schema(mode="serialization")
    except pydantic.PydanticUserError:
        return None
    scalar = _JSON_FORMATS.get(str(described.get("format"))) or _JSON_TYPES.get(str(described.get("type")))
    # A secret is not for reading.
    return None if described.get("writeOnly") else scalar


def is_enum(annotation: Any) -> bool:
    """Whether it is an enumeration."""
    return isinstance(annotation, type) and issubclass(annotation, enum.Enum)


class TypeMap:
    """The types that annotations lead to, collected for a code-first schema.

    Attributes:
        local: Names for annotations that their modules do not know.
        definitions: SDL by type name, in the order of first use.
        inputs: The fields of each input type: type references by Python name.
        enums: The values of each enum.
        arguments: The arguments of each subscription field, likewise.
        python_names: Python names by coordinate, `"Order.unitPrice"`.
        requires: Guards by coordinate.
        classes: The object types' classes and their GraphQL names.
    """

    def __init__(self, local: Mapping[str, Any]) -> None:
        self.local = dict(local)
        self.definitions: dict[str, str] = {}
        self.inputs: dict[str, dict[str, str]] = {}
        self.enums: dict[str, list[str]] = {}
        self.python_names: dict[str, str] = {}
        self.arguments: dict[str, dict[str, str]] = {}
        self.requires: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._owners: dict[str, tuple[str, Any]] = {}  # kind and class by type name

    def has(self, record: type) -> bool:
        """Whether this class has become a type, of whichever kind."""
        return any(owner == record for _, owner in self._owners.values())

    def reference(self, annotation: Any, place: str, *, as_input: bool) -> str:
        """The type reference of an annotation, `"[Order!]"`; what it leads to is collected."""
        plain = unwrap(annotation)
        if as_input and plain.guard is not None:
            raise SchemaError(
                f"{place}: requires(...) guards what is read; expected it on a type's field, not an input"
            )
        return self._named(plain, place, as_input) + ("" if plain.nullable else "!")

    def _named(self, plain: Annotation, place: str, as_input: bool) -> str:
        core = plain.core
        check_own(core, place)
        named = scalar_name(core)
        if named is not None:
            return self._scalar(named)
        if plain.item is not MISSING:
            return f"[{self.reference(plain.item, place, as_input=as_input)}]"
        if is_enum(core):
            return self._enum(core, place)
        if is_record(core):
            return self._record(core, place, as_input)
        if plain.alternatives and not as_input:
            return self._union(plain.alternatives, place)
        named = validated(core)
        if named is not None:
            return self._scalar(named)
        what = "an input type" if as_input else "an output type"
        got = core.__qualname__ if isinstance(core, type) and not typing.get_args(core) else repr(core)
        raise SchemaError(f"{place}: {got} does not map to {what}; expected {_EXPECTED}")

    def _scalar(self, name: str) -> str:
        if name not in SPECIFIED_SCALARS:
            self.definitions.setdefault(name, f"scalar {name}")
        return name

    def _enum(self, owner: type[enum.Enum], place: str) -> str:
        name = owner.__name__
        if self._claim(name, "enum", owner, place):
            values = [check_name(member.name, f"{name}.{member.name}") for member in owner]
            if not values or {"true", "false", "null"} & set(values):
                raise SchemaError(f"{name}: expected members, none called true, false or null")
            self.enums[name] = values
            body = "".join(f"\n  {value}" for value in values)
            self.definitions[name] = f"{description(owner)}enum {name} {{{body}\n}}"
        return name

    def _union(self, alternatives: tuple[Any, ...], place: str) -> str:
        plain = [unwrap(alternative).core for alternative in alternatives]
        for core in plain:
            check_own(core, place)
        if not all(is_record(core) for core in plain):
            raise SchemaError(f"{place}: a union is made of dataclasses or pydantic models alone")
        names = [self._record(core, place, as_input=False) for core in plain]
        name = "".join(names)
        if self._claim(name, "union", tuple(names), place):
            self.definitions[name] = f"union {name} = {' | '.join(names)}"
        return name

    def _name(self, record: Any, place: str, as_input: bool) -> str:
        """`OrderPage` for `Page[Order]`."""
        plain, arguments = generic(record)
        references = [self.reference(argument, place, as_input=as_input) for argument in arguments]
        parts = [re.sub(r"\W", "", reference) + "List" * reference.count("[") for reference in references]
        return "".join(parts) + str(plain.__name__)

    def _record(self, record: Any, place: str, as_input: bool) -> str:
        name = self._name(record, place, as_input)
        if not self._claim(name, "input" if as_input else "type", record, place):
            return name
        if as_input:
            self.inputs[name] = {}
        annotations = hints(record, self.local, name, as_input=as_input)
        body = ""
        seen: dict[str, str] = {}
        for member in members(record, as_input=as_input):
            at = f"{name}.{member.name}"
            field = graphql_name(member.name, at)
            if seen.setdefault(field, member.name) != member.name:
                raise SchemaError(f"{at}: {seen[field]} is called {field} already")
            reference = self.reference(annotations[member.name], at, as_input=as_input)
            self.python_names[f"{name}.{field}"] = member.name
            guard = unwrap_guard(annotations[member.name])
            if guard is not None:
                self.requires[f"{name}.{field}"] = guard.alternatives
            if as_input:
                self.inputs[name][member.name] = reference
                reference += default(member.default(at), reference, at)
            body += f"\n{description(member.description, '  ')}  {field}: {reference}"
        if not body:
            raise SchemaError(f"{place}: {name} has no fields; a GraphQL type needs one")
        written = description(generic(record)[0])
        self.definitions[name] = f"{written}{'input' if as_input else 'type'} {name} {{{body}\n}}"
        return name

    def _claim(self, name: str, kind: str, owner: Any, place: str) -> bool:
        """Whether this type is new; raises where the name is another's, or the class has another role."""
        check_name(name, place)
        if name in _RESERVED:
            raise SchemaError(f"{place}: a type cannot be called {name}")
        taken, holder = self._owners.setdefault(name, (kind, owner))
        if taken != kind and holder == owner:
            raise SchemaError(f"{place}: {name} is both read and given as an argument; expected a class for each")
        if (taken, holder) != (kind, owner):
            raise SchemaError(f"{place}: there are two types called {name}")
        new = name not in self.definitions
        self.definitions.setdefault(name, "")  # keeps its place while its fields are looked at
        return new


def unwrap_guard(annotation: Any) -> Requirement | None:
    """What the `requires(...)` of an annotation ask for, wherever in it they stand: a guard is never overlooked."""
    plain = unwrap(annotation)
    inner = (plain.item,) if plain.item is not MISSING else plain.alternatives
    guards = [guard for guard in (plain.guard, *map(unwrap_guard, inner)) if guard is not None]
    both = guards[0] if guards else None
    for guard in guards[1:]:
        both = both & guard if both else guard
    return both


def default(value: Any, reference: str, place: str) -> str:
    """` = ...` for the SDL; nothing where there is none, or `None`: an argument left out stays left out."""
    if value is MISSING:
        return ""
    if value is None:
        if reference.endswith("!"):
            raise SchemaError(f"{place}: the default is None; expected `| None` in the annotation")
        return ""
    return f" = {literal(value, place)}"


def literal(value: Any, place: str) -> str:
    """A Python value as a GraphQL literal."""
    if value is None:
        return "null"
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float) and math.isfinite(value):
        return float.__repr__(value)
    if isinstance(value, str):
        return json.dumps(checked(value, place), ensure_ascii=False)
    if isinstance(value, (UUID, Decimal)):
        return json.dumps(str(value))
    if isinstance(value, (date, time)):
        return json.dumps(value.isoformat())
    if isinstance(value, (list, tuple, abc.Set, collections.deque)):
        items = [literal(item, place) for item in value]
        # A set has an order of its own in each process.
        return f"[{', '.join(sorted(items) if isinstance(value, abc.Set) else items)}]"
    if isinstance(value, Mapping):
        parts = {check_name(checked(key, place), place): member for key, member in value.items()}
    elif validated(type(value)) == "String":
        return json.dumps(str(value))
    elif is_record(type(value)):
        held = [(member, getattr(value, member.name)) for member in members(type(value), as_input=True)]
        # What is left out where it may be stays left out.
        written = [(member, part) for member, part in held if part is not None or member.constant is not None]
        parts = {graphql_name(member.name, place): part for member, part in written}
    else:
        raise SchemaError(f"{place}: the default {value!r} has no GraphQL literal")
    return f"{{{', '.join(f'{name}: {literal(part, place)}' for name, part in parts.items())}}}"


def description(of: Any, indent: str = "") -> str:
    """The docstring of a class or a function, or a text, as an SDL description on lines of its own."""
    text = of if isinstance(of, str) else None if of is None else of.__doc__
    generated = isinstance(of, type) and text and (text.startswith(f"{of.__name__}(") or text == "An enumeration.")
    if not text or generated:
        return ""
    text = inspect.cleandoc(text)
    if not text.replace("\n", "").isprintable() or '"""' in text or text[-1:] in ('"', "\\"):
        return f"{indent}{json.dumps(text)}\n"
    lines = [f'"""{text}"""'] if "\n" not in text else ['"""', *text.split("\n"), '"""']
    return "".join(f"{indent}{line}\n" if line else "\n" for line in lines)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
