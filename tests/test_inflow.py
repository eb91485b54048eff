"""How fast a user may send: what comes too fast waits. Nothing of it is lost, nobody is closed, nobody else waits."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from fraiseql_subs import Limits, SecurityContext

from .sockets import Client, ticking, until


async def authenticate(payload: dict[str, Any]) -> SecurityContext:
    return SecurityContext(payload.get("user"))


ONE, TWO = {"user": 1}, {"user": 2}


def ping(n: int, pad: int = 0) -> dict[str, Any]:
    return {"type": "ping", "payload": {"n": n, "pad": "x" * pad}}


def pong(n: int, pad: int = 0) -> dict[str, Any]:
    return {**ping(n, pad), "type": "pong"}


async def answered(client: Client, count: int, pad: int = 0) -> float:
    """Sends so many at once, and takes the answers in order; the seconds that took."""
    began = time.monotonic()
    await client.send(*(ping(n, pad) for n in range(count)))
    await client.expect(*(pong(n, pad) for n in range(count)))
    return time.monotonic() - began


async def test_a_burst_is_answered_at_once_and_what_comes_beyond_it_at_its_rate():
    limits = Limits(messages_per_second=20, message_burst=10)
    async with ticking(limits=limits, auth_handler=authenticate) as (manager, server):
        async with (
            server.acknowledged(payload={"user": 1}) as client,
            server.acknowledged(payload={"user": 2}) as other,
        ):
            flood = asyncio.create_task(answered(client, 30))
            # Whoever sends little is answered meanwhile, and so is everybody else.
            assert await answered(other, 9) < 1.0
            assert not flood.done()
            assert await flood >= 1.0
            assert manager.get_metrics()["connections"] == 2


async def test_bytes_come_four_seconds_worth_at_once_and_then_at_their_rate():
    limits = Limits(bytes_per_second=50_000)
    async with ticking(limits=limits, auth_handler=authenticate) as (_, server):
        async with (
            server.acknowledged(payload={"user": 1}) as client,
            server.acknowledged(payload={"user": 2}) as other,
        ):
            flood = asyncio.create_task(answered(client, 5, 50_000))
            assert await answered(other, 3, 50_000) < 1.0
            assert await flood >= 1.0


@pytest.mark.parametrize("again", [False, True])
async def test_all_sockets_of_a_user_have_one_rate_and_a_new_one_brings_no_new_burst(again):
    limits = Limits(messages_per_second=4, message_burst=8)
    async with ticking(limits=limits, auth_handler=authenticate) as (_, server):
        async with server.acknowledged(payload={"user": 1}) as first:
            await answered(first, 7)
            if again:
                await first.close()
            async with (
                server.acknowledged(payload={"user": 1}) as second,
                server.acknowledged(payload={"user": 2}) as other,
            ):
                assert await answered(other, 7) < 0.5
                assert await answered(second, 6) >= 0.6


async def test_anonymous_viewers_have_a_rate_for_each_connection():
    async with ticking(limits=Limits(messages_per_second=4, message_burst=8)) as (_, server):
        async with server.acknowledged() as first, server.acknowledged() as second:
            assert await answered(first, 11) >= 0.7
            assert await answered(second, 7) < 0.5


async def test_without_rates_everything_is_handled_as_it_comes():
    limits = Limits(messages_per_second=None, bytes_per_second=None)
    async with ticking(limits=limits) as (_, server), server.acknowledged() as client:
        await answered(client, 3_000)
        await answered(client, 10, 200_000)


async def test_the_time_for_a_pong_stands_still_while_the_client_is_not_read():
    limits = Limits(messages_per_second=4, message_burst=2, ping_interval=0.1, pong_timeout=0.3)
    async with ticking(limits=limits, auth_handler=authenticate) as (_, server):
        async with (
            server.acknowledged(payload={"user": 1}) as client,
            server.acknowledged(payload={"user": 2}) as silent,
        ):
            await client.send(*(ping(n) for n in range(6)))
            waits = [pong(n) for n in range(6)]
            while waits:
                message = await client.message()
                if message == {"type": "ping"}:
                    await client.send({"type": "pong"})
                else:
                    assert message == waits.pop(0)
            # One that is read all the time, and says nothing, is not waited for.
            await silent.expect({"type": "ping"})
            assert await silent.closed() == (4408, "Pong timeout")
            assert not client.is_closed()


async def test_what_waits_for_its_turn_is_counted_and_let_go_with_its_connection():
    limits = Limits(messages_per_second=0.01, message_burst=1)
    async with ticking(limits=limits, auth_handler=authenticate) as (manager, server):
        async with server.acknowledged(payload={"user": 1}) as client:
            await client.send(ping(1), ping(2, 10_000))
            await client.expect(pong(1))
            await until(lambda: manager.get_metrics()["memory_bytes"]["inbound"] > 10_000)
            await manager.revoke(user_id=1)
            assert await client.closed() == (4403, "Forbidden")
        await until(lambda: manager.get_metrics()["memory_bytes"]["inbound"] == 0)
