"""What Python's garbage collector finds: managers, connections and readers that nobody has any more."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import Any

import pytest

from fraiseql_subs import JSON, Event, Schema, SecurityContext, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

from .sockets import Direct, gauges, tick_of, tick_schema, until
from .support import manager_of, one


class Owner:
    """Something of the application that a test follows."""


async def collected(*refs: weakref.ref[Any]) -> bool:
    """Whether nothing is left, once the loop has done what is queued."""
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    return all(ref() is None for ref in refs)


def closed_over(kind: str) -> tuple[weakref.ref[Any], SubscriptionManager]:
    """A manager of functions, and of a class, that refer to it and to something else."""
    owner = Owner()
    references: list[Any] = [owner]

    class Answer:
        """A result whose class leads to the manager, too."""

        def __init__(self, n: int) -> None:
            self.n = n
            self.references = references

    @subscription(channel="c")
    async def answered(event: Event) -> JSON:
        return {"n": Answer(event.data["n"]).n, "of": len(references)}

    @subscription(channel="c")
    def blocking(event: Event) -> JSON:
        return {"n": event.data["n"], "of": len(references)}

    manager = SubscriptionManager(Schema(subscriptions=[answered if kind == "async" else blocking]))
    references.append(manager)
    return weakref.ref(owner), manager


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("use", ["not entered", "entered", "entered twice", "read"])
async def test_a_manager_that_its_functions_close_over_is_collected(kind, use):
    owner, manager = closed_over(kind)
    for _ in range({"not entered": 0, "entered twice": 2}.get(use, 1)):
        async with manager:
            if use == "read":
                field = "answered" if kind == "async" else "blocking"
                async with manager.subscribe(f"subscription {{ {field} }}") as stream:
                    await manager.publish_event("x", "c", {"n": 1})
                    assert (await one(stream))["data"] == {field: {"n": 1, "of": 2}}
                del stream  # one that has ended belongs to its run
            assert not await collected(owner)
    ref = weakref.ref(manager)
    assert not await collected(owner, ref)
    del manager
    deadline = asyncio.get_running_loop().time() + 5
    while not await collected(owner, ref):  # a thread lets go of its last work in its own time
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


class Held(SecurityContext):
    """A viewer that a test follows."""


class Served:
    """A connection whose viewer, task and `send` are followed."""

    def __init__(self, manager: SubscriptionManager) -> None:
        async def authenticate(payload: dict[str, Any]) -> SecurityContext:
            context = Held(user_id="u")
            self.refs.append(weakref.ref(context))
            return context

        self.refs: list[weakref.ref[Any]] = []
        app = SubscriptionApp(manager, auth_handler=authenticate)
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": tick_of("a")}}
        self.server = Direct(app, {"type": "connection_init"}, subscribe)
        # What is followed is what the frames of the task hold.
        self.refs += [weakref.ref(self.server), weakref.ref(self.server.task)]

    async def ready(self, manager: SubscriptionManager, count: int) -> None:
        await until(lambda: gauges(manager) == {"connections": count, "subscriptions": count})


@pytest.mark.parametrize("how", ["receive raised", "cancelled and not awaited", "send raised"])
async def test_a_connection_that_ends_badly_is_collected(how):
    manager = SubscriptionManager(tick_schema())
    async with manager:
        refs = []
        for _ in range(3):
            served = Served(manager)
            await served.ready(manager, 1)
            assert not await collected(*served.refs)
            if how == "receive raised":
                served.server.hand(None)  # type: ignore[arg-type]  # no message: reading its type raises
            elif how == "send raised":

                async def broken(message: Any) -> None:
                    raise RuntimeError("broken")

                served.server.send = broken  # type: ignore[method-assign]
                served.server.task.cancel()
            else:
                served.server.task.cancel()
            await until(served.server.task.done)
            with contextlib.suppress(asyncio.CancelledError, TypeError):
                served.server.task.exception()
            refs += served.refs
            del served
            assert gauges(manager) == {"connections": 0, "subscriptions": 0}
        assert await collected(*refs)


def test_connections_of_a_loop_that_is_never_run_again_are_collected():
    """Nothing of them stays in the manager either."""
    manager = SubscriptionManager(tick_schema())
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # asyncio says that a pending task was destroyed
    gc.disable()

    async def begin() -> list[weakref.ref[Any]]:
        await manager.__aenter__()
        served = Served(manager)
        await served.ready(manager, 1)
        return served.refs

    try:
        refs = loop.run_until_complete(begin())
        assert gauges(manager) == {"connections": 1, "subscriptions": 1}
    finally:
        gc.enable()
    gc.collect()
    assert [ref() is None for ref in refs] == [True] * len(refs)
    assert gauges(manager) == {"connections": 0, "subscriptions": 0}
    loop.run_until_complete(manager.__aexit__(None, None, None))
    loop.close()


async def test_a_reader_that_nobody_has_any_more_is_collected():
    manager = manager_of()
    async with manager:

        async def read(owner: Owner, stream: Any) -> None:
            async for _ in stream:
                pass

        def begin() -> weakref.ref[Any]:
            owner = Owner()
            coroutine = read(owner, manager.subscribe("subscription { orders { id } }"))
            # It waits for a message, and nothing but what it waits for refers to it.
            waited = coroutine.send(None)
            waited.add_done_callback(lambda _, coroutine=coroutine: None)
            return weakref.ref(owner)

        owner = begin()
        assert await collected(owner)
        assert manager.get_metrics()["subscriptions"] == 0
