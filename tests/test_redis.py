"""What is Redis' and Valkey's own: rights, what a crash loses, what is kept at the server, what the options mean."""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from fraiseql_subs import BusUnavailable, EventBusConfig, HistoryLost, PublishUnknown, SubscriptionManager
from fraiseql_subs.servers import Server

from .buses import SCHEMA, config, heard, tell, token, token_now, watch
from .servers import SERVERS, unheard
from .sockets import until
from .support import take

KINDS = [name for name in SERVERS if name != "postgresql"]
DOCUMENTED = Path(__file__).parents[1] / "rust/engine/src/bus/redis/mod.rs"


@pytest.fixture(params=KINDS)
async def private(request, start_server):
    """A server of the test's own."""
    return start_server(SERVERS[request.param])


def manager_of(url: str, application: str, **options: Any) -> SubscriptionManager:
    return SubscriptionManager(SCHEMA, config("redis", url, application, **options))


def rights() -> list[str]:
    """What the bus's documentation says that a user needs."""
    text = re.sub(r"\n//! ", " ", DOCUMENTED.read_text())
    [line] = re.findall(r"`ACL SETUSER app on >secret (.*?)`", text)
    return line.split()


async def up_to(stream: AsyncIterator[bytes], n: int) -> list[dict[str, Any]]:
    """What comes, up to this event."""
    results = await take(stream)
    while results[-1]["data"] != {"numbered": {"n": n}}:
        results += await take(stream)
    return results


async def test_a_user_with_the_documented_rights_can_do_everything(private):
    with redis.Redis.from_url(private.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *rights())
    url = f"redis://app:secret@127.0.0.1:{private.port}"
    here, there = manager_of(url, "app"), manager_of(url, "app")
    async with here, there, watch(there, "c") as stream:
        await tell(here, "c", 1, 2)
        assert await heard(stream, 2) == [1, 2]
        after = await token_now(here, "c")
        assert await heard(stream, 1) == [-1]
        await here.revoke(user_id="u")
        with redis.Redis.from_url(private.url) as admin:
            # Foreign entries have to be cleared away, which takes other commands.
            admin.xadd("app:s:c", {"x": "y"}, id=f"{2**63}-0")
            await tell(here, "c", 3)
            admin.client_kill_filter(_type="pubsub")
        await tell(here, "c", 4)
        assert await heard(stream, 2) == [3, 4]
        async with watch(there, "c", resume=after) as resumed:
            assert [one["data"]["numbered"]["n"] for one in await take(resumed, 2)] == [3, 4]


@pytest.mark.parametrize("missing", ["xadd", "publish", "subscribe", "eval", "pexpire", "info"])
async def test_a_missing_right_is_told_at_entry(private, missing):
    allowed = [right for right in rights() if right != f"+{missing}"]
    with redis.Redis.from_url(private.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *allowed)
    with pytest.raises(BusUnavailable) as raised:
        await manager_of(f"redis://app:secret@127.0.0.1:{private.port}", "app").__aenter__()
    assert f"127.0.0.1:{private.port}" in str(raised.value)
    assert re.search("permissions|can't run this command", str(raised.value))
    assert "secret" not in str(raised.value)


async def test_another_applications_rights_do_not_reach(private):
    with redis.Redis.from_url(private.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *rights())
    with pytest.raises(BusUnavailable, match=r"permissions|can't access"):
        await manager_of(f"redis://app:secret@127.0.0.1:{private.port}", "apple").__aenter__()


async def test_cluster_mode_is_refused(start_server):
    server = start_server(SERVERS[KINDS[0]], "cluster-enabled yes")
    with pytest.raises(BusUnavailable, match="cluster mode"):
        await manager_of(server.url, "app").__aenter__()


async def test_a_replica_is_refused(private, start_server):
    replica = start_server(SERVERS[KINDS[0]], f"replicaof 127.0.0.1 {private.port}")
    with pytest.raises(BusUnavailable, match="replica"):
        await manager_of(replica.url, "app").__aenter__()


