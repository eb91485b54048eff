"""Attacks on what viewers share: a call, a result, an event, an object; and on what they must not share.

Whoever shares a call is told apart by nothing that the function could see, and whoever is told apart shares none.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import Annotated, Any
from uuid import UUID

import pytest

from fraiseql_subs import (
    ALL_TENANTS,
    ID,
    JSON,
    Event,
    GraphQLError,
    Info,
    Schema,
    SecurityContext,
    SubscriptionManager,
    requires,
    subscription,
)
from fraiseql_subs.asgi import SubscriptionApp

from .attacks import SECRET, attacked
from .sockets import next_frame, serving
from .support import soon

LATER = datetime.now(timezone.utc) + timedelta(days=1)


# ---- operation ids ----


@subscription(channel="c:{of}", passthrough=True)
async def of(of: ID) -> JSON:
    raise NotImplementedError


async def test_an_operation_id_belongs_to_its_connection():
    async with attacked(of) as (manager, server):
        async with server.acknowledged() as one, server.acknowledged() as two:
            clients = {"one": one, "two": two}

            async def told(*names: str) -> None:
                """Everybody hears of his own channel, or of nothing."""
                for name, client in clients.items():
                    await manager.publish_event("x", f"c:{name}", {"for": name})
                    if name in names:
                        await client.expect(next_frame("1", {"of": {"for": name}}))
                for client in clients.values():
                    await client.sync()

            for name, client in clients.items():
                await client.subscribe("1", f'subscription {{ of(of: "{name}") }}')
            stream = manager.subscribe('subscription { of(of: "one") }', subscription_id="1")
            async with stream:
                await told("one", "two")
                assert json.loads(await anext(stream))["payload"] == {"data": {"of": {"for": "one"}}}
                await one.complete("1")
                await one.sync()
                await told("two")
                assert json.loads(await anext(stream))["payload"] == {"data": {"of": {"for": "one"}}}
                # Without a connection's id it is the stream's, whatever sockets call theirs.
                assert await manager.complete_subscription("1") is True
                assert [message async for message in stream] == []
                await told("two")
            assert await manager.complete_subscription("1") is False
            await one.subscribe("1", 'subscription { of(of: "one") }')
            await told("one", "two")
            await two.close()
            del clients["two"]
            await told("one")


# ---- tenants ----


@dataclass
class Seen:
    """What a function was called with, and what it gives: an object of its own for each call."""

    calls: list[Any]

    def note(self, event: Event, *more: Any) -> dict[str, Any]:
        self.calls.append((event.tenant_id, event.data["n"], *more))
        return {"call": len(self.calls), "n": event.data["n"]}


def functions_of_both_kinds() -> tuple[Seen, list[Any]]:
    seen = Seen([])

    @subscription(channel="c:{of}")
    async def shared(event: Event, of: ID) -> JSON:
        return seen.note(event)

    @subscription(channel="c:{of}")
    async def own(event: Event, info: Info, of: ID) -> JSON:
        return seen.note(event, info.viewer.tenant_id)

    @subscription(channel="c:{of}")
    def threaded(event: Event, of: ID) -> JSON:
        return seen.note(event)

    return seen, [shared, own, threaded]


@pytest.mark.parametrize("field", ["shared", "own", "threaded"])
async def test_tenants_with_equal_ids_and_documents_share_no_call_and_no_byte(field):
    seen, functions = functions_of_both_kinds()
    async with attacked(*functions, multi_tenant=True) as (manager, server):
        payloads = [{"user_id": 1, "tenant_id": tenant} for tenant in ("a", "b", "b")]
        async with (
            server.acknowledged(payload=payloads[0]) as a,
            server.acknowledged(payload=payloads[1]) as b,
            server.acknowledged(payload=payloads[2]) as also_b,
        ):
            for client in (a, b, also_b):
                await client.subscribe("1", f'subscription {{ {field}(of: "1") }}')
            for n, tenant in ((1, "a"), (2, "b"), (3, "c"), (4, "a")):
                await manager.publish_event("x", "c:1", {"n": n}, tenant_id=tenant)
            frames = {n: next_frame("1", {field: {"call": call, "n": n}}) for call, n in ((1, 1), (2, 2), (3, 4))}
            if field == "threaded":  # in whichever order the threads began
                heard = {json.loads(await client.receive())["payload"]["data"][field]["n"] for client in (b, also_b)}
                assert heard == {2}
                assert [json.loads(await a.receive())["payload"]["data"][field]["n"] for _ in range(2)] == [1, 4]
            else:
                await a.expect(frames[1], frames[4])
                await b.expect(frames[2])
                await also_b.expect(frames[2])
            for client in (a, b, also_b):
                await client.sync()
            viewers = {"a": ("a",), "b": ("b",)} if field == "own" else {"a": (), "b": ()}
            assert sorted(seen.calls) == sorted(
                [("a", 1, *viewers["a"]), ("b", 2, *viewers["b"]), ("a", 4, *viewers["a"])]
            )


@pytest.mark.parametrize("field", ["shared", "own"])
async def test_an_event_for_all_tenants_tells_none_who_else_heard_of_it(field):
    seen, functions = functions_of_both_kinds()
    async with attacked(*functions, multi_tenant=True) as (manager, server):
        async with (
            server.acknowledged(payload={"tenant_id": "a"}) as a,
            server.acknowledged(payload={"tenant_id": "b"}) as b,
        ):
            for client in (a, b):
                await client.subscribe("1", f'subscription {{ {field}(of: "1") }}')
            await manager.publish_event("x", "c:1", {"n": 1}, tenant_id=ALL_TENANTS)
            for client in (a, b):
                assert json.loads(await client.receive())["payload"]["data"][field]["n"] == 1
                await client.sync()
            assert {tenant for tenant, *_ in seen.calls} == {None}
            if field == "own":
                assert sorted(viewer for *_, viewer in seen.calls) == ["a", "b"]


# ---- a function without `info` cannot know who is watching ----

WHO: contextvars.ContextVar[Any] = contextvars.ContextVar("WHO", default=None)


def found(frame: FrameType | None) -> list[Any]:
    """Contexts of viewers and planted texts in the locals of a frame and of those below it, and in contextvars."""
    there: list[Any] = []

    def look(value: Any, depth: int) -> None:
        if isinstance(value, (SecurityContext, Info)) or (isinstance(value, str) and value.startswith(SECRET)):
            there.append(value)
        elif depth and isinstance(value, dict):
            for each in tuple(value.values()):
                look(each, depth - 1)
        elif depth and isinstance(value, (list, tuple, set, frozenset)):
            for each in tuple(value):
                look(each, depth - 1)

    while frame is not None:
        look(dict(frame.f_locals), 3)
        frame = frame.f_back
    for variable, value in contextvars.copy_context().items():
        if variable is WHO:
            look(value, 3)
    look(sys.exc_info(), 1)
    return there


class Looking:
    """An object whose attributes look around when they are read."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    @property
    def plain(self) -> int:
        self.seen.append(found(sys._getframe()))
        return 1

    def called(self) -> int:
        self.seen.append(found(sys._getframe()))
        return 1

    async def awaited(self) -> int:
        await asyncio.sleep(0)
        self.seen.append(found(sys._getframe()))
        return 1


