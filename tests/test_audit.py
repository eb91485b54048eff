"""The audit trail: one record for each decision about who may connect, watch and go on, none of it for clients."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

from fraiseql_subs import (
    ID,
    JSON,
    Forbidden,
    GraphQLRequestError,
    LimitExceeded,
    Limits,
    Schema,
    SecurityContext,
    SlowConsumer,
    SubscriptionManager,
    requires,
    subscription,
    viewer,
)
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import FORBIDDEN, NARROW, Direct, gauges, publish_tick, served, tick, tick_of, ticking, until
from .support import Entry, audited, bounded, one, soon, within

#: How many logins are refused in a flood; `FLOOD=10000` where there is time for it.
LOGINS = int(os.environ.get("FLOOD", "2000"))


@subscription(channel="x", requires=requires("read"), passthrough=True)
def guarded() -> JSON:
    raise NotImplementedError


@subscription(channel="x", sources=["shop"], passthrough=True)
def sourced() -> JSON:
    raise NotImplementedError


@subscription(channel="x", scope={"of": viewer("tenant_id")}, passthrough=True)
def scoped(of: ID) -> JSON:
    raise NotImplementedError


def manager_of(limits: Limits | None = None, *, multi_tenant: bool = False) -> SubscriptionManager:
    schema = Schema(subscriptions=[tick, guarded, sourced, scoped])
    return SubscriptionManager(schema, limits=limits or Limits(), multi_tenant=multi_tenant)


async def authenticate(payload: dict[str, Any]) -> Any:
    """Does what the payload says."""
    if "wait" in payload:
        await asyncio.Event().wait()
    if payload.get("say") == "none":
        return None
    if payload.get("say") == "wrong":
        return payload
    expires_at = within(payload["expires"]) if "expires" in payload else None
    return SecurityContext(**{"user_id": payload["user"], **payload.get("context", {})}, expires_at=expires_at)


def about(entry: Entry) -> tuple[str | None, str | None]:
    return entry.user_id, entry.tenant_id


# ---- connections ----


async def test_a_connection_that_is_accepted():
    with audited() as trail:
        async with ticking(auth_handler=authenticate) as (_, server):
            async with server.acknowledged(payload={"user": 7, "context": {"tenant_id": "a"}}):
                [entry] = await trail.has("connection_accepted")
                assert entry[1:4] == ("", "7", "a")
                assert entry.connection_id
                async with server.acknowledged(payload={"user": None}):
                    [other] = await trail.has("connection_accepted")
                    assert about(other) == (None, None)
                    assert other.connection_id not in (None, entry.connection_id)
        # Who leaves by himself is no decision.
        await trail.has()


REFUSED: dict[str, tuple[Any, str, str | None]] = {
    "the handler raised": ({}, "auth_handler raised KeyError", None),
    "it returned None": ({"say": "none"}, "auth_handler returned None", None),
    "another type": ({"say": "wrong"}, "expected a SecurityContext or None, got dict", None),
    "expired": ({"user": 1, "expires": -1}, "expired", "1"),
    "no tenant": ({"user": 1}, "tenant", "1"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_login_that_is_refused(why):
    payload, reason, user = REFUSED[why]
    manager = manager_of(multi_tenant=why == "no tenant")
    with audited() as trail:
        async with served(manager, auth_handler=authenticate) as (_, server):
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": payload})
                assert await client.closed() == FORBIDDEN
                [entry] = await trail.has("connection_refused")
                assert reason in entry.reason
                assert about(entry) == (user, None)
                assert entry.connection_id
            server.log.take()
        await trail.has()


@pytest.mark.parametrize(
    ("limit", "close"),
    [
        ("max_connections", (1013, "Too many connections")),
        ("max_connections_per_user", (4403, "Too many connections")),
        ("max_connections_per_tenant", (4403, "Too many connections")),
    ],
)
async def test_a_connection_beyond_a_limit(limit, close):
    payload = {"user": 1, "context": {"tenant_id": "a"}}
    with audited() as trail:
        async with ticking(auth_handler=authenticate, limits=bounded(**{limit: 1})) as (_, server):
            async with server.acknowledged(payload=payload), server.client() as client:
                await client.send({"type": "connection_init", "payload": payload})
                assert await client.closed() == close
                [_, entry] = await trail.has("connection_accepted", "connection_refused")
                assert entry[1:4] == (f"{limit} is reached", "1", "a")
            line = f"fraiseql_subs: a connection of user '1' of tenant 'a' was refused: {limit} is reached"
            assert server.log.take() == ([] if limit == "max_connections" else [line])
        await trail.has()


async def test_too_many_connections_of_a_user_are_logged_at_a_rate():
    with audited() as trail:
        async with ticking(auth_handler=authenticate, limits=Limits(max_connections_per_user=1)) as (_, server):
            async with server.acknowledged(payload={"user": 1}):
                await trail.has("connection_accepted")
                for _ in range(40):
                    async with server.client() as client:
                        await client.send({"type": "connection_init", "payload": {"user": 1}})
                        assert await client.closed() == (4403, "Too many connections")
                assert len(await trail.has(*["connection_refused"] * 40)) == 40
            assert 20 <= len(server.log.take()) < 40


async def test_an_origin_and_a_subprotocol_that_are_not_ours():
    from websockets.exceptions import InvalidStatus

    with audited() as trail:
        async with ticking(allowed_origins=["https://ours.example"]) as (_, server):
            with pytest.raises(InvalidStatus):
                await server.connect(origin="https://theirs.example")
            [entry] = await trail.has("connection_refused")
            assert entry[1:] == ("Origin is not allowed", None, None, None, 0)
            async with server.client(subprotocols=["graphql-ws"]) as client:
                assert (await client.closed())[0] == 4406
            [entry] = await trail.has("connection_refused")
            assert entry[1:] == ("Subprotocol not acceptable", None, None, None, 0)
            async with server.acknowledged(origin="https://ours.example"):
                await trail.has("connection_accepted")
        await trail.has()


@pytest.mark.parametrize("init", [None, {"type": "connection_init", "payload": {"wait": True}}])
async def test_a_connection_that_is_not_acknowledged_in_time(init):
    with audited() as trail:
        limits = Limits(connection_init_timeout=0.2)
        async with ticking(auth_handler=authenticate, limits=limits) as (_, server), server.client() as client:
            if init:
                await client.send(init)
            assert (await client.closed())[0] == 4408
            [entry] = await trail.has("connection_refused")
            assert entry.reason == "Connection initialisation timeout"
        await trail.has()


async def test_a_connection_that_makes_room_for_a_newer_one():
    with audited() as trail:
        async with ticking(limits=Limits(max_pending_connections=1)) as (_, server):
            async with server.client() as oldest, server.client() as newer:
                assert (await oldest.closed())[0] == 4408
                [entry] = await trail.has("connection_refused")
                assert entry.reason == "max_pending_connections is reached"
                await newer.init()
                await trail.has("connection_accepted")
        await trail.has()


@pytest.mark.parametrize(
    ("message", "code"),
    [("{", 4400), ({"id": "1", "type": "subscribe", "payload": {"query": "{ a }"}}, 4401), ("x" * 300_000, 1009)],
)
async def test_a_connection_that_is_closed_before_the_ack(message, code):
    with audited() as trail:
        async with ticking() as (_, server):
            async with server.client() as client:
                await client.send(message)
                close = await client.closed()
                assert close[0] == code
                [entry] = await trail.has("connection_refused")
                assert entry.reason == close[1]
            # The same after it is no refusal.
            async with server.acknowledged() as client:
                await trail.has("connection_accepted")
                await client.send("{")
                assert (await client.closed())[0] == 4400
        await trail.has()


# ---- subscribes ----

SCOPED = "subscription ($of: ID!) { scoped(of: $of) }"
#: Query, variables, context, what the reason holds, and the module.
MODULES: dict[str, tuple[str, dict[str, Any], dict[str, Any], list[str], str]] = {
    "fields": ("subscription { guarded }", {}, {}, ["Subscription.guarded", "read"], "fields"),
    "sources": ("subscription { sourced }", {}, {"sources": ["depot"]}, ["source"], "sources"),
    "scope": (SCOPED, {"of": "b"}, {"tenant_id": "a"}, ["of", '"b"', "tenant_id", '"a"'], "scope"),
}
ALLOWED: dict[str, Any] = {"permissions": ["read"], "sources": ["shop"], "tenant_id": "b"}


@pytest.mark.parametrize("module", MODULES)
async def test_a_subscribe_that_a_module_refuses(module):
    query, variables, context, reasons, name = MODULES[module]
    with audited() as trail:
        manager = manager_of()
        async with served(manager, auth_handler=authenticate) as (_, server):
            async with (
                server.acknowledged(payload={"user": 7, "context": context}) as client,
                server.acknowledged(payload={"user": 8, "context": ALLOWED}) as allowed,
            ):
                accepted, _ = await trail.has("connection_accepted", "connection_accepted")
                await client.ask("1", query, variables=variables)
                forbidden = [{"message": "Forbidden", "extensions": {"code": "FORBIDDEN"}}]
                await client.expect({"id": "1", "type": "error", "payload": forbidden})
                [entry] = await trail.has("subscribe_refused")
                assert about(entry) == ("7", context.get("tenant_id"))
                assert entry.connection_id == accepted.connection_id
                assert all(reason in entry.reason for reason in reasons), entry.reason
                await allowed.subscribe("1", query, variables=variables)
                await trail.has()
                assert manager.get_metrics()["violations"][name] == 1
            with pytest.raises(Forbidden, match=r"^Forbidden$"):
                async with manager.subscribe(
                    query, variables=variables, context=SecurityContext(9, **context), connection_id="label"
                ):
                    pass
            [entry] = await trail.has("subscribe_refused")
            assert (entry.user_id, entry.connection_id) == ("9", "label")
            async with manager.subscribe(query, variables=variables, context=SecurityContext(9, **ALLOWED)):
                await trail.has()


@pytest.mark.parametrize(
    ("context", "reason"),
    [(SecurityContext(1), "tenant"), (SecurityContext(1, "a", expires_at=within(-1)), "expired")],
)
async def test_in_process_a_viewer_who_may_nothing_at_all(context, reason):
    manager = manager_of(multi_tenant=True)
    async with manager:
        with audited() as trail:
            with pytest.raises(Forbidden):
                async with manager.subscribe(tick_of(1), context=context):
                    pass
            [entry] = await trail.has("subscribe_refused")
            assert entry.user_id == "1"
            assert reason in entry.reason
            async with manager.subscribe(tick_of(1), context=SecurityContext(1, "a")):
                await trail.has()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_subscriptions_per_connection": 1}, "max_subscriptions_per_connection"),
        ({"max_subscriptions_per_user": 1}, "max_subscriptions_per_user"),
        ({"max_subscriptions_per_tenant": 1}, "max_subscriptions_per_tenant"),
        ({"subscribes_per_second": 0.001, "burst": 1}, "subscribes_per_second"),
    ],
)
async def test_a_subscribe_beyond_a_limit(limits, reason):
    with audited() as trail:
        async with ticking(auth_handler=authenticate, limits=bounded(**limits)) as (_, server):
            async with server.acknowledged(payload={"user": 7, "context": {"tenant_id": "a"}}) as client:
                [accepted] = await trail.has("connection_accepted")
                await client.subscribe("1", tick_of(1))
                await trail.has()
                await client.ask("2", tick_of(1))
                assert (await client.message())["type"] == "error"
                [entry] = await trail.has("subscribe_refused")
                assert reason in entry.reason
                assert entry[2:5] == ("7", "a", accepted.connection_id)


@pytest.mark.parametrize("limit", ["max_subscriptions_per_user", "max_subscriptions_per_tenant"])
async def test_in_process_a_subscribe_beyond_a_limit(limit):
    manager = manager_of(bounded(**{limit: 1}))
    context = SecurityContext(7, "a")
    async with manager, manager.subscribe(tick_of(1), context=context):
        with audited() as trail:
            with pytest.raises(LimitExceeded, match=limit):
                async with manager.subscribe(tick_of(1), context=context, connection_id="label"):
                    pass
            [entry] = await trail.has("subscribe_refused")
            assert entry == ("subscribe_refused", f"{limit} is reached", "7", "a", "label", 0)


async def test_who_only_asks_wrongly_is_no_case_for_the_trail():
    manager = manager_of()
    async with manager:
        with audited() as trail:
            for query in ("{", "subscription { nobody }", "{ __typename }"):
                with pytest.raises(GraphQLRequestError):
                    async with manager.subscribe(query):
                        pass
            await trail.has()


# ---- the end of an authority ----


async def test_an_expiry():
    with audited() as trail:
        async with ticking(auth_handler=authenticate) as (manager, server):
            async with server.acknowledged(payload={"user": 7, "expires": 0.8}) as client:
                await client.subscribe("1", tick_of(1))
                await client.subscribe("2", tick_of(1))
                [accepted] = await trail.has("connection_accepted")
                assert (await client.closed())[0] == 4403
                assert await trail.has("expired") == [("expired", "", "7", None, accepted.connection_id, 0)]
            context = SecurityContext(8, "a", expires_at=within(0.3))
            async with manager.subscribe(tick_of(1), context=context, connection_id="label") as stream:
                with pytest.raises(Forbidden):
                    await soon(anext(stream))
            assert await trail.has("expired") == [("expired", "", "8", "a", "label", 0)]
        await trail.has()


#: What is asked for, and the reason.
REFRESHES: dict[str, tuple[dict[str, Any], str]] = {
    "raised": ({}, "auth_handler raised KeyError"),
    "None": ({"say": "none"}, "auth_handler returned None"),
    "another type": ({"say": "wrong"}, "expected a SecurityContext or None, got dict"),
    "expired": ({"user": 7, "expires": -1}, "expired"),
    "late": ({"wait": True}, "time"),
    "another context": ({"user": 8}, "user_id"),
}


@pytest.mark.parametrize("why", REFRESHES)
async def test_a_refresh_that_is_refused(why):
    asked, reason = REFRESHES[why]
    with audited() as trail:
        limits = Limits(connection_init_timeout=1.0)
        async with ticking(auth_handler=authenticate, limits=limits) as (_, server):
            async with server.acknowledged(payload={"user": 7}) as client:
                [accepted] = await trail.has("connection_accepted")
                await client.ask_refresh(asked)
                if why == "another context":
                    assert await client.closed() == FORBIDDEN
                else:
                    await client.expect({"type": "pong", "payload": {"refresh": {"ok": False}}})
                [entry] = await trail.has("refresh_refused")
                assert reason in entry.reason
                assert entry[2:] == ("7", None, accepted.connection_id, 0)
                server.log.take()
        await trail.has()


async def test_a_refresh():
    with audited() as trail:
        async with (
            ticking(auth_handler=authenticate) as (_, server),
            server.acknowledged(payload={"user": 7}) as client,
        ):
            [accepted] = await trail.has("connection_accepted")
            await client.ask_refresh({"user": 7})
            await client.expect({"type": "pong", "payload": {"refresh": {"ok": True, "expiresAt": None}}})
            assert await trail.has("refreshed") == [("refreshed", "", "7", None, accepted.connection_id, 0)]


async def test_a_revocation():
    with audited() as trail:
        async with ticking(auth_handler=authenticate) as (manager, server):
            async with (
                server.acknowledged(payload={"user": 7}) as client,
                server.acknowledged(payload={"user": 7}),
                manager.subscribe(tick_of(1), context=SecurityContext(7)),
            ):
                await trail.has("connection_accepted", "connection_accepted")
                await client.subscribe("1", tick_of(1))
                assert await manager.revoke(user_id=7) == 3
                [entry] = await trail.has("revoked")
                assert entry[2:] == ("7", None, None, 0)
                assert "3" in entry.reason
                # One that finds nobody is a decision, too.
                assert await manager.revoke(tenant_id="a", connection_id="b") == 0
                [entry] = await trail.has("revoked")
                assert entry[2:] == (None, "a", "b", 0)
        await trail.has()


async def test_who_is_revoked_while_being_let_in():
    manager = manager_of()
    async with manager:
        before = manager.subscribe(tick_of(1), context=SecurityContext(7), connection_id="label")
        with audited() as trail:
            await manager.revoke(user_id=7)
            with pytest.raises(Forbidden):
                async with before:
                    pass
            _, entry = await trail.has("revoked", "subscribe_refused")
            assert (entry.user_id, entry.connection_id) == ("7", "label")
            assert "revoked" in entry.reason


async def test_a_socket_that_is_revoked_while_being_let_in():
    ids: list[str] = []
    go = asyncio.Event()

    async def handler(payload: dict[str, Any], connection: Any) -> SecurityContext:
        ids.append(connection.id)
        await go.wait()
        return SecurityContext(payload["user"])

    with audited() as trail:
        async with ticking(auth_handler=handler) as (manager, server):
            async with server.client() as by_user, server.client() as by_id, server.client() as other:
                for client, user in ((by_user, 1), (by_id, 2), (other, 3)):
                    await client.send({"type": "connection_init", "payload": {"user": user}})
                    await client.sync()
                assert await manager.revoke(connection_id=ids[1]) == 1
                refused, _ = await trail.has("connection_refused", "revoked")
                assert refused[1:] == ("Forbidden", None, None, ids[1], 0)
                assert await manager.revoke(user_id=1) == 0
                await trail.has("revoked")
                go.set()
                assert await by_user.closed() == FORBIDDEN
                await other.expect({"type": "connection_ack"})
                refused, accepted = await trail.has("connection_refused", "connection_accepted")
                assert refused[1:] == ("revoked meanwhile", "1", None, ids[0], 0)
                assert accepted[1:] == ("", "3", None, ids[2], 0)


async def test_slowness():
    with audited() as trail:
        limits = Limits(queue_messages=50)
        async with ticking(auth_handler=authenticate, limits=limits, server=NARROW) as (manager, server):
            async with server.acknowledged(payload={"user": 7}, narrow=True) as client:
                [accepted] = await trail.has("connection_accepted")
                for operation in ("1", "2"):
                    await client.subscribe(operation, "subscription { tick(of: 1) { n text } }")
                client.stop_reading()
                for n in range(500):
                    await publish_tick(manager, 1, n, text="x" * 1_000)
                assert await trail.has("slow_consumer") == [("slow_consumer", "", "7", None, accepted.connection_id, 0)]
                client.abort()
            async with manager.subscribe(tick_of(2), context=SecurityContext(8), connection_id="label") as stream:
                for n in range(60):
                    await publish_tick(manager, 2, n)
                with pytest.raises(SlowConsumer):
                    await one(stream)
            assert await trail.has("slow_consumer") == [("slow_consumer", "", "8", None, "label", 0)]
        await trail.has()


# ---- floods and forgeries ----


async def refused_login(app: SubscriptionApp) -> None:
    """One connection with wrong credentials, without the weight of a socket."""
    server = Direct(app, {"type": "connection_init", "payload": {"token": "wrong"}})
    await server.task
    assert server.sent[1:] == [{"type": "websocket.close", "code": 4403, "reason": "Forbidden"}]


async def test_a_flood_of_refused_logins_writes_so_much_and_hides_nobody_else():
    manager = manager_of()
    async with manager:
        app = SubscriptionApp(manager, auth_handler=authenticate)
        with audited() as trail:
            began = time.monotonic()
            for _ in range(0, LOGINS, 50):
                await asyncio.gather(*(refused_login(app) for _ in range(50)))
            # 1,000 at once and 100 a second.
            await until(lambda: gauges(manager)["connections"] == 0)
            written = len(trail.entries)
            assert written <= 1_000 + 100 * (time.monotonic() - began) + 1
            may_be_written = 1_000 + 100 * (time.monotonic() - began)
            assert written < LOGINS or may_be_written >= LOGINS
            # A record of another kind is not held back.
            assert await manager.revoke(user_id=1) == 0
            await until(lambda: trail.entries[-1].event == "revoked")
            assert trail.entries.pop().suppressed == 0
            # The next one that is written says how many were not.
            total = LOGINS
            while sum(1 + entry.suppressed for entry in trail.entries) < total:
                await refused_login(app)
                total += 1
                await asyncio.sleep(0.01)
            assert {entry.event for entry in trail.entries} == {"connection_refused"}
            assert sum(1 + entry.suppressed for entry in trail.entries) == total
            assert written == LOGINS or max(entry.suppressed for entry in trail.entries) > 0


EVIL = "x' reason='' suppressed=0\nrevoked user_id='root'\r\x1b[2K\x85\u2028\u2029\x0b\x0c\u202e\x7f"


async def test_what_a_client_chose_cannot_look_like_another_record():
    with audited() as trail:
        manager = manager_of()
        async with served(manager, auth_handler=authenticate) as (_, server):
            payload = {"user": EVIL, "context": {"tenant_id": EVIL}}
            async with server.acknowledged(payload=payload) as client:
                await trail.has("connection_accepted")
                await client.ask("1", SCOPED, variables={"of": EVIL + "!"})
                assert (await client.message())["type"] == "error"
                await trail.has("subscribe_refused")
                await client.ask_refresh({"user": EVIL + "!"})
                assert (await client.closed())[0] == 4403
                await trail.has("refresh_refused")
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": {"user": EVIL, "expires": -1}})
                assert (await client.closed())[0] == 4403
                await trail.has("connection_refused")
        assert [line.split()[0] for line in trail.lines] == [
            "connection_accepted",
            "subscribe_refused",
            "refresh_refused",
            "connection_refused",
        ]
        for line in trail.lines:
            assert len(line.splitlines()) == 1
            assert line.isprintable()
