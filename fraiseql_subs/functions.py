"""Runs the declared functions: async ones and generators on the loop that entered the manager, sync ones in threads.

Which call is due, who shares it and in which order results go out is decided in Rust; here is calling and awaiting.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .errors import GraphQLError
from .info import Info
from .security import SecurityContext

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
        self._running: dict[int, set[asyncio.Task[None] | Future[None]]] = {}
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fraiseql-subs")

    async def close(self) -> None:
        """Cancels what still runs and waits for its end; threads end when their functions return."""
        tasks = [each for running in self._running.values() for each in running if isinstance(each, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def start(self, calls: Sequence[Call]) -> None:
        """Starts calls; runs on the loop, for a burst at once."""
        for call in calls:
            if self._functions[call.function].kind == "sync":
                self._submit(call)
            else:
                self._spawn(call)

    def abandon(self, key: int) -> None:
        """Nobody waits any more: tasks are cancelled, generators closed; what waits for a thread is never called."""
        for running in tuple(self._running.get(key, ())):
            running.cancel()

    def _add(self, key: int, running: asyncio.Task[None] | Future[None]) -> None:
        self._running.setdefault(key, set()).add(running)

    def _remove(self, key: int, running: asyncio.Task[None] | Future[None]) -> None:
        self._running[key].discard(running)
        if not self._running[key]:
            del self._running[key]

    def _timeout_of(self, call: Call) -> float:
        timeout = call.timeout
        return self._timeout if timeout is None else timeout

    # ---- async functions ----

    def _spawn(self, call: Call) -> None:
        task = self._task(self._call(call))
        self._add(call.key, task)
        timer = self._loop.call_later(self._timeout_of(call), self._expire, call, task)

        def done(task: asyncio.Task[None]) -> None:
            timer.cancel()
            self._remove(call.key, task)

        task.add_done_callback(done)

    async def _call(self, call: Call) -> None:
        try:
            function = self._functions[call.function]
            result = await function.call(call.event(), call.arguments(), _info(call))
            awaited = call.finish(result, True)
            while awaited:
                awaited = call.supply(await _outcomes(awaited))
        except asyncio.CancelledError as error:
            call.fail(error)
            raise
        except Exception as error:
            call.fail(error)

    def _expire(self, call: Call, task: asyncio.Task[None]) -> None:
        if call.expire():
            logger.warning("%s timed out and is cancelled", self._functions[call.function].name)
        task.cancel()

    def _task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = self._context.copy()
        if sys.version_info >= (3, 11):
            return self._loop.create_task(coroutine, context=context)
        return context.run(self._loop.create_task, coroutine)

    # ---- sync functions ----

    def _submit(self, call: Call) -> None:
        timeout = self._timeout_of(call)
        started: list[float] = []  # when the thread began, on the loop's clock

        def expire() -> None:
            left = started[0] + timeout - self._loop.time() if started else 0.0
            if left > 0:
                self._loop.call_later(left, expire)
            elif call.expire():
                what = "waited too long for a thread" if future.cancel() else "timed out; its thread goes on"
                logger.warning("%s %s", self._functions[call.function].name, what)

        def run() -> None:
            started.append(self._loop.time())
            try:
                function = self._functions[call.function]
                call.finish(function.call(call.event(), call.arguments(), _info(call)), False)
            except BaseException as error:
                call.fail(error)

        timer = self._loop.call_later(timeout, expire)
        future = self._pool.submit(self._context.copy().run, run)
        self._add(call.key, future)

        def done() -> None:
            call.release()
            timer.cancel()
            self._remove(call.key, future)

        future.add_done_callback(lambda _: self._on_loop(done))

    def _on_loop(self, callback: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    # ---- generators ----

    def generate(self, generation: Generation) -> None:
        """Starts the generator of one subscription."""
        task = self._task(self._generate(generation))
        self._add(generation.key, task)
        task.add_done_callback(lambda task: self._remove(generation.key, task))

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
        except asyncio.CancelledError as error:
            generation.fail(error)
            raise
        except Exception as error:
            generation.fail(error)
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


def mask(error: BaseException) -> tuple[str, dict[str, Any] | None]:
    """What a client may know: all of a `GraphQLError` (ours, or graphql-core's), nothing of another exception."""
    if isinstance(error, GraphQLError):
        return error.message, error.extensions
    core = sys.modules.get("graphql")
    if core is not None and isinstance(error, core.GraphQLError):
        return error.message, error.extensions
    if not isinstance(error, asyncio.CancelledError):
        logger.error("a subscription function failed", exc_info=error)
    return "Internal server error", None
