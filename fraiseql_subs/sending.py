"""The task in which a connection's `send` is called, from its first step to its last. What is sent, Rust decides."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from .stepping import steps

if TYPE_CHECKING:
    from ._core import Socket

# Before 3.11 a task runs in a copy of the context that it is given, in which nobody else can run.
_STEPS_ELSEWHERE = sys.version_info >= (3, 11)


def task_in(context: contextvars.Context, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the running loop in this context, or before 3.11 in a copy of it."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 11):
        return asyncio.Task(coroutine, loop=loop, context=context)
    return context.run(lambda: asyncio.Task(coroutine, loop=loop))


class Sender:
    """The task of one connection, and what it waits for while nothing has to be waited for: itself.

    It is parked. Where Rust handles a wake-up it steps `send` under the task's identity and in its context, so that a
    message costs no turn of the loop; a send that suspends is handed to the task, which sees it through. So whatever
    stands between us and the server sees one task and one context.

    Towards its task it is a future: what tasks ask of one, and no more.
    """

    _asyncio_future_blocking = False

    def __init__(self) -> None:
        self.context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._suspended: tuple[Any, Any] | None = None
        self._wakeup: tuple[Callable[[Sender], object], contextvars.Context] | None = None

    def start(self, socket: Socket) -> asyncio.Task[None]:
        """Starts the task; it ends when it is cancelled, or a `send` raises."""
        return task_in(self.context, self._run(socket))

    def go_on(self, suspended: tuple[Any, Any]) -> None:
        """Takes the steps of a `send` that has suspended, and what it gave to wait for."""
        self._suspended = suspended
        self.wake()

    def wake(self) -> None:
        """Lets the task go on, where it is parked."""
        if self._wakeup is not None:
            (wakeup, context), self._wakeup = self._wakeup, None
            self._loop.call_soon(wakeup, self, context=context)

    async def _run(self, socket: Socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        cancelled: tuple[Any, ...] | None = None  # the arguments: an exception would keep this frame
        try:
            if _STEPS_ELSEWHERE:
                socket.parked(task)
            while True:
                suspended = self._take() or socket.turn()
                while suspended is not None:
                    await steps(*suspended, cancelled)
                    cancelled, suspended = None, socket.turn()
                if socket.has_left:
                    return
                try:
                    await self
                except asyncio.CancelledError as error:
                    if not self._suspended:
                        raise
                    cancelled = error.args
        except (Exception, asyncio.CancelledError) as error:
            # It is not raised: the task would keep it, and with it this frame and the socket, which keeps the task.
            socket.failed(error)

    def _take(self) -> tuple[Any, Any] | None:
        suspended, self._suspended = self._suspended, None
        return suspended

    # ---- the future that the task waits for ----

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the task."""
        return self._loop

    def add_done_callback(self, wakeup: Callable[[Sender], object], *, context: contextvars.Context) -> None:
        """The task is parked."""
        self._wakeup = wakeup, context

    def cancel(self, msg: Any = None) -> bool:
        """The task is cancelled: so is what a suspended send waits for, or else the task itself, when it goes on."""
        if self._suspended is not None and getattr(self._suspended[1], "_asyncio_future_blocking", False):
            return bool(self._suspended[1].cancel(msg=msg))
        self.wake()
        return False

    def result(self) -> None:
        """What the task is woken with."""
