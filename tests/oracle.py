"""What the oracle tests share: choices for their generators, and how many cases there are.

CI runs the same cases each time. `ORACLE=20` runs twenty times as many, other ones at each run:
`ORACLE=20 pytest --timeout=0 tests/test_oracle_*.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import HealthCheck, currently_in_test_context, note, settings
from hypothesis import strategies as st

T = TypeVar("T")

FACTOR = int(os.environ.get("ORACLE", "1"))


def cases(count: int) -> settings:
    """How many examples a test takes."""
    return settings(
        max_examples=count * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Chooser:
    """Makes a generator's choices; what hypothesis shrinks to comes first."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def integer(self, lowest: int, highest: int) -> int:
        drawn: int = self._draw(st.integers(lowest, highest))
        return drawn

    def block(self, size: int) -> Chooser:
        """One for at most `size` choices among at most 256 options: a single draw is cheaper than many."""
        return _Block(self._draw(st.binary(min_size=size, max_size=size)))

    def one(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent

    def some(self, options: Sequence[T], percent: int = 50) -> list[T]:
        return [option for option in options if self.chance(percent)]


class _Block(Chooser):
    def __init__(self, drawn: bytes) -> None:
        self._drawn = iter(drawn)

    def integer(self, lowest: int, highest: int) -> int:
        return lowest + next(self._drawn) * (highest - lowest + 1) // 256


@st.composite
def choosers(draw: Any) -> Chooser:
    """A chooser for a test's own use: `@given(choosers())`."""
    return Chooser(draw)


def tell(text: str) -> None:
    """For whoever reads why a test failed."""
    if currently_in_test_context():
        note(text)


def snake(name: str) -> str:
    """The Python name of a GraphQL name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@contextmanager
def running() -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """An event loop for the many examples of one test."""
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
