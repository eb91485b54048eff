"""`@subscription`: a function becomes a field of the schema's subscription type."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import CellType
from typing import Any, Literal, TypeAlias, TypeVar, overload

from .errors import SchemaError
from .event import Event
from .info import Info
from .limits import Overflow, check_overflow, check_positive
from .predicate import Operand, Predicate
from .records import resolve
from .security import Requirement
from .text import checked
from .types import check_name

Kind: TypeAlias = Literal["passthrough", "async", "sync", "generator"]
AnyFunction = TypeVar("AnyFunction", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class Declaration:
    """A function and the options that it was declared with.

    Attributes:
        function: As it was written.
        kind: How it is called.
        event_parameter: The parameter that takes the event.
        info_parameter: The parameter that takes the `Info`.
        parameters: All others: the field's arguments.
    """

    function: Callable[..., Any]
    kind: Kind
    event_parameter: str | None
    info_parameter: str | None
    parameters: Mapping[str, inspect.Parameter]
    channel: str
    event_types: tuple[str, ...] | None
    where: Predicate | None
    rows: Predicate | None
    scope: Mapping[str, Operand]
    requires: Requirement | None
    sources: tuple[str, ...] | None
    name: str | None
    timeout: float | None
    overflow: Overflow | None
    events_per_second: float | None

    @property
    def local(self) -> dict[str, Any]:
        """The names that the function has from the functions around it, for annotations that are text."""
        return _local(self.function)

    @property
    def qualified_name(self) -> str:
        """For messages and logs."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def annotation(self, of: inspect.Parameter | None, local: Mapping[str, Any]) -> Any:
        """The evaluated annotation of a parameter, or of what is returned; `Parameter.empty` where there is none."""
        annotation = of.annotation if of else inspect.signature(self.function).return_annotation
        place = self.qualified_name + (f", argument {of.name}" if of else ", what it returns")
        if annotation is inspect.Parameter.empty:
            return annotation
        return _resolve(self.function, annotation, local, place)

    def _input(self, field: str) -> dict[str, Any]:
        """What Rust takes for this declaration."""
        return {
            "field": field,
            "function": self.qualified_name,
            "channel": "" if self.kind == "generator" else self.channel,
            "event_types": self.event_types,
            "where": None if self.where is None else self.where._wire,
            "rows": None if self.rows is None else self.rows._wire,
            "kind": self.kind,
            "takes_info": self.info_parameter is not None,
            "scope": [
                {"argument": path.split("."), "viewer": [viewer._head[1], *viewer._path]}
                for path, viewer in self.scope.items()
            ],
            "sources": self.sources,
            "requires": None if self.requires is None else self.requires.alternatives,
            "timeout": self.timeout,
            "overflow": self.overflow,
            "events_per_second": self.events_per_second,
        }


@overload
def subscription(function: AnyFunction, /) -> AnyFunction: ...


@overload
def subscription(
    *,
    channel: str | None = None,
    event_types: Iterable[str] | None = None,
    where: Predicate | None = None,
    rows: Predicate | None = None,
    scope: Mapping[str, Operand] | None = None,
    requires: Requirement | None = None,
    sources: Iterable[str] | None = None,
    passthrough: bool = False,
    name: str | None = None,
    timeout: float | None = None,
    overflow: Overflow | None = None,
    events_per_second: float | None = None,
) -> Callable[[AnyFunction], AnyFunction]: ...


