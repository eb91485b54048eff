"""A manager's life: entering, leaving, draining, other loops, forks, the interpreter's end; and what operators see."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import selectors
import subprocess
import sys
import textwrap
import threading
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from fraiseql_subs import (
    Event,
    EventBusConfig,
    FraiseQLSubsError,
    Limits,
    NotRunning,
    Schema,
    SecurityContext,
    SubscriptionManager,
    subscription,
)

from .support import ORDERS, manager_of, nonzero, one, orders, publish_order, reader, rest, soon, take

# ---- entering and leaving ----


async def test_entering_is_counted():
    manager = manager_of()
    async with manager:
        async with manager, manager.lifespan(object()), manager.subscribe(ORDERS) as stream:
            await publish_order(manager, 1)
            assert await one(stream) == {"data": {"orders": {"id": "1"}}}
        assert manager.health()["state"] == "running"
        async with manager.subscribe(ORDERS) as stream:
            await publish_order(manager, 2)
            assert await one(stream) == {"data": {"orders": {"id": "2"}}}
    assert manager.health()["state"] == "stopped"


async def test_entries_may_overlap_in_any_order():
    manager = manager_of()
    first, second = contextlib.AsyncExitStack(), contextlib.AsyncExitStack()
    await asyncio.gather(first.enter_async_context(manager), second.enter_async_context(manager))
    await first.aclose()
    async with manager.subscribe(ORDERS) as stream:
        await publish_order(manager, 1)
        assert await one(stream) == {"data": {"orders": {"id": "1"}}}
    await second.aclose()
    with pytest.raises(NotRunning):
        await publish_order(manager, 1)


async def test_it_may_be_entered_again():
    manager = manager_of()
    for n in range(3):
        async with manager, manager.subscribe(ORDERS, subscription_id="a") as stream:
            await publish_order(manager, n)
            assert await one(stream) == {"data": {"orders": {"id": str(n)}}}
    assert manager.get_metrics()["events_delivered"] == 3


def test_it_may_be_entered_on_another_loop_after_the_first_is_closed():
    manager = manager_of()

    async def run(n: int) -> None:
        async with manager, manager.subscribe(ORDERS) as stream:
            await publish_order(manager, n)
            assert await one(stream) == {"data": {"orders": {"id": str(n)}}}

    for n in range(3):
        asyncio.run(run(n))


async def test_entering_gives_the_manager():
    manager = manager_of()
    async with manager as entered:
        assert entered is manager


async def test_an_exception_passes_through_and_stops_it():
    manager = manager_of()
    with pytest.raises(ZeroDivisionError):
        async with manager:
            raise ZeroDivisionError
    assert manager.health()["state"] == "stopped"


async def test_leaving_without_entering_raises_and_spoils_nothing():
    manager = manager_of()
    with pytest.raises(RuntimeError):
        await manager.__aexit__(None, None, None)
    async with manager, manager.subscribe(ORDERS) as stream:
        await publish_order(manager, 1)
        assert await one(stream) == {"data": {"orders": {"id": "1"}}}
    assert manager.health()["state"] == "stopped"


async def test_nothing_is_left_on_the_loop():
    before = asyncio.all_tasks()
    descriptors = len(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    for _ in range(5):
        manager = manager_of()
        async with manager, manager.subscribe(ORDERS) as stream:
            await publish_order(manager, 1)
            await one(stream)
        del manager, stream
    assert asyncio.all_tasks() == before
    # The process keeps its one runtime.
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 6
    assert threading.active_count() == threads


def test_readers_on_loops_that_are_closed_leave_no_descriptor():
    def on_a_loop(manager: Any) -> Any:
        async def wait_in_vain() -> Any:
            stream = manager.subscribe(ORDERS)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(anext(stream), 0.001)
            return stream

        return asyncio.run(wait_in_vain())

    async def main() -> None:
        async with manager_of() as manager:
            for _ in range(10):
                # The loop is closed when its reader is dropped, and had no turn to do what that asks for.
                await asyncio.to_thread(on_a_loop, manager)

    descriptors = len(os.listdir("/proc/self/fd"))
    asyncio.run(main())
    gc.collect()
    # The process keeps its one runtime.
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 6


class LateSelector(selectors.DefaultSelector):
    """Reports what became ready one turn later, but for `own`: the loop's wake-up by other threads."""

    own: int | None = None
    held: tuple[Any, ...] = ()

    def select(self, timeout: float | None = None) -> list[Any]:
        given, self.held = self.held, ()
        ready = [each for each in super().select(0 if given else timeout) if each not in given]
        if self.own is not None:
            self.held = tuple(each for each in ready if each[0].fd != self.own)
        return [*given, *(each for each in ready if each not in self.held)]


