"""Subscriptions as a FastAPI router, which brings the manager's lifespan along."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter
from starlette.routing import Route, WebSocketRoute

from .asgi import AuthHandler, SubscriptionApp
from .manager import SubscriptionManager


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
    ) -> APIRouter:
        """A router with one WebSocket endpoint; including it enters the manager with the application.

        Args:
            manager: What is served.
            path: Where.
            auth_handler: See `fraiseql_subs.asgi.SubscriptionApp`, as for the others.
            allowed_origins: Exact origins.
            introspection: Whether the schema may be asked for.
        """
        app = SubscriptionApp(
            manager, auth_handler=auth_handler, allowed_origins=allowed_origins, introspection=introspection
        )
        # Plain routes: nothing of FastAPI stands between the server and the protocol.
        return APIRouter(lifespan=manager.lifespan, routes=[WebSocketRoute(path, app), Route(path, app)])
