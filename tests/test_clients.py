"""The clients that people use, against the servers that people use."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import SERVERS, Server

CLIENTS = Path(__file__).parent / "clients"


@pytest.fixture(scope="session")
def node() -> str:
    """The node program, with the clients' packages installed as their lock file says."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if not program or not npm:
        pytest.skip("node and npm are not installed")
    installed = CLIENTS / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < (CLIENTS / "package-lock.json").stat().st_mtime:
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=CLIENTS, check=True, stdin=subprocess.DEVNULL)
    return program


class Client:
    """A client in a process of its own, which prints what it receives."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> Any:
        assert self._process.stdout
        return json.loads(await asyncio.wait_for(self._process.stdout.readline(), 20) or "null")

    async def ticks(self, count: int) -> list[int]:
        return [(await self.line())["data"]["tick"]["n"] for _ in range(count)]

    async def end(self) -> int:
        """Closes it from its own side; the rest of its output and its exit status are as they should be."""
        rest, _ = await asyncio.wait_for(self._process.communicate(b""), 20)  # ends its input
        assert rest == b""
        assert self._process.returncode is not None
        return self._process.returncode


@asynccontextmanager
async def connected(command: list[str]) -> AsyncIterator[Client]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=CLIENTS, stdin=pipe, stdout=pipe)
    try:
        yield Client(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def until(http: httpx2.AsyncClient, **gauges: int) -> None:
    """Returns when the application's gauges stand so: the one thing that no client tells us is when it is live."""
    deadline = time.monotonic() + 20
    while {name: value for name, value in (await metrics(http)).items() if name in gauges} != gauges:
        assert time.monotonic() < deadline, f"{await metrics(http)} did not become {gauges}"
        await asyncio.sleep(0.005)


async def metrics(http: httpx2.AsyncClient) -> dict[str, Any]:
    return dict((await http.get("/metrics")).json())


async def publish(http: httpx2.AsyncClient, first: int, count: int) -> None:
    answer = await http.post("/publish", params={"first": first, "count": count})
    assert answer.json() == {"published": count}


async def check(server: Server, command: list[str], events: int) -> None:
    """The events in order, both ways to complete, and the way back after a restart."""
    url = f"ws://{server}/graphql/subscriptions"
    async with (
        httpx2.AsyncClient(base_url=f"http://{server}", trust_env=False) as http,
        connected([*command, url, str(events)]) as client,
    ):
        await until(http, subscriptions=1)
        await publish(http, 0, events)
        assert await client.ticks(events) == list(range(events))
        assert await client.line() == {"ended": "client"}
        assert [await client.line() for _ in range(3)] == [{"data": {"countdown": n}} for n in (3, 2, 1)]
        assert await client.line() == {"ended": "server"}

        await until(http, subscriptions=1)
        await publish(http, 10_000, 3)
        assert await client.ticks(3) == [10_000, 10_001, 10_002]

        await server.stop()
        await server.start()
        await until(http, subscriptions=1)
        await publish(http, 20_000, 3)
        assert await client.ticks(3) == [20_000, 20_001, 20_002]

        assert await client.end() == 0
        await until(http, subscriptions=0, connections=0)
        assert (await http.get("/hello")).json() == {"hello": "world"}


@pytest.mark.timeout(180)  # the first one installs the packages
@pytest.mark.parametrize("name", SERVERS)
async def test_graphql_ws_on_every_server(serve, node, name):
    server = await serve(name, "app:fastapi_app", CLIENTS)
    await check(server, [node, "driver.mjs", "graphql-ws"], 1_000)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["apollo", "urql"])
async def test_every_node_client(serve, node, name):
    server = await serve("uvicorn-websockets-sansio", "app:fastapi_app", CLIENTS)
    await check(server, [node, "driver.mjs", name], 1_000)


@pytest.mark.parametrize("name", SERVERS)
async def test_gql_on_every_server(serve, name):
    server = await serve(name, "app:fastapi_app", CLIENTS)
    await check(server, [sys.executable, "gql_client.py"], 1_000)


async def test_gql_on_starlette_beside_its_own_routes(serve):
    server = await serve("uvicorn-websockets-sansio", "app:starlette_app", CLIENTS)
    await check(server, [sys.executable, "gql_client.py"], 1_000)