def test_the_stop_wakes_readers_whose_wake_up_comes_after_it():
    selector = LateSelector()

    async def main() -> list[dict[str, Any]]:
        async with manager_of() as manager:
            reading = await reader(manager, manager.subscribe(ORDERS))
            await asyncio.sleep(0)  # it waits for its first message
            selector.own = asyncio.get_running_loop()._ssock.fileno()  # type: ignore[attr-defined]
        selector.own = None
        return await reading

    loop = asyncio.SelectorEventLoop(selector)
    try:
        assert loop.run_until_complete(main()) == []
    finally:
        loop.close()


async def test_two_managers_have_two_buses():
    first, second = manager_of(), manager_of()
    async with first, second, first.subscribe(ORDERS) as a, second.subscribe(ORDERS) as b:
        await publish_order(first, 1)
        await publish_order(second, 2)
        assert await one(a) == {"data": {"orders": {"id": "1"}}}
        assert await one(b) == {"data": {"orders": {"id": "2"}}}


async def test_a_stop_that_is_cancelled_stops_all_the_same():
    gate = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        await gate.wait()
        return 1

    manager = manager_of(slow, limits=Limits(drain_timeout=0.2))
    await manager.__aenter__()
    stream = manager.subscribe("subscription { slow }")
    await stream.__aenter__()
    await manager.publish_event("x", "c", {})
    leaving = asyncio.create_task(manager.__aexit__(None, None, None))
    for _ in range(5):
        await asyncio.sleep(0)
    leaving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await leaving
    assert manager.health()["state"] == "stopped"
    assert await rest(stream) == []
    async with manager, manager.subscribe("subscription { slow }") as stream:
        gate.set()
        await asyncio.sleep(0.25)  # the draining that was cut short would be over now
        await manager.publish_event("x", "c", {})
        assert await one(stream) == {"data": {"slow": 1}}


# ---- draining ----


async def test_what_is_queued_may_still_be_read_while_it_drains():
    manager = manager_of()
    got: list[Any] = []

    async def read(stream: Any) -> None:
        await leaving.wait()
        got.extend(await rest(stream))

    leaving = asyncio.Event()
    async with manager:
        stream = manager.subscribe(ORDERS)
        await stream.__aenter__()
        reading = asyncio.create_task(read(stream))
        for n in range(3):
            await publish_order(manager, n)
        leaving.set()
    await soon(reading)
    assert got == [{"data": {"orders": {"id": str(n)}}} for n in range(3)]
    assert not any(manager.get_metrics()["events_dropped"].values())


async def test_functions_under_way_finish_first():
    started, gate = asyncio.Event(), asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        started.set()
        await gate.wait()
        return int(event.data["n"])

    manager = manager_of(slow, limits=Limits(resolver_concurrency=1))
    async with manager:
        reading = await reader(manager, manager.subscribe("subscription { slow }"))
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n})
        await soon(started.wait())
        asyncio.get_running_loop().call_later(0.05, gate.set)
    assert await soon(reading) == [{"data": {"slow": n}} for n in range(3)]


async def test_what_nobody_reads_is_dropped_and_counted_after_drain_timeout():
    manager = manager_of(limits=Limits(drain_timeout=0.05))
    async with manager:
        streams = [manager.subscribe(ORDERS) for _ in range(2)]
        for stream in streams:
            await stream.__aenter__()
        for n in range(3):
            await publish_order(manager, n)
        assert await one(streams[0]) == {"data": {"orders": {"id": "0"}}}
    assert nonzero(manager, "events_dropped") == {"drain": 5}
    assert manager.get_metrics()["subscriptions"] == 0
    for stream in streams:
        assert await rest(stream) == []


async def test_drain_timeout_zero_does_not_wait():
    manager = manager_of(limits=Limits(drain_timeout=0))
    async with manager:
        stream = manager.subscribe(ORDERS)
        await stream.__aenter__()
        await publish_order(manager, 1)
    assert manager.get_metrics()["events_dropped"]["drain"] == 1


