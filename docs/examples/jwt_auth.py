"""Subscriptions behind JSON Web Tokens: who a token names watches until the token expires, is refreshed or logged out.

    pip install pyjwt 'fraiseql-subs[fastapi]' uvicorn websockets
    JWT_KEY=... uvicorn jwt_auth:app

A client sends `{"token": ...}` as `connection_init`'s payload; with a new token for the same viewer it sends a `ping`
whose payload is `{"refresh": {"token": ...}}`, over the socket that is open.
"""

import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any

import jwt
from fastapi import FastAPI, Header, HTTPException

from fraiseql_subs import ID, Schema, SecurityContext, SubscriptionManager, data, requires, subscription, viewer
from fraiseql_subs.fastapi import SubscriptionRouterFactory

ISSUER = "https://login.example.org"
AUDIENCE = "orders"
KEY = os.environ["JWT_KEY"]  # at least 32 bytes; with ES256 or RS256, the public key of the issuer
ALGORITHMS = ["HS256"]  # the server's choice, never the token's: "none" is not among them
REQUIRED = ["exp", "iat", "jti", "sub", "tenant"]
KEPT = ["department"]  # for predicates; `exp`, `iat` and `jti` would make each new token another viewer

logged_out: dict[str, float] = {}
"""When the tokens that were logged out expire, by `jti`. Several processes need a store that they share."""


@dataclass
class Order:
    """An order as clients see it."""

    id: ID
    status: str
    total: Annotated[float | None, requires("orders:read_total")] = None


@subscription(
    channel="orders",
    rows=(data["owner_id"] == viewer("user_id")) | viewer("roles").contains("staff"),
    passthrough=True,
)
async def order_changed() -> Order:
    """Each order for its owner; for staff, each order of the tenant."""
    raise NotImplementedError


manager = SubscriptionManager(Schema(subscriptions=[order_changed]), multi_tenant=True)


def verified(token: str) -> dict[str, Any]:
    """The claims of a token that is to be believed; anything else raises `jwt.InvalidTokenError`."""
    options: Any = {"require": REQUIRED}
    claims = jwt.decode(token, KEY, algorithms=ALGORITHMS, audience=AUDIENCE, issuer=ISSUER, options=options)
    if claims["jti"] in logged_out:
        raise jwt.InvalidTokenError("it was logged out")
    return claims


async def authenticate(payload: dict[str, Any]) -> SecurityContext | None:
    """At the connection's start and at each refresh. `None` refuses; what raises does so too, and is logged."""
    try:
        claims = verified(payload.get("token", ""))
        return SecurityContext(
            user_id=claims["sub"],
            tenant_id=claims["tenant"],
            roles=claims.get("roles", []),
            permissions=claims.get("scope", "").split(),
            claims={name: claims[name] for name in KEPT if name in claims},
            expires_at=datetime.fromtimestamp(claims["exp"], timezone.utc),
        )
    except (jwt.InvalidTokenError, TypeError):  # a claim of another type is none
        return None


app = FastAPI()
app.include_router(SubscriptionRouterFactory.create(manager, auth_handler=authenticate, introspection=False))


@app.post("/logout", status_code=204)
async def logout(authorization: Annotated[str, Header()]) -> None:
    """Ends what this user watches. Another device of his comes back with a token of its own, this one cannot."""
    try:
        claims = verified(authorization.removeprefix("Bearer "))
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error
    for jti in [jti for jti, expires in logged_out.items() if expires < time.time()]:
        del logged_out[jti]
    logged_out[claims["jti"]] = claims["exp"]  # first: from here on the token lets nobody in,
    await manager.revoke(user_id=claims["sub"], tenant_id=claims["tenant"])  # then: whom it has let in goes
