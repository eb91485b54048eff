"""Coroutines that take their first step at once, as if in a task of their own, and cost one only if they suspend."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeAlias

# Before 3.11 a task runs in a copy of the context that it is given, in which nobody else can run.
_STEPS_FOR_TASKS = sys.version_info >= (3, 11)

#: After so many seconds without use a parked task is let go of.
_IDLE = 1.0

_MakeTask: TypeAlias = Callable[[Coroutine[Any, Any, None], contextvars.Context], "asyncio.Task[None]"]


def task_in(
    loop: asyncio.AbstractEventLoop, context: contextvars.Context, coroutine: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """A task in this context, or before Python 3.11 in a copy of it."""
    try:
        if sys.version_info >= (3, 11):
            return loop.create_task(coroutine, context=context)
        return context.run(loop.create_task, coroutine)
    except BaseException:  # of a loop's own task factory
        coroutine.close()
        raise


class Stepper:
    """Steps coroutines under the identity and in the context of a parked task, which sees those through that suspend.

    A coroutine that suspends takes the task along, and one that has changed a variable of the context its context: the
    next one finds others. So each runs as in a task of its own.

    Args:
        loop: Whose tasks they are. Stepping is done from its callbacks, not from within a task.
        context: What each coroutine finds.
        task: Makes a task of a coroutine and a context.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context, task: _MakeTask) -> None:
        self._loop = loop
        self._context = context
        self._task = task
        self._parked: _Parked | None = None
        self._is_used = False
        self._timer: asyncio.TimerHandle | None = None

    def step(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Steps a coroutine once; returns the task in which it goes on, where it has not come to its end."""
        if not _STEPS_FOR_TASKS:
            return self._task(coroutine, self._context)
        if self._parked is None:
            try:
                self._parked = _Parked(self._loop, self._context.copy(), self._task)
            except BaseException:
                coroutine.close()
                raise
            if self._timer is None:
                self._timer = self._loop.call_later(_IDLE, self._look)
        parked, self._is_used = self._parked, True
        _enter_task(self._loop, parked.task)
        try:
            waited = parked.context.run(coroutine.send, None)
        except StopIteration:
            if not parked.is_like(self._context):
                self.close()
            return None
        except BaseException:
            self.close()
            raise
        finally:
            _leave_task(self._loop, parked.task)
        self._parked = None
        parked.see_through(coroutine, waited)
        return parked.task

    def _look(self) -> None:
        """Keeps the parked task for as long as it is used."""
        self._timer = None
        if self._is_used:
            self._is_used = False
            self._timer = self._loop.call_later(_IDLE, self._look)
        else:
            self.close()

    def close(self) -> None:
        """Lets go of the task that is parked."""
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.task.cancel()

    def end(self) -> list[asyncio.Task[None]]:
        """Lets go of everything, as nothing is stepped any more; returns the task that is about to end."""
        if self._timer is not None:
            self._timer.cancel()
        parked = self._parked
        self.close()
        return [] if parked is None else [parked.task]


class _Parked:
    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context, task: _MakeTask) -> None:
        self.context = context
        self._suspended: tuple[Coroutine[Any, Any, None], Any] | None = None
        self._loop = loop
        self._make = task
        self._woken: asyncio.Future[None] | None = None
        self.task = task(self._run(), context)
        self.task.add_done_callback(self._ended)
        # Where its loop is closed, there is nothing to be said of it.
        self.task._log_destroy_pending = False  # type: ignore[attr-defined]

    def is_like(self, context: contextvars.Context) -> bool:
        """Whether the context has the same values; one that cannot be compared is another."""
        try:
            return self.context == context
        except Exception:
            return False

    def see_through(self, coroutine: Coroutine[Any, Any, None], waited: Any) -> None:
        self._suspended = coroutine, waited
        if self._woken is not None:
            self._woken.set_result(None)

    async def _run(self) -> None:
        cancelled: tuple[Any, ...] | None = None
        try:
            if self._suspended is None:
                self._woken = self._loop.create_future()
                await self._woken
        except asyncio.CancelledError as error:
            if self._suspended is None:
                raise
            cancelled = error.args
        await self._go_on(cancelled)

    async def _go_on(self, cancelled: tuple[Any, ...] | None) -> None:
        assert self._suspended is not None
        (coroutine, waited), self._suspended = self._suspended, None
        # It is what the coroutine waits for that is cancelled, as with every task.
        if cancelled is not None and getattr(waited, "_asyncio_future_blocking", False) and waited.cancel():
            cancelled = None
        await steps(coroutine, waited, cancelled)

    def _ended(self, _: asyncio.Task[None]) -> None:
        if self._suspended is not None:
            # Cancelled before its first step, of which a task takes none then: the coroutine hears of it in another.
            self._make(self._go_on(()), self.context)


@types.coroutine
def steps(taken: Any, waited: Any, cancelled: tuple[Any, ...] | None) -> Generator[Any, Any, None]:
    """`yield from taken`, but for its first step, which has been taken. `cancelled`: so it was since then."""
    sent: Any = None
    error: BaseException | None = None if cancelled is None else asyncio.CancelledError(*cancelled)
    while True:
        if error is None:
            try:
                sent = yield waited
            except BaseException as thrown:
                error = thrown
        if error is None:
            step, value = getattr(taken, "send", lambda _: next(taken)), sent
        elif hasattr(taken, "throw"):
            step, value, error = taken.throw, error, None
        else:
            raise error
        try:
            waited = step(value)
        except StopIteration:
            return
        finally:
            value = None  # an exception that goes out would keep this frame
