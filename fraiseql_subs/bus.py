"""Which bus carries the events."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._core import check_bus


@dataclass(frozen=True, kw_only=True)
class EventBusConfig:
    """The choice of a bus; built by its class methods, connected when the manager is entered."""

    kind: Literal["memory", "redis", "postgresql"]
    # Not shown: a URL may hold a password.
    options: Mapping[str, Any] = field(repr=False)

    def __post_init__(self) -> None:
        check_bus(self._json())

    def _json(self) -> str:
        """What Rust takes."""
        return json.dumps({self.kind: dict(self.options)})

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
                system's roots or those that `SSL_CERT_FILE` names (and takes redis-py's `ssl_cert_reqs` and
                `ssl_ca_certs`), or `unix:///path[?db=&user=&pass=]`.
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
        """Events travel through a PostgreSQL database, version 14 or newer; `fraiseql-subs pg install` prepares it.

        Args:
            dsn: Where to publish and to read history: a URL or libpq's keywords, `sslmode` and `sslrootcert` with
                libpq's meanings. It may be a transaction pooler.
            listen_dsn: Where to listen and to read what is new, if not there too; never a transaction pooler.
            schema: The schema of our tables. Applications with different ones do not hear one another.
            install: Whether entering the manager installs the schema, or brings it up to date.
            history: How many events each channel keeps for resuming and for those who were away; 0 keeps none.
            history_age: For how many seconds.
            connect_timeout: Seconds that connecting may take, and that those wait who need the bus while it is away.
            publish_timeout: Seconds until a publish without an answer raises `PublishUnknown`.

        Raises:
            ValueError: A DSN, the schema's name or a number is wrong; the text holds no password.
        """
        for name, text in (("dsn", dsn), ("listen_dsn", listen_dsn), ("schema", schema)):
            if not isinstance(text, str) and not (name == "listen_dsn" and text is None):
                raise TypeError(f"{name}: expected a str, got {type(text).__name__}")
        if not isinstance(install, bool):
            raise TypeError(f"install: expected a bool, got {type(install).__name__}")
        options = {
            "dsn": dsn,
            "listen_dsn": listen_dsn,
            "schema": schema,
            "install": install,
            "history": _history(history),
            "history_age": _seconds("history_age", history_age),
            "connect_timeout": _seconds("connect_timeout", connect_timeout),
            "publish_timeout": _seconds("publish_timeout", publish_timeout),
        }
        return cls(kind="postgresql", options=options)


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
