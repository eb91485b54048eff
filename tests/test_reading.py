"""Reading a function's result: within its budget, plan by plan, and nobody pays for what another selects."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from fraiseql_subs import ID, Event, EventBusConfig, Limits, Schema, SubscriptionManager, subscription

from .sockets import until
from .support import entered, nonzero, one, take

TOO_LARGE = {"data": None, "errors": [{"message": "Result too large", "extensions": {"code": "RESULT_TOO_LARGE"}}]}
LATE = {"code": "TIMEOUT"}

SDL = """
type Query { _empty: Boolean }
type Subscription { read(of: ID): Person }
type Person { id: ID! name: String friends: [Person!] numbers: [Int!] any: JSON slow: String other: String
  later: Person peers(first: Int): [Person!] }
scalar JSON
"""


def reading(function: Callable[..., Any], **limits: Any) -> SubscriptionManager:
    """A manager whose field `read` has this function."""
    read = subscription(channel="c", name="read")(function)
    return SubscriptionManager(
        Schema.from_sdl(SDL, subscriptions=[read]), EventBusConfig.memory(), limits=Limits(**limits)
    )


def selecting(fields: str) -> str:
    return f"subscription {{ read {{ {fields} }} }}"


#: A machine that is busy with something else holds a loop as well.
ATTEMPTS = 20


class Held:
    """How long the loop stood still at most, and by how much the process grew."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.grown = 0


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[Held]:
    measured, before = Held(), peak()

    async def watch() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            measured.longest, last = max(measured.longest, now - last), now

    gc.collect()
    gc.disable()  # it looks through all that the tests have made
    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield measured
    finally:
        gc.enable()
        watching.cancel()
        measured.grown = peak() - before


def peak() -> int:
    """The most memory that the process has had since this was last asked."""
    status = Path("/proc/self/status").read_text()
    most = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return most << 10


class Cyclic:
    """Three friends each, who are the same three again."""

    id = "1"

    @property
    def friends(self) -> list[Cyclic]:
        return [self, self, self]


def nested(depth: int) -> str:
    return "friends { " * depth + "id" + " }" * depth


#: More than anybody may be sent, and what is selected of it.
GREEDY: dict[str, tuple[Callable[[], Any], str]] = {
    "a cyclic graph": (Cyclic, nested(18)),
    "a list": (lambda: {"id": "1", "numbers": [0] * 5_000_000}, "numbers"),
    "a text": (lambda: {"id": "1", "name": "x" * (100 << 20)}, "name"),
    "an object in JSON": (lambda: {"id": "1", "any": dict.fromkeys(map(str, range(5_000_000)))}, "any"),
}


@pytest.mark.parametrize("kind", ["async", "sync"])
@pytest.mark.parametrize("what", GREEDY)
async def test_a_result_is_read_within_its_budget(what, kind):
    make, fields = GREEDY[what]
    result = make()

    async def on_loop(event: Event) -> Any:
        return result

    def in_thread(event: Event) -> Any:
        return result

    manager = reading(on_loop if kind == "async" else in_thread)
    async with manager, manager.subscribe(selecting(fields)) as greedy, manager.subscribe(selecting("id")) as modest:
        await manager.publish_event("x", "c", {})
        # Whatever is made once has been made.
        assert await one(modest) == {"data": {"read": {"id": "1"}}}
        assert await one(greedy) == TOO_LARGE
        for _ in range(ATTEMPTS):
            async with held() as measured:
                await manager.publish_event("x", "c", {})
                assert await one(modest) == {"data": {"read": {"id": "1"}}}
                assert await one(greedy) == TOO_LARGE
            assert measured.grown < 100 << 20
            if measured.longest < 0.05:
                return
    pytest.fail(f"the loop was held for {measured.longest} s")


