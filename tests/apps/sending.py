"""What stands between us and a server, on whichever Python runs this: it prints what became of each case.

There is no server: a connection is two queues. So it needs nothing but the package, and anyio where a case names it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import logging
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from fraiseql_subs import Schema, SecurityContext, SubscriptionManager, subscription
from fraiseql_subs.asgi import SubscriptionApp

PATIENCE = 10.0
NAME: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="nobody's")

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Middleware = Callable[[Send, Message], Awaitable[None]]


@dataclass
class Tick:
    n: int


@subscription(channel="ticks", passthrough=True)
async def tick() -> Tick:
    raise NotImplementedError


class Connection:
    """One connection, whose `send` goes through a middleware."""

    def __init__(self, app: SubscriptionApp, name: str, middleware: Middleware) -> None:
        self.app, self.name, self.middleware = app, name, middleware
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()

    async def run(self) -> None:
        NAME.set(self.name)
        scope = {"type": "websocket", "headers": [], "subprotocols": ["graphql-transport-ws"]}
        await self.app(scope, self.incoming.get, self.send)

    def send(self, message: Message) -> Awaitable[None]:
        return self.middleware(self.reach, message)

    async def reach(self, message: Message) -> None:
        """The server's own `send`: it suspends while it is not open, as for a reader that is slow."""
        while not self.open.is_set():
            await self.open.wait()
        self.outgoing.put_nowait(message)

    def say(self, **message: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    async def message(self) -> Message:
        return await asyncio.wait_for(self.outgoing.get(), PATIENCE)

    async def number(self) -> int:
        """That of the next `next`."""
        message = await self.message()
        assert message["type"] == "websocket.send", message
        return int(json.loads(message["text"])["payload"]["data"]["tick"]["n"])

    async def closed(self) -> int:
        message = await self.message()
        assert message["type"] == "websocket.close", message
        return int(message["code"])


class World:
    """A manager and its connections."""

    def __init__(self, manager: SubscriptionManager) -> None:
        async def authenticate(payload: dict[str, Any]) -> SecurityContext:
            return SecurityContext(user_id=payload["user"])

        self.manager = manager
        self.app = SubscriptionApp(manager, auth_handler=authenticate)
        self.tasks: list[asyncio.Task[None]] = []

    async def connect(self, middleware: Middleware, name: str = "a") -> Connection:
        """A connection that is live."""
        connection = Connection(self.app, name, middleware)
        connection.incoming.put_nowait({"type": "websocket.connect"})
        self.tasks.append(asyncio.create_task(connection.run()))
        assert (await connection.message())["type"] == "websocket.accept"
        connection.say(type="connection_init", payload={"user": name})
        assert "connection_ack" in (await connection.message())["text"]
        connection.say(type="subscribe", id="1", payload={"query": "subscription { tick { n } }"})
        connection.say(type="ping")
        assert "pong" in (await connection.message())["text"]
        return connection

    async def publish(self, *numbers: int) -> None:
        """Publishes in a context of the publisher's own."""

        async def publish() -> None:
            NAME.set("the publisher's")
            for n in numbers:
                await self.manager.publish_event("tick", "ticks", {"n": n})

        await asyncio.create_task(publish())

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with SubscriptionManager(Schema(subscriptions=[tick])) as manager:
        made = World(manager)
        try:
            yield made
        finally:
            await made.end()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "tasks are left"
        assert manager.get_metrics()["connections"] == 0


class Seen(logging.Handler):
    """Whose context log records are written in."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, getattr(record, "event", record.getMessage()), NAME.get()))


@contextlib.contextmanager
def seen() -> Iterator[list[tuple[str, str, str]]]:
    handler, logger = Seen(), logging.getLogger("fraiseql_subs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- the cases ----


CASES: list[Callable[[], Awaitable[None]]] = []


def case(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    CASES.append(function)
    return function


def since_3_11(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
    """A case of what asyncio has since then."""
    return case(function) if sys.version_info >= (3, 11) else function


@case
async def one_task_and_one_context_from_first_step_to_last() -> None:
    saw: dict[str, set[Any]] = {"a": set(), "b": set()}

    async def look(send: Send, message: Message) -> None:
        name = NAME.get()
        if message["type"] == "websocket.send":
            saw[name].add(asyncio.current_task())
        await turns()
        await send(message)
        await turns()
        assert NAME.get() == name
        if message["type"] == "websocket.send":
            saw[name].add(asyncio.current_task())

    async with world() as made:
        connections = [await made.connect(look, name) for name in ("a", "b")]
        for n in range(20):
            await made.publish(n)
            assert [await each.number() for each in connections] == [n, n]
        thread = threading.Thread(target=lambda: asyncio.run(made.publish(20, 21)))
        thread.start()
        assert [await each.number() for each in connections] == [20, 20]
        thread.join()
        assert {len(tasks) for tasks in saw.values()} == {1}, saw
        assert not saw["a"] & saw["b"]
        assert not (saw["a"] | saw["b"]) & set(made.tasks)


@case
async def what_does_not_suspend_has_the_same_task_and_context() -> None:
    saw: list[tuple[Any, str]] = []

    async def look(send: Send, message: Message) -> None:
        if message["type"] == "websocket.send":
            saw.append((asyncio.current_task(), NAME.get()))
        await send(message)

    async with world() as made:
        connection = await made.connect(look)
        connection.open.clear()
        await made.publish(1, 2, 3)
        await turns()
        connection.open.set()
        assert [await connection.number() for _ in range(3)] == [1, 2, 3]
        await made.publish(4, 5)
        assert [await connection.number() for _ in range(2)] == [4, 5]
        assert len(saw) == 7
        assert set(saw) == {(saw[0][0], "a")}


@case
async def accept_and_close_are_sent_in_the_task_that_called_us() -> None:
    saw: dict[str, Any] = {}

    async def look(send: Send, message: Message) -> None:
        saw[message["type"]] = asyncio.current_task()
        await send(message)

    async with world() as made:
        connection = await made.connect(look)
        connection.say(type="connection_init")
        assert await connection.closed() == 4429
        [called] = made.tasks
        assert (saw["websocket.accept"], saw["websocket.close"]) == (called, called)
        assert saw["websocket.send"] is not called


@case
async def what_a_send_sets_the_next_one_finds() -> None:
    count: contextvars.ContextVar[int] = contextvars.ContextVar("count", default=0)
    counts: list[int] = []

    async def add(send: Send, message: Message) -> None:
        count.set(count.get() + 1)
        if message["type"] == "websocket.send":
            counts.append(count.get())
        if count.get() % 2:
            await turns(1)
        await send(message)

    async with world() as made:
        connection = await made.connect(add)
        await made.publish(*range(6))
        assert [await connection.number() for _ in range(6)] == list(range(6))
        # The accept had a context of its own, which was copied before it.
        assert counts == list(range(1, 9))


@case
async def a_token_is_given_back_where_it_was_taken() -> None:
    async def renamed(send: Send, message: Message) -> None:
        token = NAME.set("the send's")
        await turns(2)
        await send(message)
        NAME.reset(token)
        assert NAME.get() == "a"

    async with world() as made:
        connection = await made.connect(renamed)
        await made.publish(1, 2)
        assert [await connection.number() for _ in range(2)] == [1, 2]


@case
async def a_send_that_is_no_coroutine() -> None:
    class Plain:
        """An awaitable whose steps take neither values nor exceptions."""

        def __init__(self, steps: list[None]) -> None:
            self.steps = iter(steps)

        def __await__(self) -> Any:
            return self.steps

    sent: list[Message] = []

    def plainly(send: Send, message: Message) -> Plain:
        sent.append(message)
        if len(sent) == 3:
            connection.outgoing.put_nowait(message)
        return Plain([None, None])

    async with world() as made:
        connection = await made.connect(lambda send, message: send(message))
        connection.middleware = plainly
        await made.publish(1, 2, 3)
        assert await connection.number() == 3
        assert ['"n":1' in sent[0]["text"], '"n":2' in sent[1]["text"], len(sent)] == [True, True, 3]


@case
async def a_send_that_raises_ends_its_connection_and_is_told_in_its_context() -> None:
    async def breaks(send: Send, message: Message) -> None:
        if "next" in message.get("text", ""):
            if NAME.get() == "b":
                await turns(1)
            raise LookupError("broken middleware")
        await send(message)

    with seen() as records:
        async with world() as made:
            connections = [await made.connect(breaks, name) for name in ("a", "b")]
            await made.publish(1)
            assert [await each.closed() for each in connections] == [4500, 4500]
    told = [(text, name) for _, text, name in records if "broken middleware" in text]
    assert sorted(name for _, name in told) == ["a", "b"], records


@case
async def audit_records_are_written_in_the_connections_context() -> None:
    async def plainly(send: Send, message: Message) -> None:
        await send(message)

    with seen() as records:
        async with world() as made:
            for name in ("a", "b"):
                await made.connect(plainly, name)
            made.tasks.append(asyncio.create_task(made.manager.revoke(user_id="b")))  # type: ignore[arg-type]
            late = Connection(made.app, "c", plainly)
            late.incoming.put_nowait({"type": "websocket.connect"})
            made.tasks.append(asyncio.create_task(late.run()))
            assert (await late.message())["type"] == "websocket.accept"
            late.say(type="connection_init", payload={})
            assert await late.closed() == 4403
            await turns()
    audited = [(event, name) for logger, event, name in records if logger == "fraiseql_subs.audit"]
    assert ("connection_accepted", "a") in audited
    assert ("connection_accepted", "b") in audited
    assert ("connection_refused", "c") in audited
    # What the handler raised is told there too.
    assert [name for _, text, name in records if text.startswith("auth_handler raised")] == ["c"]


@case
async def a_subscribe_that_is_refused_is_noted_in_the_connections_context() -> None:
    async def plainly(send: Send, message: Message) -> None:
        await send(message)

    with seen() as records:
        async with world() as made:
            connection = await made.connect(plainly)
            for n in range(2, 102):
                connection.say(type="subscribe", id=str(n), payload={"query": "subscription { tick { n } }"})
            assert "LIMIT_EXCEEDED" in (await connection.message())["text"]
            await turns()
    assert [name for _, event, name in records if event == "subscribe_refused"] == ["a"]


@case
async def a_revoked_connections_suspended_send_is_cancelled() -> None:
    cancelled: list[str] = []

    async def noted(send: Send, message: Message) -> None:
        try:
            await send(message)
        except asyncio.CancelledError:
            cancelled.append(message["type"])
            raise

    async with world() as made:
        connection = await made.connect(noted)
        connection.open.clear()
        await made.publish(1)
        await turns()
        await made.manager.revoke(user_id="a")
        assert cancelled == ["websocket.send"]
        connection.open.set()
        assert await connection.closed() == 4403


@case
async def a_send_that_cancels_its_own_task_ends_the_connection() -> None:
    async def cancels(send: Send, message: Message) -> None:
        await send(message)
        if "next" in message.get("text", ""):
            task = asyncio.current_task()
            assert task is not None
            task.cancel()

    async with world() as made:
        connection = await made.connect(cancels)
        await made.publish(1)
        assert await connection.number() == 1
        assert await connection.closed() == 4500


@since_3_11
async def a_timeout_that_passes_ends_what_it_wraps_and_nothing_else() -> None:
    late: list[int] = []

    async def impatient(send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(0.01):  # type: ignore[attr-defined, unused-ignore]
                await send(message)
        except TimeoutError:
            late.append(1)
            connection.open.set()
            await send(message)

    async with world() as made:
        connection = await made.connect(impatient)
        for n in range(3):
            connection.open.clear()
            await made.publish(n)
            assert await connection.number() == n
        assert late == [1, 1, 1]


@since_3_11
async def a_timeout_that_has_passed_before_the_first_suspension() -> None:
    late: list[int] = []

    async def hurried(send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(0):  # type: ignore[attr-defined, unused-ignore]
                await asyncio.Event().wait()
        except TimeoutError:
            late.append(1)
        await send(message)

    async with world() as made:
        connection = await made.connect(hurried)
        await made.publish(1, 2)
        assert [await connection.number() for _ in range(2)] == [1, 2]
        assert len(late) == 5
        assert made.tasks[0].cancelling() == 0  # type: ignore[attr-defined, unused-ignore]


@since_3_11
async def a_task_group_of_asyncio() -> None:
    async def grouped(send: Send, message: Message) -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
            group.create_task(turns())
        with contextlib.suppress(BaseException):
            async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined, unused-ignore]
                group.create_task(asyncio.wait_for(asyncio.Event().wait(), 0))
                await asyncio.Event().wait()
        await send(message)

    async with world() as made:
        connection = await made.connect(grouped)
        await made.publish(1, 2)
        assert [await connection.number() for _ in range(2)] == [1, 2]


@case
async def a_lock_of_anyio_among_connections() -> None:
    import anyio

    lock = anyio.Lock()

    async def one_by_one(send: Send, message: Message) -> None:
        async with lock:
            await turns(2)
            await send(message)

    async with world() as made:
        connections = [await made.connect(one_by_one, name) for name in ("a", "b", "c")]
        await made.publish(1, 2)
        for each in connections:
            assert [await each.number() for _ in range(2)] == [1, 2]


@case
async def a_deadline_of_anyio_that_is_met_and_one_that_passes() -> None:
    import anyio

    late: list[int] = []

    async def impatient(send: Send, message: Message) -> None:
        try:
            with anyio.fail_after(0.01):
                await send(message)
        except TimeoutError:
            late.append(1)
            connection.open.set()
            await send(message)

    async with world() as made:
        connection = await made.connect(impatient)
        await made.publish(0)
        assert await connection.number() == 0
        connection.open.clear()
        await made.publish(1)
        assert await connection.number() == 1
        await made.publish(2)
        assert await connection.number() == 2
        assert late == [1]


@case
async def a_scope_of_anyio_that_is_cancelled_at_once() -> None:
    import anyio

    async def cancels(send: Send, message: Message) -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await asyncio.Event().wait()
            raise AssertionError("it was not cancelled")
        assert scope.cancelled_caught
        with anyio.move_on_after(0):
            await anyio.sleep_forever()
        await send(message)

    async with world() as made:
        connection = await made.connect(cancels)
        await made.publish(1, 2)
        assert [await connection.number() for _ in range(2)] == [1, 2]


@case
async def a_task_group_of_anyio() -> None:
    import anyio

    async def grouped(send: Send, message: Message) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(turns)
            await turns(1)
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep_forever)
            group.cancel_scope.cancel()
        await send(message)

    async with world() as made:
        connection = await made.connect(grouped)
        await made.publish(1, 2)
        assert [await connection.number() for _ in range(2)] == [1, 2]


def main() -> None:
    outcomes = {}
    for function in CASES:
        try:
            asyncio.run(function())  # type: ignore[arg-type]
            outcome = "passed"
        except BaseException:
            outcome = traceback.format_exc()
        outcomes[function.__name__] = outcome
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