LOOKING = """
type Looking { plain: Int called: Int awaited: Int }
type Query { q: Int }
type Subscription { blind: Looking threaded: Looking sighted: Looking }
"""


async def test_a_function_without_info_finds_the_viewer_nowhere():
    seen: dict[str, list[Any]] = {"blind": [], "threaded": [], "sighted": []}
    attributes = Looking()
    events: list[Event] = []

    @subscription(channel="c")
    async def blind(event):
        seen["blind"].append(found(sys._getframe()))
        await asyncio.sleep(0)
        seen["blind"].append(found(sys._getframe()))
        events.append(event)
        return attributes

    @subscription(channel="c")
    def threaded(event):
        seen["threaded"].append(found(sys._getframe()))
        return {"plain": 1}

    @subscription(channel="c")
    async def sighted(event, info):
        seen["sighted"].append(found(sys._getframe()))
        return {"plain": 1}

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        context = SecurityContext(user_id=payload["user"], claims={"is": "planted-claim"}, permissions=["planted-may"])
        WHO.set(context)
        return context

    manager = SubscriptionManager(Schema.from_sdl(LOOKING, [blind, threaded, sighted]))
    app = SubscriptionApp(manager, auth_handler=authenticate)

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            WHO.set("planted-by-middleware")
        await app(scope, receive, send)

    async def publish(context: SecurityContext, previous: Any = None) -> None:
        """As a request of somebody would."""
        WHO.set(context)
        await manager.publish_event("x", "c", {"n": 1}, previous=previous)

    async with serving(middleware) as server:
        async with (
            server.acknowledged(payload={"user": "planted-1"}) as one,
            server.acknowledged(payload={"user": "planted-2"}) as two,
        ):
            for client in (one, two):
                await client.subscribe("1", "subscription { blind { plain called awaited } }")
                await client.subscribe("2", "subscription { threaded { plain } }")
            await one.subscribe("3", "subscription { sighted { plain } }")
            await asyncio.create_task(publish(SecurityContext(user_id="planted-3"), {"old": "planted-image"}))
            for client, count in ((one, 3), (two, 2)):
                for _ in range(count):
                    assert "errors" not in (await client.message())["payload"]
        server.log.take()
    assert seen["blind"] == [[], []]  # one call, which looked twice, for both
    assert seen["threaded"] == [[]]
    assert attributes.seen == [[]] * 3
    assert any(isinstance(each, Info) for each in seen["sighted"][0])  # it is found where it is
    [event] = events
    assert SECRET not in repr(event) + str(dir(event))
    assert {name for name in dir(event) if not name.startswith("_")} == {
        "channel", "data", "event_type", "id", "published_at", "source", "tenant_id",
    }  # fmt: skip


