import asyncio
import enum
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, make_dataclass
from datetime import date, datetime, time, timezone
from decimal import Decimal
from functools import wraps
from typing import Annotated, Any, ClassVar, NewType, Optional
from uuid import UUID, uuid4

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    Info,
    Schema,
    SchemaError,
    argument,
    data,
    requires,
    subscription,
    viewer,
)


class Color(enum.Enum):
    """What it looks like."""

    RED = 1
    GREEN = 2


@dataclass
class Customer:
    name: str


@dataclass
class Company:
    vat_id: str | None


@dataclass
class Order:
    """An order as clients see it.

    It has "several" lines.
    """

    id: ID
    unit_price: Annotated[float | None, requires("orders:read_total")]
    buyer: "Customer | Company | None"
    placed_at: datetime
    day: date
    hour: time
    key: UUID
    total: Decimal
    extra: JSON
    lines: list[str | None] = field(default_factory=list)
    colors: Sequence[Color] | None = None
    parent: Optional["Order"] = None
    kind: ClassVar[str] = "order"


@dataclass
class Filter:
    """Narrows it down."""

    min_total: float = 1.5
    color: Color | None = Color.RED
    note: str = 'say "hi"\n\\'
    tags: list[str] = field(default_factory=lambda: ["a"])
    since: datetime | None = None
    inner: "Filter | None" = None


ORDER_SDL = """\
type Query {
  _empty: Boolean
}

type Subscription {
  \"\"\"Tells of changes.\"\"\"
  orderUpdated(orderId: ID!, filter: Filter! = {minTotal: 2.0, color: GREEN, note: "", tags: ["a"]}, first: Int): Order!
}

\"\"\"Narrows it down.\"\"\"
input Filter {
  minTotal: Float! = 1.5
  color: Color = RED
  note: String! = "say \\"hi\\"\\n\\\\"
  tags: [String!]! = ["a"]
  since: DateTime
  inner: Filter
}

\"\"\"What it looks like.\"\"\"
enum Color {
  RED
  GREEN
}

scalar DateTime

\"\"\"
An order as clients see it.

It has "several" lines.
\"\"\"
type Order {
  id: ID!
  unitPrice: Float
  buyer: CustomerCompany
  placedAt: DateTime!
  day: Date!
  hour: Time!
  key: UUID!
  total: Decimal!
  extra: JSON!
  lines: [String]!
  colors: [Color!]
  parent: Order
}

type Customer {
  name: String!
}

type Company {
  vatId: String
}

union CustomerCompany = Customer | Company

scalar Date

scalar Time

scalar UUID

scalar Decimal

scalar JSON
"""


DEFAULT = Filter(min_total=2.0, color=Color.GREEN, note="")


@subscription
async def order_updated(
    event: Event,
    order_id: ID,
    filter: Filter = DEFAULT,
    first: int | None = None,
) -> Order:
    """Tells of changes."""
    return Order(**event.data)


def canonical(sdl: str) -> str:
    """SDL without what a printer is free in."""
    graphql = pytest.importorskip("graphql")
    text: str = graphql.print_schema(graphql.lexicographic_sort_schema(graphql.build_schema(sdl)))
    return text


def call(schema: Schema, arguments: dict[str, Any], event: Event | None = None, info: Info | None = None) -> Any:
    return schema.functions[0].call(event, arguments, info)


def code_first(function: Any) -> Schema:
    return Schema(subscriptions=[function])


def test_code_first_maps_every_kind_of_type():
    assert canonical(code_first(order_updated).sdl) == canonical(ORDER_SDL)


def test_the_printed_schema_holds_descriptions_and_defaults():
    sdl = code_first(order_updated).sdl
    assert "An order as clients see it." in sdl
    assert "Tells of changes." in sdl
    assert "It has" in sdl
    assert "Order(id" not in sdl  # the docstring that @dataclass makes up is no description
    assert "Customer(" not in sdl


def test_pydantic_models_are_types_and_inputs():
    import pydantic

    class Item(pydantic.BaseModel):
        """A thing."""

        item_id: ID
        size: int | None = pydantic.Field(default=None, description="In metres.")

    class Where(pydantic.BaseModel):
        min_size: int = pydantic.Field(default=3, alias="min")

    @subscription
    def items(where: Where) -> Item:
        return Item(item_id=ID("1"), size=where.min_size)

    schema = code_first(items)
    assert canonical(schema.sdl) == canonical(
        "type Query { _empty: Boolean } type Subscription { items(where: Where!): Item! } "
        'input Where { minSize: Int! = 3 } "A thing." type Item { itemId: ID! "In metres." size: Int }'
    )
    assert call(schema, {"where": {"min_size": 5}}) == Item(item_id=ID("1"), size=5)


