"""The code in the documents runs as it stands."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import io
import json
import logging
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fraiseql_subs import (
    BusUnavailable,
    Event,
    EventBusConfig,
    Forbidden,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)
from fraiseql_subs.servers import Redis, Valkey

from .conftest import ROOT
from .sockets import Client, publish_tick, served, tick_of, tick_schema, until
from .support import one, soon, take


@pytest.fixture
def example(request, tmp_path, load) -> Any:
    """A document's code, as the module that a reader would paste it into."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / request.param).read_text("utf-8"), re.DOTALL)
    (tmp_path / "documented.py").write_text("\n".join(code), "utf-8")
    return load(tmp_path, "documented")


readme = pytest.mark.parametrize("example", ["README.md"], indirect=True)
guide = pytest.mark.parametrize("example", ["docs/guide.md"], indirect=True)
security = pytest.mark.parametrize("example", ["docs/security.md"], indirect=True)
buses = pytest.mark.parametrize("example", ["docs/buses.md"], indirect=True)


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
async def test_the_guides_invoices_are_those_of_ones_own_account(example):
    query = "subscription { invoiceIssued(account: 7) { id total } }"
    stranger, owner = (example.SecurityContext(claims={"account": account}) for account in (8, 7))
    async with example.manager as manager:
        with pytest.raises(Forbidden):
            async with manager.subscribe(query, context=stranger):
                pass
        async with manager.subscribe(query, context=owner, framing="result") as stream:
            for number, source in enumerate((None, "shop", "billing")):
                await manager.publish_event("issued", "invoices:7", {"id": number, "total": 1}, source=source)
            assert await anext(stream) == b'{"data":{"invoiceIssued":{"id":"2","total":1.0}}}'
            for number in range(3, 20):
                await manager.publish_event("issued", "invoices:7", {"id": number, "total": 1}, source="billing")
            assert manager.get_metrics()["events_dropped"]["rate"] > 0


@guide
async def test_the_guide_names_every_figure(example):
    async with example.manager as manager, manager.subscribe("subscription { orderMoved }") as stream:
        await manager.publish_event("update", "orders", {"id": 7, "status": "PAID"}, previous={"status": "PLACED"})
        await anext(stream)  # the time of a function is told from its first call on
        figures = manager.prometheus()
    text = (ROOT / "docs" / "guide.md").read_text("utf-8")
    named: dict[str, str] = {}
    for names, kind in re.findall(r"^\| (`.*) \| (gauge|counter|histogram) \|", text, re.MULTILINE):
        named |= dict.fromkeys(re.findall(r"`(\w+)`", names.partition(" by ")[0]), kind)
    assert named == dict(re.findall(r"# TYPE fraiseql_subs_(\w+) (\w+)", figures))
    labels = set(re.findall(r'(?:reason|module)="(\w+)"', figures))
    assert labels <= set(re.findall(r"`(\w+)`", text))


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


# ---- security ----


@pytest.fixture
def trail() -> Iterator[logging.Logger]:
    """The logger of the audit trail, as it was at the end."""
    logger = logging.getLogger("fraiseql_subs.audit")
    before = logger.level, logger.propagate, logger.handlers
    logger.handlers = []
    yield logger
    logger.level, logger.propagate, logger.handlers = before


@security
async def test_the_trail_is_lines_of_json(example, trail):
    written = io.StringIO()
    listener = example.write_trail(written)
    async with example.patients as manager:
        with pytest.raises(Forbidden):
            async with manager.subscribe(example.PATIENTS, context=example.bob, connection_id="a\nb"):
                pass
        await until(written.getvalue)
    listener.stop()
    record = json.loads(written.getvalue())
    assert record.pop("at")
    asked = "'patients:read', or 'ward'"
    reason = f"Subscription.patientAdmitted requires {asked}; the viewer lacks {asked}"
    viewer = {"user_id": "bob", "tenant_id": "acme", "connection_id": "a\nb"}
    assert record == {"event": "subscribe_refused", "reason": reason, **viewer, "suppressed": 0}


@security
async def test_a_nested_field_is_masked_as_the_dry_run_says(example):
    async with example.patients as manager, manager.subscribe(example.PATIENTS, context=example.ada) as stream:
        event = example.patient
        await manager.publish_event(event.event_type, event.channel, event.data, tenant_id=event.tenant_id)
        payload = json.loads(await anext(stream))["payload"]
    assert payload["data"] == {"patientAdmitted": {"id": "1", "name": None}}
    assert [error["message"] for error in payload["errors"]] == ["Forbidden"]


