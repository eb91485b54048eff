"""What every bus promises, over memory, Redis, Valkey and PostgreSQL alike.

`here` and `there` are two managers of one application; on the memory bus they are the same one. Where several processes
or a server's absence matter, only the others are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fraiseql_subs import (
    ALL_TENANTS,
    BusUnavailable,
    Event,
    Forbidden,
    GraphQLRequestError,
    HistoryLost,
    NotRunning,
    PublishUnknown,
    SecurityContext,
    SubscriptionManager,
    channel_name,
)
from fraiseql_subs.asgi import SubscriptionApp

from .buses import (
    CHANGED,
    CONTENT,
    ENVELOPE,
    NUMBERED,
    SIZE,
    Bus,
    heard,
    said,
    tell,
    token,
    token_now,
    watch,
)
from .conftest import ENVIRONMENT
from .proxy import Encrypted, Proxy
from .servers import SERVERS
from .sockets import Client, Server, logged, served, until
from .support import entered, handled, soon, take

MEBIBYTE = 1_048_576


async def opened(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    fixture = {"redis": "redis_server", "valkey": "valkey_server", "postgresql": "postgres_server"}.get(request.param)
    server = request.getfixturevalue(fixture) if fixture else None
    async with contextlib.AsyncExitStack() as stack:
        yield Bus(request.param, server, stack)


#: Every bus.
bus = pytest.fixture(params=["memory", *SERVERS])(opened)
#: Those that reach other managers.
remote = pytest.fixture(params=[*SERVERS], name="remote")(opened)


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


# ---- delivery and order ----


async def test_every_manager_hears_every_event_once_and_all_in_one_order(bus, stack):
    here, there = await bus.managers()
    channels = ["a", "b", "c"]
    watching = [[await entered(stack, watch(manager, on)) for on in channels] for manager in (here, there)]

    async def publish(manager: SubscriptionManager, who: int) -> None:
        for n in range(60):
            await tell(manager, channels[n % 3], 1000 * who + n)

    await soon(asyncio.gather(*(publish(manager, who) for who, manager in enumerate((here, there, here, there)))))
    for index in range(3):
        got_here, got_there = [await heard(streams[index], 80) for streams in watching]
        assert got_here == got_there
        assert sorted(got_here) == [1000 * who + n for who in range(4) for n in range(index, 60, 3)]
        for who in range(4):
            own = [n for n in got_here if n // 1000 == who]
            assert own == sorted(own)


async def test_an_answer_comes_after_what_it_answers(bus):
    here, there = await bus.managers()
    async with watch(here, "c") as first, watch(there, "c") as second:
        await tell(here, "c", 0)
        for n in range(0, 30, 2):
            assert await heard(second, 1) == [n]
            await tell(there, "c", n + 1)
            assert await heard(first, 2) == [n, n + 1]
            await tell(here, "c", n + 2)
            assert await heard(second, 1) == [n + 1]


async def test_a_batch_arrives_whole_and_in_its_order(bus):
    here, there = await bus.managers()
    async with watch(here, "even") as even, watch(here, "odd") as odd, watch(there, "even") as again:
        channels = ["even", "odd"]
        ids = await there.publish_events([Event("told", channels[n % 2], {"n": n}) for n in range(300)])
        assert len(set(ids)) == 300
        assert await heard(even, 150) == await heard(again, 150) == [*range(0, 300, 2)]
        assert await heard(odd, 150) == [*range(1, 300, 2)]
        assert await there.publish_events([]) == []


async def test_a_batch_with_one_bad_event_is_not_published_at_all(bus):
    here, there = await bus.managers()
    async with watch(here, "c") as stream:
        for bad in (
            Event("told", "c", {"n": 1, "pad": "x" * MEBIBYTE}),
            Event("told", "c", {"n": 1, "pad": "\0"}),
            Event("told", "", {"n": 1}),
        ):
            with pytest.raises(ValueError, match=r"data|channel"):
                await there.publish_events([Event("told", "c", {"n": 0}), bad, Event("told", "c", {"n": 2})])
        await tell(there, "c", 3)
        assert await heard(stream, 1) == [3]


async def test_channels_that_nobody_watches_any_more_are_not_heard(bus):
    here, there = await bus.managers()
    async with watch(here, "control") as control:
        for n in range(0, 60, 2):
            await tell(there, "c", n)
            await tell(there, "control", n)
            # All events have one order: what this process has heard is behind it, and so is what came before.
            assert await heard(control, 1) == [n]
            async with watch(here, "c") as stream:
                await tell(there, "other", n)
                await tell(there, "c", n + 1)
                assert await heard(stream, 1) == [n + 1]


# ---- the envelope ----

VIEWERS = (None, "", "a", "b", "A")


async def test_an_event_is_for_its_tenant_alone_or_for_all(bus, stack):
    here, there = await bus.managers()
    streams = {
        tenant: await entered(stack, watch(here, "c", context=SecurityContext(tenant_id=tenant))) for tenant in VIEWERS
    }
    expected: dict[str | None, list[int]] = {tenant: [] for tenant in VIEWERS}
    tenants = [*VIEWERS, ALL_TENANTS, "ALL_TENANTS", "true", "null", "*", "a", None, ALL_TENANTS]
    for n, tenant in enumerate(tenants):
        await tell(there, "c", n, tenant_id=tenant)
        for viewer in VIEWERS if tenant is ALL_TENANTS else {tenant} & {*VIEWERS}:
            expected[viewer].append(n)
    # The last one is for all: what came before it is all that came.
    assert {tenant: await heard(stream, len(expected[tenant])) for tenant, stream in streams.items()} == expected


async def test_under_multi_tenant_what_comes_without_a_tenant_is_dropped_and_counted(remote):
    strict, lax = await remote.manager(multi_tenant=True), await remote.manager()
    async with watch(strict, "c", context=SecurityContext(tenant_id="a")) as stream:
        for tenant in (None, "", "b", "a", ALL_TENANTS):
            await tell(lax, "c", 0 if tenant in (None, "", "b") else 1, tenant_id=tenant)
        assert await heard(stream, 2) == [1, 1]
    assert strict.get_metrics()["violations"]["tenant"] == 2


async def test_the_envelope_arrives_as_it_was_accepted(bus):
    here, there = await bus.managers()
    async with watch(here, "c", ENVELOPE) as near, watch(there, "c", ENVELOPE) as far:
        after, all_seen = await token_now(there, "c"), []
        assert await heard(near, 1) == await heard(far, 1)
        for source in (None, "orders", "ünï/:*", ""):
            [identity] = await tell(there, "c", 1, source=source)
            now = datetime.now(timezone.utc)
            [seen] = await heard(near, 1)
            assert await heard(far, 1) == [seen]
            all_seen.append(dict(seen))
            assert abs((datetime.fromisoformat(seen.pop("published_at")) - now).total_seconds()) < 5
            expected = {"id": identity, "event_type": "told", "channel": "c", "tenant_id": None, "source": source}
            assert seen == expected
        for manager in (here, there):
            async with watch(manager, "c", ENVELOPE, resume=after) as again:
                assert await heard(again, 4) == all_seen


async def test_ids_are_never_given_twice(bus):
    here, there = await bus.managers()
    ids = [*await tell(here, "c", *range(50)), *await tell(there, "c", *range(50))]
    assert len(set(ids)) == 100


async def test_the_old_image_travels_along_for_predicates(bus):
    here, there = await bus.managers()
    async with watch(here, "c", CHANGED, n=7) as stream:
        for n, old in enumerate([{"n": 8}, None, {}, {"n": "7"}, {"n": 7, "x": "é\U0001f600"}]):
            await there.publish_event("told", "c", {"n": n}, previous=old)
        assert await heard(stream, 1) == [4]


# ---- what an event may hold ----

NAMES = [
    *(
        "é",
        "e\u0301",
        "日本語/チャンネル",
        "\U0001f600",
        " spaced out ",
        "Upper",
        "upper",
        "*",
        "?",
        "[a-z]",
        "{x}",
        "%s",
    ),
    *("'quoted\"", "back\\slash", "a" * 500, "é" * 200, "$$", "--", ";", "null", "a=b&c", "\u202e", "0"),
]


async def test_channels_have_any_name(bus, stack):
    here, there = await bus.managers()
    streams = [await entered(stack, watch(here, name)) for name in NAMES]
    colons = await entered(stack, here.subscribe("subscription { withColons { n } }", framing="result"))
    for n, name in enumerate(NAMES):
        await tell(there, channel_name("{on}", on=name), n, 1000)
    await tell(there, "a:b:c", 2000)
    assert [await heard(stream, 2) for stream in streams] == [[n, 1000] for n in range(len(NAMES))]
    assert await heard(colons, 1) == [2000]


async def test_a_channel_with_control_characters_or_too_long_is_refused(bus):
    manager = await bus.manager()
    for name in ("\n", "a\x1fb", "\x01", "\x7f", "\x85", "é" * 513):
        with pytest.raises(ValueError, match="channel"):
            await tell(manager, name, 1)
        with pytest.raises(ValueError, match="channel"):
            await manager.publish_events([Event("told", name, {"n": 1})])


VALUES: list[Any] = [
    *(
        0,
        -1,
        2**31,
        2**53 + 1,
        2**63 - 1,
        -(2**63),
        2**64,
        10**60 + 1,
        True,
        None,
        "",
        "a'b\"c\\d",
        "é\U0001f600\u2028",
    ),
    *("\u007f\u0080", "\x1f", [], {}, [[], {}, None], {"": {"é": []}}, {"b": 1, "a": 2}, "NaN", "2026-01-01T00:00:00Z"),
]
REALS = [0.1, 1.0, 1e300, 5e-324, -1.7976931348623157e308, 1 / 3]


async def test_data_arrives_as_it_was_sent(bus):
    here, there = await bus.managers()
    async with watch(here, "c", CONTENT) as stream:
        for value in [*VALUES, *REALS]:
            await there.publish_event("told", "c", {"value": value})
        got = [seen["value"] for seen in await heard(stream, len(VALUES) + len(REALS))]
    # Typed: 1 is not True, and a large integer is no float.
    assert [json.dumps(value, sort_keys=True) for value in got[: len(VALUES)]] == [
        json.dumps(value, sort_keys=True) for value in VALUES
    ]
    assert [float(value) for value in got[len(VALUES) :]] == REALS


def sized(length: int, character: str) -> dict[str, str]:
    """An object with so many bytes as JSON."""
    each = len(character.encode())
    return {"pad": character * ((length - 10) // each) + "x" * ((length - 10) % each)}


async def test_an_event_of_exactly_the_most_bytes_arrives_and_one_more_is_refused(bus):
    here, there = await bus.managers()
    async with watch(here, "c", SIZE) as stream:
        for character in ("x", "é", "\U0001f600"):
            most, more = sized(MEBIBYTE, character), sized(MEBIBYTE + 1, character)
            await there.publish_event("told", "c", most, previous=most)
            await there.publish_events([Event("told", "c", most)] * 3)
            for data, old in ((more, None), ({}, more)):
                with pytest.raises(ValueError, match="max_event_bytes"):
                    await there.publish_event("told", "c", data, previous=old)
            await there.publish_event("told", "c", {})
            assert await heard(stream, 5) == [MEBIBYTE] * 4 + [2]


async def test_nul_and_lone_surrogates_are_refused_everywhere(bus):
    here, there = await bus.managers()
    async with watch(here, "c") as stream:
        for bad in ("\0", "a\0b", "\ud800", "\udfff x"):
            for wrong in (
                *({"event_type": bad}, {"channel": bad}, {"tenant_id": bad}, {"source": bad}),
                *({"data": {"n": bad}}, {"data": {bad: 0}}, {"data": {"n": [{"n": bad}]}}, {"previous": {"n": bad}}),
            ):
                with pytest.raises(ValueError, match=r"NUL|surrogate|control"):
                    await there.publish_event(**{"event_type": "told", "channel": "c", "data": {"n": 0}, **wrong})
        await tell(there, "c", 1)
        assert await heard(stream, 1) == [1]


# ---- since when ----


class Feed:
    """Publishes 0, 1, 2… as fast as the bus takes them, until it is left."""

    def __init__(self, manager: SubscriptionManager, channel: str) -> None:
        self.next = 0  # what is being published; all before it have been accepted
        self._manager = manager
        self._channel = channel

    async def __aenter__(self) -> Feed:  # noqa: PYI034 (nobody derives from it)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._over = True
        await soon(self._task)

    async def has_told(self, n: int) -> None:
        await until(lambda: self.next > n)

    async def _run(self) -> None:
        self._over = False
        while not self._over:
            await tell(self._manager, self._channel, self.next)
            self.next += 1
            await asyncio.sleep(0)


async def test_all_after_entering_is_seen_and_nothing_that_was_heard_before(bus):
    here, there = await bus.managers()
    latest = {here: -1, there: -1}
    async with Feed(there, "c") as feed:
        for turn in range(30):
            manager = here if turn % 3 else there
            async with watch(manager, "c") as stream:
                begun = feed.next
                got = await heard(stream, 5)
            assert latest[manager] < got[0] <= begun + 1
            assert got == [*range(got[0], got[0] + 5)]
            latest[manager] = got[-1]


async def acknowledged(client: Client) -> Any:
    """From accept to the ack; gives its payload."""
    await client.send({"type": "connection_init"})
    ack = await client.message()
    assert ack["type"] == "connection_ack"
    return ack.get("payload")


async def test_all_after_the_pong_that_follows_a_subscribe_is_seen_over_a_socket(bus):
    here, there = await bus.managers()
    async with served(here) as (_, server), server.client() as client:
        await acknowledged(client)
        for n in range(30):
            await client.subscribe(str(n), NUMBERED, variables={"on": f"c{n % 7}"})
            await tell(there, f"c{n % 7}", n)
            message = await client.message()
            assert (message["id"], message["payload"]["data"]) == (str(n), {"numbered": {"n": n}})
            await client.complete(str(n))
            await client.sync()


# ---- other processes, and others' applications ----

PUBLISH = """
import json, sys
from tests.buses import SCHEMA
from fraiseql_subs import EventBusConfig, SubscriptionManager

