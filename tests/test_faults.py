"""No event lost, none twice, none out of order: buses under load while connections, servers and processes fail.

Three processes publish and listen, two of them through proxies. Every event has an identity, and every process says
what it tried, what was accepted, refused or left in doubt, and what it heard. After each scenario the books must
balance.

`FAULTS=20` repeats everything as often; `FAULTS_SEED` chooses when things fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain, count
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import redis

from fraiseql_subs import (
    BusUnavailable,
    Event,
    Forbidden,
    PublishUnknown,
    SecurityContext,
    SubscriptionManager,
    _core,
)
from fraiseql_subs.servers import PostgreSQL, Server

from . import databases
from .apps import bus_worker, old_worker
from .buses import config
from .conftest import ENVIRONMENT
from .proxy import BOTH, Proxy
from .servers import SERVERS, started, unheard
from .sockets import logged, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = int(os.environ.get("FAULTS", "1"))
SEED = int(os.environ.get("FAULTS_SEED", "0")) or random.randrange(1, 10**6)
CHANNELS = ["a", "b", "c"]
#: Seconds after which delivery goes on when the bus is back, and after which a silent peer is found.
GOES_ON, FOUND = 2.0, 15.0
#: Seconds after which `health()` says that a server takes nothing.
TOLD = 2.0
OUTCOMES = ("accepted", "refused", "doubted")
#: What a Redis needs to keep what it accepted.
LASTING = {"redis": ["appendonly yes"], "valkey": ["appendonly yes"], "postgresql": []}
#: In the short form one server of each bus.
KINDS = [kind for kind in SERVERS if ROUNDS > 1 or kind != "valkey" or "redis" not in SERVERS]


class Worker:
    """One process, and what it has said, over all its lives."""

    def __init__(self, name: str, options: dict[str, Any], program: Any = bus_worker) -> None:
        self.name = name
        self._program = program.__file__
        self.tokens: dict[str, str] = {}
        self.heard: dict[str, list[str]] = {channel: [] for channel in CHANNELS}
        self.heard_at: dict[str, float] = {}
        #: How many had been heard when a gap was told.
        self.gaps: dict[str, list[int]] = {channel: [] for channel in CHANNELS}
        #: By identity: accepted, refused, or in doubt.
        self.outcomes: dict[str, str] = {}
        self.batches: list[list[str]] = []
        #: Of what it published.
        self.channels: dict[str, str] = {}
        #: When it subscribed: the channel, and how many it had heard.
        self.begun: list[tuple[str, int]] = []
        self.connected = False
        self.paused = asyncio.Event()
        self._lives = count()
        self._options = options
        self._live: set[str] = set()

    async def start(self) -> None:
        """Returns when it listens; what it heard last in an earlier life is where it goes on."""
        self._live = set()
        own = {"name": f"{self.name}{next(self._lives)}", "channels": CHANNELS, "tokens": self.tokens, "publishers": 2}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, self._program, json.dumps({**self._options, **own}), env=ENVIRONMENT, limit=2**24,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await until(lambda: self._reading.done() or self._live >= {*CHANNELS})
        assert not self._reading.done(), "it has ended"

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            if line.endswith(b"\n"):  # else it was killed while it said it
                self._note(json.loads(line))

    def _note(self, said: dict[str, Any]) -> None:
        match said:
            case {"heard": identity, "on": channel, "token": token, "gap": gap}:
                if gap:
                    self.gaps[channel].append(len(self.heard[channel]))
                self.heard[channel].append(identity)
                self.heard_at[identity] = time.perf_counter()
                self.tokens[channel] = token
            case {"tried": ids, "on": channels}:
                self.batches.append(ids)
                self.channels.update(zip(ids, channels, strict=True))
                self.outcomes.update(dict.fromkeys(ids, "doubted"))
            case {"accepted": ids}:
                self.outcomes.update(dict.fromkeys(ids, "accepted"))
            case {"refused": ids}:
                self.outcomes.update(dict.fromkeys(ids, "refused"))
            case {"live": channel}:
                self._live.add(channel)
                self.begun.append((channel, len(self.heard[channel])))
            case {"connected": connected}:
                self.connected = connected
            case {"paused": True}:
                self.paused.set()
            case {"lost": channel}:
                self.gaps[channel].append(len(self.heard[channel]))

    def accepted_on(self, channel: str) -> set[str]:
        return {
            identity
            for identity, outcome in self.outcomes.items()
            if outcome == "accepted" and self.channels[identity] == channel
        }

    def tell(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n".encode())

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()
        await self._reading

    async def close(self) -> None:
        if self._process.returncode is None:
            assert self._process.stdin
            self._process.stdin.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), 10)
        if self._process.returncode is None:
            await self.kill()
            raise AssertionError("it did not end")
        await self._reading


class Fleet:
    """The server, the proxies, the three processes, and a manager of this one that nothing is done to."""

    def __init__(self, kind: str, server: Server, proxies: list[Proxy], control: SubscriptionManager) -> None:
        self.kind = kind
        self.server = server
        self.proxies = proxies
        self.random = random.Random(f"{SEED} {kind}")
        self.control = control
        self.workers: list[Worker] = []
        #: What the last of them was given, which no proxy is before unless all are behind one.
        self.given: dict[str, Any] = {}
        self._markers = count()
        #: How much each had heard on each channel when the scenario began.
        self._since: dict[str, dict[str, int]] = {}
        self.notes: list[str] = []

    @property
    def proxied(self) -> list[Worker]:
        return self.workers[: len(self.proxies)]

    def some_time(self, least: float, most: float) -> Awaitable[None]:
        """The load goes on meanwhile."""
        return asyncio.sleep(self.random.uniform(least, most))

    # ---- the load ----

    async def begin(self) -> None:
        self.notes.clear()
        await self.pause()  # where the scenario before has failed, its load goes on
        self._since = {worker.name: {on: len(worker.heard[on]) for on in CHANNELS} for worker in self.workers}
        for worker in self.workers:
            for gaps in worker.gaps.values():
                gaps.clear()
            worker.outcomes.clear()
            worker.batches.clear()
            worker.tell("publish")
        await self.some_time(0.1, 0.2)

    async def pause(self) -> dict[str, str]:
        """Ends the load; everybody has heard everything."""
        for worker in self.workers:
            worker.paused.clear()
            worker.tell("pause")
        for worker in self.workers:
            await asyncio.wait_for(worker.paused.wait(), 20)
        return await self.settle()

    async def mark(self) -> dict[str, str]:
        """An event on each channel, which nothing is in doubt about."""
        marks = {}
        for channel in CHANNELS:
            while True:
                identity = f"mark:{next(self._markers)}"
                try:
                    await self.control.publish_event("told", channel, {"id": identity})
                except BusUnavailable:
                    await asyncio.sleep(0.01)
                except PublishUnknown:
                    pass  # it may be heard too, as any mark
                else:
                    break
            marks[channel] = identity
        return marks

    async def settle(self) -> dict[str, str]:
        """Returns when everybody has heard everything."""
        marks = await self.mark()

        def missing() -> list[str]:
            return [
                f"{worker.name} on {on}"
                for worker in self.workers
                for on in CHANNELS
                if marks[on] not in worker.heard_at
            ]

        deadline = time.perf_counter() + FOUND + 2 * GOES_ON
        while missing():
            assert time.perf_counter() < deadline, f"an accepted event was not heard by {missing()}"
            await asyncio.sleep(0.005)
        return marks

    async def is_told(self) -> None:
        """Everybody's `health()` says in time that the bus is away."""
        refused = time.perf_counter()
        await until(lambda: not any([self.control.health()["ok"], *(worker.connected for worker in self.workers)]))
        took = time.perf_counter() - refused
        self.notes.append(f"told after {took:.2f} s")
        assert took < TOLD, f"health() said after {took:.2f} s that the bus is away"

    async def is_well(self) -> None:
        """And that it is there again."""
        back = time.perf_counter()
        await until(lambda: all([self.control.health()["ok"], *(worker.connected for worker in self.workers)]))
        took = time.perf_counter() - back
        self.notes.append(f"well after {took:.2f} s")
        assert took < GOES_ON, f"health() said after {took:.2f} s that the bus is back"

    async def is_back(self, *, within: float = GOES_ON) -> None:
        """From now on delivery goes on in time, for everybody."""
        back = time.perf_counter()
        marks = await self.settle()
        took = max(worker.heard_at[mark] - back for worker in self.workers for mark in marks.values())
        self.notes.append(f"{took:.2f} s until all hear again")
        assert took < within, f"delivery went on after {took:.2f} s"

    async def end(self, name: str) -> None:
        """Stops the load and balances the books."""
        marks = await self.pause()
        outcomes = {identity: how for worker in self.workers for identity, how in worker.outcomes.items()}
        heard = set().union(*(self._compare(on, marks[on], outcomes) for on in CHANNELS))
        how = {kind: {identity for identity in outcomes if outcomes[identity] == kind} for kind in OUTCOMES}
        lost = how["accepted"] - heard
        assert not lost, f"{len(lost)} lost: {sorted(lost)[:10]}"
        ever = {identity for on in CHANNELS for identity in self.workers[0].heard[on]}
        torn = [batch for worker in self.workers for batch in worker.batches if len({one in ever for one in batch}) > 1]
        assert not torn, f"a part of a batch was heard: {torn[:10]}"
        gaps = [worker.name for worker in self.workers if any(worker.gaps.values())]
        assert not gaps, f"a gap was told to {gaps}"
        print(
            f"\n{self.kind}, {name}: {len(how['accepted'])} accepted and heard by {len(self.workers)} processes, "
            f"{len(how['doubted'])} in doubt ({len(how['doubted'] & heard)} heard), {len(how['refused'])} refused; "
            f"0 lost, 0 twice, 0 out of order; {'; '.join(self.notes)}"
        )

    def slice(self, worker: Worker, on: str, mark: str) -> list[str]:
        """What it has heard on a channel since the scenario began, up to a mark."""
        whole = worker.heard[on]
        return whole[self._since[worker.name][on] : whole.index(mark) + 1]

    def _compare(self, on: str, mark: str, outcomes: dict[str, str]) -> set[str]:
        """What was heard on a channel: by all the same, in one order, once, and nothing that was refused."""
        slices = []
        for worker in self.workers:
            times = Counter(worker.heard[on])
            slices.append(self.slice(worker, on, mark))
            twice = [identity for identity in slices[-1] if times[identity] > 1]
            begun = [whole for whole in worker.begun if whole[0] == on]
            assert not twice, f"{worker.name} heard {len(twice)} twice on {on}: {twice[:10]}; it subscribed at {begun}"
        first, *others = slices
        for worker, other in zip(self.workers[1:], others, strict=True):
            alone = [sorted(one)[:10] for one in ({*first} - {*other}, {*other} - {*first})]
            assert alone == [[], []], f"{on}: {self.workers[0].name} and {worker.name} heard alone {alone}"
            assert first == other, f"{on}: {worker.name} heard another order"
        refused = [identity for identity in first if outcomes.get(identity) == "refused"]
        assert not refused, f"refused, and heard: {refused[:10]}"
        latest: dict[str, int] = {}
        for identity in first:
            publisher, _, number = identity.partition(":")
            if publisher != "mark":
                assert int(number.split(".")[0]) > latest.get(publisher, 0), f"{identity} after {latest[publisher]}"
                latest[publisher] = int(number.split(".")[0])
        return {*first}


