"""The messages of graphql-transport-ws, typed, for whoever speaks the protocol from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

MessageType: TypeAlias = Literal[
    "connection_init", "connection_ack", "ping", "pong", "subscribe", "next", "error", "complete"
]

_WITH_ID = ("subscribe", "next", "error", "complete")


@dataclass(frozen=True)
class SubscriptionPayload:
    """What a `subscribe` message carries.

    Attributes:
        query: The document's text.
        variables: Values by GraphQL name.
        operation_name: Which operation of the document; needed where it has several.
        extensions: `{"resume": ...}`, for one.

    Raises:
        TypeError: A member has another type.
    """

    query: str
    variables: dict[str, Any] | None = None
    operation_name: str | None = None
    extensions: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        _check(self.query, str, "payload.query")
        _check(self.variables, dict, "payload.variables", optional=True)
        _check(self.operation_name, str, "payload.operationName", optional=True)
        _check(self.extensions, dict, "payload.extensions", optional=True)

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> SubscriptionPayload:
        """Reads the JSON object; members that the protocol does not name are ignored.

        Raises:
            TypeError: It is no mapping, or a member has another type.
            ValueError: There is no `query`.
        """
        _check(payload, Mapping, "payload")
        if "query" not in payload:
            raise ValueError("payload.query: missing")
        return cls(payload["query"], payload.get("variables"), payload.get("operationName"), payload.get("extensions"))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; members that are `None` are left out."""
        members = {"operationName": self.operation_name, "variables": self.variables, "extensions": self.extensions}
        return {"query": self.query, **{name: value for name, value in members.items() if value is not None}}


@dataclass(frozen=True)
class GraphQLMessage:
    """One message of the protocol, from either side; one that cannot be sent cannot be built.

    Attributes:
        type: Which message.
        id: The operation's id: of `subscribe`, `next`, `error` and `complete`, and of no other.
        payload: A `SubscriptionPayload` for `subscribe` (a mapping is read into one), an ExecutionResult for `next`,
            a list of errors for `error`, nothing for `complete`, for the others any object or nothing.

    Raises:
        TypeError: A member has another type.
        ValueError: The type is unknown, or a member is missing or too much.
    """

    type: MessageType
    id: str | None = None
    payload: SubscriptionPayload | dict[str, Any] | list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        _check(self.type, str, "type")
        if self.type not in get_args(MessageType):
            raise ValueError(f"type: expected one of {', '.join(get_args(MessageType))}, got {self.type!r}")
        if self.type in _WITH_ID:
            _check(self.id, str, f"{self.type}.id")
            if not self.id:
                raise ValueError(f"{self.type}.id: empty")
        elif self.id is not None:
            raise ValueError(f"{self.type}.id: this message has none")
        self._check_payload()

    def _check_payload(self) -> None:
        place, payload = f"{self.type}.payload", self.payload
        if self.type == "subscribe":
            if isinstance(payload, dict):
                object.__setattr__(self, "payload", SubscriptionPayload.from_dict(payload))
            else:
                _check(payload, SubscriptionPayload, place)
        elif self.type == "next":
            _check(payload, dict, place)
        elif self.type == "error":
            _check(payload, list, place)
            for at, error in enumerate(payload if isinstance(payload, list) else ()):
                _check(error, dict, f"{place}[{at}]")
                _check(error.get("message"), str, f"{place}[{at}].message")
        elif self.type == "complete":
            if payload is not None:
                raise ValueError(f"{place}: this message has none")
        else:
            _check(payload, dict, place, optional=True)

    @classmethod
    def from_dict(cls, message: Mapping[str, Any]) -> GraphQLMessage:
        """Reads the JSON object; members that the protocol does not name are ignored.

        Raises:
            TypeError: It is no mapping, or a member has another type.
            ValueError: The type is missing or unknown, or a member is missing or too much.
        """
        _check(message, Mapping, "message")
        if "type" not in message:
            raise ValueError("type: missing")
        return cls(message["type"], message.get("id"), message.get("payload"))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; members that are `None` are left out."""
        payload = self.payload.to_dict() if isinstance(self.payload, SubscriptionPayload) else self.payload
        members = {"id": self.id, "type": self.type, "payload": payload}
        return {name: value for name, value in members.items() if value is not None}


def _check(value: object, kind: type, place: str, *, optional: bool = False) -> None:
    if not isinstance(value, kind) and not (optional and value is None):
        got = "nothing" if value is None else f"a {type(value).__name__}"
        raise TypeError(f"{place}: expected a {kind.__name__}, got {got}")
