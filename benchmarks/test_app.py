"""The application for load from outside answers as the load generator expects."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import pytest
from starlette.testclient import TestClient

import benchmarks.app
from tests.conftest import ENVIRONMENT
from tests.sockets import serving


@pytest.mark.parametrize("function", ["passthrough", "async", "secured"])
def test_publish_and_count(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    monkeypatch.setenv("FUNCTION", function)
    app: Any = importlib.reload(benchmarks.app).app
    with (
        TestClient(app) as http,
        http.websocket_connect("/graphql", subprotocols=["graphql-transport-ws"]) as socket,
    ):
        socket.send_json({"type": "connection_init"})
        socket.receive_json()
        query = "subscription($id: ID) { userUpdated(id: $id) { id ts payload } }"
        for user in ("0", "1"):
            payload = {"query": query, "variables": {"id": user}}
            socket.send_json({"id": user, "type": "subscribe", "payload": payload})
        socket.send_json({"type": "ping"})
        socket.receive_json()
        assert http.get("/count").text == "2"
        assert http.get("/publish?n=4&size=3&ids=3&rate=1000").json() == {"published": 4}  # of 0, 1, 2 and 0
        received = [socket.receive_json() for _ in range(3)]
        assert [message["id"] for message in received] == ["0", "1", "0"]
        assert {message["payload"]["data"]["userUpdated"]["payload"] for message in received} == {"xxx"}


async def test_what_is_held_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNCTION", "secured")
    app: Any = importlib.reload(benchmarks.app).app
    async with serving(app) as server:
        arguments = ("-m", "benchmarks.holder", str(server.port), "20", "--expire", "1.5")
        pipe = asyncio.subprocess.PIPE
        holder = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, env=ENVIRONMENT
        )
        said, _ = await holder.communicate()
    assert b"ready" in said
    assert b"{4403: 20}" in said