async def test_a_function_that_never_ends_holds_the_stop_for_drain_timeout_alone():
    cancelled = []

    @subscription(channel="c")
    async def stuck(event: Event) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(1)
            raise
        return 1

    manager = manager_of(stuck, limits=Limits(drain_timeout=0.05))
    async with manager:
        stream = manager.subscribe("subscription { stuck }")
        await stream.__aenter__()
        await manager.publish_event("x", "c", {})
        for _ in range(5):
            await asyncio.sleep(0)
    assert cancelled == [1]
    assert await rest(stream) == []


async def test_idle_subscriptions_do_not_hold_the_stop():
    manager = manager_of(limits=Limits(drain_timeout=30))
    async with manager:
        waiting = manager.subscribe(ORDERS)
        reading = asyncio.create_task(rest(waiting))
        idle = manager.subscribe(ORDERS)
        await idle.__aenter__()
        for _ in range(5):
            await asyncio.sleep(0)
    assert await soon(reading) == []
    assert await rest(idle) == []


async def test_while_it_drains_nothing_new_is_accepted():
    states: list[str] = []
    refused: list[BaseException] = []
    started = asyncio.Event()

    @subscription(channel="c")
    async def slow(event: Event) -> int:
        started.set()
        while manager.health()["state"] == "running":
            await asyncio.sleep(0.001)
        states.append(manager.health()["state"])
        assert manager.health()["ok"] is False
        try:
            async with manager.subscribe("subscription { slow }"):
                pass
        except Exception as error:
            refused.append(error)
        return 1

    manager = manager_of(slow)
    async with manager:
        reading = await reader(manager, manager.subscribe("subscription { slow }"))
        await manager.publish_event("x", "c", {})
        await soon(started.wait())
    assert await soon(reading) == [{"data": {"slow": 1}}]
    assert states == ["draining"]
    assert [type(error) for error in refused] == [NotRunning]


# ---- other loops, forks, the end of the interpreter ----


def run_script(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    prelude = """
    import asyncio, os, sys, threading
    from dataclasses import dataclass
    from typing import AsyncIterator
    from fraiseql_subs import *

    @dataclass
    class Order:
        id: ID

    @subscription(channel="orders", passthrough=True)
    def orders() -> Order: ...

    @subscription(channel="orders")
    async def resolved(event: Event) -> Order:
        if event.data.get("stuck"):
            await asyncio.Event().wait()
        return Order(event.data["id"])

    @subscription
    async def generated() -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.Event().wait()

    def new():
        return SubscriptionManager(Schema([orders, resolved, generated]))

    async def hears_itself(manager):
        async with manager, manager.subscribe(ORDERS) as stream:
            await manager.publish_event("x", "orders", {"id": os.getpid()})
            return str(os.getpid()).encode() in await anext(stream)

    def print_status_of(child):
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    ORDERS = "subscription { orders { id } }"
    """
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments, "-c", textwrap.dedent(prelude) + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )


def check(script: str, expected: str, said: str = "") -> None:
    ended = run_script(script)
    stderr = "".join(line for line in ended.stderr.splitlines(keepends=True) if not said or said not in line)
    assert (stderr, ended.stdout, ended.returncode) == ("", expected, 0)


def test_after_a_fork_the_child_is_told():
    check(
        """
        async def main():
            manager = new()
            async with manager, manager.subscribe(ORDERS) as stream:
                await manager.publish_event("x", "orders", {"id": 1})
                child = os.fork()
                if child == 0:
                    said = [manager.health()["state"] == "stopped" and not manager.health()["ok"]]
                    publish = lambda: manager.publish_event_sync("x", "orders", {})
                    for attempt in (publish, manager.subscribe(ORDERS).__aenter__):
                        try:
                            attempt()
                        except RuntimeError as error:
                            said.append("fork" in str(error) or "loop" in str(error))
                    try:
                        await manager.publish_event("x", "orders", {"id": 2})
                    except NotRunning as error:
                        said.append("fork" in str(error))
                    try:
                        await manager.__aexit__(None, None, None)
                    except NotRunning:
                        said.append(True)
                    os._exit(0 if said == [True] * 5 else 1)
                print_status_of(child)
                await manager.publish_event("x", "orders", {"id": 3})
                print((await anext(stream)).count(b'"1"'), (await anext(stream)).count(b'"3"'))
        asyncio.run(main())
        """,
        "0\n1 1\n",
    )