def test_new_types_and_nested_annotations_are_looked_through():
    user_id = NewType("user_id", int)

    @subscription
    def f(user: Annotated[user_id | None, "whose"] = None) -> list[list[Annotated[user_id, "it"]]]:
        return []

    assert "f(user: Int): [[Int!]!]!" in code_first(f).sdl


def test_a_decorated_function_is_still_the_function():
    async def plain(event: Event) -> int:
        return len(event.data)

    assert subscription(plain) is plain
    assert asyncio.run(plain(Event("t", "c", {"a": 1}))) == 1


def test_arguments_become_what_annotations_say():
    @subscription
    def f(
        event: Event,
        info: Info,
        order_id: ID,
        filter: Filter,
        colors: tuple[Color, ...],
        at: datetime,
        day: date,
        hour: time,
        key: UUID,
        total: Decimal,
        ratio: float,
        extra: JSON,
        missing: int | None,
        first: int = 7,
    ) -> JSON:
        return locals()

    event, info = Event("t", "c", {}), object()
    given = {
        "order_id": "1",
        "filter": {"min_total": 2, "color": None, "note": "n", "tags": [], "inner": {"color": "GREEN"}},
        "colors": ["GREEN", "RED"],
        "at": "2026-01-02T03:04:05.1234567Z",
        "day": "2026-01-02",
        "hour": "03:04:05.5",
        "key": "c0ffee00-0000-4000-8000-000000000000",
        "total": "9.50",
        "ratio": 1,
        "extra": {"a": [1]},
    }
    assert call(code_first(f), given, event, info) == {  # type: ignore[arg-type]
        "event": event,
        "info": info,
        "order_id": "1",
        "filter": Filter(min_total=2.0, color=None, note="n", tags=[], inner=Filter(color=Color.GREEN)),
        "colors": (Color.GREEN, Color.RED),
        "at": datetime(2026, 1, 2, 3, 4, 5, 123456, timezone.utc),
        "day": date(2026, 1, 2),
        "hour": time(3, 4, 5, 500000),
        "key": UUID("c0ffee00-0000-4000-8000-000000000000"),
        "total": Decimal("9.50"),
        "ratio": 1.0,
        "extra": {"a": [1]},
        "missing": None,
        "first": 7,
    }


def test_the_event_and_the_info_are_known_by_annotation_or_by_name():
    @subscription
    def by_annotation(what: Event, who: Info, event: int) -> JSON:
        return what, who, event

    @subscription
    def by_name(event, info) -> JSON:
        return event, info

    event, info = Event("t", "c", {}), object()
    assert call(code_first(by_annotation), {"event": 3}, event, info) == (event, info, 3)  # type: ignore[arg-type]
    assert call(code_first(by_name), {}, event, info) == (event, info)  # type: ignore[arg-type]


def test_text_annotations_find_local_classes_in_types():
    @dataclass
    class Local:
        id: ID
        next: "Local | None" = None

    @subscription
    def f() -> "Local":
        raise NotImplementedError

    with pytest.raises(SchemaError, match=r"f, what it returns: .*'Local'.*types="):
        code_first(f)
    assert "next: Local\n" in Schema(subscriptions=[f], types=[Local]).sdl


def test_types_adds_what_no_annotation_leads_to():
    @subscription
    def f() -> int:
        return 1

    assert "type Customer {" in Schema(subscriptions=[f], types=[Customer]).sdl
    with pytest.raises(SchemaError, match="types: expected dataclasses"):
        Schema(subscriptions=[f], types=[int])


def test_kinds_of_functions():
    @subscription(passthrough=True)
    async def passed() -> Customer:
        raise NotImplementedError

    @subscription
    def sync() -> int:
        return 1

    @subscription
    async def is_async() -> int:
        return 1

    @subscription(requires=requires("a"), overflow="latest")
    async def generated(info: Info) -> AsyncIterator[int]:
        yield 1

    schema = Schema(subscriptions=[passed, sync, is_async, generated])
    assert [(one.field, one.kind) for one in schema.functions] == [
        ("passed", "passthrough"),
        ("sync", "sync"),
        ("isAsync", "async"),
        ("generated", "generator"),
    ]