@pytest.fixture(scope="module", params=KINDS)
def lasting_server(request: pytest.FixtureRequest) -> Any:
    server = started(SERVERS[request.param], *LASTING[request.param])
    yield request.param, server
    server.close()


@contextlib.asynccontextmanager
async def gathered(kind: str, server: Server, *, is_fronted: bool = False) -> AsyncIterator[Fleet]:
    """A fleet; where it is fronted nobody reaches the server but through a proxy."""
    application = unheard()
    async with contextlib.AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(server.port)) for _ in range(3 if is_fronted else 2)]
        urls = [*(proxy.through(server.url) for proxy in proxies), server.url][:3]
        options: dict[str, Any] = {"connect_timeout": 10, "publish_timeout": 1.0}
        bus = config(kind, urls[-1], application, **options)
        control = await stack.enter_async_context(SubscriptionManager(bus_worker.SCHEMA, bus))
        fleet = Fleet(kind, server, proxies, control)
        for name, url in zip("xyz", urls, strict=True):
            fleet.given = {"kind": kind, "url": url, "application": application, "options": options}
            worker = Worker(name, fleet.given)
            await worker.start()
            stack.push_async_callback(worker.close)
            fleet.workers.append(worker)
        # Everybody has a token for every channel, in case that it is killed.
        await fleet.settle()
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(lasting_server: tuple[str, Server]) -> AsyncIterator[Fleet]:
    async with gathered(*lasting_server) as fleet:
        yield fleet


