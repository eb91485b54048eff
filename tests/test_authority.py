"""How authority ends, in time or by revoking, and how a client keeps it by refreshing. Then nothing more is given."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    ID,
    JSON,
    Event,
    Forbidden,
    Info,
    Limits,
    NotRunning,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)
from fraiseql_subs.asgi import Connection, SubscriptionApp

from .sockets import (
    FORBIDDEN,
    NARROW,
    Client,
    Direct,
    gauges,
    next_frame,
    publish_tick,
    served,
    tick,
    tick_of,
    ticking,
    until,
)
from .support import audited, entered, nonzero, one, rest, soon, within

TICK = tick_of("a")


def first_tick(n: int, operation: str = "1") -> str:
    return next_frame(operation, {"tick": {"n": n}})


class Desk:
    """An auth handler that does what it is given says, at first and at each refresh."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.ids: dict[str, str] = {}
        self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self, payload: dict[str, Any], connection: Connection) -> Any:
        self._note(payload, connection)
        if "wait" in payload:
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return self.decide(payload)

    def _note(self, payload: dict[str, Any], connection: Connection) -> None:
        self.asked.append(payload)
        self.ids[payload.get("name", "")] = connection.id

    def decide(self, payload: dict[str, Any]) -> Any:
        if payload.get("say") == "raise":
            raise PermissionError("no")
        if payload.get("say") == "none":
            return None
        if payload.get("say") == "wrong":
            return payload
        lasting = payload.get("expires")
        expires_at = within(lasting) if isinstance(lasting, (int, float)) else lasting
        if isinstance(expires_at, str):
            expires_at = datetime.fromisoformat(expires_at)
        return SecurityContext(**{"user_id": 1, **payload.get("context", {})}, expires_at=expires_at)