async def test_only_what_was_set_before_the_manager_was_entered_is_seen():
    seen: list[Any] = []

    @subscription(channel="c")
    async def blind(event: Event) -> int:
        seen.append(WHO.get())
        WHO.set("planted-by-a-call")
        return 1

    @subscription(channel="c")
    def threaded(event: Event) -> int:
        seen.append(WHO.get())
        WHO.set("planted-by-a-call")
        return 1

    WHO.set("entered")
    manager = SubscriptionManager(Schema(subscriptions=[blind, threaded]))
    async with manager:
        async with (
            manager.subscribe("subscription { blind }") as one,
            manager.subscribe("subscription { threaded }") as two,
        ):
            for n in range(3):
                WHO.set(f"planted-{n}")
                await manager.publish_event("x", "c", {})
                await soon(anext(one))
                await soon(anext(two))
    assert seen == ["entered"] * 6


async def test_what_a_call_does_to_its_event_no_other_sees():
    def spoil(event: Event) -> dict[str, Any]:
        before = json.loads(json.dumps(event.data))
        event.data["own"] = SECRET
        event.data["list"].append(SECRET)
        event.data["object"]["own"] = SECRET
        with pytest.raises(AttributeError):
            event.tenant_id = SECRET  # type: ignore[misc]  # that is the point
        return before

    @subscription(channel="c")
    async def one(event: Event, of: int = 0) -> JSON:
        return spoil(event)

    @subscription(channel="c")
    def two(event: Event) -> JSON:
        return spoil(event)

    @subscription(channel="c")
    async def three(event: Event, info: Info) -> JSON:
        return spoil(event)

    @subscription(channel="c", passthrough=True)
    async def raw() -> JSON:
        raise NotImplementedError

    event = {"list": [], "object": {"n": 1}}
    queries = ["one", "one(of: 1)", "two", "three", "raw"]
    async with attacked(one, two, three, raw) as (manager, server):
        async with server.acknowledged(payload={"user_id": 1}) as client, server.acknowledged() as other:
            for who in (client, other):
                for n, query in enumerate(queries):
                    await who.subscribe(str(n), f"subscription {{ {query} }}")
            given = {**event, "list": [], "object": {"n": 1}}
            await manager.publish_event("x", "c", given)
            for who in (client, other):
                answers = [(await who.message())["payload"]["data"] for _ in queries]
                assert [next(iter(answer.values())) for answer in answers] == [event] * len(queries)
            assert given == event  # nor does the publisher's own