def test_every_test_that_is_named_exists():
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    promises = re.findall(r"^\| .* \| (`[^|]*::[^|]*) \|$", text, re.MULTILINE)
    named = [re.fullmatch(r"`([\w/.]+)::(\w+)`", test) for cell in promises for test in cell.split(", ")]
    assert named
    assert all(named)
    missing = []
    for match in named:
        file, name = match.groups() if match else ("", "")
        source = ROOT / file
        if not (source.is_file() and re.search(rf"\b(def|fn) {name}\(", source.read_text("utf-8"))):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_the_frames_of_a_refresh_are_those_of_the_transcript():
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    transcript = (ROOT / "rust/engine/tests/transcripts/refresh.txt").read_text("utf-8").splitlines()
    section = text.partition("\n## Refresh\n")[2].partition("\n## ")[0]
    frames = "".join(re.findall(r"```text\n(.*?)```", section, re.DOTALL)).splitlines()
    assert frames
    assert [frame for frame in frames if frame not in transcript] == []


async def test_the_frames_of_resuming_are_those_of_the_server(start_server):
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    section = text.partition("\n## Resuming\n")[2].partition("\n## ")[0]
    blocks = "".join(re.findall(r"```text\n(.*?)```", section, re.DOTALL)).splitlines()
    documented = {re.sub("[0-9a-f]{32}", "TOKEN", line[2:]) for line in blocks if line.startswith("< ")}
    received: set[str] = set()

    async def frame(client: Client) -> Any:
        text = await client.receive()
        received.add(re.sub("[0-9a-f]{32}", "TOKEN", text))
        return json.loads(text)

    async def acknowledged(client: Client) -> None:
        await client.send({"type": "connection_init"})
        await frame(client)

    def manager(bus: EventBusConfig) -> SubscriptionManager:
        return SubscriptionManager(tick_schema(), bus)

    server = start_server(Redis if sys.version_info < (3, 13) else Valkey)
    bus = EventBusConfig.redis(server.url, connect_timeout=2)
    async with served(manager(bus)) as (here, running), running.client() as client:
        await acknowledged(client)
        await client.subscribe("1", tick_of(1), extensions={"resume": True})
        await publish_tick(here, 1, 1)
        await frame(client)
        await client.ask("2", tick_of(1), extensions={"resume": {"after": "0" * 32}})
        await frame(client)
        await client.complete("1")
        await client.subscribe("1", tick_of(1))
        server.kill()
        await until(lambda: not here.health()["ok"])
        await client.ask("4", tick_of(1))
        await frame(client)
        server.start()
        await until(lambda: here.health()["ok"])
        await publish_tick(here, 1, 9)
        await frame(client)
        running.log.take()
    async with served(manager(EventBusConfig.memory())) as (_, running), running.client() as client:
        await client.init()
        await client.ask("3", tick_of(1), extensions={"resume": True})
        await frame(client)
    assert received == documented


QUOTING = {
    "docs/security.md": ["jwt_auth.py"],
    "docs/buses.md": ["transactional_outbox.py", "celery_worker.py", "resume_graphql_ws.mjs", "resume_apollo.mjs"],
}


@pytest.mark.parametrize("document", QUOTING)
def test_what_is_quoted_is_the_examples(document):
    text = (ROOT / document).read_text("utf-8")
    examples = "".join((ROOT / "docs/examples" / name).read_text("utf-8") for name in QUOTING[document])
    quoted = re.findall(r"```(?:py|js)\n(.*?)```", text, re.DOTALL)
    assert quoted
    assert [code for code in quoted if code not in examples] == []


# ---- buses ----

BUSES = (ROOT / "docs" / "buses.md").read_text("utf-8")


def fenced(kind: str) -> str:
    """The one block of this kind."""
    [block] = re.findall(rf"```{kind}\n(.*?)```", BUSES, re.DOTALL)
    return str(block)


@buses
def test_the_buses_are_chosen_as_written(example):
    assert [bus.kind for bus in (example.in_this_process, example.by_redis, example.by_postgresql)] == [
        *("memory", "redis", "postgresql")
    ]


