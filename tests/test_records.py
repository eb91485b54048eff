"""Code first: pydantic models, `TypedDict`s, generics and collections, and types of other libraries."""

import collections
import enum
import typing
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from functools import cached_property
from typing import Annotated, Any, Generic, NewType, TypedDict, TypeVar

import graphql
import pydantic
import pytest
import strawberry
from pydantic import AnyUrl, AwareDatetime, BaseModel, ByteSize, Field, HttpUrl, PastDate, SecretStr, computed_field
from strawberry.scalars import JSON as StrawberryJSON
from typing_extensions import NotRequired, Required

from fraiseql_subs import (
    ID,
    Event,
    GraphQLRequestError,
    Schema,
    SchemaError,
    SecurityContext,
    SubscriptionManager,
    requires,
    subscription,
)

from .support import one

T = TypeVar("T")
U = TypeVar("U")
CALLS: list[Any] = []


def body_of(schema: Schema, name: str) -> str:
    """The fields of a type in one line."""
    built = graphql.build_schema(schema.sdl).type_map[name]
    fields = built.fields.items()  # type: ignore[attr-defined]  # it has some
    return ", ".join(f"{name}: {field.type}" for name, field in fields)


async def result_of(function: Any, query: str, **options: Any) -> Any:
    manager = SubscriptionManager(Schema(subscriptions=[function]))
    CALLS.clear()
    async with manager, manager.subscribe(query, framing="result", **options) as stream:
        await manager.publish_event("x", "c", {})
        return await one(stream)


# pydantic


class Contact(BaseModel):
    """Whom to ask."""

    name: str
    password: str = Field(default="hunter2", exclude=True)
    site: HttpUrl = HttpUrl("https://example.org/")
    seen: AwareDatetime | None = None
    born: PastDate | None = None
    quota: ByteSize = ByteSize(10)
    links: list[AnyUrl] = []

    @computed_field(description="In capitals.")  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def shouted(self) -> str:
        return self.name.upper()

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @cached_property
    def salary(self) -> Annotated[int | None, requires("hr")]:
        return 7

    @computed_field(return_type=list[str])
    def letters(self):
        return list(self.name)


class NewContact(BaseModel):
    name: str
    password: str = Field(default="none", exclude=True)
    site: HttpUrl = HttpUrl("https://example.org/new")
    seen: AwareDatetime | None = None

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def shouted(self) -> str:
        return self.name.upper()


@subscription(channel="c")
async def contact(event: Event, given: NewContact | None = None, site: HttpUrl | None = None) -> Contact:
    CALLS.append((given, site))
    return Contact(
        name="ada", seen=datetime(2026, 1, 2, tzinfo=timezone.utc), born=date(1815, 12, 10), links=[AnyUrl("a://b")]
    )


def test_computed_fields_are_fields_and_excluded_ones_are_not():
    schema = Schema(subscriptions=[contact])
    assert body_of(schema, "Contact") == (
        "name: String!, site: String!, seen: DateTime, born: Date, quota: Int!, links: [String!]!, shouted: String!, "
        "salary: Int, letters: [String!]!"
    )
    assert '"""In capitals."""' in schema.sdl
    assert body_of(schema, "NewContact") == "name: String!, password: String!, site: String!, seen: DateTime"
    assert 'site: String! = "https://example.org/new"' in schema.sdl


async def test_they_are_read_and_their_guards_hold():
    query = "subscription { contact { name site seen born quota links shouted salary letters } }"
    plain = {
        "name": "ada",
        "site": "https://example.org/",
        "seen": "2026-01-02T00:00:00+00:00",
        "born": "1815-12-10",
        "quota": 10,
        "links": ["a://b"],
        "shouted": "ADA",
        "letters": ["a", "d", "a"],
    }
    payload = await result_of(contact, query)
    assert payload["data"] == {"contact": {**plain, "salary": None}}
    assert payload["errors"][0]["extensions"]["code"] == "FORBIDDEN"
    seen = await result_of(contact, query, context=SecurityContext(permissions=["hr"]))
    assert seen == {"data": {"contact": {**plain, "salary": 7}}}
    with pytest.raises(GraphQLRequestError, match="password"):
        await result_of(contact, "subscription { contact { password } }")


async def test_arguments_of_them_arrive_as_models():
    query = """subscription { contact(given: {name: "b", seen: "2026-01-02T00:00:00Z"}, site: "x://y") { name } }"""
    assert await result_of(contact, query) == {"data": {"contact": {"name": "ada"}}}
    [(given, site)] = CALLS
    assert given == NewContact(name="b", seen=datetime(2026, 1, 2, tzinfo=timezone.utc))
    assert (given.password, str(given.site), site) == ("none", "https://example.org/new", "x://y")