@pytest.mark.parametrize("busy", [False, True])
async def test_what_a_crash_took_of_what_was_accepted_is_noticed(private, busy):
    """The server comes back with most of what it had: only who has seen the rest can know."""
    application = unheard()
    here, there = manager_of(private.url, application), manager_of(private.url, application)
    async with here, there, watch(here, "a") as a, watch(there, "b") as b:
        await tell(here, "a", 1)
        assert await heard(a, 1) == [1]
        old = await token_now(there, "b")
        assert await heard(b, 1) == [-1]
        with redis.Redis.from_url(private.url) as admin:
            admin.save()
            # Others must not bring the server's own snapshots into this.
            admin.config_set("save", "")
            await tell(here, "a", 2)
            assert await heard(a, 1) == [2]
            await asyncio.to_thread(private.kill)
            await asyncio.to_thread(private.start)
        if busy:
            await tell(there, "b", 5)
        await until(lambda: here.health()["ok"] and there.health()["ok"])
        await asyncio.sleep(1.2)  # a pulse, and what follows from it
        await tell(there, "a", 3)
        await tell(there, "b", 6)
        [result] = await take(a)
        assert result == {"data": {"numbered": {"n": 3}}, "extensions": {"gap": True}}
        results = await up_to(b, 6)
        # What came between the crash and its discovery is behind the gap, or lost with the rest.
        assert [one["data"]["numbered"]["n"] for one in results] in ([6], [5, 6])[: 1 + busy]
        assert sum(one.get("extensions") == {"gap": True} for one in results) == 1
        with pytest.raises(HistoryLost):
            await watch(there, "b", resume=old).__aenter__()


async def test_a_clean_restart_is_no_gap(start_server):
    server = start_server(SERVERS[KINDS[0]], "appendonly yes", "appendfsync always")
    here = manager_of(server.url, unheard())
    async with here, watch(here, "c") as stream:
        await tell(here, "c", 1)
        await asyncio.to_thread(server.kill)
        publishing = asyncio.create_task(tell(here, "c", 2))  # waits for the server, within its time
        await asyncio.to_thread(server.start)
        await publishing
        assert await heard(stream, 2) == [1, 2]


# ---- a server that is there, and takes nothing ----


def demote(admin: Any, server: Server) -> Callable[[], object]:
    """It becomes a replica, of nobody who is there, and keeps its connections."""
    admin.replicaof("127.0.0.1", 1)
    return lambda: admin.replicaof("NO", "ONE")


def part_from_its_primary(admin: Any, server: Server) -> Callable[[], object]:
    admin.config_set("replica-serve-stale-data", "no")
    admin.replicaof("127.0.0.1", 1)
    return lambda: admin.replicaof("NO", "ONE")


def fill(admin: Any, server: Server) -> Callable[[], object]:
    admin.config_set("maxmemory", 1)
    return lambda: admin.config_set("maxmemory", 0)


def fail_to_save(admin: Any, server: Server) -> Callable[[], object]:
    """Where its file should be is a directory."""
    (server.directory / "dump.rdb").mkdir()
    admin.config_set("save", "3600 1")
    admin.bgsave()
    while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)
    return lambda: admin.config_set("save", "")


def miss_replicas(admin: Any, server: Server) -> Callable[[], object]:
    admin.config_set("min-replicas-to-write", 1)
    return lambda: admin.config_set("min-replicas-to-write", 0)


def take_rights(admin: Any, server: Server) -> Callable[[], object]:
    admin.execute_command("ACL", "SETUSER", "app", "-@write")
    return lambda: admin.execute_command("ACL", "SETUSER", "app", *rights())


REFUSING = {
    "READONLY": demote,
    "MASTERDOWN": part_from_its_primary,
    "OOM": fill,
    "MISCONF": fail_to_save,
    "NOREPLICAS": miss_replicas,  # Redis 6.2 does not ask scripts for replicas
    "ACL failure in script|user executing the script": take_rights,
}


