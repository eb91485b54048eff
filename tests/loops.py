"""Event loops that watch no descriptors for others, as Windows' own: what there is here in their place."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class WithoutReaders(asyncio.SelectorEventLoop):
    """It watches its own sockets alone."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override] # it takes nothing
        raise NotImplementedError


class Policy(asyncio.DefaultEventLoopPolicy):
    """Every new loop is one of these."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return WithoutReaders(selectors.DefaultSelector())