url, application, count = sys.argv[1:]
if url.startswith("postgresql"):
    bus = EventBusConfig.postgresql(url, schema=application)
else:
    bus = EventBusConfig.redis(url, consumer_group=application)
manager = SubscriptionManager(SCHEMA, bus)
for n in range(int(count)):
    manager.publish_event_sync("told", "c", {"n": n})
manager.close()
"""


async def test_what_a_process_publishes_that_never_enters_a_manager_is_heard(remote):
    here, there = await remote.managers()
    async with watch(here, "c") as near, watch(there, "c") as far:
        command = [sys.executable, "-c", PUBLISH, remote.server.url, remote.application, "50"]
        run = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30, env=ENVIRONMENT
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
        assert await heard(near, 50) == await heard(far, 50) == [*range(50)]


async def test_two_applications_on_one_server_never_hear_one_another(remote):
    ours, theirs = await remote.manager(), await remote.manager(application=f"{remote.application}x")
    tokens = [await token_now(manager, "c") for manager in (ours, theirs)]
    async with watch(ours, "c") as mine, watch(theirs, "c") as yours:
        for n in range(20):
            await tell(ours, "c", n)
            await tell(theirs, "c", 100 + n)
        assert await heard(mine, 20) == [*range(20)]
        assert await heard(yours, 20) == [*range(100, 120)]
        assert await theirs.revoke(user_id="u") == 0
    for manager, foreign in zip((ours, theirs), reversed(tokens), strict=True):
        with pytest.raises(HistoryLost):
            async with watch(manager, "c", resume=foreign) as stream:
                await heard(stream, 1)


@pytest.mark.parametrize("remote", [name for name in SERVERS if name != "postgresql"], indirect=True)
async def test_two_databases_of_one_redis_never_hear_one_another(remote):
    ours, theirs = await remote.manager(), await remote.manager(url=remote.server.url.removesuffix("0") + "1")
    async with watch(ours, "c") as mine, watch(theirs, "c") as yours:
        await tell(theirs, "c", 1)
        await tell(ours, "c", 0)
        assert (await heard(mine, 1), await heard(yours, 1)) == ([0], [1])


async def test_publishing_from_a_thread(bus):
    manager = await bus.manager()
    async with watch(manager, "c") as stream:
        await soon(asyncio.to_thread(manager.publish_event_sync, "told", "c", {"n": 1}))
        assert await heard(stream, 1) == [1]


async def test_publishing_from_threads_without_entering_until_it_is_closed(remote):
    here, outside = await remote.manager(), remote.outside()

    def publish(who: int) -> None:
        for n in range(20):
            outside.publish_event_sync("told", "c", {"n": 100 * who + n})

    async with watch(here, "c") as stream:
        for turn in range(2):  # closed, it connects again
            threads = [threading.Thread(target=publish, args=(2 * turn + who,)) for who in range(2)]
            for thread in threads:
                thread.start()
            got = await heard(stream, 40)
            for thread in threads:
                await asyncio.to_thread(thread.join)
            for who in (2 * turn, 2 * turn + 1):
                assert [n for n in got if n // 100 == who] == [100 * who + n for n in range(20)]
            await asyncio.to_thread(outside.close)
        await asyncio.to_thread(outside.close)


async def test_who_has_not_entered_awaits_in_vain_and_on_memory_is_told_that_nobody_could_hear(bus):
    outside = bus.outside()
    with pytest.raises(NotRunning):
        await tell(outside, "c", 1)
    if not bus.is_remote:
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(outside.publish_event_sync, "told", "c", {"n": 1})
    await asyncio.to_thread(outside.close)


# ---- resuming ----


async def test_every_token_gives_the_rest_wherever_it_is_shown(bus):
    here, there = await bus.managers()
    async with watch(here, "c", resume=True) as stream, watch(there, "c", resume=True) as other:
        await tell(there, "c", *range(10))
        results = await take(stream, 10)
        assert await take(other, 10) == results
    tokens = [token(result) for result in results]
    assert len(set(tokens)) == 10
    for n in (0, 5, 8, 9):
        for manager in (here, there):
            async with watch(manager, "c", resume=tokens[n]) as stream:
                rest = await take(stream, 9 - n)
                assert [said(result) for result in rest] == [*range(n + 1, 10)]
                assert [token(result) for result in rest] == tokens[n + 1 :]
    async with watch(there, "c", resume=tokens[9]) as stream:
        await tell(here, "c", 10)
        assert await heard(stream, 1) == [10]


async def test_the_acks_token_misses_nothing_since_the_ack_even_where_there_was_nothing_yet(bus):
    here, there = await bus.managers()
    async with served(here) as (_, server), server.client() as client:
        after = (await acknowledged(client))["resume"]
        await tell(there, "new", 1, 2)
    for manager in (here, there):
        async with watch(manager, "new", resume=after) as stream:
            assert await heard(stream, 2) == [1, 2]
            await tell(here, f"live {manager is here}", 3)
        async with watch(manager, "newer", resume=after) as stream:
            await tell(there, "newer", 4)
            assert (await heard(stream, 1 if manager is here else 2))[-1] == 4


async def test_over_a_socket_another_worker_goes_on_where_the_first_stopped(bus):
    here, there = await bus.managers()
    async with served(here) as (_, server), server.client() as client:
        await acknowledged(client)
        await client.subscribe("1", NUMBERED, variables={"on": "c"}, extensions={"resume": True})
        await tell(there, "c", 1)
        last = (await client.message())["payload"]["extensions"]["eventId"]
    await tell(there, "c", 2, 3)
    async with served(there) as (_, server), server.client() as client:
        await acknowledged(client)
        await client.ask("1", NUMBERED, variables={"on": "c"}, extensions={"resume": {"after": last}})
        for n in (2, 3, 4, 5):
            message = await client.message()
            assert (message["id"], message["payload"]["data"]) == ("1", {"numbered": {"n": n}})
            if n >= 3:
                await tell(here, "c", n + 1)


async def test_a_busy_channel_costs_a_quiet_one_nothing(bus):
    here, there = await bus.managers(history=10)
    quiet, busy = await token_now(there, "quiet"), await token_now(there, "busy")
    await tell(there, "quiet", 1, 2)
    await there.publish_events([Event("told", "busy", {"n": n}) for n in range(1000)])
    for manager in (here, there):
        async with watch(manager, "quiet", resume=quiet) as stream:
            assert await heard(stream, 2) == [1, 2]
        # All of it or none: a bus may keep more than it has to, and never gives a part.
        assert await resumed(manager, "busy", busy, 1000) in ([*range(1000)], "lost")


async def resumed(manager: SubscriptionManager, channel: str, after: str, count: int) -> Any:
    """So many messages since a token, or that it is lost."""
    try:
        async with watch(manager, channel, resume=after) as stream:
            return await heard(stream, count)
    except HistoryLost:
        return "lost"


async def test_at_least_history_events_are_kept(bus):
    here, there = await bus.managers(history=50)
    first = await token_now(there, "c")
    async with watch(here, "c", resume=True) as stream:
        await tell(there, "c", *range(30))
        await there.publish_events([Event("told", "c", {"n": n}) for n in range(30, 300)])
        tokens = [token(result) for result in await take(stream, 300)]
    for manager in (here, there):
        assert await resumed(manager, "c", tokens[249], 50) == [*range(250, 300)]
        assert await resumed(manager, "c", first, 300) in ([*range(300)], "lost")


def forged(good: str) -> dict[str, str]:
    """Tokens that nobody was given, by what is wrong with them."""
    epoch, offset = good[:16], int(good[16:], 16)
    return {
        "another epoch": f"{(int(epoch, 16) ^ 1):016x}{offset:016x}",
        "no epoch": f"{0:016x}{offset:016x}",
        "ahead of the bus": f"{epoch}{offset + 10**12:016x}",
        "the greatest": "f" * 32,
        "the end of integers": f"{epoch}{2**64 - 1:016x}",
        "beyond signed integers": f"{epoch}{2**63:016x}",
        "nothing": "",
        "huge": "0" * 100_000,
        "longer": good + "0",
        "no hexadecimal": "g" * 32,
        "injected": "'; DROP TABLE x; --",
        "Unicode": "\U0001f600" * 8,
    }


async def test_a_token_that_nobody_was_given_is_lost_at_once(bus):
    here, there = await bus.managers()
    good = await token_now(there, "c")
    await tell(there, "c", 1)
    for name, bad in forged(good).items():
        before = time.perf_counter()
        assert (name, await resumed(here, "c", bad, 1)) == (name, "lost")
        assert (name, time.perf_counter() - before < 2) == (name, True)
    assert await resumed(here, "c", good, 1) == [1]
    async with served(here) as (_, server), server.client() as client:
        await acknowledged(client)
        resume = {"after": forged(good)["ahead of the bus"]}
        await client.ask("1", NUMBERED, variables={"on": "c"}, extensions={"resume": resume})
        message = await client.message()
        assert (message["type"], message["payload"][0]["extensions"]) == ("error", {"code": "HISTORY_LOST"})


@pytest.mark.parametrize("resume", [True, "f" * 32])
async def test_without_history_there_is_no_token_and_asking_is_refused(bus, resume):
    manager = await bus.manager(history=0)
    with pytest.raises(GraphQLRequestError) as refused:
        async with watch(manager, "c", resume=resume):
            pass
    assert refused.value.errors[0]["extensions"] == {"code": "RESUME_UNAVAILABLE"}
    async with served(manager) as (_, server), server.client() as client:
        assert await acknowledged(client) is None
    async with watch(manager, "c") as stream:
        await tell(manager, "c", 1)
        assert await take(stream, 1) == [{"data": {"numbered": {"n": 1}}}]


async def test_reading_back_goes_over_into_live_without_a_seam(bus):
    here, there = await bus.managers()
    first = await token_now(there, "c")
    total = 300

    async def in_one_go(manager: SubscriptionManager) -> list[int]:
        async with watch(manager, "c", resume=first) as stream:
            return await heard(stream, total)

    async def again_and_again(manager: SubscriptionManager, at_once: int) -> list[int]:
        got: list[int] = []
        after = first
        while len(got) < total:
            async with watch(manager, "c", resume=after) as stream:
                for result in await take(stream, min(at_once, total - len(got))):
                    got.append(said(result))
                    after = token(result)
        return got

    async with Feed(there, "c") as feed:
        readers = [again_and_again(manager, n) for manager, n in [(here, 1), (there, 7), (here, 40)]]
        late = []
        for goal in range(20, 100, 20):
            await feed.has_told(goal)
            late += [asyncio.create_task(in_one_go(manager)) for manager in (here, there)]
        got = await asyncio.wait_for(asyncio.gather(*readers, *late), 50)
    assert got == [[*range(total)]] * len(got)


# ---- revoking ----


async def test_who_is_revoked_anywhere_ends_everywhere(bus, stack):
    here, there = await bus.managers()
    contexts = [SecurityContext(user_id=user, tenant_id=tenant) for user in ("u", "v") for tenant in ("s", "t")]
    streams = {
        (manager is here, context.user_id, context.tenant_id): await entered(
            stack, watch(manager, "c", context=context)
        )
        for manager in ([here, there] if bus.is_remote else [here])
        for context in contexts
    }
    await tell(here, "c", 1, tenant_id=ALL_TENANTS)
    assert [await heard(stream, 1) for stream in streams.values()] == [[1]] * len(streams)
    assert await there.revoke(user_id="u", tenant_id="t") == 1
    named = [stream for key, stream in streams.items() if key[1:] == ("u", "t")]
    for stream in named:
        with pytest.raises(Forbidden):
            await soon(anext(stream))
    await tell(here, "c", 2, tenant_id=ALL_TENANTS)
    others = [stream for stream in streams.values() if stream not in named]
    assert [await heard(stream, 1) for stream in others] == [[2]] * len(others)
    # A later login is another's affair.
    async with watch(here, "c", context=SecurityContext(user_id="u", tenant_id="t")) as stream:
        await tell(there, "c", 3, tenant_id="t")
        assert await heard(stream, 1) == [3]


async def test_a_socket_of_another_worker_is_closed_by_a_revocation(bus):
    here, there = await bus.managers()

    async def authenticate(payload: dict[str, Any]) -> SecurityContext:
        return SecurityContext(user_id=payload["user"])

    async with served(here, auth_handler=authenticate) as (_, server):
        async with server.client() as named, server.client() as other:
            for client, user in ((named, "u"), (other, "v")):
                await client.send({"type": "connection_init", "payload": {"user": user}})
                assert (await client.message())["type"] == "connection_ack"
            assert await there.revoke(user_id="u") == (0 if bus.is_remote else 1)
            assert (await named.closed())[0] == 4403
            await other.sync()


# ---- its life ----


async def test_health_and_figures_tell_of_the_bus(bus):
    manager = bus.outside()
    assert manager.health()["state"] == "stopped"
    kind = {"valkey": "redis"}.get(bus.kind, bus.kind)
    async with manager:
        healthy = {"ok": True, "state": "running", "bus": {"kind": kind, "connected": True, "last_error": None}}
        assert manager.health() == healthy
        figures = manager.get_metrics()
        assert (figures["bus_connected"], figures["bus_reconnects"], figures["bus_gaps"]) == (1, 0, 0)
        text = manager.prometheus()
        for line in ("bus_connected 1", "bus_reconnects_total 0", "bus_gaps_total 0"):
            assert f"fraiseql_subs_{line}\n" in text
        lag = re.search(r"^fraiseql_subs_bus_lag_seconds (\S+)$", text, re.MULTILINE)
        assert lag is not None
        assert 0 <= float(lag[1]) < 5
    assert manager.health()["ok"] is False
    assert manager.health()["state"] == "stopped"


async def test_time_outs_may_be_fractions_of_seconds(remote):
    async with proxied(remote) as (proxy, options):
        await proxy.refuse()
        for manager in (
            remote.outside(**{**options, "connect_timeout": 0.25, "publish_timeout": 0.5, "history_age": 1.5}),
            remote.outside(**{**options, "connect_timeout": 1, "publish_timeout": 1.0, "history_age": 2.0}),
        ):
            with pytest.raises(BusUnavailable):
                await soon(manager.__aenter__())


async def test_a_manager_that_was_left_may_be_entered_again(bus):
    manager, there = bus.outside(), await bus.manager()
    for n in range(3):
        async with manager:
            async with watch(manager, "c", resume=True) as stream:
                await tell(there if bus.is_remote else manager, "c", n)
                [result] = await take(stream)
                assert said(result) == n
        if bus.is_remote:
            await tell(there, "c", 10 + n)
            async with manager:
                async with watch(manager, "c", resume=token(result)) as stream:
                    assert await heard(stream, 1) == [10 + n]


@contextlib.asynccontextmanager
async def proxied(remote: Bus) -> AsyncIterator[tuple[Proxy, dict[str, Any]]]:
    """A proxy before the server, and the options of a manager that goes through it and is not patient."""
    assert remote.server
    async with Proxy(remote.server.port) as proxy:
        yield proxy, {"url": proxy.through(remote.server.url), "connect_timeout": 1, "publish_timeout": 1}


@contextlib.contextmanager
def without_secrets(remote: Bus) -> Any:
    """Nothing that is logged holds the server's password."""
    lines: list[str] = []
    handler = logging.Handler(logging.DEBUG)
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign]
    with handled(handler):
        yield lines
    assert remote.server
    assert not [line for line in lines if remote.server.password in line or "wrong-secret" in line]


