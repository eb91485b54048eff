"""Fast, safe GraphQL subscriptions for Python, with a core in Rust."""

from .bus import EventBusConfig
from .channel import channel_name
from .errors import (
    BusUnavailable,
    Forbidden,
    FraiseQLSubsError,
    GraphQLError,
    GraphQLRequestError,
    HistoryLost,
    LimitExceeded,
    NotAvailableError,
    NotRunning,
    PublishUnknown,
    RouteTaken,
    SchemaError,
    SlowConsumer,
)
from .event import Event
from .info import Info
from .limits import Limits
from .manager import SubscriptionManager
from .messages import GraphQLMessage, SubscriptionPayload
from .predicate import argument, data, decimal, previous, viewer
from .schema import Schema
from .security import ALL_TENANTS, Explanation, SecurityContext, requires, requires_any
from .subscription import subscription
from .types import ID, JSON

__all__ = [
    "ALL_TENANTS",
    "ID",
    "JSON",
    "BusUnavailable",
    "Event",
    "EventBusConfig",
    "Explanation",
    "Forbidden",
    "FraiseQLSubsError",
    "GraphQLError",
    "GraphQLMessage",
    "GraphQLRequestError",
    "HistoryLost",
    "Info",
    "LimitExceeded",
    "Limits",
    "NotAvailableError",
    "NotRunning",
    "PublishUnknown",
    "RouteTaken",
    "Schema",
    "SchemaError",
    "SecurityContext",
    "SlowConsumer",
    "SubscriptionManager",
    "SubscriptionPayload",
    "argument",
    "channel_name",
    "data",
    "decimal",
    "previous",
    "requires",
    "requires_any",
    "subscription",
    "viewer",
]