def bad_declarations() -> list[Any]:
    """Decorations that must raise, by what the message must say."""

    def takes_id(event: Event, order_id: ID) -> int: ...  # type: ignore[empty-body]
    def sync_generator() -> Any:
        yield 1

    async def generator(info: Info) -> AsyncIterator[int]:
        yield 1

    async def generator_of_events(event: Event) -> AsyncIterator[int]:
        yield 1

    def takes_info(info: Info) -> int: ...  # type: ignore[empty-body]
    def takes_rest(*rest: int) -> int: ...  # type: ignore[empty-body]
    def takes_keywords(**rest: int) -> int: ...  # type: ignore[empty-body]
    def two_events(a: Event, b: Event) -> int: ...  # type: ignore[empty-body]

    where = data["id"] == argument("order_id")
    return [
        (takes_id, {"where": argument("nope").is_null()}, "takes_id, where: unknown argument 'nope'; expected order_"),
        (takes_id, {"rows": data["id"] == argument("nope")}, "takes_id, rows: unknown argument 'nope'"),
        (takes_id, {"where": True}, "where: expected a predicate"),
        (takes_id, {"requires": "admin"}, r"requires: expected requires\("),
        (takes_id, {"requires": requires}, r"requires: expected requires\("),
        (takes_id, {"event_types": "orderUpdated"}, "event_types: expected a collection"),
        (takes_id, {"event_types": []}, "event_types: expected a collection of at least one"),
        (takes_id, {"event_types": [1]}, "event_types: expected a str"),
        (takes_id, {"event_types": 1}, "event_types: expected a collection"),
        (takes_id, {"channel": ""}, "channel: it cannot be empty"),
        (takes_id, {"channel": 1}, "channel: expected a str"),
        (takes_id, {"name": "order-updated"}, "'order-updated' is no GraphQL name"),
        (takes_id, {"timeout": 0}, "timeout: expected a finite number above 0"),
        (takes_id, {"timeout": float("inf")}, "timeout: expected a finite number"),
        (takes_id, {"overflow": "block"}, "overflow: expected one of 'disconnect'"),
        (takes_id, {"rows": "id == 1"}, "rows: expected a predicate"),
        (takes_id, {"scope": {"nope": viewer("user_id")}}, "takes_id, scope: unknown argument 'nope'; expected order_"),
        (takes_id, {"scope": {"nope.id": viewer("user_id")}}, "takes_id, scope: unknown argument 'nope'"),
        (takes_id, {"scope": {"orderId": viewer("user_id")}}, "takes_id, scope: unknown argument 'orderId'"),
        (takes_id, {"scope": {"order_id": "user_id"}}, "scope: expected a mapping as in"),
        (takes_id, {"scope": {"order_id": data["id"]}}, "scope: expected a mapping as in"),
        (takes_id, {"scope": {"order_id": argument("order_id")}}, "scope: expected a mapping as in"),
        (takes_id, {"scope": {"order_id": viewer("user_id") == 1}}, "scope: expected a mapping as in"),
        (takes_id, {"scope": ["order_id"]}, "scope: expected a mapping as in"),
        (takes_id, {"scope": {"order_id.": viewer("user_id")}}, "scope: expected a mapping as in .* got the path"),
        (takes_id, {"scope": {"": viewer("user_id")}}, "scope: it cannot be empty"),
        (takes_id, {"scope": {1: viewer("user_id")}}, "scope: expected a str"),
        (takes_id, {"sources": "shop"}, "sources: expected a collection of str, got 'shop'"),
        (takes_id, {"sources": [1]}, "sources: expected a str"),
        (takes_id, {"sources": [""]}, "sources: it cannot be empty"),
        (takes_id, {"sources": 1}, "sources: expected a collection"),
        (takes_id, {"requires": ["admin"]}, r"requires: expected requires\("),
        (takes_id, {"events_per_second": 0}, "events_per_second: expected a finite number above 0"),
        (takes_id, {"events_per_second": float("nan")}, "events_per_second: expected a finite number"),
        (takes_id, {"events_per_second": "1"}, "events_per_second: expected a number"),
        (sync_generator, {}, "sync_generator: expected an async generator"),
        (generator, {"channel": "c"}, "a generator function cannot have channel"),
        (generator, {"event_types": ["a"]}, "cannot have event_types"),
        (generator, {"where": data["a"] == 1}, "cannot have where"),
        (generator, {"rows": data["a"] == 1}, "cannot have rows"),
        (generator, {"timeout": 1}, "cannot have timeout"),
        (generator, {"sources": ["a"]}, "cannot have sources"),
        (generator, {"events_per_second": 1}, "cannot have events_per_second"),
        (generator, {"passthrough": True}, "a generator cannot be a passthrough"),
        (generator_of_events, {}, "cannot have an event parameter"),
        (takes_info, {"passthrough": True}, "a passthrough function cannot have an info parameter"),
        (takes_rest, {}, r"\*rest: int cannot be an argument"),
        (takes_keywords, {}, r"\*\*rest: int cannot be an argument"),
        (two_events, {}, "two parameters are annotated Event"),
        (Customer, {}, "expects a function"),
        (takes_info, {"where": where}, "unknown argument 'order_id'; expected none"),
    ]  # fmt: skip