@pytest.mark.parametrize("how", ["refused", "silent", "half-open", "wrong password", "unknown user"])
async def test_entering_says_that_the_bus_cannot_be_reached_and_keeps_the_secret(remote, how):
    await remote.manager()  # what is installed takes no time later
    async with proxied(remote) as (proxy, options):
        if how == "refused":
            await proxy.refuse()
        elif how in ("silent", "half-open"):
            proxy.stall(["replies"] if how == "half-open" else ["requests", "replies"])
        user = "postgres" if remote.kind == "postgresql" else ""
        secret = f"{user}:{remote.server.password}"
        if how == "wrong password":
            options["url"] = options["url"].replace(secret, f"{user}:wrong-secret")
        elif how == "unknown user":
            options["url"] = options["url"].replace(secret, f"nobody:{remote.server.password}")
        manager = remote.outside(**options)
        with without_secrets(remote):
            before = time.perf_counter()
            with pytest.raises(BusUnavailable) as raised:
                await soon(manager.__aenter__())
            assert time.perf_counter() - before < 3
            text = f"{raised.value!r} {raised.value}"
            assert f"127.0.0.1:{proxy.port}" in text
            assert remote.server.password not in text
            assert "wrong-secret" not in text
            assert manager.health()["ok"] is False
            assert remote.server.password not in str(manager.health())
        if how in ("refused", "silent", "half-open"):  # it may be entered when the bus is there
            if how == "refused":
                await proxy.accept()
            proxy.forward()
            async with manager, watch(manager, "c") as stream:
                await tell(manager, "c", 1)
                assert await heard(stream, 1) == [1]


