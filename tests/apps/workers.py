"""The application of the tests of processes, on the bus that `BUS` names: made here, before a server forks."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from fraiseql_subs import EventBusConfig, Limits, Schema, SecurityContext, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp


@dataclass
class Tick:
    n: int


@subscription(passthrough=True)
async def tick() -> Tick:
    raise NotImplementedError


@subscription
async def worker() -> AsyncIterator[int]:
    """The process that a connection has come to."""
    yield os.getpid()


bus = json.loads(os.environ["BUS"])
manager = SubscriptionManager(
    Schema(subscriptions=[tick, worker]),
    getattr(EventBusConfig, bus.pop("kind"))(**bus),
    limits=Limits(max_connections_per_user=1_000),
)


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(user_id=payload.get("user"))


async def publish(request: Request) -> JSONResponse:
    for n in json.loads(await request.body()):
        await manager.publish_event("tick", "tick", {"n": n})
    return JSONResponse(os.getpid())


async def revoke(request: Request) -> JSONResponse:
    ended = await manager.revoke(user_id=request.query_params["user"])
    return JSONResponse({"worker": os.getpid(), "ended": ended})


async def metrics(request: Request) -> JSONResponse:
    return JSONResponse(manager.get_metrics())


app = Starlette(
    routes=[
        Route("/publish", publish, methods=["POST"]),
        Route("/revoke", revoke, methods=["POST"]),
        Route("/metrics", metrics),
        WebSocketRoute("/graphql/subscriptions", SubscriptionApp(manager, auth_handler=authenticate)),
    ],
    lifespan=manager.lifespan,
)