# ---- what goes wrong ----


async def cut(fleet: Fleet) -> None:
    for _ in range(6):
        fleet.random.choice(fleet.proxies).cut()
        await fleet.some_time(0.05, 0.4)
    for proxy in fleet.proxies:
        proxy.cut()


async def refused(fleet: Fleet) -> None:
    for proxy in fleet.proxies:
        await proxy.refuse()
    await fleet.some_time(0.8, 1.5)
    for proxy in fleet.proxies:
        await proxy.accept()


async def stalled(fleet: Fleet) -> None:
    for proxy in fleet.proxies:
        proxy.stall()
    await fleet.some_time(1.2, 2)
    for proxy in fleet.proxies:
        proxy.forward()


async def late(fleet: Fleet) -> None:
    for _ in range(4):
        for proxy in fleet.proxies:
            proxy.delay = fleet.random.uniform(0.02, 0.2)
        await fleet.some_time(0.2, 0.4)
    for proxy in fleet.proxies:
        proxy.forward()


async def half_open(fleet: Fleet) -> None:
    for direction in BOTH:
        for proxy in fleet.proxies:
            proxy.stall([direction])
        await fleet.some_time(0.3, 1.2)
        for proxy in fleet.proxies:
            proxy.cut()
            proxy.forward()
        await fleet.some_time(0.2, 0.4)