async def test_an_exception_brings_nothing_of_another_call_along():
    seen: list[Any] = []
    again = asyncio.Event()

    @subscription(channel="c")
    async def raising(event: Event, info: Info) -> int:
        again.set()
        raise LookupError(f"planted {info.viewer.user_id}")

    @subscription(channel="c")
    async def looking(event: Event) -> int:
        await again.wait()
        try:
            raise ValueError("own")
        except ValueError as error:
            seen.append((error.__context__, error.__cause__))
        seen.append(sys.exc_info())
        return 1

    async with attacked(raising, looking) as (manager, server):
        async with server.acknowledged(payload={"user_id": 1}) as one, server.acknowledged() as two:
            await one.subscribe("1", "subscription { raising }")
            await two.subscribe("1", "subscription { looking }")
            await manager.publish_event("x", "c", {})
            [error] = (await one.message())["payload"]["errors"]
            assert error["message"] == "Internal server error"
            await two.expect(next_frame("1", {"looking": 1}))
        assert len(server.log.take()) == 1
    assert seen == [(None, None), (None, None, None)]


# ---- a function with `info` is called for each viewer ----

A_UUID = "c0ffee00-0000-4000-8000-000000000001"
#: Each differs from every other by one thing.
DIFFERENT: list[dict[str, Any]] = [
    {}, {"user_id": 1}, {"user_id": "1"}, {"user_id": "01"}, {"user_id": A_UUID}, {"user_id": UUID(A_UUID)},
    {"user_id": ""}, {"user_id": 1, "claims": {"a": 1}}, {"user_id": 1, "claims": {"a": "1"}},
    {"user_id": 1, "claims": {"a": True}}, {"user_id": 1, "claims": {"a": None}}, {"user_id": 1, "claims": {"a": [1]}},
    {"user_id": 1, "claims": {"a": {"b": 1}}}, {"user_id": 1, "claims": {"a": 2**53}},
    {"user_id": 1, "claims": {"a": 2**53 + 1}}, {"user_id": 1, "claims": {"a": 1, "b": None}},
    {"user_id": 1, "claims": {"user_id": 1}}, {"user_id": 1, "permissions": ["a"]},
    {"user_id": 1, "permissions": ["A"]},
    {"user_id": 1, "permissions": ["a", "b"]}, {"user_id": 1, "permissions": ["a,b"]}, {"user_id": 1, "roles": ["a"]},
    {"user_id": 1, "roles": ["a", "b"]}, {"user_id": 1, "sources": ["s"]}, {"user_id": 1, "sources": ["s", "a"]},
]  # fmt: skip
#: Each row is one viewer.
EQUAL: list[list[dict[str, Any]]] = [
    [{"user_id": 1, "expires_at": LATER}, {"user_id": 1}, {"user_id": 1, "expires_at": LATER + timedelta(days=1)}],
    [{"claims": {"a": 1, "b": 2}}, {"claims": {"b": 2, "a": 1.0}}],
    [{"permissions": ["a", "b"]}, {"permissions": {"b", "a"}}, {"permissions": ("b", "a", "b")}],
]


async def calls_for(contexts: list[SecurityContext]) -> tuple[list[SecurityContext], list[str]]:
    """The viewers that the function was called with for one event, and what each context was sent."""
    calls: list[SecurityContext] = []

    @subscription(channel="c")
    async def who(event: Event, info: Info) -> JSON:
        calls.append(info.viewer)
        return {"call": len(calls)}

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return contexts[payload["n"]]

    async with attacked(who, auth_handler=authenticate) as (manager, server):
        clients = [await (await server.connect()).init({"n": n}) for n in range(len(contexts))]
        for client in clients:
            await client.subscribe("1", "subscription { who }")
        await manager.publish_event("x", "c", {}, source="s")
        frames = [await client.receive() for client in clients]
        for client in clients:
            await client.sync()
            await client.close()
    return calls, frames


async def test_contexts_that_differ_in_one_thing_share_no_call_and_no_result():
    contexts = [SecurityContext(**context) for context in DIFFERENT]
    calls, frames = await calls_for(contexts)
    assert len(calls) == len(set(frames)) == len(contexts)
    for context, frame in zip(contexts, frames, strict=True):
        given = calls[json.loads(frame)["payload"]["data"]["who"]["call"] - 1]
        assert given == context
        for name in ("user_id", "tenant_id"):
            assert type(getattr(given, name)) is type(getattr(context, name))


