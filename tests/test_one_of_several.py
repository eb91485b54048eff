"""A memory bus in one of several workers is told of; one worker, however it was started, is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from fraiseql_subs import EventBusConfig, Schema, SubscriptionManager
from fraiseql_subs.workers import is_one_of_several

from .conftest import SERVERS, WORKERS, Server
from .sockets import open_client, tick, until

APPS = Path(__file__).parent / "apps"
MEMORY = json.dumps({"kind": "memory"})
UVICORN = SERVERS["uvicorn-websockets-sansio"]
GUNICORN = WORKERS["gunicorn-preload"]
FORKED = [argument for argument in GUNICORN if argument != "--preload"]
PROGRAM = """
import uvicorn
if __name__ == "__main__":
    uvicorn.run("workers:app", port={port}, workers={workers}, log_level="warning")
"""
#: Command lines for so many workers.
STARTED = {
    **WORKERS,
    "gunicorn": FORKED,
    "hypercorn": [*SERVERS["hypercorn"], "--workers={workers}"],
    "uvicorn by its variable": UVICORN,
    "gunicorn by its variable": [argument for argument in FORKED if not argument.startswith("--workers")],
    "uvicorn by a program": ["program"],
}
#: What is one process, whatever it says of itself.
ALONE = {
    "uvicorn": UVICORN,
    "granian": SERVERS["granian"],
    "hypercorn": SERVERS["hypercorn"],
    "uvicorn that reloads": [*UVICORN, "--reload", "--workers=2"],
}


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """`await started(command, workers)`: a server of the workers' application on a memory bus."""
    servers: list[Server] = []

    async def start(command: list[str], workers: int) -> Server:
        environment = {"BUS": MEMORY, "WEB_CONCURRENCY": str(workers)}
        if not any("variable" in name for name, known in STARTED.items() if known is command):
            del environment["WEB_CONCURRENCY"]
        if command == ["program"]:
            (tmp_path / "program.py").write_text(PROGRAM)
            server = Server(command, "", APPS, workers, environment)
            program = (tmp_path / "program.py").read_text().format(port=server.port, workers=workers)
            (tmp_path / "program.py").write_text(program)
            server._environment["PYTHONPATH"] += f":{tmp_path}"
        else:
            server = Server(command, "workers:app", APPS, workers, environment)
        servers.append(server)
        await server.start()
        return server

    yield start
    for server in servers:
        await server.close()


def warnings(server: Server) -> list[str]:
    return [line for line in server.output if "one of several workers" in line]


@pytest.mark.parametrize("name", STARTED)
async def test_a_memory_bus_in_one_of_several_workers_is_told(name, started):
    server = await started(STARTED[name], 2)
    await until(lambda: warnings(server))
    client = await open_client(str(server), "/graphql/subscriptions")
    await client.init({"user": "ada"})
    await client.close()
    await server.kill()
    lines = warnings(server)
    assert 1 <= len(lines) <= 2
    assert "EventBusConfig.redis" in lines[0]
    assert "EventBusConfig.postgresql" in lines[0]


@pytest.mark.parametrize("name", ALONE)
async def test_one_process_is_not_told(name, started):
    server = await started(ALONE[name], 1)
    client = await open_client(str(server), "/graphql/subscriptions")
    await client.init({"user": "ada"})
    await client.close()
    await server.kill()
    assert warnings(server) == []


@pytest.mark.parametrize("bus", ["memory", "redis"])
async def test_it_is_told_once_and_of_a_memory_bus_alone(bus, monkeypatch, told):
    monkeypatch.setattr("fraiseql_subs.manager.is_one_of_several", lambda: True)
    config = (
        EventBusConfig.memory() if bus == "memory" else EventBusConfig.redis("redis://127.0.0.1:1", connect_timeout=0.1)
    )
    manager = SubscriptionManager(Schema(subscriptions=[tick]), config)
    for _ in range(2):
        try:
            async with manager:
                pass
        except Exception:
            assert bus == "redis"
    assert len(told("one of several workers")) == (bus == "memory")


def test_whoever_is_not_run_by_a_server_is_alone():
    assert is_one_of_several() is False
