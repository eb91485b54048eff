"""Runs the declared functions: async ones and generators on the loop that entered the manager, sync ones in threads.

Which call is due, who shares it and in which order results go out is decided in Rust; here is calling and awaiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import GraphQLError
from .info import Info
from .security import SecurityContext
from .stepping import Stepper, task_in
from .threads import Threads

if TYPE_CHECKING:
    from ._core import Call, Generation, Reading
    from .arguments import Function
    from .limits import Limits

logger = logging.getLogger("fraiseql_subs")

#: Seconds between two slices of reading: as long as a slice takes.
_PAUSE = 0.002

#: A function that suspends does so again, mostly, and a step by hand was in vain: this many calls are spared it.
_STRAIGHT = 7


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
        self._stepper = Stepper(self._loop, self._context, self.task)
        # By the keys of generators and of calls that are abandoned together.
        self._running: dict[int, dict[_Running, Call | Generation | _Async]] = {}
        # Tasks that nobody waits for any more, until they have ended.
        self._leaving: set[asyncio.Task[None]] = set()
        # What goes on with results that take long to read, in turn.
        self._reading: deque[Callable[[], object]] = deque()
        # Functions that have suspended: so many of their next calls get a task at once.
        self._straight: dict[int, int] = {}
        self._ended = False
        self._pool = Threads(self._threads)

    async def close(self) -> None:
        """Cancels what still runs and waits for its end, but for threads: those end when their functions return."""
        for each in [each for running in self._running.values() for each in running]:
            if not isinstance(each, Future):
                self._cancel(each)
        self._leave(self._stepper.end())
        await asyncio.gather(*self._leaving, return_exceptions=True)
        self._pool.close()

    def start(self, calls: Sequence[Call]) -> None:
        """Starts calls; runs on the loop, for a burst at once."""
        for call in calls:
            try:
                if self._functions[call.function].kind == "sync":
                    self._submit(call)
                else:
                    self._begin(call)
            except Exception as error:  # of the loop, or the system has no more threads; the others begin all the same
                call.fail(error)

    def abandon(self, key: int) -> None:
        """Nobody waits any more: tasks are cancelled, generators closed; what waits for a thread is never called."""
        for running in tuple(self._running.get(key, ())):
            self._cancel(running)

    def _cancel(self, running: _Running) -> None:
        if isinstance(running, _Async):
            self._leave(running.tasks())
        elif isinstance(running, asyncio.Task):
            self._leave([running])
        running.cancel()

    def _leave(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

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

    def add(self, running: _Running, what: Call | Generation | _Async) -> Callable[[], None]:
        """Returns what takes it out again, of this run: a thread may go on into the next, which has keys of its own."""
        by_key, key = self._running, what.key
        by_key.setdefault(key, {})[running] = what

        def remove() -> None:
            if key in by_key:
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

    # ---- async functions ----

    def _begin(self, call: Call) -> None:
        running = _Async(self, call)
        coroutine, straight = self._call(call, running), self._straight.get(call.function, 0)
        if straight:
            self._straight[call.function] = straight - 1
            running.suspended(self.task(coroutine, self._context.copy()))
            return
        try:
            task = self._stepper.step(coroutine)
        except asyncio.CancelledError:
            return  # its own, which is its failure
        except (KeyboardInterrupt, SystemExit) as error:
            self._loop.call_soon(_raise, error)  # as a task would: from the loop, and not from here
            return
        if task is not None:
            self._straight[call.function] = _STRAIGHT
            running.suspended(task)

    async def _call(self, call: Call, running: _Async) -> None:
        try:
            function = self._functions[call.function]
            reading = call.finish(await function.call(call.event(), call.arguments(), _info(call)))
            if reading is None:
                running.done()
            else:
                running.read_on(reading)
        except (Exception, GeneratorExit) as error:
            call.fail(error)
            running.done()
        except BaseException as error:
            call.fail(error)
            running.done()
            raise

    def timeout_of(self, call: Call) -> float:
        """Seconds that a call may take."""
        timeout = call.timeout
        return self._timeout if timeout is None else timeout

    def call_later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Has the loop call something."""
        return self._loop.call_later(seconds, callback)

    def say_late(self, call: Call) -> None:
        """Logs that a call has timed out."""
        logger.warning("%s timed out and is cancelled", self._functions[call.function].name)

    def later(self, read: Callable[[], object]) -> None:
        """Has a result read further when it is its turn: one slice at a time, and the loop is free between them."""
        self._reading.append(read)
        if len(self._reading) == 1:
            self._loop.call_later(_PAUSE, self._read_next)

    def _read_next(self) -> None:
        read = self._reading[0]
        try:
            read()
        finally:
            # Taken out last: until then nobody else asks the loop to come back.
            self._reading.popleft()
            if self._reading:
                self._loop.call_later(_PAUSE, self._read_next)

    def task(self, coroutine: Coroutine[Any, Any, None], context: contextvars.Context) -> asyncio.Task[None]:
        """A task in this context."""
        return task_in(self._loop, context, coroutine)

    # ---- sync functions ----

    def _submit(self, call: Call) -> None:
        loop, timeout = self._loop, self.timeout_of(call)
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
                call.finish(function.call(call.event(), call.arguments(), _info(call)))
            except BaseException as error:
                call.fail(error)

        future = self._pool.submit(partial(self._context.copy().run, run))
        timer = loop.call_later(timeout, expire)
        remove = self.add(future, call)

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
            task = self.task(self._generate(generation), self._context.copy())
        except Exception as error:
            generation.fail(error)
        else:
            remove = self.add(task, generation)
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
                reading = generation.emit(await anext(generator))
                if reading is not None:
                    await self._read(reading)
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

    async def _read(self, reading: Reading) -> None:
        """Waits until everything is read and delivered."""
        awaiting: set[asyncio.Task[None]] = set()
        woken = asyncio.Event()
        reading.go_on(woken.set)
        try:
            while True:
                awaiting |= _await(self, reading, contextvars.copy_context(), woken.set)
                if reading.has_more:
                    self.later(woken.set)
                await woken.wait()
                woken.clear()
                if reading.read():
                    return
        finally:
            reading.close()
            for task in awaiting:
                task.cancel()


