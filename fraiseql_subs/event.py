"""An event, as functions receive it and as `publish_events` takes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from .security import ALL_TENANTS, AllTenants
from .text import Id, id_text


@dataclass(frozen=True, init=False)
class Event:
    """Something that happened.

    A function gets its own `data` with each call; the old image of a row, which only predicates see, is not part of it.

    Args:
        event_type: What happened, as `event_types` names it.
        channel: Where it is published.
        data: A JSON object.
        tenant_id: Whose it is; `ALL_TENANTS` is for publishing, functions see `None` in its place.
        source: The service that it comes from.
        id: The identity that publishing returned; one is made up where none is given, and publishing gives its own.
        published_at: When it was published, in UTC; now, where not given.
    """

    event_type: str
    channel: str
    data: dict[str, Any]
    tenant_id: str | AllTenants | None
    source: str | None
    id: str
    published_at: datetime

    def __init__(
        self,
        event_type: str,
        channel: str,
        data: dict[str, Any],
        *,
        tenant_id: Id | AllTenants | None = None,
        source: str | None = None,
        id: str | None = None,
        published_at: datetime | None = None,
    ) -> None:
        if tenant_id is not None and tenant_id is not ALL_TENANTS:
            tenant_id = id_text(tenant_id, "tenant_id")
        # One update of the dictionary: this runs once for every call of a function.
        self.__dict__.update(
            event_type=event_type,
            channel=channel,
            data=data,
            tenant_id=tenant_id,
            source=source,
            id=uuid4().hex if id is None else id,
            published_at=datetime.now(timezone.utc) if published_at is None else published_at,
        )
