"""Names of channels, for whoever publishes to a channel that has placeholders."""

from __future__ import annotations

from enum import Enum
from uuid import UUID

from . import _core
from .text import checked, id_text


def channel_name(template: str, /, **arguments: str | int | UUID | Enum) -> str:
    """Returns the name of a channel: that which a subscription with these arguments listens to.

    In a value `%` and `:` are written `%25` and `%3A`, so no value reaches another channel:

        channel_name("orders:{order_id}", order_id="gid://shop/Order/1")    # "orders:gid%3A//shop/Order/1"

    `fraiseql_subs.channel_name(template, arguments)` is the same in SQL.

    Args:
        template: The channel as `@subscription(channel=...)` has it.
        arguments: A value for each placeholder. A bool is written `true` or `false`, a UUID in lower case, an enum's
            member by its name.

    Raises:
        TypeError: A value is of another type.
        ValueError: The template is wrong, a placeholder has no value or a value no placeholder, a value holds a control
            character, or the name is empty or longer than 1,024 bytes.
    """
    values = {name: _written(name, value) for name, value in arguments.items()}
    return _core.channel_name(checked(template, "template"), values)


def _written(name: str, value: object) -> str:
    if isinstance(value, Enum):
        return checked(value.name, name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | UUID):
        return id_text(value, name)
    expected = "a str, an int, a bool, a UUID or an enum's member"
    raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
