"""What can never be meant is told: in the log once, and at DEBUG for each event that reached nobody."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI

from fraiseql_subs import (
    ID,
    JSON,
    Event,
    EventBusConfig,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    requires,
    subscription,
    viewer,
)
from fraiseql_subs.asgi import SubscriptionApp
from fraiseql_subs.fastapi import SubscriptionRouter, SubscriptionRouterFactory

from .databases import connect, database
from .judging import schema_of
from .servers import SERVERS
from .sockets import serving, until
from .support import entered, manager_of, take
from .test_bus import opened

VIEWER = SecurityContext(user_id="7")

bus = pytest.fixture(params=["memory", *SERVERS])(opened)


# ---- events that no declaration names ----


@subscription(channel="orders", event_types=["orderUpdated", "orderPlaced"], passthrough=True)
def orders() -> JSON:
    raise NotImplementedError


@subscription(channel="orders", event_types=["gone"], passthrough=True)
def gone() -> JSON:
    raise NotImplementedError


@subscription(channel="users:{id}", passthrough=True)
def user(id: ID) -> JSON:
    raise NotImplementedError


DECLARED = Schema(subscriptions=[orders, gone, user])

#: Event type, channel, and what the line holds.
NEVER = [
    ("orders", "orderUpdated", ["orderUpdated"]),  # turned round
    ("orderUpdated", "order", ["order"]),
    ("orderUpdated", "Orders", ["Orders"]),
    ("x", "users", ["users"]),
    ("x", "users:1:2", ["users:1:2"]),
    ("x", "user", ["user"]),
    ("insert", "orders", ["insert", "orders"]),
    ("OrderUpdated", "orders", ["OrderUpdated", "orders"]),
    ("orderUpdated ", "orders", ["orderUpdated", "orders"]),
]


@pytest.mark.parametrize(("event_type", "channel", "parts"), NEVER)
async def test_an_event_that_no_declaration_names_is_told_once(event_type, channel, parts, told):
    manager = SubscriptionManager(DECLARED)
    async with manager, manager.subscribe("subscription { orders }", framing="result") as stream:
        for _ in range(2):
            assert await manager.publish_event(event_type, channel, {"n": 0})
            await manager.publish_events([Event(event_type, channel, {"n": 0})])
            await asyncio.to_thread(manager.publish_event_sync, event_type, channel, {"n": 0})
        await manager.publish_event("orderUpdated", "orders", {"n": 1})
        assert await take(stream) == [{"data": {"orders": {"n": 1}}}]
        [line] = told(level=logging.WARNING)
        assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("event_type", "channel"),
    [("orderUpdated", "orders"), ("gone", "orders"), ("anything", "users:1"), ("x", "users:a%3Ab"), ("x", "users:")],
)
async def test_one_that_is_declared_is_not_told_even_where_nobody_listens(event_type, channel, told):
    manager = SubscriptionManager(DECLARED)
    async with manager:
        await manager.publish_event(event_type, channel, {"n": 0})
        assert told() == []
        await manager.publish_event("x", "nowhere", {"n": 0})
        assert len(told("nowhere")) == 1


async def test_each_channel_and_each_type_is_told_by_itself(told):
    manager = SubscriptionManager(DECLARED)
    async with manager:
        for _ in range(2):
            for channel in ("a", "b"):
                await manager.publish_event("x", channel, {})
            for kind in ("insert", "delete"):
                await manager.publish_event(kind, "orders", {})
        assert len(told(level=logging.WARNING)) == 4
        assert [len(told(part)) for part in ("insert", "delete")] == [1, 1]


async def test_swapped_arguments_are_told_as_such(told):
    async with SubscriptionManager(DECLARED) as manager:
        await manager.publish_event("orders", "orderUpdated", {})
        [line] = told()  # at once: it is written while the publisher's call runs
        assert '"orders" is a channel here' in line
        assert "publish_event(event_type, channel, data)" in line


async def test_the_line_says_what_is_declared_and_that_it_may_be_meant(told):
    @subscription
    async def generated() -> AsyncIterator[int]:
        yield 1

    async with SubscriptionManager(DECLARED) as manager, SubscriptionManager(Schema([generated])) as generators:
        await manager.publish_event("x", "nowhere", {})
        await manager.publish_event("insert", "orders", {})
        await generators.publish_event("x", "elsewhere", {})
        channel, kind, none = told(level=logging.WARNING)
        assert 'Channels here: "orders", "users:{id}".' in channel
        assert "If only other services read this channel, all is well" in channel
        assert 'Types there: "gone", "orderPlaced", "orderUpdated".' in kind
        assert "Tracked tables publish this type" in kind
        assert "Channels here: none." in none


async def test_names_that_others_choose_do_not_flood_the_log(told):
    async with SubscriptionManager(DECLARED) as manager:
        for number in range(1_100):
            await manager.publish_event("x", f"order:{number}", {})
        assert len(told()) == 1
        for number in range(1_100):
            await manager.publish_event(f"{number}", "orders", {})
        lines = told("is about that type", level=logging.WARNING)
        assert len(lines) == 1_000
        assert [line for line in lines if "the last time" in line] == lines[-1:]


async def test_a_publisher_that_enters_no_manager_is_told(redis_server, told):
    manager = SubscriptionManager(DECLARED, EventBusConfig.redis(redis_server.url))
    try:
        for _ in range(2):
            await asyncio.to_thread(manager.publish_event_sync, "orders", "orderUpdated", {})
        assert len(told("swapped", level=logging.WARNING)) == 1
    finally:
        manager.close()


async def test_publishers_on_every_bus_are_told(bus, told):
    async with SubscriptionManager(DECLARED, bus.config()) as manager:
        async with manager.subscribe("subscription { orders }", framing="result") as stream:
            for _ in range(2):
                await manager.publish_event("orders", "orderUpdated", {"n": 0})
                await manager.publish_event("insert", "orders", {"n": 0})
            await manager.publish_event("orderUpdated", "orders", {"n": 1})
            assert await take(stream) == [{"data": {"orders": {"n": 1}}}]
        assert len(told("orderUpdated", level=logging.WARNING)) >= 1
        assert len(told("insert", level=logging.WARNING)) == 1
        assert len(told(level=logging.WARNING)) == 2


async def test_a_tracked_tables_insert_against_other_types_is_told(postgres_server, told):
    with database(postgres_server, installed=True) as url, connect(url) as db:
        db.execute("CREATE TABLE orders (id int PRIMARY KEY); SELECT fraiseql_subs.track('orders')")
        async with SubscriptionManager(DECLARED, EventBusConfig.postgresql(url)) as manager:
            async with manager.subscribe("subscription { orders }", framing="result") as stream:
                db.execute("INSERT INTO orders VALUES (1), (2)")
                await manager.publish_event("orderUpdated", "orders", {"n": 1})
                assert await take(stream) == [{"data": {"orders": {"n": 1}}}]
                await until(lambda: told("insert"))
                assert len(told("insert", "orders", level=logging.WARNING)) == 1


# ---- at DEBUG: why an event reached nobody ----


@subscription(
    channel="items:{of}",
    event_types=["changed"],
    where=data["n"] >= argument("least"),
    rows=data["owner"] == viewer("user_id"),
    sources=["till"],
    passthrough=True,
)
def item(of: ID, least: int) -> JSON:
    raise NotImplementedError


ITEM = "subscription { item(of: 1, least: 3) }"
EVENT: dict[str, Any] = {
    "event_type": "changed",
    "channel": "items:1",
    "data": {"n": 5, "owner": "7"},
    "source": "till",
}
#: What decides, what differs from an event that arrives, and what the line says of it.
MISSES: list[tuple[str, dict[str, Any], str]] = [
    ("tenant", {"tenant_id": "b"}, 'the event is for tenant "b", the subscriptions here are for tenant none'),
    ("channel", {"channel": "items:2"}, "no subscription of this process listens to it"),
    ("event_type", {"event_type": "removed"}, 'the event\'s type is "removed", the field is about ["changed"]'),
    ("sources", {"source": "web"}, 'the event\'s source is "web", allowed are ["till"]'),
    ("where", {"data": {"n": 2, "owner": "7"}}, 'where is not true: 3 <= data["n"]; data["n"] is 2'),
    ("where", {"data": {"owner": "7"}}, 'where is not true: 3 <= data["n"]; data["n"] is missing'),
    ("rows", {"data": {"n": 5, "owner": "8"}}, 'rows is not true: data["owner"] == "7"; data["owner"] is "8"'),
]


@pytest.mark.parametrize(("stage", "change", "reason"), MISSES)
async def test_at_debug_one_line_an_event_says_why_it_reached_nobody(stage, change, reason, told, caplog):
    event = {**EVENT, **change}
    caplog.set_level(logging.DEBUG, logger="fraiseql_subs")
    manager = manager_of(item)
    async with manager, manager.subscribe(ITEM, context=VIEWER, framing="result") as stream:
        caplog.clear()
        for count in (1, 2):
            await manager.publish_event(**event)
            lines = told(event["channel"], level=logging.DEBUG)
            assert len(lines) == count
        given = Event(**event)
        explained = manager.explain(ITEM, given, context=VIEWER)
        assert explained.stage == stage
        for line in lines:
            assert line.partition("reached nobody: ")[2].startswith(f"{stage}: {reason}")
        if stage in ("event_type", "sources"):  # the others know of the event's subscription, or of its arguments
            assert explained.reason == reason
        caplog.clear()
        await manager.publish_event(**EVENT)
        assert await take(stream) == [{"data": {"item": EVENT["data"]}}]
        assert told("items:1") == []


async def test_at_debug_an_event_that_reached_somebody_is_not_explained_for_others(told, caplog):
    caplog.set_level(logging.DEBUG, logger="fraiseql_subs")
    manager = manager_of(item)
    async with (
        manager,
        manager.subscribe(ITEM, context=VIEWER, framing="result") as stream,
        manager.subscribe("subscription { item(of: 1, least: 6) }", context=VIEWER),
    ):
        caplog.clear()
        await manager.publish_event(**EVENT)
        assert len(await take(stream)) == 1
        assert told("items:1") == []
        await manager.publish_event(**{**EVENT, "data": {"n": 1, "owner": "7"}})
        assert len(told("items:1", level=logging.DEBUG)) == 1


@pytest.mark.parametrize(("stage", "change", "reason"), MISSES)
async def test_at_info_nothing_is_said_of_single_events(stage, change, reason, told):
    manager = manager_of(item)
    async with manager, manager.subscribe(ITEM, context=VIEWER, framing="result"):
        for _ in range(3):
            await manager.publish_event(**{**EVENT, **change})
        assert told("items:", level=logging.DEBUG) == told("items:", level=logging.INFO) == []


async def test_a_level_that_changes_while_the_manager_runs_is_noticed(told, caplog):
    miss = {**EVENT, "data": {}}
    async with manager_of(item) as manager, manager.subscribe(ITEM, context=VIEWER):
        await manager.publish_event(**miss)
        caplog.set_level(logging.DEBUG, logger="fraiseql_subs.events")

        async def is_told() -> bool:
            await manager.publish_event(**miss)
            return bool(told("items:1", level=logging.DEBUG))

        while not await is_told():  # within a second
            await asyncio.sleep(0.01)
        caplog.set_level(logging.INFO, logger="fraiseql_subs.events")
        caplog.clear()
        for _ in range(3):
            await manager.publish_event(**miss)
            await asyncio.sleep(0)
        assert told("items:1") == []


async def test_the_line_names_a_few_of_many_conditions(told, caplog):
    caplog.set_level(logging.DEBUG, logger="fraiseql_subs")
    async with manager_of(item) as manager, contextlib.AsyncExitStack() as stack:
        for least in range(10, 20):
            query = f"subscription {{ item(of: 1, least: {least}) }}"
            await entered(stack, manager.subscribe(query, context=VIEWER))
        await manager.publish_event(**EVENT)
        [line] = told("items:1", level=logging.DEBUG)
        assert line.count('data["n"] is 5') == 3
        assert line.endswith("; and 7 other conditions are not met")


async def test_values_in_the_line_are_cut_and_escaped(told, caplog):
    caplog.set_level(logging.DEBUG, logger="fraiseql_subs")
    async with manager_of(item) as manager, manager.subscribe(ITEM, context=VIEWER):
        for value in ("a\nb" * 10_000, ["x"] * 10_000):
            caplog.clear()
            await manager.publish_event(**{**EVENT, "data": {"n": 5, "owner": value}})
            [line] = told("items:1", level=logging.DEBUG)
            assert len(line) < 500
            assert "\n" not in line


async def test_on_every_bus_the_process_that_listens_says_why(bus, told, caplog):
    caplog.set_level(logging.DEBUG, logger="fraiseql_subs")
    async with (
        SubscriptionManager(Schema([item]), bus.config()) as manager,
        manager.subscribe(ITEM, context=VIEWER, framing="result") as stream,
    ):
        await manager.publish_event(**{**EVENT, "data": {}})
        await manager.publish_event(**EVENT)
        assert await take(stream) == [{"data": {"item": EVENT["data"]}}]
        await until(lambda: told("items:1", level=logging.DEBUG))
        [line] = told("items:1", level=logging.DEBUG)
        assert 'where: where is not true: 3 <= data["n"]; data["n"] is missing' in line


# ---- a viewer that nobody authenticates ----


def by_router(make: Any) -> Any:
    def build(manager: SubscriptionManager, **options: Any) -> FastAPI:
        app = FastAPI()
        app.include_router(make(manager, "/", **options))
        return app

    return build


#: Whoever serves a manager to clients that it has not authenticated.
TRANSPORTS: dict[str, Any] = {
    "application": SubscriptionApp,
    "otherwise": lambda manager, **options: SubscriptionApp(manager, otherwise=FastAPI(), **options),
    "factory": by_router(SubscriptionRouterFactory.create),
    "router": by_router(SubscriptionRouter),
}


@pytest.mark.parametrize(
    ("options", "is_told"),
    [
        ({"rows": viewer("user_id") == data["v"]}, True),
        ({"rows": (data["v"] == 1) | viewer("roles").contains("staff")}, True),
        ({"requires": requires("read")}, True),
        ({"rows": data["v"] == 1}, False),
        ({"where": argument("x") == data["v"]}, False),
    ],
)
@pytest.mark.parametrize("has_handler", [False, True])
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_depends_on_the_viewer_without_an_auth_handler_is_told_once(
    options, is_told, has_handler, transport, told
):
    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return VIEWER

    manager = SubscriptionManager(schema_of("x: ID", guarded=options))
    for _ in range(2):
        app = TRANSPORTS[transport](manager, auth_handler=authenticate if has_handler else None)
    async with serving(app, lifespan="on") as server:
        for _ in range(2):
            async with server.acknowledged() as client:
                await client.sync()
    assert len(told("auth_handler", "guarded", level=logging.WARNING)) == (is_told and not has_handler)


# ---- when it is built ----


def test_what_a_schema_warns_of_is_logged_when_a_manager_is_built(told):
    schema = Schema(subscriptions=[item])
    SubscriptionManager(schema)
    assert told() == []
    schema._warnings = ["item: something that can hardly be meant"]
    SubscriptionManager(schema)
    assert told(level=logging.WARNING) == ["item: something that can hardly be meant"]
