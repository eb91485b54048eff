"""What the in-process tests share: a schema that most of them can use, and reading with a time limit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

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
