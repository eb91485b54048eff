"""Events that are part of a transaction: sent if it commits, never if it rolls back, by SQLAlchemy and by psycopg.

    pip install 'fraiseql-subs[fastapi]' sqlalchemy 'psycopg[binary]' uvicorn websockets
    DATABASE_URL=postgresql://... uvicorn transactional_outbox:app

The event is a row that `fraiseql_subs.publish` writes. No other process carries it: the workers that serve the clients
read it after the commit.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import psycopg
import sqlalchemy
from fastapi import FastAPI
from psycopg.types.json import Jsonb

from fraiseql_subs import ID, EventBusConfig, Schema, SubscriptionManager, subscription
from fraiseql_subs.fastapi import SubscriptionRouterFactory

DATABASE_URL = os.environ["DATABASE_URL"]


@dataclass
class Order:
    """An order as clients see it."""

    id: ID
    status: str


@subscription(channel="orders", passthrough=True)
async def order_changed() -> Order:
    """What the transactions publish, as it is."""
    raise NotImplementedError


# `install` makes the bus's schema; `fraiseql-subs pg install` does so beforehand, where the application may not.
manager = SubscriptionManager(
    Schema(subscriptions=[order_changed]), EventBusConfig.postgresql(DATABASE_URL, install=True)
)
app = FastAPI()
app.include_router(SubscriptionRouterFactory.create(manager))

engine = sqlalchemy.create_engine(DATABASE_URL.replace("postgresql://", "postgresql+psycopg://", 1))
UPDATE = sqlalchemy.text("UPDATE orders SET status = :status WHERE id = :id")
PUBLISH = sqlalchemy.text("SELECT fraiseql_subs.publish(:channel, :event_type, CAST(:data AS jsonb))")


def pay(order_id: int, charge: Callable[[int], None]) -> None:
    """By SQLAlchemy; a session of its ORM executes `PUBLISH` just so."""
    with engine.begin() as transaction:
        transaction.execute(UPDATE, {"id": order_id, "status": "paid"})
        event = json.dumps({"id": order_id, "status": "paid"})
        transaction.execute(PUBLISH, {"channel": "orders", "event_type": "orderPaid", "data": event})
        charge(order_id)  # where it raises, the order is not paid, and nobody hears that it were


def ship(order_id: int, hand_over: Callable[[int], None]) -> None:
    """By psycopg."""
    with psycopg.connect(DATABASE_URL) as transaction:
        transaction.execute("UPDATE orders SET status = 'shipped' WHERE id = %s", [order_id])
        event = Jsonb({"id": order_id, "status": "shipped"})
        transaction.execute("SELECT fraiseql_subs.publish(%s, %s, %s)", ["orders", "orderShipped", event])
        hand_over(order_id)