def test_a_manager_may_be_made_before_a_fork_and_entered_after_it():
    check(
        """
        manager = new()
        def fork():
            child = os.fork()
            if child == 0:
                os._exit(0 if asyncio.run(hears_itself(manager)) else 1)
            print_status_of(child)
        fork()
        fork()
        print(asyncio.run(hears_itself(manager)))
        fork()
        """,
        "0\n0\nTrue\n0\n",
    )


def test_a_child_may_enter_a_manager_that_its_parent_has_entered():
    check(
        """
        manager = new()
        async def main():
            async with manager:
                child = os.fork()
                if child == 0:
                    use = lambda: os._exit(0 if asyncio.run(hears_itself(manager)) else 1)
                    thread = threading.Thread(target=use)
                    thread.start()
                    thread.join()
                    os._exit(2)
                print_status_of(child)
                print(await hears_itself(manager))
        asyncio.run(main())
        """,
        "0\nTrue\n",
    )


@pytest.mark.parametrize("how", ["end", "exit", "thread", "cancelled"])
def test_the_interpreter_may_end_with_everything_alive(how):
    check(
        f"""
        HOW = {how!r}
        keep = []
        async def main():
            manager = new()
            await manager.__aenter__()
            for query in (ORDERS, "subscription {{ resolved {{ id }} }}", "subscription {{ generated }}"):
                stream = manager.subscribe(query)
                await stream.__aenter__()
                keep.append((manager, stream))
            if HOW != "cancelled":
                await manager.publish_event("x", "orders", {{"id": 1}})
                await anext(keep[0][1])
                await anext(keep[2][1])
            if HOW == "thread":
                def flood():
                    while True:
                        try:
                            manager.publish_event_sync("x", "orders", {{"id": 1}})
                        except BaseException:
                            return
                threading.Thread(target=flood, daemon=True).start()
            if HOW == "exit":
                print("done", flush=True)
                sys.exit(0)
        asyncio.run(main())
        print("done", flush=True)
        """,
        "done\n",
        # The thread goes on publishing when the loop is closed.
        said="the event loop that entered the SubscriptionManager is closed" if how == "thread" else "",
    )


def test_the_interpreter_may_end_right_after_the_manager():
    for _ in range(8):  # without care about one end in two was a crash
        check(
            """
            async def main():
                async with new():
                    pass
            asyncio.run(main())
            """,
            "",
        )


def test_a_manager_may_be_used_in_an_exit_handler():
    check(
        """
        import atexit
        async def use():
            async with new() as manager, manager.subscribe(ORDERS) as stream:
                await manager.publish_event("x", "orders", {"id": 1})
                print(len(await anext(stream)) > 0)
        atexit.register(lambda: asyncio.run(use()))
        asyncio.run(use())
        """,
        "True\nTrue\n",
    )


def test_a_reader_that_waits_at_the_end_is_cancelled_like_any_other():
    check(
        """
        async def main():
            manager = new()
            async with manager:
                async def read():
                    async for message in manager.subscribe(ORDERS):
                        pass
                task = asyncio.create_task(read())
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            await task
            print("done")
        asyncio.run(main())
        """,
        "done\n",
    )


def test_nothing_starts_at_import():
    check(
        """
        print(threading.active_count(), len(os.listdir("/proc/self/task")))
        manager = new()
        print(threading.active_count(), len(os.listdir("/proc/self/task")))
        """,
        "1 1\n1 1\n",
    )


def test_a_closed_loop_that_was_never_left_is_told_or_works():
    check(
        """
        manager = new()
        async def enter():
            await manager.__aenter__()
        asyncio.run(enter())
        async def use():
            try:
                await manager.publish_event("x", "orders", {"id": 1})
                async with manager.subscribe(ORDERS) as stream:
                    await manager.publish_event("x", "orders", {"id": 1})
                    print("works", len(await asyncio.wait_for(anext(stream), 5)) > 0)
            except RuntimeError as error:
                print("works", True)
        asyncio.run(use())
        """,
        "works True\n",
    )


# ---- what operators see ----


async def test_health():
    manager = manager_of()
    bus = {"kind": "memory", "connected": False, "last_error": None}
    assert manager.health() == {"ok": False, "state": "stopped", "bus": bus} or manager.health() == {
        "ok": False,
        "state": "starting",
        "bus": bus,
    }
    async with manager:
        assert manager.health() == {"ok": True, "state": "running", "bus": {**bus, "connected": True}}
    assert manager.health() == {"ok": False, "state": "stopped", "bus": bus}


