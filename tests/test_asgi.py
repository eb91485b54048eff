"""The ASGI application: the handshake, the ways to mount it, the servers under it, and what stands between them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from websockets.exceptions import InvalidStatus

from fraiseql_subs import Limits, SubscriptionManager
from fraiseql_subs.asgi import SubscriptionApp
from fraiseql_subs.fastapi import SubscriptionRouterFactory

from .conftest import SERVERS
from .sockets import (
    PATIENCE,
    Client,
    gauges,
    logged,
    next_frame,
    open_client,
    publish_tick,
    serving,
    tick_of,
    tick_schema,
    ticking,
    until,
)

if TYPE_CHECKING:
    from typing_extensions import Self

APPS = Path(__file__).parent / "apps"


# ---- the handshake ----


@pytest.mark.parametrize("offered", [None, ["graphql-ws"], ["graphql-transport-ws2", "GRAPHQL-TRANSPORT-WS"]])
async def test_a_client_that_does_not_offer_the_subprotocol_is_closed_4406(offered):
    async with ticking() as (_, server), server.client(subprotocols=offered) as client:
        assert client.ws.subprotocol is None
        assert await client.closed() == (4406, "Subprotocol not acceptable")


async def test_the_subprotocol_may_be_one_of_several():
    async with ticking() as (_, server):
        async with server.acknowledged(subprotocols=["graphql-ws", "graphql-transport-ws"]) as client:
            assert client.ws.subprotocol == "graphql-transport-ws"


ORIGIN = "https://app.example"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://app.example:8443", "http://app.example", "https://APP.example"]
)
async def test_another_origin_is_refused_before_the_upgrade(origin):
    async with ticking(allowed_origins=[ORIGIN]) as (_, server):
        with pytest.raises(InvalidStatus) as refused:
            await server.connect(origin=origin)
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("origin", [ORIGIN, None])
async def test_an_allowed_origin_and_none_are_accepted(origin):
    async with ticking(allowed_origins=[ORIGIN]) as (_, server), server.acknowledged(origin=origin):
        pass


async def test_null_is_an_origin_that_may_be_allowed_and_none_may_be():
    async with ticking(allowed_origins=["null"]) as (_, server), server.acknowledged(origin="null"):
        pass
    async with ticking(allowed_origins=[]) as (_, server):
        async with server.acknowledged():
            pass
        with pytest.raises(InvalidStatus):
            await server.connect(origin="null")


async def test_any_origin_is_accepted_where_none_are_named():
    async with ticking() as (_, server), server.acknowledged(origin="null"):
        pass


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?x",
        "app.example",
        "app.example:443",
        "//app.example",
        "https://",
        "https://APP.example",
        "HTTPS://app.example",
        "https://app.example:443",
        "http://app.example:80",
        "https://*.app.example",
        "https://user@app.example",
        "https://äpp.example",
        "wss://app.example",
        "https://app.example ",
        "https://app.example\n",
        "",
        "NULL",
        "**",
    ],
)
def test_what_no_browser_sends_is_refused_when_the_application_is_built(origin):
    manager = SubscriptionManager(tick_schema())
    for make in (SubscriptionApp, SubscriptionRouterFactory.create):
        with pytest.raises(ValueError, match=r"'https://app\.example'") as raised:
            make(manager, allowed_origins=["https://ours.example", origin])
        assert repr(origin) in str(raised.value)
    for wrong in ("https://app.example", [b"https://app.example"], [None]):
        with pytest.raises(TypeError, match="allowed_origins"):
            SubscriptionApp(manager, allowed_origins=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "https://app.example:8443",
        "https://xn--pp-via.example",
        "http://127.0.0.1:5173",
        "http://[::1]:5173",
        "https://my_host.example",
        "chrome-extension://abcdefghijklmnop",
        "capacitor://localhost",
        "null",
        "file://",
    ],
)
async def test_what_browsers_send_may_be_allowed(origin):
    async with ticking(allowed_origins=[origin]) as (_, server), server.acknowledged(origin=origin):
        with pytest.raises(InvalidStatus):
            await server.connect(origin="https://other.example")


@pytest.mark.parametrize("allowed", [["*"], ["*", "https://app.example"], {"https://app.example", "*"}])
async def test_an_asterisk_is_any_origin(allowed):
    async with ticking(allowed_origins=allowed) as (_, server):
        for origin in ("https://other.example", "null", None):
            async with server.acknowledged(origin=origin):
                pass


async def test_a_wrong_origin_counts_before_the_subprotocol():
    async with ticking(allowed_origins=[ORIGIN]) as (_, server):
        with pytest.raises(InvalidStatus):
            await server.connect(origin="https://evil.example", subprotocols=None)


# ---- ways to mount it ----


async def through(client: Client, manager: SubscriptionManager) -> None:
    """An event goes from the manager to an acknowledged client."""
    await client.subscribe("1", tick_of("a"))
    await publish_tick(manager, "a", 1)
    await client.expect(next_frame("1", {"tick": {"n": 1}}))


async def test_it_is_a_whole_application_with_its_own_lifespan():
    manager = SubscriptionManager(tick_schema())
    async with serving(SubscriptionApp(manager), lifespan="on") as server:
        assert manager.health()["state"] == "running"
        async with server.acknowledged("/any/path") as client:
            await through(client, manager)
    assert manager.health()["state"] == "stopped"


async def test_the_router_brings_its_lifespan_along():
    manager = SubscriptionManager(tick_schema())
    app = FastAPI()
    app.include_router(SubscriptionRouterFactory.create(manager))
    async with serving(app, lifespan="on") as server, server.acknowledged("/graphql/subscriptions") as client:
        await through(client, manager)
    assert manager.health()["state"] == "stopped"


async def test_a_router_in_a_router_under_a_prefix_does_as_well():
    manager = SubscriptionManager(tick_schema())
    inner, app = APIRouter(), FastAPI()
    inner.include_router(SubscriptionRouterFactory.create(manager, "/events"))
    app.include_router(inner, prefix="/api")

    @app.get("/hello")
    async def hello() -> str:
        return "world"

    async with serving(app, lifespan="on") as server:
        async with server.acknowledged("/api/events") as client:
            await through(client, manager)
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.get(server.url("/hello", "http"))).json() == "world"


async def test_an_application_with_a_lifespan_of_its_own_enters_the_manager_twice():
    manager = SubscriptionManager(tick_schema())
    states = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI):
        async with manager:
            yield
            states.append(manager.health()["state"])

    app = FastAPI(lifespan=lifespan)
    app.include_router(SubscriptionRouterFactory.create(manager))
    async with serving(app, lifespan="on") as server, server.acknowledged("/graphql/subscriptions") as client:
        await through(client, manager)
    assert (states, manager.health()["state"]) == (["running"], "stopped")


async def test_starlette_serves_it_beside_its_own_routes():
    manager = SubscriptionManager(tick_schema())

    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse("world")

    routes = [Route("/hello", hello), WebSocketRoute("/graphql", SubscriptionApp(manager))]
    async with serving(Starlette(routes=routes, lifespan=manager.lifespan), lifespan="on") as server:
        async with server.acknowledged("/graphql") as client:
            await through(client, manager)
        async with httpx2.AsyncClient(trust_env=False) as http:
            assert (await http.get(server.url("/hello", "http"))).text == "world"
        with pytest.raises(InvalidStatus):
            await server.connect("/elsewhere")


async def test_two_applications_share_a_manager_and_its_connections():
    manager = SubscriptionManager(tick_schema(), limits=Limits(max_connections=1))
    async with (
        serving(SubscriptionApp(manager)) as one,
        serving(SubscriptionApp(manager, introspection=False)) as other,
    ):
        async with one.acknowledged() as client, other.client() as late:
            await through(client, manager)
            await late.send({"type": "connection_init"})
            assert await late.closed() == (1013, "Too many connections")
        async with other.acknowledged() as client:
            await through(client, manager)
            await client.ask("2", "{ __schema { description } }")
            assert (await client.message())["type"] == "error"
        async with one.acknowledged() as client:
            await client.ask("2", "{ __schema { description } }")
            assert (await client.message())["type"] == "next"


async def test_without_an_entered_manager_the_server_is_told_so():
    manager = SubscriptionManager(tick_schema())
    app = Starlette(routes=[WebSocketRoute("/", SubscriptionApp(manager))])
    async with serving(app) as server:
        with pytest.raises(InvalidStatus) as refused:
            await server.connect()
        assert refused.value.response.status_code == 500
        (text,) = server.log.take()
    assert "NotRunning" in text
    assert "enter" in text


class Broken(SubscriptionManager):
    """A manager that cannot be entered, or not be left."""

    broken = "enter"

    async def __aenter__(self) -> Self:
        if self.broken == "enter":
            raise OSError("no bus")
        return self

    async def __aexit__(self, *error: object) -> None:
        raise OSError("no bus")


@pytest.mark.parametrize(
    ("broken", "last"), [("enter", "lifespan.startup.failed"), ("leave", "lifespan.shutdown.failed")]
)
async def test_a_manager_that_cannot_be_entered_or_left_fails_the_lifespan(broken, last):
    manager = Broken(tick_schema())
    manager.broken = broken
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.shutdown" if sent else "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with logged() as log:
        await SubscriptionApp(manager)({"type": "lifespan"}, receive, send)
        assert "no bus" in log.take()[0]
    assert sent[-1] == {"type": last, "message": "no bus"}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_plain_request_is_told_what_is_served_here(method):
    async with ticking() as (_, server), httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.request(method, server.url("/", "http"))
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert "graphql-transport-ws" in answer.text


async def test_a_plain_request_at_the_routers_path_is_no_affair_of_the_router():
    app = FastAPI()
    app.include_router(SubscriptionRouterFactory.create(SubscriptionManager(tick_schema())))
    async with serving(app) as server, httpx2.AsyncClient(trust_env=False) as http:
        for path in ("/graphql/subscriptions", "/elsewhere"):
            assert (await http.get(server.url(path, "http"))).status_code == 404
        async with server.acknowledged("/graphql/subscriptions"):
            pass


# ---- between server and application ----


class Turned:
    """A middleware whose `send` waits a turn of the loop, in a lock."""

    def __init__(self, app: Any, step: Any) -> None:
        self.app, self.step = app, step

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        lock = asyncio.Lock()

        async def slowly(message: Any) -> None:
            async with lock:
                await self.step()
                await send(message)

        await self.app(scope, receive, slowly)


async def turn() -> None:
    await asyncio.sleep(0)


async def no_turn() -> None:
    pass


async def timed() -> None:
    await asyncio.wait_for(asyncio.sleep(0), 5)


async def in_a_task() -> None:
    assert asyncio.current_task() is not None
    await asyncio.sleep(0)


@pytest.mark.parametrize("step", [turn, no_turn, timed, in_a_task])
async def test_a_middleware_may_wait_before_it_sends(step):
    manager = SubscriptionManager(tick_schema())
    async with serving(Turned(SubscriptionApp(manager), step)) as server, server.client() as client:
        await client.init()
        await client.subscribe("1", tick_of("a"))
        for n in range(50):
            await publish_tick(manager, "a", n)
        for n in range(50):
            await client.expect(next_frame("1", {"tick": {"n": n}}))
        await client.send({"type": "connection_init"})
        assert await client.closed() == (4429, "Too many initialisation requests")


async def test_a_middleware_whose_send_raises_ends_the_connection_and_is_named():
    manager = SubscriptionManager(tick_schema())
    sent = 0

    async def fail_later() -> None:
        nonlocal sent
        sent += 1
        if sent == 5:  # startup.complete, accept, ack, pong
            raise ValueError("broken middleware")

    async with serving(Turned(SubscriptionApp(manager), fail_later)) as server, server.client() as client:
        await client.init()
        await client.subscribe("1", tick_of("a"))
        await publish_tick(manager, "a", 1)
        assert await client.closed() == (4500, "Internal server error")
        (text,) = server.log.take()
        assert "ValueError('broken middleware')" in text
    assert gauges(manager) == {"connections": 0, "subscriptions": 0}


# ---- the end ----


async def test_a_server_that_closes_its_sockets_first_ends_them_with_its_own_1012():
    manager = SubscriptionManager(tick_schema())
    async with serving(SubscriptionApp(manager), lifespan="on") as server:
        clients = [await (await server.connect()).init() for _ in range(5)]
        for client in clients:
            await client.subscribe("1", tick_of("a"))
        stopping = asyncio.create_task(server.shutdown())
        for client in clients:
            assert (await client.closed())[0] == 1012
        await stopping
    assert manager.health()["state"] == "stopped"


async def test_where_the_lifespan_ends_first_queues_are_drained_and_completed_then_closed_1012():
    manager = SubscriptionManager(tick_schema())
    app = Starlette(routes=[WebSocketRoute("/", SubscriptionApp(manager))])
    async with serving(app) as server:
        async with manager:
            client = await server.connect()
            await client.init()
            await client.subscribe("1", tick_of("a"))
            await client.subscribe("2", tick_of("b"))
            for n in range(100):
                await publish_tick(manager, "a", n)
        # The manager has been left: what was published before is there all the same.
        frames = [await client.receive() for _ in range(102)]
        assert [frame for frame in frames if '"id":"1"' in frame] == [
            *(next_frame("1", {"tick": {"n": n}}) for n in range(100)),
            '{"id":"1","type":"complete"}',
        ]
        assert [frame for frame in frames if '"id":"2"' in frame] == ['{"id":"2","type":"complete"}']
        assert await client.closed() == (1012, "Service restart")
    assert manager.get_metrics()["events_dropped"]["drain"] == 0


async def test_a_socket_that_comes_while_the_manager_drains_is_closed_1012():
    release = asyncio.Event()
    manager = SubscriptionManager(tick_schema())
    app = Starlette(routes=[WebSocketRoute("/", SubscriptionApp(manager))])
    async with serving(app) as server:
        await manager.__aenter__()
        # A reader that has not taken what it was sent keeps the manager draining.
        stream = manager.subscribe(tick_of("a"))
        await stream.__aenter__()
        await publish_tick(manager, "a", 1)
        leaving = asyncio.create_task(manager.__aexit__(None, None, None))
        await until(lambda: manager.health()["state"] == "draining")
        late = await server.connect()
        assert await late.closed() == (1012, "Service restart")
        release.set()
        assert [message async for message in stream] != []
        await leaving


# ---- every server ----


class Served:
    """The application of `apps/served.py` on a server."""

    def __init__(self, address: object, stack: contextlib.AsyncExitStack) -> None:
        self._address, self._stack = str(address), stack
        self._http = httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False)
        stack.push_async_callback(self._http.aclose)

    async def connect(self, **options: Any) -> Client:
        client = await open_client(self._address, **options)
        self._stack.push_async_callback(client.close)
        return await client.init()

    async def publish(self, channel: str, count: int, size: int) -> None:
        assert (await self._http.get(f"/publish/{channel}/{count}/{size}")).status_code == 200

    async def becomes(self, **state: int) -> None:
        async def look() -> None:
            while not state.items() <= (await self._http.get("/")).json().items():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(look(), PATIENCE)

    async def nothing_is_left(self) -> None:
        await self.becomes(connections=0, subscriptions=0, running=0, functions=0)


@pytest.fixture
async def on(serve) -> AsyncIterator[Callable[[str], Awaitable[tuple[Served, Any]]]]:
    """Starts the application on a server."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str) -> tuple[Served, Any]:
            process = await serve(name, "served:app", APPS)
            return Served(process, stack), process

        yield start


