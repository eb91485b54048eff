"""The demo: an order desk, as an application with this package is usually written.

Its three subscriptions are the three ways in which an event becomes a result: as it is (`stockChanged`), by a function
that runs once for all who watch (`orderUpdated`), and by one that runs once per viewer (`messageReceived`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException
from fastapi.responses import HTMLResponse, PlainTextResponse
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from . import (
    ID,
    BusUnavailable,
    Event,
    EventBusConfig,
    Info,
    PublishUnknown,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    data,
    servers,
    subscription,
    viewer,
)
from .fastapi import SubscriptionRouterFactory

PRODUCTS = {"T-1": "Tea", "C-2": "Coffee", "B-3": "Bread"}


@dataclass
class Stock:
    """How much of a product is left."""

    product: ID
    left: int


@dataclass
class Order:
    """An order as the desk sees it."""

    id: ID
    status: str
    product_name: str


@dataclass
class Message:
    """A message as its reader sees it."""

    text: str
    seen_by: str


@subscription(
    channel="stock",
    where=argument("product").is_null() | (data["product"] == argument("product")),
    passthrough=True,
)
async def stock_changed(product: ID | None = None) -> Stock:
    """The event's own data: no Python runs."""
    raise NotImplementedError


@subscription(channel="orders")
async def order_updated(event: Event) -> Order:
    """Runs once per event, whatever the number of subscribers: here it may look things up."""
    return Order(event.data["id"], event.data["status"], PRODUCTS.get(event.data["product"], "?"))


@subscription(channel="messages", rows=data["to"].is_null() | (data["to"] == viewer("user_id")))
async def message_received(event: Event, info: Info) -> Message:
    """Takes `info`, so it runs once per viewer; `rows` has already kept others' messages away."""
    return Message(event.data["text"], seen_by=str(info.viewer.user_id))


manager = SubscriptionManager(
    Schema(subscriptions=[stock_changed, order_updated, message_received]), EventBusConfig.memory()
)


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    """Believes everybody's word; a real one looks at a token, and refuses by `None`."""
    return SecurityContext(user_id=str(payload.get("user", "guest")))


async def business(manager: SubscriptionManager) -> None:
    """Events that come by themselves."""
    for number in itertools.count(1):
        product = random.choice([*PRODUCTS])
        order = {"id": number, "status": random.choice(["placed", "paid", "sent"]), "product": product}
        with contextlib.suppress(BusUnavailable, PublishUnknown):  # a bus that is away comes back
            await manager.publish_event("orderUpdated", "orders", order)
            await manager.publish_event("stockChanged", "stock", {"product": product, "left": random.randrange(100)})
            if number % 2 == 0:
                text = f"{number} orders so far"
                await manager.publish_event("messageReceived", "messages", {"text": text, "to": None})
        await asyncio.sleep(0.5)


def order_desk(manager: SubscriptionManager) -> FastAPI:
    """The application around a manager."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Keeps business going; entering the manager is counted, so the router may enter it too."""
        async with manager:
            task = asyncio.create_task(business(manager))
            yield
            task.cancel()
            await asyncio.wait([task])

    app = FastAPI(title="Order desk", lifespan=lifespan)
    app.include_router(SubscriptionRouterFactory.create(manager, auth_handler=authenticate))

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        """Subscribes by the protocol itself, and shows what comes."""
        return files(__package__).joinpath("demo.html").read_text("utf-8")

    @app.post("/publish")
    async def publish(channel: str = Body(), data: dict[str, Any] = Body()) -> dict[str, str]:  # noqa: B008 (FastAPI's way)
        """Publishes on a channel: `stock`, `orders` or `messages`."""
        event_types = {"stock": "stockChanged", "orders": "orderUpdated", "messages": "messageReceived"}
        try:
            return {"id": await manager.publish_event(event_types.get(channel, "custom"), channel, data)}
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        except (BusUnavailable, PublishUnknown) as error:
            raise HTTPException(503, str(error)) from None

    @app.get("/figures")
    async def figures() -> dict[str, Any]:
        """What the page shows below its events."""
        return manager.get_metrics()

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        """The same for Prometheus."""
        return manager.prometheus()

    return app