ENDS = ("complete", "client", "disconnect", "expired", "revoked", "slow", "error", "drained")
REASONS = {"overflow", "rate", "resolver", "result", "drain"}
MODULES = {"rows", "tenant", "fields", "sources", "scope"}
MEMORY = {"queues", "state", "inbound", "past"}


async def test_metrics():
    @subscription(channel="orders")
    async def fails(event: Event) -> int | None:
        raise ValueError

    manager = manager_of(orders, fails)
    async with manager:
        assert manager.get_metrics() == {
            "connections": 0,
            "subscriptions": 0,
            "events_published": 0,
            "events_delivered": 0,
            "events_dropped": dict.fromkeys(REASONS, 0),
            "events_filtered": dict.fromkeys(MODULES, 0),
            "events_ill_typed": {"orders": 0, "fails": 0},
            "violations": dict.fromkeys(MODULES, 0),
            "resolver_errors": 0,
            "bus_connected": 1,
            "bus_reconnects": 0,
            "bus_lag_seconds": 0,
            "bus_gaps": 0,
            "bus_skipped": 0,
            "queued_messages": 0,
            "queued_bytes": 0,
            "memory_bytes": dict.fromkeys(MEMORY, 0),
            "subscriptions_ended": dict.fromkeys(ENDS, 0),
        }
        async with manager.subscribe(ORDERS) as first, manager.subscribe("subscription { fails }") as second:
            assert manager.get_metrics()["subscriptions"] == 2
            await publish_order(manager, 1)
            await publish_order(manager, 2)
            await one(first)
            await take(second, 2)
            metrics = manager.get_metrics()
            assert (metrics["events_published"], metrics["events_delivered"], metrics["resolver_errors"]) == (2, 3, 2)
        assert manager.get_metrics()["subscriptions"] == 0


async def test_prometheus():
    manager = manager_of()
    async with manager, manager.subscribe(ORDERS) as stream:
        await publish_order(manager, 1)
        await one(stream)
        lines = manager.prometheus().splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    histograms = {name: value for name, value in samples.items() if "_seconds_" in name}
    for name in ("publish_to_enqueue", "queue_wait"):
        assert histograms[f"fraiseql_subs_{name}_seconds_count"] == "1"
    assert int(samples.pop('fraiseql_subs_memory_bytes{kind="state"}')) > 0
    assert {name: value for name, value in samples.items() if name not in histograms} == {
        **{f'fraiseql_subs_memory_bytes{{kind="{kind}"}}': "0" for kind in MEMORY - {"state"}},
        "fraiseql_subs_queued_messages": "0",
        "fraiseql_subs_queued_bytes": "0",
        **{f'fraiseql_subs_subscriptions_ended_total{{reason="{reason}"}}': "0" for reason in ENDS},
        "fraiseql_subs_connections": "0",
        "fraiseql_subs_subscriptions": "1",
        "fraiseql_subs_events_published_total": "1",
        "fraiseql_subs_events_delivered_total": "1",
        "fraiseql_subs_resolver_errors_total": "0",
        "fraiseql_subs_bus_connected": "1",
        "fraiseql_subs_bus_lag_seconds": "0.0",
        **{f"fraiseql_subs_bus_{name}_total": "0" for name in ("reconnects", "gaps", "skipped")},
        **{f'fraiseql_subs_events_dropped_total{{reason="{reason}"}}': "0" for reason in REASONS},
        **{f'fraiseql_subs_events_filtered_total{{module="{module}"}}': "0" for module in MODULES},
        **{f'fraiseql_subs_events_ill_typed_total{{field="{field}"}}': "0" for field in ("orderUpdated", "orders")},
        **{f'fraiseql_subs_violations_total{{module="{module}"}}': "0" for module in MODULES},
    }
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    names = ("connections", "subscriptions", "queued_messages", "queued_bytes", "bus_connected", "bus_lag_seconds")
    levels = {f"fraiseql_subs_{name}" for name in (*names, "memory_bytes")}
    assert {name for name, kind in types.items() if kind == "gauge"} == levels
    assert all(name.endswith("_seconds") for name, kind in types.items() if kind == "histogram")


