"""A server in this process and a client that speaks frames, for tests over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from fraiseql_subs import ID, Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

#: Options of a server that is soon held up by a reader that stops.
NARROW = {"narrow": True}
#: Longer than anything here takes; what runs into it has failed.
PATIENCE = 20.0
#: How a connection closes whose viewer may not, or no longer, be there.
FORBIDDEN = (4403, "Forbidden")


@dataclass
class Tick:
    n: int
    text: str | None = None


@subscription(channel="ticks:{of}", passthrough=True)
async def tick(of: ID) -> Tick:
    raise NotImplementedError


def tick_schema() -> Schema:
    return Schema(subscriptions=[tick])


def tick_of(channel: object) -> str:
    return f"subscription {{ tick(of: {json.dumps(str(channel))}) {{ n }} }}"


async def publish_tick(manager: SubscriptionManager, channel: object, n: int, **more: object) -> None:
    await manager.publish_event("tick", f"ticks:{channel}", {"n": n, **more})


def next_frame(operation: str, data: object, **more: object) -> str:
    """A `next` message as the server writes it."""
    return text_of({"id": operation, "type": "next", "payload": {"data": data, **more}})


def text_of(message: object) -> str:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class Client:
    """One socket of a client that says only what it is told to."""

    _numbers = itertools.count()

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws

    async def send(self, *messages: object) -> None:
        """Sends text as it is, bytes as a binary frame, anything else as JSON."""
        for message in messages:
            await self.ws.send(message if isinstance(message, (str, bytes)) else text_of(message))

    async def receive(self) -> str:
        """The next frame, which must be a text frame."""
        frame = await asyncio.wait_for(self.ws.recv(), PATIENCE)
        assert isinstance(frame, str), frame
        return frame

    async def message(self) -> Any:
        return json.loads(await self.receive())

    async def expect(self, *frames: object) -> None:
        """The next frames, exactly these."""
        for frame in frames:
            assert await self.receive() == (frame if isinstance(frame, str) else text_of(frame))

    async def init(self, payload: object = None) -> Client:
        """From accept to ack."""
        init: dict[str, object] = {"type": "connection_init"}
        await self.send(init if payload is None else {**init, "payload": payload})
        await self.expect({"type": "connection_ack"})
        return self

    async def subscribe(self, operation: str, query: str, **payload: object) -> None:
        """Asks for an operation, which must have become live without a message when this returns."""
        await self.ask(operation, query, **payload)
        await self.sync()

    async def ask(self, operation: str, query: str, **payload: object) -> None:
        await self.send({"id": operation, "type": "subscribe", "payload": {"query": query, **payload}})

    async def ask_refresh(self, payload: object) -> None:
        await self.send({"type": "ping", "payload": {"refresh": payload}})

    async def complete(self, operation: str) -> None:
        await self.send({"id": operation, "type": "complete"})

    async def sync(self) -> None:
        """Everything that was sent has been handled, and nothing but what was received has been answered."""
        payload = {"sync": next(self._numbers)}
        await self.send({"type": "ping", "payload": payload})
        await self.expect({"type": "pong", "payload": payload})

    async def frame_or_close(self) -> str | tuple[int, str]:
        """The next frame, or code and reason of the close."""
        try:
            return await self.receive()
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise AssertionError("the socket ended without a close frame") from closed
            return closed.rcvd.code, closed.rcvd.reason

    async def closed(self) -> tuple[int, str]:
        """Code and reason of the close, which must be the next that comes."""
        came = await self.frame_or_close()
        assert isinstance(came, tuple), f"expected a close, got {came!r}"
        return came

    async def close(self) -> None:
        await self.ws.close()

    def is_closed(self) -> bool:
        """Whether a close has come."""
        return self.ws.state is not State.OPEN

    def stop_reading(self) -> None:
        """What comes is left to the kernel, which holds little for a client that was made `narrow`."""
        self.ws.transport.pause_reading()

    def read_on(self) -> None:
        self.ws.transport.resume_reading()

    def abort(self) -> None:
        """Ends the socket as a crash would: no close frame."""
        self.ws.transport.abort()


async def open_client(address: str, path: str = "/", *, narrow: bool = False, **options: Any) -> Client:
    """A client that has been accepted; for a `narrow` one the kernel holds back little."""
    defaults: dict[str, Any] = {"subprotocols": ["graphql-transport-ws"], "compression": None, "max_size": None}
    defaults |= {"max_queue": None, "ping_interval": None, "close_timeout": 5, "proxy": None, "open_timeout": PATIENCE}
    if narrow:
        host, port = address.split(":")
        defaults["sock"] = sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    return Client(await connect(f"ws://{address}{path}", **{**defaults, **options}))


class Server:
    """uvicorn in this loop, on a port of its own; of a `narrow` one the kernel holds back little for its clients."""

    def __init__(self, app: Any, *, narrow: bool = False, **options: Any) -> None:
        self._socket = socket.socket()
        if narrow:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        defaults: dict[str, Any] = {"ws": "websockets-sansio", "log_config": None, "ws_per_message_deflate": False}
        self._config = uvicorn.Config(app, **{**defaults, "access_log": False, **options})
        self._server = uvicorn.Server(self._config)
        self._stopped = False
        self.log: Log

    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        await self._server.startup(sockets=[self._socket])

    async def shutdown(self) -> None:
        """What SIGTERM does: it closes every socket, then shuts the lifespan down."""
        self._stopped = True
        await self._server.shutdown(sockets=[self._socket])

    async def stop(self) -> None:
        """The lifespan's shutdown, when every connection that clients have closed is gone."""
        if not self._stopped:
            state = self._server.server_state
            await until(lambda: not state.connections and not state.tasks)
            for listening in self._server.servers:
                listening.close()
                await listening.wait_closed()
            await self._server.lifespan.shutdown()

    @property
    def tasks(self) -> int:
        """Connections whose ASGI application has not returned."""
        return len(self._server.server_state.tasks)

    def url(self, path: str = "/", scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def connect(self, path: str = "/", **options: Any) -> Client:
        """A client that has been accepted."""
        return await open_client(f"127.0.0.1:{self.port}", path, **options)

    @contextlib.asynccontextmanager
    async def client(self, path: str = "/", **options: Any) -> AsyncIterator[Client]:
        client = await self.connect(path, **options)
        try:
            yield client
        finally:
            await client.close()

    @contextlib.asynccontextmanager
    async def acknowledged(self, path: str = "/", payload: object = None, **options: Any) -> AsyncIterator[Client]:
        async with self.client(path, **options) as client:
            yield await client.init(payload)


class Direct:
    """An ASGI server without a socket: it hands on what a client says, and keeps what it is to send."""

    def __init__(self, app: Any, *messages: object) -> None:
        self.sent: list[Any] = []
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.hand({"type": "websocket.connect"})
        self.say(*messages)
        scope = {"type": "websocket", "subprotocols": ["graphql-transport-ws"], "headers": []}
        self.task = asyncio.create_task(app(scope, self._incoming.get, self.send))

    def say(self, *messages: object) -> None:
        for message in messages:
            self.hand({"type": "websocket.receive", "text": text_of(message)})

    def hand(self, message: dict[str, Any]) -> None:
        """A message of ASGI, as it is."""
        self._incoming.put_nowait(message)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


class Log(logging.Handler):
    """What was logged from warnings up, but for advice about events, which tests publish to nobody on purpose."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "This is logged once for" not in text:
            self._texts.append(f"{record.name}: {text}")

    def take(self) -> list[str]:
        """What was logged since it was taken last."""
        texts, self._texts = self._texts, []
        return texts


@contextlib.contextmanager
def logged() -> Iterator[Log]:
    """Collects what is logged; whatever the test has not taken at the end fails it."""
    log = Log()
    logging.getLogger().addHandler(log)
    try:
        yield log
        assert log.take() == []
    finally:
        logging.getLogger().removeHandler(log)


@contextlib.asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[Server]:
    """A server for an application, with its lifespan. It must leave no task behind, and nothing in the log."""
    before = asyncio.all_tasks()
    with logged() as log:
        server = Server(app, **options)
        server.log = log
        await server.start()
        try:
            yield server
        finally:
            await asyncio.wait_for(server.stop(), PATIENCE)
        left = asyncio.all_tasks() - before
        assert not left, left


@contextlib.asynccontextmanager
async def ticking(
    *, limits: Limits | None = None, server: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[SubscriptionManager, Server]]:
    """A manager with `tick(of:)`, as `served` serves it."""
    manager = SubscriptionManager(tick_schema(), limits=limits or Limits())
    async with served(manager, server=server, **options) as (manager, running):
        yield manager, running


@contextlib.asynccontextmanager
async def served(
    manager: SubscriptionManager, *, server: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[SubscriptionManager, Server]]:
    """A manager served by a `SubscriptionApp` with these options; at the end its gauges are back at zero."""
    async with serving(SubscriptionApp(manager, **options), **(server or {})) as running:
        yield manager, running
    assert gauges(manager) == {"connections": 0, "subscriptions": 0}


def gauges(manager: SubscriptionManager) -> dict[str, int]:
    metrics = manager.get_metrics()
    return {name: metrics[name] for name in ("connections", "subscriptions")}


async def until(holds: Callable[[], object]) -> None:
    """Returns when a condition holds that tells nobody of itself."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, "it never came to hold"
        await asyncio.sleep(0.005)
