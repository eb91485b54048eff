"""Databases of PostgreSQL for tests: each its own, with the bus in it or without."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from fraiseql_subs import _core
from fraiseql_subs.servers import PostgreSQL

from .conftest import ENVIRONMENT

VERSION = 2
"""Of the schema, as the package installs it."""
_numbers = itertools.count()

Connection = psycopg.Connection[Any]


@contextlib.contextmanager
def database(server: PostgreSQL, *, installed: bool) -> Iterator[str]:
    """A new database's URL, as the superuser."""
    name = f"test{next(_numbers)}"
    url = server.url.removesuffix("/postgres") + f"/{name}"
    with connect(server.url) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        if installed:
            assert _core.postgres_install(url, "fraiseql_subs") == (None, VERSION)
        yield url
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def connect(url: str, **options: Any) -> Connection:
    """A connection that commits each statement."""
    return psycopg.connect(url, autocommit=True, **options)


def role(connection: Connection, *grants: str) -> str:
    """A new role that may log in and has these grants, of which `{}` is its name."""
    name = f"role{next(_numbers)}"
    connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    for grant in grants:
        connection.execute(grant.format(name))
    return name


def url_of(connection: Connection, role: str) -> str:
    """How that role connects to the same database."""
    info = connection.info
    return make_conninfo(host=info.host, port=info.port, dbname=info.dbname, user=role, password="secret")


def pg(*arguments: str, dsn: str = "", **environment: str) -> tuple[int, str, str]:
    """`fraiseql-subs pg ...` in a process of its own: its status and what it wrote."""
    command = [sys.executable, "-m", "fraiseql_subs", "pg", *arguments]
    given = {**ENVIRONMENT, "DATABASE_URL": dsn, **environment}
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout, done.stderr


def events(connection: Connection, *columns: str) -> list[Any]:
    """What was published since this was asked before; a column alone gives its values."""
    chosen = ", ".join(columns or ("event_type", "data", "previous"))
    order = f"SELECT {chosen} FROM fraiseql_subs.event ORDER BY seq"
    rows = connection.execute(order).fetchall()
    connection.execute("DELETE FROM fraiseql_subs.event")
    return [row[0] if len(row) == 1 else row for row in rows]