class _Async:
    """An async call that has suspended, or whose result is read in several turns, until everything is delivered."""

    __slots__ = ("_awaiting", "_call", "_context", "_end", "_reading", "_runner", "_task")

    def __init__(self, runner: Runner, call: Call) -> None:
        self._runner = runner
        self._call = call
        self._task: asyncio.Task[None] | None = None
        self._reading: Reading | None = None
        self._awaiting: set[asyncio.Task[None]] = set()
        self._end: Callable[[], None] | None = None

    @property
    def key(self) -> int:
        """By which it is abandoned."""
        return self._call.key

    def suspended(self, task: asyncio.Task[None]) -> None:
        """The function goes on in a task."""
        self._task = task
        self._watch()

    def read_on(self, reading: Reading) -> None:
        """The function has returned, and its result is not read yet."""
        self._reading = reading
        self._context = contextvars.copy_context()
        reading.go_on(partial(self._context.run, self._read))
        self._await()
        self._watch()

    def tasks(self) -> list[asyncio.Task[None]]:
        """What it has to do with."""
        return [task for task in (self._task, *self._awaiting) if task is not None]

    def cancel(self) -> None:
        """Nobody waits for it."""
        for task in self.tasks():
            task.cancel()
        self.done()

    def done(self) -> None:
        """Everything is delivered, or nobody waits for it."""
        if self._reading is not None:
            self._reading.close()
        for task in self._awaiting:
            task.cancel()
        if self._end is not None:
            self._end()

    def fail(self, error: BaseException) -> None:
        """It will never end: its loop has."""
        self._call.fail(error)
        if self._reading is not None:
            self._reading.close()

    def _watch(self) -> None:
        if self._end is not None:
            return
        timer = self._runner.call_later(self._runner.timeout_of(self._call), self._expire)
        remove = self._runner.add(self, self)

        def end() -> None:
            timer.cancel()
            remove()

        self._end = end

    def _expire(self) -> None:
        is_awaited = self._reading is not None
        if self._reading is not None:
            self._reading.expire()
            self._context.run(self._read)
        elif self._task is not None:
            self._task.cancel()
            is_awaited = self._call.expire()
        if is_awaited:
            self._runner.say_late(self._call)

    def _await(self) -> None:
        assert self._reading is not None
        read = partial(self._context.run, self._read)
        self._awaiting |= _await(self._runner, self._reading, self._context, read)
        if self._reading.has_more:
            self._runner.later(read)

    def _read(self) -> None:
        assert self._reading is not None
        if self._reading.read():
            self.done()
        else:
            self._await()


_Running: TypeAlias = "_Async | asyncio.Task[None] | Future[None]"


def _await(
    runner: Runner, reading: Reading, context: contextvars.Context, then: Callable[[], object]
) -> set[asyncio.Task[None]]:
    """Awaits what a reading has found to be awaited, each in a task of its own."""

    async def outcome(number: int, awaitable: Awaitable[Any]) -> None:
        try:
            result = await awaitable
        except (Exception, GeneratorExit, asyncio.CancelledError) as error:
            result = error
        reading.supply(number, result)
        then()

    return {runner.task(outcome(*found), context.copy()) for found in reading.awaitables()}


def _raise(error: BaseException) -> None:
    raise error


async def _close(generator: AsyncGenerator[Any, None], name: str) -> None:
    try:
        await generator.aclose()
    except Exception:
        logger.exception("%s raised when it was closed", name)


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
