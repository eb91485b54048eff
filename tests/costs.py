"""What the tests of costs share: processor time, and a comparison that a busy machine does not upset."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from fraiseql_subs import JSON, GraphQLRequestError, LimitExceeded, SubscriptionManager, subscription

from .support import entered

#: A cost is measured so often; the least counts.
TIMES = 3


async def cost(work: Callable[[], Awaitable[Any]], times: int = TIMES) -> float:
    """Seconds of processor time, of all threads of this process."""
    least = float("inf")
    for _ in range(times):
        gc.collect()
        gc.disable()
        try:
            before = time.process_time()
            await work()
            least = min(least, time.process_time() - before)
        finally:
            gc.enable()
    return least


def passthrough(name: str, condition: Any, **annotations: Any) -> Any:
    """A field on the channel `c` with this `where`, or these options, and these arguments."""
    options = condition if isinstance(condition, dict) else {"where": condition}
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(annotations)}): raise NotImplementedError", scope)
    scope[name].__module__ = __name__
    scope[name].__annotations__ = {**annotations, "return": JSON}
    return subscription(channel="c", passthrough=True, **options)(scope[name])


async def is_taken(stream: Any) -> bool:
    """Subscribes and leaves; whether it was not refused by a limit. Anything else fails."""
    try:
        async with stream:
            return True
    except LimitExceeded:
        return False
    except GraphQLRequestError as error:
        if [one["extensions"]["code"] for one in error.errors] == ["LIMIT_EXCEEDED"]:
            return False
        raise


@contextlib.asynccontextmanager
async def subscribed(
    manager: SubscriptionManager, query: str, given: Iterable[Any], **options: Any
) -> AsyncIterator[list[Any]]:
    """Subscriptions with one variable, `$x`, each."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await entered(stack, manager.subscribe(query, variables={"x": each}, framing="result", **options))
            for each in given
        ]


def publishing(manager: SubscriptionManager, data: dict[str, Any], count: int = 30) -> Callable[[], Awaitable[None]]:
    """Publishes so many equal events."""

    async def publish() -> None:
        for _ in range(count):
            await manager.publish_event("e", "c", data)

    return publish
