"""Subscriptions as a FastAPI router, which brings the manager's lifespan along."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import fastapi.routing
from fastapi import APIRouter
from fastapi.params import Depends
from starlette.convertors import FloatConvertor, IntegerConvertor, PathConvertor, StringConvertor, UUIDConvertor
from starlette.routing import Match
from starlette.websockets import WebSocket

from .asgi import AuthHandler, SubscriptionApp
from .errors import RouteTaken
from .manager import SubscriptionManager

# What stands for a parameter in a path, where it is asked who would take that.
_EXAMPLES = {
    StringConvertor: "x",
    PathConvertor: "x",
    IntegerConvertor: 1,
    FloatConvertor: 1.0,
    UUIDConvertor: uuid.UUID(int=1),
}


class SubscriptionRouter(APIRouter):
    """A router that serves a manager on one path; including it enters the manager with the application.

    It takes every WebSocket on its path and nothing else: HTTP requests go on to routes that come later. Dependencies
    of the application, of routers and of `include_router` run before a socket is accepted; what they raise refuses it,
    and what they yield stays open as long as the socket.

    Args:
        manager: What is served.
        path: Where.
        auth_handler: See `fraiseql_subs.asgi.SubscriptionApp`, as for the others.
        allowed_origins: Origins of pages.
        introspection: Whether the schema may be asked for.
        dependencies: As `fastapi.APIRouter` has them.

    Raises:
        RouteTaken: When the application starts: one of its earlier routes would take what is served here.
    """

    def __init__(
        self,
        manager: SubscriptionManager,
        path: str = "/graphql/subscriptions",
        *,
        auth_handler: AuthHandler | None = None,
        allowed_origins: Iterable[str] | None = None,
        introspection: bool = True,
        dependencies: Sequence[Depends] | None = None,
    ) -> None:
        app = SubscriptionApp(
            manager, auth_handler=auth_handler, allowed_origins=allowed_origins, introspection=introspection
        )

        async def subscriptions(websocket: WebSocket) -> None:
            # Its own methods watch over states, for each message; those are ours to keep.
            await app(websocket.scope, websocket._receive, websocket._send)

        @contextlib.asynccontextmanager
        async def lifespan(application: Any) -> AsyncIterator[None]:
            _check(getattr(application, "routes", self.routes), subscriptions)
            async with manager:
                yield

        super().__init__(lifespan=lifespan, dependencies=dependencies)
        self.add_api_websocket_route(path, subscriptions)


class SubscriptionRouterFactory:
    """Makes routers that serve a manager."""

    @staticmethod
    def create(
        manager: SubscriptionManager,
        path: str = "/graphql/subscriptions",
        *,
        auth_handler: AuthHandler | None = None,
        allowed_origins: Iterable[str] | None = None,
        introspection: bool = True,
        dependencies: Sequence[Depends] | None = None,
    ) -> SubscriptionRouter:
        """The same as `SubscriptionRouter`."""
        return SubscriptionRouter(
            manager,
            path,
            auth_handler=auth_handler,
            allowed_origins=allowed_origins,
            introspection=introspection,
            dependencies=dependencies,
        )


def _check(routes: Sequence[Any], endpoint: object) -> None:
    """Raises where an earlier route takes what is this endpoint's: the first that matches gets a request."""
    earlier: list[Any] = []
    for route in _flat(routes):
        if getattr(route, "endpoint", None) is endpoint:
            for scope in _scopes(route):
                for other in earlier:
                    if _takes(other, scope):
                        raise RouteTaken(
                            f"{_named(other)} comes before the SubscriptionRouter of {route.path!r} and takes its "
                            "WebSockets. Include the SubscriptionRouter before it; or have one application serve both: "
                            "fraiseql_subs.asgi.SubscriptionApp(manager, otherwise=...)"
                        )
        else:
            earlier.append(route)


def _takes(route: Any, scope: Mapping[str, Any]) -> bool:
    try:
        return bool(route.matches(dict(scope))[0] == Match.FULL)
    except Exception:  # a route of somebody's own, which asks for what a server alone knows
        return False


def _flat(routes: Sequence[Any]) -> Iterable[Any]:
    """The routes in their order; newer releases of FastAPI keep included routers as they are."""
    contexts = getattr(fastapi.routing, "iter_route_contexts", None)
    return routes if contexts is None else contexts(routes)


def _scopes(route: Any) -> Iterator[dict[str, Any]]:
    """What a server says of a WebSocket on the route's path; nothing where a parameter's values are unknown."""
    path: str = route.path_format
    for name, convertor in route.param_convertors.items():
        if type(convertor) not in _EXAMPLES:
            return
        path = path.replace(f"{{{name}}}", convertor.to_string(_EXAMPLES[type(convertor)]))
    yield {"type": "websocket", "scheme": "ws", "path": path, "root_path": "", "query_string": b"", "headers": []}


def _named(route: Any) -> str:
    kind = type(getattr(route, "original_route", route)).__name__
    return f"{kind} {getattr(route, 'name', None) or 'without a name'} ({getattr(route, 'path', None)!r})"