async def test_exactly_so_many_nodes_are_read():
    async def read(event: Event) -> Any:
        return {"id": 1, "numbers": [0] * event.data["items"], "any": {"a": [1, 2]}}

    # The object, the list and its items.
    manager = reading(read, max_result_nodes=10)
    async with (
        manager,
        manager.subscribe(selecting("numbers")) as stream,
        manager.subscribe(selecting("any")) as objects,
    ):
        for items in (8, 9, 1):
            await manager.publish_event("x", "c", {"items": items})
        assert await take(stream, 3) == [
            {"data": {"read": {"numbers": [0] * 8}}},
            TOO_LARGE,
            {"data": {"read": {"numbers": [0]}}},
        ]
        assert await take(objects, 3) == [{"data": {"read": {"any": {"a": [1, 2]}}}}] * 3

    async def again(event: Event) -> Any:
        return await read(event)

    small = reading(again, max_result_nodes=4)
    async with small, small.subscribe(selecting("any")) as objects:
        await small.publish_event("x", "c", {"items": 0})
        assert await one(objects) == TOO_LARGE


async def test_a_plan_pays_for_what_another_has_read():
    class Person:
        id = "1"
        numbers = (0,) * 60
        reads = 0

        @property
        def friends(self) -> list[Person]:
            Person.reads += 1
            return [self]

    async def read(event: Event) -> Any:
        return Person()

    manager = reading(read, max_result_nodes=100)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        asked = ["friends { numbers }", "friends { numbers friends { numbers } }", "friends { id }"]
        streams = [await entered(stack, manager.subscribe(selecting(fields))) for fields in asked]
        await manager.publish_event("x", "c", {})
        got = [await one(stream) for stream in streams]
    person = {"numbers": [0] * 60}
    assert got == [{"data": {"read": {"friends": [person]}}}, TOO_LARGE, {"data": {"read": {"friends": [{"id": "1"}]}}}]
    # Once for each place.
    assert Person.reads == 2


async def test_what_is_large_is_read_again_where_it_can_be():
    """Many plans that select much of one result, each something else, and one whose list can be read but once."""
    begun: list[int] = []

    class Person:
        id = "1"

        def __init__(self) -> None:
            self.once = iter([{"id": n} for n in range(3)])

        def peers(self, first: int) -> list[Any]:
            return [{"id": first}] * 80

        @property
        def friends(self) -> Any:
            return self.once

        def later(self) -> Any:
            async def give() -> Any:
                begun.append(1)
                return {"id": "late", "numbers": [1] * 70}

            return give()

    async def read(event: Event) -> Any:
        return Person()

    manager = reading(read, max_result_nodes=200)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        asked = ["friends { id }", "later { numbers }", *(f"peers(first: {n}) {{ id }}" for n in range(20))]
        asked += ["id later { id numbers }", "id friends { id }"]
        streams = [await entered(stack, manager.subscribe(selecting(fields))) for fields in asked]
        await manager.publish_event("x", "c", {})
        got = [(await one(stream))["data"]["read"] for stream in streams]
    friends = [{"id": str(n)} for n in range(3)]
    assert got[:2] == [{"friends": friends}, {"later": {"numbers": [1] * 70}}]
    assert got[2:22] == [{"peers": [{"id": str(n)}] * 80} for n in range(20)]
    assert got[22:] == [
        {"id": "1", "later": {"id": "late", "numbers": [1] * 70}},
        {"id": "1", "friends": friends},
    ]
    assert begun == [1]


# ---- what one viewer selects costs the others nothing ----


class Slow:
    """A person whose `slow` is awaited until it is let go."""

    def __init__(self, let_go: asyncio.Event, id: str = "1") -> None:
        self.id = id
        self.let_go = let_go
        self.begun = 0

    def slow(self) -> Any:
        async def give() -> str:
            self.begun += 1
            await self.let_go.wait()
            return "at last"

        return give()


async def test_a_slow_field_delays_only_who_selects_it():
    let_go = asyncio.Event()
    people: list[Slow] = []

    async def read(event: Event) -> Any:
        people.append(Slow(let_go, str(event.data["n"])))
        return people[-1]

    manager = reading(read, queue_messages=2_000, overflow="drop_newest")
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        modest = await entered(stack, manager.subscribe(selecting("id")))
        waiting = [await entered(stack, manager.subscribe(selecting(fields))) for fields in ("slow", "id slow")]
        for n in range(1_500):
            await manager.publish_event("x", "c", {"n": n})
        assert await take(modest, 1_500) == [{"data": {"read": {"id": str(n)}}} for n in range(1_500)]
        let_go.set()
        for stream in waiting:
            got = await take(stream, 1_500)
            assert [payload["data"]["read"]["slow"] for payload in got] == ["at last"] * 1_500
        # In order, and each awaitable once, whoever waits for it.
        assert [payload["data"]["read"]["id"] for payload in got] == [str(n) for n in range(1_500)]
        assert {person.begun for person in people} == {1}
    assert nonzero(manager, "events_dropped") == {}


