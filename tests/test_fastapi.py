"""Our router among FastAPI's: its dependencies, and the routes before and behind it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from websockets.exceptions import InvalidStatus

from fraiseql_subs import RouteTaken, SubscriptionManager
from fraiseql_subs.asgi import SubscriptionApp
from fraiseql_subs.fastapi import SubscriptionRouter, SubscriptionRouterFactory

from .sockets import next_frame, publish_tick, serving, tick_of, tick_schema, until

PATH = "/graphql/subscriptions"
#: What uvicorn says of a socket that is denied by an HTTP answer, whoever gave it.
DENIED = "uvicorn.error: ASGI callable returned without completing handshake."
KEY = {"additional_headers": {"x-key": "secret"}}


def new_manager() -> SubscriptionManager:
    return SubscriptionManager(tick_schema())


def guard(connection: HTTPConnection) -> None:
    """A guard for sockets and requests alike."""
    if connection.headers.get("x-key") != "secret":
        raise HTTPException(401, "no key")


GUARDED = [Depends(guard)]


def by_the_application(manager: SubscriptionManager) -> FastAPI:
    app = FastAPI(dependencies=GUARDED)
    app.include_router(SubscriptionRouterFactory.create(manager))
    return app


def by_include_router(manager: SubscriptionManager) -> FastAPI:
    app = FastAPI()
    app.include_router(SubscriptionRouterFactory.create(manager), dependencies=GUARDED)
    return app


def by_a_router_around_it(manager: SubscriptionManager) -> FastAPI:
    outer, app = APIRouter(dependencies=GUARDED), FastAPI()
    outer.include_router(SubscriptionRouter(manager))
    app.include_router(outer)
    return app


def by_the_router_itself(manager: SubscriptionManager) -> FastAPI:
    app = FastAPI()
    app.include_router(SubscriptionRouter(manager, dependencies=GUARDED))
    return app


# ---- dependencies ----


@pytest.mark.parametrize("build", [by_the_application, by_include_router, by_a_router_around_it, by_the_router_itself])
async def test_a_guard_runs_before_a_socket_is_accepted(build):
    manager = new_manager()
    async with serving(build(manager), lifespan="on") as server:
        with pytest.raises(InvalidStatus) as refused:
            await server.connect(PATH)
        assert refused.value.response.status_code == 401
        assert server.log.take() == [DENIED]
        async with server.acknowledged(PATH, **KEY) as client:
            await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}))


@pytest.mark.parametrize(
    ("error", "status"), [(WebSocketException(1008), 403), (HTTPException(418), 418), (LookupError("broken"), 500)]
)
async def test_whatever_a_guard_raises_refuses(error, status):
    async def refuse() -> None:
        raise error

    app = FastAPI()
    app.include_router(SubscriptionRouter(new_manager()), dependencies=[Depends(refuse)])
    async with serving(app, lifespan="on") as server:
        with pytest.raises(InvalidStatus) as refused:
            await server.connect(PATH)
        assert refused.value.response.status_code == status
        [text] = server.log.take() or [DENIED]
        assert ("LookupError: broken" in text, text == DENIED) == (status == 500, status != 500)


async def test_what_a_guard_yields_stays_open_as_long_as_the_socket():
    happened: list[str] = []

    async def session(websocket: WebSocket, room: str) -> AsyncIterator[None]:
        happened.append(f"open {room}")
        yield
        happened.append(f"closed {room}")

    manager = new_manager()
    app = FastAPI()
    app.include_router(SubscriptionRouter(manager, "/{room}/events"), dependencies=[Depends(session)])
    async with serving(app, lifespan="on") as server:
        async with server.acknowledged("/kitchen/events") as client:
            await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}))
            assert happened == ["open kitchen"]
        await until(lambda: len(happened) == 2)
        assert happened == ["open kitchen", "closed kitchen"]


async def test_a_guard_can_be_overridden_as_in_any_test_of_an_application():
    app = by_include_router(new_manager())
    app.dependency_overrides[guard] = lambda: None
    async with serving(app, lifespan="on") as server, server.acknowledged(PATH):
        pass


def test_both_ways_make_the_same_router():
    routers = [SubscriptionRouterFactory.create(new_manager(), "/x"), SubscriptionRouter(new_manager(), "/x")]
    assert {type(router) for router in routers} == {SubscriptionRouter}
    assert all(isinstance(router, APIRouter) for router in routers)


# ---- one path for others too ----


async def test_http_on_our_path_is_for_routes_that_come_later():
    manager = new_manager()
    app = FastAPI()
    app.include_router(SubscriptionRouter(manager, "/graphql"))

    @app.post("/graphql")
    async def query() -> str:
        return "queried"

    async with serving(app, lifespan="on") as server, httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(server.url("/graphql", "http"))
        assert (answer.status_code, answer.json()) == (200, "queried")
        assert (await http.get(server.url("/graphql", "http"))).status_code == 405
        async with server.acknowledged("/graphql") as client:
            await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}))


async def other(websocket: WebSocket) -> None:
    raise AssertionError("this is ours")


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("this is ours")


def routed(*paths: str) -> APIRouter:
    router = APIRouter()
    for path in paths:
        router.add_api_websocket_route(path, other, name="theirs")
    return router


#: What comes earlier and takes it, and the path of ours.
TAKEN: dict[str, tuple[Any, str]] = {
    "a socket of the same path": (
        lambda app: app.add_api_websocket_route("/graphql", other, name="theirs"),
        "/graphql",
    ),
    "one of an included router": (lambda app: app.include_router(routed("/graphql")), "/graphql"),
    "one with a parameter": (lambda app: app.include_router(routed("/{name}")), "/graphql"),
    "a parameter of ours": (lambda app: app.include_router(routed("/{name}/x")), "/{tenant}/x"),
    "parameters of every kind": (
        lambda app: app.include_router(routed("/{a}/{b:int}/{c:uuid}/{d:float}/{e:path}")),
        "/{a}/{b:int}/{c:uuid}/{d:float}/{e:path}",
    ),
    "a mount": (lambda app: app.mount("/graphql", nothing, name="theirs"), "/graphql/subscriptions"),
    "a mount of everything": (lambda app: app.mount("/", nothing, name="theirs"), "/graphql"),
    "one of Starlette": (
        lambda app: app.router.routes.append(WebSocketRoute("/graphql", nothing, name="theirs")),
        "/graphql",
    ),
}


async def start(app: FastAPI) -> None:
    async with app.router.lifespan_context(app):
        pass


@pytest.mark.parametrize("earlier", TAKEN)
async def test_a_start_fails_where_an_earlier_route_would_take_what_is_ours(earlier):
    add, path = TAKEN[earlier]
    app = FastAPI()
    add(app)
    app.include_router(SubscriptionRouter(new_manager(), path))
    with pytest.raises(RouteTaken) as raised:
        await start(app)
    text = str(raised.value)
    assert "theirs" in text
    assert repr(path) in text
    assert "before it" in text
    assert "otherwise=" in text


@pytest.mark.parametrize("earlier", [name for name in TAKEN if name != "a mount of everything"])
async def test_the_other_way_round_it_starts(earlier):
    add, path = TAKEN[earlier]
    manager = new_manager()
    app = FastAPI()
    app.include_router(SubscriptionRouter(manager, path))
    add(app)
    await start(app)
    async with serving(app, lifespan="on") as server:
        values = {"{tenant}": "x", "{a}": "x", "{b:int}": "1", "{c:uuid}": str(uuid.UUID(int=7)), "{d:float}": "1.5"}
        for name, value in {**values, "{e:path}": "a/b"}.items():
            path = path.replace(name, value)
        async with server.acknowledged(path):
            pass


async def test_what_takes_nothing_of_ours_may_come_earlier():
    app = FastAPI()

    @app.get("/graphql")
    @app.post("/graphql")
    async def query() -> str:
        return "queried"

    app.include_router(routed("/elsewhere", "/graphql/{more}", "/{n:int}"))
    app.mount("/graphql/static", nothing)
    app.include_router(SubscriptionRouter(new_manager(), "/graphql"))
    # Twice, under a prefix, is no trouble either.
    router = SubscriptionRouter(new_manager(), "/graphql")
    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2")
    async with serving(app, lifespan="on") as server:
        for path in ("/graphql", "/v1/graphql", "/v2/graphql"):
            async with server.acknowledged(path):
                pass


async def test_a_prefix_counts():
    app = FastAPI()
    app.include_router(routed("/events"), prefix="/api")
    app.include_router(SubscriptionRouter(new_manager(), "/events"), prefix="/api")
    with pytest.raises(RouteTaken, match=r"theirs.*'/api/events'"):
        await start(app)


async def test_two_managers_on_one_path_are_one_too_many():
    app = FastAPI()
    for _ in range(2):
        app.include_router(SubscriptionRouter(new_manager(), "/graphql"))
    with pytest.raises(RouteTaken):
        await start(app)


# ---- otherwise ----


class Inner:
    """An application with a lifespan of its own, which notes what happens to it."""

    def __init__(self, manager: SubscriptionManager, *, lifespan: str = "whole") -> None:
        self.manager, self.lifespan = manager, lifespan
        self.happened: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            if self.lifespan == "none at once":
                raise ValueError("http only")
            message = await receive()
            if self.lifespan == "none later":
                raise ValueError(message)
            self.note("startup")
            if self.lifespan == "fails":
                await send({"type": "lifespan.startup.failed", "message": "no"})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.note("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
        else:
            assert scope["type"] == "http"
            await PlainTextResponse(f"inner {scope['method']} {scope['path']}")(scope, receive, send)

    def note(self, what: str) -> None:
        self.happened.append(f"{what} {self.manager.health()['state']}")


@pytest.mark.parametrize("lifespan", ["whole", "none at once", "none later"])
async def test_otherwise_is_given_what_is_not_ours(lifespan):
    manager = new_manager()
    inner = Inner(manager, lifespan=lifespan)
    async with serving(SubscriptionApp(manager, otherwise=inner), lifespan="on") as server:
        async with httpx2.AsyncClient(trust_env=False) as http:
            for method in ("GET", "POST", "OPTIONS"):
                answer = await http.request(method, server.url("/graphql", "http"))
                assert (answer.status_code, answer.text) == (200, f"inner {method} /graphql")
        async with server.acknowledged("/graphql") as client:
            await client.subscribe("1", tick_of("a"))
            await publish_tick(manager, "a", 1)
            await client.expect(next_frame("1", {"tick": {"n": 1}}))
        # Every upgrade is ours, whatever it offers.
        async with server.client("/elsewhere", subprotocols=["chat"]) as client:
            assert (await client.closed())[0] == 4406
    # It has started before the manager, and stops after it.
    assert inner.happened == (["startup stopped", "shutdown stopped"] if lifespan == "whole" else [])
    assert manager.health()["state"] == "stopped"


async def test_where_otherwise_cannot_start_the_manager_is_not_entered():
    manager, sent = new_manager(), list[Any]()
    await SubscriptionApp(manager, otherwise=Inner(manager, lifespan="fails"))(
        {"type": "lifespan"}, lambda: later({"type": "lifespan.startup"}), kept(sent)
    )
    assert sent == [{"type": "lifespan.startup.failed", "message": "no"}]
    assert manager.health()["state"] == "stopped"


async def later(value: Any) -> Any:
    return value


def kept(sent: list[Any]) -> Any:
    """A server's `send` that keeps what it is given."""

    async def send(message: Any) -> None:
        sent.append(message)

    return send


