"""The schema: declared functions and their types, handed to Rust once, which validates and keeps it."""

from __future__ import annotations

import collections.abc
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import _core
from .arguments import Converter, Converters, Function
from .errors import SchemaError
from .records import MISSING, is_record
from .subscription import Declaration, declaration_of
from .types import (
    TypeMap,
    check_own,
    default,
    description,
    graphql_name,
    is_enum,
    scalar_name,
    unwrap,
    unwrap_guard,
)

_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable)


class Schema:
    """A GraphQL schema whose subscription fields are functions, code first.

    Dataclasses, `TypedDict`s and pydantic models are object types (as arguments: input types), `enum.Enum` and unions
    of object types are what they are called; names become camelCase, docstrings descriptions, defaults defaults.

    Args:
        subscriptions: Functions decorated with `@subscription`.
        types: Further classes that belong to the schema, such as those that only a name in an annotation tells of.

    Attributes:
        sdl: The schema as text.
        functions: The functions in the order of their declaration, as they are called.
        nested: How the coerced arguments of fields below the root become Python's, by `Type.field`.

    Raises:
        SchemaError: A declaration is wrong; the text names function, field and what was expected.
    """

    __slots__ = ("_native", "_warnings", "functions", "nested", "sdl")

    _native: _core.Schema
    _warnings: list[str]
    functions: tuple[Function, ...]
    sdl: str
    nested: Mapping[str, Converter]

    def __init__(self, subscriptions: Iterable[Callable[..., Any]], types: Iterable[type] = ()) -> None:
        declarations = _declarations(subscriptions)
        types = list(types)
        for one in types:
            check_own(one, "types")
        given = {one.__name__: one for one in types if is_record(one) or is_enum(one)}
        if len(given) != len(types):
            raise SchemaError("types: expected dataclasses, TypedDicts, pydantic models and enums, each name once")
        type_map = TypeMap({**{name: one for each in declarations for name, one in each.local.items()}, **given})
        fields = {each: each.name or graphql_name(each.function.__name__, each.qualified_name) for each in declarations}
        if len(set(fields.values())) != len(fields):
            raise SchemaError(_twice(fields))
        roots = "".join(f"\n{_field(each, field, type_map)}" for each, field in fields.items())
        for one in types:
            if not type_map.has(one):
                type_map.reference(one, "types", as_input=False)
        definitions = ["type Query {\n  _empty: Boolean\n}", f"type Subscription {{{roots}\n}}"]
        self._build(
            {
                "sdl": "\n\n".join([*definitions, *type_map.definitions.values()]) + "\n",
                "code_first": True,
                "declarations": [each._input(field) for each, field in fields.items()],
                "python_names": type_map.python_names,
                "requires": type_map.requires,
            }
        )
        self.nested = {}
        converters = Converters(type_map.inputs, type_map.enums, type_map.local)
        self.functions = tuple(
            Function(each, field, _converters(each, type_map.arguments[field], converters))
            for each, field in fields.items()
        )

    @classmethod
    def from_sdl(
        cls,
        text: str,
        subscriptions: Iterable[Callable[..., Any]],
        *,
        partial: bool = False,
        scalars: Mapping[str, Any] | None = None,
    ) -> Schema:
        """A schema from SDL, whose subscription fields get their functions; the SDL's types win over annotations.

        A function belongs to the field called by its `name=`, else by its own name, else by its camelCase. It need not
        take all of the field's arguments; one that is called as a keyword of Python, `from`, is received as `from_`. A
        result's concrete type is its `__typename`, else its class's name. `@requiresScopes` and `@authenticated` mean
        what they do in Apollo Federation; the scopes are the viewer's `permissions`.

        Args:
            text: The schema, federated or not; also what Strawberry, Ariadne or graphql-core print.
            subscriptions: Functions decorated with `@subscription`, one for each field of the subscription type.
            partial: Leave subscription fields without a function out of the schema, instead of raising.
            scalars: What scalars of the SDL are, by name: `{"Date": JSON}`. Takes `ID`, `int`, `float`, `str`, `bool`,
                `datetime`, `date`, `time`, `UUID`, `Decimal` and `JSON`. One that is not given is what a scalar of this
                name is code first (`DateTime`, `Date`, `Time`, `UUID`, `Decimal`), else `JSON`.

        Raises:
            SchemaError: The text is no schema, a declaration does not fit it, a field has no function, or a directive
                restricts access in a way that cannot be honoured, such as `@policy`.
        """
        if not isinstance(text, str):
            raise SchemaError(f"from_sdl: expected the schema's text, got a {type(text).__name__}")
        declarations = _declarations(subscriptions)
        self = cls.__new__(cls)
        signatures = self._build(
            {
                "sdl": text,
                "code_first": False,
                "declarations": [each._input(each.name or each.function.__name__) for each in declarations],
                "python_names": {},
                "partial": bool(partial),
                "scalars": {name: _scalar(name, annotation) for name, annotation in (scalars or {}).items()},
                "requires": {},
            }
        )
        local = {name: one for each in declarations for name, one in each.local.items()}
        converters = Converters(signatures["inputs"], signatures["enums"], local)
        self.nested = converters.below(signatures["nested"])
        self.functions = tuple(
            Function(each, field["field"], _converters(each, field["arguments"], converters))
            for each, field in zip(declarations, signatures["fields"], strict=True)
        )
        return self

    def _build(self, given: dict[str, Any]) -> dict[str, Any]:
        """Lets Rust build it; returns what the functions' arguments turned out to be."""
        self._native = _core.Schema(json.dumps(given))
        self.sdl = self._native.sdl
        self._warnings = self._native.warnings
        signatures: dict[str, Any] = json.loads(self._native.signatures)
        return signatures