async def test_what_has_no_room_in_a_lane_is_lost_to_it_alone():
    let_go = asyncio.Event()

    async def read(event: Event) -> Any:
        return Slow(let_go, str(event.data["n"]))

    manager = reading(read, queue_messages=20, resolver_concurrency=4, overflow="drop_oldest")
    async with manager, manager.subscribe(selecting("id")) as modest, manager.subscribe(selecting("slow")) as waiting:
        for n in range(30):
            await manager.publish_event("x", "c", {"n": n})
            assert await one(modest) == {"data": {"read": {"id": str(n)}}}
        let_go.set()
        slow = {"data": {"read": {"slow": "at last"}}}
        assert await take(waiting, 20) == [{**slow, "extensions": {"dropped": 10}}] + [slow] * 19
        await manager.publish_event("x", "c", {"n": 30})
        assert await one(waiting) == slow
        assert await one(modest) == {"data": {"read": {"id": "30"}}}
    assert nonzero(manager, "events_dropped") == {"resolver": 10}


async def test_the_place_of_a_call_is_free_when_the_function_returns():
    let_go, called = asyncio.Event(), []

    async def read(event: Event) -> Any:
        called.append(event.data["n"])
        return Slow(let_go)

    manager = reading(read, resolver_concurrency=1)
    async with manager, manager.subscribe(selecting("slow")) as waiting:
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n})
        await until(lambda: called == [0, 1, 2])
        let_go.set()
        assert await take(waiting, 3) == [{"data": {"read": {"slow": "at last"}}}] * 3


async def test_readings_that_wait_take_half_of_the_places():
    """Those of one plan as many as its set may have calls, all together half of `max_calls`; calls have the rest."""
    let_go = asyncio.Event()
    people: list[Slow] = []

    async def read(event: Event, of: ID | None = None) -> Any:
        people.append(Slow(let_go, str(of)))
        return people[-1]

    manager = reading(read, max_calls=10, resolver_concurrency=3, subscribes_per_second=None)

    def awaited() -> int:
        return sum(person.begun for person in people)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        streams = [
            await entered(stack, manager.subscribe(f"subscription {{ read(of: {of}) {{ id slow }} }}"))
            for of in range(4)
        ]
        modest = await entered(stack, manager.subscribe("subscription { read(of: 99) { id } }"))
        for n in range(5):
            await manager.publish_event("x", "c", {"n": n})
        await take(modest, 5)
        # Every function has been called, and five results are waited for.
        assert len(people) == 25
        assert awaited() == 5
        let_go.set()
        for of, stream in enumerate(streams):
            expected = {"data": {"read": {"id": str(of), "slow": "at last"}}}
            assert await take(stream, 5) == [expected] * 5
        assert awaited() == 20


async def test_those_of_one_plan_wait_in_their_lane():
    let_go = asyncio.Event()
    people: list[Slow] = []

    async def read(event: Event) -> Any:
        people.append(Slow(let_go))
        return people[-1]

    manager = reading(read, resolver_concurrency=3)
    async with manager, manager.subscribe(selecting("slow")) as stream, manager.subscribe(selecting("id")) as modest:
        for n in range(10):
            await manager.publish_event("x", "c", {"n": n})
        await take(modest, 10)
        assert [person.begun for person in people] == [1] * 3 + [0] * 7
        let_go.set()
        assert len(await take(stream, 10)) == 10


