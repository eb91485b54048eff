"""graphql-transport-ws for any ASGI server: frames in and out, and who watches. The protocol itself is in Rust."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
import types
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from .security import SecurityContext

if TYPE_CHECKING:
    from ._core import Socket
    from .manager import SubscriptionManager

logger = logging.getLogger("fraiseql_subs")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
AuthHandler: TypeAlias = Callable[..., Awaitable[SecurityContext | None] | SecurityContext | None]

SUBPROTOCOL = "graphql-transport-ws"


@dataclass(frozen=True)
class Connection:
    """What an auth handler that takes `connection` may look at.

    Attributes:
        id: The id that we gave it, as `complete_subscription` takes it.
        headers: The upgrade request's headers by lower-case name; of one that is repeated, the last.
        client: Host and port of the peer, where the server knows them.
        scope: The ASGI scope.
    """

    id: str
    headers: Mapping[str, str]
    client: tuple[str, int] | None
    scope: Scope


class SubscriptionApp:
    """An ASGI application that serves a manager's subscriptions over WebSocket.

    Mounted, it has no lifespan of its own: enter the manager yourself. As the whole application it does so.

    Args:
        manager: What is served.
        auth_handler: Called with `connection_init`'s payload (`{}` where missing) before the ack, sync (in a thread) or
            async; it may also take `connection` (a `Connection`). What it returns is who watches. Raising or returning
            `None` closes 4403. Called again where the client asks for a refresh (a `ping` with `refresh`, whose object
            it is given): an equal context moves the expiry, another one closes 4403, and after raising or returning
            `None` the old expiry stays. Without a handler, every viewer is anonymous.
        allowed_origins: Exact values of `Origin` that are accepted; any, where not given. Set it where `auth_handler`
            reads cookies. A request without `Origin` does not come from a browser and is accepted.
        introspection: Whether queries for `__schema` and `__type` are answered.
    """

    def __init__(
        self,
        manager: SubscriptionManager,
        *,
        auth_handler: AuthHandler | None = None,
        allowed_origins: Iterable[str] | None = None,
        introspection: bool = True,
    ) -> None:
        if auth_handler is not None and not callable(auth_handler):
            raise TypeError(f"auth_handler: expected a function, got {type(auth_handler).__name__}")
        if isinstance(allowed_origins, str):
            raise TypeError("allowed_origins: expected a collection of str, got a str")
        self._manager = manager
        self._auth_handler = auth_handler
        if auth_handler is None:
            manager._serve_without_viewers()
        self._takes_connection = auth_handler is not None and "connection" in inspect.signature(auth_handler).parameters
        self._allowed_origins = None if allowed_origins is None else frozenset(allowed_origins)
        self._introspection = introspection
        self._wrong_types: set[type] = set()  # each is reported once

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await _upgrade_required(send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        connection = Connection("", _headers(scope), scope.get("client"), scope)
        origin = connection.headers.get("origin")
        if origin is not None and self._allowed_origins is not None and origin not in self._allowed_origins:
            self._manager._core.refused("Origin is not allowed")
            await send({"type": "websocket.close", "code": 4403, "reason": "Forbidden"})  # before the accept: HTTP 403
            return
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            self._manager._core.refused("Subprotocol not acceptable")
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4406, "reason": "Subprotocol not acceptable"})
            return
        receiving = asyncio.current_task()
        assert receiving is not None

        def interrupt(error: BaseException | None) -> None:
            if error is not None and not isinstance(error, OSError):  # an OSError is a peer that has gone
                logger.warning("a connection ends, as send() failed: %r", error)
            receiving.cancel()

        authenticates = self._auth_handler is not None
        socket = self._manager._core.connect(send, _finish, interrupt, self._introspection, authenticates)
        authenticating: asyncio.Task[None] | None = None
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            while (message := await receive())["type"] != "websocket.disconnect":
                question = _receive(socket, message.get("text"))
                if question is not None:
                    if authenticating is not None:  # a refresh that was given up
                        authenticating.cancel()
                    authenticating = asyncio.create_task(self._authenticate(socket, question, connection))
                # One message a turn: a client that sends many at once keeps nobody waiting.
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            # Interrupted; or the server stops, as hypercorn does. It would close 1011, and clients would not come back.
            await _ended(socket.give_up())
            if socket.closing is None:
                await _close(send, 1012, "Service restart", 1)
                raise
            limits = self._manager.limits
            await _close(send, *socket.closing, limits.ping_interval + limits.pong_timeout)
            if not _is_over(receiving):
                raise
        finally:
            socket.lost()
            if authenticating is not None:
                authenticating.cancel()
            await _ended(socket.give_up(), authenticating)

    async def _authenticate(self, socket: Socket, question: tuple[int, dict[str, Any]], connection: Connection) -> None:
        number, payload = question
        try:
            context = await self._ask(payload, replace(connection, id=socket.id))
        except Exception as error:
            socket.refuse(number, f"auth_handler raised {type(error).__name__}")
        except asyncio.CancelledError:
            # Its own, of something that it waited for; or the connection has gone, which no answer can reach.
            socket.refuse(number, "auth_handler was cancelled")
            raise
        else:
            self._answer(socket, number, context)

    def _answer(self, socket: Socket, number: int, context: object) -> None:
        if context is None:
            socket.refuse(number, "auth_handler returned None")
        elif isinstance(context, SecurityContext):
            try:
                socket.accept(number, context, context._json())
            except ValueError:
                logger.exception("auth_handler: its SecurityContext cannot be used")
                socket.refuse(number, "auth_handler: its SecurityContext cannot be used")
        else:
            wrong = f"auth_handler: expected a SecurityContext or None, got {type(context).__name__}"
            if type(context) not in self._wrong_types:
                self._wrong_types.add(type(context))
                logger.error(wrong)
            socket.refuse(number, wrong)

    async def _ask(self, payload: dict[str, Any], connection: Connection) -> object:
        handler = self._auth_handler
        if handler is None:
            return SecurityContext()
        more = {"connection": connection} if self._takes_connection else {}
        called = handler if inspect.isroutine(handler) else type(handler).__call__
        on_loop = inspect.iscoroutinefunction(called)
        answer = handler(payload, **more) if on_loop else await asyncio.to_thread(handler, payload, **more)
        return await answer if inspect.isawaitable(answer) else answer

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()  # lifespan.startup
        phase = "startup"
        try:
            async with self._manager:
                await send({"type": "lifespan.startup.complete"})
                phase = "shutdown"
                await receive()  # lifespan.shutdown
        except Exception as error:
            logger.exception("the manager's %s failed", phase)
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _receive(socket: Socket, text: str | None) -> tuple[int, dict[str, Any]] | None:
    try:
        return socket.receive(text)
    except UnicodeEncodeError:
        socket.receive_invalid()
        return None


async def _close(send: Send, code: int, reason: str, patience: float) -> None:
    """Closes; a peer that has gone, or reads nothing, learns nothing, however long it is waited for."""
    with contextlib.suppress(Exception):
        await asyncio.wait_for(send({"type": "websocket.close", "code": code, "reason": reason}), patience)


async def _ended(*tasks: asyncio.Task[None] | None) -> None:
    """Waits for the end of tasks that were cancelled."""
    if waited := [task for task in tasks if task is not None and not task.done()]:
        await asyncio.wait(waited)


def _is_over(interrupted: asyncio.Task[Any]) -> bool:
    """Whether nobody but us has cancelled a task that we have interrupted; our cancellation is taken back."""
    return sys.version_info < (3, 11) or interrupted.uncancel() == 0


def _headers(scope: Scope) -> Mapping[str, str]:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
    return types.MappingProxyType(headers)


async def _upgrade_required(send: Send) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": b"Subscriptions are served over graphql-transport-ws.\n"})


def _finish(steps: Iterator[Any], first: Any, done: Callable[[BaseException | None], None]) -> asyncio.Task[None]:
    """Makes a task of a `send()` whose first step has been taken and gave `first` to wait for."""
    task = asyncio.get_running_loop().create_task(_go_on(steps, first))

    def ended(task: asyncio.Task[None]) -> None:
        # A cancelled send makes room for the close.
        done(None if task.cancelled() else task.exception())

    task.add_done_callback(ended)
    return task


async def _go_on(steps: Iterator[Any], first: Any) -> None:
    await _steps(steps, first)


@types.coroutine
def _steps(steps: Any, waited: Any) -> Generator[Any, Any, None]:
    """`yield from steps`, but for its first step, which has been taken."""
    while True:
        try:
            sent = yield waited
        except BaseException as error:
            if not hasattr(steps, "throw"):
                raise
            step, value = steps.throw, error
        else:
            step, value = getattr(steps, "send", lambda _: next(steps)), sent
        try:
            waited = step(value)
        except StopIteration:
            return
