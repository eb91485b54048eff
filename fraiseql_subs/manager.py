"""The manager: what an application enters, publishes to and subscribes at. Its other half is native."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from ._core import Core, Subscription
from .audit import Trail
from .bus import EventBusConfig
from .errors import NotAvailableError, NotRunning
from .event import Event
from .functions import Runner, told
from .limits import Limits
from .schema import Schema
from .security import ALL_TENANTS, AllTenants, Explanation, SecurityContext
from .text import Id, checked, id_text
from .workers import is_one_of_several

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger("fraiseql_subs")
events = logging.getLogger("fraiseql_subs.events")

_MEMORY = EventBusConfig.memory()
_LIMITS = Limits()

# How many turns of its loop a publisher gives to others after many events, at most,
_TURNS = 1000
# and after how many in which nothing happened it goes on: who has not got on by then waits for something else.
_QUIET_TURNS = 4


class SubscriptionManager:
    """Serves a schema's subscriptions from one event bus.

    It is an async context manager. Entering it is counted, so that a router's lifespan, an application's own and
    `async with` may overlap: the first entry connects the bus, the last exit drains and stops. It may be entered again.

    Args:
        schema: The schema with its functions.
        event_bus: Where events come from; each manager has a memory bus of its own.
        limits: What clients may do, and how much may wait.
        multi_tenant: Whether every event and every viewer must have a tenant that is not empty.
    """

    def __init__(
        self,
        schema: Schema,
        event_bus: EventBusConfig = _MEMORY,
        *,
        limits: Limits = _LIMITS,
        multi_tenant: bool = False,
    ) -> None:
        for name, value, expected in (
            ("schema", schema, Schema),
            ("event_bus", event_bus, EventBusConfig),
            ("limits", limits, Limits),
            ("multi_tenant", multi_tenant, bool),
        ):
            if not isinstance(value, expected):
                raise TypeError(f"{name}: expected {expected.__name__}, got {type(value).__name__}")
        self.schema = schema
        self.limits = limits
        self._runner = Runner(schema.functions, limits)
        self._core = Core(
            schema._native,
            bus=event_bus._json(),
            limits=limits._json(),
            multi_tenant=multi_tenant,
            event=Event,
            start=self._runner.start,
            generate=self._runner.generate,
            abandon=self._runner.abandon,
            ended=self._runner.ended,
            told=told,
            report=self._runner.report,
            nested=schema.nested,
            audit=Trail().write,
            warn=logger.warning,
            events=events,
        )
        for text in schema._warnings:
            logger.warning(text)
        self._is_alone = event_bus.kind == "memory"
        self._for_viewers = schema._native.asks_for_viewer
        self._process = os.getpid()
        self._entries = 0
        self._turn: asyncio.Lock | None = None

    def _serve_without_viewers(self) -> None:
        """A transport that knows no viewers serves it: told once, where the schema asks for them."""
        asking, self._for_viewers = self._for_viewers, []
        if asking:
            more = f" and {len(asking) - 5} more" if len(asking) > 5 else ""
            logger.warning(
                "there is no auth_handler, so every viewer is anonymous, and these depend on who the viewer is: %s%s. "
                "Their rows match nothing that is compared with the viewer, and permissions are never given. "
                "Give an auth_handler. This is logged once for each manager.",
                ", ".join(asking[:5]),
                more,
            )

    def _warn_of_several(self) -> None:
        """A memory bus joins nobody, and several processes of one application look as if they had to be joined."""
        if self._is_alone and is_one_of_several():
            self._is_alone = False
            logger.warning(
                "this process looks like one of several workers, and EventBusConfig.memory() joins no processes: a "
                "client hears only of what is published in the worker that it is connected to. Use "
                "EventBusConfig.redis or EventBusConfig.postgresql, or one worker. This is logged once for each "
                "manager and process."
            )

    # ---- its life ----

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def _enter(self, *, unless_entered: bool = False) -> None:
        if self._process != os.getpid():
            # Of its parent's run a forked child has nothing.
            self._process, self._entries, self._turn = os.getpid(), 0, None
        async with self._turns():
            if self._entries == 0:
                self._warn_of_several()
                self._attending = asyncio.Lock()
                self._runner.open()
                try:
                    await self._core.start()
                except BaseException:
                    self._core.release()
                    await self._runner.close()
                    raise
            elif unless_entered:
                return
            self._entries += 1

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        async with self._turns():
            if self._entries == 0:
                raise NotRunning("the SubscriptionManager is left more often than it was entered")
            self._entries -= 1
            if self._entries > 0:
                return
            try:
                await self._core.stop(True)
            except asyncio.CancelledError:
                await self._core.stop(False)
                raise
            finally:
                await self._runner.close()
                self._core.release()

    def _turns(self) -> asyncio.Lock:
        """Who enters or leaves waits for others who do; one lock for each run, as locks belong to loops."""
        if self._turn is None or (self._entries == 0 and not self._turn.locked()):
            self._turn = asyncio.Lock()
        return self._turn

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """The manager as a lifespan: `FastAPI(lifespan=manager.lifespan)`, or entered from an application's own."""
        async with self:
            yield

    # ---- events ----

    async def publish_event(
        self,
        event_type: str,
        channel: str,
        data: Mapping[str, Any] | bytes | str,
        *,
        tenant_id: Id | AllTenants | None = None,
        source: str | None = None,
        previous: Mapping[str, Any] | bytes | str | None = None,
    ) -> str:
        """Publishes an event.

        Args:
            event_type: What happened, as `event_types` names it.
            channel: Where; not empty.
            data: A JSON object, as a mapping or as its text. UUID, datetime, Decimal, Enum (by name), dataclasses
                and pydantic models in it convert.
            tenant_id: Whose event it is; `ALL_TENANTS` is for every viewer, `None` for those without tenant.
            source: The service that it comes from.
            previous: The old image, for predicates alone.

        Returns:
            The event's id, when the bus has accepted it.

        Raises:
            TypeError: A value has no JSON form; the text names its path.
            ValueError: NaN, NUL, a lone surrogate, an empty channel, more than `max_event_bytes`, or no tenant where
                `multi_tenant` asks for one.
            NotRunning: The manager is not entered.
            BusUnavailable: The bus is away; nothing was accepted.
            PublishUnknown: No answer came within `publish_timeout`: the event was accepted once, or not at all.
        """
        event = (event_type, channel, data, _tenant(tenant_id), source, previous)
        while (published := self._core.publish(event)) is None:
            await self._attend()
        return published if isinstance(published, str) else await published

    async def publish_events(self, events: Iterable[Event]) -> list[str]:
        """Publishes several events, all or none, in one round trip; see `publish_event`.

        Args:
            events: Their `id` and `published_at` are ignored.

        Returns:
            Their ids, in order.
        """
        given = [_given(event) for event in events]
        while (published := self._core.publish_many(given)) is None:
            await self._attend()
        return published if isinstance(published, list) else await published

    async def _attend(self) -> None:
        """Lets this loop's functions and readers run, which had no turn for many events."""
        async with self._attending:
            if not self._core.is_unattended():
                return
            quiet, before = 0, self._core.progress()
            for _ in range(_TURNS):
                await asyncio.sleep(0)
                after = self._core.progress()
                quiet, before = (quiet + 1 if after == before else 0), after
                if quiet == _QUIET_TURNS:
                    break
            self._core.attended()

    def publish_event_sync(
        self,
        event_type: str,
        channel: str,
        data: Mapping[str, Any] | bytes | str,
        *,
        tenant_id: Id | AllTenants | None = None,
        source: str | None = None,
        previous: Mapping[str, Any] | bytes | str | None = None,
    ) -> str:
        """Publishes an event from a thread that runs no event loop, as in Celery or Django; see `publish_event`.

        Where the manager is not entered, the first call connects, and `close` ends that.

        Raises:
            RuntimeError: This thread runs an event loop, which this call would block; or the manager is not entered,
                and on its memory bus nobody could hear the event.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("publish_event_sync blocks, and this thread runs an event loop: await publish_event")
        event = (event_type, channel, data, _tenant(tenant_id), source, previous)
        while (event_id := self._core.publish_sync(event)) is None:
            self._core.attended()  # the loop does not run: there is nobody to let go first
        return event_id

    def close(self) -> None:
        """Ends the connection that `publish_event_sync` has made; the next call makes another."""
        self._core.close()

    # ---- subscriptions ----

    def subscribe(
        self,
        query: str,
        *,
        variables: Mapping[str, Any] | None = None,
        operation_name: str | None = None,
        context: SecurityContext | None = None,
        subscription_id: str | None = None,
        connection_id: str | None = None,
        framing: Literal["next", "result"] = "next",
        resume: bool | str | None = None,
    ) -> Subscription:
        """Subscribes in this process.

        The returned async iterator of `bytes` is live once it is entered (`async with`), or from its first iteration
        on: it sees every event that is published after that.

        Args:
            query: The document, with one subscription operation to run.
            variables: Its variables, by GraphQL name.
            operation_name: Which of the document's operations.
            context: Who watches; anonymous, where not given.
            subscription_id: The id in its messages; one is made up, where not given.
            connection_id: A label: ids are unique under it, and `complete_subscription` finds it.
            framing: `"next"`: whole graphql-transport-ws messages; `"result"`: bare ExecutionResults.
            resume: `True` puts `extensions.eventId` into each message; such a token does too, and first gives what
                came after it.

        Raises:
            GraphQLRequestError: When entered: the document, its variables or its size are at fault.
            Forbidden: When entered, when the context expires, or when it is revoked.
            LimitExceeded: When entered: a limit or a rate of this user or tenant is reached.
            HistoryLost: The token cannot be honoured.
            SlowConsumer: While iterating: the queue overflowed, and `overflow` is `"disconnect"`.
            ValueError: When entered: the id is in use.
        """
        viewer = _viewer(context)
        return self._core.subscribe(
            query,
            variables=variables,
            operation_name=operation_name,
            context=viewer,
            viewer=viewer._json(),
            subscription_id=uuid.uuid4().hex if subscription_id is None else subscription_id,
            connection_id=connection_id,
            framing=framing,
            resume=resume,
        )

    async def complete_subscription(self, subscription_id: str, connection_id: str | None = None) -> bool:
        """Ends a subscription of this process after what is queued for it; its client gets `complete`.

        Args:
            subscription_id: Its id.
            connection_id: The socket's id or the label; without it, one that `subscribe` opened without a label.

        Returns:
            Whether it existed.
        """
        return self._core.complete(subscription_id, connection_id)

    async def revoke(
        self, *, user_id: Id | None = None, tenant_id: Id | None = None, connection_id: str | None = None
    ) -> int:
        """Ends the authority of everybody who matches all of what is given.

        Their connections close (4403) and their `subscribe`s raise `Forbidden`. Once this returns, no further byte of
        an event is handed to the ASGI server for them, be it queued, in a function or in a send that has suspended.
        Whoever was being authorised, or had asked for a subscription, when this was called is refused as well. It does
        not stop a new login: refuse that in `auth_handler` first. Other processes on the bus follow.

        Args:
            user_id: A user, of whatever tenant.
            tenant_id: A tenant.
            connection_id: A socket's id, or the label of `subscribe`s.

        Returns:
            How many connections and `subscribe`s of this process it ended.

        Raises:
            ValueError: Nothing is given.
            NotRunning: The manager is not entered.
            BusUnavailable: This process has revoked, and the bus that tells the others is away.
            PublishUnknown: Likewise, and they may have been told.
        """
        if user_id is None and tenant_id is None and connection_id is None:
            raise ValueError("revoke: expected a user_id, a tenant_id or a connection_id")
        user = None if user_id is None else id_text(user_id, "user_id")
        tenant = None if tenant_id is None else id_text(tenant_id, "tenant_id")
        connection = None if connection_id is None else checked(connection_id, "connection_id")
        ended, done = self._core.revoke(user, tenant, connection)
        await done
        return ended

    # ---- for operators ----

    def get_metrics(self) -> dict[str, Any]:
        """Counters and gauges since the manager was made; what is counted by reason or module is a dict."""
        return self._core.metrics()

    def prometheus(self) -> str:
        """The same in Prometheus' text format."""
        return self._core.prometheus()

    def health(self) -> dict[str, Any]:
        """For a readiness probe: `ok`, `state` and `bus`; never blocks.

        `ok` is false unless the manager is running, its bus is there, and the event loop that entered it is not closed.
        """
        return self._core.health()

    def explain(
        self,
        query: str,
        event: Event,
        *,
        previous: Mapping[str, Any] | bytes | str | None = None,
        variables: Mapping[str, Any] | None = None,
        operation_name: str | None = None,
        context: SecurityContext | None = None,
    ) -> Explanation:
        """A dry run: would this event reach such a subscription, and what decides?

        It takes the way of a real subscribe and a real event, but for limits; no function is called, nothing published.

        Args:
            query: The document.
            event: The event.
            previous: Its old image.
            variables: The document's variables.
            operation_name: Which of its operations.
            context: Who would watch; anonymous, where not given.

        Raises:
            TypeError: As `publish_event` and `subscribe` do.
            ValueError: Likewise.
        """
        viewer = _viewer(context)
        stage, reason, masked = self._core.explain(
            query,
            _given(event, previous),
            variables=variables,
            operation_name=operation_name,
            context=viewer,
            viewer=viewer._json(),
        )
        return Explanation(stage == "delivered", stage, reason, tuple(masked))

    async def serve(self, host: str, port: int, **options: Any) -> None:
        """Not there yet: raises `NotAvailableError`."""
        raise NotAvailableError("serve is not there yet; mount fraiseql_subs.asgi.SubscriptionApp in an ASGI server")


def _viewer(context: SecurityContext | None) -> SecurityContext:
    viewer = SecurityContext() if context is None else context
    if not isinstance(viewer, SecurityContext):
        raise TypeError(f"context: expected a SecurityContext, got {type(viewer).__name__}")
    return viewer


def _tenant(tenant_id: Id | AllTenants | None) -> str | bool | None:
    """A tenant as the native side takes it: `True` is `ALL_TENANTS`."""
    if tenant_id is None:
        return None
    return True if tenant_id is ALL_TENANTS else id_text(tenant_id, "tenant_id")


def _given(event: Event, previous: Mapping[str, Any] | bytes | str | None = None) -> tuple[Any, ...]:
    """An event as the native side takes it."""
    return (event.event_type, event.channel, event.data, _tenant(event.tenant_id), event.source, previous)