@contextlib.contextmanager
def _bus(kind: str, url: str | None) -> Iterator[EventBusConfig]:
    """The bus of this kind: at the URL, or at a server of its own while this is open."""
    if kind == "memory":
        if url:
            raise ValueError("the memory bus has no URL")
        yield EventBusConfig.memory()
        return
    with contextlib.ExitStack() as stack:
        if not url:
            # Redis' wheel is not there for every Python.
            redis = servers.Redis if find_spec(servers.Redis.package) or sys.version_info < (3, 13) else servers.Valkey
            url = stack.enter_context(servers.PostgreSQL() if kind == "postgresql" else redis()).url
        yield EventBusConfig.redis(url) if kind == "redis" else EventBusConfig.postgresql(url, install=True)


def run(host: str, port: int, *, check: bool, bus: str = "memory", url: str | None = None) -> int:
    """Serves until interrupted; with `check`, until a client has received a few events of each kind.

    Returns:
        The exit status: 1 where the client did not receive them, or where there is no such bus.
    """
    try:
        with _bus(bus, url) as config:
            schema = Schema(subscriptions=[stock_changed, order_updated, message_received])
            return _run(host, port, SubscriptionManager(schema, config), check=check)
    except (BusUnavailable, ModuleNotFoundError, ValueError) as error:
        print(f"The demo cannot start: {error}", file=sys.stderr)
        return 1


def _run(host: str, port: int, manager: SubscriptionManager, *, check: bool) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    address = f"[{host}]" if ":" in host else host
    try:
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        reason = str(error.strerror).partition(" (while")[0]
        advice = "choose another --port, or leave it out for a free one" if port else "choose another --host"
        raise ValueError(f"it cannot listen on {address}:{port} ({reason}): {advice}") from None
    with listener:
        url = f"{address}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            order_desk(manager), ws="websockets-sansio", ws_per_message_deflate=False, log_level="warning",
            timeout_graceful_shutdown=5,
        )  # fmt: skip
        server = uvicorn.Server(config)

        async def serve() -> int:
            async with manager:  # its bus is there, or says why not, before anybody is served
                print(f"The order desk is at http://{url}/\nPublish with\n")
                message = json.dumps({"channel": "messages", "data": {"text": "Hello from curl", "to": None}})
                print(f"    curl http://{url}/publish -H 'content-type: application/json' -d '{message}'\n", flush=True)
                if check:
                    return await _check(server, listener, f"ws://{url}/graphql/subscriptions")
                await server.serve(sockets=[listener])
            return 0

        with contextlib.suppress(KeyboardInterrupt):
            return asyncio.run(serve())
    return 0


async def _check(server: uvicorn.Server, listener: socket.socket, url: str) -> int:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    watching = asyncio.create_task(asyncio.wait_for(_watch(url, events=3), timeout=30))
    await asyncio.wait([serving, watching], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    watching.cancel()
    try:
        await watching
    except (Exception, asyncio.CancelledError) as error:
        print(f"failed: {error!r}")
        return 1
    print("The demo works.")
    return 0


async def _watch(url: str, *, events: int) -> None:
    """Subscribes to everything, and prints until each subscription has had its `events`."""
    selections = {
        "stockChanged": "product left",
        "orderUpdated": "id status productName",
        "messageReceived": "text seenBy",
    }
    async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as connection:
        await _send(connection, type="connection_init", payload={"user": "ada"})
        await connection.recv()  # connection_ack
        for field, selection in selections.items():
            query = f"subscription {{ {field} {{ {selection} }} }}"
            await _send(connection, id=field, type="subscribe", payload={"query": query})
        missing = dict.fromkeys(selections, events)
        async for text in connection:
            message = json.loads(text)
            if message["type"] != "next" or "errors" in message["payload"]:
                raise RuntimeError(f"expected an event, got {text!r}")
            print(json.dumps(message["payload"]["data"]), flush=True)
            missing[message["id"]] -= 1
            if max(missing.values()) <= 0:
                return
        raise RuntimeError("the server closed the connection")


async def _send(connection: ClientConnection, **message: Any) -> None:
    await connection.send(json.dumps(message))
