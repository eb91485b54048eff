"""Who may call a function next: bounded for the process, and nobody waits for another's thousand argument sets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from fraiseql_subs import ID, Event, Limits, SecurityContext, SubscriptionManager, subscription

from .sockets import until
from .support import entered, manager_of, one, take


class Gate:
    """Holds calls until it is opened, and knows which have begun, in their order."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self._places = threading.Semaphore(0)
        self._opened = asyncio.Semaphore(0)

    def enter(self, name: str) -> None:
        with self._lock:
            self.begun.append(name)
            self._running += 1
            self.most = max(self.most, self._running)

    def leave(self) -> None:
        with self._lock:
            self._running -= 1

    def open(self, calls: int) -> None:
        for _ in range(calls):
            self._places.release()
            self._opened.release()

    async def pass_async(self, name: str) -> None:
        self.enter(name)
        await self._opened.acquire()
        self.leave()

    def pass_sync(self, name: str) -> None:
        self.enter(name)
        self._places.acquire()
        self.leave()


@pytest.fixture(params=["async", "sync"])
def gated(request: pytest.FixtureRequest) -> Iterator[tuple[Gate, Any]]:
    gate = Gate()

    @subscription(channel="c:{of}", name="gated")
    async def of_loop(event: Event, of: ID) -> str:
        await gate.pass_async(of)
        return of

    @subscription(channel="c:{of}", name="gated")
    def of_thread(event: Event, of: ID) -> str:
        gate.pass_sync(of)
        return of

    yield gate, of_loop if request.param == "async" else of_thread
    gate.open(1_000)


def limited(function: Any, most: int, **limits: Any) -> SubscriptionManager:
    """Room for so many calls, whatever the kind of the function."""
    return manager_of(function, limits=Limits(max_calls=most, resolver_threads=most, **limits))


@asynccontextmanager
async def watching(manager: SubscriptionManager, *sets: tuple[str, SecurityContext]) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        query = "subscription ($of: ID!) { gated(of: $of) }"
        yield [
            await entered(stack, manager.subscribe(query, variables={"of": of}, context=viewer, framing="result"))
            for of, viewer in sets
        ]


def user(name: str, tenant: str | None = None) -> SecurityContext:
    return SecurityContext(user_id=name, tenant_id=tenant)


async def publish(manager: SubscriptionManager, *sets: str, tenant: str | None = None) -> None:
    for of in sets:
        await manager.publish_event("e", f"c:{of}", {}, tenant_id=tenant)


async def test_never_more_than_max_calls_run_at_once_and_all_of_them_do(gated):
    gate, function = gated
    manager = limited(function, 3)
    sets = [f"{n}" for n in range(20)]
    async with manager, watching(manager, *((of, user("a")) for of in sets)) as streams:
        await publish(manager, *sets)
        await until(lambda: len(gate.begun) == 3)
        gate.open(20)
        assert [await one(stream) for stream in streams] == [{"data": {"gated": of}} for of in sets]
    assert gate.most == 3
    assert sorted(gate.begun) == sorted(sets)


@pytest.mark.parametrize("as_tenants", [False, True])
async def test_another_account_waits_for_one_call_and_not_for_a_thousand_argument_sets(gated, as_tenants):
    gate, function = gated
    manager = limited(function, 2)
    tenants = ("x", "y") if as_tenants else (None, None)
    greedy = [f"greedy{n}" for n in range(50)]
    async with (
        manager,
        watching(manager, *((of, user("a", tenants[0])) for of in greedy)) as many,
        watching(manager, ("modest", user("b", tenants[1]))) as [modest],
    ):
        await publish(manager, *greedy, tenant=tenants[0])
        await until(lambda: len(gate.begun) == 2)
        await publish(manager, "modest", tenant=tenants[1])
        gate.open(1)
        await until(lambda: len(gate.begun) == 3)
        gate.open(1)
        await until(lambda: len(gate.begun) == 4)
        # The first turn that was free after he had asked may have been the other's already.
        assert "modest" in gate.begun[2:4]
        gate.open(1_000)
        assert await one(modest) == {"data": {"gated": "modest"}}
        for of, stream in zip(greedy, many, strict=True):
            assert await one(stream) == {"data": {"gated": of}}


async def test_events_of_one_set_stay_in_order_while_they_wait_for_turns(gated):
    gate, function = gated
    manager = limited(function, 1)
    async with manager, watching(manager, ("s", user("a")), ("t", user("a"))) as [first, second]:
        for _ in range(5):
            await publish(manager, "s", "t")
        gate.open(10)
        assert await take(first, 5) == [{"data": {"gated": "s"}}] * 5
        assert await take(second, 5) == [{"data": {"gated": "t"}}] * 5
    assert gate.most == 1


async def test_whoever_leaves_while_waiting_takes_no_turn(gated):
    gate, function = gated
    manager = limited(function, 1)
    async with (
        manager,
        watching(manager, ("busy", user("a"))) as [busy],
        watching(manager, ("last", user("c"))) as [last],
    ):
        async with watching(manager, ("gone", user("b"))):
            await publish(manager, "busy")
            await until(lambda: gate.begun == ["busy"])
            await publish(manager, "gone", "last")
        gate.open(2)
        assert await one(busy) == {"data": {"gated": "busy"}}
        assert await one(last) == {"data": {"gated": "last"}}
    assert gate.begun == ["busy", "last"]


async def test_a_thread_that_outlives_its_time_keeps_its_place():
    release, begun = threading.Event(), list[str]()

    @subscription(channel="c:{of}", timeout=0.05)
    def stuck(event: Event, of: ID) -> str | None:
        begun.append(of)
        release.wait()
        return of

    manager = manager_of(stuck, limits=Limits(resolver_threads=1))
    query = "subscription ($of: ID!) { stuck(of: $of) }"
    try:
        async with (
            manager,
            manager.subscribe(query, variables={"of": "a"}, framing="result") as first,
            manager.subscribe(query, variables={"of": "b"}, framing="result") as second,
        ):
            await publish(manager, "a", "b")
            for stream in (first, second):
                assert (await one(stream))["errors"][0]["extensions"] == {"code": "TIMEOUT"}
            assert begun == ["a"]
            release.set()
            await publish(manager, "b")
            assert await one(second) == {"data": {"stuck": "b"}}
            assert begun == ["a", "b"]
    finally:
        release.set()
