"""The application that is put under load from outside, and what it answers to.

    FUNCTION=passthrough uvicorn benchmarks.app:app --ws websockets-sansio --loop uvloop --http httptools \
        --ws-per-message-deflate false --no-access-log --log-level warning

* `/graphql`: `userUpdated(id: ID): UserEvent!`, as FUNCTION says: `passthrough`, or one `async` function for all.
* `/publish?n=&size=[&rate=][&ids=]`: publishes n events, and answers when that is done. With `rate` so many a second,
  else the loop gets a turn after each one; with `ids` the k-th event is about id k % ids.
* `/count`: the number of live subscriptions.
"""

import asyncio
import os
import time
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from fraiseql_subs import ID, Event, EventBusConfig, Limits, Schema, SubscriptionManager, argument, data, subscription
from fraiseql_subs.asgi import SubscriptionApp


@dataclass
class UserEvent:
    id: ID
    ts: str
    payload: str


async def user_updated(event: Event, id: ID | None = None) -> UserEvent:
    return UserEvent(event.data["id"], event.data["ts"], event.data["payload"])


field = subscription(
    channel="users",
    where=argument("id").is_null() | (data["id"] == argument("id")),
    passthrough=os.environ.get("FUNCTION", "passthrough") == "passthrough",
)(user_updated)

manager = SubscriptionManager(
    Schema(subscriptions=[field]),
    EventBusConfig.memory(),
    limits=Limits(
        max_connections_per_user=None,
        max_subscriptions_per_connection=1_000_000,
        max_subscriptions_per_user=None,
        subscribes_per_second=1_000_000,
        burst=1_000_000,
        queue_messages=100_000,
        queue_bytes=64 << 20,
        connection_queue_bytes=64 << 20,
    ),
)


async def publish(request: Request) -> JSONResponse:
    query = request.query_params
    n, size, ids = int(query["n"]), int(query.get("size", 140)), int(query.get("ids", 0))
    rate = float(query.get("rate", 0))
    payload = "x" * size
    start = time.perf_counter()
    for k in range(n):
        if rate:
            await asyncio.sleep(max(0.0, start + k / rate - time.perf_counter()))
        event = {"id": str(k % ids if ids else 1), "ts": str(time.time_ns()), "payload": payload}
        await manager.publish_event("userUpdated", "users", event)
        if not rate:
            await asyncio.sleep(0)
    return JSONResponse({"published": n})


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(manager.get_metrics()["subscriptions"]))


app = Starlette(
    routes=[
        Route("/publish", publish),
        Route("/count", count),
        WebSocketRoute("/graphql", SubscriptionApp(manager)),
    ],
    lifespan=manager.lifespan,
)