@pytest.mark.parametrize(
    ("private", "said"),
    [(kind, said) for kind in KINDS for said in REFUSING if (kind, said) != ("redis", "NOREPLICAS")],
    indirect=["private"],
)
async def test_a_server_that_takes_nothing_is_told_at_once_and_gone_back_to(private, said, caplog):
    with redis.Redis.from_url(private.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *rights())
        url = f"redis://app:secret@127.0.0.1:{private.port}"
        here, idle = (manager_of(url, "app", publish_timeout=1.0) for _ in range(2))
        async with here, idle, watch(idle, "c", resume=True) as stream:
            await tell(here, "c", 1)
            [first] = await take(stream)
            recover = await asyncio.to_thread(REFUSING[said], admin, private)
            refused = time.perf_counter()
            with pytest.raises(BusUnavailable):
                await tell(here, "c", 2)
            # Who publishes nothing notices too; and it stays so.
            for _ in range(3):
                await until(lambda: not here.health()["ok"] and not idle.health()["ok"])
                await asyncio.sleep(0.1)
            assert time.perf_counter() - refused < 2
            assert [bool(re.search(f"is away: .*({said})", line)) for line in caplog.messages] == [True] * 2
            resuming = asyncio.ensure_future(watch(idle, "c", resume=token(first)).__aenter__())
            await asyncio.to_thread(recover)
            back = time.perf_counter()
            await until(lambda: here.health()["ok"] and idle.health()["ok"])
            await tell(here, "c", 3)
            assert [said_by(one) for one in await take(stream)] == [(3, None)]
            assert time.perf_counter() - back < 2
            async with await resuming as resumed:
                assert [said_by(one) for one in await take(resumed)] == [(3, None)]


async def test_a_right_that_is_taken_away_while_it_runs_is_told_and_not_forgotten(private):
    """The connection would be well: only what is published is refused."""
    with redis.Redis.from_url(private.url) as admin:
        admin.execute_command("ACL", "SETUSER", "app", "on", ">secret", *rights())
        async with manager_of(f"redis://app:secret@127.0.0.1:{private.port}", "app") as manager:
            admin.execute_command("ACL", "SETUSER", "app", "-xadd")
            with pytest.raises(BusUnavailable):
                await tell(manager, "c", 1)
            await until(lambda: not manager.health()["ok"])
            await asyncio.sleep(1)
            assert not manager.health()["ok"]
            assert not admin.exists("app:s:c")
            admin.execute_command("ACL", "SETUSER", "app", "+xadd")
            await until(lambda: manager.health()["ok"])
            await tell(manager, "c", 2)
            # Where something may have been written before, nobody knows.
            admin.execute_command("ACL", "SETUSER", "app", "-pexpire")
            with pytest.raises(PublishUnknown):
                await tell(manager, "c", 3)
            assert admin.xlen("app:s:c") == 2


async def test_the_url_is_resolved_again_at_each_attempt(private, start_server, tmp_path):
    """Its name stands for another server since: the one that it stood for is demoted, and keeps its connections."""
    other = start_server(type(private), f"requirepass {private.password}")
    name = tmp_path / "name"
    name.symlink_to(private.directory / "socket")
    manager = manager_of(f"unix://{name}?pass={private.password}", unheard())
    async with manager, watch(manager, "c") as stream:
        await tell(manager, "c", 1)
        assert await heard(stream, 1) == [1]
        name.unlink()
        name.symlink_to(other.directory / "socket")
        with redis.Redis.from_url(private.url) as admin:
            admin.replicaof("127.0.0.1", 1)
        moved = time.perf_counter()
        await until(lambda: manager.get_metrics()["bus_reconnects"] == 1)
        await tell(manager, "c", 2)
        assert time.perf_counter() - moved < 2
        # It has nothing of what the former one had.
        assert [said_by(one) for one in await take(stream)] == [(2, {"gap": True})]


def said_by(result: dict[str, Any]) -> tuple[int, Any]:
    """The number, and what else than a token came with it."""
    extensions = {name: value for name, value in result.get("extensions", {}).items() if name != "eventId"}
    return result["data"]["numbered"]["n"], extensions or None


