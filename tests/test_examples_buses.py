"""The examples that publish from elsewhere: from worker processes, and inside a transaction."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from fraiseql_subs import EventBusConfig, SubscriptionManager
from fraiseql_subs.servers import PostgreSQL

from .conftest import ENVIRONMENT, EXAMPLES
from .sockets import serving
from .support import soon
from .test_workers import BUSES, buses, options

QUERY = "subscription { orderChanged { id status } }"


@pytest.fixture
def example(monkeypatch, load) -> Callable[..., Any]:
    """`example(name, **environment)`: the module, imported anew."""

    def imported(name: str, **environment: str) -> Any:
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        return load(EXAMPLES, name)

    return imported


async def order(stream: Any) -> tuple[str, str]:
    """The next order that changed."""
    result = json.loads(await soon(anext(stream)))
    assert result.keys() == {"data"}
    return result["data"]["orderChanged"]["id"], result["data"]["orderChanged"]["status"]


# ---- workers ----


async def run(code: str, url: str) -> list[str]:
    """What a process of its own prints, and nothing else; it ends well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *(["-W", "ignore::DeprecationWarning"] if sys.version_info >= (3, 12) else []), "-c", code,
        cwd=EXAMPLES, env={**ENVIRONMENT, "BUS_URL": url}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        output, errors = await asyncio.wait_for(process.communicate(), 40)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert (process.returncode, errors.decode()) == (0, "")
    return output.decode().split()


WORKERS = "import celery_worker; celery_worker.main()"
# A parent that has published has a connection and threads, of which its children inherit none.
BUSY_PARENT = """
import celery_worker
print(celery_worker.ship(0))
celery_worker.main()
print(celery_worker.ship(101))
celery_worker.manager.close()
print(celery_worker.ship(102))
"""


@buses
@pytest.mark.parametrize(("code", "ids"), [(WORKERS, range(1, 101)), (BUSY_PARENT, range(103))])
async def test_forked_workers_publish_each_event_once(start_server, example, bus, code, ids):
    server = start_server(BUSES[bus])
    worker = example("celery_worker", BUS_URL=server.url)
    # The application's own manager, with the workers' schema.
    manager = SubscriptionManager(worker.manager.schema, getattr(EventBusConfig, bus)(**options(bus, server)))
    async with manager, manager.subscribe(QUERY, framing="result") as stream:
        published = await run(code, server.url)
        assert len({*published}) == len(published) == len(ids)
        received = [await order(stream) for _ in ids]
        assert sorted(received, key=lambda order: int(order[0])) == [(str(n), "shipped") for n in ids]
        await manager.publish_event("orderChanged", "orders", {"id": "last", "status": "seen"})
        assert await order(stream) == ("last", "seen")  # nothing came twice


# ---- transactions ----


class Declined(Exception):
    """The other half of the transaction went wrong."""


def fine(order_id: int) -> None:
    """The other half went well."""


def declined(order_id: int) -> None:
    raise Declined


@pytest.fixture
def database(start_server) -> str:
    """The URL of one in which three orders are placed."""
    url: str = start_server(PostgreSQL).url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text)")
        connection.execute("INSERT INTO orders SELECT n, 'placed' FROM generate_series(1, 3) n")
    return url


@pytest.fixture
def outbox(example, database) -> Iterator[Any]:
    module = example("transactional_outbox", DATABASE_URL=database)
    yield module
    module.engine.dispose()


@pytest.mark.parametrize(("change", "status"), [("pay", "paid"), ("ship", "shipped")])
async def test_a_transaction_that_rolls_back_sends_nothing(outbox, database, change, status):
    act = getattr(outbox, change)
    async with serving(outbox.app), outbox.manager.subscribe(QUERY, framing="result") as stream:
        await asyncio.to_thread(act, 1, fine)
        with pytest.raises(Declined):
            await asyncio.to_thread(act, 2, declined)
        await asyncio.to_thread(act, 3, fine)
        assert [await order(stream) for _ in range(2)] == [("1", status), ("3", status)]
        metrics = outbox.manager.get_metrics()
        assert metrics["events_delivered"] == 2
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT id, status FROM orders ORDER BY id").fetchall()
        assert rows == [(1, status), (2, "placed"), (3, status)]


async def test_an_event_is_not_sent_before_its_transaction_commits(outbox):
    async with serving(outbox.app), outbox.manager.subscribe(QUERY, framing="result") as stream:

        def late(order_id: int) -> None:
            outbox.ship(2, fine)  # commits while the first is still open
            assert asyncio.run_coroutine_threadsafe(order(stream), loop).result(20) == ("2", "shipped")

        loop = asyncio.get_running_loop()
        await asyncio.to_thread(outbox.pay, 1, late)
        assert await order(stream) == ("1", "paid")