async def cut_in_a_reply(fleet: Fleet) -> None:
    for _ in range(12):
        fleet.random.choice(fleet.proxies).cut_in_reply(fleet.random.choice([1, 2, 3, 5, 20, 100, 1000, 5000]))
        await fleet.some_time(0.05, 0.2)
    for proxy in fleet.proxies:
        proxy.forward()


async def server_killed(fleet: Fleet) -> None:
    for _ in range(2):
        await asyncio.to_thread(fleet.server.kill)
        await fleet.some_time(0.1, 0.6)
        await asyncio.to_thread(fleet.server.start)
        await fleet.is_back()
        await fleet.some_time(0.1, 0.3)


async def server_silent(fleet: Fleet) -> None:
    fleet.server.pause()
    await fleet.some_time(1.2, 2)
    fleet.server.resume()


async def process_killed(fleet: Fleet) -> None:
    """Each in turn, the one that gives positions among them, where there is such a one."""
    for worker in fleet.random.sample(fleet.workers, 3):
        await worker.kill()
        others, fleet.workers = fleet.workers, [one for one in fleet.workers if one is not worker]
        await fleet.is_back()
        fleet.workers = others
        await worker.start()
        worker.tell("publish")


async def silent_peer(fleet: Fleet) -> None:
    """A connection dies without a word, as behind a NAT that forgot it; new ones would work."""
    for proxy in fleet.proxies:
        proxy.silence()
    await fleet.is_back(within=FOUND + GOES_ON)
    for proxy in fleet.proxies:
        proxy.forward()  # or the server's connections would become too many