@pytest.mark.parametrize("equal", EQUAL)
async def test_contexts_that_are_equal_but_for_their_expiry_share_the_call_which_sees_none(equal):
    calls, frames = await calls_for([SecurityContext(**context) for context in equal])
    assert frames == [next_frame("1", {"who": {"call": 1}})] * len(equal)
    [viewer] = calls
    assert viewer == SecurityContext(**{**equal[0], "expires_at": None})


async def test_what_a_context_carries_beside_its_fields_is_seen_by_no_call_that_others_share():
    class Rich(SecurityContext):
        def __init__(self, secret: str, **fields: Any) -> None:
            super().__init__(**fields)
            object.__setattr__(self, "secret", secret)

        @property
        def name(self) -> str:
            return f"user {self.user_id}"

    contexts: list[SecurityContext] = [
        Rich(SECRET, user_id=1),
        Rich("mine", user_id=1),
        Rich("mine", user_id=1, expires_at=LATER),
    ]
    [viewer], _ = await calls_for(contexts)
    assert not hasattr(viewer, "secret")
    assert isinstance(viewer, Rich)
    assert viewer.name == "user 1"
    assert viewer == SecurityContext(user_id=1)
    seen = []

    @subscription
    async def generated(info: Info) -> AsyncIterator[int]:
        seen.append(info.viewer)
        yield 1

    async with SubscriptionManager(Schema(subscriptions=[generated])) as manager:
        async with manager.subscribe("subscription { generated }", context=contexts[0]) as stream:
            await soon(anext(stream))
    assert seen == [contexts[0]]
    assert vars(seen[0])["secret"] == SECRET  # a generator is one subscription's own


async def test_info_belongs_to_no_one_subscription():
    seen: list[Any] = []

    @subscription(channel="c")
    async def who(event: Event, info: Info) -> int:
        for name in ("operation_name", "variables", "connection_id"):
            with pytest.raises(AttributeError):
                getattr(info, name)
        seen.append(info)
        info.viewer = SecurityContext(user_id=SECRET)
        return 1

    async with attacked(who) as (manager, server):
        async with (
            server.acknowledged(payload={"user_id": 1}) as one,
            server.acknowledged(payload={"user_id": 2}) as two,
        ):
            for client in (one, two):
                await client.subscribe("1", "subscription { who }")
            for _ in range(2):
                await manager.publish_event("x", "c", {})
                for client in (one, two):
                    await client.expect(next_frame("1", {"who": 1}))
    assert len({id(info) for info in seen}) == 4


async def test_one_object_that_is_changed_for_each_viewer_is_read_for_each():
    box: dict[str, Any] = {}

    @subscription(channel="c")
    async def who(event: Event, info: Info) -> JSON:
        box.update(user=info.viewer.user_id, more=[info.viewer.user_id])
        return box

    async with attacked(who) as (manager, server):
        clients = [await (await server.connect()).init({"user_id": n}) for n in range(5)]
        for client in clients:
            await client.subscribe("1", "subscription { who }")
        for _ in range(3):
            await manager.publish_event("x", "c", {})
        for n, client in enumerate(clients):
            await client.expect(*[next_frame("1", {"who": {"user": n, "more": [n]}})] * 3)
            await client.close()


# ---- one call, several selections ----


class Part:
    def __init__(self) -> None:
        self.reads: list[Any] = []

    id = "1"

    @property
    def bad(self) -> str:
        self.reads.append("bad")
        raise GraphQLError(SECRET)

    def part(self, of: int) -> str:
        self.reads.append(of)
        if of == 1:
            raise GraphQLError(f"{SECRET} {of}")
        return f"part {of}"


