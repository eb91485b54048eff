"""Who watches, what they hold, and what a field asks for. The decisions themselves are made in Rust."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Literal
from uuid import UUID

from .text import Id, checked, id_text


class AllTenants(Enum):
    """The type of `ALL_TENANTS`, a flag that no string equals."""

    ALL_TENANTS = "ALL_TENANTS"

    def __repr__(self) -> str:
        return self.name


ALL_TENANTS: Final[Literal[AllTenants.ALL_TENANTS]] = AllTenants.ALL_TENANTS
"""Given as `tenant_id` of a publish: the event is for the viewers of every tenant, and for those without one."""


@dataclass(frozen=True)
class Explanation:
    """What `SubscriptionManager.explain` finds; for operators, never for clients.

    Attributes:
        delivered: Whether the event would reach the subscription.
        stage: What decided: `"request"`, `"forbidden"`, `"tenant"`, `"channel"`, `"event_type"`, `"sources"`,
            `"where"`, `"rows"` or `"delivered"`; they are asked in this order.
        reason: The rule, and what stood on its sides.
        masked: `"Type.field"` of each selected field that is null for lack of a permission.
    """

    delivered: bool
    stage: str
    reason: str
    masked: tuple[str, ...]


@dataclass(frozen=True)
class Requirement:
    """What a field asks of a viewer's permissions; made by `requires` and `requires_any`."""

    alternatives: tuple[tuple[str, ...], ...]
    """An OR of ANDs."""

    def __and__(self, other: Requirement) -> Requirement:
        """Both requirements at once."""
        pairs = itertools.product(self.alternatives, other.alternatives)
        return Requirement(tuple(tuple(dict.fromkeys(left + right)) for left, right in pairs))


def requires(*permissions: str) -> Requirement:
    """Asks for all of these permissions.

    Args:
        permissions: Exact texts, compared with the viewer's `permissions`; roles grant nothing by themselves.

    Returns:
        What `@subscription(requires=...)` and `Annotated[..., requires(...)]` on a type's field take.
    """
    return Requirement((_permissions("requires", permissions),))


def requires_any(*permissions: str) -> Requirement:
    """Asks for at least one of these permissions; else as `requires`."""
    return Requirement(tuple((permission,) for permission in _permissions("requires_any", permissions)))


@dataclass(frozen=True, init=False, eq=False)
class SecurityContext:
    """The authenticated viewer behind a connection or an in-process `subscribe`.

    Contexts are equal when they are so as typed JSON: `1` and `"1"` differ, `1` and `1.0` do not.

    Args:
        user_id: Who it is; `None` is anonymous.
        tenant_id: Whose events there are to be seen; `None` sees only those without tenant.
        roles: For `viewer("roles")` in predicates; they grant nothing by themselves.
        permissions: What `requires` and `requires_any` ask for, and `@requiresScopes` in SDL.
        claims: Anything else, as JSON; kept deeply immutable. A `Decimal` is an exact number: a predicate compares
            numbers and numeric text with it alike.
        sources: The only sources whose events may be received; `None` is no limit, an empty collection allows none.
        expires_at: When the authority ends, an aware datetime; `None` is never.

    Raises:
        TypeError: An id, a collection or a claim has another type; a bare `str` is no collection.
        ValueError: `expires_at` has no time zone, a text holds NUL or a lone surrogate, a number is not finite.
    """

    user_id: Id | None
    tenant_id: Id | None
    roles: frozenset[str]
    permissions: frozenset[str]
    claims: Mapping[str, Any]
    sources: frozenset[str] | None
    expires_at: datetime | None

    def __init__(
        self,
        user_id: Id | None = None,
        tenant_id: Id | None = None,
        roles: Iterable[str] = (),
        permissions: Iterable[str] = (),
        claims: Mapping[str, Any] = MappingProxyType({}),
        sources: Iterable[str] | None = None,
        expires_at: datetime | None = None,
    ) -> None:
        for name, value in (("user_id", user_id), ("tenant_id", tenant_id)):
            if value is not None:
                id_text(value, name)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "roles", _texts("roles", roles))
        object.__setattr__(self, "permissions", _texts("permissions", permissions))
        if not isinstance(claims, Mapping):
            raise TypeError(f"claims: expected a mapping, got {type(claims).__name__}")
        object.__setattr__(self, "claims", _frozen(claims, "claims"))
        object.__setattr__(self, "sources", None if sources is None else _texts("sources", sources))
        if expires_at is not None:
            if not isinstance(expires_at, datetime):
                raise TypeError(f"expires_at: expected a datetime, got {type(expires_at).__name__}")
            if expires_at.utcoffset() is None:
                raise ValueError("expires_at: expected a datetime with a time zone, got a naive one")
        object.__setattr__(self, "expires_at", expires_at)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecurityContext):
            return NotImplemented
        return (self._key(), self.expires_at) == (other._key(), other.expires_at)

    def __hash__(self) -> int:
        return hash((self._key(), self.expires_at))

    def _key(self) -> str:
        """Equal for contexts that are equal as typed JSON, `expires_at` apart."""
        ids = {name: _tagged(getattr(self, name)) for name in ("user_id", "tenant_id")}
        return _text(_canonical({**self._fields(), **ids}))

    def _fields(self) -> dict[str, Any]:
        """What `viewer(...)` reads, as plain JSON: ids are text, a set is a sorted list."""
        return {
            "user_id": _optional_id(self.user_id),
            "tenant_id": _optional_id(self.tenant_id),
            "roles": sorted(self.roles),
            "permissions": sorted(self.permissions),
            "sources": None if self.sources is None else sorted(self.sources),
            "claims": _plain(self.claims),
        }

    def _without_expiry(self) -> SecurityContext:
        """What contexts are compared by, and no more, for calls that several subscriptions share.

        What an instance of a subclass has beside its fields may differ between those who share.
        """
        context = object.__new__(type(self))
        for name in SecurityContext.__dataclass_fields__:
            object.__setattr__(context, name, None if name == "expires_at" else getattr(self, name))
        return context

    def _json(self) -> str:
        """What Rust takes for a viewer."""
        fields = self._fields()
        try:
            expires_at = None if self.expires_at is None else self.expires_at.astimezone(timezone.utc).isoformat()
        except OverflowError:
            raise ValueError(f"expires_at: in UTC {self.expires_at} is no date; None is never") from None
        named = {name: fields[name] for name in ("user_id", "tenant_id", "permissions", "sources")}
        given = {**named, "expires_at": expires_at, "fields": fields, "key": self._key(), "decimals": []}
        try:
            return json.dumps(given)
        except TypeError:  # there is a `Decimal` in it
            return _text({**given, "decimals": list(_decimals(self.claims, ["claims"]))})


