"""Attacks on the end of an authority: by changing who one is, and by what was on its way when it ended.

What counts is what is handed to the ASGI server: what the kernel holds by then may still arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
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
    requires,
    subscription,
)
from fraiseql_subs.asgi import SubscriptionApp

from .attacks import FORBIDDEN, SECRET, attacked, attempt
from .sockets import FORBIDDEN as CLOSED
from .sockets import NARROW, Client, gauges, next_frame, serving, until
from .support import one, within


@subscription(channel="c", passthrough=True, name="open")
async def opened() -> JSON:
    raise NotImplementedError


@subscription(channel="c", passthrough=True, requires=requires("see"))
async def guarded() -> JSON:
    raise NotImplementedError


OPEN, GUARDED = "subscription { open }", "subscription { guarded }"


# ---- who one is stays ----


async def test_a_second_init_closes_and_is_never_asked_about():
    asked: list[Any] = []

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        asked.append(payload)
        return SecurityContext(**payload)

    async with attacked(opened, guarded, auth_handler=authenticate) as (manager, server):
        async with server.acknowledged(payload={"user_id": 1}) as client:
            await client.subscribe("1", OPEN)
            await client.send({"type": "connection_init", "payload": {"user_id": 2, "permissions": ["see"]}})
            await client.ask("2", GUARDED)
            assert await client.closed() == (4429, "Too many initialisation requests")
        async with server.acknowledged(payload={"permissions": ["see"]}) as allowed:
            assert await attempt(manager, allowed, GUARDED) == {"data": {"guarded": {}}}
    assert asked == [{"user_id": 1}, {"permissions": ["see"]}]


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": 2}, {"user_id": "1"}, {"user_id": None}, {}, {"user_id": 1, "tenant_id": "a"},
        {"user_id": 1, "permissions": ["see"]}, {"user_id": 1, "roles": ["admin"]}, {"user_id": 1, "claims": {"a": 1}},
        {"user_id": 1, "sources": ["s"]}, {"user_id": 1, "sources": []},
    ],
)  # fmt: skip
async def test_a_refresh_with_another_context_closes_and_gives_nothing(other):
    async with attacked(opened, guarded) as (manager, server):
        async with server.acknowledged(payload={"user_id": 1}) as client, server.acknowledged() as bystander:
            for each in (client, bystander):
                await each.subscribe("1", OPEN)
            # What is asked in the same breath is asked by who one was.
            await client.ask_refresh(other)
            await client.ask("2", GUARDED)
            first = await client.frame_or_close()
            if isinstance(first, str):
                assert json.loads(first) == {"id": "2", "type": "error", "payload": FORBIDDEN}
                assert await client.closed() == CLOSED
            else:
                assert first == CLOSED
            await manager.publish_event("x", "c", {"n": 1})
            await bystander.expect(next_frame("1", {"open": {"n": 1}}))


async def test_a_refresh_moves_the_expiry_and_no_right():
    rights = {"see"}
    lasting = within(86_400)

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=1, permissions=payload.get("permissions", ()), expires_at=lasting)

    async with attacked(opened, guarded, auth_handler=authenticate) as (manager, server):
        async with server.acknowledged() as client, server.acknowledged(payload={"permissions": [*rights]}) as allowed:
            for who, answer in ((client, FORBIDDEN), (allowed, {"data": {"guarded": {}}})):
                await who.ask_refresh({"permissions": [*rights] if who is allowed else []})
                pong = await who.message()
                assert pong == {"type": "pong", "payload": {"refresh": {"ok": True, "expiresAt": lasting.isoformat()}}}
                assert await attempt(manager, who, GUARDED) == answer


# ---- what was on its way ----


class Handed:
    """An application, and what it hands to its server of events, by path; of those in `holds`, sends suspend."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.frames: dict[str, list[str]] = {}
        self.holds: set[str] = set()
        self.gate = asyncio.Event()
        self.tidied: asyncio.Event | None = None
        self.held = self.cancelled = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope.get("path", "")
        frames = self.frames.setdefault(name, [])

        async def hand(message: Any) -> None:
            text = message.get("text") or ""
            if '"type":"next"' in text:
                if name in self.holds:
                    await self._hold()
                frames.append(text)
            await send(message)

        await self._app(scope, receive, hand)

    async def _hold(self) -> None:
        self.held += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.tidied is None:
                raise
            await self.tidied.wait()  # as one does that sends what it has begun with