async def test_prometheus_knows_the_type_of_each_figure_and_the_field_of_each_call():
    @subscription(channel="orders")
    async def known(event: Event) -> str:
        return "known"

    manager = manager_of(known)
    async with manager, manager.subscribe("subscription { alias: known }") as stream:
        for n in range(3):
            await publish_order(manager, n)
        await take(stream, 3)
        lines = manager.prometheus().splitlines()
    assert lines[-1] == "# EOF"
    types = {line.split()[2]: line.split()[3] for line in lines if line.startswith("# TYPE")}
    kinds = {
        "gauge": [
            "connections",
            "subscriptions",
            "queued_messages",
            "queued_bytes",
            "memory_bytes",
            "bus_connected",
            "bus_lag_seconds",
        ],
        "counter": ["published", "delivered", "dropped", "filtered", "ill_typed"],
        "histogram": ["publish_to_enqueue_seconds", "queue_wait_seconds", "resolver_seconds"],
    }
    kinds["counter"] = [f"events_{name}" for name in kinds["counter"]]
    kinds["counter"] += [
        "resolver_errors",
        "violations",
        "subscriptions_ended",
        "bus_reconnects",
        "bus_gaps",
        "bus_skipped",
    ]
    assert types == {f"fraiseql_subs_{name}": kind for kind, names in kinds.items() for name in names}
    helped = {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert helped == set(types)
    assert 'fraiseql_subs_resolver_seconds_count{field="known"} 3' in lines
    buckets = [line for line in lines if line.startswith("fraiseql_subs_resolver_seconds_bucket")]
    counts = [int(line.rsplit(" ", 1)[1]) for line in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == 3
    assert 'le="+Inf"' in buckets[-1]


async def test_metrics_outlive_a_run():
    manager = manager_of()
    for n in range(2):
        async with manager:
            await publish_order(manager, 1)
        assert manager.get_metrics()["events_published"] == n + 1


# ---- what is not there yet says so ----


async def test_what_is_not_there_yet_raises():
    with pytest.raises(NotImplementedError, match="serve is not there yet") as raised:
        await manager_of().serve("127.0.0.1", 0)
    assert isinstance(raised.value, FraiseQLSubsError)


# ---- what it is made of ----


@pytest.mark.parametrize("field", [field.name for field in fields(Limits)])
def test_every_limit_is_validated(field):
    bad: list[Any] = [-1, "x", float("nan"), object(), True]
    if field not in ("drain_timeout",):
        bad.append(0)
    for value in bad:
        with pytest.raises((ValueError, TypeError), match=field):
            Limits(**{field: value})
    assert Limits(**{field: getattr(Limits(), field)}) == Limits()


def test_limits_are_frozen_and_keyword_only():
    with pytest.raises(FrozenInstanceError):
        Limits().overflow = "latest"  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError):
        Limits(nothing=1)  # type: ignore[call-arg]  # that is the point


def test_what_a_manager_is_made_of_is_checked():
    schema = Schema([orders])
    wrong: list[tuple[Any, Any]] = [
        ((orders,), {}),
        ((schema, "memory"), {}),
        ((schema,), {"limits": {}}),
        ((schema,), {"multi_tenant": 1}),
    ]
    for arguments, options in wrong:
        with pytest.raises(TypeError):
            SubscriptionManager(*arguments, **options)
    with pytest.raises(TypeError):
        SubscriptionManager(schema, EventBusConfig.memory(), Limits())  # type: ignore[call-arg]  # that is the point


def test_a_security_context_cannot_be_changed():
    claims: dict[str, Any] = {"a": [1, {"b": 2}]}
    context = SecurityContext(user_id=1, claims=claims, roles=["a"])
    for name in ("user_id", "tenant_id", "roles", "claims"):
        with pytest.raises(AttributeError):
            setattr(context, name, 1)
    claims["a"].append(3)
    with pytest.raises((TypeError, AttributeError)):
        context.claims["a"] = 1  # type: ignore[index]  # that is the point
    assert context == SecurityContext(user_id=1, claims={"a": [1, {"b": 2}]}, roles={"a"})
    bare: list[Any] = ["admin", b"admin"]
    for bad in bare:
        for name in ("roles", "permissions", "sources"):
            with pytest.raises(TypeError, match=name):
                SecurityContext(**{name: bad})


async def test_many_managers_can_be_made_from_one_schema():
    schema = Schema([orders])
    first, second = SubscriptionManager(schema), SubscriptionManager(schema)
    async with first, second, first.subscribe(ORDERS) as a, second.subscribe(ORDERS) as b:
        await publish_order(second, 2)
        await publish_order(first, 1)
        assert await one(a) == {"data": {"orders": {"id": "1"}}}
        assert await one(b) == {"data": {"orders": {"id": "2"}}}