def test_every_option_stands_there_with_its_default():
    rows = re.findall(r"^\| `(\w+)`(?: \((\w+)\))? \| .*? \| (.*?) \| ", BUSES, re.MULTILINE)
    kinds = {"": ["redis", "postgresql"], "Redis": ["redis"], "PostgreSQL": ["postgresql"]}
    documented = {(kind, name): default for name, kinds_of, default in rows for kind in kinds[kinds_of]}
    actual = {}
    for kind in ("redis", "postgresql"):
        parameters = inspect.signature(getattr(EventBusConfig, kind)).parameters.values()
        for parameter in parameters:
            if parameter.kind is parameter.KEYWORD_ONLY:
                actual[kind, parameter.name] = parameter.default
    assert documented.keys() == actual.keys()
    for key, default in actual.items():
        text = documented[key].partition(";")[0].strip("`").strip('"').replace(",", "")
        assert text == ("dsn" if default is None else str(default)), key


@dataclass
class News:
    n: int


@subscription(passthrough=True)
async def news() -> News:
    raise NotImplementedError


async def test_the_redis_user_can_do_what_is_needed_and_nothing_else(start_server):
    server = start_server(Redis if sys.version_info < (3, 13) else Valkey)
    admin = redis.from_url(server.url)
    admin.execute_command(*fenced("acl").split())
    url = server.url.replace(f":{server.password}@", "events:a-secret@")

    def manager() -> SubscriptionManager:
        return SubscriptionManager(Schema(subscriptions=[news]), EventBusConfig.redis(url))

    query, ada = "subscription { news { n } }", SecurityContext(user_id="ada")
    async with manager() as here, manager() as there:
        async with there.subscribe(query, context=ada, resume=True, framing="result") as stream:
            await here.publish_event("x", "news", {"n": 1})
            first = await one(stream)
            await here.publish_events([Event("x", "news", {"n": n}) for n in (2, 3)])
            assert [result["data"]["news"]["n"] for result in await take(stream, 2)] == [2, 3]
            await here.revoke(user_id="ada")
            with pytest.raises(Forbidden):
                await soon(anext(stream))
        token = first["extensions"]["eventId"]
        async with there.subscribe(query, resume=token, framing="result") as stream:
            assert [result["data"]["news"]["n"] for result in await take(stream, 2)] == [2, 3]
        # Two connections each, beside the one that asks.
        assert len(admin.client_list()) == 5
        refused = admin.acl_log()
        assert refused == []
    user = redis.from_url(url)
    user.get("fraiseql-subs:clock:x")
    for forbidden in (
        user.flushall,
        user.config_get,
        lambda: user.get("another:clock"),
        lambda: user.publish("a", "b"),
    ):
        with pytest.raises(redis.exceptions.NoPermissionError):
            forbidden()
    user.close()
    admin.close()


def test_the_worker_is_a_task_of_celery(monkeypatch):
    """By a stand-in for Celery that knows how tasks and signals are declared."""
    tasks: list[tuple[dict[str, Any], Any]] = []
    leaving: list[Any] = []

    class Celery:
        def __init__(self, name: str, *, broker: str) -> None:
            pass

        def task(self, **options: Any) -> Any:
            return lambda function: tasks.append((options, function))

    signals = types.SimpleNamespace(worker_process_shutdown=types.SimpleNamespace(connect=leaving.append))
    monkeypatch.setitem(sys.modules, "celery", types.SimpleNamespace(Celery=Celery))
    monkeypatch.setitem(sys.modules, "celery.signals", signals)
    monkeypatch.setenv("BUS_URL", "redis://127.0.0.1:1")
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    worker = importlib.import_module("celery_worker")
    del sys.modules["celery_worker"]
    monkeypatch.setitem(sys.modules, "celery_worker", worker)
    exec(fenced("celery"), {})
    [(options, function)] = tasks
    assert options == {"autoretry_for": (BusUnavailable,), "retry_backoff": True}
    assert function is worker.ship
    [leave] = leaving
    leave(sender=None)


def anchors(document: Path) -> set[str]:
    """Its headings, as links name them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "document", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
)
def test_every_link_leads_somewhere(document):
    links = re.findall(r"\]\(([^)\s]+)\)", (ROOT / document).read_text("utf-8"))
    broken = []
    for link in links:
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = (ROOT / document).parent / name if name else ROOT / document
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(link)
    assert broken == []
