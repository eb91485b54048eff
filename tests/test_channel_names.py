"""Channels' names from templates: each value stands alone, escaped, and no two lists of values give one name."""

from __future__ import annotations

import asyncio
import enum
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    GraphQLRequestError,
    Schema,
    SchemaError,
    SubscriptionManager,
    channel_name,
    subscription,
)

from .databases import Connection, connect, database
from .oracle import FACTOR
from .support import manager_of, rest, take

LONGEST = 1_024
KEY = UUID("C0FFEE00-0000-4000-8000-000000000001")


class Status(enum.Enum):
    OPEN = "anything"
    SHUT = "else"


@dataclass
class Inner:
    id: ID


def listening(channel: str, **annotations: Any) -> Any:
    """A passthrough `heard` on this channel, with these arguments."""
    name = annotations.pop("name", "heard")
    parameters = ", ".join(annotations)
    scope: dict[str, Any] = {}
    exec(f"def heard({parameters}): raise NotImplementedError", scope)
    function = scope["heard"]
    function.__module__ = __name__
    function.__annotations__ = {**annotations, "return": JSON}
    return subscription(channel=channel, name=name, passthrough=True)(function)


async def heard_by(manager: SubscriptionManager, query: str, channels: list[str], **variables: Any) -> list[str]:
    """Which of these channels, to each of which one event is published, such a subscription hears."""
    async with manager.subscribe(query, variables=variables, subscription_id="a") as stream:
        for channel in channels:
            await manager.publish_event("e", channel, {"on": channel})
        assert await manager.complete_subscription("a")
        return [payload["data"]["heard"]["on"] for payload in await rest(stream)]


# ---- what may be declared ----


@pytest.mark.parametrize("kind", [ID, str, int, bool, UUID, Status])
@pytest.mark.parametrize("channel", ["{a}", "x:{a}", "{a}:x", "x:{a}:y", "x.y/z:{a}", "é ~:{a}"])
def test_a_placeholder_of_a_scalar_stands_alone_between_colons_or_ends(channel, kind):
    Schema([listening(channel, a=kind)])


@pytest.mark.parametrize(
    "kind", [float, Decimal, date, time, datetime, JSON, Inner, list[ID], ID | None, Status | None]
)
def test_a_placeholder_of_any_other_type_raises(kind):
    with pytest.raises(SchemaError, match=r"heard.*\ba\b"):
        Schema([listening("x:{a}", a=kind)])


@pytest.mark.parametrize("default", ["= null", ""])
def test_a_placeholder_that_nothing_stands_for_raises(default):
    sdl = f"type Query {{ a: Int }} type Subscription {{ heard(a: ID {default}): ID }}"
    with pytest.raises(SchemaError, match=r"heard.*\ba\b.*non-null ID, String, Int, Boolean, UUID or enum"):
        Schema.from_sdl(sdl, subscriptions=[listening("x:{a}", a=Any)])


async def test_a_default_stands_for_what_is_omitted_and_not_for_null():
    sdl = "type Query { a: Int } type Subscription { heard(a: ID = 5): JSON } scalar JSON"
    manager = SubscriptionManager(Schema.from_sdl(sdl, subscriptions=[listening("x:{a}", a=Any)]))
    async with manager:
        assert await heard_by(manager, "subscription { heard }", ["x:", "x:5"]) == ["x:5"]
        error = await refused(manager, "subscription { heard(a: null) }")
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert error["message"] == "Argument 'a' is part of a channel's name: it must not be null."


@pytest.mark.parametrize(
    "channel",
    ["o-{a}-{b}", "orders:x{a}", "orders:{a}x", "{a}{b}", "{a}-{b}", "orders.{a}", "orders:{a}/{b}", "a{a}", "{a} "],
)
def test_a_placeholder_beside_text_raises(channel):
    with pytest.raises(SchemaError, match="heard"):
        Schema([listening(channel, a=ID, b=ID)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("orders:{a}", "orders:all"),
        ("orders:all", "orders:{a}"),
        ("{a}:x", "y:{b}"),
        ("orders:{a}:x", "orders:{a}:{b}"),
        ("{a}", "orders"),
        ("a:{b}:c", "{b}:b:c"),
        ("orders:{a}", "orders:"),
    ],
)
def test_two_declarations_whose_names_can_be_equal_raise(one, other):
    with pytest.raises(SchemaError) as raised:
        Schema([listening(one, a=ID, b=ID), listening(other, a=ID, b=ID, name="again")])
    assert one in str(raised.value)
    assert other in str(raised.value)
    for alone in (one, other):
        Schema([listening(alone, a=ID, b=ID)])


