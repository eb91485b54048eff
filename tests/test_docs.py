"""The code in the documents runs as it stands."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

ROOT = Path(__file__).parents[1]


@pytest.fixture
def example(request, tmp_path, monkeypatch) -> Iterator[Any]:
    """A document's code, as the module that a reader would paste it into."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / request.param).read_text("utf-8"), re.DOTALL)
    (tmp_path / "documented.py").write_text("\n".join(code), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("documented")
    del sys.modules["documented"]


readme = pytest.mark.parametrize("example", ["README.md"], indirect=True)
guide = pytest.mark.parametrize("example", ["docs/guide.md"], indirect=True)


@readme
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


@readme
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


@guide
async def test_the_guide_publishes_and_reads(example):
    async with example.manager:
        assert await example.report() == [b'{"data":{"stockChanged":{"left":11}}}']


@guide
def test_the_guide_serves_every_kind_of_subscription(example):
    with (
        TestClient(example.app) as http,
        http.websocket_connect("/graphql/subscriptions", subprotocols=["graphql-transport-ws"]) as socket,
    ):
        socket.send_json({"type": "connection_init", "payload": {"token": "secret"}})
        assert "resume" in socket.receive_json()["payload"]
        queries = {
            "order": """subscription ($f: OrderFilter!) {
                orderUpdated(filter: $f) { id status customer { name email } } }""",
            "moved": "subscription { orderMoved }",
            "stock": "subscription { stockChanged { product left } }",
            "count": "subscription { countdown(start: 1) }",
        }
        for key, query in queries.items():
            variables = {"f": {"statuses": ["PAID"]}} if key == "order" else {}
            socket.send_json({"id": key, "type": "subscribe", "payload": {"query": query, "variables": variables}})
        assert socket.receive_json() == {"id": "count", "type": "next", "payload": {"data": {"countdown": 1}}}
        assert socket.receive_json() == {"id": "count", "type": "complete"}

        async def sell() -> None:
            order = {"id": 7, "status": "PAID", "total": 5, "owner_id": 1}
            await example.manager.publish_event("update", "orders", order, previous={**order, "status": "PLACED"})
            await example.sell()

        assert http.portal
        http.portal.call(sell)  # on the application's loop
        received = {message["id"]: message["payload"] for message in (socket.receive_json() for _ in range(3))}
        assert received["stock"] == {"data": {"stockChanged": {"product": "T-1", "left": 11}}}
        assert received["moved"] == {"data": {"orderMoved": "1: 7 is PAID"}}
        assert received["order"]["data"] == {
            "orderUpdated": {"id": "7", "status": "PAID", "customer": {"name": "Ada", "email": None}}
        }
        [error] = received["order"]["errors"]
        assert (error["path"], error["extensions"]) == (
            ["orderUpdated", "customer", "email"],
            {"code": "FORBIDDEN"},
        )