REDIS_TLS = [
    ("", "127.0.0.1", "ours", True),
    ("", "127.0.0.1", "another's", False),
    ("", "example.org", "ours", False),
    ("ssl_cert_reqs=none", "example.org", "another's", True),
    ("ssl_cert_reqs=required", "127.0.0.1", "another's", False),
    ("ssl_cert_reqs=optional", "example.org", "ours", False),
    ("ssl_ca_certs={another's}", "127.0.0.1", "another's", True),
    ("ssl_ca_certs={another's}&ssl_cert_reqs=required", "example.org", "another's", False),
    ("ssl_ca_certs={another's}.gone", "127.0.0.1", "ours", False),
]
POSTGRESQL_TLS = [
    ("sslmode=verify-full&sslrootcert={ours}", "127.0.0.1", "ours", True),
    ("sslmode=verify-full&sslrootcert={ours}", "127.0.0.1", "another's", False),
    ("sslmode=verify-full&sslrootcert={ours}", "example.org", "ours", False),
    ("sslmode=verify-ca&sslrootcert={ours}", "example.org", "ours", True),
    ("sslmode=verify-ca&sslrootcert={ours}", "127.0.0.1", "another's", False),
    ("sslmode=require", "example.org", "another's", True),
    ("sslmode=require&sslrootcert={ours}", "127.0.0.1", "another's", False),
    ("sslmode=prefer", "example.org", "another's", True),
    ("sslmode=disable", "127.0.0.1", "ours", False),
]


