"""An application with a function that blocks its thread for longer than any test waits."""

import time
from collections.abc import AsyncIterator

from fraiseql_subs import Limits, Schema, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp


@subscription(timeout=0.05)
def stuck() -> int:
    time.sleep(60)
    return 1


@subscription
async def publish() -> AsyncIterator[str]:
    """Has the other called."""
    yield await manager.publish_event("x", "stuck", {})


manager = SubscriptionManager(Schema([stuck, publish]), limits=Limits(drain_timeout=0.2))
app = SubscriptionApp(manager)
