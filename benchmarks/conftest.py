"""What benchmarks share: a loop, a manager that runs on it, and sizes that are small where nothing is measured."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fraiseql_subs import (
    ID,
    Event,
    EventBusConfig,
    Info,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    subscription,
    viewer,
)

T = TypeVar("T")
PAYLOAD = "x" * 140


@dataclass
class UserEvent:
    id: ID
    payload: str


BY_ID = argument("id").is_null() | (data["id"] == argument("id"))


@subscription(channel="users", where=BY_ID, passthrough=True)
async def user_updated(id: ID | None = None) -> UserEvent:
    raise NotImplementedError


@subscription(channel="users", where=BY_ID)
async def user_shared(event: Event, id: ID | None = None) -> UserEvent:
    return UserEvent(event.data["id"], event.data["payload"])


@subscription(channel="users")
async def user_for_viewer(event: Event, info: Info) -> UserEvent:
    return UserEvent(event.data["id"], f"{info.viewer.user_id}: {event.data['payload']}")


@subscription(channel="users", where=BY_ID)
def user_in_thread(event: Event, id: ID | None = None) -> UserEvent:
    return UserEvent(event.data["id"], event.data["payload"])


@subscription(channel="users", rows=data["id"] == viewer("user_id"), passthrough=True)
async def user_own() -> UserEvent:
    raise NotImplementedError


@subscription(channel="measurements", where=data["value"] > argument("above"), passthrough=True)
async def measured(above: int) -> UserEvent:
    raise NotImplementedError


@subscription
async def counted(to: int) -> AsyncIterator[int]:
    for number in range(to):
        yield number


SUBSCRIPTIONS: list[Callable[..., Any]] = [
    user_updated,
    user_shared,
    user_for_viewer,
    user_in_thread,
    user_own,
    measured,
    counted,
]
UNLIMITED = Limits(
    max_connections_per_user=None,
    max_subscriptions_per_connection=1_000_000,
    max_subscriptions_per_user=None,
    subscribes_per_second=None,
    queue_messages=1_000_000,
    queue_bytes=1 << 30,
    connection_queue_bytes=1 << 30,
    drain_timeout=0,
)


class Bench:
    """A manager on a loop that stands still between rounds."""

    def __init__(self, benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
        self._benchmark = benchmark
        self._loop = loop
        self.manager = SubscriptionManager(
            Schema(subscriptions=SUBSCRIPTIONS), EventBusConfig.memory(history=10_000), limits=UNLIMITED
        )

    def size(self, full: int) -> int:
        """`full` where it is measured; enough to see that it works where it is not."""
        return min(full, 20) if self._benchmark.disabled else full

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def measure(
        self,
        work: Callable[[], Coroutine[Any, Any, object]],
        *,
        per: int = 1,
        rounds: int = 20,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Measures `work()`, which does something `per` times. What `before` and `after` do is not counted."""
        self._benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark has no types
            lambda: self.run(work()), setup=before, teardown=after, rounds=rounds, warmup_rounds=int(rounds > 1)
        )
        if self._benchmark.stats:
            self._benchmark.extra_info["microseconds_each"] = round(self._benchmark.stats.stats.median / per * 1e6, 3)

    def subscribe(
        self, query: str, viewers: Sequence[object], *, tenant: str | None = None, **variables: Any
    ) -> list[Any]:
        """A live subscription for each viewer."""

        async def enter() -> list[Any]:
            streams = [
                self.manager.subscribe(query, variables=variables, context=SecurityContext(str(viewer), tenant))
                for viewer in viewers
            ]
            for stream in streams:
                await stream.__aenter__()
                self._stack.push_async_callback(stream.aclose)
            return streams

        return self.run(enter())

    async def publish(self, id: object = 1, *, channel: str = "users", tenant: str | None = None, **more: Any) -> None:
        await self.manager.publish_event("updated", channel, {"id": id, "payload": PAYLOAD, **more}, tenant_id=tenant)

    @contextlib.contextmanager
    def running(self) -> Iterator[Bench]:
        self._stack = contextlib.AsyncExitStack()
        self.run(self._stack.enter_async_context(self.manager))
        try:
            yield self
        finally:
            self.run(self._stack.aclose())


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        loop = asyncio.new_event_loop()
    else:
        import uvloop

        loop = uvloop.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture
def bench(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> Iterator[Bench]:
    with Bench(benchmark, loop).running() as bench:
        yield bench