@pytest.mark.parametrize(
    ("remote", "query", "host", "signed_by", "works"),
    [(kind, *case) for kind in SERVERS for case in (POSTGRESQL_TLS if kind == "postgresql" else REDIS_TLS)],
    indirect=["remote"],
)
async def test_tls_is_spoken_and_verified(remote, query, host, signed_by, works, tmp_path, monkeypatch):
    authorities = {"ours": trustme.CA(), "another's": trustme.CA()}
    files = {name: str(tmp_path / f"{name}.pem") for name in authorities}
    for name, authority in authorities.items():
        authority.cert_pem.write_to_path(files[name])
    monkeypatch.setenv("SSL_CERT_FILE", files["ours"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authorities[signed_by].issue_cert(host).configure_cert(context)
    is_postgresql = remote.kind == "postgresql"
    async with Encrypted(remote.server.port, context, is_asked=is_postgresql) as front:
        url = front.through(remote.server.url).replace("redis:", "rediss:")
        if query:
            url += "?" + query.format_map(files)
        manager = remote.outside(url=url, connect_timeout=2)
        if works:
            async with manager, watch(manager, "c") as stream:
                await tell(manager, "c", 1)
                assert await heard(stream, 1) == [1]
        else:
            with pytest.raises(BusUnavailable, match=f"127.0.0.1:{front.port}"):
                await soon(manager.__aenter__())


def of_its_own_making(path: Path, address: str, *, days: int = 1) -> ssl.SSLContext:
    """A certificate as `openssl req -x509` makes it: its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "h")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now + timedelta(days=days))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path.write_bytes(certificate)
    own = path.with_suffix(".key")
    traditional, nothing = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    own.write_bytes(certificate + key.private_bytes(serialization.Encoding.PEM, traditional, nothing))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    return context


@pytest.mark.parametrize("remote", ["postgresql"], indirect=True)
async def test_sslmode_require_asks_the_authorities_of_libpqs_own_file_where_there_is_one(
    remote, tmp_path, monkeypatch
):
    """An impostor gets no password."""
    monkeypatch.setenv("HOME", str(tmp_path))
    ours, another = trustme.CA(), trustme.CA()
    root = tmp_path / ".postgresql/root.crt"
    contexts = []
    for authority in (ours, another):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        authority.issue_cert("example.org").configure_cert(contexts[-1])
    own, expired = (of_its_own_making(tmp_path / f"{days}.crt", "127.0.0.2", days=days) for days in (1, -1))
    root.parent.mkdir()

    async def outcome(context: ssl.SSLContext) -> str:
        async with Encrypted(remote.server.port, context, is_asked=True) as front:
            url = f"{front.through(remote.server.url)}?sslmode=require"
            try:
                await (await psycopg.AsyncConnection.connect(url, gssencmode="disable")).close()
                libpq = "connected"
            except psycopg.OperationalError as error:
                libpq = "refused" if "certificate verify failed" in str(error) else str(error)
            try:
                async with remote.outside(url=url, connect_timeout=2):
                    ours = "connected"
            except BusUnavailable as error:
                ours = "refused" if "invalid peer certificate" in str(error) else str(error)
        assert ours == libpq or ("root.crt" in ours and "root.crt" in libpq)
        assert remote.server.password not in ours
        return ours

    assert [await outcome(context) for context in contexts] == ["connected", "connected"]
    ours.cert_pem.write_to_path(str(root))
    assert [await outcome(context) for context in (*contexts, own)] == ["connected", "refused", "refused"]
    # A server that is its own authority, as PostgreSQL's manual makes one.
    root.write_bytes((tmp_path / "1.crt").read_bytes() + (tmp_path / "-1.crt").read_bytes())
    assert [await outcome(context) for context in (own, expired, contexts[0])] == ["connected", "refused", "refused"]
    root.write_text("no certificate")
    assert "root.crt" in await outcome(contexts[0])


@pytest.mark.parametrize("remote", [kind for kind in SERVERS if kind != "postgresql"][:1], indirect=True)
@pytest.mark.parametrize(
    ("address", "is_told", "works"), [("127.0.0.1", 1, 1), ("127.0.0.2", 1, 0), ("127.0.0.1", 0, 0)]
)
async def test_a_redis_that_is_its_own_authority_is_trusted_by_name(remote, address, is_told, works, tmp_path):
    own = tmp_path / "own.crt"
    async with Encrypted(remote.server.port, of_its_own_making(own, address), is_asked=False) as front:
        url = front.through(remote.server.url).replace("redis:", "rediss:") + f"?ssl_ca_certs={own}" * is_told
        manager = remote.outside(url=url, connect_timeout=2)
        if works:
            async with manager:
                assert manager.health()["ok"]
        else:
            with pytest.raises(BusUnavailable, match="certificate"):
                await soon(manager.__aenter__())


@pytest.mark.parametrize("query", ["sslmode=require", "sslmode=verify-full"])
@pytest.mark.parametrize("remote", ["postgresql"], indirect=True)
async def test_a_server_without_tls_is_refused_where_it_is_asked_for(remote, query):
    manager = remote.outside(url=f"{remote.server.url}?{query}", connect_timeout=2)
    with pytest.raises(BusUnavailable):
        await soon(manager.__aenter__())
    async with remote.outside(url=f"{remote.server.url}?sslmode=prefer", connect_timeout=2) as manager:
        assert manager.health()["ok"]


async def test_while_the_bus_is_away_nothing_hangs_and_afterwards_everything_goes_on(remote):
    there = await remote.manager()
    async with proxied(remote) as (proxy, options):
        here = remote.outside(**options)
        async with here, watch(here, "c") as stream:
            await tell(here, "c", 1)
            assert await heard(stream, 1) == [1]
            await proxy.refuse()
            await until(lambda: not here.health()["bus"]["connected"])
            assert here.health()["ok"] is False
            assert here.get_metrics()["bus_connected"] == 0
            assert here.health()["bus"]["last_error"]
            assert remote.server.password not in str(here.health())
            before = time.perf_counter()
            with pytest.raises(BusUnavailable):
                await tell(here, "c", 2)
            with pytest.raises(BusUnavailable):
                await here.publish_events([Event("told", "c", {"n": 2})])
            assert time.perf_counter() - before < 2.5
            before = time.perf_counter()
            with pytest.raises(BusUnavailable):
                async with watch(here, "new"):
                    pass
            assert 0.9 < time.perf_counter() - before < 2
            await tell(there, "c", 3, 4)
            await proxy.accept()
            back = time.perf_counter()
            await tell(there, "c", 5)
            assert await heard(stream, 3) == [3, 4, 5]
            assert time.perf_counter() - back < 2
            await tell(here, "c", 6)
            assert await heard(stream, 1) == [6]
            assert here.health()["ok"] is True
            assert here.get_metrics()["bus_reconnects"] >= 1


async def test_a_subscribe_while_the_bus_is_away_waits_for_it_over_a_socket_too(remote):
    there = await remote.manager()
    async with proxied(remote) as (proxy, options):
        here = remote.outside(**options)
        server = Server(SubscriptionApp(here))
        await server.start()
        async with server.client() as client:
            await acknowledged(client)
            await proxy.refuse()
            await until(lambda: not here.health()["bus"]["connected"])
            await client.ask("1", NUMBERED, variables={"on": "c"})
            message = await client.message()
            assert (message["id"], message["type"]) == ("1", "error")
            assert [error["extensions"] for error in message["payload"]] == [{"code": "BUS_UNAVAILABLE"}]
            await client.ask("2", NUMBERED, variables={"on": "c"})
            await client.sync()  # the connection is not held up
            await proxy.accept()
            waiting = asyncio.create_task(client.message())
            async with Feed(there, "c"):
                message = await waiting
            assert (message["id"], message["type"]) == ("2", "next")
        await server.stop()


# ---- what was lost is told ----


@pytest.mark.parametrize("kept", [0, 10, 10_000])
async def test_what_history_no_longer_holds_is_told_on_its_channels_and_on_no_other(remote, kept):
    there = await remote.manager(history=kept)
    async with proxied(remote) as (proxy, options):
        here = remote.outside(**options, history=kept)
        async with here, watch(here, "busy") as busy, watch(here, "few") as few, watch(here, "none") as none:
            for stream, name in ((busy, "busy"), (few, "few"), (none, "none")):
                await tell(there, name, -1)
                assert await heard(stream, 1) == [-1]
            await proxy.refuse()
            await until(lambda: not here.health()["bus"]["connected"])
            await tell(there, "few", *range(5))
            for start in range(0, 2000, 500):
                await there.publish_events([Event("told", "busy", {"n": n}) for n in range(start, start + 500)])
            await proxy.accept()
            await until(lambda: here.health()["bus"]["connected"])
            for name in ("busy", "few", "none"):
                await tell(there, name, 9999)
            whole = {"busy": [*range(2000), 9999], "few": [*range(5), 9999], "none": [9999]}
            for stream, name in ((busy, "busy"), (few, "few"), (none, "none")):
                gap, got = await until_the_last(stream)
                # Without a gap it is all; with one it is what is left of it, and nothing amiss in that.
                assert (name, got) == (name, whole[name] if not gap else whole[name][-len(got) :])
                assert not (gap and got == whole[name] and kept), "a gap in which nothing was lost"
                assert not (gap and len(whole[name]) <= kept), "a gap where history holds it all"
            assert here.get_metrics()["bus_gaps"] <= {0: 3, 10: 1, 10_000: 0}[kept]


async def until_the_last(stream: AsyncIterator[bytes]) -> tuple[bool, list[int]]:
    """Whether a gap is told with the first message, and with no other, and the numbers up to 9999."""
    results = await take(stream)
    gap = results[0].get("extensions") == {"gap": True}
    while results[-1]["data"]["numbered"]["n"] != 9999:
        results += await take(stream)
    assert [result for result in results[1:] if result.get("extensions")] == []
    return gap, [result["data"]["numbered"]["n"] for result in results]


EVENT = '{"v":1,"id":"i","type":"told","at":1,"data":%s}'
BROKEN = ["[1]", "null", '{"n":"\\ud800"}', '{"n":"\\u0000"}', '{"n":' * 5000 + "1" + "}" * 5000]


def intrude_redis(remote: Bus, client: Any, channel: str) -> list[Any]:
    """What somebody else may write where our entries and messages are."""
    stream, told = f"{remote.application}:s:{channel}", f"{remote.application}:0:e:{channel}"
    entries = [
        *({"x": "y"}, {"p": "0"}, {"p": "0", "e": "{"}, {"p": "x", "e": EVENT % "{}"}, {"e": b"\xff\x00"}),
        *({"p": "0", "e": EVENT.replace('"v":1', '"v":2') % "{}"}, *({"p": "0", "e": EVENT % one} for one in BROKEN)),
    ]
    messages = [
        "",
        "hello",
        "\n",
        "1\n1",
        "1\n1 1",
        "x\ny z {}",
        b"\xff\xfe",
        "1 " * 50_000,
        "-1\n-1 -1 {}",
    ]
    return [
        *(lambda entry=entry: client.xadd(stream, entry) for entry in entries),
        *(lambda message=message: client.publish(told, message) for message in messages),
        lambda: client.xadd(stream, {"x": "y"}, id=f"{2**64 - 1}-{2**64 - 1}"),
        lambda: client.delete(stream),
        lambda: client.set(stream, "text"),
    ]


def intrude_postgresql(remote: Bus, client: Any, channel: str) -> list[Any]:
    """The same for rows."""
    into = f"INSERT INTO {remote.application}.event (version, channel, event_type, data, previous, published_at) "
    rows = [(2, "{}", None, "now"), (-1, "{}", None, "now"), (1, "{}", None, "infinity"), (1, "{}", "[1]", "now")]
    rows += [(1, one, None, "now") for one in BROKEN]
    return [
        lambda row=row: client.execute(f"{into} VALUES (%s, %s, 'told', %s, %s, %s)", (row[0], channel, *row[1:]))
        for row in rows
    ]


async def test_what_somebody_else_has_written_stops_nothing_and_is_told_once_a_channel(remote):
    here, there = await remote.managers()
    with contextlib.ExitStack() as opened, logged() as log:
        if remote.kind == "postgresql":
            client: Any = opened.enter_context(psycopg.connect(remote.server.url, autocommit=True))
            intrusions = intrude_postgresql(remote, client, "c")
        else:
            client = opened.enter_context(redis.Redis.from_url(remote.server.url))
            intrusions = intrude_redis(remote, client, "c")
        async with watch(here, "c", resume=True) as near, watch(there, "c") as far, watch(here, "other") as other:
            for n, intrude in enumerate(intrusions):
                await tell(there, "c", 2 * n)
                [result] = await take(near)
                assert result["data"] == {"numbered": {"n": 2 * n}}
                await asyncio.to_thread(intrude)
                await tell(here, "c", 2 * n + 1)
                assert [one["data"]["numbered"]["n"] for one in await take(near)] == [2 * n + 1]
                assert [one["data"]["numbered"]["n"] for one in await take(far, 2)] == [2 * n, 2 * n + 1]
                for manager in (here, there):
                    assert await resumed(manager, "c", token(result), 1) in ([2 * n + 1], "lost")
            await tell(there, "other", 1)
            assert await heard(other, 1) == [1]
        assert here.get_metrics()["bus_skipped"] > 0
        lines = log.take()
        assert 1 <= len(lines) <= 2, lines  # one for each manager
        assert all('"c"' in line for line in lines)
        assert here.health()["ok"]
        assert there.health()["ok"]


async def flushed(server: Any, *managers: SubscriptionManager) -> None:
    with redis.Redis.from_url(server.url) as client:
        await asyncio.to_thread(client.flushall)


async def killed(server: Any, *managers: SubscriptionManager) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    # Their connections have ended, which they see at once. What comes before they are back may be a part of the gap.
    await until(lambda: all(one.get_metrics()["bus_reconnects"] == 1 and one.health()["ok"] for one in managers))


@pytest.mark.parametrize("kind", [name for name in SERVERS if name != "postgresql"])
@pytest.mark.parametrize("losing", [flushed, killed])
async def test_a_server_that_has_lost_everything_is_noticed_by_all_and_old_tokens_are_lost(
    kind, losing, start_server, stack
):
    bus = Bus(kind, start_server(SERVERS[kind]), stack)
    here, there = await bus.managers()
    streams = [await entered(stack, watch(manager, on)) for manager in (here, there) for on in ("a", "b")]
    old = {on: await token_now(there, on) for on in ("a", "b", "quiet")}
    assert [await heard(stream, 1) for stream in streams] == [[-1]] * 4
    await losing(bus.server, here, there)
    for on in ("a", "b"):
        await tell(there, on, 1, 2)
    for stream in streams:
        gap, second = await take(stream, 2)
        assert gap == {"data": {"numbered": {"n": 1}}, "extensions": {"gap": True}}
        assert second == {"data": {"numbered": {"n": 2}}}
    for manager in (here, there):
        for on, after in old.items():
            assert await resumed(manager, on, after, 1) == "lost"
    new = await token_now(there, "a")
    await tell(there, "a", 3)
    assert await resumed(here, "a", new, 1) == [3]


async def test_an_unanswered_publish_is_in_doubt_and_accepted_at_most_once(remote):
    there = await remote.manager()
    async with proxied(remote) as (proxy, options), watch(there, "c") as control:
        here = remote.outside(**options)
        async with here:
            await tell(here, "c", 0)
            proxy.stall(["replies"])
            before = time.perf_counter()
            with pytest.raises((PublishUnknown, BusUnavailable)) as raised:
                await tell(here, "c", 1)
            assert time.perf_counter() - before < 2
            proxy.forward()
            proxy.cut()
            await until(lambda: here.health()["ok"])
            await tell(here, "c", 2)
            got = await heard(control, 2)
            if got[-1] != 2:
                got += await heard(control, 1)
            assert got in ([0, 2], [0, 1, 2])
            assert raised.type is PublishUnknown or 1 not in got


async def test_who_leaves_a_manager_or_closes_it_leaves_no_connection(remote):
    async with proxied(remote) as (proxy, options):
        manager = remote.outside(**options)
        async with manager, watch(manager, "c") as stream:
            await tell(manager, "c", 1)
            assert await heard(stream, 1) == [1]
            assert proxy.open > 0
        await until(lambda: proxy.open == 0)
        await asyncio.to_thread(manager.publish_event_sync, "told", "c", {"n": 2})
        assert proxy.open > 0
        await asyncio.to_thread(manager.close)
        await until(lambda: proxy.open == 0)