def _scalar(name: str, annotation: Any) -> str:
    """The scalar that the user says one of the SDL is."""
    meaning = scalar_name(unwrap(annotation).core)
    if meaning is None:
        expected = "ID, int, float, str, bool, datetime, date, time, UUID, Decimal or JSON"
        raise SchemaError(f"scalars, {name}: expected {expected}, got {annotation!r}")
    return meaning


def _declarations(subscriptions: Iterable[Callable[..., Any]]) -> list[Declaration]:
    declarations = [declaration_of(function) for function in subscriptions]
    if not declarations:
        raise SchemaError("subscriptions: expected at least one function")
    return declarations


def _twice(fields: Mapping[Declaration, str]) -> str:
    names = list(fields.values())
    field = next(name for name in names if names.count(name) > 1)
    functions = " and ".join(each.qualified_name for each, name in fields.items() if name == field)
    return f"two functions for the field {field}: {functions}"


def _field(declaration: Declaration, field: str, type_map: TypeMap) -> str:
    """The line of the SDL for a function's field."""
    place = declaration.qualified_name
    written = []
    type_map.arguments[field] = {}
    for name, parameter in declaration.parameters.items():
        at = f"{place}, argument {name}"
        annotation = declaration.annotation(parameter, type_map.local)
        if annotation is inspect.Parameter.empty:
            raise SchemaError(f"{at}: it has no annotation; expected its type")
        argument = graphql_name(name, at)
        if f"Subscription.{field}.{argument}" in type_map.python_names:
            raise SchemaError(f"{at}: another argument is called {argument} already")
        reference = type_map.reference(annotation, at, as_input=True)
        type_map.arguments[field][name] = reference
        type_map.python_names[f"Subscription.{field}.{argument}"] = name
        value = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
        written.append(f"{argument}: {reference}{default(value, reference, at)}")
    arguments = f"({', '.join(written)})" if written else ""
    result = type_map.reference(_result(declaration, type_map.local), f"{place}, what it returns", as_input=False)
    return f"{description(declaration.function, '  ')}  {field}{arguments}: {result}"


def _result(declaration: Declaration, local: Mapping[str, Any]) -> Any:
    """What the function says it returns, or yields."""
    place = f"{declaration.qualified_name}, what it returns"
    annotation = declaration.annotation(None, local)
    if annotation is inspect.Signature.empty:
        raise SchemaError(f"{place}: it has no annotation; expected its type")
    core = unwrap(annotation).core
    streams = typing.get_origin(core) in _STREAMS and bool(typing.get_args(core))
    if streams != (declaration.kind == "generator"):
        expected = (
            "AsyncIterator[...]" if declaration.kind == "generator" else "a type (generators: async def with yield)"
        )
        raise SchemaError(f"{place}: expected {expected}, got {annotation!r}")
    result = typing.get_args(core)[0] if streams else annotation
    if unwrap_guard(annotation) is not None or unwrap_guard(result) is not None:
        raise SchemaError(f"{place}: requires(...) guards a type's field; expected @subscription(requires=...)")
    return result


def _converters(declaration: Declaration, references: Mapping[str, str], converters: Converters) -> dict[str, Any]:
    made = {}
    for name, parameter in declaration.parameters.items():
        place = f"{declaration.qualified_name}, argument {name}"
        if name not in references:
            expected = ", ".join(sorted(references)) or "none"
            raise SchemaError(f"{place}: the field has no such argument; expected {expected}")
        annotation = declaration.annotation(parameter, converters.local)
        made[name] = converters.make(
            references[name], MISSING if annotation is inspect.Parameter.empty else annotation, place
        )
    return made
