"""What the documentation says of who receives what, slow and obvious: who may subscribe, which events reach whom, and
what is left of them. The oracle test compares with it; it shares nothing with the engine.

A schema, its declarations and a document are plain values here; the test writes them down as Python, SDL and GraphQL.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

from fraiseql_subs import ALL_TENANTS, SecurityContext
from tests.predicate_model import ABSENT, Condition, World, equal, side, walk

# ---- types ----

Guard = tuple[tuple[str, ...], ...]
"""An OR of ANDs of permissions."""


@dataclass
class Member:
    """A field of a type."""

    python: str
    #: Its type: `[Order!]`.
    ref: str
    guard: Guard | None = None


@dataclass
class Type:
    """An object type; with `behind`, the names of object types, an interface or (without members) a union."""

    name: str
    members: dict[str, Member] = field(default_factory=dict)
    interfaces: list[str] = field(default_factory=list)
    behind: list[str] | None = None


Types = dict[str, Type]


@dataclass
class Input:
    """An argument, or a field of an input type."""

    ref: str
    default: Any = ABSENT


Inputs = dict[str, dict[str, Input]]
"""The fields of input types, by Python name."""


def named(ref: str) -> str:
    return ref.strip("[]!")


def is_null_allowed(ref: str) -> bool:
    return not ref.endswith("!")


def item(ref: str) -> str | None:
    """What a list holds."""
    plain = ref.removesuffix("!")
    return plain[1:-1] if plain.startswith("[") else None


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.title() for other in others)


def concrete(types: Types, name: str) -> list[Type]:
    """The object types that may stand where a type is expected."""
    behind = types[name].behind
    return [types[name]] if behind is None else [types[one] for one in behind]


# ---- declarations, documents and requests ----


@dataclass
class Declaration:
    """A subscription field."""

    name: str
    kind: str
    ref: str
    channel: str | None
    event_types: list[str] | None = None
    where: Condition | None = None
    rows: Condition | None = None
    sources: list[str] | None = None
    #: Python names of an argument and what is below it, and the path of the viewer's value.
    scope: dict[str, tuple[list[str], str]] = field(default_factory=dict)
    guard: Guard | None = None
    arguments: dict[str, Input] = field(default_factory=dict)
    takes_info: bool = False


@dataclass
class Flag:
    """`@skip` or `@include`, by a literal or by a variable's name."""

    directive: str
    condition: bool | str


@dataclass
class Picked:
    """A selected field, and where it stands in the document."""

    name: str
    alias: str = ""
    flags: list[Flag] = field(default_factory=list)
    below: list[Picked | Fragment] = field(default_factory=list)
    place: tuple[int, int] = (0, 0)

    @property
    def key(self) -> str:
        return self.alias or self.name


@dataclass
class Fragment:
    """An inline fragment, or the use of a named one."""

    on: str | None
    flags: list[Flag]
    below: list[Picked | Fragment]
    name: str | None = None


@dataclass
class Variable:
    """Stands in an argument's value."""

    name: str
    ref: str
    default: Any = ABSENT
    given: Any = ABSENT

    @property
    def value(self) -> Any:
        return self.default if self.given is ABSENT else self.given


@dataclass
class Request:
    """A document that selects one field, with its variables."""

    of: Declaration
    root: Picked
    #: Values by the argument's Python name, as GraphQL writes them, variables among them.
    given: dict[str, Any]
    #: The variables that `@skip` and `@include` use.
    flags: dict[str, bool]
    #: The coerced arguments by Python name, omitted ones absent.
    arguments: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    variables: dict[str, Any] = field(default_factory=dict)


@dataclass
class Viewer:
    """Who watches, and what predicates see of that."""

    context: SecurityContext
    fields: dict[str, Any]


@dataclass
class Published:
    """An event."""

    event_type: str
    channel: str
    data: dict[str, Any]
    tenant: Any
    source: str | None
    previous: dict[str, Any] | None
    #: How it is published, which makes no difference: `data`, its `text`, or `many`.
    how: str = "data"


