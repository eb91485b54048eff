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
        parked = self._parked
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

    def close(self) -> None:
        """Lets go of the task that is parked."""
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.task.cancel()


class _Parked:
    def __init__(self, loop: asyncio.AbstractEventLoop, context: contextvars.Context, task: _MakeTask) -> None:
        self.context = context
        self._suspended: tuple[Coroutine[Any, Any, None], Any] | None = None
        self._woken: asyncio.Future[None] = loop.create_future()
        self.task = task(self._run(), context)
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
        self._woken.set_result(None)

    async def _run(self) -> None:
        error: asyncio.CancelledError | None = None
        try:
            await self._woken
        except asyncio.CancelledError as cancelled:
            if self._suspended is None:
                raise
            error = cancelled
        assert self._suspended is not None
        coroutine, waited = self._suspended
        # It is what the coroutine waits for that is cancelled, as with every task.
        if error is not None and getattr(waited, "_asyncio_future_blocking", False) and waited.cancel():
            error = None
        await _steps(coroutine, waited, error)


@types.coroutine
def _steps(coroutine: Coroutine[Any, Any, None], waited: Any, error: BaseException | None) -> Generator[Any, Any, None]:
    """`await coroutine`, but for its first step, which has been taken. `error` is thrown in place of the next one."""
    while True:
        sent = None
        if error is None:
            try:
                sent = yield waited
            except BaseException as thrown:
                error = thrown
        try:
            waited = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration:
            return
        error = None
