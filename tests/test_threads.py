"""Threads of sync functions: one that was given up keeps neither the next run nor the process's end waiting."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from fraiseql_subs import Event, Limits, subscription

from .conftest import ENVIRONMENT
from .sockets import open_client
from .support import manager_of, one, soon, take

APPS = Path(__file__).parent / "apps"
#: A server may take so long to end; the function that was given up blocks for a minute.
LONGEST_END = 5.0


@pytest.mark.parametrize("how", ["return", "interrupt", "never left"])
def test_a_function_that_was_given_up_does_not_keep_the_process(how):
    script = f"""
    import asyncio, signal, sys
    sys.path.insert(0, {str(APPS)!r})
    from stuck import manager

    async def main():
        await manager.__aenter__()
        async with manager.subscribe("subscription {{ stuck }}") as stream:
            await manager.publish_event("x", "stuck", {{}})
            print(b"TIMEOUT" in await anext(stream), flush=True)
        if {how!r} == "never left":
            return
        try:
            if {how!r} == "interrupt":
                signal.raise_signal(signal.SIGINT)
                await asyncio.sleep(60)
        finally:
            await manager.__aexit__(None, None, None)
    asyncio.run(main())
    """
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=30, env=ENVIRONMENT, check=False,
    )  # fmt: skip
    assert time.monotonic() - began < LONGEST_END
    assert ended.stdout == "True\n", ended.stderr
    assert ended.returncode == 0 or how == "interrupt", ended.stderr


@pytest.mark.parametrize("name", ["granian", "uvicorn-websockets-sansio"])
async def test_a_function_that_was_given_up_does_not_keep_a_server(serve, name):
    server = await serve(name, "stuck:app", APPS)
    client = await open_client(server, "/")
    await client.init()
    await client.subscribe("1", "subscription { stuck }")
    await client.ask("2", "subscription { publish }")
    codes = []
    while "TIMEOUT" not in codes:
        message = await client.message()
        if message["id"] == "1":
            codes.append(message["payload"]["errors"][0]["extensions"]["code"])
    await client.close()
    await asyncio.wait_for(server.stop(), LONGEST_END)


async def test_a_function_that_outlives_its_run_disturbs_the_next_one_in_nothing(caplog):
    release, ended = threading.Event(), threading.Event()

    @subscription(channel="c")
    def slow(event: Event) -> int:
        if event.data["n"] == 0:
            release.wait()
            ended.set()
        return int(event.data["n"])

    manager = manager_of(slow, limits=Limits(drain_timeout=0, resolver_threads=1))
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(release.set)
        async with manager, manager.subscribe("subscription { slow }"):
            await manager.publish_event("x", "c", {"n": 0})
            await asyncio.sleep(0.05)
        async with manager, manager.subscribe("subscription { slow }") as stream:
            await manager.publish_event("x", "c", {"n": 1})
            assert await one(stream) == {"data": {"slow": 1}}
            release.set()
            assert await soon(asyncio.to_thread(ended.wait, 5))
            await asyncio.sleep(0.05)
            await manager.publish_event("x", "c", {"n": 2})
            assert await one(stream) == {"data": {"slow": 2}}
    assert raised == []
    assert caplog.records == []


async def test_threads_are_started_when_they_are_needed_and_kept():
    seen: list[str] = []
    both = threading.Barrier(2, timeout=5)

    @subscription(channel="c")
    def named(event: Event) -> int:
        seen.append(threading.current_thread().name)
        if event.data["meets"]:
            both.wait()
        return 1

    manager = manager_of(named, limits=Limits(resolver_threads=8))
    async with manager, manager.subscribe("subscription { named }") as stream:
        for _ in range(20):
            await manager.publish_event("x", "c", {"meets": False})
            await one(stream)
            await asyncio.sleep(0.001)
        assert len(set(seen)) <= 2
        for _ in range(2):
            await manager.publish_event("x", "c", {"meets": True})
        await take(stream, 2)
        mine = [thread for thread in threading.enumerate() if thread.name in seen]
        assert 2 <= len(mine) <= 3
        assert all(thread.daemon for thread in mine)
    for thread in mine:
        await soon(asyncio.to_thread(thread.join, 5))
    assert not any(thread.is_alive() for thread in mine)
