"""What the in-process tests share: a schema that most of them can use, and reading with a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from fraiseql_subs import ID, Event, EventBusConfig, Limits, Schema, SubscriptionManager, argument, data, subscription

PATIENCE = 10.0
"""Seconds after which something that should have happened is missed."""


@dataclass
class Order:
    """An order."""

    id: ID
    status: str | None = None
    total: float | None = None


@subscription(channel="orders", event_types=["orderUpdated"], where=data["id"] == argument("order_id"))
async def order_updated(event: Event, order_id: ID) -> Order:
    """The orders of one id, by a function."""
    return Order(**event.data)


@subscription(channel="orders", passthrough=True)
def orders() -> Order:
    """All orders, without Python."""
    raise NotImplementedError


ORDERS = "subscription { orders { id } }"


async def publish_order(manager: SubscriptionManager, id: Any, **more: Any) -> str:
    return await manager.publish_event("orderUpdated", "orders", {"id": id, **more})


@dataclass
class Tick:
    """A number, as large as its padding makes it."""

    n: int
    pad: str | None = None


@subscription(channel="c", passthrough=True)
def ticks() -> Tick:
    """All numbers, without Python."""
    raise NotImplementedError


TICKS = "subscription { ticks { n } }"


def manager_of(
    *subscriptions: Any, limits: Limits | None = None, history: int = 0, multi_tenant: bool = False
) -> SubscriptionManager:
    """A manager on a memory bus; without functions, of those above."""
    return SubscriptionManager(
        Schema(subscriptions=list(subscriptions) or [order_updated, orders]),
        EventBusConfig.memory(history=history),
        limits=limits or Limits(),
        multi_tenant=multi_tenant,
    )


async def soon(awaitable: Any) -> Any:
    """What it gives, or a failure instead of a hang."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def take(stream: AsyncIterator[bytes], count: int = 1) -> list[dict[str, Any]]:
    """The payloads of the next messages (the messages themselves where the framing is "result")."""
    messages = [json.loads(await soon(anext(stream))) for _ in range(count)]
    return [message.get("payload", message) for message in messages]


async def one(stream: AsyncIterator[bytes]) -> dict[str, Any]:
    """The payload of the next message."""
    [payload] = await take(stream)
    return payload


async def rest(stream: AsyncIterator[bytes]) -> list[dict[str, Any]]:
    """The payloads of all messages up to the end."""

    async def read() -> list[bytes]:
        return [message async for message in stream]

    messages = [json.loads(message) for message in await soon(read())]
    return [message.get("payload", message) for message in messages]


async def reader(manager: SubscriptionManager, stream: AsyncIterator[bytes]) -> asyncio.Task[list[dict[str, Any]]]:
    """The manager's one subscription is live, and a task waits for the rest of its messages."""
    task = asyncio.create_task(rest(stream))
    while manager.get_metrics()["subscriptions"] == 0:
        await asyncio.sleep(0)
    return task


async def entered(stack: contextlib.AsyncExitStack, stream: Any) -> Any:
    """A subscription that is live until the stack is left."""
    await stream.__aenter__()
    stack.push_async_callback(stream.aclose)
    return stream


def nonzero(manager: SubscriptionManager, metric: str) -> dict[str, int]:
    """A metric that has labels, by those for which it is not 0."""
    return {label: count for label, count in manager.get_metrics()[metric].items() if count}


def bounded(**limits: Any) -> Limits:
    """Limits by names that only a test's table knows."""
    return Limits(**limits)


def within(seconds: float) -> datetime:
    """So many seconds from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


class Entry(NamedTuple):
    """One record of the audit trail, by its extra fields."""

    event: str
    reason: str
    user_id: str | None
    tenant_id: str | None
    connection_id: str | None
    suppressed: int


class Trail(logging.Handler):
    """What was written to the audit trail."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.entries: list[Entry] = []
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.INFO
        self.entries.append(Entry(*(getattr(record, name) for name in Entry._fields)))
        self.lines.append(self.format(record))

    async def has(self, *events: str) -> list[Entry]:
        """Waits until there are as many records; they must be of these events, in this order. Takes them."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while len(self.entries) < len(events) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.005)
        for _ in range(3):  # one record too many would come with the others
            await asyncio.sleep(0)
        taken, self.entries = self.entries, []
        assert [entry.event for entry in taken] == list(events), taken
        return taken


@contextlib.contextmanager
def handled(handler: logging.Handler, name: str | None = None) -> Iterator[None]:
    """The handler is given what a logger (default: the root) is told, from the handler's level up."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(handler.level)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def audited() -> Iterator[Trail]:
    """Collects the audit trail."""
    trail = Trail()
    with handled(trail, "fraiseql_subs.audit"):
        yield trail