def _permissions(function: str, permissions: tuple[str, ...]) -> tuple[str, ...]:
    if not permissions:
        raise ValueError(f"{function}: expected at least one permission")
    for permission in permissions:
        if not checked(permission, function):
            raise ValueError(f"{function}: a permission cannot be empty")
    return permissions


def _texts(name: str, values: Iterable[str]) -> frozenset[str]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: expected a collection of str, got {type(values).__name__}")
    return frozenset(checked(value, name) for value in values)


def _frozen(value: object, place: str) -> Any:
    """JSON-like `value` as something that cannot be changed any more."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        try:
            int.__repr__(value)
        except ValueError as error:  # it has more digits than Python writes
            raise ValueError(f"{place}: {error}") from None
        return value
    if isinstance(value, str):
        return checked(value, place)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place}: expected a finite number, got {value}")
        return value
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise ValueError(f"{place}: expected a finite number, got {value}")
        return value
    if isinstance(value, Mapping):
        items = ((checked(key, f"{place}, a key"), member) for key, member in value.items())
        return MappingProxyType({key: _frozen(member, f"{place}[{key!r}]") for key, member in items})
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item, f"{place}[{at}]") for at, item in enumerate(value))
    expected = "JSON (None, bool, int, float, Decimal, str, list, mapping)"
    raise TypeError(f"{place}: expected {expected}, got {type(value).__name__}")


def _plain(value: Any) -> Any:
    """The inverse of `_frozen`."""
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _text(value: Any) -> str:
    """JSON text with sorted keys; a `Decimal` is a number."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except TypeError:  # there is a `Decimal` in it, which `json` does not write
        if isinstance(value, dict):
            return "{" + ",".join(f"{json.dumps(key)}:{_text(value[key])}" for key in sorted(value)) + "}"
        return f"[{','.join(map(_text, value))}]" if isinstance(value, list) else str(value)


def _canonical(value: Any) -> Any:
    """Plain JSON in which equal numbers are written alike. The value of a float is that of its shortest text."""
    if isinstance(value, dict):
        return {key: _canonical(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else int(Decimal(float.__repr__(value)))
    if isinstance(value, Decimal):
        return _canonical_decimal(value)
    return value


def _canonical_decimal(value: Decimal) -> int | float | Decimal:
    """The integer or the float that is equal, else the form without zeros at the end."""
    sign, digits, exponent = value.as_tuple()
    kept = len("".join(map(str, digits)).rstrip("0"))
    exponent = int(exponent) + len(digits) - kept
    if kept == 0 or 0 <= exponent <= MAX_DIGITS - kept:
        return int(value)
    if exponent < 0 and Decimal(float.__repr__(float(value))) == value:
        return float(value)
    return Decimal((sign, digits[:kept], exponent))


MAX_DIGITS = 4_300  # Python writes no longer integer


def _decimals(value: Any, path: list[str]) -> Iterator[list[str]]:
    """Where a `Decimal` is, or a list of `Decimal` and `None`."""
    if isinstance(value, Decimal):
        yield path
    elif isinstance(value, Mapping):
        for key, member in value.items():
            yield from _decimals(member, [*path, key])
    elif isinstance(value, tuple):
        present = [item for item in value if item is not None]
        if present and all(isinstance(item, Decimal) for item in present):
            yield path


def _tagged(value: Id | None) -> object:
    """An id with its type: a function that takes `info` sees the id as it was given."""
    if value is None:
        return None
    kind = "uuid" if isinstance(value, UUID) else "int" if isinstance(value, int) else "str"
    return [kind, id_text(value, kind)]


def _optional_id(value: Id | None) -> str | None:
    return None if value is None else id_text(value, "id")