async def test_a_lazy_attribute_that_raises_for_one_selection_is_seen_by_no_other():
    part = Part()

    @subscription(channel="c")
    async def lazy(event):
        return part

    sdl = (
        "type Part { id: ID bad: String part(of: Int!): String } type Query { q: Int } type Subscription { lazy: Part }"
    )
    queries = [
        "{ id }",
        "{ id bad }",
        "{ id part(of: 1) }",
        "{ id part(of: 2) }",
        "{ id x: part(of: 1) y: part(of: 2) }",
    ]
    expected: list[dict[str, Any]] = [
        {"id": "1"}, {"id": "1", "bad": None}, {"id": "1", "part": None}, {"id": "1", "part": "part 2"},
        {"id": "1", "x": None, "y": "part 2"},
    ]  # fmt: skip
    async with attacked(schema=Schema.from_sdl(sdl, [lazy])) as (manager, server):
        clients = [await (await server.connect()).init({"user_id": n}) for n in range(len(queries))]
        for client, query in zip(clients, queries, strict=True):
            await client.subscribe("1", f"subscription {{ lazy {query} }}")
        await manager.publish_event("x", "c", {})
        for client, selected in zip(clients, expected, strict=True):
            payload = (await client.message())["payload"]
            assert payload["data"] == {"lazy": selected}
            paths = [["lazy", key] for key, value in selected.items() if value is None]
            assert [error["path"] for error in payload.get("errors", ())] == paths
            assert (SECRET in json.dumps(payload)) is bool(paths)
            await client.close()
    assert sorted(part.reads, key=str) == [1, 2, "bad"]  # each once, whoever shares it


@dataclass
class Half:
    id: ID
    secret: Annotated[str | None, requires("see")] = None


@subscription(channel="c")
async def half(event: Event) -> Half:
    await asyncio.sleep(0)
    return Half(event.data["id"], SECRET)


@subscription(channel="c", name="raw", passthrough=True)
async def raw_half() -> Half:
    raise NotImplementedError


@pytest.mark.parametrize("field", ["half", "raw"])
async def test_viewers_of_one_document_with_other_permissions_never_get_each_others_bytes(field):
    query = f"subscription {{ {field} {{ id secret }} }}"
    error: dict[str, Any] = {"message": "Forbidden", "locations": [{"line": 1, "column": query.index("secret") + 1}]}
    error |= {"path": [field, "secret"], "extensions": {"code": "FORBIDDEN"}}

    def expected(sees: bool, n: int) -> str:
        if sees:
            return next_frame("1", {field: {"id": str(n), "secret": SECRET}})
        return next_frame("1", {field: {"id": str(n), "secret": None}}, errors=[error])

    async with attacked(half, raw_half) as (manager, server):
        async with (
            server.acknowledged(payload={"permissions": ["see"]}) as allowed,
            server.acknowledged(payload={"permissions": ["se"]}) as masked,
            server.acknowledged(payload={"permissions": ["see", "more"]}) as also,
        ):
            clients = {allowed: True, masked: False, also: True}
            live: set[Any] = set()
            chance = random.Random(1)
            for n in range(200):
                # In every order, also all and nobody.
                for client in chance.sample([*clients], 3):
                    stays = chance.random() < 0.5
                    if stays and client not in live:
                        await client.ask("1", query)
                        live.add(client)
                    elif not stays and client in live:
                        await client.complete("1")
                        live.discard(client)
                for client in clients:
                    await client.sync()
                await manager.publish_event("x", "c", {"id": n, "secret": SECRET})
                for client in live:
                    assert await client.receive() == expected(clients[client], n)


async def test_a_viewer_who_comes_while_a_call_is_under_way_gets_nothing_of_it():
    calls: list[Any] = []
    go_on = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> JSON:
        calls.append(event.data["n"])
        if event.data["n"] == 1:
            await go_on.wait()
        return event.data

    async with attacked(slow) as (manager, server):
        async with server.acknowledged() as early, server.acknowledged() as late:
            await early.subscribe("1", "subscription { slow }")
            await manager.publish_event("x", "c", {"n": 1})
            await early.sync()
            await late.subscribe("1", "subscription { slow }")
            go_on.set()
            await early.expect(next_frame("1", {"slow": {"n": 1}}))
            await manager.publish_event("x", "c", {"n": 2})
            for client in (early, late):
                await client.expect(next_frame("1", {"slow": {"n": 2}}))
    assert calls == [1, 2]