def test_email_addresses_are_text():
    pytest.importorskip("email_validator")

    class Person(BaseModel):
        email: pydantic.EmailStr
        named: pydantic.NameEmail | None = None

    @subscription(channel="c")
    async def person(event: Event, email: pydantic.EmailStr) -> Person:
        raise NotImplementedError

    schema = Schema(subscriptions=[person])
    assert body_of(schema, "Person") == "email: String!, named: String"
    assert "person(email: String!): Person!" in schema.sdl


def test_a_secret_is_no_scalar():
    class Secret(BaseModel):
        key: SecretStr

    @subscription(channel="c")
    async def secret(event: Event) -> Secret:
        raise NotImplementedError

    with pytest.raises(SchemaError, match=r"Secret\.key: SecretStr does not map to an output type"):
        Schema(subscriptions=[secret])


# TypedDict


class Base(TypedDict):
    """A base."""

    id: ID


class Row(Base, total=False):
    """A row."""

    status: Required[str]
    total_sum: float
    next: "Row | None"
    secret: Annotated[str, requires("see")]


class Filter(TypedDict):
    min_level: int
    name: NotRequired[str]
    tags: NotRequired[list[str] | None]


@subscription(channel="c")
async def rows(event: Event, filter: Filter | None = None) -> list[Row]:
    CALLS.append(filter)
    return [{"id": ID("1"), "status": "s", "next": {"id": ID("2"), "status": "t", "total_sum": 1.5}}]


async def test_typed_dicts_are_types():
    schema = Schema(subscriptions=[rows])
    assert body_of(schema, "Row") == "id: ID!, status: String!, totalSum: Float, next: Row, secret: String"
    assert body_of(schema, "Filter") == "minLevel: Int!, name: String, tags: [String!]"
    assert '"""A row."""' in schema.sdl
    query = "subscription { rows(filter: {minLevel: 3, tags: null}) { id status totalSum next { totalSum id } } }"
    inner = {"totalSum": 1.5, "id": "2"}
    assert await result_of(rows, query) == {
        "data": {"rows": [{"id": "1", "status": "s", "totalSum": None, "next": inner}]}
    }
    assert CALLS == [{"min_level": 3, "tags": None}]
    masked = await result_of(rows, "subscription { rows { id secret } }")
    assert masked["errors"][0]["message"] == "Forbidden"


# generics


@dataclass
class Order:
    id: ID


@dataclass
class Page(Generic[T]):
    """A page."""

    items: list[T]
    first: T | None = None
    next: "Page[T] | None" = None


@dataclass
class Pair(Generic[T, U]):
    left: T
    right: Annotated[U | None, requires("see")] = None


@dataclass
class Orders(Page[Order], Generic[U]):
    other: Pair[U, int] | None = None


class Box(BaseModel, Generic[T]):
    content: T
    more: list[T] = []

    @computed_field  # type: ignore[prop-decorator]  # as pydantic's documentation has it
    @property
    def again(self) -> T:
        return self.content


class Labelled(Box[Order]):
    label: str = ""


@dataclass
class Everything:
    orders: Page[Order]
    numbers: Page[int]
    lists: Page[list[int]]
    pair: Pair[Order, Page[str]]
    mine: Orders[str]
    box: Box[Order]
    int_box: Box[int]
    labelled: Labelled


@subscription(channel="c")
async def everything(event: Event) -> Everything:
    order = Order(ID("1"))
    return Everything(
        orders=Page([order], order, Page([])),
        numbers=Page([1]),
        lists=Page([[1]]),
        pair=Pair(order, Page(["a"])),
        mine=Orders([order], other=Pair("x", 1)),
        box=Box[Order](content=order, more=[order]),
        int_box=Box[int](content=1),
        labelled=Labelled(content=order),
    )


@subscription(channel="c", name="everything")
async def without_arguments(event: Event) -> Everything:
    return await everything(event)


