"""Who watches: the auth handler, when it is asked, and what its answers mean on the wire."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from fraiseql_subs import (
    JSON,
    Event,
    Forbidden,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    data,
    requires,
    subscription,
    viewer,
)
from fraiseql_subs.asgi import Connection

from .sockets import FORBIDDEN, NARROW, Client, gauges, next_frame, publish_tick, served, tick, tick_of, ticking, until
from .support import within


@subscription(channel="mine", rows=data["owner"] == viewer("user_id"), passthrough=True)
async def mine() -> JSON:
    raise NotImplementedError


@subscription(channel="guarded", requires=requires("read"), passthrough=True)
async def guarded() -> JSON:
    raise NotImplementedError


@subscription(channel="who")
async def who(event: Event, info: Info) -> JSON | None:
    return info.viewer.user_id


def watched(**options: Any) -> Any:
    limits = options.pop("limits", Limits())
    schema = Schema(subscriptions=[tick, mine, guarded, who])
    return served(
        SubscriptionManager(schema, limits=limits, multi_tenant=options.pop("multi_tenant", False)), **options
    )


async def is_user(manager: SubscriptionManager, client: Client, user: object) -> None:
    """What the client sees is what this user may see."""
    await client.subscribe("who", "subscription { who }")
    await manager.publish_event("x", "who", {})
    await client.expect(next_frame("who", {"who": user}))
    await client.complete("who")


# ---- how it is asked ----


async def test_it_gets_the_payload_once_and_its_context_decides_what_is_seen():
    payloads = []

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        payloads.append(payload)
        return SecurityContext(user_id=payload["user"], permissions=payload.get("permissions", ()))

    async with watched(auth_handler=authenticate) as (manager, server):
        async with server.acknowledged(payload={"user": 1}) as one, server.acknowledged(payload={"user": 2}) as two:
            for client in (one, two):
                await client.subscribe("1", "subscription { mine }")
            for owner in (2, 1, 3, 2):
                await manager.publish_event("x", "mine", {"owner": owner})
            await one.expect(next_frame("1", {"mine": {"owner": 1}}))
            await two.expect(*[next_frame("1", {"mine": {"owner": 2}})] * 2)
            await one.ask("2", "subscription { guarded }")
            await one.expect(
                '{"id":"2","type":"error","payload":[{"message":"Forbidden","extensions":{"code":"FORBIDDEN"}}]}'
            )
            for client in (one, two):
                await client.sync()
        async with server.acknowledged(payload={"user": 1, "permissions": ["read"]}) as one:
            await one.subscribe("2", "subscription { guarded }")
            await manager.publish_event("x", "guarded", {"n": 1})
            await one.expect(next_frame("2", {"guarded": {"n": 1}}))
    assert payloads == [{"user": 1}, {"user": 2}, {"user": 1, "permissions": ["read"]}]


@pytest.mark.parametrize("init", [{}, {"payload": None}, {"payload": {}}])
async def test_a_missing_payload_is_an_empty_one(init):
    payloads = []

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        payloads.append(payload)
        return SecurityContext()

    async with ticking(auth_handler=authenticate) as (_, server), server.client() as client:
        await client.send({"type": "connection_init", **init})
        await client.expect({"type": "connection_ack"})
    assert payloads == [{}]


class Callable:
    async def __call__(self, payload: dict[str, Any], *, connection: Connection) -> SecurityContext:
        return SecurityContext(user_id=connection.headers["x-user"])


async def by_async(payload: dict[str, Any]) -> SecurityContext:
    assert threading.current_thread() is threading.main_thread()
    return SecurityContext(user_id="7")


def by_sync(payload: dict[str, Any]) -> SecurityContext:
    assert threading.current_thread() is not threading.main_thread()
    return SecurityContext(user_id="7")


def by_awaitable(payload: dict[str, Any]) -> Any:
    return by_async(payload)


async def by_connection(payload: dict[str, Any], connection: Connection) -> SecurityContext:
    return SecurityContext(user_id=connection.headers["x-user"])


def by_keyword(payload: dict[str, Any], *, connection: Connection) -> SecurityContext:
    return SecurityContext(user_id=connection.headers["x-user"])


@pytest.mark.parametrize("handler", [by_async, by_sync, by_awaitable, by_connection, by_keyword, Callable()])
async def test_every_kind_of_handler(handler):
    async with watched(auth_handler=handler) as (manager, server):
        async with server.acknowledged(additional_headers={"X-User": "7"}) as client:
            await is_user(manager, client, "7")


async def test_what_a_connection_tells():
    seen: list[Connection] = []

    def authenticate(payload: dict[str, Any], connection: Connection) -> SecurityContext:
        seen.append(connection)
        return SecurityContext()

    async with ticking(auth_handler=authenticate) as (manager, server):
        headers = [("X-Two", "a"), ("X-Two", "b"), ("X-Latin", "\xe9")]
        async with (
            server.acknowledged("/path?q=1", additional_headers=headers) as one,
            server.acknowledged() as two,
        ):
            first, second = seen
            assert first.id != second.id
            assert first.headers["x-two"] == "b"
            assert first.headers["sec-websocket-protocol"] == "graphql-transport-ws"
            assert "X-Two" not in first.headers
            assert first.client is not None
            assert first.client[0] == "127.0.0.1"
            assert (first.scope["path"], first.scope["query_string"]) == ("/path", b"q=1")
            with pytest.raises(TypeError):
                first.headers["x-two"] = "c"  # type: ignore[index]
            # The id is the one that the manager takes.
            for client in (one, two):
                await client.subscribe("1", tick_of("a"))
            assert await manager.complete_subscription("1") is False
            assert await manager.complete_subscription("1", first.id) is True
            await one.expect({"id": "1", "type": "complete"})
            assert await manager.complete_subscription("1", first.id) is False
            await publish_tick(manager, "a", 1)
            await two.expect(next_frame("1", {"tick": {"n": 1}}))
            await one.sync()


async def test_without_a_handler_the_viewer_is_anonymous():
    async with watched() as (manager, server), server.acknowledged(payload={"user": 1}) as client:
        await is_user(manager, client, None)


async def test_a_sync_handler_holds_up_nobody_else():
    release, waiting = threading.Event(), threading.Event()

    def authenticate(payload: dict[str, Any]) -> SecurityContext:
        if payload.get("slow"):
            waiting.set()
            assert release.wait(20)
        return SecurityContext()

    async with ticking(auth_handler=authenticate) as (manager, server), server.client() as slow:
        await slow.send({"type": "connection_init", "payload": {"slow": True}})
        await until(waiting.is_set)
        async with server.acknowledged() as quick:
            await quick.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await quick.expect(next_frame("1", {"tick": {"n": 1}}))
        await slow.sync()
        release.set()
        await slow.expect({"type": "connection_ack"})


# ---- its noes ----


async def raises(payload: dict[str, Any]) -> SecurityContext:
    raise Forbidden


async def is_cancelled(payload: dict[str, Any]) -> SecurityContext:
    raise asyncio.CancelledError


def raises_in_a_thread(payload: dict[str, Any]) -> SecurityContext:
    raise Forbidden("no")


async def says_none(payload: dict[str, Any]) -> None:
    return None


async def is_expired(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(expires_at=within(-1))


@pytest.mark.parametrize("handler", [raises, is_cancelled, raises_in_a_thread, says_none, is_expired])
async def test_a_no_closes_4403_and_is_no_error_of_the_server(handler):
    async with ticking(auth_handler=handler) as (manager, server), server.client() as client:
        await client.send({"type": "connection_init", "payload": {"token": "x"}})
        assert await client.closed() == FORBIDDEN
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}


@pytest.mark.parametrize("answer", [True, {"user_id": 1}, SecurityContext, "admin"])
async def test_an_answer_of_another_type_is_a_no_and_logged(answer):
    async def authenticate(payload: dict[str, Any]) -> Any:
        return answer

    async with ticking(auth_handler=authenticate) as (_, server), server.client() as client:
        await client.send({"type": "connection_init"})
        assert await client.closed() == FORBIDDEN
        (text,) = server.log.take()
        assert f"expected a SecurityContext or None, got {type(answer).__name__}" in text


async def test_a_wrong_type_is_logged_and_refused_each_time():
    async def authenticate(payload: dict[str, Any]) -> Any:
        return payload["answer"]

    async with ticking(auth_handler=authenticate) as (_, server):
        for answer in (1, 2, "admin", 3, "root", 1.5):
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": {"answer": answer}})
                assert await client.closed() == FORBIDDEN
        texts = [text.rpartition("got ")[2] for text in server.log.take()]
        assert texts == ["int", "int", "str", "int", "str", "float"]


async def breaks(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(user_id={"a-secret": 1}[payload["token"]])


def breaks_in_a_thread(payload: dict[str, Any]) -> SecurityContext:
    raise OSError("the database is away")


@pytest.mark.parametrize(
    ("handler", "error"), [(breaks, "KeyError: 'x'"), (breaks_in_a_thread, "OSError: the database is away")]
)
async def test_an_error_of_the_handler_closes_4403_and_is_logged_with_its_traceback(handler, error):
    async with ticking(auth_handler=handler) as (manager, server):
        for _ in range(2):
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": {"token": "x"}})
                assert await client.closed() == FORBIDDEN
            [text] = server.log.take()
            assert text.startswith("fraiseql_subs: auth_handler raised, which refuses")
            assert handler.__name__ in text
            assert text.endswith(error)
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}


async def test_errors_of_logins_cannot_flood_the_log():
    async with ticking(auth_handler=breaks) as (_, server):
        for _ in range(150):
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": {"token": "x"}})
                assert await client.closed() == FORBIDDEN
        assert 100 <= len(server.log.take()) < 150


NEAR_THE_ENDS_OF_TIME = [
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
]


@pytest.mark.parametrize("expires_at", NEAR_THE_ENDS_OF_TIME)
async def test_an_expiry_that_utc_cannot_say_is_a_no_and_logged(expires_at):
    context = SecurityContext(user_id=1, expires_at=expires_at)
    async with ticking(auth_handler=lambda payload: context) as (manager, server):
        async with server.client() as client:
            await client.send({"type": "connection_init"})
            assert await client.closed() == FORBIDDEN
        [text] = server.log.take()
        assert "its SecurityContext cannot be used" in text
        assert "expires_at" in text.splitlines()[-1]
        with pytest.raises(ValueError, match="expires_at"):
            manager.subscribe(tick_of("a"), context=context)


async def test_the_last_moment_that_utc_can_say_is_an_expiry():
    context = SecurityContext(user_id=1, expires_at=datetime.max.replace(tzinfo=timezone.utc))
    async with ticking(auth_handler=lambda payload: context) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", tick_of("a"))
        await publish_tick(manager, "a", 1)
        await client.expect(next_frame("1", {"tick": {"n": 1}}))
        await client.ask_refresh({})
        assert (await client.message())["payload"]["refresh"]["ok"] is True


async def test_a_context_that_cannot_be_used_is_a_no_and_logged():
    claims: dict[str, Any] = {}
    for _ in range(200):
        claims = {"nested": claims}
    context = SecurityContext(claims=claims)
    async with ticking(auth_handler=lambda payload: context) as (_, server), server.client() as client:
        await client.send({"type": "connection_init"})
        assert await client.closed() == FORBIDDEN
        [text] = server.log.take()
        assert "its SecurityContext cannot be used" in text


async def test_several_tenants_need_one_each():
    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=1, tenant_id=payload.get("tenant"))

    async with watched(multi_tenant=True, auth_handler=authenticate) as (manager, server):
        for payload in ({}, {"tenant": ""}):
            async with server.client() as client:
                await client.send({"type": "connection_init", "payload": payload})
                assert await client.closed() == FORBIDDEN
        async with server.acknowledged(payload={"tenant": "a"}) as client:
            await client.subscribe("1", tick_of("x"))
            for tenant, n in (("b", 1), ("a", 2)):
                await manager.publish_event("tick", "ticks:x", {"n": n}, tenant_id=tenant)
            await client.expect(next_frame("1", {"tick": {"n": 2}}))


@pytest.mark.parametrize("handler", ["authenticate", 1])
def test_what_is_no_function_is_refused_when_the_application_is_built(handler):
    from fraiseql_subs.asgi import SubscriptionApp

    with pytest.raises(TypeError, match="auth_handler"):
        SubscriptionApp(SubscriptionManager(Schema(subscriptions=[tick])), auth_handler=handler)


# ---- while it is at work, and after ----


class Gate:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self, payload: dict[str, Any]) -> SecurityContext:
        self.asked += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return SecurityContext(user_id=payload.get("user"))


async def test_a_handler_that_never_returns_is_closed_4408_and_cancelled():
    gate = Gate()
    limits = Limits(connection_init_timeout=0.1)
    async with ticking(limits=limits, auth_handler=gate) as (manager, server), server.client() as client:
        await client.send({"type": "connection_init"})
        assert await client.closed() == (4408, "Connection initialisation timeout")
        await until(lambda: gate.cancelled == 1)
        assert gauges(manager)["connections"] == 0


async def test_a_client_that_leaves_meanwhile_cancels_it():
    gate = Gate()
    async with ticking(auth_handler=gate) as (_, server), server.client() as client:
        await client.send({"type": "connection_init"})
        await client.sync()
        client.abort()
        await until(lambda: gate.cancelled == 1)


async def test_a_sync_handler_that_answers_after_the_time_out_is_not_heard():
    release = threading.Event()

    def authenticate(payload: dict[str, Any]) -> SecurityContext:
        assert release.wait(20)
        return SecurityContext()

    limits = Limits(connection_init_timeout=0.1)
    async with ticking(limits=limits, auth_handler=authenticate) as (manager, server), server.client() as client:
        await client.send({"type": "connection_init"})
        assert await client.closed() == (4408, "Connection initialisation timeout")
        release.set()
        assert gauges(manager)["connections"] == 0


@pytest.mark.parametrize("when", ["meanwhile", "after"])
async def test_a_second_init_never_changes_who_one_is(when):
    gate = Gate()
    async with watched(auth_handler=gate) as (manager, server), server.client() as client:
        await client.send({"type": "connection_init", "payload": {"user": "1"}})
        if when == "after":
            gate.open.set()
            await client.expect({"type": "connection_ack"})
            await is_user(manager, client, "1")
        await client.sync()
        await client.send({"type": "connection_init", "payload": {"user": "2"}})
        assert await client.closed() == (4429, "Too many initialisation requests")
        assert gate.asked == 1


async def test_a_subscribe_before_the_ack_is_4401_and_starts_nothing():
    gate = Gate()
    async with ticking(auth_handler=gate) as (manager, server), server.client() as client:
        await client.send({"type": "connection_init"})
        await client.ask("1", tick_of("a"))
        assert await client.closed() == (4401, "Unauthorized")
        gate.open.set()
        assert gauges(manager) == {"connections": 0, "subscriptions": 0}


# ---- the end of a context ----


async def test_at_its_expiry_a_connection_closes_4403_and_nothing_follows():
    until_then = 0.3

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        lasting = within(until_then)
        return SecurityContext(user_id=1, expires_at=lasting if payload else None)

    async with watched(auth_handler=authenticate) as (manager, server):
        async with server.acknowledged() as lasting, server.acknowledged(payload={"short": True}) as short:
            for client in (lasting, short):
                await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            for client in (lasting, short):
                await client.expect(next_frame("1", {"tick": {"n": 1}}))
            assert await short.closed() == FORBIDDEN
            assert gauges(manager) == {"connections": 1, "subscriptions": 1}
            await publish_tick(manager, "a", 2)
            await lasting.expect(next_frame("1", {"tick": {"n": 2}}))


async def test_what_was_queued_before_the_expiry_is_not_sent_after_it():
    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=1, expires_at=within(0.3))

    limits = Limits(queue_messages=10_000, queue_bytes=100_000_000, connection_queue_bytes=100_000_000)
    async with watched(limits=limits, auth_handler=authenticate, server=NARROW) as (manager, server):
        async with server.acknowledged(narrow=True) as client:
            await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
            client.stop_reading()
            for n in range(1_000):
                await publish_tick(manager, 1, n, text="x" * 2_000)
            await until(lambda: gauges(manager)["connections"] == 0)
            client.read_on()
            received = 0
            while (frame := await client.frame_or_close()) != FORBIDDEN:
                assert f'"n":{received},' in str(frame)
                received += 1
            assert received < 1_000


async def test_a_context_that_lasts_years_is_no_trouble():
    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id="1", expires_at=datetime.max.replace(tzinfo=timezone.utc))

    async with watched(auth_handler=authenticate) as (manager, server), server.acknowledged() as client:
        await is_user(manager, client, "1")
