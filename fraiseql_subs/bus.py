"""Which bus carries the events."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from .errors import NotAvailableError


@dataclass(frozen=True, kw_only=True)
class EventBusConfig:
    """The choice of a bus; built by its class methods, connected when the manager is entered."""

    kind: Literal["memory"]
    history: int

    def _json(self) -> str:
        """What Rust takes."""
        return json.dumps(asdict(self))

    @classmethod
    def memory(cls, *, history: int = 0) -> EventBusConfig:
        """Events stay in this process; each manager has a bus of its own.

        Args:
            history: How many events a channel keeps for resuming; 0 keeps none.
        """
        if isinstance(history, bool) or not isinstance(history, int):
            raise TypeError(f"history: expected an int, got {type(history).__name__}")
        if not 0 <= history < 2**32:
            raise ValueError(f"history: expected an int from 0 to {2**32 - 1}, got {history}")
        return cls(kind="memory", history=history)

    @classmethod
    def redis(
        cls,
        url: str,
        *,
        consumer_group: str = "fraiseql-subs",
        history: int = 10_000,
        history_age: float = 3600,
        connect_timeout: float = 10,
        publish_timeout: float = 5,
    ) -> EventBusConfig:
        """Events travel through Redis or Valkey; not there yet: raises `NotImplementedError`."""
        raise NotAvailableError("EventBusConfig.redis is not there yet; use EventBusConfig.memory()")

    @classmethod
    def postgresql(
        cls,
        dsn: str,
        *,
        listen_dsn: str | None = None,
        schema: str = "fraiseql_subs",
        install: bool = False,
        history: int = 10_000,
        history_age: float = 3600,
        connect_timeout: float = 10,
        publish_timeout: float = 5,
    ) -> EventBusConfig:
        """Events travel through PostgreSQL; not there yet: raises `NotImplementedError`."""
        raise NotAvailableError("EventBusConfig.postgresql is not there yet; use EventBusConfig.memory()")