async def test_a_call_that_arrives_again_is_done_once(private):
    """As when a reply was lost, or when what was given up arrives late."""
    application = unheard()
    async with manager_of(private.url, application) as manager, watch(manager, "c") as stream:
        with redis.Redis.from_url(private.url) as admin, admin.monitor() as monitor:
            await tell(manager, "c", 1)
            assert await heard(stream, 1) == [1]
            commands = (line["command"] for line in monitor.listen() if "told" in line["command"])
            name, *arguments = shlex.split(next(commands).replace("\\n", "\n"))
            assert name == "EVALSHA"
            assert arguments[7] == "first"
            for mode in ("first", "again", "look"):
                arguments[7] = mode
                assert admin.execute_command(name, *arguments).startswith(arguments[9].encode())
            # Of another call nothing is known.
            arguments[7:9] = ["look", "another"]
            assert admin.execute_command(name, *arguments) == b""
            arguments[7:10] = ["again", "another", "0" * 16]
            assert admin.execute_command(name, *arguments) == b""
        await tell(manager, "c", 2)
        assert await heard(stream, 1) == [2]


async def test_keys_go_when_their_time_has_come(private):
    application = unheard()
    async with manager_of(private.url, application, history=2, history_age=0.5, publish_timeout=0.3) as manager:
        with redis.Redis.from_url(private.url) as admin:
            await tell(manager, "c", 1, 2, 3)
            assert admin.xlen(f"{application}:s:c") == 2
            await until(lambda: not admin.exists(f"{application}:s:c"))
            await until(lambda: not list(admin.scan_iter(f"{application}:i:*")))
            assert 86_400_000 - 60_000 < admin.pttl(f"{application}:l:c") <= 86_400_500
            forever = [key for key in admin.scan_iter(f"{application}:*") if admin.pttl(key) == -1]
            assert forever == [f"{application}:clock".encode()]


async def test_without_history_the_server_keeps_nothing(private):
    application = unheard()
    async with manager_of(private.url, application, history=0) as manager, watch(manager, "c") as stream:
        await tell(manager, "c", 1)
        assert await heard(stream, 1) == [1]
        with redis.Redis.from_url(private.url) as admin:
            assert not admin.exists(f"{application}:s:c")
            # What is missed meanwhile cannot be read: it is told.
            admin.client_kill_filter(_type="pubsub")
            await tell(manager, "c", 2, 3)
        await until(lambda: manager.get_metrics()["bus_reconnects"] == 1)
        await tell(manager, "c", 4)
        results = await up_to(stream, 4)
        numbers = [one["data"]["numbered"]["n"] for one in results]
        gaps = [one.get("extensions") == {"gap": True} for one in results]
        assert numbers == sorted({*numbers})
        assert sum(gaps) == (1 if len(numbers) < 3 else 0)


async def test_groups_whose_names_look_alike_share_nothing(private):
    names = ["a", "a:b", "a%3Ab", "a%"]
    with redis.Redis.from_url(private.url) as admin:
        for name in names:
            before = set(admin.scan_iter("*"))
            async with manager_of(private.url, name) as manager:
                await tell(manager, "b:s:c", 1)
            assert not before & {key for key in admin.scan_iter("*") if key not in before}
            own = set(admin.scan_iter("*")) - before
            assert len({key.split(b":")[0] for key in own}) == 1
        assert len({key.split(b":")[0] for key in admin.scan_iter("*")}) == len(names)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://:secret@localhost"},
        {"url": "redis://:secret@localhost?protocol=3"},
        {"url": "rediss://:secret@localhost#insecure"},
        {"consumer_group": ""},
        {"history": -1},
        {"history": 2**32},
        {"history_age": 0},
        {"history_age": float("nan")},
        {"connect_timeout": -1},
        {"publish_timeout": float("inf")},
    ],
)
def test_wrong_options_are_refused_at_once(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as raised:
        EventBusConfig.redis(**{"url": "redis://localhost", **wrong})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "wrong", [{"url": b"redis://"}, {"consumer_group": None}, {"history": True}, {"history_age": "1"}]
)
def test_wrong_types_are_refused_at_once(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        EventBusConfig.redis(**{"url": "redis://localhost", **wrong})


def test_a_configuration_does_not_show_its_password():
    assert "secret" not in repr(EventBusConfig.redis("redis://:secret@localhost"))