@contextlib.asynccontextmanager
async def ending(
    *functions: Any, expires: bool = False, limits: Limits | None = None, narrow: bool = False
) -> AsyncIterator[tuple[SubscriptionManager, Handed, Client, Client]]:
    """A client of user 1, whose authority will end, and one of user 2, whose does not."""

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        ends = expires and payload["user_id"] == 1
        return SecurityContext(**payload, tenant_id="a", expires_at=within(0.3) if ends else None)

    manager = SubscriptionManager(Schema(subscriptions=[opened, *functions]), limits=limits or Limits())
    app = Handed(SubscriptionApp(manager, auth_handler=authenticate))
    async with serving(app, **(NARROW if narrow else {})) as server:
        async with (
            server.acknowledged("/other", {"user_id": 2}) as other,
            server.acknowledged("/client", {"user_id": 1}, narrow=narrow) as client,
        ):
            yield manager, app, client, other


async def publish(manager: SubscriptionManager, **data: Any) -> None:
    await manager.publish_event("x", "c", data, tenant_id="a")


async def ended(manager: SubscriptionManager, expires: bool) -> None:
    """Returns when the authority of user 1 has ended: nothing of an event is handed over for him any more."""
    if expires:
        await until(lambda: gauges(manager)["connections"] == 1)
    else:
        assert await manager.revoke(user_id=1) == 1