@pytest.mark.parametrize(("function", "options", "message"), bad_declarations())
def test_a_wrong_decoration_raises(function: Any, options: dict[str, Any], message: str):
    with pytest.raises(SchemaError, match=message):
        subscription(**options)(function)
    assert not hasattr(function, "__subscription__")


@dataclass
class Scoped:
    tenant_id: ID
    tags: list[str]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("filter.tenant_id", None),
        ("filter.tags", None),
        ("filters.tenant_id", None),
        ("anything.at.all", None),
        ("filter.nope", 'unknown argument "filter.nope"'),
        ("filter.tenantId", 'unknown argument "filter.tenantId"'),
        ("filter.tenant_id.nope", 'unknown argument "filter.tenant_id.nope"'),
        ("filters.tags.nope", 'unknown argument "filters.tags.nope"'),
    ],
)
def test_a_scope_names_what_there_is_in_its_arguments(path: str, message: str | None):
    @subscription(scope={path: viewer("tenant_id")})
    def field(filter: Scoped, filters: list[Scoped], anything: JSON) -> int: ...  # type: ignore[empty-body]

    if message is None:
        Schema(subscriptions=[field])
    else:
        with pytest.raises(SchemaError, match=message):
            Schema(subscriptions=[field])


@pytest.mark.parametrize("path", [("nope",), ("userId",), ("user_id", "nope"), ("roles", "nope"), ("",)])
def test_a_viewer_has_these_fields_and_only_claims_have_some_below(path: tuple[str, ...]):
    assert repr(viewer("claims", "org", "id")) == "viewer('claims', 'org', 'id')"
    with pytest.raises(SchemaError, match="viewer"):
        viewer(*path)


@dataclass
class Empty: ...


@dataclass
class Hidden:
    _secret: str


@dataclass
class Twice:
    a_b: int
    aB: int


@dataclass
class Unmapped:
    value: complex


@dataclass
class Guarded:
    value: Annotated[int, requires("a")]


@dataclass
class Uncalled:
    value: Annotated[int, requires]


@dataclass
class RandomDefault:
    key: UUID = field(default_factory=uuid4)


class Nothing(enum.Enum):
    pass


class Reserved(enum.Enum):
    true = 1


NOTHING = object()
Query: Any = make_dataclass("Query", [("a", int)])
Another: Any = make_dataclass("Customer", [("a", int)])


