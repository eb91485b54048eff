"""The native module: what `fraiseql_subs` is made of. Applications use the package, which documents its own face.

Nothing here runs at import. All classes are final and thread-safe; what has to be called on an event loop says so.
"""

from asyncio import Future, Task
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from logging import Logger
from types import TracebackType
from typing import Any, Literal, final

from .event import Event
from .security import SecurityContext
from .sending import Sender

__all__ = [
    "Call", "Core", "Generation", "Reading", "Schema", "Socket", "Subscription",
    "channel_name", "check_bus",
    "postgres_install", "postgres_prune", "postgres_sql", "postgres_track", "postgres_untrack",
]  # fmt: skip

def check_bus(bus: str) -> None:
    """Raises `ValueError` where a bus's description, as `EventBusConfig` gives it, is wrong."""

def channel_name(template: str, values: Mapping[str, str]) -> str:
    """The name that a template gives with these values by Python name.

    Raises:
        ValueError: The template, a value or the name is wrong; the text says which.
    """

@final
class Schema:
    """A schema that was built and validated.

    Args:
        input: JSON of the SDL and the declarations.

    Raises:
        SchemaError: A declaration is wrong; the text names the function, the field and what was expected.
    """

    def __new__(cls, input: str) -> Schema: ...
    @property
    def sdl(self) -> str:
        """The printed schema."""

    @property
    def warnings(self) -> list[str]:
        """What is allowed, and can hardly be meant; each text names its function."""

    @property
    def asks_for_viewer(self) -> list[str]:
        """The coordinates of what depends on who the viewer is: fields with such `rows`, and what needs permissions."""

    @property
    def signatures(self) -> str:
        """JSON: the types of the functions' arguments and of input objects, and the names of enums."""

@final
class Core:
    """The native half of a `SubscriptionManager`."""

    def __new__(
        cls,
        schema: Schema,
        *,
        bus: str,
        limits: str,
        multi_tenant: bool,
        event: type[Event],
        start: Callable[[list[Call]], None],
        generate: Callable[[Generation], None],
        abandon: Callable[[int], None],
        ended: Callable[[bool], None],
        told: Callable[[BaseException], tuple[str, object] | None],
        report: Callable[[str, BaseException, str, int, str | None, str | None], None],
        nested: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]],
        audit: Callable[[str, str, str | None, str | None, str | None, int], None],
        warn: Callable[[str], None],
        events: Logger,
    ) -> Core: ...
    def start(self) -> Future[None]:
        """Begins a run on the running loop; done when the bus is connected.

        Raises:
            BusUnavailable: The bus cannot be reached.
        """

    def stop(self, drain: bool) -> Future[None]:
        """Stops, after draining for at most `drain_timeout` where that is asked for.

        Called again it cuts the draining short. It goes on even where the future is cancelled.
        """

    def release(self) -> None:
        """Gives the event loops back, after the run has stopped."""

    def publish(self, event: tuple[Any, ...]) -> str | Future[str] | None:
        """Publishes an event; gives its id, at once or when the bus has accepted it.

        `None`: nothing was done yet, let the loop run and try again.

        Args:
            event: Type, channel, data, tenant (`True` is `ALL_TENANTS`), source, previous.

        Raises:
            TypeError: A value has no JSON form; the text names its path.
            ValueError: The event is refused.
            NotRunning: There is no run.
            BusUnavailable: Nothing was accepted.
            PublishUnknown: It may have been accepted, once.
        """

    def publish_sync(self, event: tuple[Any, ...]) -> str | None:
        """The same for a thread that runs no event loop: it waits, and connects where there is no run."""

    def close(self) -> None:
        """Ends what `publish_sync` has connected."""

    def publish_many(self, events: Sequence[tuple[Any, ...]]) -> list[str] | Future[list[str]] | None:
        """Publishes all of these events or none; `None` as with `publish`."""

    def is_unattended(self) -> bool:
        """Whether `publish` and `publish_many` want the loop to run first."""

    def progress(self) -> int:
        """Changes while the loop's readers and functions get on."""

    def attended(self) -> None:
        """The loop has run."""

    def subscribe(
        self,
        query: str,
        *,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        context: SecurityContext,
        viewer: str,
        subscription_id: str,
        connection_id: str | None,
        framing: Literal["next", "result"],
        resume: bool | str | None,
    ) -> Subscription:
        """Asks for a subscription, which is live once it is entered."""

    def connect(
        self,
        send: Callable[[dict[str, Any]], Awaitable[None]],
        sender: Sender,
        context: Context,
        interrupt: Callable[[BaseException | None], object],
        introspection: bool,
        authenticates: bool,
    ) -> Socket:
        """Opens the protocol for a socket that is about to be accepted; on its event loop.

        `context` is that of the connection: audit records and `interrupt` run in it.
        """

    def refused(self, reason: str, context: Context) -> None:
        """Notes for the audit trail that a connection was refused before there was a socket."""

    def revoke(self, user_id: str | None, tenant_id: str | None, connection_id: str | None) -> tuple[int, Future[None]]:
        """Ends everybody whom this names; returns how many, and what is done when nothing is handed over any more."""

    def explain(
        self,
        query: str,
        event: tuple[Any, ...],
        *,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        context: SecurityContext,
        viewer: str,
    ) -> tuple[str, str, list[str]]:
        """A dry run: stage, reason and masked fields."""

    def complete(self, subscription_id: str, connection_id: str | None) -> bool:
        """Ends a subscription; returns whether it existed."""

    def metrics(self) -> dict[str, Any]:
        """Counters and gauges."""

    def prometheus(self) -> str:
        """The same in Prometheus' text format."""

    def parses(self) -> int:
        """How many documents were parsed since the manager was made."""

    def health(self) -> dict[str, Any]:
        """`ok`, `state` and `bus`."""