SCENARIOS: dict[str, Callable[[Fleet], Awaitable[None]]] = {
    "cut": cut,
    "refused": refused,
    "stalled": stalled,
    "late": late,
    "half-open": half_open,
    "cut in a reply": cut_in_a_reply,
    "server killed": server_killed,
    "server silent": server_silent,
    "process killed": process_killed,
    "silent peer": silent_peer,
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_the_books_balance(fleet, scenario, turn):
    print(f"\nFAULTS_SEED={SEED}")
    await fleet.begin()
    await SCENARIOS[scenario](fleet)
    await fleet.is_back(within=FOUND + GOES_ON if scenario == "silent peer" else GOES_ON)
    await fleet.some_time(0.1, 0.3)
    await fleet.end(scenario)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("lasting_server", [kind for kind in KINDS if kind != "postgresql"], indirect=True)
async def test_what_a_flush_under_load_has_lost_is_told_to_all_and_nothing_else_is_wrong(fleet, turn):
    await fleet.begin()
    away, worker_away = fleet.proxies[0], fleet.workers[0]
    await away.refuse()
    await until(lambda: not worker_away.connected)
    await fleet.some_time(0.2, 0.4)
    with redis.Redis.from_url(fleet.server.url) as client:
        await asyncio.to_thread(client.flushall)
    await fleet.some_time(0.1, 0.3)
    await away.accept()
    await until(lambda: worker_away.connected)  # what comes before may be a part of the gap
    await fleet.is_back()
    marks = await fleet.pause()
    lost = 0
    for on in CHANNELS:
        slices = [fleet.slice(worker, on, marks[on]) for worker in fleet.workers]
        common = {*slices[0]}.intersection(*slices)
        # Whoever lacks what was accepted, or what another has heard, was told of a gap.
        accepted = {identity for worker in fleet.workers for identity in worker.accepted_on(on)}
        for worker, part in zip(fleet.workers, slices, strict=True):
            missing = (accepted | {*chain(*slices)}) - {*part}
            lost += len(missing)
            assert worker.gaps[on], f"no gap was told to {worker.name} on {on}, which lacks {sorted(missing)[:10]}"
            assert len(part) == len({*part}), f"{worker.name} heard twice on {on}"
            assert [one for one in part if one in common] == [one for one in slices[0] if one in common]
    assert lost, "nothing was lost: nothing was tried"
    print(
        f"\n{fleet.kind}, flushed: a gap told on each channel to each of 3 processes, {lost} lost, 0 twice, "
        "0 out of order"
    )
    # In the new epoch the books balance again.
    await fleet.begin()
    await fleet.some_time(0.3, 0.5)
    await fleet.end("after a flush")


# ---- a server that is there, and takes nothing ----


def administer(server: Server, *commands: str) -> None:
    """By words as a command line has them, or by SQL."""
    if isinstance(server, PostgreSQL):
        with psycopg.connect(server.url, autocommit=True) as connection:
            for command in commands:
                connection.execute(command.encode())
    else:
        with redis.Redis.from_url(server.url) as client:
            for command in commands:
                client.execute_command(*command.split())


READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}"
RELOAD = "SELECT pg_reload_conf()"
#: By name: what makes a server take nothing, its connections kept, and what lets it take everything again.
REFUSALS = {
    "demoted": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    "full": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
    "read-only": ([READ_ONLY.format("on"), RELOAD], [READ_ONLY.format("off"), RELOAD]),
}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize(
    ("lasting_server", "refusal"),
    [(kind, how) for kind in SERVERS for how in REFUSALS if (kind == "postgresql") == (how == "read-only")],
    indirect=["lasting_server"],
    scope="module",
)
async def test_a_server_that_takes_nothing_is_told_and_the_books_balance(fleet, refusal, turn):
    print(f"\nFAULTS_SEED={SEED}")
    refuse, accept = REFUSALS[refusal]
    await fleet.begin()
    await asyncio.to_thread(administer, fleet.server, *refuse)
    await fleet.is_told()
    await fleet.some_time(0.3, 0.6)
    assert not any([fleet.control.health()["ok"], *(worker.connected for worker in fleet.workers)])
    await asyncio.to_thread(administer, fleet.server, *accept)
    await asyncio.gather(fleet.is_well(), fleet.is_back())
    await fleet.some_time(0.1, 0.3)
    await fleet.end(refusal)


def stored(server: Server, application: str, channel: str) -> list[str]:
    """What a Redis has of a channel, in its order."""
    with redis.Redis.from_url(server.url) as client:
        entries: Any = client.xrange(f"{application}:s:{channel}")
    return [json.loads(fields[b"e"])["data"]["id"] for _, fields in entries]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(ROUNDS))
