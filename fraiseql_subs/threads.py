"""Threads for functions that may block. They are daemons: one that never returns keeps no process from ending."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

_Work: TypeAlias = tuple["Future[None]", Callable[[], None]]


class Threads:
    """A bounded number of threads, each started when it is needed and kept for what comes next.

    `concurrent.futures` has no such pool: the interpreter's end joins its threads, and so waits for each function that
    was given up long ago.

    Args:
        most: How many there are at most.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._started = 0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[[], None]) -> Future[None]:
        """Has a thread call it. Cancelling the future works until then. To be called from one thread alone."""
        future: Future[None] = Future()
        self._work.put((future, function))
        if not self._idle.acquire(blocking=False) and self._started < self._most:
            name = f"fraiseql-subs_{self._started}"
            try:
                threading.Thread(target=_run, args=(self._work, self._idle), name=name, daemon=True).start()
            except RuntimeError:  # the system has no more; those that there are come to it
                if not self._started:
                    future.cancel()
                    raise
            else:
                self._started += 1
        return future

    def close(self) -> None:
        """Cancels what has not begun; threads end with what they are doing."""
        with contextlib.suppress(queue.Empty):
            while work := self._work.get_nowait():
                work[0].cancel()
        for _ in range(self._started):
            self._work.put(None)


def _run(queued: queue.SimpleQueue[_Work | None], idle: threading.Semaphore) -> None:
    while True:
        try:
            work = queued.get_nowait()
        except queue.Empty:
            idle.release()
            work = queued.get()
        if work is None:
            return
        future, function = work
        if future.set_running_or_notify_cancel():
            try:
                function()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)
        # Kept while it waits, what the function has made would live on.
        del work, future, function