class Work:
    """Functions that are under way until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.thread_goes_on = threading.Event()

    def release(self) -> None:
        self.go_on.set()
        self.thread_goes_on.set()

    def functions(self) -> list[Any]:
        @subscription(channel="c")
        async def shared(event: Event) -> JSON:
            self.begun += 1
            await self.go_on.wait()
            return event.data

        @subscription(channel="c")
        async def own(event: Event, info: Info) -> JSON:
            self.begun += 1
            with contextlib.suppress(asyncio.CancelledError):  # one that gives something all the same
                await self.go_on.wait()
            return event.data

        @subscription(channel="c")
        def threaded(event: Event) -> JSON:
            self.begun += 1
            assert self.thread_goes_on.wait(20)
            return event.data

        @subscription(channel="c")
        async def lazy(event: Event) -> JSON:
            async def later() -> dict[str, Any]:
                self.begun += 1
                await self.go_on.wait()
                return event.data

            return later()

        @subscription
        async def generated() -> AsyncIterator[JSON]:
            self.begun += 1
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                yield {"n": SECRET}
                raise
            yield {"n": SECRET}

        return [shared, own, threaded, lazy, generated]


@pytest.mark.parametrize("expires", [False, True])
@pytest.mark.parametrize("field", ["shared", "own", "threaded", "lazy", "generated"])
async def test_what_a_function_gives_after_the_end_is_handed_to_nobody(field, expires):
    work = Work()
    async with ending(*work.functions(), expires=expires) as (manager, app, client, other):
        for each in (client, other):
            await each.subscribe("1", f"subscription {{ {field} }}")
            await each.subscribe("2", OPEN)
        await publish(manager, n=SECRET)
        await until(lambda: work.begun == (2 if field in ("own", "generated") else 1))
        for each in (client, other):
            await each.expect(next_frame("2", {"open": {"n": SECRET}}))
        await ended(manager, expires)
        work.release()
        await other.expect(next_frame("1", {field: {"n": SECRET}}))
        assert await client.closed() == CLOSED
        assert [len(app.frames[path]) for path in ("/client", "/other")] == [1, 2]


@pytest.mark.parametrize("expires", [False, True])
async def test_what_waits_behind_a_reader_that_stopped_is_not_handed_over_after_the_end(expires):
    limits = Limits(queue_messages=10_000, queue_bytes=100_000_000, connection_queue_bytes=100_000_000)
    async with ending(expires=expires, limits=limits, narrow=True) as (manager, app, client, other):
        for each in (client, other):
            await each.subscribe("1", OPEN)
        client.stop_reading()
        for n in range(600):
            await publish(manager, n=n, text="x" * 2_000)
        for _ in range(600):
            await other.receive()
        await ended(manager, expires)
        handed = len(app.frames["/client"])
        assert 0 < handed < 600
        await publish(manager, n=600)
        await other.expect(next_frame("1", {"open": {"n": 600}}))
        client.read_on()
        received = 0
        while (frame := await client.frame_or_close()) != CLOSED:
            assert f'"n":{received},' in str(frame)
            received += 1
        assert received <= handed == len(app.frames["/client"])


@pytest.mark.parametrize("expires", [False, True])
async def test_a_send_that_is_suspended_at_the_end_is_cancelled(expires):
    async with ending(expires=expires) as (manager, app, client, other):
        app.holds.add("/client")
        for each in (client, other):
            await each.subscribe("1", OPEN)
        await publish(manager, n=0)
        await until(lambda: app.held == 1)
        for n in (1, 2):
            await publish(manager, n=n)  # of which the connection hears while its send is suspended
        await other.expect(*[next_frame("1", {"open": {"n": n}}) for n in range(3)])
        await ended(manager, expires)
        if expires:
            await until(lambda: app.cancelled == 1)
        assert app.cancelled == 1
        app.gate.set()
        assert await client.closed() == CLOSED
        assert app.frames == {"": [], "/client": [], "/other": app.frames["/other"]}


@pytest.mark.parametrize("first", ["revoked", "expired"])
async def test_a_revocation_waits_for_what_is_being_handed_over_also_where_the_connection_is_closing_already(first):
    expires = first == "expired"
    async with ending(expires=expires) as (manager, app, client, other):
        app.holds.add("/client")
        app.tidied = asyncio.Event()
        for each in (client, other):
            await each.subscribe("1", OPEN)
        await publish(manager, n=1)
        await until(lambda: app.held == 1)
        handed: list[int] = []

        async def revoke(**whom: Any) -> None:
            await manager.revoke(**whom)
            handed.append(len(app.frames["/client"]))

        revocations = [] if expires else [asyncio.create_task(revoke(user_id=1))]
        await until(lambda: app.cancelled == 1)
        revocations.append(asyncio.create_task(revoke(tenant_id="a", user_id=1)))
        await other.expect(next_frame("1", {"open": {"n": 1}}))
        for _ in range(3):  # those that have nothing to wait for return meanwhile
            assert await manager.revoke(user_id=3) == 0
        app.tidied.set()
        await asyncio.gather(*revocations)
        assert await client.frame_or_close() in (CLOSED, next_frame("1", {"open": {"n": 1}}))
        assert handed == [1] * len(revocations) == [len(app.frames["/client"])] * len(revocations)


# ---- who was coming in ----


class Asked:
    """An auth handler that answers when it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.open = asyncio.Event()

    async def __call__(self, payload: dict[str, Any]) -> SecurityContext:
        self.count += 1
        if payload.get("claims"):
            await self.open.wait()
        return SecurityContext(**{**payload, "claims": {}})


WHOM: list[dict[str, Any]] = [{"user_id": 1}, {"user_id": "1"}, {"tenant_id": "a"}, {"user_id": 1, "tenant_id": "a"}]