def subscription(
    function: Callable[..., Any] | None = None,
    /,
    *,
    channel: str | None = None,
    event_types: Iterable[str] | None = None,
    where: Predicate | None = None,
    rows: Predicate | None = None,
    scope: Mapping[str, Operand] | None = None,
    requires: Requirement | None = None,
    sources: Iterable[str] | None = None,
    passthrough: bool = False,
    name: str | None = None,
    timeout: float | None = None,
    overflow: Overflow | None = None,
    events_per_second: float | None = None,
) -> Any:
    """Declares a function as a subscription field; the function itself is returned and can still be called plainly.

    The function may be async, sync (it runs in a thread), or an async generator. A parameter annotated `Event` (else:
    called `event`) gets the event, one annotated `Info` (else: called `info`) the viewer and the selection; all others
    are the field's arguments. Without `info` it runs once per event and argument set, however many watch.

    Args:
        function: What is decorated, where there are no options.
        channel: Where the events come from; the function's name, where not given. May hold placeholders of arguments,
            each alone between `:` or the ends: `"orders:{order_id}"`. `channel_name` gives publishers the same name.
        event_types: Only events of these types; all, where not given.
        where: Which events this subscription is about.
        rows: Which of them a viewer may see.
        scope: What arguments must equal of the viewer, by dotted Python names:
            `{"filter.tenant_id": viewer("tenant_id")}`. Each element, where there are lists on the way; a missing or
            null side and an empty list are refused.
        requires: `requires(...)` or `requires_any(...)`: who may subscribe.
        sources: Only events that come from one of these services. Not for a generator.
        passthrough: The event's `data` is the result; the body never runs, and `info` cannot be taken.
        name: The field's GraphQL name; else the function's name in camelCase.
        timeout: Seconds; replaces `Limits.resolver_timeout`. Not for a generator.
        overflow: Replaces `Limits.overflow`.
        events_per_second: Replaces `Limits.events_per_second_per_subscription`. Not for a generator.

    Raises:
        SchemaError: The function or an option is not as expected.
    """
    options: dict[str, Any] = {"channel": channel, "where": where, "rows": rows, "requires": requires, "name": name}
    options |= {"event_types": _collected(event_types), "sources": _collected(sources), "scope": scope}
    options |= {"timeout": timeout, "overflow": overflow, "events_per_second": events_per_second}

    def declare(function: AnyFunction) -> AnyFunction:
        vars(function)["__subscription__"] = _declaration(function, passthrough, options)
        return function

    return declare if function is None else declare(function)


def declaration_of(function: object) -> Declaration:
    """The declaration of a function that a schema was given."""
    declaration = getattr(function, "__subscription__", None)
    if not isinstance(declaration, Declaration):
        raise SchemaError(f"{function!r} is no subscription; expected a function decorated with @subscription")
    if declaration.function is not function:
        raise SchemaError(f"{declaration.qualified_name}: expected @subscription to be the outermost decorator")
    return declaration


def _declaration(function: Callable[..., Any], passthrough: bool, options: Mapping[str, Any]) -> Declaration:
    if not inspect.isfunction(function):
        raise SchemaError(f"@subscription expects a function, got {function!r}")
    place = f"{function.__module__}.{function.__qualname__}"
    if "__subscription__" in vars(function):
        raise SchemaError(f"{place}: it is a subscription already")
    _check_options(place, options)
    kind = _kind(place, function, passthrough)
    event, info, parameters = _parameters(place, function)
    absent: dict[str, object] = {"an info parameter": info} if kind == "passthrough" else {}
    if kind == "generator":
        filters = ("channel", "event_types", "where", "rows", "sources", "timeout", "events_per_second")
        absent = {option: options[option] for option in filters}
        absent["an event parameter"] = event
    for option in (option for option, value in absent.items() if value is not None):
        raise SchemaError(f"{place}: a {kind} function cannot have {option}")
    scoped = {path.partition(".")[0] for path in options["scope"] or ()}
    for option, named in (
        ("where", _arguments(options["where"])),
        ("rows", _arguments(options["rows"])),
        ("scope", scoped),
    ):
        unknown = sorted(named - set(parameters))
        # A function that says what it returns could be code first, whose arguments are the function's own.
        if unknown and inspect.signature(function).return_annotation is not inspect.Signature.empty:
            expected = ", ".join(parameters) or "none, as the function has no arguments"
            raise SchemaError(f"{place}, {option}: unknown argument {unknown[0]!r}; expected {expected}")
    return Declaration(
        function=function,
        kind=kind,
        event_parameter=event,
        info_parameter=info,
        parameters=parameters,
        **{**options, "channel": options["channel"] or function.__name__, "scope": dict(options["scope"] or {})},
    )


def _arguments(predicate: Predicate | None) -> set[str]:
    return set() if predicate is None else set(predicate._arguments)


def _collected(values: object) -> object:
    """A collection as a tuple; what is none stays as it is, to be complained of."""
    return tuple(values) if isinstance(values, Iterable) and not isinstance(values, (str, bytes)) else values