@final
class Subscription:
    """A subscription of this process: an async iterator and async context manager of `bytes`.

    It is live from `async with` on, else from the first iteration. What is queued is taken without touching the event
    loop; an iteration that is cancelled loses nothing. It may be iterated on any event loop, by one task at a time.

    Raises:
        GraphQLRequestError: When entered: the document, its variables or its size are at fault.
        Forbidden: When entered, or when the viewer's context expires.
        HistoryLost: The resume token cannot be honoured.
        SlowConsumer: The queue overflowed and `overflow` is `"disconnect"`.
        NotRunning: The manager is not entered.
        ValueError: When entered: the id is in use.
    """

    @property
    def id(self) -> str:
        """The subscription's id, as its messages carry it."""

    def __aiter__(self) -> Subscription: ...
    def __anext__(self) -> Awaitable[bytes]: ...
    def __aenter__(self) -> Awaitable[Subscription]: ...
    def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> Awaitable[None]: ...
    def aclose(self) -> Awaitable[None]:
        """Ends the subscription; an iteration that waits ends too."""

@final
class Socket:
    """The protocol of one WebSocket; all methods belong to its event loop."""

    @property
    def id(self) -> str:
        """The connection's id."""

    def arrives(self, text: str | None) -> Future[None] | None:
        """A frame was read; where it came too fast, what to wait for before it is handed in."""

    def receive(self, text: str | None) -> tuple[int, dict[str, Any]] | None:
        """Takes a text frame, `None` for a binary one.

        Returns what the auth handler has to judge, where it has to, and the number that its answer goes by: 0 is
        `connection_init`, others are refreshes.
        """

    def receive_invalid(self) -> None:
        """A text frame that is no valid Unicode: closes."""

    def accept(self, question: int, context: SecurityContext, viewer: str) -> None:
        """The auth handler has accepted this viewer."""

    def refuse(self, question: int, reason: str) -> None:
        """The auth handler has refused, for a reason that operators are told."""

    @property
    def closing(self) -> tuple[int, str] | None:
        """Code and reason of the close that is to be sent, where there is one."""

    def parked(self, task: Task[None]) -> None:
        """The sender's task is about to wait: from now on its sends are stepped in its place."""

    def turn(self) -> tuple[Any, Any] | None:
        """Sends until nothing waits or a send suspends: gives its steps, and what it gave to wait for.

        For the sender's task, which then sees that one through and takes the next turn.
        """

    def failed(self, error: BaseException) -> None:
        """A send has failed, or the sender's task was cancelled: the connection ends."""

    @property
    def has_left(self) -> bool:
        """Whether nothing is received, and so nothing sent, any more."""

    def leave(self) -> None:
        """Nothing is received, and nothing sent, any more."""

    def lost(self) -> None:
        """The socket is gone: nothing of it stays."""

