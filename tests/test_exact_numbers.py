"""Numbers keep their value from publishing to the client; Python sees a `Decimal` where a float would be another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from fraiseql_subs import (
    JSON,
    Event,
    EventBusConfig,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    previous,
    subscription,
    viewer,
)

from .databases import connect, database
from .servers import SERVERS
from .sockets import served
from .support import soon, take
from .test_bus import opened

AMOUNT = "12345678901.123456789"
NEIGHBOUR = "12345678901.123456788"  # the same float
SEEN: list[Any] = []


@dataclass
class Holder:
    body: JSON | None = None
    exact: Decimal | None = None


@subscription(channel="c", passthrough=True)
def raw() -> Holder:
    raise NotImplementedError


@subscription(channel="c")
async def seen(event: Event) -> JSON:
    SEEN.append(event.data["body"])
    return event.data["body"]


@subscription(channel="c")
def exact(event: Event, info: Info, j: JSON | None = None, d: Decimal | None = None) -> int:
    SEEN.append((info.viewer.claims.get("limit"), j, d))
    return 1


@subscription(channel="c", passthrough=True, where=data["body"] == argument("j"))
def equal(j: JSON) -> Holder:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, where=data["body"] > argument("j"))
def above(j: JSON) -> Holder:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, rows=data["body"] == viewer("claims", "limit"))
def allowed() -> Holder:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, where=data["body"] == previous["body"])
def unchanged() -> Holder:
    raise NotImplementedError


SCHEMA = Schema(subscriptions=[raw, seen, exact, equal, above, allowed, unchanged])
RAW = "subscription { raw { body } }"

bus = pytest.fixture(params=["memory", *SERVERS])(opened)


@pytest.fixture(autouse=True)
def nothing_seen() -> None:
    SEEN.clear()


@pytest.fixture
async def manager() -> AsyncIterator[SubscriptionManager]:
    async with SubscriptionManager(SCHEMA, EventBusConfig.memory(history=100)) as manager:
        yield manager


async def texts(stream: AsyncIterator[bytes], count: int) -> list[str]:
    """The next messages to the letter; they are bare results."""
    return [(await soon(anext(stream))).decode() for _ in range(count)]


def body_of(message: str) -> Any:
    """What a result holds, without a float on the way."""
    [value] = json.loads(message, parse_float=Decimal, parse_int=Decimal)["data"].values()
    return value["body"] if isinstance(value, dict) else value


#: JSON text, and what Python sees: a float where its shortest text has the same value, else a Decimal.
NUMBERS: list[tuple[str, Any]] = [
    (AMOUNT, Decimal(AMOUNT)),
    ("-" + AMOUNT, Decimal("-" + AMOUNT)),
    ("0.1", 0.1),
    ("9.5", 9.5),
    ("9.50", 9.5),
    ("-0.25", -0.25),
    ("1.0", 1.0),
    ("1e300", 1e300),
    ("1E+2", 100.0),
    ("5e-324", 5e-324),
    ("1.7976931348623157e308", 1.7976931348623157e308),
    ("0.30000000000000004", 0.30000000000000004),
    ("123456789012345680000.0", 1.2345678901234568e20),
    ("4.9e-324", Decimal("4.9e-324")),
    ("1.7976931348623158e308", Decimal("1.7976931348623158e308")),
    ("0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
    ("0.10000000000000000001", Decimal("0.10000000000000000001")),
    ("9007199254740993.0", Decimal("9007199254740993.0")),
    ("3.14159265358979323846264338327950288", Decimal("3.14159265358979323846264338327950288")),
    ("1e400", Decimal("1e400")),
    ("-1e-400", Decimal("-1e-400")),
    ("9007199254740993", 9007199254740993),
    ("18446744073709551616", 2**64),
    ("1" + "0" * 60 + "1", 10**61 + 1),
]


def as_text(number: str) -> Any:
    return f'{{"body": {number}}}'


def as_bytes(number: str) -> Any:
    return as_text(number).encode()


def in_a_list(number: str) -> Any:
    return f'{{"body": [1.5, {{"a": {number}}}]}}'


@pytest.mark.parametrize("form", [as_text, as_bytes])
async def test_a_number_arrives_with_its_value_on_every_bus(bus, form):
    async with SubscriptionManager(SCHEMA, bus.config(), limits=Limits(queue_messages=1000)) as manager:
        async with (
            manager.subscribe(RAW, framing="result", resume=True) as native,
            manager.subscribe("subscription { seen }", framing="result") as function,
        ):
            await manager.publish_event("e", "c", {"body": "first"})
            token = json.loads((await texts(native, 1))[0])["extensions"]["eventId"]
            for text, _ in NUMBERS:
                await manager.publish_event("e", "c", form(text))
            await manager.publish_events([Event("e", "c", form(text)) for text, _ in NUMBERS])
            live = [body_of(message) for message in await texts(native, 2 * len(NUMBERS))]
            answers = await texts(function, 2 * len(NUMBERS) + 1)
        async with manager.subscribe(RAW, framing="result", resume=token) as again:
            past = [body_of(message) for message in await texts(again, 2 * len(NUMBERS))]
    wanted = [Decimal(text) for text, _ in NUMBERS] * 2
    assert live == wanted
    assert past == wanted
    assert [(type(value), value) for value in SEEN[1:]] == [(type(value), value) for _, value in NUMBERS] * 2
    # What a function hands on keeps its value, too.
    assert [Decimal(str(body_of(message))) for message in answers[1:]] == wanted


@pytest.mark.parametrize("text", [AMOUNT, "0.1", "9.5", "0.10000000000000000001", "9007199254740993", "-1.5"])
async def test_a_client_reads_it_to_the_letter(bus, text):
    async with SubscriptionManager(SCHEMA, bus.config()) as manager:
        async with manager.subscribe("subscription { raw { body exact } }", framing="result") as stream:
            await manager.publish_event("e", "c", f'{{"body": [{text}], "exact": {text}}}')
            assert await texts(stream, 1) == [f'{{"data":{{"raw":{{"body":[{text}],"exact":{text}}}}}}}']


async def test_below_lists_and_objects_it_is_the_same(manager):
    async with (
        manager.subscribe(RAW, framing="result") as native,
        manager.subscribe("subscription { seen }") as function,
    ):
        for text, value in NUMBERS:
            await manager.publish_event("e", "c", in_a_list(text))
            await take(function)
            assert SEEN.pop() == [1.5, {"a": value}]
            assert body_of((await texts(native, 1))[0]) == [Decimal("1.5"), {"a": Decimal(text)}]


async def test_a_mappings_decimal_travels_as_its_text(bus):
    """The control: a Decimal in a mapping is text, as it has always been."""
    async with SubscriptionManager(SCHEMA, bus.config()) as manager:
        async with (
            manager.subscribe("subscription { raw { body exact } }", framing="result") as native,
            manager.subscribe("subscription { seen }") as function,
        ):
            for text in (AMOUNT, "1.10", "1E+400"):
                await manager.publish_event("e", "c", {"body": Decimal(text), "exact": Decimal(text)})
                assert await texts(native, 1) == [f'{{"data":{{"raw":{{"body":"{text}","exact":"{text}"}}}}}}']
                await take(function)
    assert SEEN == [AMOUNT, "1.10", "1E+400"]


# ---- predicates ----


async def reached(manager: SubscriptionManager, query: str, *events: Any, **options: Any) -> list[Any]:
    """The bodies of these events that such a subscription receives; another one receives them all."""
    async with (
        manager.subscribe(query, framing="result", subscription_id="a", **options) as stream,
        manager.subscribe(RAW, framing="result") as control,
    ):
        for event in events:
            await manager.publish_event("e", "c", event)
        await texts(control, len(events))
        assert await manager.complete_subscription("a")
        return [body_of(message.decode()) async for message in stream]


async def test_an_argument_of_the_document_is_compared_by_its_value(bus):
    events = [as_text(text) for text in (NEIGHBOUR, AMOUNT, AMOUNT + "00", f'"{AMOUNT}"', "1", "1e400")]
    async with SubscriptionManager(SCHEMA, bus.config()) as manager:
        query = f"subscription {{ equal(j: {AMOUNT}) {{ body }} }}"
        assert await reached(manager, query, *events) == [Decimal(AMOUNT)] * 2
        query = f"subscription {{ above(j: {NEIGHBOUR}) {{ body }} }}"
        assert await reached(manager, query, *events) == [Decimal(AMOUNT), Decimal(AMOUNT), Decimal("1e400")]
        query = "subscription { equal(j: [1.5, {a: 0.10000000000000000001}]) { body }}"
        got = await reached(manager, query, in_a_list("0.1"), in_a_list("0.10000000000000000001"))
        assert got == [[Decimal("1.5"), {"a": Decimal("0.10000000000000000001")}]]


async def test_a_claim_is_compared_by_its_value(bus):
    events = [as_text(text) for text in (NEIGHBOUR, AMOUNT, AMOUNT + "0", f'"{AMOUNT}"', f'"{NEIGHBOUR}"', "1")]
    context = SecurityContext(user_id=1, claims={"limit": Decimal(AMOUNT)})
    async with SubscriptionManager(SCHEMA, bus.config()) as manager:
        got = await reached(manager, "subscription { allowed { body } }", *events, context=context)
        assert got == [Decimal(AMOUNT), Decimal(AMOUNT), AMOUNT]


async def test_the_old_image_is_exact_too(bus):
    async with SubscriptionManager(SCHEMA, bus.config()) as manager:
        async with manager.subscribe("subscription { unchanged { body } }", framing="result") as stream:
            for old in (NEIGHBOUR, AMOUNT):
                await manager.publish_event("e", "c", as_text(AMOUNT), previous=as_text(old))
            await manager.publish_event("e", "c", {"body": 0.5}, previous={"body": 0.5})
            assert [body_of(message) for message in await texts(stream, 2)] == [Decimal(AMOUNT), Decimal("0.5")]


def test_an_explanation_shows_it():
    manager = SubscriptionManager(SCHEMA)
    data: Any = as_text(NEIGHBOUR)
    explained = manager.explain(f"subscription {{ equal(j: {AMOUNT}) {{ body }} }}", Event("e", "c", data))
    assert explained.stage == "where"
    assert f'data["body"] is {NEIGHBOUR}' in explained.reason
    assert f'argument("j") is {AMOUNT}' in explained.reason


# ---- what a client sends ----


async def limited(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(user_id=1, claims={"limit": Decimal(payload["limit"])})


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("subscription { exact(j: %s, d: %s) }", None),
        ("subscription ($j: JSON, $d: Decimal) { exact(j: $j, d: $d) }", '{"j": %s, "d": %s}'),
        ("subscription ($j: JSON, $d: Decimal) { exact(j: $j, d: $d) }", '{"j": %s, "d": "%s"}'),
        ("subscription ($j: JSON = %s, $d: Decimal = %s) { exact(j: $j, d: $d) }", None),
    ],
)
@pytest.mark.parametrize("number", [AMOUNT, "0.10000000000000000001", "0.5"])
async def test_arguments_and_claims_reach_a_function_exactly(query, variables, number):
    both = (number, number)
    payload = {"query": query % both if variables is None else query}
    text = json.dumps(payload)[:-1] + (', "variables": ' + variables % both if variables else "") + "}"
    manager = SubscriptionManager(SCHEMA)
    async with served(manager, auth_handler=limited) as (_, server):
        async with server.acknowledged(payload={"limit": AMOUNT}) as client:
            await client.send(f'{{"id":"1","type":"subscribe","payload":{text}}}')
            await client.sync()
            await manager.publish_event("e", "c", {"body": 1})
            assert (await client.message())["payload"] == {"data": {"exact": 1}}
    [(limit, j, d)] = SEEN
    assert (limit, j, d) == (Decimal(AMOUNT), 0.5 if number == "0.5" else Decimal(number), Decimal(number))
    assert [type(value) for value in (limit, j, d)] == [Decimal, float if number == "0.5" else Decimal, Decimal]


async def test_a_variable_is_compared_by_its_value():
    manager = SubscriptionManager(SCHEMA)
    async with served(manager) as (_, server), server.acknowledged() as client:
        payload = f'{{"query":"subscription ($j: JSON!) {{ equal(j: $j) {{ body }} }}","variables":{{"j":{AMOUNT}}}}}'
        await client.send(f'{{"id":"1","type":"subscribe","payload":{payload}}}')
        await client.sync()
        for text in (NEIGHBOUR, AMOUNT, "2"):
            await manager.publish_event("e", "c", as_text(text))
        await client.expect(f'{{"id":"1","type":"next","payload":{{"data":{{"equal":{{"body":{AMOUNT}}}}}}}}}')
        await client.sync()


@pytest.mark.parametrize("number", [AMOUNT, "0.5", "1e400", "9007199254740993"])
async def test_a_pings_payload_is_echoed_to_the_letter(number):
    async with served(SubscriptionManager(SCHEMA)) as (_, server), server.acknowledged() as client:
        await client.send(f'{{"type":"ping","payload":{{"n":{number}}}}}')
        message = json.loads(await client.receive(), parse_float=Decimal)
        assert message == {"type": "pong", "payload": {"n": json.loads(number, parse_float=Decimal)}}


# ---- PostgreSQL's own numbers ----

WRITTEN = [
    "SELECT fraiseql_subs.publish('c', 'e', jsonb_build_object('body', {}::numeric))",
    "SELECT fraiseql_subs.publish('c', 'e', '{{\"body\": {}}}')",
    "INSERT INTO t (body) VALUES ({})",
    "INSERT INTO t (body) VALUES (0); UPDATE t SET body = {}",
]


@pytest.mark.parametrize("statement", WRITTEN)
async def test_a_numeric_of_postgresql_arrives_with_its_value(postgres_server, statement):
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(database(postgres_server, installed=True))
        db = stack.enter_context(connect(url))
        db.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body numeric)")
        db.execute("SELECT fraiseql_subs.track('t', channel => 'c')")
        async with SubscriptionManager(SCHEMA, EventBusConfig.postgresql(url)) as manager:
            async with (
                manager.subscribe(RAW, framing="result") as native,
                manager.subscribe("subscription { seen }") as function,
            ):
                for text, value in (
                    (AMOUNT, Decimal(AMOUNT)),
                    ("9.50", 9.5),
                    ("1e400", 10**400),
                    (str(10**61), 10**61),
                ):
                    db.execute(statement.format(text))
                    if "UPDATE" in statement:
                        assert await texts(native, 1) == ['{"data":{"raw":{"body":0}}}']
                        await take(function)
                        db.execute("TRUNCATE t")
                    [message] = await texts(native, 1)
                    await take(function)
                    assert body_of(message) == Decimal(text)
                    assert (SEEN[-1], type(SEEN[-1])) == (value, type(value))