def test_a_channel_that_is_a_functions_name_is_a_name_too():
    @subscription(passthrough=True)
    def orders() -> JSON:
        raise NotImplementedError

    with pytest.raises(SchemaError, match="orders"):
        Schema([orders, listening("{a}", a=ID)])
    Schema([orders, listening("of:{a}", a=ID)])


def test_names_that_differ_may_stand_together():
    channels = ["orders:{a}", "orders:{b}", "users:{a}", "orders:{a}:lines", "orders", "orders:{a}:{b}:x", "orders:{b}"]
    Schema([listening(channel, a=ID, b=str, name=f"f{n}") for n, channel in enumerate(channels)])
    Schema([listening("orders:all", name="one"), listening("orders:all", name="other")])


def test_a_channel_that_is_too_long_for_a_name_raises():
    Schema([listening("x" * LONGEST)])
    with pytest.raises(SchemaError, match=r"1,?024"):
        Schema([listening("é" * (LONGEST // 2) + "x")])


# ---- what a value becomes ----

VALUES: list[tuple[Any, str]] = [
    ("gid://shop/Order/1", "gid%3A//shop/Order/1"),
    ("50%", "50%25"),
    ("%3A", "%253A"),
    ("%25", "%2525"),
    (":", "%3A"),
    ("::%:", "%3A%3A%25%3A"),
    ("", ""),
    ("{b}", "{b}"),
    ("a b/c.d-é\U0001f600", "a b/c.d-é\U0001f600"),
    ("1.50", "1.50"),
    (1, "1"),
    (-5, "-5"),
    (2**70, str(2**70)),
    (True, "true"),
    (False, "false"),
    (KEY, "c0ffee00-0000-4000-8000-000000000001"),
    (Status.OPEN, "OPEN"),
]


@pytest.mark.parametrize(("value", "written"), VALUES)
def test_channel_name_escapes_what_divides(value, written):
    assert channel_name("orders:{order_id}", order_id=value) == f"orders:{written}"
    assert channel_name("{a}:x:{b}", a=value, b=value) == f"{written}:x:{written}"
    assert channel_name("orders") == "orders"


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        ("x:{a}", {}),
        ("x:{a}", {"b": 1}),
        ("x:{a}", {"a": 1, "b": 1}),
        ("x", {"a": 1}),
        ("x:{a}", {"a": None}),
        ("x:{a}", {"a": 1.5}),
        ("x:{a}", {"a": Decimal("1.50")}),
        ("x:{a}", {"a": [1]}),
        ("x:{a}", {"a": b"1"}),
        ("x:{a}", {"a": datetime(2026, 1, 1)}),
        ("x:{a}", {"a": "a\nb"}),
        ("x:{a}", {"a": "\x7f"}),
        ("x:{a}", {"a": "\0"}),
        ("x:{a}", {"a": "\ud800"}),
        ("x:{a}", {"a": "x" * LONGEST}),
        ("x:{a}", {"a": ":" * 400}),
        ("{a}", {"a": ""}),
        ("x{a}", {"a": 1}),
        ("{a}-{b}", {"a": 1, "b": 2}),
        ("x:{a", {"a": 1}),
        ("x:{}", {"a": 1}),
        ("", {}),
    ],
)
def test_channel_name_refuses_what_gives_no_name(template, arguments):
    with pytest.raises((TypeError, ValueError)):
        channel_name(template, **arguments)


def test_channel_name_says_what_is_wrong():
    with pytest.raises(TypeError, match=r"^a: expected a str, .*, a UUID or an enum's member, got Decimal$"):
        channel_name("x:{a}", a=Decimal("1.50"))  # type: ignore[arg-type]
    for arguments, message in (
        ({"b": 1}, 'channel "x:{a}": there is no argument "a"'),
        ({"a": 1, "b": 1}, 'the channel has no placeholder for "b"'),
        ({"a": "\n"}, 'argument "a" is part of a channel\'s name: it must not hold control characters'),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            channel_name("x:{a}", **arguments)


def test_an_argument_may_have_any_name():
    assert channel_name("x:{template}:{self}", template=1, self="a") == "x:1:a"


def test_channel_name_gives_the_longest_name():
    assert len(channel_name("x:{a}", a="y" * (LONGEST - 2))) == LONGEST
    assert len(channel_name("x:{a}", a="é" * 511).encode()) == LONGEST


@pytest.mark.parametrize("template", ["{a}:{b}", "x:{a}:{b}", "{a}:x:{b}", "{a}:{b}:x"])
def test_no_two_lists_of_values_give_one_name(template):
    pick = random.Random(template)
    given: dict[str, tuple[str, str]] = {}
    for _ in range(20_000 * FACTOR):
        a, b = ("".join(pick.choices(":%325Ax{}", k=pick.randint(0, 4))) for _ in "ab")
        name = channel_name(template, a=a, b=b)
        assert name.count(":") == template.count(":")
        assert given.setdefault(name, (a, b)) == (a, b)


# ---- the same in SQL ----


@pytest.fixture(scope="module")
def db(postgres_server) -> Iterator[Connection]:
    with database(postgres_server, installed=True) as url, connect(url) as connection:
        yield connection


def sql_name(db: Connection, template: str, **arguments: Any) -> str:
    row = db.execute("SELECT fraiseql_subs.channel_name(%s::text, %s)", [template, Jsonb(arguments)]).fetchone()
    assert row
    name: str = row[0]
    return name


def as_json(value: Any) -> Any:
    return value.name if isinstance(value, Status) else str(value) if isinstance(value, UUID) else value


@pytest.mark.parametrize(("value", "written"), VALUES)
def test_sql_gives_the_same_name(db, value, written):
    assert sql_name(db, "orders:{order_id}", order_id=as_json(value)) == f"orders:{written}"
    assert sql_name(db, "{a}:x:{b}", a=as_json(value), b=as_json(value)) == f"{written}:x:{written}"


def test_sql_gives_the_same_name_for_anything(db):
    pick = random.Random(11)
    for _ in range(300 * FACTOR):
        a, b = ("".join(pick.choices(":%325Ax{}'\"\\\u00e9 ", k=pick.randint(0, 6))) for _ in "ab")
        assert sql_name(db, "{a}:x:{b}", a=a, b=b) == channel_name("{a}:x:{b}", a=a, b=b)


@pytest.mark.parametrize(
    ("template", "arguments"),
    [
        ("x:{a}", {}),
        ("x:{a}", {"a": None}),
        ("x:{a}", {"a": 1.5}),
        ("x:{a}", {"a": [1]}),
        ("x:{a}", {"a": {}}),
        ("x:{a}", {"a": "a\nb"}),
        ("x:{a}", {"a": "x" * LONGEST}),
        ("x{a}", {"a": 1}),
        ("{a}", {"a": ""}),
    ],
)
def test_sql_refuses_the_same(db, template, arguments):
    with pytest.raises(psycopg.Error) as raised:
        sql_name(db, template, **arguments)
    assert not isinstance(raised.value, psycopg.errors.UndefinedFunction)


def test_sql_publishes_on_names_that_are_not_too_long_and_hold_no_control_character(db):
    for publish in ("SELECT fraiseql_subs.publish(%s, 'e', '{}')", "SELECT fraiseql_subs.track('t', channel => %s)"):
        db.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY)")
        db.execute(publish, ["é" * (LONGEST // 2)])
        for wrong in ("é" * (LONGEST // 2) + "x", "a\x7f", "a\x85", "\x9fa", ""):
            with pytest.raises(psycopg.Error, match=r"1 to 1024 bytes without control characters"):
                db.execute(publish, [wrong])
        db.execute(publish, ["\xa0"])


def test_sql_takes_a_row_and_says_what_is_missing(db):
    one = "SELECT fraiseql_subs.channel_name('orders:{id}:{paid}', {})"
    row = "(SELECT to_jsonb(r) FROM (SELECT 7 AS id, true AS paid, 1.50 AS total, NULL AS note) AS r)"
    assert db.execute(one.replace("{}", row)).fetchone() == ("orders:7:true",)
    assert db.execute(one.replace("{}", "NULL")).fetchone() == (None,)
    for arguments, message in (
        ('{"id": 7}', 'arguments: expected a string, an integer or a boolean as "paid", got nothing'),
        ('{"id": 7.0, "paid": true}', 'arguments: expected a string, an integer or a boolean as "id", got number'),
        ('{"id": null, "paid": true}', 'arguments: expected a string, an integer or a boolean as "id", got null'),
        ('["id", "paid"]', "arguments: expected a JSON object"),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
            db.execute(one.replace("{}", "%s"), [arguments])
        assert raised.value.diag.message_primary == message


def test_sql_names_channels_in_an_index_and_in_a_generated_column(db):
    db.execute(
        "CREATE TABLE named (id text, channel text GENERATED ALWAYS AS "
        "(fraiseql_subs.channel_name('n:{id}', jsonb_object(ARRAY['id', id]))) STORED)"
    )
    db.execute("CREATE INDEX ON named (fraiseql_subs.channel_name('o:{id}', jsonb_object(ARRAY['id', id])))")
    assert db.execute("INSERT INTO named VALUES ('a:b') RETURNING channel").fetchone() == ("n:a%3Ab",)


# ---- subscribing and publishing ----


@pytest.mark.parametrize(("value", "written"), VALUES)
async def test_a_value_reaches_its_own_channel_and_no_other(value, written):
    kinds: dict[type, Any] = {bool: bool, UUID: UUID, Status: Status}
    kind = kinds.get(type(value), ID)
    manager = manager_of(listening("orders:{order_id}:lines", order_id=kind))
    graphql = {ID: "ID", bool: "Boolean", UUID: "UUID", Status: "Status"}[kind]
    query = f"subscription ($a: {graphql}!) {{ heard(orderId: $a) }}"
    name = channel_name("orders:{order_id}:lines", order_id=value)
    async with manager:
        others = ["orders:lines", "orders::other", f"orders:{written}x:lines", f"orders:{written}:lines:"]
        others += (
            [f"orders:{as_json(value)}:lines"] if str(as_json(value)) != written and not isinstance(value, bool) else []
        )
        assert await heard_by(manager, query, [*others, name], a=as_json(value)) == [name]
        assert name == f"orders:{written}:lines"


async def test_two_pairs_never_hear_each_other():
    manager = manager_of(listening("o:{a}:{b}", a=ID, b=ID))
    query = "subscription ($a: ID!, $b: ID!) { heard(a: $a, b: $b) }"
    pairs = [("1:2", "3"), ("1", "2:3"), ("1%3A2", "3"), ("1", "2"), (":", ""), ("", ":"), ("%", "3A"), ("%3A", "")]
    channels = [channel_name("o:{a}:{b}", a=a, b=b) for a, b in pairs]
    assert len(set(channels)) == len(pairs)
    async with manager:
        for (a, b), channel in zip(pairs, channels, strict=True):
            assert await heard_by(manager, query, channels, a=a, b=b) == [channel]


Refused = Callable[..., Any]


async def refused(manager: SubscriptionManager, query: str, **variables: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLRequestError) as raised:
        await manager.subscribe(query, variables=variables).__aenter__()
    [error] = raised.value.errors
    explained = manager.explain(query, Event("e", "c", {}), variables=variables)
    assert explained.stage == "request"
    return error


QUERY = "subscription ($a: ID!) { heard(orderId: $a) }"


@pytest.mark.parametrize("value", ["a\nb", "\x01", "\x1f", "\x7f", "\x85", "x" * (LONGEST + 1), "é" * 512, ":" * 400])
async def test_a_value_that_gives_no_name_is_refused_by_the_arguments_graphql_name(value):
    async with manager_of(listening("orders:{order_id}", order_id=ID)) as manager:
        error = await refused(manager, QUERY, a=value)
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert "orderId" in error["message"]
        assert "order_id" not in error["message"]
        assert len(error["message"]) < 400
        assert await heard_by(manager, QUERY, ["orders:a"], a="a") == ["orders:a"]


async def test_a_name_of_1024_bytes_is_the_longest():
    async with manager_of(listening("orders:{order_id}", order_id=ID)) as manager:
        room = LONGEST - len("orders:")
        for fits in ("x" * room, "é" * (room // 2) + "x", ":" * (room // 3)):
            name = channel_name("orders:{order_id}", order_id=fits)
            assert await heard_by(manager, QUERY, [name], a=fits) == [name]
            assert len(name.encode()) == LONGEST
        for over in ("x" * (room + 1), "é" * (room // 2) + "xx"):
            error = await refused(manager, QUERY, a=over)
            assert error["extensions"]["code"] == "BAD_USER_INPUT"


@pytest.mark.parametrize("letter", ["x", "é"])
async def test_publishing_to_a_longer_name_raises(letter):
    longest = letter * (LONGEST // len(letter.encode()))
    async with manager_of(listening("{a}", a=ID)) as manager:
        async with manager.subscribe("subscription ($a: ID!) { heard(a: $a) }", variables={"a": longest}) as stream:
            for channel in (longest + "x", letter * 250_000):
                event = Event("e", channel, {"on": channel})
                with pytest.raises(ValueError, match="channel"):
                    await manager.publish_event("e", channel, {"n": 0})
                with pytest.raises(ValueError, match="channel"):
                    await manager.publish_events([Event("e", longest, {"n": 0}), event])
                with pytest.raises(ValueError, match="channel"):
                    await asyncio.to_thread(manager.publish_event_sync, "e", channel, {"n": 0})
                with pytest.raises(ValueError, match="channel"):
                    manager.explain("subscription { __typename }", event)
            await manager.publish_event("e", longest, {"n": 1})
            assert await take(stream) == [{"data": {"heard": {"n": 1}}}]


async def test_an_empty_name_is_refused():
    async with manager_of(listening("{order_id}", order_id=ID)) as manager:
        assert (await refused(manager, QUERY, a=""))["extensions"]["code"] == "BAD_USER_INPUT"
        assert await heard_by(manager, QUERY, ["x"], a="x") == ["x"]
