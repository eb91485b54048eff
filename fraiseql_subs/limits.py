"""The limits of a manager: their names, defaults and bounds. Rust enforces them."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Literal, TypeAlias, get_args

Overflow: TypeAlias = Literal["disconnect", "drop_oldest", "drop_newest", "latest"]
"""What happens to a message for which a queue has no room."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what clients, events and functions may take. Sizes are bytes, times are seconds, `None` is no limit.

    Attributes:
        max_connections: Acknowledged connections; a further one is closed 1013.
        max_connections_per_user: Connections of one user (tenant and user id); a further one is closed 4403.
        max_connections_per_tenant: Connections of one tenant; a further one is closed 4403.
        max_pending_connections: Connections before the ack; beyond it the oldest is closed 4408.
        max_subscriptions_per_connection: A further one gets `LIMIT_EXCEEDED`; so with the next two.
        max_subscriptions_per_user: Subscriptions of one user, over all connections.
        max_subscriptions_per_tenant: Subscriptions of one tenant.
        max_message_bytes: One message from a client; a longer one closes 1009.
        max_query_bytes: A document's length; `LIMIT_EXCEEDED`, as with the next four.
        max_query_tokens: Its lexical tokens.
        max_query_depth: Its depth; the root field has depth 1.
        max_query_fields: Its fields, counted as if fragments were inlined.
        max_query_aliases: Its aliases, counted likewise.
        max_argument_bytes: Its coerced variables, and its coerced arguments, as JSON; `LIMIT_EXCEEDED`, as with the
            next three.
        max_subscription_bytes: Memory that one subscription keeps: arguments, condition and compiled selection.
        max_connection_state_bytes: What all subscriptions of a connection keep; an equal selection counts once.
        max_user_bytes: Memory that one user holds over all connections: what waits to be read, what subscriptions keep,
            what came in. A further message is that subscription's `overflow`, a further subscribe is refused.
        max_process_bytes: Memory that all hold together. Beyond it the user who holds most loses the connection that
            holds most (1013).
        messages_per_second: Messages that one user sends, over all connections. Beyond `message_burst` and this rate
            they wait, and nothing more is read; none is lost.
        message_burst: How many messages may come at once.
        bytes_per_second: The same for their bytes; four seconds' worth may come at once.
        connection_init_timeout: From accept to ack, the `auth_handler` included; then 4408.
        ping_interval: How often a client is pinged.
        pong_timeout: How long its pong may take; then 4408.
        subscribes_per_second: Subscribes of one user, refilled evenly up to `burst`; beyond it `RATE_LIMITED`.
        burst: How many subscribes may come at once.
        events_per_second_per_subscription: Beyond it events are dropped, counted and told.
        events_per_second_per_user: The same over all of a user's subscriptions.
        max_event_bytes: `data`, and `previous`, of one event as JSON; `publish_event` raises `ValueError`.
        queue_messages: Messages that may wait for one subscription; then `overflow`.
        queue_bytes: Bytes that may wait for one subscription; then `overflow`.
        connection_queue_bytes: Bytes that may wait for one connection; then `overflow` of the one that exceeds it.
        overflow: `"disconnect"` (1013), `"drop_oldest"`, `"drop_newest"` or `"latest"` (at most one waits, the newest).
        max_result_bytes: One message to a client; beyond it an error with code `RESULT_TOO_LARGE` in its place. At
            least `max_event_bytes`, so that every event can be sent.
        max_result_nodes: Values that are read of a function's result for one message (fields, list items, and what
            stands in JSON); beyond it the same error.
        resolver_concurrency: Events of one argument set that a function may work on at once.
        max_calls: Calls of functions in this process at once, of all argument sets together, and results in which
            something is still awaited; these take half of the places at most. Beyond that they wait: tenants take
            turns, and within a tenant its users.
        resolver_threads: Threads for sync functions.
        drain_timeout: How long the last exit waits for queues to be read; 0 drops them at once.
        resolver_timeout: How long one call may take; then a field error with code `TIMEOUT`.

    Raises:
        TypeError: A limit has another type.
        ValueError: A limit is out of bounds.
    """

    max_connections: int = 10_000
    max_connections_per_user: int | None = 100
    max_connections_per_tenant: int | None = None
    max_pending_connections: int = 1_000
    max_subscriptions_per_connection: int = 100
    max_subscriptions_per_user: int | None = 1_000
    max_subscriptions_per_tenant: int | None = None
    max_message_bytes: int = 262_144
    max_query_bytes: int = 65_536
    max_query_tokens: int = 2_000
    max_query_depth: int = 20
    max_query_fields: int = 1_000
    max_query_aliases: int = 30
    max_argument_bytes: int = 262_144
    max_subscription_bytes: int = 1_048_576
    max_connection_state_bytes: int = 8_388_608
    max_user_bytes: int = 67_108_864
    max_process_bytes: int = 1_073_741_824
    messages_per_second: float | None = 100.0
    message_burst: int = 1_000
    bytes_per_second: float | None = 262_144.0
    connection_init_timeout: float = 10.0
    ping_interval: float = 25.0
    pong_timeout: float = 10.0
    subscribes_per_second: float | None = 50.0
    burst: int = 200
    events_per_second_per_subscription: float | None = None
    events_per_second_per_user: float | None = None
    max_event_bytes: int = 1_048_576
    queue_messages: int = 1_024
    queue_bytes: int = 1_048_576
    connection_queue_bytes: int = 4_194_304
    overflow: Overflow = "disconnect"
    max_result_bytes: int = 4_194_304
    max_result_nodes: int = 100_000
    resolver_concurrency: int = 16
    max_calls: int = 1_000
    resolver_threads: int = 32
    drain_timeout: float = 5.0
    resolver_timeout: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kind, _, optional = str(field.type).partition(" | ")  # annotations are text in this module
            if value is None and optional:
                continue
            if kind == "Overflow":
                check_overflow(value, field.name)
            elif kind == "int":
                _check_count(value, field.name)
            else:
                check_positive(value, field.name, zero=field.name == "drain_timeout")
        if self.max_result_bytes < self.max_event_bytes:
            raise ValueError(
                f"max_result_bytes: expected at least max_event_bytes ({self.max_event_bytes}), "
                f"got {self.max_result_bytes}"
            )

    def _json(self) -> str:
        """What Rust takes."""
        return json.dumps(asdict(self))


def check_overflow(value: object, name: str) -> None:
    """Raises unless `value` is one of `Overflow`."""
    if value not in get_args(Overflow):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, get_args(Overflow)))}, got {value!r}")


def check_positive(value: object, name: str, *, zero: bool = False) -> None:
    """Raises unless `value` is a finite number above zero, or zero where that is allowed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise ValueError(f"{name}: expected a finite number {'from 0 up' if zero else 'above 0'}, got {value!r}")


def _check_count(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not 1 <= value < 2**63:
        raise ValueError(f"{name}: expected an int from 1 up, got {value}")
