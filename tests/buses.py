"""What the tests of buses share: each bus as several managers of one application see it, and what they subscribe to."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import (
    JSON,
    Event,
    EventBusConfig,
    Limits,
    Schema,
    SecurityContext,
    SubscriptionManager,
    argument,
    previous,
    subscription,
)
from fraiseql_subs.servers import Server

from .servers import unheard
from .support import take


@dataclass
class Numbered:
    n: int


@subscription(channel="{on}", passthrough=True)
def numbered(on: str) -> Numbered:
    raise NotImplementedError


@subscription(channel="{on}", passthrough=True, where=previous["n"] == argument("n"))
def changed(on: str, n: int) -> Numbered:
    raise NotImplementedError


@subscription(channel="a:b:c", passthrough=True)
def with_colons() -> Numbered:
    raise NotImplementedError


@subscription(channel="{on}")
async def envelope(event: Event, on: str) -> JSON:
    return {
        "id": event.id,
        "event_type": event.event_type,
        "channel": event.channel,
        "tenant_id": event.tenant_id,
        "source": event.source,
        "published_at": event.published_at.isoformat(),
    }


@subscription(channel="{on}")
async def size(event: Event, on: str) -> int:
    return len(json.dumps(event.data, separators=(",", ":"), ensure_ascii=False).encode())


@subscription(channel="{on}")
async def content(event: Event, on: str) -> JSON:
    return dict(event.data)


SCHEMA = Schema(subscriptions=[numbered, changed, with_colons, envelope, size, content])
NUMBERED = "subscription ($on: String!) { numbered(on: $on) { n } }"
CHANGED = "subscription ($on: String!, $n: Int!) { changed(on: $on, n: $n) { n } }"
ENVELOPE = "subscription ($on: String!) { envelope(on: $on) }"
SIZE = "subscription ($on: String!) { size(on: $on) }"
CONTENT = "subscription ($on: String!) { content(on: $on) }"


def config(kind: str, url: str, application: str, *, install: bool = True, **options: Any) -> EventBusConfig:
    """A remote bus, of this application alone."""
    if kind == "postgresql":
        return EventBusConfig.postgresql(url, schema=application, install=install, **options)
    return EventBusConfig.redis(url, consumer_group=application, **options)


class Bus:
    """One application's bus. Memory is one manager's own: there, all managers of a test are the same one."""

    def __init__(self, kind: str, server: Server | None, stack: contextlib.AsyncExitStack) -> None:
        self.kind = kind
        self.server = server
        self.application = unheard()
        self._stack = stack
        self._only: SubscriptionManager | None = None
        self._installed: set[str] = set()

    @property
    def is_remote(self) -> bool:
        return self.server is not None

    def config(self, *, url: str | None = None, application: str | None = None, **options: Any) -> EventBusConfig:
        """As `EventBusConfig` takes it; options that only a remote bus has mean nothing to memory."""
        if self.server is None:
            return EventBusConfig.memory(history=options.get("history", 10_000))
        application = application or self.application
        return config(
            self.kind, url or self.server.url, application, install=application not in self._installed, **options
        )

    def outside(
        self, *, limits: Limits | None = None, multi_tenant: bool = False, **options: Any
    ) -> SubscriptionManager:
        """A manager that is not entered."""
        return SubscriptionManager(
            SCHEMA, self.config(**options), limits=limits or Limits(queue_messages=100_000), multi_tenant=multi_tenant
        )

    async def manager(self, **options: Any) -> SubscriptionManager:
        """A manager that is entered, until the test ends."""
        if self._only is not None:
            return self._only
        manager = await self._stack.enter_async_context(self.outside(**options))
        self._installed.add(options.get("application", self.application))
        if not self.is_remote:
            self._only = manager
        return manager

    async def managers(self, **options: Any) -> tuple[SubscriptionManager, SubscriptionManager]:
        return await self.manager(**options), await self.manager(**options)


def watch(
    manager: SubscriptionManager,
    channel: str,
    query: str = NUMBERED,
    *,
    context: SecurityContext | None = None,
    resume: bool | str | None = None,
    **variables: Any,
) -> Any:
    """A subscription to a channel; its messages are bare results."""
    return manager.subscribe(
        query, variables={"on": channel, **variables}, context=context, framing="result", resume=resume
    )


async def tell(manager: SubscriptionManager, channel: str, *numbers: int, **more: Any) -> list[str]:
    """Publishes these numbers, one after the other; gives their ids."""
    return [await manager.publish_event("told", channel, {"n": n}, **more) for n in numbers]


async def heard(stream: AsyncIterator[bytes], count: int) -> list[Any]:
    """What the next messages say: the field's value, or its `n`."""
    return [said(result) for result in await take(stream, count)]


def said(result: dict[str, Any]) -> Any:
    assert "errors" not in result, result
    assert set(result.get("extensions", {})) <= {"eventId"}, result
    [value] = result["data"].values()
    return value["n"] if isinstance(value, dict) and set(value) == {"n"} else value


def token(result: dict[str, Any]) -> str:
    """What resumes behind this message."""
    identity = result["extensions"]["eventId"]
    assert isinstance(identity, str)
    return identity


async def token_now(manager: SubscriptionManager, channel: str) -> str:
    """A token that stands for an event of this channel, which is published for it."""
    async with watch(manager, channel, resume=True) as stream:
        await tell(manager, channel, -1)
        [result] = await take(stream)
        return token(result)
