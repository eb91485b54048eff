"""Results against graphql-core's execution: what is made of values of every shape, and which errors are told where.

Types, documents and values are generated: values of functions, sync and async, and events that a passthrough hands on.
"""

from __future__ import annotations

import enum
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Literal
from uuid import UUID

import graphql
import pytest
from graphql.pyutils import inspect
from hypothesis import given

from fraiseql_subs import GraphQLError, GraphQLRequestError, Limits, Schema, SubscriptionManager, subscription
from tests.oracle import Chooser, cases, choosers, running, snake, tell

Mode = Literal["passthrough", "async", "sync"]

TEXTS = ["DateTime", "Date", "Time", "UUID", "Decimal"]
LEAFS = ["Int", "Float", "String", "Boolean", "ID", "JSON", "Odd", "Status", *TEXTS]
STATUSES = ["OPEN", "PAID", "camelCase"]


class Status(enum.Enum):
    OPEN = "anything"
    PAID = 2


class Numpy:
    """A number as numpy has them: no `int`, and converted by its own methods."""

    def __init__(self, number: float) -> None:
        self._number = number

    def __int__(self) -> int:
        return int(self._number)

    def __float__(self) -> float:
        return float(self._number)

    def __eq__(self, other: object) -> bool:
        return self._number == other

    def __hash__(self) -> int:
        return hash(self._number)

    def __str__(self) -> str:
        return str(self._number)


class Index:
    """An integer that declares itself by `__index__` alone."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number

    def __str__(self) -> str:
        return f"index {self._number}"


class Lazy:
    """A text that is made when it is read."""

    def __str__(self) -> str:
        return "later"


class Wrong:
    """A number that cannot be converted, and a text that cannot be had."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __float__(self) -> float:
        raise self._error

    __int__ = __float__

    def __str__(self) -> str:
        raise self._error


NUMBERS: list[Any] = [
    Numpy(7), Numpy(7.5), Numpy(0), Numpy(2**31), Numpy(-(2**31)), Numpy(2.0**40 + 0.5), Numpy(float("nan")),
    Numpy(float("-inf")), Fraction(6, 2), Fraction(1, 3), Fraction(0), Decimal("3.0"), Decimal("3.5"),
    Decimal("1E+3"), Decimal(0), Index(5), Index(0), Index(2**40),
]  # fmt: skip
FOREIGN: list[Any] = [
    *NUMBERS, Lazy(), PurePosixPath("a/b"), IPv4Address("10.0.0.1"), Wrong(ValueError("a secret")),
    Wrong(OverflowError("a secret")),
]  # fmt: skip

#: By type: what an event holds, and what a function may return besides.
JSONS: dict[str, list[Any]] = {
    "Int": [0, 7, -2147483648, 2147483647, 3.0, True, "12", " 7 "],
    "Float": [0.5, 3, -0.0, 1e300, True, "1.5", 2**40],
    "String": ["", "a", 'é\n"\\', 5, 1.5, 1e21, True],
    "Boolean": [True, False, 1, 0, 0.0],
    "ID": ["a", 7, -(10**20), 3.0],
    "JSON": [1, "a", [], {"b": [None, 1.5]}, False],
    "Odd": ["a", 1],
    "Status": [*STATUSES],
    "Decimal": ["1.50", 2.5, 3],
    **{name: ["2026-01-01"] for name in TEXTS[:-1]},
}
OBJECTS: dict[str, list[Any]] = {
    "Status": [Status.OPEN, Status.PAID],
    "DateTime": [datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)],
    "Date": [date(2026, 1, 2)],
    "Time": [time(3, 4, 5)],
    "UUID": [UUID(int=5)],
    "Decimal": [Decimal("1.50")],
    "ID": [UUID(int=6), *FOREIGN],
    "String": FOREIGN,
    "Int": FOREIGN,
    "Float": FOREIGN,
    "Boolean": FOREIGN,
}
JUNK: list[Any] = [
    None, True, 0, 1, 2147483648, -(2**70), 1.0, 2.5, 1e21, "", "7", "OPEN", "x", "x" * 100,
    [], [1], {}, {"a": "b"}, [None], [[]],
]  # fmt: skip