@pytest.mark.parametrize("kind", [kind for kind in SERVERS if kind != "postgresql"])
async def test_what_a_replacement_never_received_is_told_and_what_it_has_is_heard(kind, turn, start_server):
    """Behind one address another server takes the place of one that is demoted, which had accepted more by then."""
    server = start_server(SERVERS[kind], "repl-diskless-sync-delay 0")
    follows = [f"replicaof 127.0.0.1 {server.port}", f"masterauth {server.password}"]
    async with gathered(kind, server, is_fronted=True) as fleet:
        other = start_server(SERVERS[kind], f"requirepass {server.password}", *follows)
        other.password = server.password
        with redis.Redis.from_url(other.url) as client:
            await until(lambda: client.info("replication")["master_link_status"] == "up")
        await fleet.begin()
        await asyncio.to_thread(administer, other, "REPLICAOF NO ONE")
        await fleet.some_time(0.2, 0.4)
        for proxy in fleet.proxies:
            proxy.lead_to(other.port)
        demote = [f"CONFIG SET masterauth {server.password}", f"REPLICAOF 127.0.0.1 {other.port}"]
        await asyncio.to_thread(administer, server, *demote)
        await fleet.is_back()
        await fleet.some_time(0.3, 0.5)
        marks = await fleet.pause()
        lost = kept = 0
        for on in CHANNELS:
            parts = [fleet.slice(worker, on, marks[on]) for worker in fleet.workers]
            has = await asyncio.to_thread(stored, other, fleet.given["application"], on)
            known = {*chain(*parts), *chain(*(worker.accepted_on(on) for worker in fleet.workers))}
            gone = known - {*has}
            lost += len(gone)
            for worker, part in zip(fleet.workers, parts, strict=True):
                begun = [one for one in has[: has.index(marks[on]) + 1] if one in known]
                kept += len(begun)
                assert [one for one in part if one not in gone] == begun, f"{worker.name} on {on}"
                assert len(part) == len({*part}), f"{worker.name} heard twice on {on}"
                assert worker.gaps[on], f"no gap was told to {worker.name} on {on}"
        assert lost, "nothing was lost: nothing was tried"
        print(
            f"\n{kind}, replaced: {lost} that the replacement never received, told by a gap on each channel to each of "
            f"3 processes; {kept} that it has, 0 of them lost, 0 twice, 0 out of order; {'; '.join(fleet.notes)}"
        )
        # In the new epoch the books balance again.
        await fleet.begin()
        await fleet.some_time(0.2, 0.3)
        await fleet.end("after a replacement")


# ---- another version on the same bus ----


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(ROUNDS))
async def test_an_old_version_beside_a_new_one_hears_it_and_is_heard(fleet, turn):
    """While what a newer version needs of a database is installed, which older ones do not know."""
    old = Worker(f"old{turn}-", fleet.given, old_worker)
    await old.start()
    fleet.workers.append(old)
    try:
        await fleet.begin()
        await fleet.some_time(0.3, 0.5)
        if fleet.kind == "postgresql":
            step = f"ALTER TABLE {fleet.given['application']}.event ADD IF NOT EXISTS later text DEFAULT 'later'"
            steps = [""] * (databases.VERSION - 1) + [step]
            newer = _core.postgres_sql(fleet.given["application"], steps)
            await asyncio.to_thread(administer, fleet.server, newer)
        await fleet.some_time(0.3, 0.5)
        publishers = {worker.name for worker in fleet.workers if "accepted" in worker.outcomes.values()}
        assert publishers == {"x", "y", "z", old.name}
        await fleet.end("an old version beside a new one")
        await a_revocation_is_heard(fleet)
        lines = await what_a_newer_one_says_is_skipped(fleet)
        said = f'"a": .*version {old_worker.VERSION + 1}'
        assert [bool(re.search(said, line)) for line in lines] == [True] * (turn == 0)  # told once a channel
    finally:
        fleet.workers.remove(old)
        await old.close()


async def a_revocation_is_heard(fleet: Fleet) -> None:
    """Of the old version, by the new one."""
    viewer = SecurityContext(user_id="u")
    stream = fleet.control.subscribe(bus_worker.TOLD, variables={"on": "a"}, context=viewer)
    async with stream, old_worker.old(fleet.given) as older:
        await older.publish_events([Event("revoke", old_worker.REVOKE, {"user_id": "u"})])
        with pytest.raises(Forbidden):
            await asyncio.wait_for(anext(stream), GOES_ON)


async def what_a_newer_one_says_is_skipped(fleet: Fleet) -> list[str]:
    """A version that publishes in another form stops nobody; what is logged of it."""
    stream = fleet.control.subscribe(bus_worker.TOLD, variables={"on": "a"}, framing="result")
    async with stream, old_worker.old(fleet.given) as newer:
        skipped = fleet.control.get_metrics()["bus_skipped"]
        with logged() as log:
            await newer.publish_events([Event("told", "a", {"id": "newer"})], version=old_worker.VERSION + 1)
            marks = await fleet.settle()
            assert json.loads(await anext(stream)) == {"data": {"told": {"id": marks["a"]}}}
            lines = log.take()
        assert fleet.control.get_metrics()["bus_skipped"] == skipped + 1
    assert not any("newer" in worker.heard_at or any(worker.gaps.values()) for worker in fleet.workers)
    return lines
