"""What the attacks share: a server that believes everybody, and asking for one subscription."""

from __future__ import annotations

import json
from typing import Any

from fraiseql_subs import Schema, SecurityContext, SubscriptionManager

from .sockets import Client, served

FORBIDDEN = [{"message": "Forbidden", "extensions": {"code": "FORBIDDEN"}}]
SECRET = "planted"
CODES = {"GRAPHQL_PARSE_FAILED", "GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT"}


async def as_told(payload: dict[str, Any]) -> SecurityContext:
    """An auth handler that believes everybody."""
    return SecurityContext(**payload)


def attacked(*functions: Any, **options: Any) -> Any:
    schema = options.pop("schema", None) or Schema(subscriptions=list(functions))
    multi_tenant = options.pop("multi_tenant", False)
    return served(SubscriptionManager(schema, multi_tenant=multi_tenant), **{"auth_handler": as_told, **options})


async def attempt(
    manager: SubscriptionManager, client: Client, query: str, variables: str = "{}", event: Any = None
) -> Any:
    """What the client is told: the errors of a refusal (a list), or the ExecutionResult of an event on channel `c`."""
    payload = f'{{"query":{json.dumps(query)},"variables":{variables}}}'
    await client.send(f'{{"id":"1","type":"subscribe","payload":{payload}}}', {"type": "ping"})
    message = await client.message()
    if message["type"] == "error":
        await client.expect({"type": "pong"})
        return message["payload"]
    assert message == {"type": "pong"}
    await manager.publish_event("x", "c", {} if event is None else event)
    message = await client.message()
    assert message["type"] == "next"
    await client.complete("1")
    await client.sync()
    return message["payload"]