async def test_the_time_out_runs_from_the_start_of_the_call():
    """What is awaited, and what waits in its lane, fails when the call's time is over; the rest of it is there."""
    cancelled: list[str] = []

    async def read(event: Event) -> Any:
        async def give() -> str:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append("slow")
                raise
            return "never"

        return {"id": event.data["n"], "slow": give(), "other": "here"}

    manager = reading(read, resolver_timeout=0.3, resolver_concurrency=1)
    async with (
        manager,
        manager.subscribe(selecting("id other")) as modest,
        manager.subscribe(selecting("id slow")) as s,
    ):
        for n in range(2):
            await manager.publish_event("x", "c", {"n": n})
        assert await take(modest, 2) == [{"data": {"read": {"id": str(n), "other": "here"}}} for n in range(2)]
        for n in range(2):
            payload = await one(s)
            assert payload["data"] == {"read": {"id": str(n), "slow": None}}
            [error] = payload["errors"]
            assert (error["path"], error["extensions"]) == (["read", "slow"], LATE)
        await until(lambda: cancelled == ["slow"])


async def test_a_thousand_selections_hold_nobody():
    """Each plan is read by itself; whoever selects little does not wait for a thousand others."""

    class Person:
        id = "1"
        name = "n"

        def peers(self, first: int) -> list[Any]:
            return [{"id": first}]

    async def read(event: Event) -> Any:
        return Person()

    manager = reading(read, subscribes_per_second=None)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(manager)
        modest = await entered(stack, manager.subscribe(selecting("id")))
        for n in range(1_000):
            aliases = " ".join(f"a{k}: peers(first: {n * 30 + k}) {{ id }}" for k in range(10))
            await entered(stack, manager.subscribe(selecting(aliases)))
        await manager.publish_event("x", "c", {})
        assert await one(modest) == {"data": {"read": {"id": "1"}}}
        for attempt in range(ATTEMPTS):
            async with held() as measured:
                await manager.publish_event("x", "c", {})
                assert await one(modest) == {"data": {"read": {"id": "1"}}}
                while manager.get_metrics()["queued_messages"] < 1_000 * (attempt + 2):
                    await asyncio.sleep(0)
            if measured.longest < 0.05:
                return
    pytest.fail(f"the loop was held for {measured.longest} s")


