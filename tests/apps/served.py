"""The application that `test_asgi.py` runs on every server: subscriptions, and a look at what is left of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import ID, Event, Info, Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp


@dataclass
class Tick:
    n: int
    text: str | None = None


@subscription(channel="ticks:{of}", passthrough=True)
async def tick(of: ID) -> Tick:
    raise NotImplementedError


@subscription
async def stuck(event: Event) -> Tick:
    await asyncio.Event().wait()
    raise AssertionError


@subscription
async def forever(info: Info) -> AsyncIterator[Tick]:
    while True:
        yield Tick(1, "x" * 1000)


manager = SubscriptionManager(
    Schema(subscriptions=[tick, stuck, forever]),
    limits=Limits(queue_messages=100, ping_interval=0.5, pong_timeout=60),
)
subscriptions = SubscriptionApp(manager)
running: set[int] = set()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await look(scope["path"], send)
    elif scope["type"] == "websocket":
        running.add(id(scope))
        try:
            await subscriptions(scope, receive, send)
        finally:
            running.discard(id(scope))
    else:
        await subscriptions(scope, receive, send)


async def look(path: str, send: Any) -> None:
    """`/publish/CHANNEL/COUNT/SIZE` publishes first; both say what there is."""
    if path.startswith("/publish/"):
        _, _, channel, count, size = path.split("/")
        for n in range(int(count)):
            await manager.publish_event("tick", channel, {"n": n, "text": "x" * int(size)})
    metrics = manager.get_metrics()
    state = {name: metrics[name] for name in ("connections", "subscriptions")}
    state["running"] = len(running)
    state["functions"] = sum(
        any(name in str(task.get_coro()) for name in ("Runner", "_Parked")) for task in asyncio.all_tasks()
    )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(state).encode()})
