"""Which bus carries the events."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._core import check_bus
from .errors import NotAvailableError


@dataclass(frozen=True, kw_only=True)
class EventBusConfig:
    """The choice of a bus; built by its class methods, connected when the manager is entered."""

    kind: Literal["memory", "redis"]
    # Not shown: a URL may hold a password.
    options: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        check_bus(self._json())

    def _json(self) -> str:
        """What Rust takes."""
        return json.dumps({"kind": self.kind, **self.options})

    @classmethod
    def memory(cls, *, history: int = 0) -> EventBusConfig:
        """Events stay in this process; each manager has a bus of its own.

        Args:
            history: How many events a channel keeps for resuming; 0 keeps none.
        """
        return cls(kind="memory", options={"history": _history(history)})

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
        """Events travel through Redis (6.2 or newer) or Valkey, without cluster mode.

        Args:
            url: `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for TLS, which trusts the
                system's roots or those that `SSL_CERT_FILE` names, or `unix:///path[?db=&user=&pass=]`.
            consumer_group: The application's name. It is the prefix of its keys, so that applications on one server
                do not hear one another; it never divides events between workers.
            history: How many events each channel keeps for resuming and for those who were away; 0 keeps none.
            history_age: For how many seconds.
            connect_timeout: Seconds that connecting may take, and that those wait who need the bus while it is away.
            publish_timeout: Seconds until a publish without an answer raises `PublishUnknown`.

        Raises:
            ValueError: The URL or a number is wrong.
        """
        for name, text in (("url", url), ("consumer_group", consumer_group)):
            if not isinstance(text, str):
                raise TypeError(f"{name}: expected a str, got {type(text).__name__}")
        options = {
            "url": url,
            "consumer_group": consumer_group,
            "history": _history(history),
            "history_age": _seconds("history_age", history_age),
            "connect_timeout": _seconds("connect_timeout", connect_timeout),
            "publish_timeout": _seconds("publish_timeout", publish_timeout),
        }
        return cls(kind="redis", options=options)

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


def _history(history: int) -> int:
    if isinstance(history, bool) or not isinstance(history, int):
        raise TypeError(f"history: expected an int, got {type(history).__name__}")
    if not 0 <= history < 2**32:
        raise ValueError(f"history: expected an int from 0 to {2**32 - 1}, got {history}")
    return history


def _seconds(name: str, seconds: float) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name}: expected a number of seconds, got {type(seconds).__name__}")
    if not math.isfinite(seconds):
        raise ValueError(f"{name}: expected a number of seconds, got {seconds}")
    return seconds
