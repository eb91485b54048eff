"""The application of the client tests: subscriptions beside its own routes, under FastAPI and under Starlette."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute

from fraiseql_subs import EventBusConfig, Schema, SecurityContext, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp
from fraiseql_subs.fastapi import SubscriptionRouterFactory


@dataclass
class Tick:
    n: int
    text: str


@subscription(passthrough=True)
async def tick() -> Tick:
    raise NotImplementedError


@subscription
async def countdown(start: int) -> AsyncIterator[int]:
    for n in range(start, 0, -1):
        yield n


manager = SubscriptionManager(Schema(subscriptions=[tick, countdown]), EventBusConfig.memory())


async def authenticate(payload: dict[str, Any]) -> SecurityContext | None:
    return SecurityContext(user_id=1) if payload.get("token") == "secret" else None


async def hello(request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world"})


async def publish(request: Request) -> JSONResponse:
    first, count = int(request.query_params["first"]), int(request.query_params["count"])
    for n in range(first, first + count):
        await manager.publish_event("tick", "tick", {"n": n, "text": f"tick {n}"})
    return JSONResponse({"published": count})


async def metrics(request: Request) -> JSONResponse:
    return JSONResponse(manager.get_metrics())


routes = [
    Route("/hello", hello),
    Route("/publish", publish, methods=["POST"]),
    Route("/metrics", metrics),
]

fastapi_app = FastAPI(routes=[*routes])
fastapi_app.include_router(SubscriptionRouterFactory.create(manager, auth_handler=authenticate))

starlette_app = Starlette(
    routes=[
        *routes,
        WebSocketRoute("/graphql/subscriptions", SubscriptionApp(manager, auth_handler=authenticate)),
    ],
    lifespan=manager.lifespan,
)
