"""Records: dataclasses, `TypedDict`s and pydantic models alike, as classes with annotated members.

It knows what Python says about them, generics and what they stand for included, and nothing of GraphQL. pydantic is not
imported for asking.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import SchemaError

MISSING = dataclasses.MISSING


def is_record(annotation: Any) -> bool:
    """Whether it is a dataclass, a `TypedDict` or a pydantic model, with or without brackets."""
    record = generic(annotation)[0]
    if not isinstance(record, type):
        return False
    is_model = isinstance(getattr(record, "model_fields", None), dict)
    return dataclasses.is_dataclass(record) or is_typed_dict(record) or is_model


def is_typed_dict(annotation: Any) -> bool:
    """Whether it is a `TypedDict`, of `typing` or of `typing_extensions`."""
    return isinstance(annotation, type) and issubclass(annotation, dict) and hasattr(annotation, "__required_keys__")


def generic(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """A class without what stands in its brackets, and that; pydantic makes a class of both."""
    metadata = getattr(annotation, "__pydantic_generic_metadata__", None)
    if metadata and metadata["origin"]:
        return metadata["origin"], metadata["args"]
    return typing.get_origin(annotation) or annotation, typing.get_args(annotation)


@dataclasses.dataclass(frozen=True)
class Member:
    """A field of a dataclass, a `TypedDict` or a pydantic model.

    Attributes:
        name: Its name.
        keyword: What the constructor calls it.
        constant: Its default where that is a value, else `MISSING`.
        factory: What makes its default, else `MISSING`.
        description: What pydantic's `Field` says about it.
    """

    name: str
    keyword: str
    constant: Any
    factory: Any
    description: str | None = None

    def default(self, place: str) -> Any:
        """Its default, or `MISSING`; a schema can only hold what is the same each time."""
        if self.factory is MISSING:
            return self.constant
        made = self.factory()
        if made != self.factory():
            raise SchemaError(f"{place}: default_factory gives another value each time; expected a constant one")
        return made


def members(record: Any, *, as_input: bool) -> Iterator[Member]:
    """The fields of a record: of an input type those that its constructor takes, else those that are read."""
    plain = generic(record)[0]
    if dataclasses.is_dataclass(plain):
        for field in dataclasses.fields(plain):
            if field.init or not as_input:
                yield Member(field.name, field.name, field.default, field.default_factory)
    elif is_typed_dict(plain):
        for name in inspect.get_annotations(plain):
            yield Member(name, name, None if name in plain.__optional_keys__ else MISSING, MISSING)
    else:
        for name, info in plain.model_fields.items():
            constant = MISSING if info.is_required() or info.default_factory else info.default
            if as_input or not info.exclude:
                yield Member(name, info.alias or name, constant, info.default_factory or MISSING, info.description)
        for name, info in () if as_input else plain.model_computed_fields.items():
            yield Member(name, name, MISSING, MISSING, info.description)


def hints(record: Any, local: Mapping[str, Any], place: str, *, as_input: bool) -> dict[str, Any]:
    """The evaluated annotations of a record's members, those of derived classes winning."""
    plain = generic(record)[0]
    known = {plain.__name__: plain, **local}
    bound = dict(reversed(list(_bindings(record, {}))))
    found: dict[str, tuple[Any, dict[str, Any], Mapping[Any, Any]]] = {}
    for base in reversed(plain.__mro__):
        module = vars(sys.modules[base.__module__])
        for name, annotation in inspect.get_annotations(base).items():
            found[name] = (annotation, module, bound.get(base, {}))
    for name, info in getattr(plain, "model_computed_fields", {}).items():
        function = getattr(info.wrapped_property, "fget", None) or info.wrapped_property.func
        owner = next(base for base in plain.__mro__ if name in vars(base))
        annotation = inspect.get_annotations(function).get("return", info.return_type)
        found[name] = (annotation, function.__globals__, bound.get(owner, {}))
    evaluated = {}
    for name in [member.name for member in members(record, as_input=as_input)]:
        annotation, module, parameters = found[name]
        annotation = _substituted(resolve(annotation, module, known, f"{place}.{name}"), parameters)
        if name in getattr(plain, "__optional_keys__", ()) and key_form(annotation) is None:
            annotation = typing.Optional[annotation]  # noqa: UP045  # a variable, not an annotation
        evaluated[name] = annotation
    return evaluated


def _bindings(record: Any, outer: Mapping[Any, Any]) -> Iterator[tuple[Any, Mapping[Any, Any]]]:
    """What the type parameters of a record's class and of its bases stand for, by class."""
    plain, arguments = generic(record)
    metadata = getattr(plain, "__pydantic_generic_metadata__", None)
    parameters = metadata["parameters"] if metadata else getattr(plain, "__parameters__", ())
    own = {parameter: _substituted(one, outer) for parameter, one in zip(parameters, arguments, strict=False)}
    yield plain, own
    for base in vars(plain).get("__orig_bases__", plain.__bases__):
        if isinstance(generic(base)[0], type) and generic(base)[0] is not typing.Generic:
            yield from _bindings(base, own)


def _substituted(annotation: Any, bound: Mapping[Any, Any]) -> Any:
    """An annotation with what its type parameters stand for."""
    if isinstance(annotation, typing.TypeVar):
        return bound.get(annotation, annotation)
    parameters = () if isinstance(annotation, type) else getattr(annotation, "__parameters__", ())
    return annotation[tuple(bound.get(one, one) for one in parameters)] if parameters and bound else annotation


def key_form(annotation: Any) -> str | None:
    """What a `TypedDict` says of a key, by `typing` or `typing_extensions`: `"NotRequired"`."""
    name = getattr(typing.get_origin(annotation), "_name", None)
    return name if name in ("Required", "NotRequired", "ReadOnly") else None


def resolve(annotation: Any, module: Mapping[str, Any], local: Mapping[str, Any], place: str) -> Any:
    """Evaluates an annotation that may be text, or hold text."""
    owner = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        # The module's names win: a local one may be of another module.
        return typing.get_type_hints(owner, {**local, **module}, {}, include_extras=True)["it"]
    except Exception as error:
        hint = "; expected a name of the module, imported at run time, or a class given in Schema(types=[...])"
        unknown = hint if isinstance(error, NameError) else ""
        raise SchemaError(f"{place}: the annotation {annotation!r} cannot be evaluated: {error}{unknown}") from error
