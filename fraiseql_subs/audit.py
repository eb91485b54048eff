"""The audit trail: one log record for each decision about who may connect, watch and go on, for operators alone.

Records go to the logger `fraiseql_subs.audit` at level `INFO`. Beside their text each has, as attributes (`extra`):

* `event`: `connection_accepted`, `connection_refused`, `subscribe_refused`, `expired`, `refreshed`, `refresh_refused`,
  `revoked` or `slow_consumer`;
* `reason`, `user_id`, `tenant_id`, `connection_id`;
* `suppressed`: how many records of this event were left out before, as each has a rate of its own (100 a second, 1,000
  at once).
"""

from __future__ import annotations

import logging

from .rate import Rate

logger = logging.getLogger("fraiseql_subs.audit")
warnings = logging.getLogger("fraiseql_subs")

_TOO_MANY = ("max_connections_per_user is reached", "max_connections_per_tenant is reached")


class Trail:
    """The audit trail of one manager."""

    def __init__(self) -> None:
        self._too_many = Rate(per_second=1, burst=20)

    def write(
        self,
        event: str,
        reason: str,
        user_id: str | None,
        tenant_id: str | None,
        connection_id: str | None,
        suppressed: int,
    ) -> None:
        """Writes one record. What clients chose is quoted, so that it cannot look like another record."""
        extra = {
            "event": event,
            "reason": reason,
            "user_id": user_id,
            "tenant_id": tenant_id,
            "connection_id": connection_id,
            "suppressed": suppressed,
        }
        text = "%s user_id=%r tenant_id=%r connection_id=%r reason=%r suppressed=%d"
        logger.info(text, event, user_id, tenant_id, connection_id, reason, suppressed, extra=extra)
        if event == "connection_refused" and reason in _TOO_MANY and (left_out := self._too_many.take()) is not None:
            more = f" ({left_out} more refusals like it were left out)" if left_out else ""
            warnings.warning("a connection of user %r of tenant %r was refused: %s%s", user_id, tenant_id, reason, more)
