"""graphql-transport-ws for any ASGI server: frames in and out, and who watches. The protocol itself is in Rust."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import re
import sys
import types
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import Forbidden
from .rate import Rate
from .security import SecurityContext
from .sending import Sender, task_in

if TYPE_CHECKING:
    from ._core import Socket
    from .manager import SubscriptionManager

logger = logging.getLogger("fraiseql_subs")

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
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

    As the whole application it enters the manager with its lifespan. Mounted, it has no lifespan: enter the manager
    yourself, or give `enter=True`.

    Args:
        manager: What is served.
        auth_handler: Called with `connection_init`'s payload (`{}` where missing) before the ack, sync (in a thread) or
            async; it may also take `connection` (a `Connection`). What it returns is who watches. Returning `None` or
            raising `Forbidden` closes 4403; so does any other exception, which is also logged as an error with its
            traceback. Called again where the client asks for a refresh (a `ping` with `refresh`, whose object it is
            given): an equal context moves the expiry, another one closes 4403, and after raising or returning `None`
            the old expiry stays. Without a handler, every viewer is anonymous.
        allowed_origins: The origins of pages that may connect, as browsers send them (`https://app.example`); any,
            where not given or where `"*"` is among them. Set it where `auth_handler` reads cookies. A request without
            `Origin` does not come from a browser and is accepted.
        introspection: Whether queries for `__schema` and `__type` are answered.
        otherwise: An ASGI application that is given what is not served here: every HTTP request. Every WebSocket is
            served here. Its lifespan runs around the manager's.
        enter: Enters the manager with the first connection, where nobody has entered it: for servers without lifespan
            (Daphne, Channels). Nobody leaves it then.

    Raises:
        TypeError: `auth_handler` is no function, or `allowed_origins` no collection of `str`.
        ValueError: One of `allowed_origins` is no origin as browsers send it.
    """

    def __init__(
        self,
        manager: SubscriptionManager,
        *,
        auth_handler: AuthHandler | None = None,
        allowed_origins: Iterable[str] | None = None,
        introspection: bool = True,
        otherwise: ASGIApp | None = None,
        enter: bool = False,
    ) -> None:
        if auth_handler is not None and not callable(auth_handler):
            raise TypeError(f"auth_handler: expected a function, got {type(auth_handler).__name__}")
        self._manager = manager
        self._auth_handler = auth_handler
        if auth_handler is None:
            manager._serve_without_viewers()
        self._takes_connection = auth_handler is not None and "connection" in inspect.signature(auth_handler).parameters
        self._allowed_origins = _origins(allowed_origins)
        self._introspection = introspection
        self._otherwise = otherwise
        self._enter = enter
        self._context = contextvars.copy_context()  # no connection's
        self._errors = Rate(per_second=1, burst=100)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif self._otherwise is not None:
            await self._otherwise(scope, receive, send)
        else:
            await _upgrade_required(send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        if self._enter:
            await task_in(self._context, self._manager._enter(unless_entered=True))
        connection = Connection("", _headers(scope), scope.get("client"), scope)
        origin = connection.headers.get("origin")
        if origin is not None and self._allowed_origins is not None and origin not in self._allowed_origins:
            self._manager._core.refused("Origin is not allowed", contextvars.copy_context())
            await send({"type": "websocket.close", "code": 4403, "reason": "Forbidden"})  # before the accept: HTTP 403
            return
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            self._manager._core.refused("Subprotocol not acceptable", contextvars.copy_context())
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
        sender = Sender()
        socket = self._manager._core.connect(
            send, sender, sender.context, interrupt, self._introspection, authenticates
        )
        sending: asyncio.Task[None] | None = sender.start(socket)
        authenticating: asyncio.Task[None] | None = None
        try:
            await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
            while (message := await receive())["type"] != "websocket.disconnect":
                text = message.get("text")
                if (turn := socket.arrives(text)) is not None:
                    await turn  # nothing more is read meanwhile
                question = _receive(socket, text)
                if question is not None:
                    if authenticating is not None:  # a refresh that was given up
                        authenticating.cancel()
                    authenticating = asyncio.create_task(self._authenticate(socket, question, connection))
                # One message a turn: a client that sends many at once keeps nobody waiting.
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            # Interrupted; or the server stops, as hypercorn does. It would close 1011, and clients would not come back.
            socket.leave()
            await _ended(sending)
            if socket.closing is None:
                await _close(send, 1012, "Service restart", 1)
                raise
            limits = self._manager.limits
            await _close(send, *socket.closing, limits.ping_interval + limits.pong_timeout)
            if not _is_over(receiving):
                raise
        except GeneratorExit:  # its loop is never run again, and nothing can be waited for
            for task in (sending, authenticating):
                if task is not None:
                    task.cancel()
            sending = authenticating = None
            raise
        finally:
            socket.lost()
            await _ended(sending, authenticating)

    async def _authenticate(self, socket: Socket, question: tuple[int, dict[str, Any]], connection: Connection) -> None:
        number, payload = question
        try:
            context = await self._ask(payload, replace(connection, id=socket.id))
        except Exception as error:
            socket.refuse(number, f"auth_handler raised {type(error).__name__}")
            if not isinstance(error, Forbidden):
                self._report("auth_handler raised, which refuses; to refuse without an error, return None", error)
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
            except Exception as error:
                self._report("auth_handler: its SecurityContext cannot be used", error)
                socket.refuse(number, "auth_handler: its SecurityContext cannot be used")
        else:
            wrong = f"auth_handler: expected a SecurityContext or None, got {type(context).__name__}"
            self._report(wrong)
            socket.refuse(number, wrong)

    def _report(self, text: str, error: Exception | None = None) -> None:
        """Logs an error of a login, of which clients can cause any number."""
        if (left_out := self._errors.take()) is not None:
            more = f" ({left_out} more errors of auth_handler were left out)" if left_out else ""
            logger.error("%s%s", text, more, exc_info=error)

    async def _ask(self, payload: dict[str, Any], connection: Connection) -> object:
        handler = self._auth_handler
        if handler is None:
            return SecurityContext()
        more = {"connection": connection} if self._takes_connection else {}
        called = handler if inspect.isroutine(handler) else type(handler).__call__
        on_loop = inspect.iscoroutinefunction(called)
        answer = handler(payload, **more) if on_loop else await asyncio.to_thread(handler, payload, **more)
        return await answer if inspect.isawaitable(answer) else answer

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._enter = False  # there is a lifespan
        life = _Life(self._manager, receive, send)
        try:
            if self._otherwise is not None:
                try:
                    await self._otherwise(scope, life.receive, life.send)
                except Exception:
                    if life.has_answered:
                        raise
            if not life.has_answered:  # nobody else has a lifespan
                if not life.has_begun:
                    await life.receive()
                await life.send({"type": "lifespan.startup.complete"})
                await life.receive()
                await life.send({"type": "lifespan.shutdown.complete"})
        finally:
            await life.leave()


class _Life:
    """The manager's life within another application's: entered once that has started, left before it stops."""

    def __init__(self, manager: SubscriptionManager, receive: Receive, send: Send) -> None:
        self._manager, self._receive, self._send = manager, receive, send
        self._is_entered = False
        self._failure: Exception | None = None
        self.has_begun = self.has_answered = self._is_over = False

    async def receive(self) -> Message:
        if self._is_over:  # the server asks no more of what could not start
            return {"type": "lifespan.shutdown"}
        message = await self._receive()
        self.has_begun = True
        if message["type"] == "lifespan.shutdown":
            try:
                await self.leave()
            except Exception as error:
                self._failure = error
        return message

    async def send(self, message: Message) -> None:
        if self._is_over:
            return
        self.has_answered = True
        if message["type"] == "lifespan.startup.complete":
            try:
                await self._manager.__aenter__()
                self._is_entered = True
            except Exception as error:
                self._failure, self._is_over = error, True
        phase = message["type"].split(".")[1]
        if self._failure is not None:
            logger.error("the manager's %s failed", phase, exc_info=self._failure)
            message = {"type": f"lifespan.{phase}.failed", "message": str(self._failure)}
        await self._send(message)

    async def leave(self) -> None:
        """Leaves the manager, where it is entered."""
        if self._is_entered:
            self._is_entered = False
            await self._manager.__aexit__(None, None, None)


_ORIGIN = re.compile(r"(?!wss?:)[a-z][a-z0-9+.-]*://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")
_DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")


def _origins(allowed: Iterable[str] | None) -> frozenset[str] | None:
    """The origins that are allowed; `None`: any."""
    if isinstance(allowed, str):
        raise TypeError("allowed_origins: expected a collection of str, got a str")
    origins = None if allowed is None else frozenset(allowed)
    for origin in sorted(origins or (), key=str):
        if not isinstance(origin, str):
            raise TypeError(f"allowed_origins: expected a collection of str, got a {type(origin).__name__} in it")
        if origin in ("*", "null", "file://"):
            continue
        if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
            raise ValueError(
                f"allowed_origins: no browser sends {origin!r}. Expected the origin of a page, such as "
                "'https://app.example' or 'http://localhost:3000': scheme and host in lower case, the port unless it "
                "is the scheme's own, no path and no slash at the end; '*' for any"
            )
    return None if origins is None or "*" in origins else origins


def _receive(socket: Socket, text: str | None) -> tuple[int, dict[str, Any]] | None:
    try:
        return socket.receive(text)
    except UnicodeEncodeError:
        socket.receive_invalid()
        return None


async def _close(send: Send, code: int, reason: str, patience: float) -> None:
    """Closes; a peer that has gone, or reads nothing, learns nothing, however long it is waited for."""
    closing = asyncio.current_task()
    assert closing is not None
    is_late = False

    def give_up() -> None:
        nonlocal is_late
        is_late = True
        closing.cancel()

    timer = asyncio.get_running_loop().call_later(patience, give_up)
    try:
        with contextlib.suppress(Exception):
            await send({"type": "websocket.close", "code": code, "reason": reason})
    except asyncio.CancelledError:
        if not is_late:
            raise
        _is_over(closing)
    finally:
        timer.cancel()


async def _ended(*tasks: asyncio.Task[None] | None) -> None:
    """Cancels tasks and waits for their end."""
    if waited := [task for task in tasks if task is not None and not task.done()]:
        for task in waited:
            task.cancel()
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
