"""Text and ids as they may travel: in JSON, over a socket, into PostgreSQL."""

from __future__ import annotations

from typing import TypeAlias
from uuid import UUID

Id: TypeAlias = str | int | UUID
"""What an id may be; ids compare as text, a UUID in its lower-case form."""


def checked(value: object, place: str) -> str:
    """Returns `value` where it is a string that can travel.

    Raises:
        TypeError: It is no string.
        ValueError: It holds NUL or a lone surrogate, which PostgreSQL and strict UTF-8 refuse.
    """
    if not isinstance(value, str):
        raise TypeError(f"{place}: expected a str, got {type(value).__name__}")
    text = str.__str__(value)
    if "\0" in text:
        raise ValueError(f"{place}: NUL is not allowed")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{place}: a lone surrogate is not allowed")
    return text


def id_text(value: object, place: str) -> str:
    """Returns an id as the text by which ids compare.

    Raises:
        TypeError: It is neither a str, nor an int, nor a UUID; a bool is no int here.
        ValueError: As `checked`.
    """
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__repr__(value)
    if isinstance(value, str):
        return checked(value, place)
    raise TypeError(f"{place}: expected a str, an int or a UUID, got {type(value).__name__}")