async def test_reading_goes_on_in_the_context_of_the_call():
    """Attributes are read, and awaited, where the function's context variables are, in later turns as well."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    class Person:
        @property
        def name(self) -> str:
            return variable.get()

        @property
        def friends(self) -> Iterator[Any]:
            for _ in range(3):
                time.sleep(0.003)
                yield self

        async def slow(self) -> str:
            return variable.get()

    async def read(event: Event) -> Any:
        variable.set(f"set {event.data['n']}")
        return Person()

    manager = reading(read)
    async with manager, manager.subscribe(selecting("slow friends { name slow }")) as stream:
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n})
        for n in range(3):
            seen = f"set {n}"
            friend = {"name": seen, "slow": seen}
            assert await one(stream) == {"data": {"read": {"slow": seen, "friends": [friend] * 3}}}
    assert variable.get() == "unset"


async def test_a_thread_lets_go_of_the_interpreter():
    """While a long list is read in a thread the loop goes on."""
    people = [{"id": n, "name": "n", "other": "o"} for n in range(24_000)]

    def read(event: Event) -> Any:
        return {"friends": people}

    manager = reading(read, queue_bytes=4 << 20)
    async with manager, manager.subscribe(selecting("friends { id name other }")) as stream:
        for _ in range(ATTEMPTS):
            async with held() as measured:
                await manager.publish_event("x", "c", {})
                while not manager.get_metrics()["queued_messages"]:
                    await asyncio.sleep(0)
            assert len((await one(stream))["data"]["read"]["friends"]) == 24_000
            if measured.longest < 0.05:
                return
    pytest.fail(f"the loop was held for {measured.longest} s")


async def test_a_thread_that_reads_too_long_is_told():
    blocked, began = threading.Event(), threading.Event()

    class Person:
        id = "1"

        @property
        def slow(self) -> str:
            began.set()
            blocked.wait()
            return "late"

    def read(event: Event) -> Any:
        return Person()

    manager = reading(read, resolver_timeout=0.2)
    try:
        async with manager, manager.subscribe(selecting("slow")) as stream:
            await manager.publish_event("x", "c", {})
            payload = await one(stream)
            assert began.is_set()
            assert [error["extensions"] for error in payload["errors"]] == [LATE]
    finally:
        blocked.set()


# ---- a call that does not suspend ----


async def test_a_call_that_does_not_suspend_costs_no_task():
    tasks: list[Any] = []

    async def quick(event: Event) -> Any:
        assert asyncio.current_task() is not None
        return {"id": event.data["n"]}

    async def slow(event: Event) -> Any:
        await asyncio.sleep(0)
        return {"id": event.data["n"]}

    def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
        tasks.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **more)

    for function, made in [(quick, 1), (slow, 20)]:
        manager = reading(function)
        async with manager, manager.subscribe(selecting("id")) as stream:
            asyncio.get_running_loop().set_task_factory(factory)
            try:
                for n in range(20):
                    await manager.publish_event("x", "c", {"n": n})
                    assert await one(stream) == {"data": {"read": {"id": str(n)}}}
            finally:
                asyncio.get_running_loop().set_task_factory(None)
        # `wait_for` makes one for each message that a test takes.
        assert sum("_Parked" in name or "Runner._call" in name for name in tasks) == made
        tasks.clear()


async def test_calls_have_contexts_and_tasks_of_their_own():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    seen: list[str] = []

    async def read(event: Event) -> Any:
        seen.append(variable.get())
        token = variable.set("changed")
        task = asyncio.current_task()
        if event.data["waits"]:
            await asyncio.sleep(0.01)
            assert asyncio.current_task() is task
            assert variable.get() == "changed"
            variable.reset(token)
        return {"id": event.data["n"]}

    manager = reading(read)
    async with manager, manager.subscribe(selecting("id")) as stream:
        for n in range(8):
            await manager.publish_event("x", "c", {"n": n, "waits": n % 2})
        assert [(await one(stream))["data"]["read"]["id"] for _ in range(8)] == [str(n) for n in range(8)]
    assert seen == ["unset"] * 8


async def test_a_deadline_round_the_first_step_ends_what_it_wraps():
    async def read(event: Event) -> Any:
        with anyio.move_on_after(0.01):
            await asyncio.Event().wait()
        return {"id": event.data["n"]}

    manager = reading(read)
    async with manager, manager.subscribe(selecting("id")) as stream:
        for n in range(3):
            await manager.publish_event("x", "c", {"n": n})
        assert [(await one(stream))["data"]["read"]["id"] for _ in range(3)] == ["0", "1", "2"]


async def test_a_call_that_is_given_up_in_its_first_step_is_cancelled():
    """Its task has not had a step of its own then."""
    ended: list[str] = []

    async def read(event: Event) -> Any:
        await stream.aclose()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("cancelled")
            await asyncio.sleep(0)
            ended.append("cleaned up")
            raise

    manager = reading(read)
    async with manager:
        stream = manager.subscribe(selecting("id"))
        await stream.__aenter__()
        await manager.publish_event("x", "c", {})
        await until(lambda: ended == ["cancelled", "cleaned up"])


async def test_who_leaves_while_a_result_is_read_leaves_nothing_behind():
    cancelled = 0

    async def read(event: Event) -> Any:
        async def give() -> str:
            nonlocal cancelled
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise
            return "never"

        return {"slow": give(), "id": 1}

    manager = reading(read)
    async with manager:
        async with manager.subscribe(selecting("slow")), manager.subscribe(selecting("id")) as modest:
            for n in range(3):
                await manager.publish_event("x", "c", {"n": n})
            await take(modest, 3)
            assert cancelled == 0
        await until(lambda: cancelled == 3)
        await until(lambda: not any("outcome" in str(task.get_coro()) for task in asyncio.all_tasks()))


async def test_a_generator_is_read_in_slices_and_waits_for_its_own():
    class Person:
        def __init__(self, n: int) -> None:
            self.id = n

        @property
        def friends(self) -> Iterator[Any]:
            for _ in range(5):
                time.sleep(0.001)
                yield self

        async def slow(self) -> str:
            await asyncio.sleep(0)
            return f"slow {self.id}"

    @subscription
    async def read() -> AsyncIterator[Any]:
        for n in range(3):
            yield Person(n)

    manager = SubscriptionManager(Schema.from_sdl(SDL, subscriptions=[read]), EventBusConfig.memory())
    async with manager, manager.subscribe(selecting("friends { id slow }")) as stream:
        for n in range(3):
            friend = {"id": str(n), "slow": f"slow {n}"}
            assert await one(stream) == {"data": {"read": {"friends": [friend] * 5}}}