@pytest.mark.parametrize("whom", WHOM)
async def test_who_was_being_authorised_when_he_was_revoked_does_not_come_in(whom):
    asked = Asked()
    async with attacked(opened, auth_handler=asked) as (manager, server):
        async with server.client() as client, server.client() as other:
            for each, payload in (
                (client, {"user_id": 1, "tenant_id": "a"}),
                (other, {"user_id": 2, "tenant_id": "b"}),
            ):
                await each.send({"type": "connection_init", "payload": {**payload, "claims": {"wait": True}}})
            await until(lambda: asked.count == 2)
            assert await manager.revoke(**whom) == 0
            asked.open.set()
            assert await client.closed() == CLOSED
            await other.expect({"type": "connection_ack"})
            # It does not stop a new login.
            async with server.acknowledged(payload={"user_id": 1, "tenant_id": "a"}) as again:
                await again.subscribe("1", OPEN)
                await manager.publish_event("x", "c", {}, tenant_id="a")
                await again.expect(next_frame("1", {"open": {}}))


async def test_a_refresh_that_was_under_way_brings_nobody_back():
    asked = Asked()
    async with attacked(opened, auth_handler=asked) as (manager, server):
        async with server.acknowledged(payload={"user_id": 1}) as client, server.acknowledged() as other:
            for each in (client, other):
                await each.subscribe("1", OPEN)
            await client.ask_refresh({"user_id": 1, "claims": {"wait": True}})
            await other.ask_refresh({"claims": {"wait": True}})
            await until(lambda: asked.count == 4)
            assert await manager.revoke(user_id=1) == 1
            asked.open.set()
            assert await client.closed() == CLOSED
            await other.expect({"type": "pong", "payload": {"refresh": {"ok": True, "expiresAt": None}}})
            await manager.publish_event("x", "c", {})
            await other.expect(next_frame("1", {"open": {}}))


@pytest.mark.parametrize("whom", [*WHOM, {"connection_id": "label"}])
async def test_a_subscribe_of_this_process_that_was_under_way_does_not_begin(whom):
    mine = SecurityContext(user_id=1, tenant_id="a")
    async with SubscriptionManager(Schema(subscriptions=[opened])) as manager:
        asked = manager.subscribe(OPEN, context=mine, connection_id="label")
        other = manager.subscribe(OPEN, context=SecurityContext(user_id=2, tenant_id="b"), connection_id="other")
        async with manager.subscribe(OPEN, context=mine, connection_id="label") as live:
            await manager.publish_event("x", "c", {"n": 1}, tenant_id="a")  # it waits to be read
            assert await manager.revoke(**whom) == 1
            with pytest.raises(Forbidden, match=r"^Forbidden$"):
                await anext(live)
        with pytest.raises(Forbidden, match=r"^Forbidden$"):
            await anext(asked)
        for stream, tenant in ((other, "b"), (manager.subscribe(OPEN, context=mine, connection_id="label"), "a")):
            async with stream:
                await manager.publish_event("x", "c", {"n": 2}, tenant_id=tenant)
                assert await one(stream) == {"data": {"open": {"n": 2}}}


async def test_a_revocation_ends_those_who_match_all_of_it_and_no_other():
    contexts: list[dict[str, Any]] = [
        {"user_id": 1, "tenant_id": "a"}, {"user_id": "1", "tenant_id": "a"}, {"user_id": 1, "tenant_id": "b"},
        {"user_id": 1}, {"user_id": "01", "tenant_id": "a"}, {"user_id": 11, "tenant_id": "a"}, {"tenant_id": "a"}, {},
        {"user_id": "", "tenant_id": ""}, {"user_id": "a", "tenant_id": "1"}, {"user_id": "None", "tenant_id": "a"},
    ]  # fmt: skip
    async with attacked(opened) as (manager, server):
        clients = [await (await server.connect()).init(context) for context in contexts]
        for whom, gone in (
            ({"user_id": 1, "tenant_id": "a"}, {0, 1}), ({"user_id": 1}, {2, 3}),
            ({"user_id": "", "tenant_id": ""}, {8}),
            ({"tenant_id": "a"}, {4, 5, 6, 10}),
        ):  # fmt: skip
            assert await manager.revoke(**whom) == len(gone)
            for n in gone:
                assert await clients[n].closed() == CLOSED
        with pytest.raises(ValueError, match="revoke"):
            await manager.revoke()
        for n in (7, 9):
            await clients[n].sync()
        for client in clients:
            await client.close()