def bad_schemas() -> list[Any]:
    """Functions that decorate, and make no schema."""

    def unannotated() -> Customer: ...  # type: ignore[empty-body]
    def no_return(): ...
    def none() -> None: ...
    def unknown_argument(a): ...
    def argument_without_type(a) -> int: ...  # type: ignore[empty-body]
    def unmapped_argument(a: complex) -> int: ...  # type: ignore[empty-body]
    def union_argument(a: Customer | Company) -> int: ...  # type: ignore[empty-body]
    def bare_list() -> list: ...  # type: ignore[empty-body, type-arg]
    def mapping() -> dict[str, int]: ...  # type: ignore[empty-body]
    def scalars() -> int | str: ...  # type: ignore[empty-body]
    def stream() -> AsyncIterator[int]: ...  # type: ignore[empty-body]
    async def no_stream(info: Info) -> int:  # type: ignore[misc]
        yield 1

    def empty() -> Empty: ...  # type: ignore[empty-body]
    def hidden() -> Hidden: ...  # type: ignore[empty-body]
    def hidden_argument(_a: int) -> int: ...  # type: ignore[empty-body]
    def twice() -> Twice: ...  # type: ignore[empty-body]
    def twice_given(a_b: int, aB: int) -> int: ...  # type: ignore[empty-body]
    def unmapped() -> Unmapped: ...  # type: ignore[empty-body]
    def both(a: Customer) -> Customer: ...  # type: ignore[empty-body]
    def query() -> Query: ...
    def same_name() -> Customer | Another: ...
    def guarded_input(a: Guarded) -> int: ...  # type: ignore[empty-body]
    def guarded_argument(a: Annotated[int, requires("a")]) -> int: ...  # type: ignore[empty-body]
    def guarded_result() -> Annotated[int, requires("a")]: ...  # type: ignore[empty-body]
    def guarded_item() -> list[Annotated[int, requires("a")]]: ...  # type: ignore[empty-body]
    def uncalled() -> Uncalled: ...  # type: ignore[empty-body]
    def nothing() -> Nothing: ...  # type: ignore[empty-body]
    def reserved() -> Reserved: ...  # type: ignore[empty-body]
    def none_default(a: int = None) -> int: ...  # type: ignore[assignment, empty-body]  # noqa: RUF013
    def odd_default(a: JSON = NOTHING) -> int: ...  # type: ignore[empty-body]
    def nan_default(a: float = float("nan")) -> int: ...  # type: ignore[empty-body]
    def random_default(a: RandomDefault) -> int: ...  # type: ignore[empty-body]
    def unresolved() -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821

    return [
        (no_return, "no_return, what it returns: it has no annotation"),
        (none, "none, what it returns: NoneType does not map to an output type; expected int, "),
        (unknown_argument, "unknown_argument, argument a: it has no annotation"),
        (argument_without_type, "argument a: it has no annotation; expected its type"),
        (unmapped_argument, "unmapped_argument, argument a: complex does not map to an input type"),
        (union_argument, "argument a: .* does not map to an input type"),
        (bare_list, "list does not map"),
        (mapping, r"dict\[str, int\] does not map"),
        (scalars, "a union is made of dataclasses or pydantic models alone"),
        (stream, "expected a type"),
        (no_stream, r"expected AsyncIterator\[...\]"),
        (empty, "Empty has no fields"),
        (hidden, "Hidden._secret: '_secret' is no GraphQL name"),
        (hidden_argument, "'_a' is no GraphQL name"),
        (twice, "Twice.aB: a_b is called aB already"),
        (twice_given, "twice_given, argument aB: another argument is called aB already"),
        (unmapped, "Unmapped.value: complex does not map to an output type"),
        (both, "Customer is both read and given as an argument"),
        (query, "a type cannot be called Query"),
        (same_name, "there are two types called Customer"),
        (guarded_input, r"Guarded.value: requires\(...\) guards what is read"),
        (guarded_argument, r"argument a: requires\(...\) guards what is read"),
        (guarded_result, r"expected @subscription\(requires=...\)"),
        (guarded_item, r"expected @subscription\(requires=...\)"),
        (uncalled, r"requires in Annotated needs its permissions"),
        (nothing, "Nothing: expected members"),
        (reserved, "Reserved: expected members, none called true"),
        (none_default, "the default is None; expected `| None`"),
        (odd_default, "has no GraphQL literal"),
        (nan_default, "has no GraphQL literal"),
        (random_default, "RandomDefault.key: default_factory gives another value each time"),
        (unresolved, "unresolved, what it returns: the annotation 'Nowhere' cannot be evaluated"),
    ]  # fmt: skip


@pytest.mark.parametrize(("function", "message"), bad_schemas())
def test_a_declaration_that_makes_no_schema_raises(function: Any, message: str):
    with pytest.raises(SchemaError, match=message):
        code_first(subscription(function))


def test_a_schema_takes_decorated_functions_alone():
    def plain() -> int:
        return 1

    @wraps(plain)
    def outer() -> int:
        return 2

    vars(outer).update(vars(subscription(plain)))
    with pytest.raises(SchemaError, match="outermost decorator"):
        code_first(outer)
    with pytest.raises(SchemaError, match="expected a function decorated with @subscription"):
        code_first(canonical)
    with pytest.raises(SchemaError, match="at least one function"):
        Schema(subscriptions=[])
    with pytest.raises(SchemaError, match=r"two functions for the field plain: .*plain and .*lambda"):
        Schema(subscriptions=[plain, subscription(name="plain")(lambda: 1)])
    with pytest.raises(SchemaError, match="it is a subscription already"):
        subscription(plain)