async def test_generics_are_named_by_their_parameters():
    schema = Schema(subscriptions=[everything])
    assert body_of(schema, "Everything") == (
        "orders: OrderPage!, numbers: IntPage!, lists: IntListPage!, pair: OrderStringPagePair!, mine: StringOrders!, "
        "box: OrderBox!, intBox: IntBox!, labelled: Labelled!"
    )
    assert body_of(schema, "OrderPage") == "items: [Order!]!, first: Order, next: OrderPage"
    assert body_of(schema, "IntListPage") == "items: [[Int!]!]!, first: [Int!], next: IntListPage"
    assert body_of(schema, "OrderStringPagePair") == "left: Order!, right: StringPage"
    assert body_of(schema, "StringOrders") == "items: [Order!]!, first: Order, next: OrderPage, other: StringIntPair"
    assert body_of(schema, "StringIntPair") == "left: String!, right: Int"
    assert body_of(schema, "OrderBox") == "content: Order!, more: [Order!]!, again: Order!"
    assert body_of(schema, "Labelled") == "content: Order!, more: [Order!]!, label: String!, again: Order!"
    assert '"""A page."""\ntype OrderPage' in schema.sdl
    query = """subscription { everything { orders { items { id } next { items { id } } } lists { items }
    pair { left { id } } mine { other { left } } box { again { id } } intBox { content } labelled { content { id } }
    } }"""
    assert await result_of(everything, query) == {
        "data": {
            "everything": {
                "orders": {"items": [{"id": "1"}], "next": {"items": []}},
                "lists": {"items": [[1]]},
                "pair": {"left": {"id": "1"}},
                "mine": {"other": {"left": "x"}},
                "box": {"again": {"id": "1"}},
                "intBox": {"content": 1},
                "labelled": {"content": {"id": "1"}},
            }
        }
    }
    masked = await result_of(everything, "subscription { everything { pair { left { id } right { items } } } }")
    assert masked["data"] == {"everything": {"pair": {"left": {"id": "1"}, "right": None}}}
    assert masked["errors"][0]["message"] == "Forbidden"


@dataclass
class Span(Generic[T]):
    low: T
    high: T | None = None


async def test_generics_are_input_types():
    @subscription(channel="c")
    async def spans(event: Event, span: Span[int], days: Span[date] | None = None) -> int:
        CALLS.append((span, days))
        return 1

    sdl = Schema(subscriptions=[spans]).sdl
    assert "spans(span: IntSpan!, days: DateSpan): Int!" in sdl
    assert "input DateSpan {\n  low: Date!\n  high: Date\n}" in sdl
    query = 'subscription { spans(span: {low: 1}, days: {low: "2026-01-02", high: "2026-01-03"}) }'
    assert await result_of(spans, query) == {"data": {"spans": 1}}
    assert [(Span(1), Span(date(2026, 1, 2), date(2026, 1, 3)))] == CALLS


def test_generics_without_parameters_and_of_one_name_raise():
    @subscription(channel="c")
    async def open_page(event: Event) -> Page:  # type: ignore[type-arg]  # that is what is wrong with it
        raise NotImplementedError

    with pytest.raises(SchemaError, match=r"Page\.items: ~T does not map to an output type"):
        Schema(subscriptions=[open_page])

    @dataclass
    class IntPage:
        a: int

    @dataclass
    class Both:
        a: IntPage
        b: Page[int]

    @subscription(channel="c")
    async def both(event: Event) -> Both:
        raise NotImplementedError

    with pytest.raises(SchemaError, match="there are two types called IntPage"):
        Schema(subscriptions=[both], types=[])


# collections


@dataclass
class Lists:
    tags: set[str]
    frozen: frozenset[int]
    point: tuple[float, float]
    path: tuple[int, ...]
    queue: collections.deque[int]
    collection: Collection[int]
    iterable: Iterable[int] | None = None
    old: typing.Set[int] | None = None  # noqa: UP006  # as it was written before Python 3.9


@dataclass
class Options:
    tags: set[str] = field(default_factory=lambda: {"b", "a"})
    queue: collections.deque[int] = field(default_factory=lambda: collections.deque([2, 1]))


@subscription(channel="c")
async def lists(
    event: Event,
    tags: set[str] | None = None,
    frozen: frozenset[date] = frozenset(),
    pair: tuple[int, int] = (1, 2),
    queue: collections.deque[int] | None = None,
    numbers: Collection[int] | None = None,
    options: Options | None = None,
) -> Lists:
    CALLS.append((tags, frozen, pair, queue, numbers, options))
    numbers = (n for n in range(3))  # type: ignore[assignment]  # an iterable is all that is needed
    return Lists({"a"}, frozenset([1]), (1.5, 2), (1, 2, 3), collections.deque([4]), {5: "x"}.keys(), numbers)