STRANGE: list[Any] = [
    float("nan"),
    float("inf"),
    b"bytes",
    object(),
    {1, 2},
    datetime(2026, 1, 1),
    Decimal("1.5"),
    Status.PAID,
]


class Later:
    """An awaitable."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    def __await__(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        yield
        return self.outcome


class Failing:
    """Stands for a value that cannot be had."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Bag:
    """An iterable that is no list."""

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return iter(self._items)


class Table(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def __getitem__(self, key: str) -> Any:
        return self._members[key]

    def __iter__(self) -> Any:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


ERRORS: list[Callable[[], Exception]] = [
    lambda: ValueError("a secret"),
    lambda: GraphQLError("told", extensions={"code": "MINE", "more": [1]}),
    lambda: graphql.GraphQLError("told too"),
]


@dataclass
class Generator:
    choose: Chooser
    mode: Mode
    #: Fields by object or interface: name, type and whether it takes arguments.
    fields: dict[str, dict[str, tuple[str, bool]]] = field(default_factory=dict)
    schema: graphql.GraphQLSchema = field(init=False)
    sdl: str = ""
    fragments: dict[str, str] = field(default_factory=dict)
    wrong: int = 0

    # ---- types ----

    def make_schema(self) -> None:
        choose = self.choose
        self.names = ["Order", "User", "Item"][: choose.integer(1, 3)]
        interfaces = ["Node"][: choose.integer(0, 1)]
        self.union = choose.some(self.names)
        self.composites = [*self.names, *interfaces, *(["Found"] if self.union else [])]
        for interface in interfaces:
            self.fields[interface] = self.members("id", "shared")
        implementing = {name: choose.some(interfaces, 70) for name in self.names}
        for name in self.names:
            self.fields[name] = self.members("id", "customerName", "items", "total", "another")
            for interface in implementing[name]:
                self.fields[name] |= self.fields[interface]
        root = self.reference(self.composites if choose.chance(80) else LEAFS)
        parts = [
            f"type Subscription {{ root: {root} }}",
            "type Types { a: Int, b: Float, c: String, d: ID, e: Boolean }",
        ]
        parts += [f"scalar {name}" for name in [*TEXTS, "JSON", "Odd"]]
        parts += [f"enum Status {{ {' '.join(STATUSES)} }}"]
        for name in self.fields:
            head = f"interface {name}" if name in interfaces else f"type {name}"
            given = f" implements {' & '.join(implementing[name])}" if implementing.get(name) else ""
            parts.append(f"{head}{given} {{ {', '.join(self.written(name))} }}")
        if self.union:
            parts.append(f"union Found = {' | '.join(self.union)}")
        self.sdl = "\n".join(parts)
        self.schema = build(self.sdl)

    def members(self, *names: str) -> dict[str, tuple[str, bool]]:
        takes = 0 if self.mode == "passthrough" else 25
        return {name: (self.reference(), self.choose.chance(takes)) for name in names if self.choose.chance(80)} or {
            "id": ("ID", False)
        }

    def written(self, name: str) -> list[str]:
        arguments = "(first: Int = 1, someDates: [Date!])"
        return [
            f"{member}{arguments if takes else ''}: {reference}"
            for member, (reference, takes) in self.fields[name].items()
        ]

    def reference(self, names: Sequence[str] = ()) -> str:
        choose = self.choose
        name = choose.one(names or [*LEAFS, *self.composites, *self.composites, *self.composites])
        name += "!" * choose.chance(30)
        for _ in range(choose.one([0, 0, 0, 1, 1, 2])):
            name = f"[{name}]" + "!" * choose.chance(30)
        return name

    # ---- documents ----

    def case(self) -> tuple[str, dict[str, Any], Any]:
        """A document, its variables and what the root gives."""
        self.wrong = self.choose.one([0, 0, 3, 10])
        query = self.document()
        assert self.schema.subscription_type
        value = self.value(self.schema.subscription_type.fields["root"].type)
        if self.mode == "passthrough" and not isinstance(value, dict):  # an event's data is an object
            value = next((one for one in value if isinstance(one, dict)), {}) if isinstance(value, list) else {}
        return query, {name: name == "yes" for name in ("yes", "no") if f"${name}:" in query}, value

    def document(self) -> str:
        self.fragments = {}
        root = self.schema.subscription_type
        assert root
        type_ = graphql.get_named_type(root.fields["root"].type)
        body = f" {{ {self.selection(type_, 1)} }}" if graphql.is_composite_type(type_) else ""
        query = f"{{\n {self.choose.one(['', 'alias: '])}root{body} }}\n" + "\n".join(self.fragments.values())
        declared = [f"${name}: Boolean!" for name in ("yes", "no") if f"${name}" in query]
        return f"subscription {'(' + ', '.join(declared) + ')' if declared else ''} {query}"

    def selection(self, type_: Any, depth: int) -> str:
        choose = self.choose
        parts = [self.selected(type_, depth) for _ in range(choose.integer(1, 4))]
        return choose.one([" ", "\n  "]).join(parts)

    def selected(self, type_: Any, depth: int) -> str:
        choose, fields = self.choose, self.fields.get(type_.name)
        directive = choose.one(
            [""] * 8 + [" @include(if: $yes)", " @skip(if: $no)", " @skip(if: $yes)", " @include(if: false)"]
        )
        how = choose.integer(0, 9)
        if how == 9 or (fields is None and how < 4):
            return choose.one(["__typename", "kind: __typename"]) + directive
        if (how > 6 or fields is None) and depth < 3:
            return self.fragment(type_, depth, directive)
        if fields is None:
            return "__typename"
        name = choose.one(list(fields))
        _, takes = fields[name]
        inner = graphql.get_named_type(type_.fields[name].type)
        if graphql.is_composite_type(inner):
            directive += f" {{ {self.selection(inner, depth + 1) if depth < 3 else '__typename'} }}"
        alias = choose.one([""] * 6 + [f"{name}1: "] * 3 + ["another: "])
        arguments = choose.one(["", "(first: 2)", '(someDates: "2026-01-01")', "(first: null)"]) if takes else ""
        return (
            f"{alias or ('with' + str(len(arguments)) + name + ': ' if arguments else '')}{name}{arguments}{directive}"
        )

    def fragment(self, type_: Any, depth: int, directive: str) -> str:
        choose = self.choose
        mine = {one.name for one in self.possible(type_)}
        near = [
            name for name in self.composites if mine & {one.name for one in self.possible(self.schema.type_map[name])}
        ]
        if not near or choose.chance(self.wrong):
            near = self.composites
        target = choose.one(near)
        how = choose.integer(0, 4)
        body = f"{{ {self.selection(self.schema.type_map[target], depth + 1)} }}" if how else ""
        if how == 0:
            return f"...{directive} {{ {self.selection(type_, depth + 1)} }}"
        if how < 3:
            return f"... on {target}{directive} {body}"
        name = f"F{len(self.fragments)}"
        self.fragments[name] = f"fragment {name} on {target} {body}"
        return f"...{name}{directive}"

    def possible(self, type_: Any) -> list[graphql.GraphQLObjectType]:
        return self.schema.get_possible_types(type_) if graphql.is_abstract_type(type_) else [type_]

    # ---- values ----

    def value(self, type_: Any, depth: int = 0) -> Any:
        choose, python = self.choose, self.mode != "passthrough"
        if depth > 4:
            return None
        if python and choose.chance(8):
            value = choose.one(ERRORS)() if choose.chance(20) else self.value(type_, depth + 1)
            return value if isinstance(value, Later) else Later(value)
        if choose.chance(self.wrong):
            return choose.one(JUNK + STRANGE if python else JUNK)
        if graphql.is_non_null_type(type_):
            type_ = type_.of_type
        elif choose.chance(8):
            return None
        if graphql.is_list_type(type_):
            items = [self.value(type_.of_type, depth + 1) for _ in range(choose.one([0, 1, 1, 2, 3]))]
            return choose.one([list, tuple, Bag])(items) if python and choose.chance(20) else items
        if graphql.is_leaf_type(type_):
            return choose.one(JSONS[type_.name] + (OBJECTS.get(type_.name, []) if python else []))
        return self.object(type_, depth)

    def object(self, type_: Any, depth: int) -> Any:
        choose = self.choose
        concrete = choose.one(self.possible(type_) or self.possible(self.schema.type_map[self.names[0]]))
        members: dict[str, Any] = {}
        for name, (_, takes) in self.fields[concrete.name].items():
            if choose.chance(6):
                continue
            value = self.value(concrete.fields[name].type, depth + 1)
            if self.mode != "passthrough" and choose.chance(4):
                value = Failing(choose.one(ERRORS)())
            if takes and choose.chance(90):
                value = self.method(value)
            members[choose.one([snake(name), snake(name), name])] = value
            if choose.chance(10):
                members.setdefault(name, "the Python name goes first")
        label = concrete.name
        if graphql.is_abstract_type(type_) and choose.chance(self.wrong):
            label = choose.one([*self.names, "Nothing", ""])
        if self.mode == "passthrough":
            return members | ({"__typename": label} if graphql.is_abstract_type(type_) and label else {})
        return self.instance(members, label, graphql.is_abstract_type(type_))

    def method(self, value: Any) -> Callable[..., Any]:
        """Tells what it was called with in place of some values."""
        tells = self.choose.chance(30)

        def method(**arguments: Any) -> Any:
            if isinstance(value, Failing):
                raise value.error
            return repr(sorted(arguments.items())) if tells else value

        return method

    def instance(self, members: dict[str, Any], label: str, is_abstract: bool) -> Any:
        how = self.choose.integer(0, 3)
        if how < 2 and not any(isinstance(value, Failing) for value in members.values()):
            if is_abstract and label:
                members["__typename"] = label
            return [MappingProxyType, Table][how](members) if self.choose.chance(30) else members

        def attribute(value: Any) -> Any:
            if not isinstance(value, Failing):
                return staticmethod(value) if callable(value) else value

            def fail(_: Any) -> Any:
                raise value.error

            return property(fail)

        namespace = {name: attribute(value) for name, value in members.items()}
        is_named = self.choose.chance(50)
        if is_abstract and label and not is_named:
            namespace["__typename"] = label
        return type(label if is_named and label else "Anything", (), namespace)()


# ---- graphql-core ----

Answer = dict[str, Any] | None
"""An ExecutionResult; `None` where the document is refused."""


def build(sdl: str) -> graphql.GraphQLSchema:
    return graphql.build_schema(sdl + "\ntype Query { _empty: Boolean }")


SCALARS = (str, int, float, Decimal, UUID, list)


class Oracle:
    """graphql-core, reading as we say that we read."""

    def __init__(self, sdl: str, mode: Mode) -> None:
        self.schema, self.mode = build(sdl), mode
        for type_ in self.schema.type_map.values():
            if isinstance(type_, graphql.GraphQLScalarType) and type_.name in [*TEXTS, "JSON", "Odd"]:
                type_.coerce_output_value = serializer(type_.name if type_.name in TEXTS else "JSON")
                if type_.name == "Date":
                    type_.coerce_input_value = date.fromisoformat
            elif isinstance(type_, graphql.GraphQLEnumType):
                type_.coerce_output_value = serializer_of_enum(type_)  # type: ignore[method-assign, assignment]
            elif isinstance(type_, graphql.GraphQLObjectType):
                type_.is_type_of = lambda value, _: not isinstance(value, SCALARS)

    def execute(self, query: str, variables: dict[str, Any], value: Any) -> Answer:
        document = graphql.parse(query)
        if graphql.validate(self.schema, document):
            return None
        result = graphql.execute_sync(
            self.schema,
            document,
            value,
            variable_values=variables,
            field_resolver=self.resolve,
            type_resolver=type_of,
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [formatted(error) for error in result.errors]
        return answer

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        if info.parent_type is self.schema.subscription_type:
            return self.settled(source, graphql.get_named_type(info.return_type).name)
        found = lookup(source, snake(info.field_name), info.field_name)
        if callable(found):
            found = found(**{snake(name): value for name, value in arguments.items()})
        return self.settled(found, graphql.get_named_type(info.return_type).name)

    def settled(self, value: Any, type_name: str) -> Any:
        while isinstance(value, Later):
            if self.mode == "sync":
                return graphql.GraphQLError("an awaitable can be read where the function is async alone")
            value = value.outcome
        if isinstance(value, (list, tuple, Bag)):
            return [self.settled(item, type_name) for item in value]
        if isinstance(value, Decimal) and type_name in ("Int", "Float", "Boolean"):
            return value
        return plain(value) if isinstance(value, (datetime, date, time, UUID, Decimal, enum.Enum)) else value


def lookup(source: Any, *names: str) -> Any:
    for name in names:
        if isinstance(source, Mapping):
            if name in source:
                return source[name]
        elif hasattr(type(source), name):
            return getattr(source, name)
    return None


def type_of(value: Any, info: Any, type_: graphql.GraphQLAbstractType) -> Any:
    label = lookup(value, "__typename")
    if label is None and type(value).__name__ in [possible.name for possible in info.schema.get_possible_types(type_)]:
        label = type(value).__name__
    return label if isinstance(label, str) else None


def serializer(name: str) -> Callable[[Any], Any]:
    def serialize(value: Any) -> Any:
        try:
            published = json.loads(json.dumps(value, allow_nan=False, default=plain))
        except (ValueError, TypeError):
            published = value
        else:
            numeric = name == "Decimal" and isinstance(value, (int, float)) and not isinstance(value, bool)
            if name == "JSON" or isinstance(published, str) or numeric:
                return published
        raise graphql.GraphQLError(f"{name} cannot represent value: {inspect(value)}")

    return serialize


def plain(value: Any) -> Any:
    """As an event's data converts."""
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    raise TypeError


def serializer_of_enum(type_: graphql.GraphQLEnumType) -> Callable[[Any], Any]:
    def serialize(value: Any) -> Any:
        name = value.name if isinstance(value, enum.Enum) else value
        if isinstance(name, str) and name in type_.values:
            return name
        raise graphql.GraphQLError(f"Enum '{type_.name}' cannot represent value: {inspect(value)}")

    return serialize


def formatted(error: graphql.GraphQLError) -> dict[str, Any]:
    """As we tell it: of an exception nothing, of a value sixty characters."""
    original = error.original_error
    extensions = {"code": "INTERNAL_SERVER_ERROR"}
    message = error.message.partition(" Either the ")[0]  # advice to the schema's author
    if unknown := re.match(r"Abstract type '(\w+)' was resolved to a type '(.*)' that does not exist", message):
        message = f"Runtime Object type '{unknown[2]}' is not a possible type for '{unknown[1]}'."
    if isinstance(original, GraphQLError):
        extensions |= original.extensions
    elif isinstance(original, (ValueError, OverflowError)):
        message = "Internal server error"
    return {
        "message": message,
        "locations": [{"line": at.line, "column": at.column} for at in error.locations or ()],
        "path": error.path,
        "extensions": extensions,
    }


# ---- ours ----


class Ours:
    """A manager whose function returns what it is told to."""

    def __init__(self, sdl: str, mode: Mode) -> None:
        self.value: Any = None
        self.mode = mode

        async def root_async() -> Any:
            return self.value

        def root_sync() -> Any:
            return self.value

        function = root_async if mode == "async" else root_sync
        declare = subscription(channel="c", name="root", passthrough=mode == "passthrough")
        limits = Limits(max_query_aliases=1000, max_query_tokens=10_000)
        self.manager = SubscriptionManager(Schema.from_sdl(sdl, [declare(function)]), limits=limits)

    async def execute(self, query: str, variables: dict[str, Any], value: Any) -> Answer:
        self.value = value
        try:
            async with self.manager.subscribe(query, variables=variables, framing="result") as stream:
                await self.manager.publish_event("e", "c", value if self.mode == "passthrough" else {})
                answer: Answer = json.loads(await anext(stream))
                return answer
        except GraphQLRequestError as error:
            refused = error.errors
        assert {each["extensions"]["code"] for each in refused} == {"GRAPHQL_VALIDATION_FAILED"}
        return None


VALUE = re.compile(r"^(.* (?:cannot represent[^:]*|but got): )(.*?)(\.\.\.)?\.?$", re.DOTALL)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether errors are the same; values that messages show are cut, and those of Python's classes look different."""
    if {**ours, "message": ""} != {**theirs, "message": ""}:
        return False
    mine, other = VALUE.match(ours["message"]), VALUE.match(theirs["message"])
    if not mine or not other:
        return bool(ours["message"] == theirs["message"])
    if mine[1] != other[1]:
        return False
    is_cut = bool(mine[3]) and other[2].startswith(mine[2])
    return (
        mine[2] == other[2] or is_cut or other[2].startswith("<") or mine[2].startswith(("an instance of ", "result"))
    )


def compare(ours: Answer, theirs: Answer) -> None:
    """Equal, keys in the same order; errors in the order of the document, as graphql-core had them before 3.3."""
    assert (ours is None) == (theirs is None)
    if ours is None or theirs is None:
        return
    assert json.dumps(numbers(ours["data"])) == json.dumps(numbers(theirs["data"]))

    def in_order(error: dict[str, Any]) -> Any:
        steps = [(isinstance(step, str), step) for step in error["path"]]
        return [(at["line"], at["column"]) for at in error["locations"]], steps

    expected = sorted(theirs.get("errors", []), key=in_order)
    assert len(ours.get("errors", [])) == len(expected)
    assert all(map(same, ours.get("errors", []), expected))


def numbers(value: Any) -> Any:
    """JSON has one kind of number."""
    if isinstance(value, dict):
        return {name: numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize("mode", ["passthrough", "async", "sync"])
def test_completion_is_graphql_cores(mode: Mode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fraiseql_subs")  # many functions fail
    with running() as run:

        @cases(45)
        @given(choosers())
        def check(choose: Chooser) -> None:
            generator = Generator(choose, mode)
            generator.make_schema()
            tell(generator.sdl)
            oracle, ours = Oracle(generator.sdl, mode), Ours(generator.sdl, mode)

            async def ask() -> None:
                async with ours.manager:
                    for _ in range(5):
                        query, variables, value = generator.case()
                        tell(f"{query}\n{variables}\n{value}")
                        expected = oracle.execute(query, variables, value)
                        got = await ours.execute(query, variables, value)
                        tell(f"theirs: {expected}\n  ours: {got}")
                        compare(got, expected)

            run(ask())

        check()


#: What was found: how, the root's type, what is selected of it, the value.
FOUND: list[tuple[Mode, str, str, Any]] = [
    ("async", "Order", "{ id total }", {"id": "a", "total": float("nan")}),
    ("sync", "Order", "{ id order { id } }", {"id": "a", "order": float("inf")}),
    ("async", "[Order]", "{ id }", [{"id": "a"}, Decimal("NaN"), "a\ud800"]),
    ("async", "[Int]", "", b"bytes"),
    ("async", "Order", "{ id }", "no order"),
    ("async", "Order", "{ id }", [{"id": "a"}]),
    ("sync", "Order", "{ id }", Later({"id": "a"})),
    ("async", "Order", "{ id }", Later({"id": "a"})),
    ("sync", "Int", "", Later(1)),
    ("async", "[Status]", "", [["OPEN"]]),
]


@pytest.mark.parametrize(("mode", "reference", "selection", "value"), FOUND)
def test_what_was_found(mode: Mode, reference: str, selection: str, value: Any) -> None:
    sdl = f"""
        type Subscription {{ root: {reference} }} enum Status {{ OPEN }}
        type Order {{ id: ID, total: Float, order: Order, status: Status, count: Int }}
    """
    query, ours = f"subscription {{ root {selection} }}", Ours(sdl, mode)

    async def ask() -> None:
        async with ours.manager:
            compare(await ours.execute(query, {}, value), Oracle(sdl, mode).execute(query, {}, value))

    with running() as run:
        run(ask())


@pytest.mark.parametrize("reference", ["Int", "Float", "String", "Boolean", "ID"])
def test_leaves_of_other_classes(reference: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "fraiseql_subs")
    sdl = f"type Subscription {{ root: [{reference}] }}"
    ours, theirs = Ours(sdl, "async"), Oracle(sdl, "async")
    query = "subscription { root }"

    async def ask() -> None:
        async with ours.manager:
            for value in FOREIGN:
                compare(await ours.execute(query, {}, [value]), theirs.execute(query, {}, [value]))

    with running() as run:
        run(ask())


@pytest.mark.timeout(10)
@pytest.mark.parametrize("value", [Fraction(10**400), Decimal("1e999999"), Wrong(TypeError("a secret"))], ids=type)
def test_an_int_that_graphql_core_refuses_in_other_words(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What is out of range is not made an integer first, whose digits may be millions."""
    caplog.set_level(logging.CRITICAL, "fraiseql_subs")
    ours = Ours("type Subscription { root: Int }", "async")

    async def ask() -> Answer:
        async with ours.manager:
            return await ours.execute("subscription { root }", {}, value)

    with running() as run:
        answer = run(ask())
    assert answer
    assert answer["data"] == {"root": None}
    assert len(answer["errors"]) == 1


# ---- where we differ, and why; of the order of errors see `compare` ----

DEVIATIONS: list[tuple[str, str, Any, Any, Any]] = [
    # why, the root's type, the value, graphql-core's result, ours; None is an error
    ("a number is rounded rather than lost, as before graphql-core 3.3", "Float", 2**53 + 1, None, 2.0**53),
    ("an instant is ISO 8601", "String", datetime(2026, 1, 1), "2026-01-01 00:00:00", "2026-01-01T00:00:00"),
    ("an enum's member is its name", "String", Status.PAID, "Status.PAID", "PAID"),
    ("no text holds NUL", "String", "a\0", "a\0", None),
]  # fmt: skip


@pytest.mark.parametrize(("why", "reference", "value", "theirs", "expected"), DEVIATIONS)
def test_deviations(why: str, reference: str, value: Any, theirs: Any, expected: Any) -> None:
    sdl = f"type Subscription {{ root: {reference} }}"
    ours = Ours(sdl, "async")

    async def ask() -> Answer:
        async with ours.manager:
            return await ours.execute("subscription { root }", {}, value)

    with running() as run:
        answer = run(ask())
    assert answer
    assert answer["data"] == {"root": expected}, why
    result = graphql.execute_sync(build(sdl), graphql.parse("subscription { root }"), {"root": value})
    assert result.data == {"root": theirs}, why
    assert (expected is None, theirs is None) == ("errors" in answer, bool(result.errors)), why
