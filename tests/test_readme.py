"""The README's example runs as it stands."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


@pytest.fixture
def example(tmp_path, monkeypatch) -> Any:
    """The README's code as the module that a reader would paste it into."""
    [code] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "readme_example.py").write_text(code, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("readme_example")
    del sys.modules["readme_example"]


async def test_watch_prints_what_pay_publishes(example):
    printed: asyncio.Queue[bytes] = asyncio.Queue()
    example.print = printed.put_nowait
    watching = asyncio.create_task(example.watch())
    while not example.manager.get_metrics()["subscriptions"]:
        await asyncio.sleep(0)
    await example.pay()
    message = json.loads(await printed.get())
    watching.cancel()
    await asyncio.wait([watching])
    assert (message["type"], message["payload"]) == ("next", {"data": {"orderUpdated": {"id": "1", "status": "paid"}}})


def test_the_application_serves_clients_that_it_knows(example):
    app, publish = example.app, example.pay
    app.add_api_route("/pay", publish, methods=["POST"])
    with TestClient(app) as http:
        with http.websocket_connect("/graphql/subscriptions", subprotocols=["graphql-transport-ws"]) as socket:
            socket.send_json({"type": "connection_init", "payload": {"token": "a-secret"}})
            assert socket.receive_json()["type"] == "connection_ack"
            query = "subscription { orderUpdated(orderId: 1) { id status total } }"
            socket.send_json({"id": "1", "type": "subscribe", "payload": {"query": query}})
            socket.send_json({"type": "ping"})
            assert socket.receive_json() == {"type": "pong"}
            http.post("/pay")
            result = {"data": {"orderUpdated": {"id": "1", "status": "paid", "total": 9.5}}}
            assert socket.receive_json() == {"id": "1", "type": "next", "payload": result}
        with http.websocket_connect("/graphql/subscriptions", subprotocols=["graphql-transport-ws"]) as socket:
            socket.send_json({"type": "connection_init", "payload": {"token": "a-guess"}})
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert (closed.value.code, closed.value.reason) == (4403, "Forbidden")