class SyncDesk(Desk):
    """The same in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    def __call__(self, payload: dict[str, Any], connection: Connection) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        self._note(payload, connection)
        if "wait" in payload:
            assert self.opened.wait(20)
        return self.decide(payload)


async def refreshed(client: Client) -> Any:
    """What the next frame says of a refresh."""
    message = await client.message()
    assert (message["type"], list(message["payload"])) == ("pong", ["refresh"])
    return message["payload"]["refresh"]


async def refresh(client: Client, **asked: object) -> Any:
    await client.ask_refresh(asked)
    return await refreshed(client)


class Functions:
    """Fields whose functions stay where they are until they are let go."""

    def __init__(self) -> None:
        self.inside = 0
        self.go = threading.Event()

        @subscription(channel="ticks:{of}")
        async def awaiting(event: Event, of: ID) -> JSON:
            self.inside += 1
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            return event.data

        @subscription(channel="ticks:{of}")
        def blocking(event: Event, of: ID) -> JSON:
            self.inside += 1
            assert self.go.wait(20)
            return event.data

        @subscription
        async def generating(info: Info, of: ID) -> AsyncIterator[JSON]:
            self.inside += 1
            while not self.go.is_set():
                await asyncio.sleep(0.005)
            yield {"n": 1}
            await asyncio.Event().wait()

        self.schema = Schema(subscriptions=[tick, awaiting, blocking, generating])


FIELDS = ["awaiting", "blocking", "generating"]


class Held(Direct):
    """An ASGI server in which the sending of a result waits until it is cancelled; `reluctant` then takes its time."""

    def __init__(self, manager: SubscriptionManager, desk: Desk, *, reluctant: bool = False) -> None:
        self.began = self.over = 0
        self._reluctant = reluctant
        super().__init__(SubscriptionApp(manager, auth_handler=desk))

    async def send(self, message: Any) -> None:
        if '"next"' in message.get("text", ""):
            self.began += 1
            try:
                await asyncio.Event().wait()
            finally:
                if self._reluctant:
                    for _ in range(50):
                        await asyncio.sleep(0)
                self.over += 1
        await super().send(message)


async def held(manager: SubscriptionManager, *, reluctant: bool = False, **init: object) -> Held:
    """A server that is stuck in sending the first of three results."""
    server = Held(manager, Desk(), reluctant=reluctant)
    server.say({"type": "connection_init", "payload": init})
    server.say({"id": "1", "type": "subscribe", "payload": {"query": TICK}})
    await until(lambda: gauges(manager)["subscriptions"] == 1)
    async with manager.subscribe(TICK) as other:
        # One waits from the beginning, and one comes while the first is being sent.
        for numbers in ((1, 2), (3,)):
            for n in numbers:
                await publish_tick(manager, "a", n)
            for n in numbers:
                assert await one(other) == {"data": {"tick": {"n": n}}}
            await until(lambda: server.began == 1)
    return server


CLOSE = {"type": "websocket.close", "code": 4403, "reason": "Forbidden"}


# ---- expiry ----


async def test_an_authority_that_ends_without_any_event_closes_4403_at_its_time():
    lasting = {"long": within(2.0), "short": within(0.8), "middle": within(1.4)}
    async with ticking(auth_handler=Desk()) as (manager, server):
        async with contextlib.AsyncExitStack() as stack:
            clients = {
                name: await stack.enter_async_context(server.acknowledged(payload={"expires": at.isoformat()}))
                for name, at in lasting.items()
            }
            endless = await stack.enter_async_context(server.acknowledged())
            far = await stack.enter_async_context(server.acknowledged(payload={"expires": 3600}))
            for client in (endless, far, *clients.values()):
                await client.subscribe("1", TICK)
            for count, name in enumerate(["short", "middle", "long"], 1):
                assert await clients[name].closed() == FORBIDDEN
                assert datetime.now(timezone.utc) >= lasting[name]
                assert nonzero(manager, "subscriptions_ended")["expired"] >= count
            assert gauges(manager) == {"connections": 2, "subscriptions": 2}
            await publish_tick(manager, "a", 1)
            for client in (endless, far):
                await client.expect(first_tick(1))
                await client.sync()
        assert nonzero(manager, "subscriptions_ended") == {"expired": 3, "disconnect": 2}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_function_that_is_at_work_at_the_expiry_hands_over_nothing(field):
    functions = Functions()
    manager = SubscriptionManager(functions.schema)
    query = f'subscription {{ {field}(of: "a") }}'
    expires_at = within(1.0)
    async with served(manager, auth_handler=Desk()) as (_, server):
        async with (
            server.acknowledged(payload={"expires": expires_at.isoformat()}) as client,
            server.acknowledged() as other,
            manager.subscribe(query, context=SecurityContext(1, expires_at=expires_at)) as stream,
            manager.subscribe(query, context=SecurityContext(1, expires_at=within(3600))) as other_stream,
        ):
            for one_client in (client, other):
                await one_client.subscribe("1", query)
            await publish_tick(manager, "a", 1)
            await until(lambda: functions.inside >= (4 if field == "generating" else 1))
            with pytest.raises(Forbidden, match=r"^Forbidden$"):
                await soon(anext(stream))
            assert await client.closed() == FORBIDDEN
            assert datetime.now(timezone.utc) >= expires_at
            functions.go.set()
            await other.expect(next_frame("1", {field: {"n": 1}}))
            assert await one(other_stream) == {"data": {field: {"n": 1}}}
            assert await rest(stream) == []
            assert nonzero(manager, "subscriptions_ended") == {"expired": 2}
            assert manager.get_metrics()["events_delivered"] == 2


async def test_a_send_that_is_suspended_at_the_expiry_is_cancelled_and_the_close_is_all_that_follows():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        server = await held(manager, expires=2)
        await soon(server.task)
        assert (server.began, server.over) == (1, 1)
        assert server.sent[2:] == [CLOSE]
        assert nonzero(manager, "subscriptions_ended") == {"client": 1, "expired": 1}
        assert manager.get_metrics()["queued_messages"] == 0


async def test_in_process_what_waits_at_the_expiry_is_not_given_even_after_a_complete():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    context = SecurityContext(1, expires_at=within(0.8))
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = [await entered(stack, manager.subscribe(TICK, context=context)) for _ in range(2)]
        lasting = await entered(stack, manager.subscribe(TICK))
        for n in range(3):
            await publish_tick(manager, "a", n)
        assert await one(streams[0]) == {"data": {"tick": {"n": 0}}}
        # One that is only still read is cut as well.
        for stream in (streams[1], lasting):
            assert await manager.complete_subscription(stream.id)
        await until(lambda: nonzero(manager, "subscriptions_ended").get("expired") == 2)
        for stream in streams:
            with pytest.raises(Forbidden):
                await soon(anext(stream))
            assert await rest(stream) == []
        assert await rest(lasting) == [{"data": {"tick": {"n": n}}} for n in range(3)]
        assert manager.get_metrics()["queued_messages"] == manager.get_metrics()["queued_bytes"] == 0


async def test_an_expiry_comes_while_the_client_floods():
    """The end does not wait for a client that keeps its connection busy."""
    async with ticking(auth_handler=Desk()) as (_, server):
        async with server.acknowledged(payload={"expires": 0.8}) as client:
            deadline = time.monotonic() + 15

            async def flood() -> None:
                with contextlib.suppress(Exception):
                    while time.monotonic() < deadline:
                        await client.send({"type": "ping", "payload": {"n": 1}})
                        await asyncio.sleep(0)  # the server lives on this loop, too

            flooding = asyncio.create_task(flood())
            while not isinstance(came := await client.frame_or_close(), tuple):
                pass
            assert came == FORBIDDEN
            assert time.monotonic() < deadline
            await flooding


# ---- refresh ----

DESKS = [Desk, SyncDesk]


@pytest.mark.parametrize("make", DESKS)
async def test_a_refresh_moves_the_end_later(make):
    desk = make()
    async with ticking(auth_handler=desk) as (manager, server):
        until_then = within(1.5)
        async with server.acknowledged(payload={"expires": until_then.isoformat()}) as client:
            await client.subscribe("1", TICK)
            async with server.acknowledged(payload={"expires": until_then.isoformat()}) as other:
                later = within(3600).astimezone(timezone(timedelta(hours=5)))
                answer = await refresh(client, expires=later.isoformat(), token="t")
                assert answer.keys() == {"ok", "expiresAt"}
                assert answer["ok"] is True
                expires_at = datetime.fromisoformat(answer["expiresAt"])
                assert (expires_at, expires_at.utcoffset()) == (later, timedelta(0))
                assert desk.asked[-1] == {"expires": later.isoformat(), "token": "t"}
                # One that did not ask shows that the time has come.
                assert await other.closed() == FORBIDDEN
            await publish_tick(manager, "a", 1)
            await client.expect(first_tick(1))
            # What is asked for from now on has the new end, too.
            await client.subscribe("2", TICK)
            await publish_tick(manager, "a", 2)
            await client.expect(first_tick(2), first_tick(2, "2"))


@pytest.mark.parametrize("make", DESKS)
async def test_a_refresh_may_take_the_end_away(make):
    async with ticking(auth_handler=make()) as (manager, server):
        lasting = {"expires": within(1.5).isoformat()}
        async with server.acknowledged(payload=lasting) as client, server.acknowledged(payload=lasting) as other:
            await client.subscribe("1", TICK)
            assert await refresh(client) == {"ok": True, "expiresAt": None}
            assert await other.closed() == FORBIDDEN
            await publish_tick(manager, "a", 1)
            await client.expect(first_tick(1))


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("before", [None, 3600])
async def test_a_refresh_moves_the_end_earlier(make, before):
    async with ticking(auth_handler=make()) as (manager, server):
        async with (
            server.acknowledged(payload={"expires": before}) as client,
            server.acknowledged(payload={"expires": before}) as other,
        ):
            await client.subscribe("1", TICK)
            expires_at = within(1.0)
            answer = await refresh(client, expires=expires_at.isoformat())
            assert datetime.fromisoformat(answer["expiresAt"]) == expires_at
            assert await client.closed() == FORBIDDEN
            assert datetime.now(timezone.utc) >= expires_at
            assert nonzero(manager, "subscriptions_ended") == {"expired": 1}
            await other.sync()


#: What is asked, and what the server logs of itself.
NOES: dict[str, Any] = {
    "raised": (
        {"say": "raise"},
        ["fraiseql_subs: auth_handler raised, which refuses; to refuse without an error, return None"],
    ),
    "None": ({"say": "none"}, []),
    "another type": (
        {"say": "wrong"},
        ["fraiseql_subs: auth_handler: expected a SecurityContext or None, got dict"],
    ),
    "expired": ({"expires": -1}, []),
    "null": (None, []),
    "a string": ("token", []),
    "a number": (1, []),
    "true": (True, []),
    "a list": ([{}], []),
}


@pytest.mark.parametrize("make", DESKS)
@pytest.mark.parametrize("no", NOES)
async def test_a_refresh_that_is_refused_changes_nothing(no, make):
    asked, log = NOES[no]
    desk = make()
    async with ticking(auth_handler=desk) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", TICK)
        await client.ask_refresh(asked)
        assert await refreshed(client) == {"ok": False}
        assert len(desk.asked) == (2 if isinstance(asked, dict) else 1)
        await publish_tick(manager, "a", 1)
        await client.expect(first_tick(1))
        await client.sync()
        assert [text.partition("\nTraceback")[0] for text in server.log.take()] == log


async def test_after_a_refused_refresh_the_old_end_stays():
    """A second for each would be long: they are refused at once, and all end at the same time."""
    until_then = within(2.5)
    async with ticking(auth_handler=Desk(), limits=Limits(connection_init_timeout=1.0)) as (_, server):
        async with contextlib.AsyncExitStack() as stack:
            lasting = {"expires": until_then.isoformat()}
            asks = [*(asked for asked, _ in NOES.values()), {"wait": True}]
            clients = [await stack.enter_async_context(server.acknowledged(payload=lasting)) for _ in asks]
            control = await stack.enter_async_context(server.acknowledged(payload=lasting))
            assert (await refresh(control))["ok"] is True
            for client, asked in zip(clients, asks, strict=True):
                await client.ask_refresh(asked)
            for client in clients:
                assert await refreshed(client) == {"ok": False}
                await client.sync()
            assert datetime.now(timezone.utc) < until_then, "too slow a machine for this test"
            for client in clients:
                assert await client.closed() == FORBIDDEN
            assert datetime.now(timezone.utc) >= until_then
            await control.sync()
            server.log.take()


@pytest.mark.parametrize("make", DESKS)
async def test_a_refresh_that_is_answered_too_late_comes_to_nothing(make):
    desk = make()
    limits = Limits(connection_init_timeout=1.0)
    async with ticking(auth_handler=desk, limits=limits) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", TICK)
        # Were the late answer heard, it would close the connection: it is another viewer.
        await client.ask_refresh({"wait": True, "context": {"user_id": 2}})
        assert await refreshed(client) == {"ok": False}
        desk.open.set()
        if isinstance(desk, SyncDesk):
            desk.opened.set()
        assert (await refresh(client))["ok"] is True
        await publish_tick(manager, "a", 1)
        await client.expect(first_tick(1))


async def test_before_the_ack_there_is_nothing_to_refresh():
    desk = Desk()
    async with ticking(auth_handler=desk) as (_, server), server.client() as client:
        assert await refresh(client) == {"ok": False}
        await client.send({"type": "connection_init", "payload": {"wait": True}})
        await until(lambda: desk.asked)
        assert await refresh(client) == {"ok": False}
        desk.open.set()
        await client.expect({"type": "connection_ack"})
        assert len(desk.asked) == 1
        assert (await refresh(client))["ok"] is True


async def test_without_an_auth_handler_there_is_nobody_to_ask():
    async with ticking() as (_, server), server.acknowledged() as client:
        assert await refresh(client) == {"ok": False}
        await client.sync()


@pytest.mark.parametrize("first", ["ok", "refused"])
async def test_at_most_one_refresh_a_second_is_worked_on(first):
    desk = Desk()
    async with ticking(auth_handler=desk) as (_, server), server.acknowledged() as client:
        began = time.monotonic()
        answer = await refresh(client, **({} if first == "ok" else {"say": "none"}))
        assert answer["ok"] is (first == "ok")
        for _ in range(20):
            await client.ask_refresh({})
        answers = [await refreshed(client) for _ in range(20)]
        lasted = time.monotonic() - began
        worked_on = [answer for answer in answers if answer.get("ok")]
        assert len(worked_on) <= lasted
        assert all(answer in worked_on or answer == {"ok": False, "retryAfter": 1} for answer in answers)
        assert len(desk.asked) == 2 + len(worked_on)
        # As long as was said, and a little for a clock that is another one.
        await asyncio.sleep(1.05)
        assert (await refresh(client))["ok"] is True
        assert len(desk.asked) == 3 + len(worked_on)


async def test_the_rate_of_refreshes_is_each_connections_own():
    async with ticking(auth_handler=Desk()) as (_, server):
        async with server.acknowledged() as client, server.acknowledged() as other:
            for each in (client, other):
                assert (await refresh(each))["ok"] is True


FULL = {
    "user_id": 1,
    "tenant_id": "a",
    "roles": ["r", "s"],
    "permissions": ["p", "q"],
    "sources": ["x", "y"],
    "claims": {"a": 1, "b": [1, {"c": None}]},
}


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("user_id", 2),
        ("user_id", None),
        ("user_id", "1"),
        ("tenant_id", "b"),
        ("tenant_id", None),
        ("roles", ["r"]),
        ("roles", ["r", "s", "t"]),
        ("permissions", ["p"]),
        ("permissions", ["p", "q", "admin"]),
        ("sources", ["x"]),
        ("sources", []),
        ("sources", None),
        ("claims", {"a": 1, "b": [1, {"c": 2}]}),
        ("claims", {"a": 1}),
        ("claims", {"a": True, "b": [1, {"c": None}]}),
    ],
)
async def test_a_refresh_that_yields_another_context_closes_4403_and_the_record_names_the_field(field, other):
    async with (
        ticking(auth_handler=Desk()) as (manager, server),
        server.acknowledged(payload={"context": FULL}) as stays,
    ):
        async with server.acknowledged(payload={"context": FULL}) as client:
            await client.subscribe("1", TICK)
            with audited() as trail:
                await client.ask_refresh({"context": {**FULL, field: other}})
                assert await client.closed() == FORBIDDEN
                [entry] = await trail.has("refresh_refused")
            assert ("the type of an id" if (field, other) == ("user_id", "1") else field) in entry.reason
            assert (entry.user_id, entry.tenant_id) == ("1", "a")
            assert gauges(manager) == {"connections": 1, "subscriptions": 0}
            await stays.sync()


async def test_a_refresh_that_yields_an_equal_context_is_ok_however_it_is_written():
    equal = {
        **FULL,
        "roles": ["s", "r", "r"],
        "permissions": ["q", "p"],
        "sources": ["y", "x"],
        "claims": {"b": [1.0, {"c": None}], "a": 1.0},
    }
    async with ticking(auth_handler=Desk()) as (_, server), server.acknowledged(payload={"context": FULL}) as client:
        assert (await refresh(client, context=equal))["ok"] is True


@pytest.mark.parametrize("make", DESKS)
async def test_while_a_refresh_is_worked_on_everything_else_goes_on(make):
    desk = make()
    async with ticking(auth_handler=desk) as (manager, server), server.acknowledged() as client:
        await client.subscribe("1", TICK)
        await client.ask_refresh({"wait": True})
        await until(lambda: len(desk.asked) == 2)
        await client.subscribe("2", TICK)
        await publish_tick(manager, "a", 1)
        await client.expect(first_tick(1), first_tick(1, "2"))
        await client.complete("2")
        await client.sync()
        assert gauges(manager)["subscriptions"] == 1
        assert await refresh(client) == {"ok": False, "retryAfter": 1}
        desk.open.set()
        if isinstance(desk, SyncDesk):
            desk.opened.set()
        assert await refreshed(client) == {"ok": True, "expiresAt": None}
        await publish_tick(manager, "a", 2)
        await client.expect(first_tick(2))
        assert len(desk.asked) == 2


async def test_any_other_ping_is_echoed():
    desk = Desk()
    async with ticking(auth_handler=desk) as (_, server), server.acknowledged() as client:
        payloads: list[Any] = [{}, {"a": {"refresh": {}}}, {"Refresh": {}}, {"refresh ": {}}, {"refreshed": None}]
        for payload in payloads:
            await client.send({"type": "ping", "payload": payload})
            await client.expect({"type": "pong", "payload": payload})
        assert len(desk.asked) == 1


async def test_an_end_does_not_wait_for_a_refresh_that_is_worked_on():
    desk = Desk()
    async with ticking(auth_handler=desk) as (_, server):
        expires_at = within(1.0)
        async with server.acknowledged(payload={"expires": expires_at.isoformat()}) as client:
            await client.ask_refresh({"wait": True})
            await until(lambda: len(desk.asked) == 2)
            assert await client.closed() == FORBIDDEN
            assert datetime.now(timezone.utc) >= expires_at
        await until(lambda: desk.cancelled == 1)


async def test_a_client_that_leaves_while_it_is_refreshed_cancels_the_handler():
    desk = Desk()
    async with ticking(auth_handler=desk) as (manager, server), server.acknowledged() as client:
        await client.ask_refresh({"wait": True})
        await until(lambda: len(desk.asked) == 2)
        client.abort()
        await until(lambda: desk.cancelled == 1)
        assert gauges(manager)["connections"] == 0


# ---- revoking: whom ----

PEOPLE: dict[str, tuple[Any, Any]] = {
    "1 of a": (1, "a"),
    "1 of b": (1, "b"),
    "2 of a": (2, "a"),
    "1 of none": (1, None),
    "anonymous": (None, None),
    "anonymous of a": (None, "a"),
}
ROWS: list[tuple[dict[str, Any], set[str]]] = [
    ({"user_id": 1}, {"1 of a", "1 of b", "1 of none"}),
    ({"user_id": "1"}, {"1 of a", "1 of b", "1 of none"}),
    ({"tenant_id": "a"}, {"1 of a", "2 of a", "anonymous of a"}),
    ({"connection_id": "2 of a"}, {"2 of a"}),
    ({"connection_id": "anonymous"}, {"anonymous"}),
    ({"user_id": 1, "tenant_id": "a"}, {"1 of a"}),
    ({"user_id": 2, "connection_id": "2 of a"}, {"2 of a"}),
    ({"tenant_id": "a", "connection_id": "anonymous of a"}, {"anonymous of a"}),
    ({"user_id": 2, "tenant_id": "a", "connection_id": "2 of a"}, {"2 of a"}),
    ({"user_id": 3}, set()),
    ({"user_id": ""}, set()),
    ({"user_id": "None"}, set()),
    ({"tenant_id": "c"}, set()),
    ({"connection_id": "nobody's"}, set()),
    ({"user_id": 2, "tenant_id": "b"}, set()),
    ({"user_id": 1, "connection_id": "2 of a"}, set()),
    ({"tenant_id": "b", "connection_id": "2 of a"}, set()),
    ({"user_id": 2, "tenant_id": "b", "connection_id": "2 of a"}, set()),
]
A_TICK = ("tick", "ticks:a", {"n": 1})


def init_of(name: str) -> dict[str, Any]:
    user, tenant = PEOPLE[name]
    return {"name": name, "context": {"user_id": user, "tenant_id": tenant}}


@pytest.mark.parametrize(("given", "found"), ROWS)
async def test_revoking_closes_the_sockets_of_those_who_match_all_that_is_given_and_nobody_elses(given, found):
    desk = Desk()
    async with ticking(auth_handler=desk) as (manager, server), contextlib.AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(server.acknowledged(payload=init_of(name))) for name in PEOPLE}
        for client in clients.values():
            await client.subscribe("1", TICK)
        if "connection_id" in given:
            given = {**given, "connection_id": desk.ids.get(given["connection_id"], "nobody's")}
        assert await manager.revoke(**given) == len(found)
        assert gauges(manager) == dict.fromkeys(("connections", "subscriptions"), len(PEOPLE) - len(found))
        await manager.publish_event(*A_TICK, tenant_id=ALL_TENANTS)
        for name, client in clients.items():
            if name in found:
                assert await client.closed() == FORBIDDEN
            else:
                await client.expect(first_tick(1))
        assert nonzero(manager, "subscriptions_ended") == ({"revoked": len(found)} if found else {})
        assert await manager.revoke(**given) == 0


@pytest.mark.parametrize(("given", "found"), ROWS)
async def test_revoking_ends_the_subscribes_of_those_who_match_all_that_is_given_and_nobody_elses(given, found):
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager, contextlib.AsyncExitStack() as stack:
        streams = {
            name: await entered(
                stack, manager.subscribe(TICK, context=SecurityContext(user, tenant), connection_id=name)
            )
            for name, (user, tenant) in PEOPLE.items()
        }
        assert await manager.revoke(**given) == len(found)
        await manager.publish_event(*A_TICK, tenant_id=ALL_TENANTS)
        for name, stream in streams.items():
            if name in found:
                with pytest.raises(Forbidden, match=r"^Forbidden$"):
                    await soon(anext(stream))
                assert await rest(stream) == []
            else:
                assert await one(stream) == {"data": {"tick": {"n": 1}}}
        assert nonzero(manager, "subscriptions_ended") == ({"revoked": len(found)} if found else {})
        assert await manager.revoke(**given) == 0


async def test_it_counts_connections_and_subscribes_together():
    async with ticking(auth_handler=Desk()) as (manager, server):
        context = SecurityContext(1)
        async with (
            server.acknowledged() as client,
            server.acknowledged(),
            manager.subscribe(TICK, context=context),
            manager.subscribe(TICK, context=context),
            manager.subscribe(TICK, context=SecurityContext(2)),
        ):
            for operation in ("1", "2", "3"):
                await client.subscribe(operation, TICK)
            assert await manager.revoke(user_id=1) == 4
            assert nonzero(manager, "subscriptions_ended") == {"revoked": 5}
            assert gauges(manager) == {"connections": 0, "subscriptions": 1}


async def test_a_label_of_this_process_is_revoked_as_a_connections_id_is():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with (
        manager,
        manager.subscribe(TICK, connection_id="x") as one_stream,
        manager.subscribe(TICK, connection_id="x") as two_stream,
        manager.subscribe(TICK, connection_id="y") as other,
        manager.subscribe(TICK) as bare,
    ):
        assert await manager.revoke(connection_id="x") == 2
        await publish_tick(manager, "a", 1)
        for stream in (one_stream, two_stream):
            with pytest.raises(Forbidden):
                await soon(anext(stream))
        for stream in (other, bare):
            assert await one(stream) == {"data": {"tick": {"n": 1}}}


async def test_ids_are_compared_as_text_a_uuid_in_lower_case():
    key = UUID("C0FFEE00-0000-4000-8000-000000000000")
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager, manager.subscribe(TICK, context=SecurityContext(key, key)):
        assert await manager.revoke(user_id=str(key).upper()) == 0
        assert await manager.revoke(user_id=str(key), tenant_id=key) == 1


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({}, ValueError),
        ({"user_id": None}, ValueError),
        ({"user_id": None, "tenant_id": None, "connection_id": None}, ValueError),
        ({"user_id": True}, TypeError),
        ({"user_id": 1.0}, TypeError),
        ({"tenant_id": b"a"}, TypeError),
        ({"connection_id": 1}, TypeError),
        ({"user_id": "\0"}, ValueError),
        ({"user": 1}, TypeError),
    ],
)
async def test_a_revocation_that_names_nobody_or_is_ill_typed_raises_and_ends_nobody(given, error):
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager, manager.subscribe(TICK, context=SecurityContext(1, "a")):
        with pytest.raises(error):
            await manager.revoke(**given)
        assert gauges(manager)["subscriptions"] == 1
        assert await manager.revoke(user_id=1) == 1


async def test_where_the_manager_is_not_entered_revoking_raises():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    with pytest.raises(NotRunning):
        await manager.revoke(user_id=1)
    async with manager:
        assert await manager.revoke(user_id=1) == 0
    with pytest.raises(NotRunning):
        await manager.revoke(user_id=1)


# ---- revoking: what is under way ----


@pytest.mark.parametrize("reluctant", [False, True])
async def test_a_send_that_is_suspended_is_over_when_revoke_returns(reluctant):
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        server = await held(manager, reluctant=reluctant)
        assert await manager.revoke(user_id=2) == 0
        assert (server.began, server.over) == (1, 0)
        assert await soon(manager.revoke(user_id=1)) == 1
        assert (server.began, server.over) == (1, 1)
        await publish_tick(manager, "a", 4)
        await soon(server.task)
        assert server.sent[2:] == [CLOSE]
        assert nonzero(manager, "subscriptions_ended") == {"client": 1, "revoked": 1}


@pytest.mark.parametrize("field", FIELDS)
async def test_a_function_that_is_at_work_hands_over_nothing_to_who_is_revoked(field):
    functions = Functions()
    manager = SubscriptionManager(functions.schema)
    query = f'subscription {{ {field}(of: "a") }}'
    async with served(manager, auth_handler=Desk()) as (_, server):
        async with (
            server.acknowledged() as client,
            server.acknowledged(payload={"context": {"user_id": 2}}) as other,
            manager.subscribe(query, context=SecurityContext(1)) as stream,
            manager.subscribe(query, context=SecurityContext(2)) as other_stream,
        ):
            for one_client in (client, other):
                await one_client.subscribe("1", query)
            await publish_tick(manager, "a", 1)
            await until(lambda: functions.inside >= (4 if field == "generating" else 1))
            assert await manager.revoke(user_id=1) == 2
            functions.go.set()
            await other.expect(next_frame("1", {field: {"n": 1}}))
            assert await one(other_stream) == {"data": {field: {"n": 1}}}
            assert await client.closed() == FORBIDDEN
            with pytest.raises(Forbidden):
                await soon(anext(stream))
            assert nonzero(manager, "subscriptions_ended") == {"revoked": 2}
            assert manager.get_metrics()["events_delivered"] == 2


async def test_what_was_queued_is_not_sent_to_who_is_revoked():
    limits = Limits(queue_messages=10_000, queue_bytes=100_000_000, connection_queue_bytes=100_000_000)
    async with ticking(limits=limits, auth_handler=Desk(), server=NARROW) as (manager, server):
        async with server.acknowledged(narrow=True) as client:
            await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
            client.stop_reading()
            for n in range(1_000):
                await publish_tick(manager, 1, n, text="x" * 2_000)
            waiting = manager.get_metrics()["queued_messages"]
            assert waiting > 0
            delivered = manager.get_metrics()["events_delivered"]
            assert await soon(manager.revoke(user_id=1)) == 1
            metrics = manager.get_metrics()
            assert (metrics["queued_messages"], metrics["queued_bytes"]) == (0, 0)
            client.read_on()
            received = 0
            while (frame := await client.frame_or_close()) != FORBIDDEN:
                assert f'"n":{received},' in str(frame)
                received += 1
            assert received <= delivered < 1_000


async def test_in_process_what_was_queued_is_not_given_even_after_a_complete():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager, contextlib.AsyncExitStack() as stack:
        one_context, two_context = SecurityContext(1), SecurityContext(2)
        streams = [
            await entered(stack, manager.subscribe(TICK, context=context))
            for context in (one_context, one_context, two_context)
        ]
        for n in range(3):
            await publish_tick(manager, "a", n)
        # Two that are over, but for what is still to be read.
        for stream in streams[1:]:
            assert await manager.complete_subscription(stream.id)
        assert await manager.revoke(user_id=1) == 2
        for stream in streams[:2]:
            with pytest.raises(Forbidden):
                await soon(anext(stream))
            assert await rest(stream) == []
        assert await rest(streams[2]) == [{"data": {"tick": {"n": n}}} for n in range(3)]
        metrics = manager.get_metrics()
        assert (metrics["queued_messages"], metrics["queued_bytes"]) == (0, 0)


async def test_a_reader_that_waits_is_woken():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager, manager.subscribe(TICK, context=SecurityContext(1)) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await manager.revoke(user_id=1) == 1
        with pytest.raises(Forbidden):
            await soon(waiting)


async def test_while_a_thread_publishes_nothing_is_handed_over_once_revoke_has_returned():
    """A race by intent: each is revoked in the midst of a stream of events."""
    handed: dict[int, int] = {}
    manager = SubscriptionManager(
        Schema(subscriptions=[tick]), limits=Limits(overflow="latest", max_connections_per_user=None)
    )

    class Counting(Direct):
        def __init__(self, user: int) -> None:
            self._user = user
            init = {"type": "connection_init", "payload": {"context": {"user_id": user}}}
            subscribe = {"id": "1", "type": "subscribe", "payload": {"query": TICK}}
            super().__init__(SubscriptionApp(manager, auth_handler=Desk()), init, subscribe)

        async def send(self, message: Any) -> None:
            if '"next"' in message.get("text", ""):
                if handed.get(self._user, 0) % 2:
                    await asyncio.sleep(0)  # some suspend, some do not
                handed[self._user] = handed.get(self._user, 0) + 1

    async def goes_on(user: int) -> None:
        seen = handed.get(user, 0)
        await until(lambda: handed.get(user, 0) > seen + 3)

    stop = threading.Event()

    def publish() -> None:
        n = 0
        while not stop.is_set():
            manager.publish_event_sync("tick", "ticks:a", {"n": (n := n + 1)})

    users = range(20)
    async with manager:
        tasks = [Counting(user).task for user in users]
        await until(lambda: gauges(manager)["subscriptions"] == len(users))
        publishing = asyncio.create_task(asyncio.to_thread(publish))
        try:
            for user in users:
                await goes_on(user)
                assert await manager.revoke(user_id=user) == 1
                after = handed[user]
                if user + 1 in users:
                    await goes_on(user + 1)  # that events still come
                assert handed[user] == after
        finally:
            stop.set()
            await publishing
        await soon(asyncio.gather(*tasks))
    assert gauges(manager) == {"connections": 0, "subscriptions": 0}


async def test_a_function_may_revoke_its_own_viewer():
    counts: list[int] = []

    @subscription(channel="ticks:a")
    async def suicidal(event: Event, info: Info) -> JSON:
        counts.append(await manager.revoke(user_id=info.viewer.user_id))
        return {}

    manager = SubscriptionManager(Schema(subscriptions=[suicidal]))
    query = "subscription { suicidal }"
    async with manager, manager.subscribe(query, context=SecurityContext(1)) as stream:
        await publish_tick(manager, "a", 1)
        with pytest.raises(Forbidden):
            await soon(anext(stream))
    assert counts in ([], [1])  # it may have been cancelled with its last viewer


# ---- revoking: who is being let in ----


async def test_who_was_being_authorised_is_refused_and_a_later_login_works():
    desk = Desk()
    async with ticking(auth_handler=desk) as (manager, server):
        async with server.client() as pending, server.client() as other:
            for client, user in ((pending, 1), (other, 2)):
                await client.send({"type": "connection_init", "payload": {"wait": 1, "context": {"user_id": user}}})
            await until(lambda: len(desk.asked) == 2)
            # Who it will be is not known yet, so nobody is counted.
            assert await manager.revoke(user_id=1) == 0
            desk.open.set()
            assert await pending.closed() == FORBIDDEN
            await other.expect({"type": "connection_ack"})
            async with server.acknowledged() as again:
                await again.subscribe("1", TICK)
                await publish_tick(manager, "a", 1)
                await again.expect(first_tick(1))


@pytest.mark.parametrize("given", [{"tenant_id": "a"}, {"user_id": 1, "tenant_id": "a"}, {"user_id": 1}])
@pytest.mark.parametrize("make", DESKS)
async def test_so_it_is_by_tenant_and_by_both_and_where_the_handler_is_in_a_thread(make, given):
    desk = make()
    async with ticking(auth_handler=desk) as (manager, server):
        async with server.client() as pending, server.client() as other:
            for client, tenant, user in ((pending, "a", 1), (other, "b", 2)):
                init: Any = {"wait": 1, "context": {"user_id": user, "tenant_id": tenant}}
                await client.send({"type": "connection_init", "payload": init})
            await until(lambda: len(desk.asked) == 2)
            assert await manager.revoke(**given) == 0
            desk.open.set()
            if isinstance(desk, SyncDesk):
                desk.opened.set()
            assert await pending.closed() == FORBIDDEN
            await other.expect({"type": "connection_ack"})


async def test_a_connection_that_is_not_acknowledged_is_revoked_by_its_id():
    desk = Desk()
    async with ticking(auth_handler=desk) as (manager, server):
        async with server.client() as pending, server.client() as other:
            for client, name in ((pending, "x"), (other, "y")):
                await client.send({"type": "connection_init", "payload": {"wait": 1, "name": name}})
            await until(lambda: len(desk.asked) == 2)
            assert await manager.revoke(connection_id=desk.ids["x"], user_id=1) == 0  # nobody is user 1 yet
            assert await manager.revoke(connection_id=desk.ids["x"]) == 1
            assert await pending.closed() == FORBIDDEN
            await until(lambda: desk.cancelled == 1)
            desk.open.set()
            await other.expect({"type": "connection_ack"})


async def test_a_subscribe_that_was_asked_for_before_is_refused_and_one_asked_for_after_is_not():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    async with manager:
        before = manager.subscribe(TICK, context=SecurityContext(1))
        iterated = manager.subscribe(TICK, context=SecurityContext(1))
        labelled = manager.subscribe(TICK, connection_id="x")
        other = manager.subscribe(TICK, context=SecurityContext(2))
        assert await manager.revoke(user_id=1) == 0
        assert await manager.revoke(connection_id="x") == 0
        for stream in (before, labelled):
            with pytest.raises(Forbidden, match=r"^Forbidden$"):
                async with stream:
                    pass
        with pytest.raises(Forbidden):
            await soon(anext(iterated))
        after = manager.subscribe(TICK, context=SecurityContext(1))
        async with after, other:
            assert gauges(manager)["subscriptions"] == 2
            await publish_tick(manager, "a", 1)
            for stream in (after, other):
                assert await one(stream) == {"data": {"tick": {"n": 1}}}


async def test_a_socket_whose_refresh_is_worked_on_is_revoked_as_any_other():
    desk = Desk()
    async with ticking(auth_handler=desk) as (manager, server), server.acknowledged() as client:
        await client.ask_refresh({"wait": True})
        await until(lambda: len(desk.asked) == 2)
        assert await manager.revoke(user_id=1) == 1
        desk.open.set()
        assert await client.closed() == FORBIDDEN


# ---- revoking: from elsewhere ----


def on_another_loop(call: Callable[[], Any]) -> Any:
    """Runs a coroutine function on a loop of its own, in a thread."""
    return asyncio.to_thread(lambda: asyncio.run(call()))


async def test_another_loop_may_revoke_what_this_one_serves():
    async with ticking(auth_handler=Desk()) as (manager, server):
        async with (
            server.acknowledged() as client,
            server.acknowledged(payload={"context": {"user_id": 2}}) as other,
            manager.subscribe(TICK, context=SecurityContext(1)) as stream,
        ):
            for each in (client, other):
                await each.subscribe("1", TICK)
            assert await soon(on_another_loop(lambda: manager.revoke(user_id=1))) == 2
            await publish_tick(manager, "a", 1)
            assert await client.closed() == FORBIDDEN
            with pytest.raises(Forbidden):
                await soon(anext(stream))
            await other.expect(first_tick(1))


async def test_this_loop_may_revoke_what_another_one_reads():
    manager = SubscriptionManager(Schema(subscriptions=[tick]))
    reading = threading.Event()

    async def read() -> list[bytes]:
        async with manager.subscribe(TICK, context=SecurityContext(1), framing="result") as stream:
            reading.set()
            got = [await anext(stream)]
            with pytest.raises(Forbidden):
                got.append(await anext(stream))
        return got

    async with manager:
        there = asyncio.create_task(on_another_loop(read))
        await until(reading.is_set)
        await publish_tick(manager, "a", 1)
        await until(lambda: manager.get_metrics()["events_delivered"] == 1)
        assert await manager.revoke(user_id=1) == 1
        await publish_tick(manager, "a", 2)
        assert await soon(there) == [b'{"data":{"tick":{"n":1}}}']
