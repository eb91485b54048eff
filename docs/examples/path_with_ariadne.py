"""Queries by Ariadne and subscriptions by us, on one path.

    pip install fraiseql-subs ariadne uvicorn websockets
    uvicorn path_with_ariadne:app

Ariadne's `GraphQL` is an ASGI application, and so is `SubscriptionApp`: what is not its own it hands on. That works
with whatever application, in any framework. On one path of a larger application, Starlette wants a route for each kind:
`routes=[Route("/graphql", served), WebSocketRoute("/graphql", served)]`, with `lifespan=manager.lifespan`.
"""

from dataclasses import dataclass
from typing import Any

from ariadne import QueryType, make_executable_schema
from ariadne.asgi import GraphQL

from fraiseql_subs import ID, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp


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
query = QueryType()


@query.field("orderCount")
def order_count(*_: Any) -> int:
    """How many orders there are."""
    return 3


served = SubscriptionApp(manager, otherwise=GraphQL(make_executable_schema("type Query { orderCount: Int! }", query)))
app = served  # as a whole application it enters the manager with its lifespan
