"""Every exception that this package raises on purpose; one base class for all of them."""

# ruff: noqa: N818 - the public names say what happened, and are agreed

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class FraiseQLSubsError(Exception):
    """The base of all errors of this package."""


class SchemaError(FraiseQLSubsError, ValueError, TypeError):
    """A declaration is wrong; the text names the function, the field and what was expected."""


class NotAvailableError(FraiseQLSubsError, NotImplementedError):
    """A part of the public face that this version does not have yet."""


class NotRunning(FraiseQLSubsError, RuntimeError):
    """The manager is not entered, is stopping, or was entered before this process was forked."""


class RouteTaken(FraiseQLSubsError, RuntimeError):
    """An earlier route of the application would take what is a `SubscriptionRouter`'s; the text names it."""


class GraphQLError(FraiseQLSubsError):
    """An error that clients see as it is; raise it in a function, whose other errors are masked.

    Args:
        message: What the client reads.
        extensions: Becomes the error's ``extensions``; ``{"code": "..."}`` replaces ``INTERNAL_SERVER_ERROR``.
    """

    def __init__(self, message: str, *, extensions: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.extensions: dict[str, Any] = dict(extensions or {})


class GraphQLRequestError(FraiseQLSubsError):
    """A request was refused before it became a subscription.

    Attributes:
        errors: What a client would be sent: ``message``, ``locations``, ``extensions`` (with ``code``).
    """

    def __init__(self, errors: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("; ".join(str(error.get("message")) for error in errors))
        self.errors: list[dict[str, Any]] = [dict(error) for error in errors]


class Forbidden(FraiseQLSubsError):
    """The viewer may not, or no longer; the text never says which rule decided."""

    def __init__(self, message: str = "Forbidden") -> None:
        super().__init__(message)


class LimitExceeded(FraiseQLSubsError):
    """A limit of ``Limits`` is reached; the text names it."""


class SlowConsumer(FraiseQLSubsError):
    """The reader was too slow for its queue, and ``overflow`` is ``"disconnect"``."""


class BusUnavailable(FraiseQLSubsError):
    """The event bus cannot be reached: what was to be published was not accepted."""


class PublishUnknown(FraiseQLSubsError):
    """The bus has not answered a publish: it may have accepted it or not."""


class HistoryLost(FraiseQLSubsError):
    """A resume token cannot be honoured: its history is gone, it is another bus's, or it cannot be read."""
