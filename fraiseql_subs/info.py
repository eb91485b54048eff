"""What a function may know about who is watching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .security import SecurityContext


class Info:
    """The `info` argument of a function; taking it makes the call the viewer's own.

    A function without it runs once per event and argument set, one with it once per viewer and selection too.
    `operation_name`, `variables` and `connection_id` belong to one subscription: reading them raises
    `AttributeError` in an event function, whose call several subscriptions may share.

    Attributes:
        viewer: Who watches. In an event function its `expires_at` is `None`.
        field_name: The subscription field's GraphQL name.
        selected_fields: The dotted GraphQL paths selected below the field, in order: `("id", "customer.name")`.
    """

    __slots__ = ("_operation", "field_name", "selected_fields", "viewer")

    def __init__(
        self,
        viewer: SecurityContext,
        field_name: str,
        selected_fields: tuple[str, ...],
        *,
        operation: Mapping[str, Any] | None = None,
    ) -> None:
        self.viewer = viewer
        self.field_name = field_name
        self.selected_fields = selected_fields
        self._operation = operation

    @property
    def operation_name(self) -> str | None:
        """The operation's name in the document; for generators."""
        name: str | None = self._own("operation_name")
        return name

    @property
    def variables(self) -> dict[str, Any]:
        """The variables by GraphQL name, coerced; for generators."""
        return dict(self._own("variables"))

    @property
    def connection_id(self) -> str | None:
        """The connection's id or label; for generators."""
        connection_id: str | None = self._own("connection_id")
        return connection_id

    def _own(self, name: str) -> Any:
        if self._operation is None:
            raise AttributeError(
                f"info.{name} belongs to one subscription and can be read in an async generator alone: "
                "the call of an event function may be shared by several"
            )
        return self._operation[name]
