"""The application that is put under load from outside, and what it answers to.

    FUNCTION=passthrough uvicorn benchmarks.app:app --ws websockets-sansio --loop uvloop --http httptools \
        --ws-per-message-deflate false --no-access-log --log-level warning

* `/graphql`: `userUpdated(id: ID): UserEvent!`, as FUNCTION says: `passthrough`, one `async` function for all, or
  `secured`: a passthrough with an auth handler, tenant, row filter, field permission, scope, sources and event rates.
  Its viewers are who `connection_init`'s payload says (`user`, by default `u`), until `expires_at` (Unix time), where
  that is given.
* `/publish?n=&size=[&rate=][&ids=]`: publishes n events, and answers when that is done. With `rate` so many a second,
  else the loop gets a turn after each one; with `ids` the k-th event is about id k % ids.
* `/revoke?user=&n=`: revokes n users, `user`0 and on; answers how many connections ended, and the CPU time of each.
* `/count`: the number of live subscriptions.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute

from fraiseql_subs import (
    ID,
    Event,
    EventBusConfig,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    requires,
    subscription,
    viewer,
)
from fraiseql_subs.asgi import SubscriptionApp

FUNCTION = os.environ.get("FUNCTION", "passthrough")
TENANT = ID("t")
WHERE = argument("id").is_null() | (data["id"] == argument("id"))


@dataclass
class UserEvent:
    id: ID
    ts: str
    payload: str


@dataclass
class GuardedEvent:
    id: ID
    ts: str
    payload: Annotated[str, requires("payloads:read")]


async def user_updated(event: Event, id: ID | None = None) -> UserEvent:
    return UserEvent(event.data["id"], event.data["ts"], event.data["payload"])


async def secured(id: ID | None = None, tenant: ID = TENANT) -> GuardedEvent:
    raise NotImplementedError


field: Callable[..., Any]
if FUNCTION == "secured":
    field = subscription(
        name="userUpdated",
        channel="users",
        where=WHERE,
        rows=viewer("claims", "groups").contains(data["group"]),
        scope={"tenant": viewer("tenant_id")},
        requires=requires("users:watch"),
        sources=["users"],
        passthrough=True,
    )(secured)
else:
    field = subscription(channel="users", where=WHERE, passthrough=FUNCTION == "passthrough")(user_updated)


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    ends = payload.get("expires_at")
    return SecurityContext(
        user_id=payload.get("user", "u"),
        tenant_id=TENANT,
        permissions=["users:watch", "payloads:read"],
        claims={"groups": ["staff", "guests"]},
        expires_at=None if ends is None else datetime.fromtimestamp(ends, timezone.utc),
    )


manager = SubscriptionManager(
    Schema(subscriptions=[field]),
    EventBusConfig.memory(),
    limits=Limits(
        max_connections=1_000_000,
        max_connections_per_user=1_000_000,
        max_pending_connections=100_000,
        max_subscriptions_per_connection=1_000_000,
        max_subscriptions_per_user=1_000_000,
        subscribes_per_second=1_000_000,
        burst=1_000_000,
        events_per_second_per_subscription=100_000 if FUNCTION == "secured" else None,
        events_per_second_per_user=1_000_000_000 if FUNCTION == "secured" else None,
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
    tenant, source = (TENANT, "users") if FUNCTION == "secured" else (None, None)
    start = time.perf_counter()
    for k in range(n):
        if rate:
            await asyncio.sleep(max(0.0, start + k / rate - time.perf_counter()))
        event = {"id": str(k % ids if ids else 1), "ts": str(time.time_ns()), "payload": payload}
        if FUNCTION == "secured":
            event["group"] = "staff"
        await manager.publish_event("userUpdated", "users", event, tenant_id=tenant, source=source)
        if not rate:
            await asyncio.sleep(0)
    return JSONResponse({"published": n})


async def revoke(request: Request) -> JSONResponse:
    user, n = request.query_params["user"], int(request.query_params["n"])
    before, ended = time.process_time(), 0
    for k in range(n):
        ended += await manager.revoke(user_id=f"{user}{k}")
    return JSONResponse({"ended": ended, "microseconds_each": round((time.process_time() - before) / n * 1e6, 1)})


async def count(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(manager.get_metrics()["subscriptions"]))


graphql = SubscriptionApp(manager, auth_handler=authenticate if FUNCTION == "secured" else None)
app = Starlette(
    routes=[
        Route("/publish", publish),
        Route("/revoke", revoke),
        Route("/count", count),
        WebSocketRoute("/graphql", graphql),
    ],
    lifespan=manager.lifespan,
)