SDL = """
type Query { a: Int }
type Subscription {
  orderUpdated(orderId: ID!, filter: Filter, colors: [Color!]): JSON
  snake_case(at: DateTime): JSON
  renamed: JSON
}
input Filter { minTotal: Decimal, since: [DateTime], color: Color, inner: Filter }
enum Color { RED GREEN }
scalar DateTime
scalar Decimal
scalar JSON
"""


def from_sdl(order_updated: Any) -> Schema:
    @subscription
    def snake_case(at):
        return at

    @subscription(name="renamed")
    def something():
        return 1

    return Schema.from_sdl(SDL, subscriptions=[something, snake_case, subscription(order_updated)])


def test_from_sdl_matches_functions_to_fields():
    def order_updated(event, order_id, filter, colors): ...

    assert [one.field for one in from_sdl(order_updated).functions] == ["renamed", "snake_case", "orderUpdated"]


def test_from_sdl_converts_by_the_sdl_without_annotations():
    def order_updated(event, order_id: int, filter, colors):
        return order_id, filter, colors

    schema = from_sdl(order_updated)
    given = {
        "order_id": "1",
        "filter": {
            "min_total": "1.5",
            "since": ["2026-01-02T00:00:00Z", None],
            "color": "RED",
            "inner": {"min_total": 2},
        },
        "colors": ["RED"],
    }
    since = datetime(2026, 1, 2, tzinfo=timezone.utc)
    expected = {"min_total": Decimal("1.5"), "since": [since, None], "color": "RED", "inner": {"min_total": Decimal(2)}}
    assert schema.functions[2].call(None, given, None) == ("1", expected, ["RED"])
    assert schema.functions[1].call(None, {"at": None}, None) is None


@dataclass
class SdlFilter:
    min_total: Decimal | None
    since: list[datetime | None] | None = None
    color: Color | None = None
    inner: "SdlFilter | None" = None


def test_from_sdl_makes_enums_and_dataclasses_where_annotated():
    def order_updated(filter: SdlFilter | None, colors: list[Color] | None = None):
        return filter, colors

    call = from_sdl(order_updated).functions[2].call
    given = {"order_id": "1", "filter": {"color": "RED", "inner": {"min_total": "2"}}, "colors": ["GREEN"]}
    inner = SdlFilter(min_total=Decimal(2))
    assert call(None, given, None) == (SdlFilter(min_total=None, color=Color.RED, inner=inner), [Color.GREEN])
    assert call(None, {"order_id": "1"}, None) == (None, None)


class OneColor(enum.Enum):
    RED = 1


def test_from_sdl_refuses_what_does_not_fit():
    def unknown(order_nr): ...
    def short(colors: list[OneColor]): ...
    def wrong(filter: Customer): ...

    for function, message in [
        (unknown, "argument order_nr: the field has no such argument; expected colors, filter, order_id"),
        (short, "argument colors: OneColor lacks GREEN of the enum Color"),
        (wrong, "argument filter: Customer has no field min_total, which the input type Filter has"),
    ]:  # fmt: skip
        with pytest.raises(SchemaError, match=message):
            Schema.from_sdl(
                "type Query { a: Int } input Filter { minTotal: Int } enum Color { RED GREEN } "
                "type Subscription { orderUpdated(orderId: ID!, filter: Filter, colors: [Color!]): Int }",
                subscriptions=[subscription(name="orderUpdated")(function)],
            )
    with pytest.raises(SchemaError, match="from_sdl: expected the schema's text"):
        Schema.from_sdl(b"", subscriptions=[])  # type: ignore[arg-type]


def test_an_argument_of_a_predicate_need_not_be_a_parameter_in_sdl():
    @subscription(where=data["id"] == argument("order_id"))
    def order_updated():
        return 1

    text = "type Query { a: Int } type Subscription { orderUpdated(orderId: ID!): Int }"
    assert Schema.from_sdl(text, subscriptions=[order_updated]).functions[0].call(None, {"order_id": "1"}, None) == 1
