"""Events from processes without an event loop: workers of Celery or RQ, commands of Django, plain scripts.

    BUS_URL=redis://127.0.0.1 python celery_worker.py

The manager is made at import and never entered here, so a process that forks its workers starts nothing for them:
each worker connects with the first event that it publishes. The application that serves the clients has a manager of
its own on the same bus.
"""

import multiprocessing
import os
from dataclasses import dataclass

from fraiseql_subs import ID, EventBusConfig, Schema, SubscriptionManager, subscription

URL = os.environ["BUS_URL"]


@dataclass
class Order:
    """An order as clients see it."""

    id: ID
    status: str


@subscription(channel="orders", passthrough=True)
async def order_changed() -> Order:
    """What the workers publish, as it is."""
    raise NotImplementedError


bus = EventBusConfig.redis(URL) if URL.startswith("redis") else EventBusConfig.postgresql(URL)
manager = SubscriptionManager(Schema(subscriptions=[order_changed]), bus)


def ship(order_id: int) -> str:
    """A task. It returns the event's id when the bus has accepted it.

    `BusUnavailable` says that the event was not accepted, and may be tried again; after `PublishUnknown` another try
    may publish it twice.
    """
    return manager.publish_event_sync("orderChanged", "orders", {"id": order_id, "status": "shipped"})


def main() -> None:
    """What Celery does by itself: forked workers, each of which takes some of the tasks."""
    with multiprocessing.get_context("fork").Pool(4) as workers:
        print(*workers.map(ship, range(1, 101), chunksize=5), sep="\n")


if __name__ == "__main__":
    main()