@pytest.mark.parametrize("name", SERVERS)
async def test_every_server(on, name):
    served, process = await on(name)
    client = await served.connect()
    await client.subscribe("1", tick_of("a"))
    await served.publish("ticks:a", 50, 1)
    await client.expect(*(next_frame("1", {"tick": {"n": n}}) for n in range(50)))
    await client.expect({"type": "ping"})  # one that the timer wants
    await client.close()
    await served.nothing_is_left()

    # The server's close, which some cannot send while a receive is pending.
    client = await served.connect()
    await client.subscribe("1", tick_of("a"))
    await client.ask("1", tick_of("a"))
    assert await client.closed() == (4409, "Subscriber for 1 already exists")
    await served.nothing_is_left()

    # A reader that stops reading: what is sent waits, the close too.
    client = await served.connect(narrow=True)
    await client.subscribe("1", "subscription { tick(of: 1) { n text } }")
    client.stop_reading()
    await served.publish("ticks:1", 3000, 3000)
    await served.becomes(connections=0, subscriptions=0)
    client.read_on()
    while isinstance(came := await client.frame_or_close(), str):
        assert came.startswith('{"id":"1","type":"next"') or json.loads(came) == {"type": "ping"}
    assert came == (1013, "Slow consumer")
    await served.nothing_is_left()

    # The client's end without a close frame: idle, in a function, in a generator.
    clients = [await served.connect() for _ in range(3)]
    await clients[0].subscribe("1", tick_of("a"))
    await clients[1].subscribe("1", "subscription { stuck { n } }")
    await clients[2].ask("1", "subscription { forever { n text } }")
    await clients[2].receive()
    await served.publish("stuck", 1, 1)
    await served.becomes(functions=2)
    for client in clients:
        client.abort()
    await served.nothing_is_left()

    await process.stop()
    assert "Traceback" not in "".join(process.output), "".join(process.output)