@dataclass
class Rules:
    """What holds for all requests of one manager."""

    types: Types
    inputs: Inputs
    multi_tenant: bool


# ---- arguments ----


def arguments(rules: Rules, request: Request) -> dict[str, Any]:
    """The coerced arguments by Python name, omitted ones absent."""
    return coerced_object(rules, request.of.arguments, {camel(name): value for name, value in request.given.items()})


def coerced_object(rules: Rules, fields: dict[str, Input], given: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, input_ in fields.items():
        value = given.get(camel(name), ABSENT)
        if isinstance(value, Variable):
            value = value.value
        if value is ABSENT:
            value = input_.default
        if value is not ABSENT:
            found[name] = coerced(rules, input_.ref, value)
    return found


def coerced(rules: Rules, ref: str, value: Any) -> Any:
    if value is None:
        return None
    of = item(ref)
    if of is not None:
        return [coerced(rules, of, one) for one in (value if isinstance(value, list) else [value])]
    name = named(ref)
    if name in rules.inputs:
        return coerced_object(rules, rules.inputs[name], value)
    if name == "UUID":
        return str(UUID(value))
    return str(value) if name == "ID" else value


def channel(request: Request) -> str | None:
    """The channel's name; `None` where the arguments make none."""
    name = request.of.channel or request.of.name
    for argument, value in request.arguments.items():
        if f"{{{argument}}}" in name and any(unicodedata.category(letter) == "Cc" for letter in str(value)):
            return None
        name = name.replace(f"{{{argument}}}", str(value).replace("%", "%25").replace(":", "%3A"))
    return name or None


# ---- who may subscribe ----


def refusals(rules: Rules, request: Request, viewer: Viewer) -> set[str]:
    """All reasons to refuse, none of which goes before another: a module's name, `expired`, or `request`."""
    given, declaration = request.arguments, request.of
    reasons = set()
    if viewer.context.expires_at is not None and viewer.context.expires_at <= datetime.now(timezone.utc):
        reasons.add("expired")
    if rules.multi_tenant and viewer.context.tenant_id in (None, ""):
        reasons.add("tenant")
    if not is_permitted(viewer, declaration.guard) or is_refused(rules.types, request, viewer):
        reasons.add("fields")
    if viewer.context.sources is not None:
        shared = (
            viewer.context.sources if declaration.sources is None else viewer.context.sources & set(declaration.sources)
        )
        if not shared or declaration.kind == "generator":
            reasons.add("sources")
    for path, (of_viewer, kind) in declaration.scope.items():
        wanted = side(walk(viewer.fields, of_viewer), kind)
        found = list(reached(given, path.split(".")))
        kind = kind_of(rules, declaration, path)
        if not all(equal(side(one, kind), wanted) is True for one in found):
            reasons.add("scope")
    if declaration.kind != "generator" and channel(request) is None:
        reasons.add("request")
    return reasons


def may_be_refused(rules: Rules, request: Request, viewer: Viewer) -> bool:
    """Whether it is left open: a field that refuses is skipped, or stands below one that is null anyway."""
    return is_refused(rules.types, request, viewer, anywhere=True)


def reached(value: Any, path: list[str]) -> Iterator[Any]:
    """All values that a path leads to; each way that ends early is a null."""
    if isinstance(value, list):
        for one in value or [None]:
            yield from reached(one, path)
    elif path and isinstance(value, dict):
        yield from reached(value.get(path[0]), path[1:])
    else:
        yield None if path else value


def kind_of(rules: Rules, declaration: Declaration, path: str) -> str:
    """How the values at a path of arguments compare."""
    first, *others = path.split(".")
    ref = declaration.arguments[first].ref
    for name in others:
        ref = rules.inputs[named(ref)][name].ref
    return "id" if named(ref) in ("ID", "UUID") else "json"


def is_permitted(viewer: Viewer, guard: Guard | None) -> bool:
    return guard is None or any(set(all_of) <= viewer.context.permissions for all_of in guard)


def may_see(types: Types, viewer: Viewer, of: Type, name: str) -> bool:
    """A guard on an interface's field holds in every type behind it."""
    owners = [of, *(types[interface] for interface in of.interfaces)]
    return all(is_permitted(viewer, owner.members[name].guard) for owner in owners if name in owner.members)


def is_refused(types: Types, request: Request, viewer: Viewer, *, anywhere: bool = False) -> bool:
    """Whether a field that may not be seen cannot be null; `anywhere` looks also where nothing would be shown."""

    def below(ref: str, nodes: list[Picked]) -> bool:
        if named(ref) not in types:
            return False
        for one in concrete(types, named(ref)):
            for name, picked in fields_of(types, one, nodes, None if anywhere else request.flags):
                member = one.members[name]
                hidden = not may_see(types, viewer, one, name)
                if hidden and not is_null_allowed(member.ref):
                    return True
                if (anywhere or not hidden) and below(member.ref, picked):
                    return True
        return False

    return below(request.of.ref, [request.root])


def masked(types: Types, request: Request, viewer: Viewer) -> set[str]:
    """`Type.field` of all fields that are null because they may not be seen."""
    found = set()

    def below(ref: str, nodes: list[Picked]) -> None:
        if named(ref) in types:
            for one in concrete(types, named(ref)):
                for name, picked in fields_of(types, one, nodes, request.flags):
                    if may_see(types, viewer, one, name):
                        below(one.members[name].ref, picked)
                    else:
                        found.add(f"{one.name}.{name}")

    below(request.of.ref, [request.root])
    return found


def selected(types: Types, request: Request, viewer: Viewer) -> frozenset[str]:
    """The dotted paths that a function is told of: what this viewer sees."""
    found = set()

    def below(ref: str, nodes: list[Picked], above: str) -> None:
        if named(ref) in types:
            for one in concrete(types, named(ref)):
                for name, picked in fields_of(types, one, nodes, request.flags):
                    if may_see(types, viewer, one, name):
                        found.add(above + name)
                        below(one.members[name].ref, picked, f"{above}{name}.")

    below(request.of.ref, [request.root], "")
    return frozenset(found)


def fields_of(
    types: Types, of: Type, nodes: list[Picked], flags: dict[str, bool] | None
) -> list[tuple[str, list[Picked]]]:
    """The fields selected of an object type, each with all places that select it under one key."""
    groups = collected(types, of, nodes, flags)
    return [(places[0].name, places) for places in groups.values() if places[0].name != "__typename"]


def collected(types: Types, of: Type, nodes: list[Picked], flags: dict[str, bool] | None) -> dict[str, list[Picked]]:
    """What is selected of an object type, by response key; without flags, whatever is skipped too."""
    groups: dict[str, list[Picked]] = {}
    used = set()

    def collect(selections: list[Picked | Fragment]) -> None:
        for one in selections:
            if flags is not None and not all(is_kept(flag, flags) for flag in one.flags):
                continue
            if isinstance(one, Picked):
                groups.setdefault(one.key, []).append(one)
            elif one.name is None or one.name not in used:
                used.add(one.name)
                if one.on is None or of in concrete(types, one.on):
                    collect(one.below)

    for node in nodes:
        collect(node.below)
    return groups


def is_kept(flag: Flag, flags: dict[str, bool]) -> bool:
    condition = flags[flag.condition] if isinstance(flag.condition, str) else flag.condition
    return condition == (flag.directive == "include")


# ---- which events are delivered ----


def is_published(rules: Rules, event: Published) -> bool:
    return not (rules.multi_tenant and event.tenant in (None, ""))


def stage(rules: Rules, request: Request, viewer: Viewer, event: Published) -> str:
    """Which of the stages of `manager.explain` decides about an event, for a subscription that is not refused."""
    declaration = request.of
    if declaration.kind == "generator":
        return "request"
    if not is_published(rules, event) or not is_mine(viewer, event):
        return "tenant"
    if event.channel != channel(request):
        return "channel"
    if declaration.event_types is not None and event.event_type not in declaration.event_types:
        return "event_type"
    if is_foreign(request, viewer, event):
        return "sources"
    if not holds(declaration.where, request, viewer, event):
        return "where"
    return "delivered" if holds(declaration.rows, request, viewer, event) else "rows"


def is_mine(viewer: Viewer, event: Published) -> bool:
    return event.tenant is ALL_TENANTS or text(event.tenant) == text(viewer.context.tenant_id)


def is_foreign(request: Request, viewer: Viewer, event: Published) -> bool:
    limits = [limit for limit in (request.of.sources, viewer.context.sources) if limit is not None]
    return any(event.source not in limit for limit in limits)


def holds(condition: Condition | None, request: Request, viewer: Viewer, event: Published) -> bool:
    """Only what is true holds."""
    world = World(event.data, event.previous, request.arguments, viewer.fields)
    return condition is None or condition.judge(world) is True


def text(id_: Any) -> str | None:
    """Ids compare as text, and `None` with `None` alone."""
    return None if id_ is None else str(id_)


# ---- what is delivered ----


def payload(rules: Rules, request: Request, viewer: Viewer, value: Any) -> dict[str, Any]:
    """The ExecutionResult for what the root field gave."""
    types, errors = rules.types, []

    def complete(ref: str, nodes: list[Picked], value: Any, path: list[str | int]) -> Any:
        if value is None:
            assert is_null_allowed(ref), "the test makes no null where none may be"
            return None
        of = item(ref)
        if of is not None:
            return [complete(of, nodes, one, [*path, at]) for at, one in enumerate(value)]
        if named(ref) not in types:
            return value
        type_ = types[named(ref)] if types[named(ref)].behind is None else types[value["__typename"]]
        found: dict[str, Any] = {}
        for key, picked in collected(types, type_, nodes, request.flags).items():
            name, here = picked[0].name, [*path, key]
            if name == "__typename":
                found[key] = type_.name
            elif may_see(types, viewer, type_, name):
                member = type_.members[name]
                found[key] = complete(member.ref, picked, value.get(member.python), here)
            else:
                found[key] = None
                errors.append(forbidden(picked, here))
        return found

    key = request.root.key
    result: dict[str, Any] = {"data": {key: complete(request.of.ref, [request.root], value, [key])}}
    return result | ({"errors": in_order(errors)} if errors else {})


def forbidden(places: list[Picked], path: list[str | int]) -> dict[str, Any]:
    locations = [{"line": line, "column": column} for line, column in (one.place for one in places)]
    return {"message": "Forbidden", "locations": locations, "path": path, "extensions": {"code": "FORBIDDEN"}}


def in_order(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Their order says nothing."""
    return sorted(errors, key=json.dumps)


# ---- what functions are told ----


def told(declaration: Declaration, n: int | None, tenant: Any, given: dict[str, Any], viewer: Viewer) -> str:
    """All that a function knows, as text."""
    known: list[Any] = [declaration.name, n, None if tenant is ALL_TENANTS else text(tenant), plain(given)]
    if declaration.takes_info:
        ids = [[type(id_).__name__, text(id_)] for id_ in (viewer.context.user_id, viewer.context.tenant_id)]
        known += [ids, plain({**viewer.fields, "expires_at": None})]
    return json.dumps(known, sort_keys=True)


def plain(value: Any) -> Any:
    """As JSON in which equal numbers look alike and nothing is null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {name: plain(member) for name, member in value.items() if member is not None}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return str(value) if isinstance(value, UUID) else value
