"""Runs the declared functions: async ones and generators on the loop that entered the manager, sync ones in threads.

Which call is due, who shares it and in which order results go out is decided in Rust; here is calling and awaiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from .errors import GraphQLError
from .info import Info
from .security import SecurityContext
from .threads import Threads

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from ._core import Call, Generation
    from .arguments import Function
    from .limits import Limits

logger = logging.getLogger("fraiseql_subs")


class Runner:
    """Runs the functions of a schema between a manager's entry and its exit.

    Args:
        functions: In the order of their declaration, by which Rust knows them.
        limits: `resolver_timeout` and `resolver_threads` count here.
    """

    def __init__(self, functions: Sequence[Function], limits: Limits) -> None:
        self._functions = functions
        self._timeout = limits.resolver_timeout
        self._threads = limits.resolver_threads

    def open(self) -> None:
        """Takes the running loop and the present context for all functions to come."""
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        # By the keys of generators and of calls that are abandoned together.
        self._running: dict[int, dict[asyncio.Task[None] | Future[None], Call | Generation]] = {}
        self._ended = False
        self._pool = Threads(self._threads)

    async def close(self) -> None:
        """Cancels what still runs and waits for its end, but for threads: those end when their functions return."""
        tasks = [each for running in self._running.values() for each in running if isinstance(each, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.close()

    def start(self, calls: Sequence[Call]) -> None:
        """Starts calls; runs on the loop, for a burst at once."""
        for call in calls:
            try:
                if self._functions[call.function].kind == "sync":
                    self._submit(call)
                else:
                    self._spawn(call)
            except Exception as error:  # of the loop, or the system has no more threads; the others begin all the same
                call.fail(error)

    def abandon(self, key: int) -> None:
        """Nobody waits any more: tasks are cancelled, generators closed; what waits for a thread is never called."""
        for running in tuple(self._running.get(key, ())):
            running.cancel()

    def ended(self, is_needed: bool) -> None:
        """The loop was closed before the manager was left: nothing can run. `is_needed`: something should have."""
        lost = [each for running in tuple(self._running.values()) for each in tuple(running.values())]
        for each in lost:
            each.fail(asyncio.CancelledError())
        if (lost or is_needed) and not self._ended:
            self._ended = True
            logger.error(
                "the event loop that entered the SubscriptionManager is closed, so no function can run: every event "
                "that needs one is an error. Enter the manager on the loop that serves the application (its lifespan, "
                "or `async with manager`), not by asyncio.run or async_to_sync"
            )

    def _add(self, running: asyncio.Task[None] | Future[None], what: Call | Generation) -> Callable[[], None]:
        """Returns what takes it out again, of this run: a thread may go on into the next, which has keys of its own."""
        by_key, key = self._running, what.key
        by_key.setdefault(key, {})[running] = what

        def remove() -> None:
            by_key[key].pop(running, None)
            if not by_key[key]:
                del by_key[key]

        return remove

    def report(
        self, what: str, error: BaseException, field: str, function: int, event_id: str | None, event_type: str | None
    ) -> None:
        """Logs what a function, or something in its result, has raised."""
        event = "no event" if event_id is None else f"event {event_id} of type {event_type}"
        logger.error("%s %s (field %s, %s)", self._functions[function].name, what, field, event, exc_info=error)

    def _timeout_of(self, call: Call) -> float:
        timeout = call.timeout
        return self._timeout if timeout is None else timeout

    # ---- async functions ----

    def _spawn(self, call: Call) -> None:
        task = self._task(self._call(call))
        remove = self._add(task, call)
        timer = self._loop.call_later(self._timeout_of(call), self._expire, call, task)

        def done(_: asyncio.Task[None]) -> None:
            timer.cancel()
            remove()

        task.add_done_callback(done)

    async def _call(self, call: Call) -> None:
        try:
            function = self._functions[call.function]
            result = await function.call(call.event(), call.arguments(), _info(call))
            awaited = call.finish(result, True)
            while awaited:
                awaited = call.supply(await _outcomes(awaited))
        except (Exception, GeneratorExit) as error:
            call.fail(error)
        except BaseException as error:
            call.fail(error)
            raise

    def _expire(self, call: Call, task: asyncio.Task[None]) -> None:
        task.cancel()
        if call.expire():
            logger.warning("%s timed out and is cancelled", self._functions[call.function].name)

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = self._context.copy()
        try:
            if sys.version_info >= (3, 11):
                return self._loop.create_task(coroutine, context=context)
            return context.run(self._loop.create_task, coroutine)
        except BaseException:  # of a loop's own task factory
            coroutine.close()
            raise

    # ---- sync functions ----

    def _submit(self, call: Call) -> None:
        loop, timeout = self._loop, self._timeout_of(call)
        started: list[float] = []  # when the thread began, on the loop's clock

        def expire() -> None:
            left = started[0] + timeout - loop.time() if started else 0.0
            if left > 0:
                loop.call_later(left, expire)
            elif call.expire():
                what = "waited too long for a thread" if future.cancel() else "timed out; its thread goes on"
                logger.warning("%s %s", self._functions[call.function].name, what)

        def run() -> None:
            started.append(loop.time())
            try:
                function = self._functions[call.function]
                call.finish(function.call(call.event(), call.arguments(), _info(call)), False)
            except BaseException as error:
                call.fail(error)

        future = self._pool.submit(partial(self._context.copy().run, run))
        timer = loop.call_later(timeout, expire)
        remove = self._add(future, call)

        def done() -> None:
            call.release()
            timer.cancel()
            remove()

        def done_in_thread(_: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed keeps nothing
                loop.call_soon_threadsafe(done)

        future.add_done_callback(done_in_thread)

    # ---- generators ----

    def generate(self, generation: Generation) -> None:
        """Starts the generator of one subscription."""
        try:
            task = self._task(self._generate(generation))
        except Exception as error:
            generation.fail(error)
        else:
            remove = self._add(task, generation)
            task.add_done_callback(lambda _: remove())

    async def _generate(self, generation: Generation) -> None:
        generator: AsyncGenerator[Any, None] | None = None
        try:
            viewer, selected = generation.watcher()
            info = Info(viewer, generation.field_name, selected, operation=generation.operation())
            function = self._functions[generation.function]
            generator = function.call(None, generation.arguments(), info)
            # Asked for only while there is room: a slow reader slows its generator down.
            while generation.has_room() or await generation.room():
                awaited = generation.emit(await anext(generator))
                while awaited:
                    awaited = generation.supply(await _outcomes(awaited))
            return
        except StopAsyncIteration:
            generation.complete()
        except (Exception, GeneratorExit) as error:
            generation.fail(error)
        except BaseException as error:
            generation.fail(error)
            raise
        finally:
            if generator is not None:
                await _close(generator, self._functions[generation.function].name)


async def _close(generator: AsyncGenerator[Any, None], name: str) -> None:
    try:
        await generator.aclose()
    except Exception:
        logger.exception("%s raised when it was closed", name)


async def _outcomes(awaitables: Sequence[Awaitable[Any]]) -> list[Any]:
    """What each gives, or its exception: one that cannot even be awaited here must not fail the others."""
    # The same object may stand in several places, and some can be awaited only once.
    started = {id(awaitable): _outcome(awaitable) for awaitable in awaitables}
    return await asyncio.gather(*(started[id(awaitable)] for awaitable in awaitables), return_exceptions=True)


async def _outcome(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _info(call: Call) -> Info | None:
    watcher = call.watcher()
    if watcher is None:
        return None
    viewer, selected = watcher
    return Info(_lasting(viewer), call.field_name, selected)


def _lasting(viewer: SecurityContext) -> SecurityContext:
    """The viewer as calls may share it: contexts that differ in `expires_at` alone are one viewer."""
    is_plain = type(viewer) is SecurityContext and viewer.expires_at is None
    return viewer if is_plain else viewer._without_expiry()


def told(error: BaseException) -> tuple[str, object] | None:
    """Message and extensions of a `GraphQLError` (ours, or graphql-core's); of others clients know nothing."""
    if not isinstance(error, GraphQLError):
        core = sys.modules.get("graphql")
        if core is None or not isinstance(error, core.GraphQLError):
            return None
    # A message may be a text that is translated when it is read, which is no str.
    return str(error.message), error.extensions
