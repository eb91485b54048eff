"""How often something is logged that clients can cause as often as they like."""

from __future__ import annotations

import time


class Rate:
    """So many at once, refilled evenly; what is left out is counted.

    Args:
        per_second: How fast it is refilled.
        burst: How many at once.
    """

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._left, self._since = float(burst), time.monotonic()
        self._left_out = 0

    def take(self) -> int | None:
        """How many were left out since the last one; `None`: this one is."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1:
            self._left_out += 1
            return None
        self._left -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out