class Unreachable(SubscriptionManager):
    async def __aenter__(self) -> Any:
        raise OSError("no bus")


async def test_where_the_manager_cannot_be_entered_otherwise_is_shut_down_again(caplog):
    manager = Unreachable(tick_schema())
    inner, sent = Inner(manager), list[Any]()
    await SubscriptionApp(manager, otherwise=inner)(
        {"type": "lifespan"}, lambda: later({"type": "lifespan.startup"}), kept(sent)
    )
    assert sent == [{"type": "lifespan.startup.failed", "message": "no bus"}]
    assert inner.happened == ["startup stopped", "shutdown stopped"]
    assert "no bus" in caplog.text


async def test_a_server_that_cancels_the_lifespan_leaves_the_manager():
    manager = new_manager()
    app = SubscriptionApp(manager, otherwise=Inner(manager))
    started, messages = asyncio.Event(), [{"type": "lifespan.startup"}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        started.set()

    task = asyncio.create_task(app({"type": "lifespan"}, receive, send))
    await started.wait()
    assert manager.health()["state"] == "running"
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert manager.health()["state"] == "stopped"


# ---- servers without lifespan ----


async def test_the_first_connection_enters_a_manager_that_nobody_has_entered():
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody's")
    seen: list[str] = []

    class Named(SubscriptionManager):
        async def _enter(self, *, unless_entered: bool = False) -> None:
            seen.append(name.get())
            await super()._enter(unless_entered=unless_entered)

    manager = Named(tick_schema())
    app = SubscriptionApp(manager, enter=True)

    async def named(scope: Any, receive: Any, send: Any) -> None:
        name.set("a connection's")
        await app(scope, receive, send)

    async with serving(named, lifespan="off") as server:
        assert manager.health()["state"] == "stopped"
        clients = await asyncio.gather(*(server.connect() for _ in range(5)))
        for client in clients:
            await client.init()
            await client.subscribe("1", tick_of("a"))
        await publish_tick(manager, "a", 1)
        for client in clients:
            await client.expect(next_frame("1", {"tick": {"n": 1}}))
            await client.close()
        assert manager.health()["state"] == "running"
    # Functions see the context that a manager was entered in: it is no connection's.
    assert set(seen) == {"nobody's"}
    await manager.__aexit__(None, None, None)
    assert manager.health()["state"] == "stopped"


async def test_one_that_is_entered_is_not_entered_again():
    manager = new_manager()
    async with serving(SubscriptionApp(manager, enter=True), lifespan="on") as server:
        for _ in range(3):
            async with server.acknowledged():
                pass
    assert manager.health()["state"] == "stopped"
