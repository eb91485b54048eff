"""Odd ends of functions: each is an error at its place, counted, and logged with what had been called."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import graphql
import pytest

from fraiseql_subs import Event, GraphQLError, GraphQLRequestError, SubscriptionManager, subscription

from .support import entered, handled, manager_of, one, rest, soon, take
from .test_functions import Item, failed


class Lazy:
    """A text that is made when it is read, as Django's `gettext_lazy` gives it."""

    def __init__(self, text: str | None) -> None:
        self._text = text

    def __str__(self) -> str:
        if self._text is None:
            raise ZeroDivisionError("no translation")
        return self._text


class Mute(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError("no text")


class Broken(logging.Handler):
    """A handler that raises."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise OSError("the disk is full")


MASKED = failed("fails", "Internal server error")


def of_functions(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "fraiseql_subs"]


def failing(kind: str, error: BaseException) -> SubscriptionManager:
    """Its function raises for the event 0, and for no other."""

    def body(event: Event) -> int | None:
        if event.data["n"] == 0:
            raise error
        return int(event.data["n"])

    if kind == "async":

        @subscription(channel="c")
        async def fails(event: Event) -> int | None:
            return body(event)
    else:

        @subscription(channel="c")
        def fails(event: Event) -> int | None:  # type: ignore[misc]  # one of two
            return body(event)

    return manager_of(fails)


async def is_told(manager: SubscriptionManager, expected: dict[str, Any]) -> str:
    """The event 0 gives this, counted as an error; the next one goes well. Returns the id of the first."""
    async with manager, manager.subscribe("subscription { fails }") as stream:
        event_id = await manager.publish_event("sort", "c", {"n": 0})
        await manager.publish_event("sort", "c", {"n": 1})
        assert await take(stream, 2) == [expected, {"data": {"fails": 1}}]
        assert manager.get_metrics()["resolver_errors"] == 1
    return event_id


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("error", [GeneratorExit("a secret"), Mute()], ids=["GeneratorExit", "no text"])
async def test_a_function_that_raises_something_odd(kind, error, caplog):
    event_id = await is_told(failing(kind, error), MASKED)
    [record] = of_functions(caplog)
    assert record.exc_info
    assert record.exc_info[1] is error
    text = record.getMessage()
    assert "fails" in text.partition(" failed ")[0]
    assert f"(field fails, event {event_id} of type sort)" in text


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("make", [GraphQLError, graphql.GraphQLError], ids=["ours", "core"])
async def test_a_lazy_message_is_told(kind, make, caplog):
    await is_told(failing(kind, make(Lazy("zu spät"))), failed("fails", "zu spät"))
    assert of_functions(caplog) == []


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_message_that_cannot_be_had_is_masked_and_logged(kind, caplog):
    event_id = await is_told(failing(kind, GraphQLError(Lazy(None))), MASKED)  # type: ignore[arg-type]
    first, second = of_functions(caplog)
    assert first.exc_info
    assert isinstance(first.exc_info[1], ZeroDivisionError)
    assert second.exc_info
    assert isinstance(second.exc_info[1], GraphQLError)
    assert all(f"(field fails, event {event_id} of type sort)" in text for text in caplog.messages)


@pytest.mark.parametrize("extensions", [{"a": object()}, {"a": {1: 2}}, {"a": float("nan")}, [1], "text"])
async def test_extensions_that_are_no_json_are_left_out_and_logged(extensions, caplog):
    error = GraphQLError("told")
    error.extensions = extensions
    event_id = await is_told(failing("async", error), failed("fails", "told"))
    [record] = of_functions(caplog)
    assert f"extensions cannot be told (field fails, event {event_id} of type sort)" in record.getMessage()
    assert record.exc_info
    assert "extensions" in str(record.exc_info[1])


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_logging_handler_that_raises(kind, monkeypatch):
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda raised: unraisable.append(raised.exc_value))
    with handled(Broken(), "fraiseql_subs"):
        await is_told(failing(kind, ValueError("a secret")), MASKED)
    assert [type(error) for error in unraisable] == [OSError]


async def test_a_logging_handler_that_raises_keeps_no_call_from_being_cancelled():
    cancelled: list[int] = []

    @subscription(channel="c", timeout=0.05)
    async def fails(event: Event) -> int | None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(event.data["n"])
        return 1

    manager = manager_of(fails)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # it hears of the handler's error
    with handled(Broken(), "fraiseql_subs"):
        async with manager, manager.subscribe("subscription { fails }") as stream:
            await manager.publish_event("x", "c", {"n": 7})
            assert await one(stream) == failed("fails", "The function timed out", "TIMEOUT")
            await asyncio.sleep(0)
            assert cancelled == [7]


@pytest.mark.parametrize("place", ["generator", "property"])
async def test_generator_exit_elsewhere(place, caplog):
    class Leaving:
        id = "1"

        @property
        def name(self) -> str:
            raise GeneratorExit

    @subscription
    async def generates() -> AsyncIterator[int]:
        yield 1
        raise GeneratorExit

    @subscription(channel="c")
    async def reads(event: Event) -> Item:
        return Leaving()  # type: ignore[return-value]  # it is as good as an item

    manager = manager_of(generates, reads)
    async with manager:
        if place == "generator":
            async with manager.subscribe("subscription { generates }") as stream:
                assert await one(stream) == {"data": {"generates": 1}}
                with pytest.raises(GraphQLRequestError, match="Internal server error"):
                    await soon(anext(stream))
                assert await rest(stream) == []
            assert manager.get_metrics()["resolver_errors"] == 1
            assert "(field generates, no event)" in caplog.text
        else:
            async with manager.subscribe("subscription { reads { id name } }") as stream:
                event_id = await manager.publish_event("sort", "c", {})
                payload = await one(stream)
            assert payload["data"] == {"reads": {"id": "1", "name": None}}
            assert [error["path"] for error in payload["errors"]] == [["reads", "name"]]
            assert f"(field reads, event {event_id} of type sort)" in caplog.text
    assert len(of_functions(caplog)) == 1


@contextlib.contextmanager
def failing_tasks(*numbers: int) -> Iterator[None]:
    """The loop fails to make these of the tasks of functions, from 0 on."""
    loop, made = asyncio.get_running_loop(), iter(range(100))

    def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
        if coroutine.__qualname__.startswith(("Runner.", "_Parked.")) and next(made) in numbers:
            raise OSError("no more tasks")
        return asyncio.Task(coroutine, loop=loop, **more)

    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("bad", [[0], [1], [3], [0, 1, 2, 3]])
async def test_one_error_in_a_burst_is_one_error(bad, caplog):
    """Calls and generators that wait for the loop together."""

    @subscription(channel="c")
    async def called(event: Event) -> int | None:
        await asyncio.sleep(0)  # one that does not suspend needs no task
        return int(event.data["n"])

    @subscription
    async def generated(n: int) -> AsyncIterator[int]:
        yield n

    manager = manager_of(called, generated)
    async with manager, contextlib.AsyncExitStack() as stack:
        calls = await entered(stack, manager.subscribe("subscription { called }"))
        with failing_tasks(*bad):
            streams = [
                await entered(stack, manager.subscribe(f"subscription {{ generated(n: {n}) }}")) for n in range(2)
            ]
            for n in range(2):
                await manager.publish_event("x", "c", {"n": n})
            got = []
            for n, stream in enumerate(streams):
                if n not in bad:
                    assert await one(stream) == {"data": {"generated": n}}
                    continue
                with pytest.raises(GraphQLRequestError, match="Internal server error"):
                    await soon(anext(stream))
                got.append(n)
            for n, payload in enumerate(await take(calls, 2)):
                if payload == failed("called", "Internal server error"):
                    got.append(2 + n)
                else:
                    assert payload == {"data": {"called": n}}
        assert got == bad
        assert manager.get_metrics()["resolver_errors"] == len(bad)
    assert len(of_functions(caplog)) == len(bad)


async def test_a_null_for_want_of_an_attribute_is_said_once(caplog):
    class Partial:
        id = "1"

    @subscription(channel="c")
    async def item(event: Event) -> Item:
        return Partial() if event.data["n"] else {"id": "2"}  # type: ignore[return-value]

    manager = manager_of(item)
    async with manager, manager.subscribe("subscription { item { id name other { id } } }") as stream:
        for n in (0, 1, 1):
            await manager.publish_event("x", "c", {"n": n})
        payloads = await take(stream, 3)
    assert [payload["data"]["item"]["name"] for payload in payloads] == [None] * 3
    name, other = sorted(record.getMessage() for record in of_functions(caplog))
    assert name.startswith("Item.name is null")
    assert "Partial" in name
    assert name.endswith("has no attribute 'name'")
    assert other.startswith("Item.other is null")
    assert {record.levelno for record in of_functions(caplog)} == {logging.WARNING}