def _kind(place: str, function: Callable[..., Any], passthrough: bool) -> Kind:
    if inspect.isgeneratorfunction(function):
        raise SchemaError(f"{place}: expected an async generator (async def with yield), got a sync one")
    if passthrough and inspect.isasyncgenfunction(function):
        raise SchemaError(f"{place}: a generator cannot be a passthrough")
    if passthrough:
        return "passthrough"
    if inspect.isasyncgenfunction(function):
        return "generator"
    return "async" if inspect.iscoroutinefunction(function) else "sync"


def _parameters(
    place: str, function: Callable[..., Any]
) -> tuple[str | None, str | None, dict[str, inspect.Parameter]]:
    """The parameters for the event and the info, and the arguments."""
    parameters = dict(inspect.signature(function).parameters)
    roles: dict[type, str] = {}
    for name, parameter in parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise SchemaError(f"{place}: {parameter} cannot be an argument; expected one that is given by its name")
        try:
            annotation = _resolve(function, parameter.annotation, {}, place)
        except SchemaError:  # an argument of a type that is defined later, or `Event` imported for type checkers alone
            continue
        if annotation in (Event, Info) and roles.setdefault(annotation, name) != name:
            raise SchemaError(f"{place}: two parameters are annotated {annotation.__name__}")
    for role, fallback in ((Event, "event"), (Info, "info")):
        if role not in roles and fallback in parameters:
            roles[role] = fallback
    event, info = roles.get(Event), roles.get(Info)
    arguments = {name: parameter for name, parameter in parameters.items() if name not in (event, info)}
    return event, info, arguments


def _local(function: Callable[..., Any]) -> dict[str, Any]:
    """The names that a function has from the functions around it."""
    plain = inspect.unwrap(function)
    cells = zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != CellType()}  # an empty cell has no value yet


def _resolve(function: Callable[..., Any], annotation: Any, local: Mapping[str, Any], place: str) -> Any:
    return resolve(annotation, {**inspect.unwrap(function).__globals__, **_local(function)}, local, place)


def _check_options(place: str, options: Mapping[str, Any]) -> None:
    """Raises where an option is not as expected."""
    predicate = 'a predicate, as in data["id"] == argument("id")'
    requirement = "requires(...) or requires_any(...)"
    kinds = {"where": (Predicate, predicate), "rows": (Predicate, predicate), "requires": (Requirement, requirement)}
    for option, (expected, how) in kinds.items():
        if options[option] is not None and not isinstance(options[option], expected):
            raise SchemaError(f"{place}, {option}: expected {how}, got {options[option]!r}")
    checks: dict[str, Callable[[Any, str], object]] = {
        "channel": _text,
        "event_types": _some_texts,
        "sources": _texts,
        "scope": _scope,
        "name": lambda name, at: check_name(_text(name, at), at),
        "timeout": check_positive,
        "overflow": check_overflow,
        "events_per_second": check_positive,
    }
    try:
        for option, check in checks.items():
            if options[option] is not None:
                check(options[option], f"{place}, {option}")
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, SchemaError) else SchemaError(str(error)) from error


def _text(value: object, place: str) -> str:
    text = checked(value, place)
    if not text:
        raise ValueError(f"{place}: it cannot be empty")
    return text


def _some_texts(values: object, place: str) -> None:
    if not values:
        raise ValueError(f"{place}: expected a collection of at least one str, got {values!r}")
    _texts(values, place)


def _texts(values: object, place: str) -> None:
    if not isinstance(values, tuple):
        raise TypeError(f"{place}: expected a collection of str, got {values!r}")
    for value in values:
        _text(value, place)


def _scope(scope: object, place: str) -> None:
    expected = 'a mapping as in {"filter.tenant_id": viewer("tenant_id")}'
    if not isinstance(scope, Mapping):
        raise TypeError(f"{place}: expected {expected}, got {scope!r}")
    for path, value in scope.items():
        if not all(_text(path, place).split(".")):
            raise ValueError(f"{place}: expected {expected}, got the path {path!r}")
        if not isinstance(value, Operand) or value._head[0] != "viewer":
            raise TypeError(f"{place}: expected {expected}, got {value!r} for {path!r}")