@final
class Call:
    """One call of a function for one event. The first outcome counts."""

    @property
    def function(self) -> int:
        """The function's position among the declarations."""

    @property
    def key(self) -> int:
        """By which it is abandoned, with others."""

    def release(self) -> None:
        """Its thread is free again: somebody else has a turn. Other calls give their turn back with their outcome."""

    @property
    def field_name(self) -> str:
        """The subscription field's GraphQL name."""

    @property
    def timeout(self) -> float | None:
        """Seconds that the field allows in place of the limit."""

    def event(self) -> Event:
        """The event, with `data` of its own."""

    def arguments(self) -> dict[str, Any]:
        """The coerced arguments by Python name, as plain JSON values."""

    def watcher(self) -> tuple[SecurityContext, tuple[str, ...]] | None:
        """The viewer and the selected paths, where the function takes `info`."""

    def finish(self, result: object) -> Reading | None:
        """Reads what the function gave and delivers it, a sync function's in this thread.

        Returns:
            On the loop, the reading that goes on, where something has to be awaited or there is much to be read.
        """

    def fail(self, exception: BaseException) -> None:
        """The function raised."""

    def expire(self) -> bool:
        """The function took too long, or reading in its thread does; returns whether it was still waited for."""

@final
class Reading:
    """A result that is being read on the loop."""

    def go_on(self, callback: Callable[[], object]) -> None:
        """What the loop is to call when it may be read further."""

    def read(self) -> bool:
        """Reads on; returns whether it is done: everything is delivered."""

    @property
    def has_more(self) -> bool:
        """Whether there is more to be read at once."""

    def awaitables(self) -> list[tuple[int, Awaitable[Any]]]:
        """Those that were found since the last time, with their numbers. What they give goes to `supply`."""

    def supply(self, number: int, outcome: object) -> None:
        """What an awaitable gave; an exception is the failure of its field. `read` goes on with it."""

    def expire(self) -> None:
        """It took too long: what is still awaited has failed. `read` delivers what there is."""

    def close(self) -> None:
        """It is done, or nobody waits for it any more."""

@final
class Generation:
    """A running generator and the subscription that it fills."""

    @property
    def key(self) -> int:
        """By which it is abandoned."""

    @property
    def function(self) -> int:
        """The function's position among the declarations."""

    @property
    def field_name(self) -> str:
        """The subscription field's GraphQL name."""

    def arguments(self) -> dict[str, Any]:
        """The coerced arguments by Python name, as plain JSON values."""

    def watcher(self) -> tuple[SecurityContext, tuple[str, ...]]:
        """The viewer and the selected paths."""

    def operation(self) -> dict[str, Any]:
        """`operation_name`, `variables` and `connection_id`."""

    def has_room(self) -> bool:
        """Whether the queue has room now."""

    def room(self) -> Future[bool]:
        """Done when the queue has room; the result says whether to go on."""

    def emit(self, value: object) -> Reading | None:
        """Reads what was yielded and delivers it, like `Call.finish`."""

    def complete(self) -> None:
        """It ended by itself."""

    def fail(self, exception: BaseException) -> None:
        """It raised."""

def postgres_sql(schema: str, migrations: Sequence[str] | None = None) -> str:
    """The SQL that `postgres_install` runs.

    Args:
        schema: The schema's name.
        migrations: For tests: steps from each version to the next, in place of those that there are.

    Raises:
        ValueError: It is no name for a schema.
    """

def postgres_install(dsn: str, schema: str) -> tuple[int | None, int]:
    """Installs the schema or brings it up to date, and waits; returns the versions before (`None`: none) and now.

    Raises:
        BusUnavailable: The server cannot be reached or worked with.
        ValueError: The DSN or the name is wrong, or the server refuses; the text has its reason. So below.
    """

def postgres_track(
    dsn: str,
    schema: str,
    table: str,
    *,
    channel: str | None,
    tenant_column: str | None,
    columns: Sequence[str] | None,
    oversize: str,
) -> str:
    """Has a table publish each row that changes, or changes how; returns the channel.

    Args:
        dsn: The database.
        schema: The schema's name.
        table: As SQL writes it.
        channel: Where to publish; by default the table's name.
        tenant_column: The column that says whose a row is.
        columns: What is sent of a row, by default all of it; as they are stored.
        oversize: `raise` or `key-only`.
    """

def postgres_untrack(dsn: str, schema: str, table: str) -> bool:
    """Has a table publish nothing any more; returns whether it did."""

def postgres_prune(dsn: str, schema: str, history: int, age: float) -> int:
    """Deletes events beyond the last `history` of their channel or older than `age` seconds; returns how many."""
