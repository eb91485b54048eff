"""Whether this process looks like one of several that a server has started."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

_SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian")


def is_one_of_several() -> bool:
    """Asks the servers whose functions are running on this thread; of others nothing is known."""
    return any(workers > 1 for workers in _workers())


def _workers() -> Iterator[int]:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _SERVERS:
            continue
        for owner in _owners(frame.f_locals):
            workers = getattr(owner, "workers", None)
            # One that reloads has one worker, whatever it was told.
            if isinstance(workers, int) and not getattr(owner, "should_reload", False):
                yield workers
        number = frame.f_locals.get("worker_id")  # a worker of granian's knows its own, from 1
        if isinstance(number, int):
            yield number


def _owners(names: Mapping[str, Any]) -> tuple[Any, ...]:
    """What may know the number, of what a function has."""
    server = names.get("self")
    return names.get("config"), server, getattr(server, "config", None), getattr(server, "cfg", None)
