"""Queries by Strawberry and subscriptions by us, on one path.

    pip install 'fraiseql-subs[fastapi]' strawberry-graphql uvicorn websockets
    uvicorn path_with_strawberry:app

Strawberry's router takes every WebSocket on its path as well, and the first route that matches is the one that serves.
So ours is included first: it takes the WebSockets and leaves the requests to Strawberry's. The other way round the
application does not start, and says why.
"""

from dataclasses import dataclass

import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from fraiseql_subs import ID, Schema, SubscriptionManager, subscription
from fraiseql_subs.fastapi import SubscriptionRouterFactory


@dataclass
class Order:
    """An order as it is now."""

    id: ID
    status: str


@subscription(channel="orders", passthrough=True)
def order_changed() -> Order:
    """An order was paid, shipped or cancelled."""
    raise NotImplementedError


manager = SubscriptionManager(Schema(subscriptions=[order_changed]))


@strawberry.type
class Query:
    """What Strawberry serves."""

    @strawberry.field
    def order_count(self) -> int:
        """How many orders there are."""
        return 3


app = FastAPI()
app.include_router(SubscriptionRouterFactory.create(manager, path="/graphql"))
app.include_router(GraphQLRouter(strawberry.Schema(Query), path="/graphql"))