async def test_iterable_collections_are_lists():
    schema = Schema(subscriptions=[lists])
    assert body_of(schema, "Lists") == (
        "tags: [String!]!, frozen: [Int!]!, point: [Float!]!, path: [Int!]!, queue: [Int!]!, collection: [Int!]!, "
        "iterable: [Int!], old: [Int!]"
    )
    assert 'tags: [String!]! = ["a", "b"]' in schema.sdl
    assert "queue: [Int!]! = [2, 1]" in schema.sdl
    arguments = 'tags: ["b", "a"], frozen: ["2026-01-02"], queue: [1], numbers: 7, options: {tags: "c"}'
    fields = "tags frozen point path queue collection iterable old"
    query = f"subscription {{ lists({arguments}) {{ {fields} }} }}"
    assert await result_of(lists, query) == {
        "data": {
            "lists": {
                "tags": ["a"],
                "frozen": [1],
                "point": [1.5, 2.0],
                "path": [1, 2, 3],
                "queue": [4],
                "collection": [5],
                "iterable": [0, 1, 2],
                "old": None,
            }
        }
    }
    options = Options({"c"}, collections.deque([2, 1]))
    assert [({"a", "b"}, frozenset([date(2026, 1, 2)]), (1, 2), collections.deque([1]), [7], options)] == CALLS


@pytest.mark.parametrize("annotation", [tuple[int, str], dict[str, int], tuple, set, collections.OrderedDict[str, int]])
def test_what_is_no_list_of_one_type_raises(annotation):
    @subscription(channel="c")
    async def wrong(event: Event) -> annotation:  # type: ignore[valid-type]  # of the test's table
        raise NotImplementedError

    with pytest.raises(SchemaError, match="does not map to an output type"):
        Schema(subscriptions=[wrong])


# other libraries


@strawberry.type
class Theirs:
    id: strawberry.ID
    secret: strawberry.Private[str] = "s"


@strawberry.input
class TheirInput:
    id: int


@strawberry.enum
class TheirLevel(enum.Enum):
    LOW = 1


@strawberry.type
class TheirEdge(Generic[T]):
    node: T


@dataclass
class Holds:
    inner: Theirs | None


class GrapheneType:
    """As graphene's classes look."""

    __module__ = "graphene.types.objecttype"


class FromGraphene(GrapheneType):
    pass


@pytest.mark.parametrize(
    ("annotation", "name", "how"),
    [
        (Theirs, "Theirs is a type of strawberry", r"Schema\.from_sdl\(str\(schema\), subscriptions=\[\.\.\.\]\)"),
        (list[Theirs | None], "Theirs is a type of strawberry", r"str\(schema\)"),
        (Order | Theirs, "Theirs is a type of strawberry", r"str\(schema\)"),
        (Page[Theirs], "Theirs is a type of strawberry", r"str\(schema\)"),
        (Holds, "Theirs is a type of strawberry", r"str\(schema\)"),
        (TheirLevel, "TheirLevel is a type of strawberry", r"str\(schema\)"),
        (TheirEdge[Order], "TheirEdge.* is a type of strawberry", r"str\(schema\)"),
        (strawberry.ID, "ID is a type of strawberry", r"str\(schema\)"),
        (StrawberryJSON, "JSON is a type of strawberry", r"str\(schema\)"),
        (FromGraphene, "FromGraphene is a type of graphene", r"str\(schema\)"),
        (graphql.GraphQLString, ".* is a type of graphql", r"graphql\.print_schema\(schema\)"),
    ],
)
def test_a_type_of_another_library_raises_and_says_how_to_bring_its_schema(annotation, name, how):
    @subscription(channel="c")
    async def wrong(event: Event) -> annotation:  # type: ignore[valid-type]  # of the test's table
        raise NotImplementedError

    with pytest.raises(SchemaError, match=f"{name}; expected a dataclass.*{how}"):
        Schema(subscriptions=[wrong])


def test_neither_as_an_argument_nor_among_types():
    @subscription(channel="c")
    async def wrong(event: Event, given: TheirInput) -> int:
        raise NotImplementedError

    with pytest.raises(SchemaError, match=r"argument given: TheirInput is a type of strawberry"):
        Schema(subscriptions=[wrong])

    @subscription(channel="c")
    async def right(event: Event) -> int:
        raise NotImplementedError

    for foreign in (Theirs, FromGraphene):
        with pytest.raises(SchemaError, match=f"types: {foreign.__name__} is a type of"):
            Schema(subscriptions=[right], types=[foreign])
    assert Schema(subscriptions=[right], types=[Order]).sdl


def test_a_new_type_of_ones_own_is_what_it_stands_for():
    Sku = NewType("Sku", str)

    @subscription(channel="c")
    async def sku(event: Event) -> Sku:
        raise NotImplementedError

    assert "sku: String!" in Schema(subscriptions=[sku]).sdl
